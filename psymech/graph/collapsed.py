"""The collapsed graph: random effects, and fixed effects with normal priors, integrated out exactly.

The response is an observed variable with a density and a random generator of its own, so that predictive sampling,
simulation and calibration see it, and ``pm.observe`` or new data can replace it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.tensor.linalg import det, inv
from pytensor.tensor.variable import TensorVariable

from psymech import names
from psymech.design import Design
from psymech.gaussian.patterns import ByPattern, by_pattern
from psymech.graph.crossing import Crossing, make_crossing
from psymech.graph.explicit import coordinates, positive_sigma
from psymech.graph.ops import CollapsedLogp, PackResponse, packed_data
from psymech.graph.variables import autocorrelation, covariance_factor, matmul, register_covariance, standard_vector
from psymech.priors import ChosenPriors, uncentring


def collapsed_model(design: Design, priors: ChosenPriors) -> pm.Model:
    """Return the model of the variance parameters alone; see :func:`psymech.build_model`.

    Fixed effects stay in the model, as ``beta``, only where one of their priors is not normal.
    """
    crossing = make_crossing(design, priors)
    with pm.Model(coords=coordinates(design)) as model:
        center, precision = _fixed_effects(design, priors, crossing)
        factors = []
        for level in design.levels:
            lkj = priors.corr.get(level.level)
            factor = covariance_factor(level.level, priors.sd[level.level], lkj, signed=True, zero=level.zero)
            register_covariance(level.level, factor, correlated=lkj is not None)
            factors.append(factor)
        theta = _residual_covariance(priors) if priors.residual_corr else pt.atleast_1d(positive_sigma(design, priors))
        if design.residual == "ar1":
            assert priors.phi is not None
            phi = autocorrelation(priors.phi)
            theta = pt.concatenate([theta, pt.atleast_1d(phi)])
        _response(design, crossing, center, precision, theta, factors)
    return model


def _fixed_effects(design: Design, priors: ChosenPriors, crossing: Crossing) -> tuple[TensorVariable, TensorVariable]:
    if crossing.beta_prior is not None:
        mean, precision = crossing.beta_prior
        return pt.constant(mean), pt.constant(precision)
    free = standard_vector("fixed", priors.beta)
    beta = pm.Deterministic(names.BETA, matmul(pt.constant(uncentring(design, priors)), free), dims=(names.TERM,))
    return beta, pt.constant(np.zeros((0, 0)))


def _response(
    design: Design,
    crossing: Crossing,
    center: TensorVariable,
    precision: TensorVariable,
    theta: TensorVariable,
    factors: list[TensorVariable],
) -> None:
    integrate = crossing.beta_prior is not None
    cross = crossing.cross
    data = packed_data(cross, crossing.columns, crossing.unit, crossing.residual.terms(), integrate=integrate)
    op = CollapsedLogp(
        tuple(tuple(int(i) for i in z) for z in cross.z),
        tuple(int(i) for i in cross.x),
        cross.n_columns,
        cross.n_coef,
        integrate=integrate,
    )
    a = len(factors)
    fixed = [
        pm.Data(f"_collapsed_{key}", value)
        for key, value in (
            ("products", data.S),
            ("weighted", data.weighted),
            ("place", data.place),
            ("pairs", data.pairs),
            ("pair_weight", data.pair_weight),
        )
    ]
    nesting = [pm.Data(f"_collapsed_parent{i}", p) for i, p in enumerate(data.layout.parent_slot)]
    nesting += [pm.Data(f"_collapsed_map{i}", p) for i, p in enumerate(data.layout.up)]
    counts = residual_counts(design)

    def logp(value: Any, rows: Any, theta: Any, center: Any, precision: Any, *rest: Any) -> Any:
        S = PackResponse()(*fixed, value)
        coefs, log_det = residual_expressions(theta, counts)
        return op(S, coefs, log_det, center, precision, np.float64(cross.n_obs), *rest[:a], *nesting)[0]

    def random(
        rows: Any, theta: Any, center: Any, precision: Any, *factors: Any, rng: Any = None, size: Any = None
    ) -> Any:
        return draw_response(design, center, precision, theta, factors, rng, integrate=integrate)

    square = ",".join(f"(q{i},q{i})" for i in range(a))
    pm.CustomDist(
        "y",
        pt.zeros(design.n_obs),
        theta,
        center,
        precision,
        *factors,
        logp=logp,
        random=random,
        signature=f"(n),(t),(p),(k,k),{square}->(n)",
        observed=design.y,
        dims=(names.OBS,),
    )


@dataclass(frozen=True, slots=True, eq=False)
class ResidualCounts:
    """Number of rows of each residual SD, and, for AR(1), the distinct gaps with how often each occurs; for residuals
    that
    correlate across responses, the patterns.
    """

    rows: NDArray[np.float64]
    gaps: NDArray[np.float64]
    steps: NDArray[np.float64]
    patterns: ByPattern | None = None


def _residual_covariance(priors: ChosenPriors) -> TensorVariable:
    """Register sigma and the residual correlations; return their covariance as a vector."""
    factor = covariance_factor("residual", priors.sigma, priors.residual_corr, signed=True)
    sd = pm.Deterministic(names.SIGMA, pt.sqrt(pt.sum(factor**2, axis=1)), dims=(names.RESPONSE,))
    covariance = matmul(factor, factor.T)
    dims = (names.RESPONSE, names.RESPONSE + names.AUX)
    pm.Deterministic(names.RESIDUAL_CORR, covariance / sd[:, None] / sd[None, :], dims=dims)
    return covariance.ravel()


def residual_counts(design: Design) -> ResidualCounts:
    """Count rows by residual SD, and gaps between a patient's rows."""
    rows = np.bincount(design.sd_code).astype(float)
    if design.residual == "unstructured":
        return ResidualCounts(rows, np.zeros(0), np.zeros(0), by_pattern(design.row, design.response))
    if design.residual != "ar1":
        return ResidualCounts(rows, np.zeros(0), np.zeros(0))
    gaps, steps = np.unique(design.gap[design.previous >= 0], return_counts=True)
    return ResidualCounts(rows, gaps, steps.astype(float))


def residual_expressions(theta: TensorVariable, counts: ResidualCounts) -> tuple[TensorVariable, TensorVariable]:
    """Coefficients of the residual precision and log|R| as tensors, in the order of the structures' terms."""
    n = len(counts.rows)
    if counts.patterns is not None:
        return _pattern_expressions(theta.reshape((n, n)), counts.patterns)
    sigma = theta[:n]
    log_det = pt.sum(2.0 * counts.rows * pt.log(sigma))
    if not len(counts.gaps):
        return sigma**-2.0, log_det
    phi = theta[n]
    c = sigma[0] ** -2.0
    rho = pt.sign(phi) ** counts.gaps * pt.abs(phi) ** counts.gaps
    rest = 1.0 - rho**2
    steps = pt.stack([c / rest, -c * rho / rest], axis=1).ravel()
    return pt.concatenate([pt.atleast_1d(c), steps]), log_det + pt.sum(counts.steps * pt.log(rest))


def _pattern_expressions(covariance: TensorVariable, patterns: ByPattern) -> tuple[TensorVariable, TensorVariable]:
    coefs, log_det = [], pt.constant(0.0)
    for mask, count in zip(patterns.masks, patterns.counts, strict=True):
        index = np.flatnonzero(mask)
        part = covariance[index][:, index]
        lower = np.tril_indices(len(index))
        coefs.append(inv(part)[lower])
        log_det = log_det + count * pt.log(det(part))
    return pt.concatenate(coefs), log_det


def draw_response(
    design: Design,
    center: NDArray,
    precision: NDArray,
    theta: NDArray,
    factors: tuple[NDArray, ...],
    rng: np.random.Generator,
    *,
    integrate: bool,
) -> NDArray[np.float64]:
    """Draw all responses from the model: fixed effects from their prior, new random effects, new residuals."""
    beta = center
    if integrate:
        root = np.linalg.cholesky(precision)
        beta = center + np.linalg.solve(root.T, rng.standard_normal(center.shape[0]))
    eta = design.X @ beta
    for level, factor in zip(design.levels, factors, strict=True):
        u = rng.standard_normal((level.n_units, factor.shape[0])) @ factor.T
        eta = eta + np.sum(level.Z * u[level.code], axis=1)
    if design.residual == "unstructured":
        return eta + _correlated_noise(design, theta, rng)
    sd = theta[design.sd_code]
    noise = sd * rng.standard_normal(design.n_obs)
    if design.residual == "ar1":
        phi = theta[-1]
        for i, before in enumerate(design.previous):
            if before >= 0:
                rho = np.sign(phi) ** design.gap[i] * np.abs(phi) ** design.gap[i]
                noise[i] = rho * noise[before] + np.sqrt(1 - rho**2) * noise[i]
    return eta + noise


def _correlated_noise(design: Design, theta: NDArray, rng: np.random.Generator) -> NDArray[np.float64]:
    n = len(design.responses)
    root = np.linalg.cholesky(theta.reshape(n, n))
    occasion = np.unique(design.row, return_inverse=True)[1]
    return (rng.standard_normal((int(occasion.max()) + 1, n)) @ root.T)[occasion, design.response]
