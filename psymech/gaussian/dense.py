"""The obvious oracle: build the whole covariance matrix and use textbook normal distributions. Never optimised.

It shares no formula with the engine. Rows stay rows, residual covariances are written from their definitions, and
every question is a question about one joint normal vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.linalg import block_diag

from psymech.errors import SpecError
from psymech.gaussian.cross import FloatArray, IntArray
from psymech.gaussian.loglik import Prior, prior_arrays
from psymech.gaussian.residual import AR1, ByGroup, Residual, Unstructured


@dataclass(frozen=True, slots=True, eq=False)
class DenseRows:
    """The rows themselves; fields as the arguments of `psymech.gaussian.cross.cross_products`."""

    columns: FloatArray
    y: FloatArray
    unit_of_row: IntArray
    parents: tuple[IntArray, ...]
    z: tuple[IntArray, ...]
    x: IntArray

    def unit_at(self, level: int) -> IntArray:
        """Return the unit of each row at a level."""
        unit = self.unit_of_row
        for parent in self.parents[:level]:
            unit = parent[unit]
        return unit

    def indicator(self, level: int) -> FloatArray:
        """Return ``Z (n, n_units q)`` of a level, each unit's columns together."""
        unit, z = self.unit_at(level), self.columns[:, self.z[level]]
        out = np.zeros((unit.size, int(unit.max()) + 1, z.shape[1]))
        out[np.arange(unit.size), unit] = z
        return out.reshape(unit.size, -1)


def residual_covariance(structure: Residual, theta: ArrayLike) -> FloatArray:
    """Return ``R (n, n)`` from the structure's definition."""
    values = np.asarray(theta, dtype=np.float64)
    if isinstance(structure, ByGroup):
        return np.diag(values[structure.group] ** 2)
    if isinstance(structure, Unstructured):
        factor = structure.factor(values)
        R = np.zeros((structure.rows.size, structure.rows.size))
        for occasion in structure.rows:
            R[np.ix_(occasion, occasion)] = factor @ factor.T
        return R
    if isinstance(structure, AR1):
        sigma, phi = values[: structure.n_groups][structure.group], values[structure.n_groups :][structure.group]
        distance = np.abs(structure.position[:, None] - structure.position[None, :])
        same = structure.series[:, None] == structure.series[None, :]
        power = np.ones_like(distance)
        np.power(np.broadcast_to(phi[:, None], distance.shape), distance, out=power, where=same)
        return np.where(same, np.outer(sigma, sigma) * power, 0.0)
    raise SpecError(f"No dense covariance for {type(structure).__name__}.")


def marginal(
    rows: DenseRows, factors: Sequence[ArrayLike], R: FloatArray, *, beta: ArrayLike | None, prior: Prior | None
) -> tuple[FloatArray, FloatArray]:
    """Return mean and covariance of ``y`` with all random effects, and with ``prior`` also the fixed effects,
    integrated out.
    """
    X = rows.columns[:, rows.x]
    covariance = R.copy()
    for level, factor in enumerate(factors):
        L, Z = np.asarray(factor, dtype=np.float64), rows.indicator(level)
        covariance += Z @ np.kron(np.eye(Z.shape[1] // L.shape[0]), L @ L.T) @ Z.T
    if prior is None:
        return X @ np.asarray(beta, dtype=np.float64), covariance
    b0, P0 = prior_arrays(prior, X.shape[1])
    return X @ b0, covariance + X @ np.linalg.inv(P0) @ X.T


def log_likelihood(
    rows: DenseRows,
    factors: Sequence[ArrayLike],
    R: FloatArray,
    *,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
) -> float:
    """Return the log density of ``y``."""
    mean, covariance = marginal(rows, factors, R, beta=beta, prior=prior)
    return float(_log_normal(rows.y, mean, covariance))


def leave_out(
    rows: DenseRows,
    factors: Sequence[ArrayLike],
    R: FloatArray,
    *,
    level: int,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
) -> FloatArray:
    """Return ``log p(y_k | y_-k, theta)`` of each unit ``k`` of a level, as the conditional normal density."""
    mean, covariance = marginal(rows, factors, R, beta=beta, prior=prior)
    unit = rows.unit_at(level)
    out = []
    for k in range(int(unit.max()) + 1):
        mine, others = np.flatnonzero(unit == k), np.flatnonzero(unit != k)
        gain = np.linalg.solve(covariance[np.ix_(others, others)], covariance[np.ix_(others, mine)]).T
        centre = mean[mine] + gain @ (rows.y - mean)[others]
        spread = covariance[np.ix_(mine, mine)] - gain @ covariance[np.ix_(others, mine)]
        out.append(_log_normal(rows.y[mine], centre, (spread + spread.T) / 2))
    return np.array(out)


def conditional(
    rows: DenseRows,
    factors: Sequence[ArrayLike],
    R: FloatArray,
    *,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Return mean and covariance, given ``y``, of all random effects (levels lowest first, units then terms) and
    then the fixed effects.

    With ``beta`` given, the fixed effects are left out.
    """
    mean, covariance = marginal(rows, factors, R, beta=beta, prior=prior)
    blocks, designs, centres = [], [], []
    for level, factor in enumerate(factors):
        L, Z = np.asarray(factor, dtype=np.float64), rows.indicator(level)
        blocks.append(np.kron(np.eye(Z.shape[1] // L.shape[0]), L @ L.T))
        designs.append(Z)
        centres.append(np.zeros(Z.shape[1]))
    if prior is not None:
        b0, P0 = prior_arrays(prior, rows.x.size)
        blocks.append(np.linalg.inv(P0))
        designs.append(rows.columns[:, rows.x])
        centres.append(b0)
    before, Z = block_diag(*blocks), np.hstack(designs)
    gain = np.linalg.solve(covariance, Z @ before).T
    return np.concatenate(centres) + gain @ (rows.y - mean), before - gain @ Z @ before


def _log_normal(y: FloatArray, mean: FloatArray, covariance: FloatArray) -> float:
    normal: Any = stats.multivariate_normal(mean, covariance)  # pyright: ignore[reportArgumentType]
    return float(normal.logpdf(y))
