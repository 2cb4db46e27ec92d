"""Mediators missing in sessions to which an observed outcome refers: which values are parameters, where they enter.

A value is imputed where the row of a response needs it: an observed outcome, or another imputed mediator. The
mediator's own equation is its model (missing at random given that equation's predictors and the outcomes).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from psymech.columns import ColumnSource, column_source, evaluate_factor
from psymech.data.decompose import split
from psymech.data.findings import Finding
from psymech.data.lags import source_rows
from psymech.data.sessions import SessionData
from psymech.errors import shown_ids
from psymech.names import Level, Part
from psymech.rows import refuse_missing_predictors
from psymech.spec.model import ModelSpec, Response, Term

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class MissingValues:
    """Values of one column that are parameters.

    Attributes
    ----------
    column, response : the column, and the index of the response that models it.
    row : (n_missing,) sessions, ascending.
    values : (n_sessions,) the column with a first guess at `row`; NaN where a value is neither observed nor imputed.
    """

    column: str
    response: int
    row: Ints
    values: Floats


@dataclass(frozen=True, slots=True, eq=False)
class FilledColumn:
    """A design column that holds imputed values: `known` times parts of imputed columns.

    Attributes
    ----------
    term : index of the design's term.
    known : (n_rows,) product of the factors that are data.
    parts : index of the imputed column, part, and for each row the session that it is taken from.
    """

    term: int
    known: Floats
    parts: tuple[tuple[int, Part, Ints], ...]


@dataclass(frozen=True, slots=True, eq=False)
class ObservedRows:
    """Rows of a response, as positions in the design, with the columns that hold imputed values."""

    row: Ints
    columns: tuple[FilledColumn, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ImputedRows:
    """The equations of imputed values: one row a value.

    Attributes
    ----------
    X : (n_missing, n_terms) fixed-effect columns, zero where `columns` stand.
    Z, code : by level, (n_missing, n_level_terms) random columns, zero likewise, and the unit of each row.
    """

    X: Floats
    Z: Mapping[Level, Floats]
    code: Mapping[Level, Ints]
    columns: tuple[FilledColumn, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Imputation:
    """Everything that the graph needs beside the observed rows.

    Attributes
    ----------
    missing, imputed : one entry an imputed column, each before those whose equations hold it.
    observed : responses with columns that hold imputed values.
    units : by level that splits variables, (n_sessions,) unit of each session.
    """

    missing: tuple[MissingValues, ...]
    imputed: tuple[ImputedRows, ...]
    observed: tuple[ObservedRows, ...]
    units: Mapping[Level, Ints]

    @property
    def n(self) -> int:
        """Number of imputed values."""
        return sum(m.row.size for m in self.missing)


def missing_values(spec: ModelSpec, data: SessionData) -> tuple[MissingValues, ...]:
    """Return the mediators' values that must be imputed; none where nothing is missing or another rule refuses it.

    Imputed are responses of sessions that predict another response named after them, whose equation does not hold
    their own earlier values; Gaussian, independent residuals.
    """
    if spec.family != "gaussian" or spec.residual != "iid" or spec.decompose == "latent":
        return ()
    place = {r.column: index for index, r in enumerate(spec.responses) if r.level == "session"}
    source = column_source(spec, data)
    known = {column: np.isfinite(data.values(column)) for column in place}
    able = [
        column
        for column, index in place.items()
        if not known[column].all() and known[column].any() and _imputable(spec.responses[index], place)
    ]
    needed: dict[str, Flags] = {column: np.zeros(data.n_sessions, dtype=bool) for column in able}
    for response in reversed(spec.responses):  # a response comes after those that predict it
        if response.level != "session":
            continue
        rows = np.isfinite(data.values(response.column)) | needed.get(response.column, False)
        for factor in (f for t in response.terms for f in t.factors if f.lag):
            rows &= source.has_predecessor(factor, response.column)
        for factor in (f for t in response.terms for f in t.factors if f.column in able):
            sessions = source_rows(data, factor.lag)[rows]
            needed[factor.column][sessions[~known[factor.column][sessions]]] = True
    found = [
        MissingValues(column, place[column], _with_equation(flags, spec.responses[place[column]], source), np.zeros(0))
        for column, flags in needed.items()
        if flags.any()
    ]
    return tuple(
        replace(m, values=_first_guess(data.values(m.column), m.row, data))
        for m in sorted(found, key=lambda m: m.response)
        if m.row.size
    )


def _imputable(response: Response, place: Mapping[str, int]) -> bool:
    own = place[response.column]
    return all(place.get(f.column, -1) < own for t in response.terms for f in t.factors)


def _with_equation(needed: Flags, response: Response, source: ColumnSource) -> Ints:
    """Sessions for which the earlier sessions that the column's own equation refers to exist."""
    keep = needed.copy()
    for factor in (f for t in response.terms for f in t.factors if f.lag):
        keep &= source.has_predecessor(factor, response.column)
    return np.flatnonzero(keep)


def _first_guess(values: Floats, row: Ints, data: SessionData) -> Floats:
    """Fill the values at `row` with the mean of the patient, else of the therapist, else of all."""
    out = values.copy()
    means = split(values, data).means
    guess = np.full(values.size, np.nanmean(values))
    for level in ("therapist", "patient"):
        if level in means:
            own = means[level][data.codes[level]]
            guess = np.where(np.isfinite(own), own, guess)
    out[row] = guess[row]
    return out


def with_first_guess(data: SessionData, missing: Sequence[MissingValues]) -> SessionData:
    """Return the data with the first guesses in place of what will be imputed."""
    if not missing:
        return data
    return replace(data, sessions=data.sessions.assign(**{m.column: m.values for m in missing}))


def imputation_note(missing: MissingValues, data: SessionData) -> Finding:
    """Say how many values are imputed, and by what."""
    patients = data.ids["patient"][np.unique(data.codes["patient"][missing.row])]
    n = int(np.isfinite(missing.values).sum())
    return Finding(
        "note",
        "mediator-imputed",
        missing.column,
        tuple(str(i) for i in patients[:5]),
        f"{missing.row.size} of {n} values of {missing.column!r} are missing where an observed response refers to them "
        f"({len(patients)} patients: {shown_ids(patients)}). They are parameters, modelled by the equation of "
        f"{missing.column!r} (missing at random given the model), and count in the means of patients and therapists.",
        "If they are missing because of their own size, this is not enough.",
    )


def make_imputation(
    spec: ModelSpec,
    missing: tuple[MissingValues, ...],
    source: ColumnSource,
    *,
    terms: tuple[str, ...],
    term_specs: tuple[Term, ...],
    term_response: Ints,
    random: Mapping[Level, tuple[str, ...]],
    row: Ints,
    response: Ints,
) -> Imputation | None:
    """Return the columns and rows of imputed values for a design; None where nothing is imputed.

    Parameters
    ----------
    source
        Columns of the data with the first guesses.
    terms, term_specs, term_response
        As in the design.
    random
        Labels of the random terms by level.
    row, response
        Session and response of each observed row.

    Raises
    ------
    DataError
        A predictor of an imputed value is missing.
    """
    if not missing:
        return None
    data = source.data
    place = {m.column: k for k, m in enumerate(missing)}

    def filled(index: int, sessions: Ints) -> tuple[FilledColumn, ...]:
        chosen = [j for j in np.flatnonzero(term_response == index) if _holds(term_specs[j], place)]
        return tuple(_filled_column(int(j), term_specs[j], sessions, source, place) for j in chosen)

    observed = []
    for index in range(len(spec.responses)):
        rows = np.flatnonzero(response == index)
        columns = filled(index, row[rows])
        if columns:
            observed.append(ObservedRows(rows, columns))
    imputed = []
    for m in missing:
        own = [j for j in np.flatnonzero(term_response == m.response)]
        refuse_missing_predictors(tuple(term_specs[j] for j in own), source, m.row, data)
        X = np.zeros((m.row.size, len(terms)))
        for j in own:
            if not _holds(term_specs[j], place):
                X[:, j] = np.prod([np.ones(m.row.size), *_values(term_specs[j], source, m.row)], axis=0)
        code: dict[Level, Ints] = {
            level: np.searchsorted(np.unique(data.codes[level][row]), data.codes[level][m.row]).astype(np.int64)
            for level in random
        }
        imputed.append(
            ImputedRows(
                X,
                {level: _random_columns(labels, X, terms, spec, m.response) for level, labels in random.items()},
                code,
                filled(m.response, m.row),
            )
        )
    units: dict[Level, Ints] = {level: data.codes[level] for level in ("patient", "therapist") if level in data.levels}
    return Imputation(missing, tuple(imputed), tuple(observed), units)


def _holds(term: Term, place: Mapping[str, int]) -> bool:
    return any(f.column in place for f in term.factors)


def _values(term: Term, source: ColumnSource, sessions: Ints) -> list[Floats]:
    return [evaluate_factor(source, f)[sessions] for f in term.factors]


def _filled_column(
    index: int, term: Term, sessions: Ints, source: ColumnSource, place: Mapping[str, int]
) -> FilledColumn:
    known = np.ones(sessions.size)
    parts: list[tuple[int, Part, Ints]] = []
    for factor in term.factors:
        if factor.column in place:
            earlier = source_rows(source.data, factor.lag)[sessions]
            parts.append((place[factor.column], factor.part, earlier))
        else:
            known = known * evaluate_factor(source, factor)[sessions]
    return FilledColumn(index, known, tuple(parts))


def _random_columns(labels: tuple[str, ...], X: Floats, terms: tuple[str, ...], spec: ModelSpec, index: int) -> Floats:
    column = spec.responses[index].column
    out = np.zeros((len(X), len(labels)))
    for k, label in enumerate(labels):
        if label in terms:
            out[:, k] = X[:, terms.index(label)]
        elif label.startswith(f"{column}~"):  # an intercept that varies without being a fixed effect
            out[:, k] = 1.0
    return out
