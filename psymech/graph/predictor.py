"""The linear predictor of the explicit graph: what need not be done once a row is done once a unit."""

from collections.abc import Sequence

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.tensor.variable import TensorVariable

from psymech import names
from psymech.design import Design
from psymech.graph.membership import row_effects
from psymech.graph.variables import matmul
from psymech.level_design import LevelDesign


def linear_predictor(design: Design, beta: TensorVariable, effects: Sequence[TensorVariable]) -> TensorVariable:
    r"""Return X beta plus the random effects of all levels, for each row.

    A column that varies over the lowest level's units often has a fixed effect and effects of the units above as well.
    Its coefficient in a unit, :math:`\beta_j + v_{kj} + u_{ikj}`, is added up before the rows are reached, so that
    rows are multiplied and gradients gathered once and not once a level. Columns of X and of the levels above that
    the lowest level lacks, and units that share rows, enter row by row.
    """
    if not design.levels or design.levels[0].members is not None:
        return _by_rows(names.DESIGN_X, design.X, beta) + sum(
            _level_by_rows(level, u) for level, u in zip(design.levels, effects, strict=True)
        )
    lowest, coefficients = design.levels[0], effects[0]
    place = places(design.X, lowest.Z)
    shared, rest = place.any(axis=1), ~place.any(axis=1)
    eta = pt.zeros(design.n_obs)
    if shared.any():
        coefficients = coefficients + pt.sum(place * beta[:, None], axis=0)[None, :]
    if rest.any():
        eta = eta + _by_rows(f"{names.DESIGN_X}_by_rows", design.X[:, rest], beta[np.flatnonzero(rest)])
    for level, u in zip(design.levels[1:], effects[1:], strict=True):
        upper = unit_above(lowest, level)
        place = places(level.Z, lowest.Z)
        if upper is None or not place.any(axis=1).all():
            eta = eta + _level_by_rows(level, u)
            continue
        index = pm.Data(names.parent_of_unit(lowest.level, level.level), upper, dims=(lowest.level,))
        same = place.shape[0] == place.shape[1] and np.array_equal(place, np.eye(place.shape[0]))
        coefficients = coefficients + (u if same else matmul(u, pt.constant(place)))[index]
    return eta + _level_by_rows(lowest, coefficients)


def places(columns: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a matrix of zeros and ones, (columns, among): which of `among` each column equals; rows of zeros: none."""
    found = np.zeros((columns.shape[1], among.shape[1]))
    for i in range(columns.shape[1]):
        equal = np.flatnonzero((columns[:, [i]] == among).all(axis=0))
        found[i, equal[:1]] = 1.0
    return found


def unit_above(lowest: LevelDesign, level: LevelDesign) -> NDArray[np.int64] | None:
    """Return the index of each lowest unit's unit at a level above; None where rows of one unit have several."""
    if level.members is not None:
        return None
    upper = np.zeros(lowest.n_units, dtype=np.int64)
    upper[lowest.code] = level.code
    return upper if np.array_equal(upper[lowest.code], level.code) else None


def _by_rows(name: str, columns: NDArray[np.float64], beta: TensorVariable) -> TensorVariable:
    if not columns.shape[1]:
        return pt.zeros(columns.shape[0])
    return matmul(pm.Data(name, columns), beta)


def _level_by_rows(level: LevelDesign, u: TensorVariable) -> TensorVariable:
    Z = pm.Data(names.design_z(level.level), level.Z, dims=(names.OBS, names.term_dim(level.level)))
    return pt.sum(Z * row_effects(u, level), axis=1)
