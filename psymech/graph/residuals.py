"""Residuals that remember the last session: AR(1) over session numbers, with gaps."""

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from psymech import names
from psymech.design import Design
from psymech.graph.variables import autocorrelation
from psymech.priors import ChosenPriors


def _log_density(value, eta, sd, phi, previous, gap):
    first = pt.lt(previous, 0)
    rho = pt.switch(first, 0.0, pt.sign(phi) ** gap * pt.abs(phi) ** gap)
    before = pt.maximum(previous, 0)
    mean = eta + rho * (value[before] - eta[before])
    return pm.logp(pm.Normal.dist(mean, sd * pt.sqrt(1 - rho**2)), value).sum()


def _draw(eta, sd, phi, previous, gap, rng: Any = None, size=None):
    error = sd * rng.normal(size=eta.shape)
    rho = np.sign(phi) ** gap * np.abs(phi) ** gap
    position = _positions(previous)
    for place in range(1, int(position.max()) + 1):
        rows = np.flatnonzero(position == place)
        error[rows] = rho[rows] * error[previous[rows]] + np.sqrt(1 - rho[rows] ** 2) * error[rows]
    return eta + error


def _positions(previous):
    """Place of each row in its chain, 0 for the first. A crossed patient's earlier row may stand below a later one."""
    position = np.zeros(previous.shape, dtype=np.int64)
    at = previous
    while np.any(at >= 0):
        position += at >= 0
        at = np.where(at >= 0, previous[at], -1)
    return position


def ar1_response(design: Design, priors: ChosenPriors, eta: TensorVariable, sd: TensorVariable) -> TensorVariable:
    """Register phi and the observed response with Corr(e_s, e_t) = phi^|s - t| over session numbers of one patient.

    The density is that of the chain: the first residual N(0, sigma^2), each later one N(rho e_before, sigma^2 (1 -
    rho^2)) with rho = phi^gap. Exact for gaps.
    """
    assert priors.phi is not None
    phi = autocorrelation(priors.phi)
    previous = pm.Data("previous_of_obs", design.previous, dims=(names.OBS,))
    gap = pm.Data("gap_of_obs", design.gap, dims=(names.OBS,))
    per_row = sd if sd.ndim == 1 else sd * pt.ones(design.n_obs)
    return pm.CustomDist(
        "y",
        eta,
        per_row,
        phi,
        previous,
        gap,
        logp=_log_density,
        random=_draw,
        signature="(n),(n),(),(n),(n)->(n)",
        observed=design.y,
        dims=(names.OBS,),
    )
