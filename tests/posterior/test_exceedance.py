"""Exceedance, rankability, reliability of slopes and needed caseloads: by hand."""

import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech.posterior.information import sampling_variance
from tests.inference.studies import small_data
from tests.posterior.drawn_trees import drawn_tree

ROUNDING = 1e-9


@pytest.fixture(scope="module")
def slopes() -> xr.DataTree:
    spec = psm.growth("y", random={"patient": ["time"], "therapist": ["time"]})
    return drawn_tree(spec, small_data(8), draws=5)


@pytest.fixture(scope="module")
def intercepts() -> xr.DataTree:
    return drawn_tree(psm.process("y", techniques=["x"]), small_data(8), draws=5)


def test_exceedance_counts_draws(slopes: xr.DataTree):
    v = slopes["posterior"]["u_therapist"].sel(therapist_term="time")
    found = psm.exceedance(slopes, threshold=0.3, term="time")
    np.testing.assert_allclose(found, (v > 0.3).mean(("chain", "draw")))
    below = psm.exceedance(slopes, threshold=0.3, term="time", direction="below")
    np.testing.assert_allclose(found + below, 1.0)
    assert found.attrs["threshold"] == 0.3


def test_reliability_of_slopes_by_dense_algebra(slopes: xr.DataTree):
    draws, fixed = slopes["posterior"].dataset, slopes["constant_data"].dataset
    patient, therapist = fixed["patient_of_obs"].values, fixed["therapist_of_obs"].values
    zu, zv = fixed["Z_patient"].values, fixed["Z_therapist"].values
    found = psm.reliability(slopes, term="time", method="formula")
    for d in range(3):
        sd = {level: draws[f"sd_{level}"].values[0, d] for level in ("patient", "therapist")}
        omega = draws["corr_patient"].values[0, d] * np.outer(sd["patient"], sd["patient"])
        sigma2 = draws["sigma"].values[0, d] ** 2
        for k in range(draws.sizes["therapist"]):
            rows = therapist == k
            same = patient[rows][:, None] == patient[rows]
            cov = sigma2 * np.eye(rows.sum()) + same * (zu[rows] @ omega @ zu[rows].T)
            noise = np.linalg.inv(zv[rows].T @ np.linalg.solve(cov, zv[rows]))[1, 1]
            expected = sd["therapist"][1] ** 2 / (sd["therapist"][1] ** 2 + noise)
            assert float(found[0, d, k]) == pytest.approx(expected, abs=ROUNDING)


def test_general_formula_is_that_of_raudenbush_and_bryk_for_intercepts(intercepts: xr.DataTree):
    noise = sampling_variance(intercepts, level="therapist", response="y")[..., 0]
    tau2 = intercepts["posterior"]["sd_therapist"].values.reshape(-1, 1) ** 2
    by_formula = psm.reliability(intercepts, method="formula").values.reshape(tau2.size, -1)
    np.testing.assert_allclose(tau2 / (tau2 + noise), by_formula, atol=ROUNDING)


def test_a_slope_that_the_sessions_do_not_determine_has_no_reliability():
    data = small_data(8)
    one = data.sessions.groupby("therapist", as_index=False).head(1)
    frame = data.sessions[(data.sessions["therapist"] != "T0") | data.sessions.index.isin(one.index)]
    data = psm.SessionData.from_frame(frame, ranges={"x": None, "y": None})
    tree = drawn_tree(psm.growth("y", random={"patient": [], "therapist": ["time"]}), data, draws=3)
    found = psm.reliability(tree, term="time", method="formula").sel(therapist="T0")
    np.testing.assert_array_equal(found, 0.0)


def test_rankability_is_the_reliability_of_the_typical_therapist(intercepts: xr.DataTree):
    share = psm.reliability(intercepts, method="formula")
    tau2 = intercepts["posterior"]["sd_therapist"].values[..., 0] ** 2
    s2 = tau2[..., None] * (1 - share.values) / share.values
    expected = tau2 / (tau2 + np.median(s2, axis=-1))
    np.testing.assert_allclose(psm.rankability(intercepts, method="formula"), expected, atol=ROUNDING)
    single = float(psm.rankability(intercepts))
    assert 0.0 <= single <= 1.0


def test_caseload_table_is_the_published_arithmetic(intercepts: xr.DataTree):
    table = psm.caseload_table(intercepts, reliabilities=(0.5, 0.7))
    needed = psm.minimum_caseload(intercepts, reliability=0.7)
    assert table.loc[0.7, "median"] == pytest.approx(float(needed.median()))
    assert table.loc[0.7, "median"] == pytest.approx(7 / 3 * table.loc[0.5, "median"])
    counts = psm.caseload(intercepts)["n_patients"]
    assert table.loc[0.5, "share_reached"] == pytest.approx((counts >= table.loc[0.5, "median"]).mean())


def test_impossible_requests_are_refused(slopes: xr.DataTree):
    with pytest.raises(psm.SpecError, match="direction"):
        psm.exceedance(slopes, threshold=0, direction="over")  # type: ignore[arg-type]
    with pytest.raises(psm.SpecError, match="threshold"):
        psm.exceedance(slopes, threshold=float("nan"))
    ar1 = drawn_tree(psm.growth("y", residual="ar1"), small_data(8), draws=3)
    with pytest.raises(psm.SpecError, match="autoregressive"):
        psm.reliability(ar1, method="formula")
