"""Residual structures at many draws at once: what `evaluate` and `log_det_by_unit` say of one."""

from dataclasses import dataclass

import numpy as np

from psymech.gaussian.cross import FloatArray, IntArray
from psymech.gaussian.patterns import ByPattern
from psymech.gaussian.residual import AR1, ByGroup


@dataclass(frozen=True, slots=True, eq=False)
class ResidualDraws:
    """Residual precision and ``log|R|`` at D draws.

    Attributes
    ----------
    coefs : (D, n_coef), in front of the structure's constant matrices.
    counts, terms : (n_units, K) and (D, K): ``log|R_i|`` of each unit is their product.
    """

    coefs: FloatArray
    counts: FloatArray
    terms: FloatArray


def residual_draws(residual: ByGroup | AR1 | ByPattern, theta: FloatArray, unit_of_row: IntArray) -> ResidualDraws:
    """Return the structure at parameters ``theta (D, n_theta)``; rows belong to the units ``unit_of_row``.

    Examples
    --------
    >>> from psymech.gaussian.residual import iid
    >>> found = residual_draws(iid(3), np.array([[1.0], [2.0]]), np.array([0, 0, 1]))
    >>> (found.counts @ found.terms.T).round(2)
    array([[0.  , 2.77],
           [0.  , 1.39]])
    """
    n_units = int(unit_of_row.max()) + 1
    match residual:
        case ByGroup():
            counts = _counted(unit_of_row, residual.group, n_units, residual.n_theta)
            return ResidualDraws(theta**-2.0, counts, 2.0 * np.log(theta))
        case AR1():
            return _autoregressive(residual, theta, unit_of_row, n_units)
        case ByPattern():
            factor = np.zeros((len(theta), residual.n_responses, residual.n_responses))
            factor[:, *np.tril_indices(residual.n_responses)] = theta
            covariance = factor @ np.swapaxes(factor, -1, -2)
            parts = [covariance[:, mask][:, :, mask] for mask in residual.masks]
            counts = [np.bincount(unit_of_row[rows[:, 0]], minlength=n_units) for rows in residual.rows]
            return ResidualDraws(
                residual.coefficients(covariance),
                np.column_stack(counts).astype(np.float64),
                np.column_stack([np.linalg.slogdet(part)[1] for part in parts]),
            )


def _autoregressive(residual: AR1, theta: FloatArray, unit_of_row: IntArray, n_units: int) -> ResidualDraws:
    sigma, phi = theta[:, : residual.n_groups], theta[:, residual.n_groups :]
    start, end, gap = residual.steps()
    coefs, steps, terms = [], [], []
    for g, gaps in enumerate(residual.gaps()):
        precision = sigma[:, g] ** -2.0
        coefs.append(precision)
        for d in gaps:
            rho = phi[:, g] ** d
            rest = 1.0 - rho**2
            coefs += [precision / rest, -rho * precision / rest]
            mine = end[(gap == d) & (residual.group[start] == g)]
            steps.append(np.bincount(unit_of_row[mine], minlength=n_units).astype(np.float64))
            terms.append(np.log1p(-(rho**2)))
    counts = _counted(unit_of_row, residual.group, n_units, residual.n_groups)
    return ResidualDraws(
        np.column_stack(coefs),
        np.column_stack([counts, *steps]),
        np.column_stack([2.0 * np.log(sigma), *terms]),
    )


def _counted(unit: IntArray, group: IntArray, n_units: int, n_groups: int) -> FloatArray:
    """Rows of each unit in each group."""
    return np.bincount(unit * n_groups + group, minlength=n_units * n_groups).reshape(n_units, n_groups).astype(float)
