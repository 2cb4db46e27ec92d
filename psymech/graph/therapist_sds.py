"""Residual SDs of therapists in the explicit graph (location-scale), sampled around their own average."""

from typing import Any, cast

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from psymech import names
from psymech.design import Design
from psymech.errors import SpecError
from psymech.graph.variables import signed_scales
from psymech.priors import ChosenPriors
from psymech.spec.model import THERAPIST
from psymech.spec.priors import Exponential, HalfNormal, HalfStudentT, Prior, SymmetricBeta


def therapist_sds(design: Design, priors: ChosenPriors) -> TensorVariable:
    r"""Register sigma and the therapists' log residual SDs, and return the SD of each row.

    .. math:: \log \sigma_k = \log \sigma + \tau z_k = m + \tau (z_k - \bar z),\quad m = \log \sigma + \tau \bar z

    The sampler moves m, the average of the therapists' logarithms, which the data know well, and not sigma, which they
    know only through it: moving sigma alone would have to be undone by every :math:`z_k`. The density of m is that of
    sigma's prior, :math:`p(\sigma) \sigma` at :math:`\log \sigma = m - \tau \bar z`; the model is the same.

    Where the logarithms correlate with the therapists' effects,
    :math:`z_k = \rho\, v_{k1} / \sigma_{v1} + \sqrt{1 - \rho^2}\, e_k` with the therapists' first random term.
    """
    level = design.level(THERAPIST)
    assert level is not None
    assert priors.sd_log_sigma is not None
    scale = signed_scales("scale_log_sigma", [priors.sd_log_sigma])[0]
    pm.Deterministic(names.SD_LOG_SIGMA, pt.abs(scale))
    z = pm.Normal("z_log_sigma", 0.0, 1.0, dims=(THERAPIST,))
    if priors.corr_log_sigma is not None:
        z = _with_effects(z, priors.corr_log_sigma, scale)
    shift = scale * pt.mean(z)
    prior = priors.sigma[0]

    def log_density(value: TensorVariable, moved: TensorVariable) -> TensorVariable:
        return pm.logp(_distribution(prior), pt.exp(value - moved)) + value - moved

    def draw(moved: Any, rng: Any = None, size: Any = None) -> Any:
        return moved + np.log(_drawn(prior, rng))

    mean = pm.CustomDist("mean_log_sigma", shift, logp=log_density, random=draw, signature="()->()")
    pm.Deterministic(names.SIGMA, pt.exp(mean - shift))
    log_sd = pm.Deterministic(names.LOG_SIGMA, mean + scale * (z - pt.mean(z)), dims=(THERAPIST,))
    code = pm.Data("therapist_of_residual", level.code, dims=(names.OBS,))
    return cast(TensorVariable, pt.exp(log_sd))[code]


def _with_effects(z: TensorVariable, prior: SymmetricBeta, scale: TensorVariable) -> TensorVariable:
    """Register the correlation with the therapists' effects, and return deviations that have it.

    Scales have signs where effects are not centred: what is sampled belongs to the standardised variables, and flips
    its sign with either scale; what is registered does not.
    """
    model = pm.modelcontext(None)
    a = np.float64(prior.a)  # a Python float would be taken in single precision
    rho = 2.0 * pm.Beta("corr_log_sigma_half", a, a) - 1.0
    u = model[names.effect(THERAPIST)][:, 0]
    if f"z_{THERAPIST}" in model.named_vars:
        effect = model[f"z_{THERAPIST}"][:, 0]
        sign = pt.sign(u[0] * effect[0])
    else:
        effect, sign = u / model[names.sd(THERAPIST)][0], 1.0
    pm.Deterministic(names.CORR_LOG_SIGMA, rho * sign * pt.sign(scale))
    return rho * effect + pt.sqrt(1.0 - rho**2) * z


def _distribution(prior: Prior) -> TensorVariable:
    match prior:
        case HalfNormal(sd):
            return pm.HalfNormal.dist(sd)
        case HalfStudentT(nu, sd):
            return pm.HalfStudentT.dist(nu=nu, sigma=sd)
        case Exponential(mean):
            return pm.Exponential.dist(scale=mean)
    raise SpecError(f"{prior!r} is no prior of a standard deviation.")


def _drawn(prior: Prior, rng: Any) -> float:
    match prior:
        case HalfNormal(sd):
            return abs(sd * rng.normal())
        case HalfStudentT(nu, sd):
            return abs(sd * rng.standard_t(nu))
        case Exponential(mean):
            return rng.exponential(mean)
    raise SpecError(f"{prior!r} is no prior of a standard deviation.")
