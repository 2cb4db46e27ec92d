"""Multiple membership in the explicit graph: effects of several units on one row, weighted."""

import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from psymech import names
from psymech.design import LevelDesign


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
