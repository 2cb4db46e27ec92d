"""True change of patients: against predictions at two times and sums by hand."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import psymech as psm
from psymech import names
from tests.inference.studies import small_data
from tests.posterior.drawn_trees import drawn_tree

ROUNDING = 1e-9


@pytest.fixture(scope="module")
def data() -> psm.SessionData:
    return small_data(6)


def test_linear_change_is_slope_times_time(data: psm.SessionData):
    tree = drawn_tree(psm.growth("y", random={"patient": ["time"], "therapist": ["time"]}), data)
    found = psm.true_change(tree, threshold=1.0)
    draws = tree["posterior"].dataset
    owner = tree["constant_data"]["therapist_of_patient"].values
    slope = draws["beta"].sel(term="time").values[..., None]
    slope = slope + draws["u_patient"].values[..., 1] + draws["u_therapist"].values[..., 1][..., owner]
    sessions = data.sessions.groupby("patient", sort=False)["session"].agg(["min", "max"])
    sessions = sessions.loc[found["patient"].values]
    np.testing.assert_allclose(found["start"], sessions["min"])
    np.testing.assert_allclose(found["change"], slope * (sessions["max"] - sessions["min"]).to_numpy(), atol=ROUNDING)
    np.testing.assert_allclose(found["p_improved"], (found["change"] <= -1.0).mean(("chain", "draw")))
    other_way = psm.true_change(tree, threshold=1.0, lower_is_better=False)
    np.testing.assert_allclose(other_way["p_improved"], found["p_deteriorated"])


@pytest.mark.parametrize("shape", ["log", "quadratic", "spline"])
def test_change_is_the_difference_of_two_predictions(shape):
    data = small_data(6)
    severity = {label: float(i) for i, label in enumerate(data.ids["patient"])}
    frame = data.sessions.assign(severity=data.sessions["patient"].map(severity))
    data = psm.SessionData.from_frame(frame, ranges={"x": None, "y": None})
    tree = drawn_tree(psm.growth("y", shape=shape, moderators=["severity"]), data)
    found = psm.true_change(tree, threshold=1.0, start=1, end=6, cutoff=8.0)
    known = pd.DataFrame(
        {"patient": found["patient"].values, "severity": [severity[p] for p in found["patient"].values]}
    )
    ends = []
    for session in (1, 6):
        predicted = psm.predict(tree, known.assign(session=session), seed=0)
        assert predicted["patient"].values.tolist() == known["patient"].tolist()
        ends.append(predicted.values)
    np.testing.assert_allclose(found["change"], ends[1] - ends[0], atol=ROUNDING)
    np.testing.assert_allclose(found["end_score"], ends[1], atol=ROUNDING)
    recovered = (ends[0] > 8.0) & (ends[1] < 8.0) & (ends[0] - ends[1] >= 1.0)
    np.testing.assert_allclose(found["p_recovered"], recovered.mean((0, 1)))


def test_other_columns_are_held_at_the_patients_mean(data: psm.SessionData):
    tree = drawn_tree(psm.process("y", techniques=["x"], interactions=[("x.patient", "time")]), data)
    found = psm.true_change(tree, threshold=1.0, start=0, end=2)
    draws, fixed = tree["posterior"].dataset, tree["constant_data"].dataset
    first_row = np.unique(fixed["patient_of_obs"].values, return_index=True)[1]
    x = fixed[names.DESIGN_X].sel(term="x.patient").values[first_row]
    beta = draws["beta"]
    slope = beta.sel(term="time").values[..., None] + beta.sel(term="x.patient:time").values[..., None] * x
    np.testing.assert_allclose(found["change"], 2 * slope, atol=ROUNDING)


def test_models_without_a_course_are_refused(data: psm.SessionData):
    no_time = drawn_tree(psm.process("y", techniques=["x"], time=None), data)
    with pytest.raises(psm.SpecError, match="time"):
        psm.true_change(no_time, threshold=1.0)
    carried = drawn_tree(psm.process("y", techniques=["x"], autoregressive=True), data)
    with pytest.raises(psm.SpecError, match="autoregressive"):
        psm.true_change(carried, threshold=1.0)
    binary = small_data(6, family="bernoulli")
    with pytest.raises(psm.SpecError, match="bernoulli"):
        psm.true_change(drawn_tree(psm.growth("y", family="bernoulli"), binary), threshold=1.0)
    with pytest.raises(psm.SpecError, match="threshold"):
        psm.true_change(drawn_tree(psm.growth("y"), data), threshold=0.0)


def test_works_from_a_file(data: psm.SessionData, tmp_path):
    tree = drawn_tree(psm.growth("y"), data)
    tree.to_netcdf(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc") as opened:
        stored = opened.load()
    xr.testing.assert_allclose(psm.true_change(stored, threshold=1.0), psm.true_change(tree, threshold=1.0))
