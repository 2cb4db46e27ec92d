"""The same models as PyMC and NumPyro users write them: non-centred effects, Cholesky factors with LKJ priors.

Data and priors are those of psymech's model; the predictors have mean zero, so the intercept is the expected outcome
at their average in both.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from psymech.design import Design
from psymech.priors import ChosenPriors
from psymech.spec.priors import HalfNormal, Normal


def normal_priors(priors: ChosenPriors) -> np.ndarray:
    """Means and SDs of the fixed effects, (2, p)."""
    assert all(isinstance(p, Normal) for p in priors.beta)
    return np.array([(p.mean, p.sd) for p in priors.beta]).T


def half_normal_scales(chosen: Any) -> np.ndarray:
    """Scales of half-normal priors."""
    assert all(isinstance(p, HalfNormal) for p in chosen)
    return np.array([p.sd for p in chosen])


def pymc_model(design: Design, priors: ChosenPriors) -> Any:
    """Return the PyMC model; variables are named as in psymech's trees."""
    import pymc as pm

    mean, sd = normal_priors(priors)
    coords = {"term": list(design.terms)}
    for level in design.levels:
        coords |= {level.level: level.labels.tolist(), f"{level.level}_term": list(level.terms)}
    with pm.Model(coords=coords) as written:
        beta = pm.Normal("beta", mean, sd, dims="term")
        mu = design.X @ beta
        for level in design.levels:
            name, q = level.level, len(level.terms)
            # Scales multiply the factor: an array inside sd_dist makes nutpie's starting point fail.
            scale = half_normal_scales(priors.sd[name])
            unit, _, sds = pm.LKJCholeskyCov(
                f"chol_{name}", n=q, eta=priors.corr[name].eta, sd_dist=pm.HalfNormal.dist(1.0)
            )
            chol = scale[:, None] * unit
            pm.Deterministic(f"sd_{name}", scale * sds, dims=f"{name}_term")
            z = pm.Normal(f"z_{name}", 0, 1, dims=(name, f"{name}_term"))
            u = pm.Deterministic(f"u_{name}", z @ chol.T, dims=(name, f"{name}_term"))
            mu = mu + (level.Z * u[level.code]).sum(axis=-1)
        sigma = pm.HalfNormal("sigma", half_normal_scales(priors.sigma), shape=len(priors.sigma))
        pm.Normal("y", mu, sigma[design.sd_code], observed=design.y)
    return written


def numpyro_model(design: Design, priors: ChosenPriors) -> Callable[[], None]:
    """Return the NumPyro model."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    mean, sd = normal_priors(priors)
    scales = {level.level: half_normal_scales(priors.sd[level.level]) for level in design.levels}
    sigma_scale = half_normal_scales(priors.sigma)

    def written() -> None:
        beta = numpyro.sample("beta", dist.Normal(mean, sd).to_event(1))
        mu = jnp.asarray(design.X) @ beta
        for level in design.levels:
            name, q = level.level, len(level.terms)
            tau = numpyro.sample(f"sd_{name}", dist.HalfNormal(scales[name]).to_event(1))
            root = numpyro.sample(f"root_{name}", dist.LKJCholesky(q, priors.corr[name].eta))
            z = numpyro.sample(f"z_{name}", dist.Normal(jnp.zeros((level.n_units, q)), 1.0).to_event(2))
            u = numpyro.deterministic(f"u_{name}", z @ (tau[:, None] * root).T)
            mu = mu + (jnp.asarray(level.Z) * u[level.code]).sum(axis=-1)
        sigma = numpyro.sample("sigma", dist.HalfNormal(sigma_scale).to_event(1))
        numpyro.sample("y", dist.Normal(mu, sigma[design.sd_code]), obs=design.y)

    return written
