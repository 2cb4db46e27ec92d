"""What joins outcomes: a model of sessions whose slopes predict them, and coefficients pooled over them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from psymech.arguments import instance
from psymech.errors import SpecError
from psymech.models.common import names_of
from psymech.names import INTERCEPT, LEVELS, Level
from psymech.spec.model import ModelSpec, RandomBlock, Response, response_label
from psymech.spec.priors import Prior, check_priors, variable_of


def with_process(spec: ModelSpec, process: ModelSpec, slopes: Iterable[str] | str | None) -> ModelSpec:
    """Put the response of `process` before the outcomes of `spec` and let patients' effects in it predict them all.

    Random terms of both are one block a level, so that therapists' effects on the sessions and on the outcomes
    correlate.

    Parameters
    ----------
    spec
        Outcomes of patients.
    process
        One Gaussian response of sessions with random terms of patients.
    slopes
        Patients' random terms of `process` that predict; None: all but the intercept.

    Raises
    ------
    SpecError
        `process` is of another kind, or has no such random terms.
    """
    _refuse_other_process(spec, process)
    first = process.responses[0]
    patient = process.block("patient")
    assert patient is not None
    chosen = _slopes(slopes, patient.terms)
    blocks: list[RandomBlock] = [replace(patient, terms=_prefixed(first, patient.terms))]
    without: list[Level] = []
    for level in LEVELS[1:]:
        own, theirs = spec.block(level), process.block(level)
        if (level in spec.without or level in process.without) and own is None and theirs is None:
            without.append(level)
        elif own is not None or theirs is not None:
            sessions = theirs.terms if theirs else () if level in process.without else (INTERCEPT,)
            outcomes = _own_terms(spec, own.terms) if own else () if level in spec.without else _intercepts(spec)
            joint = all(block.correlated for block in (own, theirs) if block is not None)
            blocks.append(RandomBlock(level, (*_prefixed(first, sessions), *outcomes), correlated=joint))
    return ModelSpec(
        kind="outcomes",
        responses=(first, *spec.responses),
        random=tuple(blocks),
        without=tuple(without),
        residual=spec.residual,
        time=process.time,
        decompose=spec.decompose if process.decompose == "none" else process.decompose,
        priors=check_priors({**_priors(process, first), **dict(spec.priors)}),
        roles=spec.roles,
        pooled=spec.pooled,
        loadings=tuple((r.column, response_label(first.column, term)) for r in spec.responses for term in chosen),
    )


def _refuse_other_process(spec: ModelSpec, process: ModelSpec) -> None:
    instance(process, ModelSpec, "process", "a model, such as psymech.process(...)")
    if process.kind not in ("process", "growth") or len(process.responses) != 1:
        raise SpecError(
            f"process: expected a model of one response of sessions (psymech.process or psymech.growth), found one of "
            f"kind {process.kind!r} with {len(process.responses)}."
        )
    plain = process.residual == "iid" and process.residual_by is None and process.therapist_in is None
    if process.family != "gaussian" or spec.family != "gaussian" or not plain:
        raise SpecError("process: expected Gaussian responses with one residual SD each and independent residuals.")
    of_sessions = [r.column for r in spec.responses if r.level == "session"]
    if of_sessions:
        raise SpecError(
            f"process: its patients' slopes predict outcomes with one value a patient, found {of_sessions[0]!r} of "
            "sessions."
        )
    if process.block("patient") is None:
        raise SpecError("process: no slope varies over patients. Give slopes={'patient': [...]} to psymech.process().")


def _slopes(asked: Iterable[str] | str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    if asked is None:
        found = tuple(term for term in known if term != INTERCEPT)
        if not found:
            raise SpecError(
                "process: no slope varies over patients. Give slopes={'patient': [...]} to psymech.process()."
            )
        return found
    out = []
    for name in names_of(asked, "slopes"):
        term = next((t for t in (name, f"{name}.within") if t in known), None)
        if term is None:
            raise SpecError(
                f"slopes: {name!r} does not vary over patients in the process; what does: {', '.join(known)}."
            )
        out.append(term)
    if not out:
        raise SpecError("slopes: expected at least one random term of the process, found none.")
    return tuple(dict.fromkeys(out))


def _prefixed(response: Response, terms: Iterable[str]) -> tuple[str, ...]:
    return tuple(response_label(response.column, term) for term in terms)


def _own_terms(spec: ModelSpec, terms: tuple[str, ...]) -> tuple[str, ...]:
    return _prefixed(spec.responses[0], terms) if len(spec.responses) == 1 else terms


def _intercepts(spec: ModelSpec) -> tuple[str, ...]:
    return tuple(response_label(r.column, INTERCEPT) for r in spec.responses)


def _priors(process: ModelSpec, response: Response) -> dict[str, Prior]:
    """Priors of the process under the labels of the joint model."""
    out: dict[str, Prior] = {}
    for key, prior in process.priors:
        variable = variable_of(key)
        if key == "sigma":
            out[f"sigma[{response.column}]"] = prior
        elif variable == key:
            raise SpecError(
                f"process: the prior {key!r} would hold for the outcomes as well. Name single entries, such as "
                f"'{key}[...]', or give it to outcomes()."
            )
        else:
            out[f"{variable}[{response_label(response.column, key[len(variable) + 1 : -1])}]"] = prior
    return out


def pooled_signs(
    columns: Mapping[str, str], pool: bool, higher_is_better: bool | Mapping[str, bool]
) -> tuple[tuple[str, int], ...]:
    """Return the responses to pool with their signs."""
    if isinstance(higher_is_better, Mapping):
        for name in higher_is_better:
            if name not in columns and name not in columns.values():
                raise SpecError(
                    f"higher_is_better names {name!r}, which is not among the outcomes {', '.join(columns)}."
                )
    if not pool:
        if higher_is_better is not True:
            raise SpecError("higher_is_better is used by pool=True only; give it to contrasts() otherwise.")
        return ()
    if len(columns) < 2:
        raise SpecError("pool=True pools over outcomes, and there is one. Give several.")

    def better(name: str) -> bool:
        if not isinstance(higher_is_better, Mapping):
            return higher_is_better
        return higher_is_better.get(name, higher_is_better.get(columns[name], True))

    return tuple((column, 1 if better(name) else -1) for name, column in columns.items())
