"""Rows of a model with latent means: what is observed, what is imputed, what is given; and its latent columns.

A deviation from a latent mean is no datum: the graph computes it from the rows of the response it belongs to, at the
parameters at hand. This module says which row each deviation is taken from. Besides the rows of the likelihood there
are missing values that an observed row needs (imputed: parameters of the model) and observed values that are needed
although their own row has no predecessor (given: a first session).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from psymech.columns import ColumnSource, evaluate_factor, latent_factor, latent_term
from psymech.data.findings import Finding
from psymech.data.lags import source_rows
from psymech.data.sessions import SessionData
from psymech.errors import DataError, DesignError, shown_ids
from psymech.names import LEVELS, Level
from psymech.rows import ResponseRows, response_rows, term_exists
from psymech.spec.model import Factor, ModelSpec, Response, Term

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
ColumnKind = Literal["deviation", "residual", "unit"]
OBSERVED, IMPUTED, GIVEN = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class LatentColumn:
    """A column whose values are parameters, times `weight`.

    Attributes
    ----------
    term : its place among the design's terms.
    kind : a row's deviation from its latent mean, a row's residual, or the latent part of a unit of `level`.
    source : index of the response it is taken from.
    rows : rows in which it acts, indices into those of :class:`LatentDesign`; at : for each, the row it is taken from.
    weight : for each, the product of the term's other factors, such as a moderator.
    """

    term: int
    kind: ColumnKind
    level: Level | None
    source: int
    rows: Ints
    at: Ints
    weight: Floats


@dataclass(frozen=True, slots=True, eq=False)
class LatentDesign:
    """The design's rows, then imputed and given ones, and the latent columns.

    Attributes
    ----------
    n_obs, n_imputed : the first rows are the design's, the next have a value to be imputed, the rest are given.
    y : (n,) values, a typical one where imputed.
    X : (n, n_terms) and Z : by level, (n, n_level_terms), zero in latent columns; code : by level, (n,).
    response : (n,) index into the design's responses; row : (n,) index into the sessions of the data.
    """

    n_obs: int
    n_imputed: int
    y: Floats
    X: Floats
    Z: Mapping[Level, Floats]
    code: Mapping[Level, Ints]
    response: Ints
    row: Ints
    columns: tuple[LatentColumn, ...]

    @property
    def terms(self) -> tuple[int, ...]:
        """Places of the latent columns among the design's terms."""
        return tuple(column.term for column in self.columns)


@dataclass(frozen=True, slots=True, eq=False)
class LatentRows:
    """Rows by response, and for each response and session what its row is (-1 where there is none)."""

    pieces: tuple[ResponseRows, ...]
    kind: NDArray[np.int8]

    def kind_of(self, response: Ints, row: Ints) -> NDArray[np.int8]:
        """Return what each row is."""
        return self.kind[response, row]


def latent_rows(spec: ModelSpec, data: SessionData, source: ColumnSource, findings: list[Finding]) -> LatentRows | None:
    """Return the rows of every response of a settled specification, or None where it has no latent columns; adds to
    `findings` what was left out or imputed.

    Raises
    ------
    DesignError
        A mediator that does not vary within patients, no latent patient means, or a response without a row.
    DataError
        A predictor that is a datum is missing.
    """
    if spec.decompose != "latent":
        return None
    _refuse(spec)
    if not any(latent_term(spec, t) for r in spec.responses for t in r.terms):
        return None
    links = [list(_links(spec, r, data)) for r in spec.responses]
    kind = _kinds(spec, data, links)
    pieces = []
    for index, response in enumerate(spec.responses):
        if response.level != "session":
            piece = response_rows(response, data, source, findings)
            stand_in = np.array([latent_term(spec, t) for t in piece.terms])
            piece = replace(piece, X=piece.X - np.where(stand_in, piece.X.mean(axis=0), 0.0))
            kind[index, piece.row] = OBSERVED
        else:
            piece = _session_piece(spec, response, data, source, kind[index])
            findings += _notes(response, data, kind[index])
        pieces.append(piece)
    return LatentRows(tuple(pieces), kind)


@dataclass(frozen=True, slots=True)
class _Link:
    """A response's row at session t needs the row of response `source` at session `at[t]` (-1: none)."""

    source: int
    at: Ints
    residual: bool


def _links(spec: ModelSpec, response: Response, data: SessionData) -> Iterator[_Link]:
    columns = [r.column for r in spec.responses]
    for term in response.terms:
        for factor in term.factors:
            if latent_factor(spec, factor) and factor.part == "within":
                at = source_rows(data, factor.lag)
                yield _Link(columns.index(factor.column), at, term.role == "residual")


def _kinds(spec: ModelSpec, data: SessionData, links: list[list[_Link]]) -> NDArray[np.int8]:
    """For each response and session: a row of the likelihood, imputed, given, or -1."""
    n, sessions = len(spec.responses), data.n_sessions
    of_sessions = [r.level == "session" for r in spec.responses]
    observed = np.array([np.isfinite(data.values(r.column)) for r in spec.responses])
    complete = np.repeat(np.array(of_sessions)[:, None], sessions, axis=1)  # the row could have a density
    while True:
        before = complete.copy()
        for r in range(n):
            for link in links[r]:
                fine = complete[link.source] if link.residual else (observed | complete)[link.source]
                complete[r] &= (link.at >= 0) & fine[link.at]
        if np.array_equal(before, complete):
            break
    rows = observed & complete
    imputed = np.zeros((n, sessions), dtype=bool)
    given = np.zeros((n, sessions), dtype=bool)
    while True:
        before = imputed.copy()
        for r in range(n):
            for link in links[r]:
                at = link.at[rows[r] | imputed[r]]
                imputed[link.source, at] |= ~observed[link.source, at]
                given[link.source, at] |= observed[link.source, at] & ~rows[link.source, at]
        if np.array_equal(before, imputed):
            break
    out = np.full((n, sessions), -1, dtype=np.int8)
    out[given], out[imputed], out[rows] = GIVEN, IMPUTED, OBSERVED
    return out


def _session_piece(
    spec: ModelSpec, response: Response, data: SessionData, source: ColumnSource, kind: NDArray[np.int8]
) -> ResponseRows:
    row = np.flatnonzero(kind >= 0)
    if not (kind == OBSERVED).any():
        raise DesignError(
            f"No session of {response.column!r} is left to model: none is observed with its predecessors."
        )
    y = data.values(response.column)[row]
    typical = np.where(np.isfinite(y), y, np.nanmean(y))
    terms = tuple(t for t in response.terms if term_exists(t, data))
    X = np.zeros((row.size, len(terms)))
    for j, term in enumerate(terms):
        column = np.ones(row.size)
        for factor in term.factors:
            values = evaluate_factor(source, factor)[row]
            if latent_factor(spec, factor):
                values = np.nan_to_num(values)  # stands in for a parameter, in checks and for the scale of priors
            elif np.isnan(values).any():
                missing = np.unique(data.codes["patient"][row[np.isnan(values)]])
                raise DataError(
                    f"Predictors must be complete where the outcome is observed, found {factor.column!r}: "
                    f"{int(np.isnan(values).sum())} missing (patients {shown_ids(data.ids['patient'][missing])}). "
                    "Complete them, leave those sessions out yourself, or leave the predictor out of the model."
                )
            column = column * values
        X[:, j] = column - column[kind[row] == OBSERVED].mean() if latent_term(spec, term) else column
    return ResponseRows(response.column, terms, X, typical, row, ())


def _notes(response: Response, data: SessionData, kind: NDArray[np.int8]) -> Iterator[Finding]:
    name = response.column
    observed = np.isfinite(data.values(name))
    imputed = kind == IMPUTED
    lost = int((observed & (kind != OBSERVED)).sum())
    if lost:
        yield Finding(
            "note",
            "lag-rows",
            name,
            (),
            f"{lost} sessions with an observed {name!r} have no predecessor to lag from and are not modelled; where "
            "they precede another session they count as given.",
            "",
        )
    left = int((~observed & ~imputed).sum())
    if left:
        yield Finding(
            "note",
            "outcome-missing",
            name,
            (),
            f"{left} of {observed.size} sessions have a missing {name!r} that no observed value depends on. They add "
            "nothing to its likelihood (missing at random given the model).",
            "",
        )
    if imputed.any():
        who = data.ids["patient"][np.unique(data.codes["patient"][imputed])]
        yield Finding(
            "note",
            "imputed",
            name,
            tuple(str(i) for i in who[:5]),
            f"{int(imputed.sum())} missing values of {name!r} on which observed values depend are parameters of the "
            f"model (missing at random given it; patients {shown_ids(who)}).",
            "",
        )


def _refuse(spec: ModelSpec) -> None:
    roles = dict(spec.roles)
    traits = {column for column, role in spec.roles if role == "treatment"} - {r.column for r in spec.responses}
    for response in spec.responses:
        needed = "patient" if response.level == "session" else response.level
        if needed in spec.without:
            raise DesignError(
                f"Latent means of {needed}s, which {response.column!r} needs, are random intercepts: do not leave the "
                "level out."
            )
        if response.level in LEVELS and roles.get(response.column) != "outcome":
            raise DesignError(
                f"decompose='latent' needs mediators that vary within patients, but {response.column!r} has one value "
                f"a {response.level}. Use decompose='observed'."
            )
        for term in response.terms:
            of_trait = any(f.column in traits for f in term.factors)
            if traits and term.role == "interaction" and (of_trait or response.level != "session"):
                raise DesignError(
                    f"{term.label!r}: with latent means the paths between units cannot be moderated where a treatment "
                    f"is a trait ({', '.join(sorted(traits))}). Use decompose='observed'."
                )


def latent_design(
    spec: ModelSpec,
    data: SessionData,
    *,
    term_specs: tuple[Term, ...],
    term_response: Ints,
    X: Floats,
    y: Floats,
    row: Ints,
    response: Ints,
    kind: NDArray[np.int8],
    Z: Mapping[Level, tuple[tuple[int, ...], Floats]],
    code: Mapping[Level, Ints],
) -> LatentDesign:
    """Return the latent columns of rows that are sorted by kind.

    Parameters
    ----------
    Z
        By level, for each random column its place among the terms (-1 where it is none), and the columns.
    """
    columns = [r.column for r in spec.responses]
    place = np.full((len(columns), data.n_sessions), -1, dtype=np.int64)
    place[response, row] = np.arange(row.size)
    found = []
    for j, term in enumerate(term_specs):
        if not latent_term(spec, term):
            continue
        target = int(term_response[j])
        acts = np.flatnonzero((response == target) & (kind != GIVEN))
        factor = next(f for f in term.factors if latent_factor(spec, f))
        weight = np.ones(acts.size)
        for other in (f for f in term.factors if f is not factor):
            weight = weight * data.values(other.column)[row[acts]]
        found.append(_column(j, term, factor, columns.index(factor.column), acts, weight, place, row, data))
    latent = [column.term for column in found]
    plain = X.copy()
    plain[:, latent] = 0.0
    masked: dict[Level, Floats] = {level: held * ~np.isin(terms, latent) for level, (terms, held) in Z.items()}
    n_obs, n_imputed = int((kind == OBSERVED).sum()), int((kind == IMPUTED).sum())
    return LatentDesign(n_obs, n_imputed, y, plain, masked, code, response, row, tuple(found))


def _column(
    j: int,
    term: Term,
    factor: Factor,
    source: int,
    acts: Ints,
    weight: Floats,
    place: Ints,
    row: Ints,
    data: SessionData,
) -> LatentColumn:
    if factor.part != "within":
        assert factor.part in LEVELS
        return LatentColumn(j, "unit", factor.part, source, acts, acts, weight)
    at = place[source, source_rows(data, factor.lag)[row[acts]]]
    assert (at >= 0).all()
    return LatentColumn(j, "residual" if term.role == "residual" else "deviation", None, source, acts, at, weight)
