"""Columns of the design: parts of variables, lags, and basis functions of time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from psymech.data.decompose import split
from psymech.data.findings import Finding
from psymech.data.lags import lag, lag_reasons
from psymech.data.sessions import SessionData
from psymech.errors import DesignError, shown_ids
from psymech.names import LEVELS, TIME, Level, Part
from psymech.spec.model import Factor, ModelSpec, RandomBlock, Response, ResponseLevel, Term, response_label
from psymech.timebasis import TimeBasis, evaluate, make_time_basis

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ColumnSource:
    """The table, the concrete time basis, and the unit means by which variables were split; `stand_in` as in
    :func:`psymech.data.decompose.split`.
    """

    data: SessionData
    time_basis: TimeBasis | None
    unit_means: Mapping[Level, Mapping[str, Floats]]
    stand_in: NDArray[np.int64] | None = None

    def raw_at(self, factor: Factor) -> Floats:
        """Return the factor's variable before it is split, lagged as the factor says."""
        values = self.data.values(factor.column)
        return lag(values, self.data, factor.lag) if factor.lag else values

    def has_predecessor(self, factor: Factor, outcome: str) -> NDArray[np.bool_]:
        """Whether the session `factor.lag` sessions earlier exists, and, for the outcome's own lag, is observed."""
        values = self.data.values(outcome) if factor.column == outcome else np.ones(self.data.n_sessions)
        return np.isfinite(lag(values, self.data, factor.lag))

    def lag_reasons(self, factors: Iterable[Factor], lost: NDArray[np.bool_]) -> dict[str, int]:
        """Count the rows in `lost` by why they have no predecessor."""
        longest = max((f.lag for f in factors), default=0)
        return lag_reasons(self.data, longest, lost)


def column_source(spec: ModelSpec, data: SessionData) -> ColumnSource:
    """Fix what the columns need from the data: the time basis and the means of the split variables."""
    basis = None if spec.time is None else make_time_basis(spec.time, data.time)
    means: dict[Level, dict[str, Floats]] = {}
    stand_in = _stand_in(spec, data)
    for factor in (f for r in spec.responses for t in r.terms for f in t.factors):
        if factor.part == "raw":
            continue
        for level in ("patient", "therapist"):
            if level in data.levels:
                parts = split(data.values(factor.column), data, stand_in=stand_in)
                means.setdefault(level, {})[factor.column] = parts.means[level]
    return ColumnSource(data, basis, means, stand_in)


def _stand_in(spec: ModelSpec, data: SessionData) -> NDArray[np.int64] | None:
    """Patients without a therapist (therapist_in=) are one group (of a clinic), however their placeholders are coded.

    With a placeholder each, what differs between them would be called a difference between therapists.
    """
    split_terms = any(f.part in ("patient", "therapist") for r in spec.responses for t in r.terms for f in t.factors)
    if spec.therapist_in is None or "therapist" not in data.levels or not split_terms:
        return None
    code, treated = data.codes["therapist"], data.values(spec.therapist_in) != 0
    treats = np.bincount(code, weights=treated, minlength=data.n_therapists) > 0
    mixed = np.flatnonzero(treats & (np.bincount(code, weights=~treated, minlength=data.n_therapists) > 0))
    if mixed.size:
        raise DesignError(
            f"therapist_in={spec.therapist_in!r}: {mixed.size} therapists ({shown_ids(data.ids['therapist'][mixed])}) "
            "also stand in rows of patients without a therapist, who would enter the therapists' means by which "
            "predictors are split. Give those patients a placeholder id such as 'untreated', or take "
            "decompose='none'."
        )
    clinic = np.zeros(data.n_therapists, dtype=np.int64)
    if "clinic" in data.levels:
        clinic[code] = data.codes["clinic"]
    own, placeholders = np.arange(data.n_therapists), np.flatnonzero(~treats)
    for each in np.unique(clinic[placeholders]):
        together = placeholders[clinic[placeholders] == each]
        own[together] = together[0]
    return own


def evaluate_factor(source: ColumnSource, factor: Factor) -> Floats:
    """Return the factor's column over all sessions of the data; NaN where it does not exist."""
    data = source.data
    if factor.basis is not None and factor.column == TIME:
        if source.time_basis is None:
            raise AssertionError("a time factor needs a time basis")
        return evaluate(source.time_basis, data.time)[:, factor.basis]
    values = data.values(factor.column)
    if factor.part != "raw":
        values = split(values, data, stand_in=source.stand_in).parts[factor.part]
    return lag(values, data, factor.lag) if factor.lag else values


_PARTS: Mapping[ResponseLevel, tuple[Part, ...]] = {
    "session": ("within", "patient", "therapist"),
    "patient": ("patient", "therapist"),
    "therapist": ("therapist",),
    "clinic": (),
}


def settle_levels(spec: ModelSpec, data: SessionData) -> ModelSpec:
    """Return the specification with every response at the level at which its column varies.

    Where a response's level is ``"auto"``, parts of variables that do not exist there (the within part of a patient's
    trait, or of anything in a model of patients' scores), the trend of a score that has one value a unit, and random
    terms that need them are left out. An interaction keeps the lowest part that exists. Other specifications come
    back unchanged.
    """
    if all(response.level != "auto" for response in spec.responses):
        return spec
    traits = _latent_traits(spec, data)
    kept = tuple(_settled(r, data, traits) for r in spec.responses if traits is None or r.column not in traits)
    many = len(kept) > 1
    labels: dict[Level, set[str]] = {level: set() for level in LEVELS}
    for response in kept:
        for level in LEVELS:
            if response.level not in LEVELS or LEVELS.index(response.level) < LEVELS.index(level):
                labels[level] |= {response_label(response.column, t) if many else t for t in response.labels}
    blocks: list[RandomBlock] = []
    without = list(spec.without)
    for block in spec.random:
        terms = tuple(term for term in block.terms if term in labels[block.level])
        if terms:
            blocks.append(replace(block, terms=terms))
        elif block.level not in without:
            without.append(block.level)
    settled = replace(spec, responses=kept, random=tuple(blocks), without=tuple(without))
    return settled if traits is None else _as_covariances(settled)


def latent_factor(spec: ModelSpec, factor: Factor) -> bool:
    """Whether a factor is no column of the data: a part of a response of a model with latent means."""
    return spec.decompose == "latent" and factor.part != "raw" and factor.column in {r.column for r in spec.responses}


def latent_term(spec: ModelSpec, term: Term) -> bool:
    """Whether a term holds a latent factor."""
    return any(latent_factor(spec, factor) for factor in term.factors)


def _as_covariances(spec: ModelSpec) -> ModelSpec:
    every = [(r, t) for r in spec.responses for t in r.terms if latent_term(spec, t)]
    random = {label for block in spec.random for label in block.terms}
    structural = any(r.level != "session" for r in spec.responses) or any(
        any(f.lag for f in t.factors) or len(t.factors) > 1 or response_label(r.column, t.label) in random
        for r, t in every
    )
    if structural:
        return spec
    plain = tuple(replace(r, terms=tuple(t for t in r.terms if not latent_term(spec, t))) for r in spec.responses)
    return replace(spec, responses=plain, residual="unstructured")


def _latent_traits(spec: ModelSpec, data: SessionData) -> frozenset[str] | None:
    """Treatments of a latent decomposition that are traits of units: they predict instead of being responses."""
    if spec.decompose != "latent":
        return None
    treatments = [column for column, role in spec.roles if role == "treatment"]
    return frozenset(column for column in treatments if data.varies_at(column) in LEVELS)


def _settled(response: Response, data: SessionData, traits: frozenset[str] | None) -> Response:
    level = response.level if response.level != "auto" else data.varies_at(response.column) or "session"
    exists = _term_exists if traits is None else partial(_latent_term_exists, traits)
    return replace(response, terms=tuple(t for t in response.terms if exists(t, level, data)), level=level)


def _latent_term_exists(traits: frozenset[str], term: Term, level: ResponseLevel, data: SessionData) -> bool:
    """With latent means a response has one part of each other response, that of its own level: what lies above is in
    the covariances. A trait predicts with its observed parts.
    """
    split_factor = next((f for f in term.factors if f.part != "raw"), None)
    if split_factor is None or split_factor.column in traits:
        return _term_exists(term, level, data)
    if term.role == "autoregressive":
        return True  # refused by name where the response has one value a unit
    of_sessions = data.varies_at(split_factor.column) not in LEVELS
    return of_sessions and split_factor.part == ("within" if level == "session" else level)


def _term_exists(term: Term, level: ResponseLevel, data: SessionData) -> bool:
    if level != "session" and any(f.column == TIME for f in term.factors):
        return False
    for factor in term.factors:
        if factor.part == "raw":
            continue
        parts = [p for p in _PARTS[data.varies_at(factor.column) or "session"] if p in _PARTS[level]]
        if factor.part not in parts or (term.role == "interaction" and factor.part != parts[0]):
            return False
    return True


def level_notes(given: ModelSpec, settled: ModelSpec) -> list[Finding]:
    """Say at which level each response stands, and what of the specification does not exist there."""
    if given == settled:
        return []
    where = ", ".join(f"{r.column!r} one value a {r.level}" for r in settled.responses)
    before = {label for block in given.random for label in block.terms}
    after = {label for block in settled.random for label in block.terms}
    gone = sorted(before - after)
    text = f"Levels as found in the data: {where}." + (
        f" Do not exist there and do not vary: {', '.join(gone)}." if gone else ""
    )
    return [Finding("note", "levels", "", (), text, "")]
