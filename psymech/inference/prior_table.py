"""The priors of a fit as text that travels with the tree."""

import json

from psymech import names
from psymech.design import Design
from psymech.joined import MEAN_SD, SPREAD_SD
from psymech.priors import ChosenPriors
from psymech.spec.priors import HalfNormal, Normal, Prior, to_dict


def prior_table(design: Design, priors: ChosenPriors) -> str:
    """Return JSON text: the name of each parameter and its prior.

    ``{"sd_therapist[Intercept]": {"family": "HalfNormal", "sd": 2}}``. The prior of an intercept belongs to the
    expected outcome at the average of the other columns. A correlation matrix has one prior, ``corr_patient``; with
    several responses, or groups of residuals, there is one ``sigma[...]`` each.
    """
    found: dict[str, Prior] = {
        f"{names.BETA}[{label}]": prior
        for j, (label, prior) in enumerate(zip(design.terms, priors.beta, strict=True))
        if design.pooled is None or j not in design.pooled.term
    }
    if design.pooled is not None:
        found |= {f"{names.POOLED_MEAN}[{label}]": Normal(0.0, MEAN_SD) for label in design.pooled.ingredients}
        found[names.POOLED_SD] = HalfNormal(SPREAD_SD)
    if design.slope_predictors is not None:
        labels = design.slope_predictors.labels
        found |= {f"{names.LOADING}[{label}]": p for label, p in zip(labels, priors.loading, strict=True)}
    for level in design.levels:
        own = priors.sd[level.level]
        found |= {f"{names.sd(level.level)}[{label}]": p for label, p in zip(level.terms, own, strict=True)}
    found |= {names.corr(level): prior for level, prior in priors.corr.items()}
    if len(priors.sigma) == 1:
        found[names.SIGMA] = priors.sigma[0]
    elif priors.sigma:  # binary and ordinal outcomes have none
        found |= {f"{names.SIGMA}[{r}]": p for r, p in zip(design.sd_labels, priors.sigma, strict=True)}
    others = {names.PHI: priors.phi, names.NU: priors.nu, names.CUTPOINTS: priors.cutpoints}
    others |= {names.SD_LOG_SIGMA: priors.sd_log_sigma, names.CORR_LOG_SIGMA: priors.corr_log_sigma}
    found |= {name: prior for name, prior in others.items() if prior is not None}
    return json.dumps({name: to_dict(prior) for name, prior in found.items()}, ensure_ascii=False)
