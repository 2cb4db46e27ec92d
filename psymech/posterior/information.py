"""What the rows say about each unit's coefficients, levels below integrated out."""

from itertools import pairwise

import numpy as np
import xarray as xr
from scipy.sparse import csr_array

from psymech import names
from psymech.errors import SpecError
from psymech.gaussian.information import own_variances
from psymech.names import LEVELS, Level
from psymech.posterior import tree as read
from psymech.posterior.caseload import rows_for


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
    roots = [read.covariance_root(tree, each) for each in levels[:-1]]
    sigma2 = (read.residual_sd(tree, response) ** 2).values.ravel()
    parents = []
    for lower, upper in pairwise(levels):
        parent = np.zeros(sizes[lower], dtype=np.int64)
        parent[units[lower]] = units[upper]
        parents.append(parent)
    return own_variances(products, parents, [sizes[each] for each in levels], widths, roots, sigma2)


def _summed(values: np.ndarray, units: np.ndarray, n_units: int) -> np.ndarray:
    """Sum the leading axis within units."""
    member = csr_array((np.ones(units.size), (units, np.arange(units.size))), shape=(n_units, units.size))
    return (member @ values.reshape(values.shape[0], -1)).reshape(n_units, *values.shape[1:])


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
