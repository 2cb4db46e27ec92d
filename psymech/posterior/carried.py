"""The last residual of a fit's patients, which AR(1) residuals carry into later sessions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.names import OBS, SAMPLE_DIMS, TERM
from psymech.posterior import tree as read
from psymech.posterior.caseload import patient_of_rows
from psymech.posterior.replicates import contribution

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class LastResiduals:
    """Last observed session of patients and what was left of its outcome.

    Attributes
    ----------
    column : (patients of the fit,) position in `session` and `residual`, -1 for patients not asked for or never seen.
    session : (n,) number of the last session with an outcome; residual : (samples, n) outcome minus linear predictor.
    """

    column: Ints
    session: Floats
    residual: Floats


def last_residuals(tree: xr.DataTree, response: str, patients: Ints) -> LastResiduals:
    r"""Return :math:`y - x'\beta - z'u` at the last session with an outcome, for some patients of the fit."""
    draws, data = read.posterior(tree), read.constants(tree)
    rows = read.rows_of_response(tree, response)
    y = read.outcome(tree)
    owner = patient_of_rows(tree)
    rows = rows[np.isfinite(y[rows]) & np.isin(owner[rows], patients)]
    session = data[names.SESSION_OF_OBS].values.astype(float)
    order = rows[np.lexsort((session[rows], owner[rows]))]
    last = order[np.flatnonzero(np.diff(owner[order], append=-1))]
    beta = draws[names.BETA].transpose(*SAMPLE_DIMS, TERM).values
    x = data[names.DESIGN_X].transpose(OBS, TERM).values[last].astype(float)
    eta = beta.reshape(-1, beta.shape[-1]) @ x.T
    for level in read.levels_of(tree):
        u = read.level_effects(tree, level).values
        unit, weight = read.shares_of_obs(tree, level)
        eta += contribution(u.reshape(-1, *u.shape[2:]), read.design_rows(tree, level, last), unit[last], weight[last])
    column = np.full(max(int(owner.max(initial=-1)), int(patients.max(initial=-1))) + 1, -1, dtype=np.int64)
    column[owner[last]] = np.arange(last.size)
    return LastResiduals(column, session[last], y[last] - eta)


def decay(phi: Floats, gap: Any) -> Floats:
    """Correlation of residuals so many sessions apart."""
    return np.sign(phi) ** gap * np.abs(phi) ** gap
