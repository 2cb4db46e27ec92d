"""The rows of one response: where it is observed, its columns there, and what was left out.

A response of sessions has one row a session; a response of patients or therapists (a score after treatment, a trait)
has one row a unit, which stands at the unit's last session.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psymech.columns import ColumnSource, evaluate_factor
from psymech.data.findings import Finding
from psymech.data.sessions import SessionData, varies_within
from psymech.errors import DataError, DesignError, shown_ids
from psymech.names import LEVELS, TIME, Level, Membership
from psymech.spec.model import Factor, Response, Term

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ResponseRows:
    """Rows of one response: its terms and columns, values, and the sessions at which the rows stand."""

    response: str
    terms: tuple[Term, ...]
    X: Floats
    y: Floats
    row: Ints
    categories: tuple[float, ...]


def response_rows(
    response: Response,
    data: SessionData,
    source: ColumnSource,
    findings: list[Finding],
    *,
    membership: Membership = "current",
) -> ResponseRows:
    """Return the rows of a response; adds to `findings` what was left out.

    With multiple membership a response of patients may belong to patients who change therapist; its columns that
    differ between a patient's therapists are averaged over the sessions.

    Raises
    ------
    DataError
        No value is observed, or a predictor is missing where the response is observed.
    DesignError
        No row is left, or a column of a unit's response varies within the unit.
    """
    _refuse_role(response, data)
    if response.level in LEVELS:
        return _unit_rows(response, response.level, data, source, findings, membership)
    return _session_rows(response, data, source, findings)


def _session_rows(response: Response, data: SessionData, source: ColumnSource, findings: list[Finding]) -> ResponseRows:
    outcome = data.values(response.column)
    observed = np.isfinite(outcome)
    patients = data.codes["patient"]
    if not observed.any():
        raise DataError(f"Column {response.column!r}: every value is missing. A model needs an observed outcome.")
    if not observed.all():
        findings.append(_missing_outcome(response.column, observed, data))
    terms = tuple(t for t in response.terms if term_exists(t, data))
    keep = observed.copy()
    for term in terms:
        for factor in term.factors:
            if factor.lag:
                keep &= source.has_predecessor(factor, response.column)
    _note_lags(response, terms, observed, keep, source, findings)
    row = np.flatnonzero(keep)
    if row.size == 0:
        raise DesignError(
            f"No session of {response.column!r} is left: all lack a predecessor {_longest_lag(terms)} session(s) "
            "earlier. Use lag=0."
        )
    X = _columns([[evaluate_factor(source, f)[row] for f in t.factors] for t in terms], row.size)
    refuse_missing_predictors(terms, source, row, data)
    lost = np.setdiff1d(patients, patients[row])
    if lost.size:
        ids = data.ids["patient"][np.unique(lost)]
        findings.append(
            Finding(
                "note",
                "patients-without-rows",
                response.column,
                tuple(str(i) for i in ids[:5]),
                f"{len(ids)} patient(s) have no usable session for {response.column!r} and take no part in the fit: "
                f"{shown_ids(ids)}.",
                "",
            )
        )
    y, categories = _code_outcome(outcome[row], response)
    _refuse_constant_within(response, outcome[row], patients[row], data)
    return ResponseRows(response.column, terms, X, y, row, categories)


def _refuse_role(response: Response, data: SessionData) -> None:
    for role in ("session", "time"):
        if response.column == data.roles[role]:
            raise DesignError(
                f"{response.column!r} is the column of {'session numbers' if role == 'session' else 'times'} "
                f"({role}={response.column!r}) and cannot be the outcome. Name the column that was measured."
            )


def _refuse_constant_within(response: Response, y: Floats, patient: Ints, data: SessionData) -> None:
    """An outcome of sessions that repeats one value a patient leaves nothing to the sessions."""
    several = int((np.bincount(patient) > 1).sum())
    if several and not varies_within(y, patient, len(data.ids["patient"])).size:
        raise DesignError(
            f"Outcome {response.column!r} is constant within each of the {several} patients with several sessions: it "
            "does not vary from session to session, so the residual SD would be zero. Is it a score of patients, "
            "repeated in each row? Model it with psm.outcomes(..., level='patient'), or name a session rating."
        )


def _unit_rows(
    response: Response,
    level: Level,
    data: SessionData,
    source: ColumnSource,
    findings: list[Finding],
    membership: Membership,
) -> ResponseRows:
    if level not in data.levels:
        raise DesignError(
            f"{response.column!r} is modelled as a response of {level}s, but the data name no {level}. "
            f"Give the column with SessionData.from_frame(..., {level}=...)."
        )
    switching = data.patient_ids == "crossed"
    if switching and (membership == "current" or level != "patient"):
        remedy = (
            "Give membership='multiple' to share it among them by sessions" if level == "patient" else "Leave it out"
        )
        raise DesignError(
            f"{response.column!r} is modelled as a response of {level}s, but patients are crossed with therapists, so "
            f"that it belongs to no one of them. {remedy}, keep the sessions of one therapist a patient, or model a "
            "response of sessions."
        )
    unit_y = _unit_values(data.values(response.column), level, response.column, data)
    observed = np.isfinite(unit_y)
    if not observed.any():
        raise DataError(f"Column {response.column!r}: every value is missing. A model needs an observed outcome.")
    if not observed.all():
        findings.append(_missing_units(response.column, level, observed, data))
    unit = np.flatnonzero(observed)
    terms = tuple(t for t in response.terms if term_exists(t, data))
    values = [
        [
            (_means(source, f) if switching and _of_therapists(f, data) else _column(source, f, level))[unit]
            for f in t.factors
        ]
        for t in terms
    ]
    X = _columns(values, unit.size)
    for term, column in zip(terms, X.T, strict=True):
        missing = np.isnan(column)
        if missing.any():
            raise DataError(
                f"Predictors must be complete where the outcome is observed, found {term.label!r}: "
                f"{int(missing.sum())} missing "
                f"({level}s {shown_ids(data.ids[level][unit[missing]])}). Complete them (for instance by multiple "
                "imputation), "
                f"leave those {level}s out yourself, or leave the predictor out of the model."
            )
    last = np.zeros(len(data.ids[level]), dtype=np.int64)
    order = np.lexsort((data.session, data.codes[level])) if switching else np.arange(data.n_sessions)
    last[data.codes[level][order]] = order
    y, categories = _code_outcome(unit_y[unit], response)
    return ResponseRows(response.column, terms, X, y, last[unit], categories)


def _column(source: ColumnSource, factor: Factor, level: Level) -> Floats:
    return _unit_values(evaluate_factor(source, factor), level, _shown(factor), source.data)


def _of_therapists(factor: Factor, data: SessionData) -> bool:
    """Whether a column differs between the therapists of one patient: a part of a variable, or a therapist's trait."""
    return factor.part in ("patient", "therapist") or data.varies_at(factor.column) in ("therapist", "clinic")


def _means(source: ColumnSource, factor: Factor) -> Floats:
    """Mean over each patient's sessions, NaN where one is unknown."""
    patient = source.data.codes["patient"]
    return np.bincount(patient, weights=evaluate_factor(source, factor)) / np.bincount(patient)


def _columns(factors: list[list[Floats]], n: int) -> Floats:
    columns = [np.prod(each or [np.ones(n)], axis=0) for each in factors]
    return np.column_stack(columns) if columns else np.zeros((n, 0))


def _unit_values(values: Floats, level: Level, name: str, data: SessionData) -> Floats:
    """One value a unit, NaN where none is known."""
    codes, n_units = data.codes[level], len(data.ids[level])
    varying = varies_within(values, codes, n_units)
    if varying.size:
        raise DesignError(
            f"{name!r} enters the model of a response that has one value a {level}, but it varies within "
            f"{varying.size} {level}(s): "
            f"{shown_ids(data.ids[level][varying])}. Use its {level} part ('{name}.{level}'), or give one value a "
            f"{level} in the table {level}s=."
        )
    known = np.flatnonzero(np.isfinite(values))
    out = np.full(n_units, np.nan)
    out[codes[known]] = values[known]
    return out


def _shown(factor: Factor) -> str:
    return factor.column if factor.part == "raw" else f"{factor.column}.{factor.part}"


def term_exists(term: Term, data: SessionData) -> bool:
    """The therapist part of a variable does not exist where the data name no therapists."""
    return "therapist" in data.levels or all(factor.part != "therapist" for factor in term.factors)


def _missing_outcome(column: str, observed: NDArray[np.bool_], data: SessionData) -> Finding:
    patients = data.codes["patient"]
    n_missing = int((~observed).sum())
    without = np.setdiff1d(np.unique(patients), np.unique(patients[observed]))
    text = f"{n_missing} of {observed.size} sessions have a missing {column!r}"
    if without.size:
        text += f"; {without.size} patient(s) have none observed: {shown_ids(data.ids['patient'][without])}"
    return Finding(
        "note",
        "outcome-missing",
        column,
        tuple(str(i) for i in data.ids["patient"][without][:5]),
        f"{text}. These sessions add nothing to the likelihood (missing at random given the model).",
        "If sessions are missing because of how the patient felt that day, this is not enough.",
    )


def _missing_units(column: str, level: Level, observed: NDArray[np.bool_], data: SessionData) -> Finding:
    ids = data.ids[level][~observed]
    return Finding(
        "note",
        "outcome-missing",
        column,
        tuple(str(i) for i in ids[:5]),
        f"{len(ids)} of {observed.size} {level}s have no {column!r}: {shown_ids(ids)}. They add nothing to its "
        "likelihood (missing at random given the model).",
        "If it is missing because of how the treatment went, this is not enough.",
    )


def _note_lags(
    response: Response,
    terms: tuple[Term, ...],
    observed: NDArray[np.bool_],
    keep: NDArray[np.bool_],
    source: ColumnSource,
    findings: list[Finding],
) -> None:
    lost = observed & ~keep
    if not lost.any():
        return
    reasons = source.lag_reasons([f for t in terms for f in t.factors if f.lag], lost)
    detail = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    findings.append(
        Finding(
            "note",
            "lag-rows",
            response.column,
            (),
            f"{int(lost.sum())} sessions with an observed {response.column!r} have no predecessor to lag from and were "
            f"left out ({detail}).",
            "",
        )
    )


def _longest_lag(terms: Iterable[Term]) -> int:
    return max((f.lag for t in terms for f in t.factors), default=0)


def refuse_missing_predictors(terms: tuple[Term, ...], source: ColumnSource, row: Ints, data: SessionData) -> None:
    """Raise DataError where a column that the terms are made of is missing in one of the sessions `row`."""
    counts: dict[str, int] = {}
    who: dict[str, NDArray] = {}
    for factor in (f for t in terms for f in t.factors):
        if factor.column == TIME or factor.column in counts:
            continue
        values = source.raw_at(factor)[row]
        missing = np.isnan(values)
        if missing.any():
            counts[factor.column] = int(missing.sum())
            who[factor.column] = np.unique(data.codes["patient"][row[missing]])
    if counts:
        each = "; ".join(
            f"{column!r}: {count} missing (patients {shown_ids(data.ids['patient'][who[column]])})"
            for column, count in counts.items()
        )
        raise DataError(
            f"Predictors must be complete where the outcome is observed, found {each}. Complete them (for instance by "
            "multiple imputation), leave those sessions out yourself, or leave the predictor out of the model."
        )


def _code_outcome(y: Floats, response: Response) -> tuple[Floats, tuple[float, ...]]:
    values = np.unique(y)
    if values.size == 1:
        raise DesignError(
            f"Column {response.column!r} has the one value {values[0]:g} in every session: nothing varies."
        )
    match response.family:
        case "bernoulli":
            if set(values.tolist()) != {0.0, 1.0}:
                found = ", ".join(f"{value:g} ({int((y == value).sum())} rows)" for value in values[:5])
                if values.size == 2:
                    remedy = f"Recode {values[0]:g} as 0 and {values[1]:g} as 1."
                else:
                    remedy = "Recode it, and leave missing cells blank; for ordered categories use family='ordinal'."
                raise DesignError(f"family='bernoulli' needs 0 and 1 in {response.column!r}, found {found}. {remedy}")
            return y, ()
        case "ordinal":
            if values.size > 30 or not np.equal(values, np.round(values)).all():
                raise DesignError(
                    f"family='ordinal' needs at most 30 whole-number categories in {response.column!r}, found "
                    f"{values.size} different values such as {values[:5].tolist()}. Use family='gaussian'."
                )
            return np.searchsorted(values, y).astype(float), tuple(float(v) for v in values)
        case _:
            return y, ()
