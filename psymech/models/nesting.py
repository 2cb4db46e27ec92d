"""Partially nested designs: patients of one arm have therapists, those of the other have none."""

from collections.abc import Sequence
from dataclasses import replace

from psymech.errors import SpecError
from psymech.names import INTERCEPT, LEVELS, Level
from psymech.spec.model import RandomBlock, Term

_LEVEL: Level = "therapist"


def partially_nested(
    blocks: tuple[RandomBlock, ...], without: tuple[Level, ...], terms: Sequence[Term], column: str | None
) -> tuple[RandomBlock, ...]:
    """Return the random blocks with the therapists' terms multiplied by a 0/1 column.

    The therapists' intercept becomes the random slope of the column, a slope becomes that of its product with the
    column; both must be fixed effects of the model. ``None`` changes nothing.

    Raises
    ------
    SpecError
        The column, or the product of a slope with it, is no fixed effect; or therapists are left out.
    """
    if column is None:
        return blocks
    if _LEVEL in without:
        raise SpecError(f"therapist_in={column!r} needs effects of therapists, but the level is left out with None.")
    own = next((t for t in terms if len(t.factors) == 1 and t.factors[0].column == column), None)
    if own is None or own.factors[0].part != "raw":
        raise SpecError(
            f"therapist_in={column!r} must be a fixed effect as well, or the arms' difference would be taken for a "
            "difference between therapists. Name it as a covariate or moderator."
        )
    given = next((block for block in blocks if block.level == _LEVEL), RandomBlock(_LEVEL, (INTERCEPT,)))
    by_factors = {frozenset(t.factors): t.label for t in reversed(terms)}
    factors = {t.label: t.factors for t in terms}
    chosen = []
    for label in given.terms:
        wanted = frozenset({*factors.get(label, ()), own.factors[0]})
        if wanted not in by_factors:
            raise SpecError(
                f"therapist_in={column!r}: for {label!r} to vary over therapists, its product with {column!r} must be "
                "a fixed effect. Name the column as a moderator in growth(), the pair among the interactions in "
                "process()."
            )
        if by_factors[wanted] not in chosen:
            chosen.append(by_factors[wanted])
    others = [block for block in blocks if block.level != _LEVEL]
    changed = [*others, replace(given, terms=tuple(chosen))]
    return tuple(sorted(changed, key=lambda block: LEVELS.index(block.level)))
