"""The outcome of a simulated table: linear predictor and response, session by session where it carries over."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from psymech.data.membership import session_shares
from psymech.data.sessions import SessionData
from psymech.errors import SpecError
from psymech.names import INTERCEPT, Level
from psymech.simulation.truth import Parameters
from psymech.spec.model import ModelSpec

Floats = NDArray[np.float64]
LARGEST_CARRY_OVER = 0.95


def draw_outcome(
    spec: ModelSpec,
    parameters: Parameters,
    *,
    X: Floats,
    effects: Mapping[Level, Floats],
    data: SessionData,
    carry_over: str | None,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Return the linear predictor and the outcome of every session, each (n_sessions,).

    `carry_over` is the label of the outcome's own lag, whose column in `X` is zero.
    """
    eta = X @ parameters.beta
    slope = np.zeros(data.n_sessions)
    if carry_over is not None:
        slope += parameters.beta[parameters.terms.index(carry_over)]
    by_label = dict(zip(parameters.terms, X.T, strict=True)) | {INTERCEPT: np.ones(data.n_sessions)}
    for level in parameters.levels:
        own = row_effects(spec, effects[level.level], level.level, data)
        eta = eta + sum(by_label[term] * own[:, j] for j, term in enumerate(level.terms))
        if carry_over in level.terms:
            slope = slope + own[:, level.terms.index(carry_over)]
    noise = _noise(spec, parameters, data, rng)
    if carry_over is None:
        return eta, _response(spec, parameters, eta, noise)
    if np.abs(slope).max() >= LARGEST_CARRY_OVER:
        raise SpecError(
            f"The outcome's own lag has a coefficient of {slope[np.abs(slope).argmax()]:.2f} for some patient, so that "
            f"the outcome would not settle. Each must stay below {LARGEST_CARRY_OVER}: lower beta[{carry_over}] or its "
            "SDs in truth."
        )
    return _carried_over(spec, parameters, eta, slope, noise, data)


def row_effects(spec: ModelSpec, effects: Floats, level: Level, data: SessionData) -> Floats:
    """Effects (n_sessions, n_terms) on each session: its unit's, or those of the patient's units so far, weighted."""
    if spec.membership == "current" or level == "patient":
        return effects[data.codes[level]]
    rows = np.arange(data.n_sessions)
    members = session_shares(data, level, rows, shared=np.ones(rows.size, dtype=bool))
    return np.einsum("nm,nmk->nk", members.weight, effects[members.code])


def _carried_over(
    spec: ModelSpec, parameters: Parameters, eta: Floats, slope: Floats, noise: Floats, data: SessionData
) -> tuple[Floats, Floats]:
    outcome = np.zeros(eta.size)
    eta = eta.copy()
    follows = np.concatenate([[False], (np.diff(data.codes["patient"]) == 0) & (np.diff(data.session) == 1)])
    settles = spec.family in ("gaussian", "student")
    for session in np.unique(data.session):
        rows = np.flatnonzero(data.session == session)
        carried = rows[follows[rows]]
        eta[carried] += slope[carried] * outcome[carried - 1]
        if settles:
            start = rows[~follows[rows]]
            eta[start] /= 1.0 - slope[start]
        outcome[rows] = _response(spec, parameters, eta[rows], noise[rows])
    return eta, outcome


def _noise(spec: ModelSpec, parameters: Parameters, data: SessionData, rng: np.random.Generator) -> Floats:
    """What chance adds: residuals, or for the logit families the standard logistic latent residual."""
    n = data.n_sessions
    match spec.family:
        case "gaussian" if parameters.phi is not None:
            return _sigma(parameters) * _ar1(rng.normal(size=n), parameters.phi, data)
        case "gaussian":
            return _sigma(parameters) * rng.normal(size=n)
        case "student":
            return _sigma(parameters) * rng.standard_t(parameters.nu or np.inf, size=n)
        case _:
            return rng.logistic(size=n)


def _sigma(parameters: Parameters) -> float:
    if parameters.sigma is None:
        raise AssertionError("a Gaussian or Student outcome has a residual SD")
    return parameters.sigma


def _ar1(z: Floats, phi: float, data: SessionData) -> Floats:
    """Unit-variance residuals that correlate phi^d over d sessions; stationary from a patient's first session on."""
    e = z.copy()
    same = np.diff(data.codes["patient"]) == 0
    gap = np.diff(data.session)
    for row in np.flatnonzero(same) + 1:
        rho = phi ** gap[row - 1]
        e[row] = rho * e[row - 1] + np.sqrt(1 - rho**2) * z[row]
    return e


def _response(spec: ModelSpec, parameters: Parameters, eta: Floats, noise: Floats) -> Floats:
    match spec.family:
        case "bernoulli":
            return (eta + noise > 0).astype(float)
        case "ordinal":
            return np.searchsorted(np.asarray(parameters.cutpoints), eta + noise).astype(float)
        case _:
            return eta + noise
