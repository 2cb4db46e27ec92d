"""The same model as PyMC users write it: non-centred effects, Cholesky factors from LKJCholeskyCov.

Data and priors are those of psymech's model; the predictors have mean zero, so the intercept is the expected outcome
at their average in both.
"""

import numpy as np
import pymc as pm

from psymech.design import Design
from psymech.priors import ChosenPriors
from psymech.spec.priors import HalfNormal, Normal


def model(design: Design, priors: ChosenPriors) -> pm.Model:
    """Return the PyMC model; variables are named as in psymech's trees."""
    assert all(isinstance(p, Normal) for p in priors.beta)
    coords = {"term": list(design.terms)}
    for level in design.levels:
        coords |= {level.level: level.labels.tolist(), f"{level.level}_term": list(level.terms)}
    with pm.Model(coords=coords) as written:
        mean, sd = np.array([(p.mean, p.sd) for p in priors.beta]).T
        beta = pm.Normal("beta", mean, sd, dims="term")
        mu = design.X @ beta
        for level in design.levels:
            name, q = level.level, len(level.terms)
            # Scales multiply the factor: an array inside sd_dist makes nutpie's starting point fail.
            scale = np.array([p.sd for p in priors.sd[name] if isinstance(p, HalfNormal)])
            unit, _, sds = pm.LKJCholeskyCov(
                f"chol_{name}", n=q, eta=priors.corr[name].eta, sd_dist=pm.HalfNormal.dist(1.0)
            )
            chol = scale[:, None] * unit
            pm.Deterministic(f"sd_{name}", scale * sds, dims=f"{name}_term")
            z = pm.Normal(f"z_{name}", 0, 1, dims=(name, f"{name}_term"))
            u = pm.Deterministic(f"u_{name}", z @ chol.T, dims=(name, f"{name}_term"))
            mu = mu + (level.Z * u[level.code]).sum(axis=-1)
        (sigma_prior,) = priors.sigma
        assert isinstance(sigma_prior, HalfNormal)
        sigma = pm.HalfNormal("sigma", sigma_prior.sd)
        pm.Normal("y", mu, sigma, observed=design.y)
    return written
