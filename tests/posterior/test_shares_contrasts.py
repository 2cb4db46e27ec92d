"""Standardised coefficients, their contrasts, and partial pooling over outcomes; no sampling."""

import json

import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech import names
from psymech.errors import SpecError
from psymech.posterior.contrasts import contrasts, standardized_effects
from psymech.posterior.pooling import pool_effects
from tests.models.outcome_studies import study, tree_at
from tests.posterior.fitted_trees import make_tree

ROUNDING = 1e-10  # products and differences of a few numbers
MONTE_CARLO = 4.0  # standard errors: one in 16,000 by chance


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    spec = psm.outcomes(
        ["mood", "social"],
        techniques=["technique"],
        common_factors=["factor"],
        interactions=[("technique", "factor")],
    )
    return tree_at(spec, study(5, therapists=8, patients=6))


def test_standardised_by_hand(tree: xr.DataTree) -> None:
    effect = standardized_effects(tree, higher_is_better={"mood_post": False})
    assert effect.dims == ("chain", "draw", "response", "ingredient")
    assert list(effect["ingredient"].values) == [
        "technique.patient",
        "technique.therapist",
        "factor.patient",
        "factor.therapist",
        "technique.patient:factor.patient",
    ]
    labels = list(tree["posterior"]["term"].values)
    for r, (response, sign) in enumerate((("mood_post", -1.0), ("social_post", 1.0))):
        rows = tree["constant_data"]["response_of_obs"].values == r
        i = labels.index(f"{response}~factor.patient")
        expected = (
            sign
            * tree["posterior"]["beta"].values[..., i]
            * tree["constant_data"]["X"].values[rows, i].std()
            / tree["observed_data"]["y"].values[rows].std()
        )
        found = effect.sel(response=response, ingredient="factor.patient")
        np.testing.assert_allclose(found, expected, rtol=ROUNDING)


def test_contrasts_are_differences(tree: xr.DataTree) -> None:
    chosen = ["technique.patient", "factor.patient"]
    effect = standardized_effects(tree, ingredients=chosen)
    mean = effect.mean(("chain", "draw"))
    outcomes = contrasts(tree, ingredients=chosen).set_index("ingredient")
    for label in chosen:
        expected = mean.sel(ingredient=label, response="mood_post") - mean.sel(ingredient=label, response="social_post")
        assert outcomes.loc[label, "mean"] == pytest.approx(expected.item())
    within = contrasts(tree, across="ingredients", ingredients=chosen).set_index("response")
    both = contrasts(tree, across="both", ingredients=chosen)
    assert len(both) == 1
    expected = outcomes.loc["technique.patient", "mean"] - outcomes.loc["factor.patient", "mean"]
    assert both.loc[0, "mean"] == pytest.approx(expected)
    assert both.loc[0, "mean"] == pytest.approx(within.loc["mood_post", "mean"] - within.loc["social_post", "mean"])
    draws = effect.sel(response="mood_post")
    above = (draws.sel(ingredient=chosen[0]) > draws.sel(ingredient=chosen[1])).mean().item()
    assert within.loc["mood_post", "p_above_zero"] == pytest.approx(above)
    assert list(both.columns) == [
        "ingredient",
        "versus_ingredient",
        "response",
        "versus_response",
        "mean",
        "sd",
        "eti89_lb",
        "eti89_ub",
        "p_above_zero",
    ]


def test_one_outcome_has_contrasts_of_ingredients_only() -> None:
    tree = make_tree()
    table = contrasts(tree, across="ingredients")
    assert len(table) == 3 and set(table["response"]) == {"phq9"}
    with pytest.raises(SpecError, match="compares outcomes, and there is one"):
        contrasts(tree)


def test_refusals(tree: xr.DataTree) -> None:
    with pytest.raises(SpecError, match=r"'factor\.within' is not a term of every response"):
        standardized_effects(tree, ingredients=["factor.within"])
    with pytest.raises(SpecError, match="higher_is_better names 'mood'"):
        standardized_effects(tree, higher_is_better={"mood": False})
    with pytest.raises(SpecError, match="compares ingredients, and there is one"):
        contrasts(tree, across="both", ingredients=["factor.patient"])
    with pytest.raises(SpecError, match="across"):
        contrasts(tree, across="levels")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="Gaussian or Student"):
        standardized_effects(make_tree(family="bernoulli"))
    independent = tree.copy()
    spec = json.loads(tree.attrs[names.ATTR_SPEC]) | {"residual": "iid"}
    independent.attrs = {**tree.attrs, names.ATTR_SPEC: json.dumps(spec)}
    with pytest.raises(SpecError, match="residuals that correlate over outcomes"):
        contrasts(independent, pool=True)
    with pytest.raises(SpecError, match="there is one"):
        standardized_effects(tree, responses=["mood_post"], pool=True)


def test_pooled_draws_keep_shape_and_labels(tree: xr.DataTree) -> None:
    raw, pooled = standardized_effects(tree), standardized_effects(tree, pool=True, seed=3)
    assert pooled.sizes == raw.sizes and pooled.attrs["pooled"] == 1
    xr.testing.assert_identical(pooled, standardized_effects(tree, pool=True, seed=3))


def test_pooling_is_the_normal_posterior_where_the_spread_is_known() -> None:
    """Two equal outcomes known far better than the prior: nothing is pooled away. Known badly: means meet."""
    rng = np.random.default_rng(11)
    truth = np.array([0.1, 0.5])[None, :, None]
    sharp = truth + 0.001 * rng.normal(size=(20_000, 2, 1))
    found = pool_effects(sharp, seed=1).effects
    np.testing.assert_allclose(found.mean(axis=0)[:, 0], truth[0, :, 0], atol=MONTE_CARLO * 0.001 / 100)
    blunt = truth + 2.0 * rng.normal(size=(20_000, 2, 1))
    raw_gap = np.diff(blunt.mean(axis=0)[:, 0]).item()
    gap = np.diff(pool_effects(blunt, seed=1).effects.mean(axis=0)[:, 0]).item()
    assert 0 < gap < 0.2 * raw_gap


def test_pooled_spread_follows_its_density() -> None:
    """The mean of tau against quadrature of its density with the difference of two outcomes as only datum."""
    rng = np.random.default_rng(12)
    draws = np.array([-0.3, 0.4])[None, :, None] + 0.2 * rng.normal(size=(40_000, 2, 1))
    b, v = draws.mean(axis=0)[:, 0], np.cov(draws[:, :, 0], rowvar=False)
    tau = np.linspace(1e-4, 3.0, 20_001)

    def density(t: float) -> float:
        total = v + 1.0 + t**2 * np.eye(2)
        return float(
            np.exp(-0.5 * b @ np.linalg.solve(total, b) - 0.5 * (t / 0.5) ** 2) / np.sqrt(np.linalg.det(total))
        )

    weight = np.array([density(t) for t in tau])
    mean = (tau * weight).sum() / weight.sum()
    found = pool_effects(draws, seed=2).spread
    assert abs(found.mean() - mean) < MONTE_CARLO * found.std() / np.sqrt(found.size)


def test_pooling_errs_less_where_outcomes_are_alike() -> None:
    """200 simulated studies of five outcomes whose true coefficients differ little."""
    rng = np.random.default_rng(13)
    raw_error, pooled_error = [], []
    for seed in range(200):
        truth = 0.2 + 0.05 * rng.normal(size=(5, 2))
        estimate = truth + 0.1 * rng.normal(size=(5, 2))
        draws = estimate + 0.1 * rng.normal(size=(400, 5, 2))
        raw_error.append(np.mean((draws.mean(axis=0) - truth) ** 2))
        pooled_error.append(np.mean((pool_effects(draws, seed=seed).effects.mean(axis=0) - truth) ** 2))
    assert np.mean(pooled_error) < 0.8 * np.mean(raw_error)
