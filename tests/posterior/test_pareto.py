"""Pareto smoothing of many units at once against ArviZ's, unit by unit."""

import numpy as np
import pytest
from arviz_stats.base.array import array_stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from psymech.errors import DataError
from psymech.posterior.pareto import smoothed

TOLERANCE = 1e-8  # the same estimator in another order of sums; weights of the tail's fit are exponentials of n terms


def densities(kind: str, n_units: int, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    z = rng.standard_normal((n_units, n_draws))
    match kind:
        case "light":
            return -0.1 * z - 3.0
        case "heavy":
            return -2.0 * np.abs(z) ** 1.5
        case "far from zero":
            return 5e3 + 40.0 * z
        case "underflowing":
            return -900.0 * z**2
        case _:
            return -np.floor(30.0 * np.abs(z)) / 8.0  # ties


@settings(max_examples=25)
@given(
    kind=st.sampled_from(["light", "heavy", "far from zero", "underflowing", "ties"]),
    n_draws=st.integers(25, 700),
    efficiency=st.sampled_from([0.05, 0.4, 1.0, 1.7]),
    seed=st.integers(0, 10_000),
)
def test_all_units_at_once_are_what_arviz_says_of_each(kind: str, n_draws: int, efficiency: float, seed: int) -> None:
    values = densities(kind, 3, n_draws, np.random.default_rng(seed))
    found = smoothed(values, relative_efficiency=efficiency)
    weights, k = array_stats.psislw(values, r_eff=efficiency)
    np.testing.assert_allclose(found.pareto_k, k, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(found.elpd, logsumexp(weights + values, axis=1), rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(found.lppd, logsumexp(values, axis=1) - np.log(n_draws), rtol=TOLERANCE, atol=TOLERANCE)


def test_a_known_tail_has_its_shape() -> None:
    # ratios of a Pareto distribution with shape 0.5: P(r > x) = x^-2
    log_ratios = 0.5 * np.random.default_rng(3).exponential(size=(40, 20_000))
    k = smoothed(-log_ratios, relative_efficiency=1.0).pareto_k
    assert k.mean() == pytest.approx(0.5, abs=4.0 * k.std() / np.sqrt(k.size) + 0.01)  # 0.01: bias of the fit


def test_what_cannot_be_smoothed_is_said() -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(DataError, match="at least 25 draws, found 24"):
        smoothed(rng.normal(size=(2, 24)), relative_efficiency=1.0)
    values = rng.normal(size=(3, 100))
    values[1] = -2.0
    with pytest.raises(DataError, match="1 of 3 units have the same density"):
        smoothed(values, relative_efficiency=1.0)
    values[1] = np.nan
    found = smoothed(values, relative_efficiency=1.0)
    assert np.isnan(found.elpd).tolist() == [False, True, False]
