"""Residuals that correlate across the outcomes of one patient (or one session), on the explicit graph."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.tensor.variable import TensorVariable

from psymech import names
from psymech.design import Design
from psymech.graph.explicit import positive_sigma
from psymech.graph.variables import correlation_factor, matmul
from psymech.priors import ChosenPriors

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Occasions:
    """Where the rows stand in a table of occasions (patients, or sessions) by outcomes.

    Attributes
    ----------
    rows : rows whose residuals correlate; cell : their places in the flat table; others : the remaining rows.
    observed : (n_occasions, n_outcomes); absent : places of cells without a row.
    """

    rows: Ints
    cell: Ints
    others: Ints
    observed: NDArray[np.bool_]
    absent: Ints


def occasions(design: Design) -> Occasions:
    """Arrange the rows of a design by occasion and outcome."""
    members = np.array(design.correlated_responses)
    chosen = np.isin(design.response, members)
    rows = np.flatnonzero(chosen)
    occasion = np.unique(design.row[rows], return_inverse=True)[1]
    cell = occasion * members.size + np.searchsorted(members, design.response[rows])
    observed = np.zeros((int(occasion.max()) + 1) * members.size, dtype=bool)
    observed[cell] = True
    table = observed.reshape(-1, members.size)
    return Occasions(rows, cell, np.flatnonzero(~chosen), table, np.flatnonzero(~observed))


def correlated_response(design: Design, priors: ChosenPriors, eta: TensorVariable) -> TensorVariable:
    r"""Register sigma, the residual correlations and the observed response.

    With L the factor of the residual covariance, the residuals of an occasion are L z, z standard normal. Where an
    outcome is missing its z is a parameter, so that the others keep the density of what was observed (missing at
    random): nothing is left out, and no covariance of a part is factored.
    """
    assert priors.residual_corr is not None
    members, place = np.array(design.correlated_responses), occasions(design)
    q = members.size
    sigma = positive_sigma(design, priors)
    unit = correlation_factor("partial_residual", priors.residual_corr, q)
    n = len(design.responses)
    whole = pt.set_subtensor(pt.eye(n)[members[:, None], members[None, :]], matmul(unit, unit.T))
    pm.Deterministic(names.RESIDUAL_CORR, whole, dims=(names.RESPONSE, names.RESPONSE + names.AUX))
    factor = sigma[members][:, None] * unit
    absent = pm.Normal("z_absent", 0.0, 1.0, shape=place.absent.size) if place.absent.size else pt.zeros(0)

    def logp(value: Any, eta: Any, sd: Any, factor: Any, absent: Any) -> Any:
        size = place.observed.size
        table = pt.set_subtensor(pt.zeros(size)[place.cell], value[place.rows] - eta[place.rows])
        table = table.reshape(place.observed.shape)
        free = pt.zeros(size)
        if place.absent.size:
            free = pt.set_subtensor(free[place.absent], absent)
        free = free.reshape(place.observed.shape)
        z: list[Any] = []
        total = pt.constant(0.0)
        for i in range(q):
            rest = table[:, i]
            for j, earlier in enumerate(z):
                rest = rest - factor[i, j] * earlier
            there = place.observed[:, i]
            own = rest / factor[i, i]
            z.append(own if there.all() else pt.switch(there, own, free[:, i]))
            count = float(there.sum())
            total = total - 0.5 * pt.sum(there * z[-1] ** 2) - count * pt.log(factor[i, i])
            total = total - 0.5 * count * np.log(2 * np.pi)
        if place.others.size:
            other = place.others
            total = total + pm.logp(pm.Normal.dist(eta[other], sd[other]), value[other]).sum()
        return total

    def random(eta: Any, sd: Any, factor: Any, absent: Any, rng: Any = None, size: Any = None) -> Any:
        drawn = eta + sd * rng.standard_normal(eta.shape)
        noise = rng.standard_normal(place.observed.shape) @ factor.T
        drawn[place.rows] = eta[place.rows] + noise.ravel()[place.cell]
        return drawn

    return pm.CustomDist(
        "y",
        eta,
        sigma[design.response],
        factor,
        absent,
        logp=logp,
        random=random,
        signature="(n),(n),(q,q),(k)->(n)",
        observed=design.y,
        dims=(names.OBS,),
    )
