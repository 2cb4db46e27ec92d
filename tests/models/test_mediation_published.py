"""Posteriors of mediation models beside published ones: bmlm and Mplus on Bolger & Laurenceau's data, lavaan on its
own.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import psymech as psm
from psymech.posterior.mediation_paths import read_mediation

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
GOLDEN = Path(__file__).parent / "golden" / "mediation_r.json"
AGREE = 0.2  # posterior SDs; Monte Carlo error of 4,000 draws is about 0.02, the rest is priors
AGREE_ML = 0.35  # posterior means of skewed quantities (covariances, products) against maximum likelihood
LAVAAN = 0.2  # of the estimate's standard error
FLAT = {"corr_patient": psm.LKJ(1.0), "corr_residual": psm.LKJ(1.0)}


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the shared data folder has no {name}")
    return path


@pytest.fixture(scope="module")
def bolger() -> xr.DataTree:
    frame = pd.read_csv(shared("bmlm/BLch9.csv")).rename(columns={"id": "patient", "time": "session"})
    data = psm.SessionData.from_frame(frame[["patient", "session", "x", "m", "y"]], therapist=None)
    spec = psm.mediation(
        "y", treatment="x", mediators="m", decompose="none", time=None, priors={"corr_patient": psm.LKJ(1.0)}
    )
    return psm.fit(spec, data, seed=1, progressbar=False)


@pytest.mark.sampling
def test_bolger_and_laurenceau(bolger: xr.DataTree) -> None:
    reference = json.loads(shared("reference/bmlm_blch9_mplus.json").read_text())
    effects = psm.indirect_effects(bolger).sel(level="within", mediator="m")
    paths = read_mediation(bolger).paths
    found = {
        "a": paths["within", "x", "m"].draws,
        "b": paths["within", "m", "y"].draws,
        "cp": effects["direct"].values,
        "c": effects["total"].values,
        "me": effects["indirect"].values,
    }
    table = psm.mediation_table(bolger)
    covariance = table[table["effect"] == "cov(a, b) over patients"].iloc[0]
    for name, draws in found.items():
        mean, sd = float(draws.mean()), float(draws.std())
        assert abs(mean - reference["bmlm"][name][0]) < AGREE * sd, f"bmlm {name}"
        limit = AGREE if name != "me" else AGREE_ML
        assert abs(mean - reference["mplus"][name][0]) < limit * sd, f"Mplus {name}"
        assert sd == pytest.approx(reference["bmlm"][name][1], rel=0.1)
    assert abs(covariance["mean"] - reference["bmlm"]["covab"][0]) < AGREE * covariance["sd"]


@pytest.mark.sampling
def test_product_of_means_is_half_of_bolgers_effect(bolger: xr.DataTree) -> None:
    effects = psm.indirect_effects(bolger).sel(level="within", mediator="m")
    share = float(effects["product_of_means"].mean() / effects["indirect"].mean())
    assert 0.4 < share < 0.65  # a b = .029 of .057 in the published numbers
    assert float(effects["product_of_means"].attrs["difference"]) < -0.02


@pytest.mark.sampling
def test_mean_of_the_patients_effects_is_the_average_effect(bolger: xr.DataTree) -> None:
    own = psm.indirect_effects(bolger, by="patient")["indirect"].sel(mediator="m")
    average = psm.indirect_effects(bolger)["indirect"].sel(level="within", mediator="m")
    error = float(own.mean("patient").std())
    assert abs(float(own.mean() - average.mean())) < AGREE * error


def fitted(frame: pd.DataFrame, **keywords) -> xr.DataTree:
    data = psm.SessionData.from_frame(frame, therapist=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", psm.DesignWarning)
        return psm.fit(
            psm.mediation(time=None, decompose="latent", priors=FLAT, **keywords),
            data,
            seed=1,
            progressbar=False,
            draws=1000,
        )


@pytest.mark.slow
@pytest.mark.sampling
@pytest.mark.parametrize(
    ("name", "keywords", "names"),
    [
        (
            "lavaan_1_1_1",
            {"outcome": "y3", "treatment": "y1", "mediators": "y2"},
            {"aw": "y1 y2 within", "bw": "y2 y3 within", "cw": "y1 y3 within"}
            | {"ab": "y1 y2 patient", "bb": "y2 y3 patient", "cb": "y1 y3 patient"},
        ),
        (
            "lavaan_2_1_1",
            {"outcome": "y2", "treatment": "w1", "mediators": "y1"},
            {"bw": "y1 y2 within", "ab": "w1 y1 patient", "bb": "y1 y2 patient", "cb": "w1 y2 patient"},
        ),
    ],
)
def test_latent_means_as_in_lavaan(name: str, keywords: dict, names: dict[str, str]) -> None:
    reference = json.loads(GOLDEN.read_text())[name]
    frame = pd.read_csv(shared("lavaan/Demo.twolevel.csv")).rename(columns={"cluster": "patient"})
    frame["session"] = frame.groupby("patient").cumcount() + 1
    tree = fitted(frame[["patient", "session", "y1", "y2", "y3", "w1"]], **keywords)
    model = read_mediation(tree)
    for label, where in names.items():
        source, target, level = where.split()
        estimate, se = reference[label]
        draws = model.paths[level, source, target].draws  # pyright: ignore[reportArgumentType]
        assert abs(np.median(draws) - estimate) < LAVAAN * se, label
    mediator = keywords["mediators"]
    effects = psm.indirect_effects(tree)["indirect"].sel(mediator=mediator)
    for label, level in (("indw", "within"), ("indb", "patient")):
        if label in reference:
            estimate, se = reference[label]
            assert abs(float(effects.sel(level=level).median()) - estimate) < LAVAAN * se, label
