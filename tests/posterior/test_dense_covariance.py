"""Predictions and variance shares against the covariance of all rows, written out from the model's equation."""

import json
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.typing import NDArray

import psymech as psm
from tests.posterior.drawn_trees import drawn_tree
from tests.posterior.test_second_way import table

LEVELS = ("patient", "therapist", "clinic")
DRAWS = 2000  # outcomes drawn at one parameter vector
MC_SIGMAS = 4.5  # means, of some 50 rows, may lie this many standard errors off
MC_SIGMAS_COVARIANCE = 5.5  # covariances, of some 2,000 pairs; Student residuals have wider tails than assumed
ROUNDING = 1e-9

SMALL = table(therapists=4, patients=3, sessions=4, clinics=2)
GAPS = SMALL.drop(SMALL.index[(SMALL["session"] == 2) & (SMALL.index % 3 == 0)])
CHANGED = table(therapists=4, patients=3, sessions=5).drop(columns="therapist").rename(columns={"held_by": "therapist"})
SLOPES = {"patient": ["time"], "therapist": ["time"]}
EVERYWHERE = {level: ["x"] for level in LEVELS}

CASES = {
    "AR(1) with gaps": (psm.growth("y", residual="ar1"), GAPS, {}),
    "slopes by arm, Student": (
        psm.growth("y", moderators=["arm"], random=SLOPES, therapist_in="arm", residual_by="arm", family="student"),
        SMALL,
        {},
    ),
    "slopes over clinics": (
        psm.process("y", techniques=["x"], slopes=EVERYWHERE),
        table(therapists=6, patients=2, sessions=3),
        {"clinic": "clinic"},
    ),
    "crossed": (
        psm.process("y", techniques=["x"], common_factors=["m"], interactions=[("x", "m")], slopes={"patient": ["x"]}),
        CHANGED,
        {"patient_ids": "crossed"},
    ),
    "location-scale": (psm.growth("y", residual_by="therapist"), SMALL, {}),
    "no patients' effects": (psm.growth("y", random={"patient": None, "therapist": ["time"]}), SMALL, {}),
}


def repeated(tree: xr.DataTree, n: int) -> xr.DataTree:
    """Return the tree with its first draw n times, without what needs a sampler."""
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree if node.name != "sample_stats"}
    first = groups["/posterior"].isel(chain=[0], draw=np.zeros(n, dtype=int))
    out = xr.DataTree.from_dict(groups | {"/posterior": first.assign_coords(draw=np.arange(n))})
    out.attrs = dict(tree.attrs)
    return out


def moments(tree: xr.DataTree) -> tuple[NDArray, NDArray]:
    """Mean and covariance of the outcomes of all rows, effects of all units drawn."""
    draw = tree["posterior"].dataset.isel(chain=0, draw=0)
    data = tree["constant_data"].dataset
    covariance = np.zeros((data.sizes["obs"], data.sizes["obs"]))
    for level in (each for each in LEVELS if f"sd_{each}" in draw):
        z, sd, unit = data[f"Z_{level}"].values, draw[f"sd_{level}"].values, data[f"{level}_of_obs"].values
        omega = draw[f"corr_{level}"].values * np.outer(sd, sd)
        covariance += (z @ omega @ z.T) * (unit[:, None] == unit)
    sd = draw["sigma"].values
    if "log_sigma_therapist" in draw:
        sd = np.exp(draw["log_sigma_therapist"].values)[data["therapist_of_obs"].values]
    elif "residual_group_of_obs" in data:
        sd = sd[data["residual_group_of_obs"].values]
    if json.loads(tree.attrs["psymech_spec"])["family"] == "student":
        sd = sd * np.sqrt(float(draw["nu"]) / (float(draw["nu"]) - 2))
    correlation = np.eye(len(covariance))
    if "phi" in draw:
        patient, session = data["patient_of_obs"].values, data["session_of_obs"].values
        distance = np.abs(session[:, None] - session)
        correlation = np.where(patient[:, None] == patient, float(draw["phi"]) ** distance, 0.0)
    sd = np.broadcast_to(sd, len(covariance))
    return data["X"].values @ draw["beta"].values, covariance + correlation * np.outer(sd, sd)


@pytest.mark.parametrize("case", CASES)
def test_predictions_and_shares_are_those_of_the_equation(case: str) -> None:
    spec, frame, roles = CASES[case]
    frame = frame.reset_index(drop=True)
    data = psm.SessionData.from_frame(frame, patient="patient", session="session", therapist="therapist", **roles)
    tree = repeated(drawn_tree(spec, data, chains=1, draws=1), DRAWS)
    mean, covariance = moments(tree)
    variance = np.diag(covariance)
    one = tree.isel(draw=slice(1))
    np.testing.assert_allclose(psm.variance_partition(one)["variance"].sum(), variance.mean(), rtol=ROUNDING)
    np.testing.assert_allclose(psm.r2(one)["variance"].sum(), variance.mean() + mean.var(), rtol=ROUNDING)

    new = frame.assign(**{level: "new " + frame[level] for level in LEVELS})
    if case == "location-scale":  # a therapist of the fit keeps the residual SD
        new["therapist"] = frame["therapist"]
    with pytest.warns(psm.DesignWarning) if "clinic" in roles else nullcontext():
        drawn = psm.predict(tree, new, target="new_therapist", kind="draw", seed=1)
    place = pd.Series(np.arange(drawn.sizes["obs"]), index=drawn["obs"].values)
    rows = data.source_row[tree["constant_data"]["row_of_obs"].values]
    values = drawn.values[0][:, place[rows].to_numpy()]
    off = (values.mean(axis=0) - mean) / np.sqrt(variance / DRAWS)
    assert np.abs(off).max() < MC_SIGMAS
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / DRAWS)
    assert np.abs((np.cov(values.T) - covariance) / error).max() < MC_SIGMAS_COVARIANCE
