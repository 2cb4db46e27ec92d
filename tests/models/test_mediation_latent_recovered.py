"""Latent means recover what observed means bias; the published numbers of a dynamic model."""

from pathlib import Path

import arviz_stats as azs
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import psymech as psm
from psymech.simulation.mediation import MediationTruth, simulate_mediation
from psymech.spec.model import ModelSpec

SHARED = Path(__file__).parents[3] / "shared" / "data" / "dsem_mcneish_hamaker2020" / "TwoLevelData_named.csv"
SESSIONS = 4
MIXED = 1.03  # R-hat of the effects compared below, whose tolerances are in posterior SDs
TRUTH = MediationTruth(within={"a": 0.3, "b": -0.2, "c": 0.1}, patient={"a": 0.5, "b": 0.9, "c": 0.2})
RANDOM = {"patient": ("a", "b", "c"), "therapist": ("a", "b")}


def observed_limit(truth: MediationTruth, sessions: int) -> dict[str, float]:
    """Slopes of observed patient means in many patients, from their covariances (Luedtke et al. 2008, for two
    predictors): those between patients plus those within, over the number of sessions.
    """
    ax, am = truth.patient["a"], truth.within["a"]
    sx, spread = truth.spread_x[0], truth.spread_x[1]
    sa, sb = truth.sd_patient, truth.sd_therapist
    var_a = sa["a"] ** 2 + sb["a"] ** 2
    cov_ab = truth.corr_patient * sa["a"] * sa["b"] + truth.corr_therapist * sb["a"] * sb["b"]
    a, b, c = am, truth.within["b"], truth.within["c"]
    between_pp = np.array([[spread**2, ax * spread**2], [ax * spread**2, (ax * spread) ** 2]])
    between_pp[1, 1] += truth.intercept_sd_patient[0] ** 2
    between_py = between_pp @ [truth.patient["c"], truth.patient["b"]]
    within_pp = sx**2 * np.array([[1.0, a], [a, a**2 + var_a]])
    within_pp[1, 1] += truth.sigma[0] ** 2
    # y = b m + c x with m = a x + e: E[x y] and E[m y], the random paths averaged over
    x_y = sx**2 * (a * b + cov_ab + c)
    m_y = sx**2 * (b * (a**2 + var_a) + 2 * a * cov_ab + a * c) + b * truth.sigma[0] ** 2
    total = between_pp + within_pp / sessions
    slopes = np.linalg.solve(total, between_py + np.array([x_y, m_y]) / sessions)
    alpha = total[0, 1] / total[0, 0]
    return {"b": float(slopes[1]), "indirect": float(alpha * slopes[1])}


def drawn(spec: ModelSpec, data: psm.SessionData) -> xr.DataTree:
    """Draw enough for means and intervals of paths; SDs over few therapists mix more slowly."""
    return psm.sample(psm.build_model(spec, data), draws=500, tune=500, chains=2, seed=1, progressbar=False)


def holds(tree: xr.DataTree, level: str) -> bool:
    """Whether the central 95% interval of the indirect effect at a level holds the truth."""
    draws = psm.indirect_effects(tree)["indirect"].sel(level=level).isel(mediator=0)
    low, high = draws.quantile([0.025, 0.975], ("chain", "draw")).values
    return bool(low < TRUTH.indirect[level] < high)


def path_b(tree: xr.DataTree) -> pd.Series:
    table = psm.mediation_table(tree, ci_prob=0.95)
    return table[(table["level"] == "patient") & (table["effect"] == "path b")].iloc[0]


@pytest.mark.slow
@pytest.mark.sampling
def test_latent_means_recover_the_path_between_patients_that_observed_means_bias() -> None:
    study = simulate_mediation(therapists=40, patients=10, sessions=SESSIONS, truth=TRUTH, means="latent", seed=5)
    common: dict = {"treatment": "x", "mediators": "m", "time": None}
    observed = drawn(psm.mediation("y", random=RANDOM, **common), study.data)
    latent = drawn(psm.mediation("y", random=RANDOM, decompose="latent", **common), study.data)
    assert latent.attrs["engine"] == "explicit"
    assert max(float(azs.rhat(psm.indirect_effects(t)["indirect"]).max()) for t in (observed, latent)) < MIXED
    limit, low = observed_limit(TRUTH, SESSIONS), path_b(observed)
    found = path_b(latent)
    assert abs(low["mean"] - limit["b"]) < 3 * low["sd"]
    assert low["mean"] + 3 * low["sd"] < TRUTH.patient["b"]
    assert abs(found["mean"] - TRUTH.patient["b"]) < 2 * found["sd"]
    assert found["eti95_lb"] > limit["b"]
    equal = path_b(
        drawn(psm.mediation("y", decompose="latent", **common), study.data)
    )  # another engine, and nearly the same model
    assert abs(equal["mean"] - found["mean"]) < 0.3 * found["sd"]
    assert not holds(observed, "patient")
    assert holds(latent, "patient")
    assert holds(latent, "within")


@pytest.mark.slow
@pytest.mark.sampling
@pytest.mark.skipif(not SHARED.exists(), reason=f"the shared data are not beside the checkout: {SHARED.name}")
def test_dynamic_model_as_published() -> None:
    """McNeish & Hamaker (2020), doi:10.1037/met0000250: urge on its own last value and on depression, both random and
    centred at latent means; as printed: autoregression .21 [.17, .24], depression .80 [.61, .95], residual variance
    1.14 [1.09, 1.19], variances of intercept .60, autoregression .02, depression's effect .79.

    A treatment of pure noise makes it a mediation model.
    """
    frame = pd.read_csv(SHARED).rename(columns={"subject": "patient", "time": "session"})
    noise = np.random.default_rng(1).normal(size=frame["patient"].nunique())
    frame["noise"] = noise[frame["patient"].rank(method="dense").astype(int) - 1]
    data = psm.SessionData.from_frame(frame[["patient", "session", "urge", "dep", "noise"]], therapist=None)
    spec = psm.mediation(
        "urge",
        treatment="noise",
        mediators="dep",
        random={"patient": ("b", "urge~urge.lag1")},
        autoregressive=True,
        time=None,
        decompose="latent",
    )
    tree = drawn(spec, data)
    draws = tree["posterior"]
    beta = draws["beta"].mean(("chain", "draw"))
    spread = (draws["sd_patient"] ** 2).median(("chain", "draw"))
    print(beta.to_series(), spread.to_series(), (draws["sigma"] ** 2).mean(("chain", "draw")).values)
    assert 0.17 < float(beta.sel(term="urge~urge.lag1")) < 0.24
    assert abs(float(beta.sel(term="urge~dep.within")) - 0.80) < 0.05
    assert abs(float((draws["sigma"].sel(response="urge") ** 2).mean()) - 1.14) < 0.025
    assert abs(float(spread.sel(patient_term="urge~dep.within")) - 0.79) < 0.12
    assert abs(float(spread.sel(patient_term="urge~urge.lag1")) - 0.02) < 0.01
