"""The explicit graph: every random effect is a variable. Works for every family and for crossed levels."""

from typing import Any, Literal

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from psymech import names
from psymech.design import Design
from psymech.errors import SpecError
from psymech.graph.membership import average_effects
from psymech.graph.predictor import linear_predictor
from psymech.graph.residuals import ar1_response
from psymech.graph.therapist_sds import therapist_sds
from psymech.graph.variables import covariance_factor, matmul, register_covariance, standard_vector
from psymech.level_design import LevelDesign
from psymech.priors import ChosenPriors, uncentring
from psymech.spec.priors import HalfNormal, HalfStudentT, Normal

Parametrisation = Literal["centred", "non-centred"]
CENTRE_ABOVE = 0.9


def coordinates(design: Design) -> dict[str, object]:
    """Coordinates of the model and of the tree: terms, responses, units and their terms, rows."""
    coords: dict[str, object] = {names.TERM: list(design.terms), names.OBS: np.arange(design.n_obs)}
    if len(design.responses) > 1:
        coords[names.RESPONSE] = list(design.responses)
        coords[names.RESPONSE + names.AUX] = list(design.responses)
    if design.residual_by is not None:
        coords[names.RESIDUAL_GROUP] = list(design.residual_by.labels)
    for level in design.levels:
        dim = names.term_dim(level.level)
        coords[level.level] = level.labels
        coords[dim] = list(level.terms)
        coords[dim + names.AUX] = list(level.terms)
    if design.family == "ordinal":
        coords[names.THRESHOLD] = [
            f"{a:g}|{b:g}" for a, b in zip(design.categories, design.categories[1:], strict=False)
        ]
    return coords


def parametrisation(design: Design, level: LevelDesign) -> Parametrisation:
    """Choose how a level's effects are sampled.

    Effects that the data pin down well mix best centred, others non-centred (Papaspiliopoulos, Roberts & Sköld 2007,
    doi:10.1214/088342307000000014). The measure is the lowest reliability among the level's terms that is typical of
    its units, with effects as large as a tenth of the outcome's variance: n s_z^2 tau^2 / (n s_z^2 tau^2 + sigma^2). A
    unit of an upper level is informed by its units below (a therapist by patients), not by their sessions.
    """
    if level.centred is not None:
        return "centred" if level.centred else "non-centred"
    if design.family in ("bernoulli", "ordinal"):
        return "non-centred"
    counts = _informing_units(design, level)
    information = np.median(counts) * (level.Z**2).mean(axis=0) / np.maximum((level.Z**2).max(axis=0), 1e-300)
    tau2 = 0.1
    reliability = information * tau2 / (information * tau2 + (1 - tau2))
    return "centred" if reliability.min() > CENTRE_ABOVE else "non-centred"


def _informing_units(design: Design, level: LevelDesign) -> np.ndarray:
    """Number of units of the next lower level of each unit; of rows at the lowest level."""
    position = design.levels.index(level)
    if position == 0:
        return np.bincount(level.code, minlength=level.n_units)
    pairs = np.unique(np.column_stack([level.code, design.levels[position - 1].code]), axis=0)
    return np.bincount(pairs[:, 0], minlength=level.n_units)


def explicit_model(design: Design, priors: ChosenPriors) -> pm.Model:
    """Return the model with every effect as a variable; see :func:`psymech.build_model`."""
    with pm.Model(coords=coordinates(design)) as model:
        if any(level.members is not None for level in design.levels):
            effects = [level_effects(level, priors, design) for level in design.levels]
            beta = fixed_effects(design, priors, moved=average_effects(design, effects))
        else:
            beta = fixed_effects(design, priors)
            effects = [level_effects(level, priors, design) for level in design.levels]
        _likelihood(design, priors, linear_predictor(design, beta, effects))
    return model


def fixed_effects(design: Design, priors: ChosenPriors, moved: TensorVariable | None = None) -> TensorVariable:
    """Register beta and return it; with `moved` the sampler moves beta (of the average row) plus that."""
    free = standard_vector("fixed", priors.beta, moved) if design.terms else pt.zeros(0)
    return pm.Deterministic(names.BETA, matmul(pt.constant(uncentring(design, priors)), free), dims=(names.TERM,))


def level_effects(level: LevelDesign, priors: ChosenPriors, design: Design) -> TensorVariable:
    """Register the covariance and the effects of a level, and return the effects (units, terms)."""
    name, dim = level.level, names.term_dim(level.level)
    lkj = priors.corr.get(name)
    centred = parametrisation(design, level) == "centred"
    factor = covariance_factor(name, priors.sd[name], lkj, signed=not centred, zero=level.zero)
    register_covariance(name, factor, correlated=lkj is not None)
    if not centred:
        z = pm.Normal(f"z_{name}", 0.0, 1.0, dims=(name, dim))
        return pm.Deterministic(names.effect(name), matmul(z, factor.T), dims=(name, dim))
    if lkj is None:
        return pm.Normal(names.effect(name), 0.0, pt.sum(factor, axis=1), dims=(name, dim))
    return pm.MvNormal(names.effect(name), mu=np.zeros(len(level.terms)), chol=factor, dims=(name, dim))


def _likelihood(design: Design, priors: ChosenPriors, eta: TensorVariable) -> None:
    dims = (names.OBS,)
    match design.family:
        case "gaussian" if design.residual == "ar1":
            ar1_response(design, priors, eta, residual_sd(design, priors))
        case "gaussian":
            pm.Normal("y", eta, residual_sd(design, priors), observed=design.y, dims=dims)
        case "student":
            assert priors.nu is not None
            nu = pm.Gamma(names.NU, np.float64(priors.nu.shape), np.float64(priors.nu.rate))
            pm.StudentT("y", nu=nu, mu=eta, sigma=residual_sd(design, priors), observed=design.y, dims=dims)
        case "bernoulli":
            pm.Bernoulli("y", logit_p=eta, observed=design.y.astype(np.int64), dims=dims)
        case "ordinal":
            assert priors.cutpoints is not None
            cut = ordered_cutpoints(priors.cutpoints, len(design.categories) - 1)
            pm.OrderedLogistic(
                "y", eta=eta, cutpoints=cut, observed=design.y.astype(np.int64), dims=dims, compute_p=False
            )


def _ordered_log_density(value, mean, sd):
    k = value.shape[0]
    return pm.logp(pm.Normal.dist(mean, sd), value).sum() + pt.gammaln(k + 1.0)


def _ordered_draw(mean, sd, rng: Any = None, size=None):
    return np.sort(rng.normal(mean, sd), axis=-1)


def ordered_cutpoints(prior: Normal, k: int) -> TensorVariable:
    """Register k thresholds: independent normals put in order, density k! times their product.

    A plain Normal with an ordered transform would draw thresholds in any order before data are seen.
    """
    return pm.CustomDist(
        names.CUTPOINTS,
        np.full(k, prior.mean),
        np.full(k, prior.sd),
        logp=_ordered_log_density,
        random=_ordered_draw,
        signature="(k),(k)->(k)",
        dims=(names.THRESHOLD,),
        transform=pm.distributions.transforms.ordered,
        initval=np.linspace(-1.5, 1.5, k) if k > 1 else np.zeros(1),
    )


def residual_sd(design: Design, priors: ChosenPriors) -> TensorVariable:
    """Register sigma, a scalar or one per response, group or therapist, and return it per row."""
    if priors.sd_log_sigma is not None:
        return therapist_sds(design, priors)
    sd = positive_sigma(design, priors)
    if design.residual_by is not None:
        return sd[pm.Data(names.RESIDUAL_GROUP_OF_OBS, design.residual_by.code, dims=(names.OBS,))]
    if len(design.responses) == 1:
        return sd
    return sd[pm.Data(names.RESPONSE_OF_OBS, design.response, dims=(names.OBS,))]


def positive_sigma(design: Design, priors: ChosenPriors) -> TensorVariable:
    """Register sigma: a scalar with one response, else one per response or group of residuals."""
    family = type(priors.sigma[0])
    if any(type(p) is not family for p in priors.sigma):
        raise SpecError("The priors of sigma must be of one family for all responses and groups.")
    one = len(design.sd_labels) == 1
    dims = None if one else (names.RESPONSE if design.residual_by is None else names.RESIDUAL_GROUP,)

    def values(field: str) -> object:
        every = np.array([getattr(p, field) for p in priors.sigma], dtype=float)
        return every[0] if one else every

    if family is HalfNormal:
        return pm.HalfNormal(names.SIGMA, values("sd"), dims=dims)
    if family is HalfStudentT:
        return pm.HalfStudentT(names.SIGMA, nu=values("nu"), sigma=values("sd"), dims=dims)
    return pm.Exponential(names.SIGMA, scale=values("mean"), dims=dims)
