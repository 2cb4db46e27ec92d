"""How much the prior of an upper level's SD decides its posterior, by power scaling: no refit."""

from typing import Any, Final, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.errors import SpecError
from psymech.posterior import tree as read
from psymech.posterior.model_report import ModelCheck
from psymech.spec.priors import Exponential, HalfNormal, HalfStudentT, Prior, from_dict

SENSITIVE: Final = 0.05  # Kallioinen et al. 2024
CONTRACTION: Final = 0.5  # of the variance from prior to posterior: below, the data said less than the prior did
KHAT_MAX: Final = 0.7  # Vehtari et al. 2024: importance weights are of no use above


def log_density(prior: Prior, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log density of a prior of a standard deviation, up to a constant."""
    match prior:
        case HalfNormal(sd):
            return -0.5 * (values / sd) ** 2
        case HalfStudentT(nu, sd):
            return -0.5 * (nu + 1.0) * np.log1p((values / sd) ** 2 / nu)
        case Exponential(mean):
            return -values / mean
        case _:
            raise SpecError(f"{prior!r} is no prior of a standard deviation.")


def rescaled(prior: Prior, factor: float) -> Prior:
    """Return the prior with its scale times a factor."""
    match prior:
        case HalfNormal(sd):
            return HalfNormal(sd * factor)
        case HalfStudentT(nu, sd):
            return HalfStudentT(nu, sd * factor)
        case Exponential(mean):
            return Exponential(mean * factor)
        case _:
            raise SpecError(f"{prior!r} is no prior of a standard deviation.")


def prior_variance(prior: Prior) -> float:
    """Variance of a prior of a standard deviation; infinite for a Student-t with nu <= 2."""
    match prior:
        case HalfNormal(sd):
            return sd**2 * (1.0 - 2.0 / np.pi)
        case Exponential(mean):
            return mean**2
        case HalfStudentT(nu, sd):
            from scipy.stats import t

            if nu <= 2:
                return np.inf
            mean = 2.0 * sd * nu / (nu - 1.0) * t.pdf(0.0, nu)
            return float(sd**2 * nu / (nu - 2.0) - mean**2)
        case _:
            raise SpecError(f"{prior!r} is no prior of a standard deviation.")


def sensitivity(values: xr.DataArray, prior: Prior) -> float:
    """Power-scaling sensitivity of an SD's posterior to its own prior (Kallioinen et al. 2024), by ArviZ."""
    from arviz_stats.psense import psense

    tree = xr.DataTree.from_dict(
        {
            "/posterior": xr.Dataset({"sd": values}),
            "/log_prior": xr.Dataset({"sd": values.copy(data=log_density(prior, values.values))}),
        }
    )
    result = psense(tree, var_names=["sd"], group="prior")
    return float(cast(Any, result)["sd"])


def reweighted_mean(values: xr.DataArray, old: Prior, new: Prior) -> tuple[float, float]:
    """Posterior mean under another prior by smoothed importance weights, and the Pareto k of the weights."""
    from arviz_stats.base.array import array_stats

    flat = values.transpose(*names.SAMPLE_DIMS).values
    log_ratio = (log_density(new, flat) - log_density(old, flat)).reshape(-1)
    psislw: Any = array_stats.psislw
    smoothed, khat = psislw(-log_ratio)
    weights = np.asarray(smoothed, dtype=float)
    share = np.exp(weights - np.logaddexp.reduce(weights))
    return float((share * flat.reshape(-1)).sum()), float(np.asarray(khat))


def prior_weight(tree: xr.DataTree) -> list[ModelCheck]:
    r"""Check for each SD above the patients whether its prior drives its posterior.

    The prior density is raised to the powers 0.99 and 1.01 by importance weighting, :math:`w \propto
    p(\sigma)^{\alpha-1}`, and the change of the posterior is measured per doubling of the power (cumulative
    Jensen-Shannon distance). A check fails where that is at least 0.05 and the data narrowed the prior's variance by
    less than a half. The mean under half and twice the prior's scale is told.

    References
    ----------
    Kallioinen, Paananen, Buerkner & Vehtari (2024), Detecting and diagnosing prior and likelihood sensitivity with
    power-scaling, Statistics and Computing 34, 57. https://doi.org/10.1007/s11222-023-10366-5
    """
    if names.ATTR_PRIORS not in tree.attrs:
        return [_unknown(level) for level in read.levels_of(tree) if level != "patient"]
    priors = read.json_attr(tree, names.ATTR_PRIORS)
    found = []
    for level in read.levels_of(tree):
        if level == "patient":
            continue
        draws = read.posterior(tree)
        for label in read.labels_of(draws, names.term_dim(level)):
            key = f"{names.sd(level)}[{label}]"
            if key in priors:
                sd = read.take(draws[names.sd(level)], names.term_dim(level), label)
                found.append(_judged(key, level, sd, from_dict(priors[key]), _owner(tree, label)))
    return found


def _owner(tree: xr.DataTree, label: str) -> str:
    return next((r for r in read.responses_of(tree) if label.startswith(read.response_label(r, ""))), "")


def _judged(key: str, level: str, sd: xr.DataArray, prior: Prior, response: str) -> ModelCheck:
    strength = sensitivity(sd, prior)
    narrowing = 1.0 - float(sd.var()) / prior_variance(prior)
    driven = strength >= SENSITIVE and narrowing < CONTRACTION
    means = [_mean_in_words(sd, prior, factor) for factor in (0.5, 2.0)]
    text = (
        f"{'The prior drives' if driven else 'Prior of'} {key}: posterior mean {float(sd.mean()):.3g}; with half "
        f"the prior's "
        f"scale {means[0]}, with twice its scale {means[1]}."
    )
    return ModelCheck(
        name=f"prior of {key}",
        level=level,
        response=response,
        observed=strength,
        low=0.0,
        high=SENSITIVE,
        probability=np.nan,
        status="failed" if driven else "ok",
        concerns=("variance", "therapists") if driven else (),
        text=text,
        remedy="Report results under a second prior, or do not interpret this SD." if driven else "",
    )


def _mean_in_words(sd: xr.DataArray, prior: Prior, factor: float) -> str:
    mean, khat = reweighted_mean(sd, prior, rescaled(prior, factor))
    return f"{mean:.3g}" if khat <= KHAT_MAX else "not known without a refit"


def _unknown(level: str) -> ModelCheck:
    return ModelCheck(
        name=f"prior of {names.sd(level)}",
        level=level,
        response="",
        observed=np.nan,
        low=np.nan,
        high=np.nan,
        probability=np.nan,
        status="not assessed",
        concerns=(),
        text=f"The tree does not say which priors were used, so the weight of the prior on {names.sd(level)} is "
        f"unknown.",
        remedy="Fit again with this version.",
    )
