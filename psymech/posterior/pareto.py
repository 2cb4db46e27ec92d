"""Pareto-smoothed importance sampling of many units left out at once, compiled: what `arviz.loo` does unit by unit."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from psymech.errors import DataError
from psymech.gaussian.threads import share_out

Floats = NDArray[np.float64]
LEAST_UNITS: Final = 50  # fewer are not worth a thread
LEAST_TAIL: Final = 5
TOGETHER: Final = 8  # factors multiplied before a logarithm is taken
SPAN: Final = 600.0  # of log ratios whose exponentials, and their inverses, are ordinary numbers


@dataclass(frozen=True, slots=True, eq=False)
class Smoothed:
    """By unit: ``log p(y_k | y_-k)``, the same with the unit's data seen, and Pareto k; each (units,)."""

    elpd: Floats
    lppd: Floats
    pareto_k: Floats


def smoothed(log_density: Floats, *, relative_efficiency: float) -> Smoothed:
    """Smooth the importance ratios ``1 / p(y_k | y_-k, theta)`` of units left out, and average the densities by them.

    Parameters
    ----------
    log_density
        ``(units, D)``: log density of each unit at D posterior draws of theta.
    relative_efficiency
        Effective sample size over D; it sets how many draws count as the tail.

    Raises
    ------
    DataError
        Fewer than 25 draws, or draws that do not differ.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, Journal of Machine Learning
    Research 25(72). Zhang & Stephens (2009), A new and efficient estimation method for the generalized Pareto
    distribution, Technometrics 51, 316-325.

    Examples
    --------
    >>> density = np.random.default_rng(1).normal(size=(2, 1000))
    >>> smoothed(density, relative_efficiency=1.0).pareto_k.shape
    (2,)
    """
    n_units, n_draws = log_density.shape
    n_tail = tail_size(n_draws, relative_efficiency)
    if n_tail < LEAST_TAIL:
        raise DataError(
            f"leaving units out by importance sampling needs at least 25 draws, found {n_draws}. Sample more draws."
        )
    found, alike = np.empty((3, n_units)), np.zeros(n_units, dtype=np.bool_)

    def work(units: slice) -> None:
        _smooth(log_density, units.start, units.stop, n_tail, found, alike)

    share_out(work, n_units, least=LEAST_UNITS)
    if alike.any():
        raise DataError(
            f"leaving units out by importance sampling needs draws that differ, but {int(alike.sum())} of {n_units} "
            f"units have the same density at {n_tail} draws or more. Look at check_sampling()."
        )
    return Smoothed(*found)


def tail_size(n_draws: int, relative_efficiency: float) -> int:
    """Return how many of the largest ratios are smoothed (Vehtari et al. 2024)."""
    if n_draws * relative_efficiency > 225:
        return int(3.0 * np.sqrt(n_draws / relative_efficiency))
    return n_draws // 5


@njit(nogil=True, error_model="numpy", cache=True)
def _smooth(log_density, start, stop, n_tail, found, alike):
    n = log_density.shape[1]
    ratio, tail, grid = np.empty(n), np.empty(n_tail), np.empty((4, 30 + int(np.sqrt(n_tail))))
    for unit in range(start, stop):
        largest, smallest = -np.inf, np.inf
        for d in range(n):
            ratio[d] = -log_density[unit, d]
            largest, smallest = max(largest, ratio[d]), min(smallest, ratio[d])
        if not np.isfinite(smallest + largest) or np.isnan(np.sum(ratio)):
            found[:, unit] = np.nan
            continue
        ratio -= largest
        ordered = np.partition(ratio, n - n_tail - 1)
        cutoff = np.exp(ordered[n - n_tail - 1])
        last = np.sort(ordered[n - n_tail :])
        if last[n_tail - 1] - last[0] < np.finfo(np.float64).tiny:
            alike[unit] = True
            continue
        for i in range(n_tail):
            tail[i] = np.exp(last[i]) - cutoff
        k, sigma = fit_pareto(tail, grid)
        weight, product = 0.0, float(n - n_tail)  # sums of weights, and of weights times densities over the smallest
        for i in range(n_tail):
            value = last[i]
            if np.isfinite(k):
                value = min(np.log(_quantile((i + 0.5) / n_tail, k, sigma, cutoff)), 0.0)
            weight += np.exp(value)
            product += np.exp(value - last[i])
        density, low = 0.0, smallest - largest
        for d in range(n - n_tail):
            e = np.exp(ordered[d])
            weight += e
            density += np.exp(low - ordered[d]) if low < -SPAN else 1.0 / e
        for i in range(n_tail):
            density += np.exp(low - last[i]) if low < -SPAN else 1.0 / (tail[i] + cutoff)
        found[0, unit] = np.log(product / weight) - largest
        found[1, unit] = np.log(density / n) - largest - (low if low < -SPAN else 0.0)
        found[2, unit] = k


@njit(nogil=True, error_model="numpy", cache=True)
def _quantile(p, k, sigma, cutoff):
    if not sigma > 0.0:
        return np.nan
    log_survival = np.log1p(-p)
    return cutoff + sigma * (np.expm1(-k * log_survival) / k if k != 0.0 else -log_survival)


@njit(nogil=True, error_model="numpy", cache=True)
def fit_pareto(x, grid):
    """Return shape and scale of a generalised Pareto distribution fitted to sorted values above zero.

    The posterior mean of Zhang & Stephens (2009), the shape drawn towards 0.5 as by ten observations. ``grid (4, 30 +
    sqrt(n))`` is room to work in. The shape is NaN where a quarter of the values are as small as the smallest.
    """
    n, size = x.size, grid.shape[1]
    quartile = x[int(n / 4 + 0.5) - 1]
    if quartile <= x[0]:
        return np.nan, np.nan
    b, k, product, value = grid[0], grid[1], grid[2], grid[3]
    for i in range(size):
        b[i] = (1.0 - np.sqrt(size / (i + 0.5))) / (3.0 * quartile) + 1.0 / x[n - 1]
        k[i], product[i] = 0.0, 1.0
    for j in range(n):
        for i in range(size):
            product[i] *= 1.0 - b[i] * x[j]
        if j % TOGETHER == TOGETHER - 1 or j == n - 1:
            for i in range(size):
                k[i] += np.log(product[i])
                product[i] = 1.0
    best = -np.inf
    for i in range(size):
        k[i] /= n
        value[i] = n * (np.log(-b[i] / k[i]) - k[i] - 1.0)
        best = max(best, value[i])
    total = 0.0
    for i in range(size):
        value[i] = np.exp(value[i] - best)
        total += value[i]
    kept, center = 0.0, 0.0
    for i in range(size):
        if value[i] >= 10.0 * np.finfo(np.float64).eps * total:
            kept += value[i]
            center += value[i] * b[i]
    center /= kept
    shape = 0.0
    for j in range(n):
        shape += np.log1p(-center * x[j])
    shape /= n
    sigma = -shape / center
    shape = (n * shape + 5.0) / (n + 10.0)
    return (np.inf, np.nan) if np.isnan(shape) else (shape, sigma)
