"""Tests that ranks are uniform: chi-square, and the exact test behind simultaneous bands around the ECDF."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import gammaln

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
EXPECTED = 5  # smallest expected count of a chi-square cell
MOST_BINS = 20


def chi_square(ranks: Ints, n_values: int) -> float:
    """Return the p-value of Pearson's test over equal bins of the ranks 0, ..., n_values - 1.

    As many bins, twenty at most, as divide the number of values and expect five ranks each.

    >>> chi_square(np.arange(100), 100)
    1.0
    """
    bins = max((b for b in range(2, MOST_BINS + 1) if n_values % b == 0 and ranks.size / b >= EXPECTED), default=1)
    if bins == 1:
        return 1.0
    counts = np.bincount(ranks * bins // n_values, minlength=bins)
    return float(stats.chisquare(counts).pvalue)


def ecdf_statistic(ranks: Ints, n_values: int) -> float:
    r"""Return the most extreme pointwise tail probability of the ECDF.

    .. math:: \gamma = 2 \min_j \min\{F(R_j), 1 - F(R_j - 1)\},\qquad R_j \sim \mathrm{Bin}(n, z_j)

    with R_j the number of ranks below j and z_j = j / n_values (Säilynoja, Bürkner & Vehtari 2022,
    doi:10.1007/s11222-022-10090-6).
    """
    below, z = _counts(ranks, n_values)
    n = ranks.size
    tails = np.minimum(stats.binom.cdf(below, n, z), stats.binom.sf(below - 1, n, z))
    return float(2 * tails.min())


def ecdf_p_value(ranks: Ints, n_values: int) -> float:
    """Return the probability, under uniform ranks, of an ECDF whose most extreme point is at least as extreme.

    Exact: the ECDF at the points is a Markov chain of binomial steps, and the probability of staying inside the
    pointwise bands is summed step by step. A band with simultaneous coverage 95% is left by the ECDF exactly where
    this value is below 0.05.
    """
    return _p_value(ranks.size, n_values, ecdf_statistic(ranks, n_values))


@lru_cache(maxsize=4096)
def _p_value(n: int, n_values: int, gamma: float) -> float:
    # Ties with the statistic itself count as extreme; the margin keeps rounding from turning them around.
    threshold = gamma * (1 + 1e-9) / 2
    log_factorial = gammaln(np.arange(n + 1) + 1.0)
    values = np.arange(n + 1)
    now, weight = np.array([0]), np.array([1.0])  # counts that the ECDF can have, and their probability
    for j in range(1, n_values):
        z, step = j / n_values, 1.0 / (n_values - j + 1)
        inside = np.minimum(stats.binom.cdf(values, n, z), stats.binom.sf(values - 1, n, z)) > threshold
        after = np.flatnonzero(inside)
        added = after - now[:, None]
        left = (n - now)[:, None]
        possible = (added >= 0) & (added <= left)
        k = np.where(possible, added, 0)
        log_pmf = log_factorial[left] - log_factorial[k] - log_factorial[left - k]
        log_pmf += k * np.log(step) + (left - k) * np.log1p(-step)
        now, weight = after, weight @ np.where(possible, np.exp(log_pmf), 0.0)
    return float(min(1.0, max(0.0, 1.0 - weight.sum())))


def _counts(ranks: Ints, n_values: int) -> tuple[Ints, Floats]:
    points = np.arange(1, n_values)
    below = np.searchsorted(np.sort(ranks), points, side="left")
    return below.astype(np.int64), points / n_values


def holm(p: Floats) -> Floats:
    """Return p-values adjusted for all of them together (Holm 1979).

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(p.size, 0, -1)))
    out = np.empty_like(adjusted)
    out[order] = adjusted
    return out
