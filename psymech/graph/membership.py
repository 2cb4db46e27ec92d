"""Multiple membership in the explicit graph: effects of several units on one row, weighted."""

from collections.abc import Sequence

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.tensor.variable import TensorVariable

from psymech import names
from psymech.design import Design
from psymech.level_design import LevelDesign


def row_effects(u: TensorVariable, level: LevelDesign) -> TensorVariable:
    """Return the effects (n_obs, n_terms) that a level has on each row.

    Those of the row's unit, or, where units share rows, the sum of theirs with weights that are one in sum (Browne,
    Goldstein & Rasbash 2001, doi:10.1177/1471082X0100100202). The units of all rows are read in one flat index: no
    matrix of rows by units is made.
    """
    if level.members is None:
        return u[pm.Data(names.group_of_obs(level.level), level.code, dims=(names.OBS,))]
    dims = (names.OBS, names.member_dim(level.level))
    code = pm.Data(names.members_of_obs(level.level), level.members.code, dims=dims)
    weight = pm.Data(names.weights_of_obs(level.level), level.members.weight, dims=dims)
    n_obs, m = level.members.code.shape
    each = u[code.flatten()].reshape((n_obs, m, len(level.terms)))
    return pt.sum(weight[:, :, None] * each, axis=1)


def average_effects(design: Design, effects: Sequence[TensorVariable]) -> TensorVariable:
    """Return what the random effects add to the average row of each response, (n_terms,): at its intercept, else zero.

    The data know an intercept plus this far better than the intercept: a sampler that moves their sum need not undo
    each step of the intercept by all effects, or of an effect by all others.
    """
    moved = pt.zeros(len(design.terms))
    for j, term in enumerate(design.term_specs):
        if term.role == "intercept":
            rows = design.response == design.term_response[j]
            parts = [pt.sum(_average(level, rows) * u) for level, u in zip(design.levels, effects, strict=True)]
            moved = pt.set_subtensor(moved[j], sum(parts))
    return moved


def _average(level: LevelDesign, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the columns (n_units, n_terms) that units have on the average row."""
    code, weight = level.code[:, None], np.ones((len(level.code), 1))
    if level.members is not None:
        code, weight = level.members.code, level.members.weight
    total = np.zeros((level.n_units, len(level.terms)))
    for j in range(code.shape[1]):
        np.add.at(total, code[rows, j], weight[rows, j, None] * level.Z[rows])
    return total / rows.sum()
