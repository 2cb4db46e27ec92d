"""Variance that correlated predictors share: the average over orders of entry, as quadratic forms of coefficients."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RANK_TOLERANCE: Final = (
    1e-10  # of the largest eigenvalue, on columns scaled to unit variance: below it, a linear dependence
)
CONSTANT: Final = 1e-12  # of the column's mean square: below it, rounding of a column that does not vary here


def attribution_forms(
    columns: Floats, groups: Mapping[str, Sequence[int]], *, first: Sequence[str] = ()
) -> dict[str, Floats]:
    r"""Matrices W_g such that the variance of :math:`x'\beta` that goes with group g is :math:`\beta' W_g \beta`.

    For a set S of groups, v(S) is the variance of :math:`x'\beta` that the columns of S predict linearly,
    :math:`\beta' C_{\cdot S} C_{SS}^{+} C_{S\cdot}\, \beta`, with C the columns' covariance. A group's part is the
    average of v(S + g) - v(S) over all orders in which the groups may enter (Lindeman, Merenda & Gold; the Shapley
    value of the game v). The parts are not negative and add up to :math:`\beta' C \beta`.

    Parameters
    ----------
    columns : (n, k) deviations: each column's mean is zero.
    groups
        Indices of each group's columns; every column belongs to one group.
    first
        Groups that enter before the others, in this order: each takes all that it shares with later ones.

    Returns
    -------
    dict of group to (k, k) symmetric positive semidefinite matrix

    References
    ----------
    Lindeman, Merenda & Gold (1980), Introduction to bivariate and multivariate analysis, Scott, Foresman.
    Groemping (2007), Estimators of relative importance in linear regression based on variance decomposition, The
    American Statistician 61, 139-147. https://doi.org/10.1198/000313007X188252

    Examples
    --------
    >>> x = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    >>> forms = attribution_forms(x, {"a": [0], "b": [1]})
    >>> beta = np.array([3.0, 2.0])
    >>> float(beta @ forms["a"] @ beta), float(beta @ forms["b"] @ beta)
    (9.0, 4.0)
    """
    covariance = columns.T @ columns / len(columns)
    scale = np.sqrt(np.diag(covariance))
    known: dict[frozenset[str], Floats] = {frozenset(): np.zeros_like(covariance)}

    def explained(chosen: frozenset[str]) -> Floats:
        if chosen not in known:
            known[chosen] = _projection(
                covariance, scale, [i for name in groups if name in chosen for i in groups[name]]
            )
        return known[chosen]

    forms: dict[str, Floats] = {}
    before: frozenset[str] = frozenset()
    for name in (name for name in first if name in groups):
        forms[name] = explained(before | {name}) - explained(before)
        before |= {name}
    free = [name for name in groups if name not in before]
    for name in free:
        others = [other for other in free if other != name]
        form = np.zeros_like(covariance)
        for size in range(len(others) + 1):
            weight = factorial(size) * factorial(len(others) - size) / factorial(len(free))
            for chosen in combinations(others, size):
                inside = before.union(chosen)
                form += weight * (explained(inside | {name}) - explained(inside))
        forms[name] = form
    return {name: forms[name] for name in groups}


def varying(columns: Floats, whole: Floats) -> NDArray[np.bool_]:
    """Whether the deviations in `columns` are more than rounding of the columns `whole` that they were taken from."""
    return (columns**2).mean(axis=0) > CONSTANT * np.maximum((whole**2).mean(axis=0), np.finfo(float).tiny)


def _projection(covariance: Floats, scale: Floats, members: Sequence[int]) -> Floats:
    """Covariance of the part of every column that the members predict."""
    inside = [i for i in members if scale[i] > 0.0]
    if not inside:
        return np.zeros_like(covariance)
    unit = scale[inside]
    correlation = covariance[np.ix_(inside, inside)] / np.outer(unit, unit)
    values, vectors = np.linalg.eigh(correlation)
    kept = values > RANK_TOLERANCE * values[-1]
    root = (covariance[:, inside] / unit) @ (vectors[:, kept] / np.sqrt(values[kept]))
    return root @ root.T
