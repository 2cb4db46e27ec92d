"""The explicit graph of several outcomes: pooled coefficients, patients' slopes as predictors, correlated residuals."""

from typing import cast

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from psymech import names
from psymech.design import Design
from psymech.graph.correlated import correlated_response
from psymech.graph.explicit import coordinates, fixed_effects, level_effects, residual_sd
from psymech.graph.membership import row_effects
from psymech.graph.variables import matmul, signed_scales, standard_vector
from psymech.joined import MEAN_SD, SPREAD_SD, Pooling, SlopePredictors
from psymech.priors import ChosenPriors, uncentring
from psymech.spec.priors import HalfNormal


def joined_model(design: Design, priors: ChosenPriors) -> pm.Model:
    """Return the explicit model of a design with any of the three; see :func:`psymech.outcomes`."""
    coords = coordinates(design)
    if design.pooled is not None:
        coords[names.INGREDIENT] = list(design.pooled.ingredients)
    if design.slope_predictors is not None:
        coords[names.LOADING_TERM] = list(design.slope_predictors.labels)
    with pm.Model(coords=coords) as model:
        X = pm.Data(names.DESIGN_X, design.X, dims=(names.OBS, names.TERM))
        pooled = design.pooled
        beta = fixed_effects(design, priors) if pooled is None else pooled_effects(design, priors, pooled)
        eta = matmul(X, beta)
        for level in design.levels:
            u = level_effects(level, priors, design)
            Z = pm.Data(names.design_z(level.level), level.Z, dims=(names.OBS, names.term_dim(level.level)))
            eta = eta + pt.sum(Z * row_effects(u, level), axis=1)
            if level.level == "patient" and design.slope_predictors is not None:
                eta = _with_slopes(design, priors, design.slope_predictors, eta, u)
        if design.residual == "unstructured":
            correlated_response(design, priors, eta)
        else:
            pm.Normal("y", eta, residual_sd(design, priors), observed=design.y, dims=(names.OBS,))
    return model


def pooled_effects(design: Design, priors: ChosenPriors, pooled: Pooling) -> TensorVariable:
    r"""Register beta with the coefficients of each ingredient around their mean over the outcomes.

    .. math:: \beta_{rj}\,\mathrm{SD}(x_j)/\mathrm{SD}(y_r) = \pm(\mu_j + \tau z_{rj}), \quad \mu_j \sim N(0, 1),
        \quad \tau \sim \text{half-normal}(0.5)
    """
    rest = np.setdiff1d(np.arange(len(design.terms)), pooled.term)
    mean = pm.Normal(names.POOLED_MEAN, 0.0, MEAN_SD, dims=(names.INGREDIENT,))
    spread = signed_scales("scale_pooled", [HalfNormal(SPREAD_SD)])[0]
    pm.Deterministic(names.POOLED_SD, pt.abs(spread))
    z = pm.Normal("z_pooled", 0.0, 1.0, shape=pooled.term.size)
    coefficients = pooled.scale * (mean[pooled.ingredient] + spread * z)
    own = standard_vector("fixed", [priors.beta[j] for j in rest])
    free = pt.zeros(len(design.terms))
    free = pt.set_subtensor(free[pooled.term], coefficients)
    free = pt.set_subtensor(free[rest], own)
    return pm.Deterministic(names.BETA, matmul(pt.constant(uncentring(design, priors)), free), dims=(names.TERM,))


def _with_slopes(
    design: Design, priors: ChosenPriors, slopes: SlopePredictors, eta: TensorVariable, u: TensorVariable
) -> TensorVariable:
    """Add to the outcomes' linear predictors the patients' effects that predict them."""
    level = design.level("patient")
    assert level is not None
    b = pm.Deterministic(names.LOADING, standard_vector("slope_predictors", priors.loading), dims=(names.LOADING_TERM,))
    for r in np.unique(slopes.response):
        rows = np.flatnonzero(design.response == r)
        own = np.flatnonzero(slopes.response == r)
        part = sum(b[int(k)] * u[level.code[rows], int(slopes.column[k])] for k in own)
        eta = cast(TensorVariable, pt.inc_subtensor(eta[rows], part))
    return eta
