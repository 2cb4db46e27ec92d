"""Partial pooling of coefficients over outcomes, from the posterior of a fit: normal means with a normal prior."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MEAN_SD: Final = (
    1.0  # of the prior of an ingredient's mean over outcomes, in SD of the outcome per SD of the ingredient
)
SPREAD_SD: Final = 0.5  # of the half-normal prior of the SD of coefficients around that mean
GRID: Final = 400  # points at which the posterior of that SD is evaluated
GRID_END: Final = 5.0  # of them, in SPREAD_SD: a half-normal leaves 6e-7 beyond


@dataclass(frozen=True, slots=True)
class Pooled:
    """Draws of the pooled coefficients (draw, response, ingredient), and of the SD around their means (draw,)."""

    effects: Floats
    spread: Floats


def pool_effects(draws: Floats, *, seed: int) -> Pooled:
    r"""Pool standardised coefficients partially over outcomes.

    With b and V the mean and covariance of the coefficients' draws, of response r and ingredient j,

    .. math:: b \mid \theta \sim N(\theta, V), \quad \theta_{rj} \sim N(\mu_j, \tau^2), \quad \mu_j \sim N(0, 1), \quad
              \tau \sim \text{half-normal}(0.5)

    The posterior of :math:`\tau` is evaluated on a grid with everything else integrated out; given it, all else is
    drawn from normal distributions, so that the draws are independent and exact for this second stage. The first stage
    is approximated: its likelihood is taken as normal, and its own priors as flat, which the default priors nearly are.

    Parameters
    ----------
    draws : (draw, response, ingredient), standardised
    seed
        Seed of the new draws.

    Returns
    -------
    Pooled

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> noisy = np.array([0.2, 0.4])[None, :, None] + 0.2 * rng.normal(size=(4000, 2, 1))
    >>> pooled = pool_effects(noisy, seed=1).effects.mean(axis=0)[:, 0]
    >>> bool(abs(pooled[1] - pooled[0]) < 0.2)
    True
    """
    n, n_responses, n_ingredients = draws.shape
    flat = draws.reshape(n, -1)
    estimate = flat.mean(axis=0)
    covariance = np.atleast_2d(np.cov(flat, rowvar=False))
    shared = (
        np.asarray(np.kron(np.ones((n_responses, n_responses)), np.eye(n_ingredients)), dtype=np.float64) * MEAN_SD**2
    )
    width = SPREAD_SD * GRID_END / GRID
    grid = width * (np.arange(GRID) + 0.5)
    log_density = np.array([_log_marginal(estimate, covariance, shared, tau) for tau in grid])
    log_density -= 0.5 * (grid / SPREAD_SD) ** 2
    weight = np.exp(log_density - log_density.max())
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, weight / weight.sum())
    effects, spread = np.empty_like(flat), np.empty(n)
    order = rng.permutation(n)
    start = 0
    for tau, count in zip(grid, counts, strict=True):
        if count:
            rows = order[start : start + count]
            prior = shared + tau**2 * np.eye(estimate.size)
            gain = np.linalg.solve(prior + covariance, prior).T
            root = _root(prior - gain @ prior)
            effects[rows] = gain @ estimate + rng.normal(size=(count, estimate.size)) @ root.T
            spread[rows] = tau
            start += count
    return Pooled(effects.reshape(draws.shape), spread)


def _log_marginal(estimate: Floats, covariance: Floats, shared: Floats, tau: float) -> float:
    factor = np.linalg.cholesky(covariance + shared + tau**2 * np.eye(estimate.size))
    scaled = np.linalg.solve(factor, estimate)
    return float(-np.log(np.diag(factor)).sum() - 0.5 * scaled @ scaled)


def _root(covariance: Floats) -> Floats:
    """Return a square root of a covariance matrix that may be singular to rounding."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return vectors * np.sqrt(np.maximum(values, 0.0))
