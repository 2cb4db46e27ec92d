"""What the rows say about each unit's coefficients, levels below integrated out."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from scipy.sparse import csr_array

from psymech import names
from psymech.errors import SpecError
from psymech.names import LEVELS, Level
from psymech.posterior import tree as read
from psymech.posterior.caseload import rows_for

MATRICES_AT_ONCE = 200_000  # patients times draws held in memory


def sampling_variance(tree: xr.DataTree, *, level: Level, response: str) -> np.ndarray:
    r"""Return the sampling variance of each unit's own estimate of its coefficients, per draw.

    With A the cross-products of all random columns of a patient's rows over :math:`\sigma^2`, a lower level l is
    integrated out by :math:`A_{rr} - A_{rl} (\Omega_l^{-1} + A_{ll})^{-1} A_{lr}`, units add up within their
    parent, and

    .. math:: V_k = \left[\sum_i A_{i}\right]^{-1}

    is the variance of generalised least squares from unit k alone. Infinite where the unit's rows do not determine the
    coefficient.

    Returns
    -------
    ndarray, shape (samples, n_units, n_terms)
    """
    levels: list[Level] = [each for each in read.levels_of(tree) if LEVELS.index(each) <= LEVELS.index(level)]
    rows = rows_for(tree, response)
    columns: dict[Level, np.ndarray] = {each: read.design_rows(tree, each, rows) for each in levels}
    units: dict[Level, np.ndarray] = {each: read.unit_of_obs(tree, each)[rows] for each in levels}
    sizes: dict[Level, int] = {each: len(read.unit_labels(tree, each)) for each in levels}
    widths = [columns[each].shape[1] for each in levels]
    stacked = np.concatenate([columns[each] for each in levels], axis=1)
    products = _summed(stacked[:, :, None] * stacked[:, None, :], units[levels[0]], sizes[levels[0]])
    omegas: dict[Level, np.ndarray] = {each: _flat(read.covariance(tree, each)) for each in levels[:-1]}
    sigma2 = (read.residual_sd(tree, response) ** 2).values.ravel()
    chunk = max(1, MATRICES_AT_ONCE // max(1, sizes[levels[0]]))
    parts = [
        _one_chunk(products, omegas, sigma2, slice(start, start + chunk), levels, units, sizes, widths)
        for start in range(0, sigma2.size, chunk)
    ]
    return np.concatenate(parts)


def _flat(covariance: np.ndarray) -> np.ndarray:
    return covariance.reshape(-1, *covariance.shape[2:])


def _summed(values: np.ndarray, units: np.ndarray, n_units: int) -> np.ndarray:
    """Sum the leading axis within units."""
    member = csr_array((np.ones(units.size), (units, np.arange(units.size))), shape=(n_units, units.size))
    return (member @ values.reshape(values.shape[0], -1)).reshape(n_units, *values.shape[1:])


def _one_chunk(
    products: np.ndarray,
    omegas: Mapping[Level, np.ndarray],
    sigma2: np.ndarray,
    draws: slice,
    levels: list[Level],
    units: Mapping[Level, np.ndarray],
    sizes: Mapping[Level, int],
    widths: list[int],
) -> np.ndarray:
    a = products[:, None] / sigma2[draws, None, None]  # (units, draws, columns, columns)
    for lower, upper, q in zip(levels, levels[1:], widths, strict=False):
        omega = omegas[lower][draws]
        inner = a[..., :q, :q]
        # (Omega^-1 + A)^-1 = (I + Omega A)^-1 Omega, which also holds for a singular Omega
        gain = np.linalg.solve(np.eye(q) + omega @ inner, np.broadcast_to(omega, inner.shape))
        cross = a[..., q:, :q]
        rest = a[..., q:, q:] - cross @ gain @ np.swapaxes(cross, -1, -2)
        parent = np.zeros(sizes[lower], dtype=np.int64)
        parent[units[lower]] = units[upper]
        a = _summed(rest, parent, sizes[upper])
    return np.swapaxes(_diagonal_of_inverse(a), 0, 1)


def _diagonal_of_inverse(a: np.ndarray) -> np.ndarray:
    """Diagonals of the inverses of symmetric matrices, infinite where a matrix is singular."""
    values, vectors = np.linalg.eigh(a)
    largest = values[..., -1:]
    sound = values > 1e-10 * np.maximum(largest, np.finfo(float).tiny)
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=sound)
    diagonal = (vectors**2 @ inverse[..., None])[..., 0]
    lost = (vectors**2 @ (~sound)[..., None].astype(float))[..., 0] > 1e-8
    return np.where(lost, np.inf, diagonal)


def refuse_uncovered(tree: xr.DataTree, response: str) -> None:
    """Raise SpecError where units do not simply add up: crossed patients, correlated residuals, other families."""
    spec = read.json_attr(tree, names.ATTR_SPEC)
    design = read.json_attr(tree, names.ATTR_DESIGN) if names.ATTR_DESIGN in tree.attrs else {}
    obstacle = {
        f"the family is {read.family_of(tree, response)!r}": read.family_of(tree, response) != "gaussian",
        "the residuals are autoregressive": spec.get("residual", "iid") != "iid",
        "residual SDs differ between sessions (residual_by=)": spec.get("residual_by") is not None,
        "the model has several responses": len(read.responses_of(tree)) > 1,
        "patients are crossed with therapists": not design.get("nested", True),
    }
    found = [text for text, holds in obstacle.items() if holds]
    if found:
        raise SpecError(
            f"method='formula' covers one Gaussian outcome with independent residuals and nested levels; here "
            f"{', '.join(found)}. Use method='posterior'."
        )
