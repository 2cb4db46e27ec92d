"""What the model builders share: reading names, terms and random blocks from keywords."""

from collections.abc import Iterable, Mapping, Sequence, Set

from psymech.arguments import mapping
from psymech.errors import SpecError
from psymech.names import INTERCEPT, LEVELS, PARTS, TIME, Level, Part
from psymech.spec.model import Factor, RandomBlock, Role, Term, TimeShape

RandomTerms = Mapping[str, Sequence[str] | None] | None


def intercept() -> Term:
    """The constant column."""
    return Term(INTERCEPT, (), "intercept")


def time_terms(shape: TimeShape | None) -> tuple[Term, ...]:
    """Terms of the time basis: ``time``, and its companions."""
    if shape is None:
        return ()
    return tuple(Term(label, (Factor(TIME, basis=i),), "time") for i, label in enumerate(shape.labels))


def names_of(value: Iterable[str] | str, argument: str) -> tuple[str, ...]:
    """Read a sequence of column names; one string is one name."""
    if not isinstance(value, Iterable):
        raise SpecError(f"{argument}: expected column names, found {value!r}.")
    if isinstance(value, Set):
        raise SpecError(f"{argument}: expected column names in an order, found a set. Use a list.")
    names = (value,) if isinstance(value, str) else tuple(value)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise SpecError(f"{argument}: expected column names, found {name!r}.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(f"{argument} names {twice[0]!r} more than once.")
    return names


def check_correlated(correlated: bool | Mapping[Level, bool]) -> None:
    """Raise SpecError where `correlated` is neither True, False nor a mapping of levels to them."""
    if not isinstance(correlated, bool):
        mapping(correlated, "correlated", "{'therapist': False}")


def correlates(correlated: bool | Mapping[Level, bool], level: Level) -> bool:
    """Whether the random terms of a level correlate: as they do where nothing else is said."""
    return correlated if isinstance(correlated, bool) else correlated.get(level, True)


def outcome_name(value: object) -> str:
    """Return the column of one outcome; SpecError where it is not the name of one."""
    if not isinstance(value, str) or not value.strip():
        raise SpecError(f"outcome: expected the name of one column, found {value!r}.")
    return value


def variable_parts(decomposed: bool) -> tuple[Part, ...]:
    """Parts into which a variable is split; the design leaves out the therapist's where the data have no therapists."""
    return ("within", "patient", "therapist") if decomposed else ("raw",)


def part_label(column: str, part: Part) -> str:
    """``alliance.within``; a raw column keeps its name."""
    return column if part == "raw" else f"{column}.{part}"


def read_factor(text: str, *, decomposed: Sequence[str], lags: Mapping[str, int]) -> tuple[str, Factor]:
    """Read ``alliance``, ``alliance.within`` or ``time`` as a factor of an interaction, with its label.

    A decomposed variable named without a part means its within-patient part.
    """
    for column in decomposed:
        if text == column:
            return f"{column}.within", Factor(column, "within", lags.get(column, 0))
        for part in PARTS:
            if part != "raw" and text == f"{column}.{part}":
                return text, Factor(column, part, lags.get(column, 0) if part == "within" else 0)
    return text, Factor(text, "raw", lags.get(text, 0))


def interaction_term(parts: Sequence[tuple[str, Factor]], role: Role = "interaction") -> Term:
    """Product of factors, labelled ``first:second``."""
    return Term(":".join(label for label, _ in parts), tuple(factor for _, factor in parts), role)


def expand_random_term(name: str, terms: Sequence[Term], decomposed: Sequence[str], level: str) -> tuple[str, ...]:
    """Turn a name in `random`/`slopes` into term labels: ``time`` means every time column, ``alliance`` its within
    part.
    """
    labels = [term.label for term in terms]
    if name == TIME:
        basis = tuple(term.label for term in terms if term.role == "time")
        if basis:
            return basis
    if name in labels:
        return (name,)
    if name in decomposed and f"{name}.within" in labels:
        return (f"{name}.within",)
    others = [label for label in labels if label != INTERCEPT]
    raise SpecError(
        f"random slope {name!r} at level {level!r} is not a fixed effect of this model. "
        f"Name one of: {', '.join(others) or 'none'}."
    )


def random_blocks(
    requested: RandomTerms,
    terms: Sequence[Term],
    *,
    argument: str,
    decomposed: Sequence[str] = (),
    correlated: bool | Mapping[Level, bool] = True,
    centred: Mapping[Level, bool] | None = None,
) -> tuple[tuple[RandomBlock, ...], tuple[Level, ...]]:
    """Read `random`/`slopes`: blocks of the levels that are named, and the levels left out with None.

    Named terms come on top of the intercept. Levels that are not named get their intercept once the data are known.
    """
    if requested is not None:
        mapping(requested, argument, "{'patient': ['time'], 'therapist': ['time']}")
    check_correlated(correlated)
    if centred is not None:
        mapping(centred, "centred", "{'therapist': True}")
    blocks: list[RandomBlock] = []
    without: list[Level] = []
    for level, names in (requested or {}).items():
        if level not in LEVELS:
            raise SpecError(f"{argument}: expected the levels {', '.join(LEVELS)}, found {level!r}.")
        if names is None:
            without.append(level)
            continue
        chosen: list[str] = [INTERCEPT]
        for name in names_of(names, f"{argument}[{level!r}]"):
            if name == INTERCEPT:
                continue
            chosen += [label for label in expand_random_term(name, terms, decomposed, level) if label not in chosen]
        blocks.append(
            RandomBlock(
                level,
                tuple(chosen),
                correlated=correlates(correlated, level),
                centred=None if centred is None else centred.get(level),
            )
        )
    for argument_name, by_level in (("correlated", correlated), ("centred", centred)):
        if isinstance(by_level, Mapping):
            unknown = [key for key in by_level if key not in LEVELS]
            if unknown:
                raise SpecError(f"{argument_name}: expected the levels {', '.join(LEVELS)}, found {unknown[0]!r}.")
    if "patient" in without and not blocks:
        raise SpecError(f"{argument}: at least one level must vary; sessions of one patient are not independent.")
    return tuple(sorted(blocks, key=lambda b: LEVELS.index(b.level))), tuple(without)
