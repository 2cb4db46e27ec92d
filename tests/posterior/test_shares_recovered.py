"""Shares and contrasts of a simulated study come back from a fit."""

import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech.posterior.contrasts import contrasts, standardized_effects
from psymech.posterior.shares import ingredient_shares
from tests.models.outcome_studies import MOOD, SIGMA, SOCIAL, THERAPIST_SD, study

WITHIN_SDS = 3.5  # of the posterior; one of 2,000 intervals misses by chance, and sixteen numbers are looked at
SEED = 8


@pytest.fixture(scope="module")
def data() -> psm.SessionData:
    return study(SEED)


@pytest.fixture(scope="module")
def tree(data: psm.SessionData) -> xr.DataTree:
    spec = psm.outcomes(["mood", "social"], techniques=["technique"], common_factors=["factor"])
    return psm.fit(spec, data, draws=400, tune=400, seed=1, progressbar=False)


@pytest.mark.sampling
def test_shares_of_patients_differences_are_recovered(tree: xr.DataTree, data: psm.SessionData) -> None:
    """At the patient level the predictors are nearly independent, so that the true shares are ratios of variances."""
    shares = ingredient_shares(tree)["share_of_level"].sel(level="patient")
    means = data.sessions.groupby("patient")[["technique", "factor"]].mean()
    therapist = data.sessions.groupby("patient")["therapist"].first()
    of_patients = (means - means.groupby(therapist).transform("mean")).var(ddof=0)
    table = data.units["patient"].set_axis(data.ids["patient"])
    for outcome, truth in (("mood", MOOD), ("social", SOCIAL)):
        pre = table[f"{outcome}_pre"]
        variance = {
            "techniques": truth["technique"] ** 2 * of_patients["technique"],
            "common_factors": truth["factor"] ** 2 * of_patients["factor"],
            "baseline": truth["pre"] ** 2 * float((pre - pre.groupby(therapist).transform("mean")).var(ddof=0)),
            "residual": SIGMA[outcome] ** 2,
        }
        total = sum(variance.values())
        for source, value in variance.items():
            draws = shares.sel(response=f"{outcome}_post", source=source)
            assert abs(draws.mean().item() - value / total) < WITHIN_SDS * draws.std().item(), (outcome, source)


@pytest.mark.sampling
def test_therapists_variance_and_residuals_are_recovered(tree: xr.DataTree) -> None:
    variance = ingredient_shares(tree)["variance"]
    for outcome, sd in THERAPIST_SD.items():
        draws = np.sqrt(variance.sel(response=f"{outcome}_post", level="therapist", source="therapist"))
        assert abs(draws.mean().item() - sd) < WITHIN_SDS * draws.std().item()
        residual = np.sqrt(variance.sel(response=f"{outcome}_post", level="patient", source="residual"))
        assert abs(residual.mean().item() - SIGMA[outcome]) < WITHIN_SDS * residual.std().item()


@pytest.mark.sampling
def test_the_fit_tells_which_ingredient_goes_with_which_outcome(tree: xr.DataTree) -> None:
    chosen = ["technique.patient", "factor.patient"]
    effect = standardized_effects(tree, ingredients=chosen)
    y, x = tree["observed_data"]["y"].values, tree["constant_data"]["X"].values
    labels = list(tree["posterior"]["term"].values)
    truth = {"mood_post": MOOD, "social_post": SOCIAL}
    for r, (response, values) in enumerate(truth.items()):
        rows = tree["constant_data"]["response_of_obs"].values == r
        for label in chosen:
            column = x[rows, labels.index(f"{response}~{label}")]
            expected = values[label.removesuffix(".patient")] * column.std() / y[rows].std()
            draws = effect.sel(response=response, ingredient=label)
            assert abs(draws.mean().item() - expected) < WITHIN_SDS * draws.std().item(), (response, label)
    specific = contrasts(tree, across="both", ingredients=chosen)
    assert specific.loc[0, "p_above_zero"] > 0.999
    pooled = standardized_effects(tree, ingredients=chosen, pool=True)
    assert (pooled.std(("chain", "draw")) < 1.1 * effect.std(("chain", "draw"))).all()
