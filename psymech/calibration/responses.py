"""Responses drawn for given parameters on a given design, and the table that holds them.

Columns that are made of a response (the mediator in the outcome's equation) are computed here from the definition of
the parts, not by the code that the fit uses; both have to agree.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from psymech import names
from psymech.columns import column_source, evaluate_factor
from psymech.data.sessions import SessionData
from psymech.design import Design, make_design
from psymech.errors import DesignError, SpecError
from psymech.spec.model import Factor, ModelSpec

Floats = NDArray[np.float64]
AGREEMENT = 1e-8  # of columns computed twice in double precision, relative to their size


def dependent_terms(design: Design) -> dict[int, list[int]]:
    """For each response, the columns of its equation that are made of a response."""
    found: dict[int, list[int]] = {}
    for j, term in enumerate(design.term_specs):
        if any(factor.column in design.responses for factor in term.factors):
            found.setdefault(int(design.term_response[j]), []).append(j)
    return found


def causal_order(design: Design) -> list[int]:
    """Order the responses so that each comes after those that predict it; SpecError where none exists."""
    before = {
        r: {f.column for j in dependent_terms(design).get(r, []) for f in design.term_specs[j].factors}
        & set(design.responses)
        for r in range(len(design.responses))
    }
    order: list[int] = []
    while len(order) < len(design.responses):
        known = {design.responses[r] for r in order}
        ready = [r for r in before if r not in order and before[r] <= known]
        if not ready:
            raise SpecError(
                "calibrate() draws responses one after the other, but here a response predicts itself "
                "(autoregressive=True) or two predict each other. Use residual='ar1', or leave the term out."
            )
        order += ready[:1]
    return order


def draw_responses(
    spec: ModelSpec,
    data: SessionData,
    design: Design,
    values: Mapping[str, Floats],
    rng: np.random.Generator,
) -> tuple[Design, SessionData]:
    r"""Draw the responses of every row for given parameters, and return the design and the table that hold them.

    .. math:: y = x'\beta + \sum_l z_l' u_l + e

    with normal, correlated, AR(1) or Student residuals; binary and ordinal responses are cut from the same sum with
    logistic residuals. Predictors, nesting and missing cells stay as they are.
    """
    error = draw_residuals(design, values, rng)
    order, dependent = causal_order(design), dependent_terms(design)
    if dependent and design.family != "gaussian":
        raise SpecError("calibrate() draws responses that predict others with family='gaussian' only.")
    X, y = design.X.copy(), design.y.copy()
    new_data = data
    for r in order:
        rows = np.flatnonzero(design.response == r)
        for j in dependent.get(r, []):
            factors = [own_column(new_data, spec, f) for f in design.term_specs[j].factors]
            X[rows, j] = np.prod(factors, axis=0)[design.row[rows]]
        eta = X[rows] @ values[names.BETA]
        for level in design.levels:
            Z = columns_of_level(design, X, level.terms, level.Z)
            eta = eta + (Z[rows] * values[names.effect(level.level)][level.code[rows]]).sum(axis=1)
        y[rows] = cut(design, eta + error[rows], values)
        if dependent:
            new_data = put_response(new_data, spec, design, r, y[rows])
    if not dependent:
        return replace(design, y=y), data
    made = make_design(spec, new_data)
    scale = np.abs(X).max(axis=0)
    if made.X.shape != X.shape or (np.abs(made.X - X) > AGREEMENT * scale).any() or not np.array_equal(made.y, y):
        raise DesignError("The columns made from drawn responses differ from their definition; this is a fault.")
    return made, new_data


def columns_of_level(design: Design, X: Floats, terms: tuple[str, ...], Z: Floats) -> Floats:
    """Random columns of a level where the fixed-effect columns are X."""
    position = {label: j for j, label in enumerate(design.terms)}
    return np.column_stack([X[:, position[t]] if t in position else Z[:, k] for k, t in enumerate(terms)])


def draw_residuals(design: Design, values: Mapping[str, Floats], rng: np.random.Generator) -> Floats:
    """Residuals of every row on the scale of the linear predictor."""
    n = design.n_obs
    if design.family in ("bernoulli", "ordinal"):
        return rng.logistic(size=n)
    sd = np.atleast_1d(values[names.SIGMA])[design.sd_code]
    if names.LOG_SIGMA in values:
        therapists = design.level("therapist")
        assert therapists is not None
        sd = np.exp(values[names.LOG_SIGMA])[therapists.code]
    if design.family == "student":
        return sd * rng.standard_t(float(values[names.NU]), n)
    standard = rng.normal(size=n)
    if design.residual == "unstructured":
        root = np.linalg.cholesky(values[names.RESIDUAL_CORR])
        every = rng.normal(size=(int(design.row.max()) + 1, len(design.responses))) @ root.T
        standard = every[design.row, design.response]
    if design.residual == "ar1":
        standard = _carry_over(design, float(values[names.PHI]), rng)
    return sd * standard


def _carry_over(design: Design, phi: float, rng: np.random.Generator) -> Floats:
    """Series with unit variance and Corr(e_s, e_t) = phi^|s - t|: one step a session, those without a row too."""
    out = np.empty(design.n_obs)
    patient = design.levels[0].code
    for series in np.unique(np.column_stack([patient, design.response]), axis=0):
        rows = np.flatnonzero((patient == series[0]) & (design.response == series[1]))
        rows = rows[np.argsort(design.session[rows])]
        at, state = int(design.session[rows[0]]), rng.normal()
        for row in rows:
            while at < int(design.session[row]):
                state = phi * state + np.sqrt(1 - phi**2) * rng.normal()
                at += 1
            out[row] = state
    return out


def cut(design: Design, latent: Floats, values: Mapping[str, Floats]) -> Floats:
    """Categories of binary and ordinal responses; others as they are."""
    if design.family == "bernoulli":
        return (latent > 0).astype(float)
    if design.family == "ordinal":
        return (latent[:, None] > values[names.CUTPOINTS]).sum(axis=1).astype(float)
    return latent


def own_column(data: SessionData, spec: ModelSpec, factor: Factor) -> Floats:
    """Column of a factor over the sessions, from the definition of its part; zero where it has no predecessor (such
    sessions are no rows).
    """
    if factor.basis is not None:
        return evaluate_factor(column_source(spec, data), factor)
    values = data.values(factor.column)
    if factor.part != "raw":
        known = ~np.isnan(values)
        patient = data.codes["patient"]
        mean_of_patient = _mean_over(values, patient, known)
        if "therapist" in data.levels:
            mean_of_therapist = _mean_over(values, data.codes["therapist"], known)
        else:
            mean_of_therapist = np.zeros_like(values)
        values = {
            "within": values - mean_of_patient,
            "patient": mean_of_patient - mean_of_therapist,
            "therapist": mean_of_therapist,
        }[factor.part]
    if not factor.lag:
        return values
    place = {
        key: row for row, key in enumerate(zip(data.codes["patient"].tolist(), data.session.tolist(), strict=True))
    }
    earlier = [place.get((p, s - factor.lag), -1) for p, s in place]
    return np.array([values[row] if row >= 0 else 0.0 for row in earlier])


def _mean_over(values: Floats, code: NDArray[np.int64], known: NDArray[np.bool_]) -> Floats:
    total = np.bincount(code[known], weights=values[known], minlength=int(code.max()) + 1)
    count = np.bincount(code[known], minlength=int(code.max()) + 1)
    return (total / np.maximum(count, 1))[code]


def put_response(data: SessionData, spec: ModelSpec, design: Design, response: int, y: Floats) -> SessionData:
    """Put drawn values where the response was observed."""
    column = design.responses[response]
    at = next(r.level for r in spec.responses if r.column == column)
    row = design.row[design.response == response]
    home = data.home(column)
    if home == "session":
        cells = data.sessions[column].to_numpy(dtype=float).copy()
        if at == "session":
            cells[row] = y
        else:
            unit = data.codes[at]  # pyright: ignore[reportArgumentType]
            of_unit = np.full(int(unit.max()) + 1, np.nan)
            of_unit[unit[row]] = y
            cells = np.where(np.isnan(cells) | np.isnan(of_unit[unit]), cells, of_unit[unit])
        return replace(data, sessions=data.sessions.assign(**{column: cells}))
    table = data.units[home]
    cells = table[column].to_numpy(dtype=float).copy()
    cells[data.codes[home][row]] = y
    return replace(data, units={**data.units, home: table.assign(**{column: cells})})
