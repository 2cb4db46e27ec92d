"""p-values of uniform ranks against what can be counted."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from psymech.calibration.uniformity import chi_square, ecdf_p_value, ecdf_statistic, holm


def test_the_ecdf_p_value_is_exact():
    """All 4^6 sequences of six ranks out of four: the p-value is the share that are at least as extreme."""
    n, values = 6, 4
    every = [np.array(ranks) for ranks in product(range(values), repeat=n)]
    statistics = np.array([ecdf_statistic(ranks, values) for ranks in every])
    for ranks in every[::97]:
        share = (statistics <= ecdf_statistic(ranks, values) * (1 + 1e-9)).mean()
        assert ecdf_p_value(ranks, values) == pytest.approx(share, abs=1e-12)


def test_the_statistic_is_the_most_extreme_tail():
    ranks = np.array([0, 0, 0, 1, 3, 3, 2, 0])
    tails = []
    for j in (1, 2, 3):
        below = int((ranks < j).sum())
        tails += [stats.binom.cdf(below, 8, j / 4), stats.binom.sf(below - 1, 8, j / 4)]
    assert ecdf_statistic(ranks, 4) == pytest.approx(2 * min(tails))


def test_p_values_of_uniform_ranks_are_not_too_small():
    rng = np.random.default_rng(1)
    ranks = rng.integers(0, 20, size=(200, 100))
    chi, ecdf = (np.array([f(each, 20) for each in ranks]) for f in (chi_square, ecdf_p_value))
    for p in (chi, ecdf):
        assert stats.binomtest(int((p < 0.1).sum()), 200, 0.1).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(0.6, 0.6), (2.0, 2.0), (1.6, 1.0)])
def test_ranks_that_are_not_uniform_have_small_p_values(shape: tuple[float, float]):
    ranks = (np.random.default_rng(2).beta(*shape, size=300) * 100).astype(int)
    assert ecdf_p_value(ranks, 100) < 1e-3
    assert chi_square(ranks, 100) < 0.02


def test_chi_square_is_pearsons():
    ranks = np.random.default_rng(3).integers(0, 20, 40)
    counts = np.bincount(ranks * 5 // 20, minlength=5)
    assert chi_square(ranks, 20) == pytest.approx(stats.chisquare(counts).pvalue)  # five bins expect eight each


def test_holm_adjusts_for_all():
    p = np.array([0.001, 0.5, 0.02, 0.2])
    np.testing.assert_allclose(holm(p), [0.004, 0.5, 0.06, 0.4])
