"""Standardised effects, contrasts, and shares on the scale of binary and ordinal outcomes."""

import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech.posterior import response_scale
from tests.inference.studies import small_data
from tests.posterior.drawn_trees import drawn_tree

ROUNDING = 1e-9
MC_SIGMAS = 4.5  # simulated shares may lie this many standard errors off
QUADRATURE = 1e-4  # what the comment beside NODES promises


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    return drawn_tree(psm.process("y", techniques=["x"], slopes={"therapist": ["x"]}), small_data(9), draws=300)


def spreads(tree: xr.DataTree) -> xr.DataArray:
    return tree["constant_data"]["X"].std("obs")


def test_effect_per_sd_of_the_column(tree: xr.DataTree):
    plain, scaled = psm.effects(tree), psm.effects(tree, standardize="x")
    assert scaled.index.tolist() == ["time", "x.within", "x.patient", "x.therapist"]
    for label in scaled.index:
        factor = float(spreads(tree).sel(term=label))
        assert scaled.loc[label, "mean"] == pytest.approx(plain.loc[label, "mean"] * factor)


def test_effect_in_sds_of_the_outcome(tree: xr.DataTree):
    parts = psm.r2(tree)["variance"]
    beta = tree["posterior"]["beta"]
    x = float(spreads(tree).sel(term="x.within"))
    total = psm.effects(tree, standardize="total")
    expected = (beta.sel(term="x.within") * x / np.sqrt(parts.sum("source"))).mean()
    assert total.loc["x.within", "mean"] == pytest.approx(float(expected))
    level = psm.effects(tree, standardize="level")
    assert level.index.tolist() == ["x.within", "x.patient", "x.therapist"]
    within = parts.sel(source=["fixed.within", "slopes.patient", "slopes.therapist", "residual"]).sum("source")
    assert level.loc["x.within", "mean"] == pytest.approx(
        float((beta.sel(term="x.within") * x / np.sqrt(within)).mean())
    )
    between = parts.sel(source=["fixed.therapist", "means.therapist"]).sum("source")
    x = float(spreads(tree).sel(term="x.therapist"))
    expected = (beta.sel(term="x.therapist") * x / np.sqrt(between)).mean()
    assert level.loc["x.therapist", "mean"] == pytest.approx(float(expected))


def test_standardised_effects_do_not_depend_on_units(tree: xr.DataTree):
    data = small_data(9)
    kilo = psm.SessionData.from_frame(data.sessions.assign(x=data.sessions["x"] * 1000), ranges={"x": None, "y": None})
    spec = psm.process("y", techniques=["x"], slopes={"therapist": ["x"]})
    other = drawn_tree(spec, kilo, draws=300)
    draws = other["posterior"].dataset
    scale = xr.where(draws["term"].astype(str).str.startswith("x."), 1e-3, 1.0)
    slope = xr.where(draws["therapist_term"].astype(str).str.startswith("x."), 1e-3, 1.0)
    other["posterior"] = xr.DataTree(
        draws.assign(beta=draws["beta"] * scale, sd_therapist=draws["sd_therapist"] * slope)
    )
    for how in ("x", "total", "level"):
        np.testing.assert_allclose(
            psm.effects(other, standardize=how)["mean"], psm.effects(tree, standardize=how)["mean"], rtol=1e-9
        )


def test_contrast_is_the_weighted_sum(tree: xr.DataTree):
    weights = {"within less patient": {"x.within": 1.0, "x.patient": -1.0}}
    table = psm.effects(tree, contrasts=weights)
    beta = tree["posterior"]["beta"]
    difference = beta.sel(term="x.within") - beta.sel(term="x.patient")
    assert table.loc["within less patient", "mean"] == pytest.approx(float(difference.mean()))
    assert table.loc["within less patient", "sd"] == pytest.approx(float(difference.std(ddof=1)))
    scaled = psm.effects(tree, standardize="x", contrasts=weights)
    expected = scaled.loc["x.within", "mean"] - scaled.loc["x.patient", "mean"]
    assert scaled.loc["within less patient", "mean"] == pytest.approx(expected)
    with pytest.raises(psm.SpecError, match=r"no term 'x'"):
        psm.effects(tree, contrasts={"wrong": {"x": 1.0}})
    with pytest.raises(psm.SpecError, match="standardize"):
        psm.effects(tree, standardize="y")  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["bernoulli", "ordinal"])
def test_shares_of_the_outcome_itself_by_simulation(family, monkeypatch: pytest.MonkeyPatch):
    first_row = lambda fixed, variance, n_draws: np.zeros((n_draws, 1), dtype=np.int64)  # noqa: E731
    monkeypatch.setattr(response_scale, "_rows_by_draw", first_row)
    data = small_data(10, family=family)
    fitted = drawn_tree(psm.growth("y", family=family), data, chains=1, draws=2)
    found = psm.variance_partition(fitted, scale="response")
    rng = np.random.default_rng(1)
    draws, fixed = fitted["posterior"].dataset, fitted["constant_data"].dataset
    n_top, n_low = 4000, 400
    for d in range(2):
        one = draws.isel(chain=0, draw=d)
        mu = float((fixed["X"][0] * one["beta"]).sum())
        sd = {}
        for level in ("patient", "therapist"):
            z, s = fixed[f"Z_{level}"].values[0], one[f"sd_{level}"].values
            sd[level] = np.sqrt(z @ (one[f"corr_{level}"].values * np.outer(s, s)) @ z)
        v = sd["therapist"] * rng.normal(size=(n_top, 1))
        eta = mu + v + sd["patient"] * rng.normal(size=(n_top, n_low))
        if family == "bernoulli":
            p = 1 / (1 + np.exp(-eta))
            expected, residual = p, p * (1 - p)
        else:
            above = 1 / (1 + np.exp(one["cutpoints"].values - eta[..., None]))
            expected = 1 + above.sum(-1)
            categories = -np.diff(above, axis=-1, prepend=1.0, append=0.0)
            residual = (categories * (np.arange(1, 5) - expected[..., None]) ** 2).sum(-1)
        groups = expected.mean(1)
        within = expected.var(axis=1, ddof=1)
        top = groups.var(ddof=1) - within.mean() / n_low
        simulated = {"therapist": top, "patient": within.mean(), "residual": residual.mean()}
        error = {
            "therapist": np.sqrt(((groups - groups.mean()) ** 2).var() / n_top),
            "patient": within.std() / np.sqrt(n_top),
            "residual": residual.mean(1).std() / np.sqrt(n_top),
        }
        for level, value in simulated.items():
            exact = float(found["variance"].sel(level=level)[0, d])
            assert abs(exact - value) < MC_SIGMAS * error[level], (level, exact, value)


def test_quadrature_has_enough_nodes(monkeypatch: pytest.MonkeyPatch):
    mean = np.array([-3.0, -1.0, 0.0, 2.0])
    sds = [np.full(4, 1.0), np.full(4, 3.0)]
    few = response_scale._integrals(mean, sds, None, np.array([0.0, 1.0]))
    monkeypatch.setattr(response_scale, "NODES", 80)
    many = response_scale._integrals(mean, sds, None, np.array([0.0, 1.0]))
    np.testing.assert_allclose(few / few.sum(0), many / many.sum(0), rtol=0, atol=QUADRATURE)
    np.testing.assert_allclose(few.sum(0), many.sum(0), rtol=0, atol=QUADRATURE)


def test_scales_are_named_and_sum_to_one():
    binary = drawn_tree(psm.growth("y", family="bernoulli"), small_data(10, family="bernoulli"))
    found = psm.variance_partition(binary, scale="response")
    np.testing.assert_allclose(found["share"].sum("level"), 1.0, atol=ROUNDING)
    assert "probability" in found.attrs["scale"]
    assert "latent" in psm.variance_partition(binary).attrs["scale"]
    per_patient = psm.variance_partition(binary, scale="response", per="patient")
    assert set(per_patient["level"].values) == {"patient", "therapist"}
    with pytest.raises(psm.SpecError, match="latent"):
        psm.variance_partition(binary, scale="response", at={"time": [1.0]})


def test_identity_link_has_one_scale(tree: xr.DataTree):
    xr.testing.assert_identical(psm.variance_partition(tree, scale="response"), psm.variance_partition(tree))
