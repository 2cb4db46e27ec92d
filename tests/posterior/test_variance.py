import numpy as np
import pytest
import xarray as xr

from psymech.errors import SpecError
from psymech.posterior.r2 import r2
from psymech.posterior.variance import slope_share, variance_partition
from tests.posterior.fitted_trees import Truth, make_tree, two_response_tree

ROUNDING = 1e-10  # products and sums of a few terms
INTERCEPTS = Truth(sd={"patient": {"Intercept": 4.0}, "therapist": {"Intercept": 2.0}}, corr={})


def of(tree: xr.DataTree, name: str) -> np.ndarray:
    return tree["posterior"][name].values


def test_intercepts_only_is_the_textbook_share() -> None:
    tree = make_tree(truth=INTERCEPTS, spread=0.0)
    shares = variance_partition(tree)["share"].isel(chain=0, draw=0)
    assert shares.sel(level="therapist").item() == pytest.approx(4 / 29)
    assert shares.sel(level="patient").item() == pytest.approx(16 / 29)
    assert shares.sel(level="residual").item() == pytest.approx(9 / 29)


@pytest.mark.parametrize(("sessions", "residual"), [(None, 0.0), (1, 9.0), (6, 1.5)])
def test_per_patient_denominators(sessions: float | None, residual: float) -> None:
    tree = make_tree(truth=INTERCEPTS, spread=0.0)
    result = variance_partition(tree, per="patient", sessions=sessions)
    share = result["share"].isel(chain=0, draw=0)
    assert share.sel(level="therapist").item() == pytest.approx(4 / (20 + residual))
    assert ("residual" in share["level"].values) == (sessions is not None)
    assert "one outcome per patient" in result.attrs["denominator"]


def test_averaged_over_rows_by_brute_force(tree: xr.DataTree) -> None:
    shares = variance_partition(tree)
    z = tree["constant_data"]["Z_patient"].values
    by_level = {}
    for level in ("patient", "therapist"):
        sd, corr = of(tree, f"sd_{level}")[1, 7], of(tree, f"corr_{level}")[1, 7]
        by_level[level] = np.mean([row @ (corr * np.outer(sd, sd)) @ row for row in z])
    total = sum(by_level.values()) + of(tree, "sigma")[1, 7] ** 2
    for level, value in by_level.items():
        assert shares["share"].sel(level=level).values[1, 7] == pytest.approx(value / total, rel=ROUNDING)
    np.testing.assert_allclose(shares["share"].sum("level"), 1.0, rtol=ROUNDING)


def test_at_a_time_is_the_quadratic_form(tree: xr.DataTree) -> None:
    times = [0.0, 3.0, 10.0]
    result = variance_partition(tree, at={"time": times})
    assert result["share"].dims == ("chain", "draw", "level", "time")
    sd, corr = of(tree, "sd_therapist")[2, 5], of(tree, "corr_therapist")[2, 5, 0, 1]
    for i, t in enumerate(times):
        expected = sd[0] ** 2 + 2 * t * corr * sd[0] * sd[1] + t**2 * sd[1] ** 2
        found = result["variance"].sel(level="therapist").isel(time=i).values[2, 5]
        assert found == pytest.approx(expected, rel=ROUNDING)
    assert "time replaced" in result.attrs["averaged_over"]


def test_at_refuses_what_does_not_vary(made: xr.DataTree) -> None:
    with pytest.raises(SpecError, match=r"no random slope of .*; its random slopes: time"):
        variance_partition(made, at={"severity": [1]})
    with pytest.raises(SpecError, match="finite numbers"):
        variance_partition(made, at={"time": [np.nan]})


def test_at_wants_all_columns_of_time() -> None:
    truth = Truth(
        beta={"Intercept": 20.0, "time": -0.6, "alliance.within": 1.0},
        sd={"patient": {"Intercept": 4.0, "time": 0.4, "alliance.within": 0.5}, "therapist": {"Intercept": 2.0}},
        corr={"patient": 0.2},
    )
    tree = make_tree(truth=truth)
    text = tree.attrs["psymech_terms"].replace('"role": "common_factor"', '"role": "time"')
    tree.attrs = {**tree.attrs, "psymech_terms": text}
    with pytest.raises(SpecError, match=r"alliance\.within is made of the same variable as time"):
        variance_partition(tree, at={"time": [1.0]})
    both = variance_partition(tree, at={"time": [1.0, 2.0], "alliance.within": [1.0, 4.0]})
    sd, corr = of(tree, "sd_patient")[0, 0], of(tree, "corr_patient")[0, 0]
    z = np.array([1.0, 2.0, 4.0])
    expected = z @ (corr * np.outer(sd, sd)) @ z
    assert both["variance"].sel(level="patient").isel(point=1).values[0, 0] == pytest.approx(expected, rel=ROUNDING)


def test_latent_scale_is_named_and_pi_squared_over_three() -> None:
    tree = make_tree(truth=INTERCEPTS, spread=0.0, family="bernoulli")
    result = variance_partition(tree)
    share = result["share"].isel(chain=0, draw=0).sel(level="therapist").item()
    assert share == pytest.approx(4 / (20 + np.pi**2 / 3))
    assert "latent" in result.attrs["scale"]


def test_student_residual_variance() -> None:
    tree = make_tree(truth=INTERCEPTS, spread=0.0, family="student")
    variance = variance_partition(tree)["variance"].isel(chain=0, draw=0).sel(level="residual").item()
    assert variance == pytest.approx(9 * 6 / 4)


def test_mean_of_autocorrelated_sessions() -> None:
    tree = make_tree(truth=INTERCEPTS, spread=0.0, residual="ar1")
    variance = variance_partition(tree, per="patient", sessions=5)["variance"].isel(chain=0, draw=0)
    correlation = 0.4 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    assert variance.sel(level="residual").item() == pytest.approx(9 * correlation.mean())


def test_without_therapists_there_is_no_therapist() -> None:
    shares = variance_partition(make_tree(levels=("patient",)))
    assert shares["level"].values.tolist() == ["patient", "residual"]


def test_one_of_several_responses(made: xr.DataTree) -> None:
    both = two_response_tree(made)
    xr.testing.assert_allclose(variance_partition(both, response="phq9")["share"], variance_partition(made)["share"])
    quarter = variance_partition(both, response="gad7")["variance"]
    np.testing.assert_allclose(quarter, variance_partition(made)["variance"] / 4, rtol=ROUNDING)
    with pytest.raises(SpecError, match="the model has 2 responses"):
        variance_partition(both)


def test_slope_share(tree: xr.DataTree) -> None:
    v, u = of(tree, "sd_therapist")[..., 1] ** 2, of(tree, "sd_patient")[..., 1] ** 2
    np.testing.assert_allclose(slope_share(tree), v / (v + u), rtol=ROUNDING)


def test_r2_parts_by_hand(tree: xr.DataTree) -> None:
    parts = r2(tree)
    np.testing.assert_allclose(parts["total"].sum("source"), 1.0, rtol=ROUNDING)
    np.testing.assert_allclose(parts["within"].sum("source"), 1.0, rtol=ROUNDING)
    np.testing.assert_allclose(parts["between"].sum("source"), 1.0, rtol=ROUNDING)
    variance = parts["variance"].isel(chain=1, draw=4)
    fixed = tree["constant_data"]["X"].values @ of(tree, "beta")[1, 4]
    found = sum(variance.sel(source=f"fixed.{part}").item() for part in ("within", "patient", "therapist"))
    assert found == pytest.approx(fixed.var(), rel=ROUNDING)
    patients = tree["constant_data"]["patient_of_obs"].values
    within = fixed - (np.bincount(patients, fixed) / np.bincount(patients))[patients]
    assert variance.sel(source="fixed.within").item() == pytest.approx(within.var(), rel=ROUNDING)
    z = tree["constant_data"]["Z_therapist"].values
    sd, corr = of(tree, "sd_therapist")[1, 4], of(tree, "corr_therapist")[1, 4]
    slope = sd[1] ** 2 * z[:, 1].var()
    assert variance.sel(source="slopes.therapist").item() == pytest.approx(slope, rel=ROUNDING)
    mean = z.mean(axis=0)
    assert variance.sel(source="means.therapist").item() == pytest.approx(mean @ (corr * np.outer(sd, sd)) @ mean)
