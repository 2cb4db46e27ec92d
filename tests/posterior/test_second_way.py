"""Estimates at known draws, computed a second way: for combinations in which a number was once silently wrong."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import psymech as psm
from psymech import names
from psymech.errors import DataError, PsymechError, SpecError
from psymech.posterior import response_scale
from tests.posterior.drawn_trees import drawn_tree

MC_SIGMAS = 4.5  # simulated figures may lie this many standard errors off
ROWS_IN_TURN = 2e-3  # shares from 40 rows a draw, other ones in each, against all rows


def table(
    *, therapists: int = 6, patients: int = 4, sessions: int = 6, clinics: int = 3, seed: int = 0
) -> pd.DataFrame:
    """Rows of a study of whole courses in which every patient of an even number changes therapist at session 4."""
    rng = np.random.default_rng(seed)
    n = therapists * patients
    frame = pd.DataFrame(
        {
            "patient": np.repeat([f"P{i:03d}" for i in range(n)], sessions),
            "session": np.tile(np.arange(1, sessions + 1), n),
            "own": np.repeat(np.arange(n) // patients, sessions),
            "arm": np.repeat(np.arange(n) % 2, sessions),
            "trait": np.repeat(rng.normal(size=n), sessions),
            "post": np.repeat(rng.normal(size=n), sessions),
            "pre": np.repeat(rng.normal(size=n), sessions),
        }
    )
    moved = (frame["arm"] == 1) & (frame["session"] >= 4)
    frame["therapist"] = [f"T{k:02d}" for k in frame["own"]]
    frame["held_by"] = [f"T{k:02d}" for k in (frame["own"] + moved) % therapists]
    frame["clinic"] = [f"C{k % clinics}" for k in frame["own"]]
    for name in ("x", "m", "y"):
        frame[name] = rng.normal(size=len(frame)) + frame["trait"] + 0.3 * frame["own"]
    frame["binary"] = (frame["y"] > frame["y"].median()).astype(float)
    frame["cured_post"] = (frame["post"] > 0).astype(float)
    frame["cured_pre"] = frame["pre"]
    return frame


def sessions(frame: pd.DataFrame, **roles: str) -> psm.SessionData:
    return psm.SessionData.from_frame(
        frame, patient="patient", session="session", **{"therapist": "therapist", **roles}
    )


FRAME = table()
NESTED = sessions(FRAME)
WITH_CLINICS = sessions(FRAME, clinic="clinic")
CROSSED = sessions(FRAME, therapist="held_by", patient_ids="crossed")


def mean(values: xr.DataArray) -> np.ndarray:
    return values.mean(("chain", "draw")).values


def without(tree: xr.DataTree, variable: str) -> xr.DataTree:
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    groups["/posterior"] = groups["/posterior"].drop_vars(variable)
    out = xr.DataTree.from_dict(groups)
    out.attrs = dict(tree.attrs)
    return out


def test_residual_variance_of_an_arm_with_student_residuals() -> None:
    spec = psm.growth("y", covariates=["arm"], therapist_in="arm", residual_by="arm", family="student")
    tree = drawn_tree(spec, NESTED)
    draws = tree["posterior"]
    expected = draws["sigma"] ** 2 * draws["nu"] / (draws["nu"] - 2)
    found = psm.variance_partition(tree, at={"arm": [0, 1]})["variance"].sel(level="residual")
    np.testing.assert_allclose(found.values, expected.values)


def test_values_of_a_grouping_column_are_told_apart_by_all_digits() -> None:
    data = sessions(FRAME.assign(period=20190101 + FRAME["arm"]))
    tree = drawn_tree(psm.growth("y", residual_by="period"), data)
    assert tree["posterior"]["residual_group"].values.tolist() == ["20190101", "20190102"]
    rows = FRAME.assign(period=20190102).head(2)
    drawn = psm.predict(tree, rows, target="average_therapist", kind="draw", seed=1)
    same = psm.predict(tree, rows, target="average_therapist", seed=1)
    per_sigma = (drawn - same) / tree["posterior"]["sigma"].sel(residual_group="20190102")
    assert abs(float(per_sigma.var()) - 1) < MC_SIGMAS * np.sqrt(2 / per_sigma.size)


def test_at_takes_slopes_of_the_response_asked_for_only() -> None:
    paths = {"patient": ("a", "b")}
    tree = drawn_tree(psm.mediation("y", treatment="x", mediators="m", random=paths), NESTED)
    with pytest.raises(SpecError, match=r"no random slope of 'm'; its random slopes: m~x.within"):
        psm.variance_partition(tree, response="m", at={"y~m.within": [0, 3]})


def test_standardised_by_the_spread_of_patients_scores_with_their_residual() -> None:
    """One score a patient: what differs between patients of a therapist is fixed effects and residual, no more."""
    tree = drawn_tree(psm.outcomes("y", techniques=["x"], suffixes=None, level="session", baseline=False), NESTED)
    assert "x.within" in psm.effects(tree, standardize="level").index
    scores = drawn_tree(psm.outcomes("post", techniques=["x"], suffixes=None, baseline=False), NESTED)
    draws, x = scores["posterior"].dataset, scores["constant_data"]["X"].to_pandas()
    therapist = scores["constant_data"]["therapist_of_obs"].values
    fixed = x.to_numpy() @ draws["beta"].values.reshape(-1, x.shape[1]).T
    deviations = fixed - pd.DataFrame(fixed).groupby(therapist).transform("mean").to_numpy()
    spread = np.sqrt((deviations**2).mean(axis=0) + draws["sigma"].values.ravel() ** 2)
    expected = draws["beta"].sel(term="x.patient").values.ravel() * x["x.patient"].std(ddof=0) / spread
    assert psm.effects(scores, standardize="level").loc["x.patient", "mean"] == pytest.approx(expected.mean())


def test_standardised_by_the_spread_of_therapists_with_their_clinics() -> None:
    """x.therapist differs between clinics too, and so must the outcome that it is measured against."""
    tree = drawn_tree(psm.process("y", techniques=["x"]), WITH_CLINICS)
    draws, x = tree["posterior"].dataset, tree["constant_data"]["X"].to_pandas()
    fixed = pd.DataFrame(x.to_numpy() @ draws["beta"].values.reshape(-1, x.shape[1]).T)
    of_therapists = fixed.groupby(FRAME["therapist"]).transform("mean").var(ddof=0).to_numpy()
    random = (draws["sd_therapist"][..., 0] ** 2 + draws["sd_clinic"][..., 0] ** 2).values.ravel()
    beta = draws["beta"].sel(term="x.therapist").values.ravel()
    expected = beta * x["x.therapist"].std(ddof=0) / np.sqrt(of_therapists + random)
    assert psm.effects(tree, standardize="level").loc["x.therapist", "mean"] == pytest.approx(expected.mean())
    changing = drawn_tree(psm.process("y", techniques=["x"]), CROSSED)
    assert psm.effects(changing, standardize="level").index.tolist() == ["x.within"]


def test_student_residuals_without_a_variance_have_no_shares() -> None:
    tree = drawn_tree(psm.process("y", techniques=["x"], family="student"), NESTED)
    tree["posterior"]["nu"].values[0] = 1.5
    shares = psm.ingredient_shares(tree)
    present = shares["share"].sel(source=["techniques", "therapist", "residual"])
    assert bool(present.isel(chain=0).isnull().all())
    np.testing.assert_allclose(shares["share"].isel(chain=1).sum("source"), 1.0)
    np.testing.assert_allclose(shares["share_explained"].sum("source"), 1.0)
    with pytest.raises(SpecError, match="none in 40 of 80 draws"):
        psm.effects(tree, standardize="total")
    assert np.isfinite(psm.effects(tree, standardize="x")["mean"]).all()


def test_minimum_caseload_leaves_the_clinics_variance_out() -> None:
    tree = drawn_tree(psm.growth("y", random={"patient": []}), WITH_CLINICS)
    draws = tree["posterior"].dataset
    n = psm.minimum_caseload(tree, reliability=0.7)
    tau2, patients = draws["sd_therapist"][..., 0] ** 2, draws["sd_patient"][..., 0] ** 2
    np.testing.assert_allclose(tau2 / (tau2 + patients / n), 0.7)
    assert psm.caseload_table(tree, reliabilities=(0.7,))["median"].iloc[0] == pytest.approx(float(n.median()))


def test_without_therapists_a_patients_mean_is_no_deviation() -> None:
    """x.within beside x.within:m.patient is the slope of a patient whose m is zero on average."""
    spec = psm.process("y", techniques=["x", "m"], interactions=[("x.within", "m.patient")])
    alone = psm.effects(drawn_tree(spec, psm.SessionData.from_frame(FRAME, therapist=None))).index
    assert "m.patient - m.within" in alone
    assert "x.patient - x.within" not in alone
    assert "x.patient - x.within" in psm.effects(drawn_tree(spec, NESTED)).index


def test_paths_that_vary_over_clinics_count() -> None:
    levels = ("patient", "therapist", "clinic")
    spec = psm.mediation("y", treatment="x", mediators="m", random={level: ("a", "b") for level in levels})
    tree = drawn_tree(spec, WITH_CLINICS, draws=3)
    draws = tree["posterior"].dataset.isel(chain=0, draw=0)
    a, b = (float(draws["beta"].sel(term=label)) for label in ("m~x.within", "y~m.within"))
    rng = np.random.default_rng(1)
    paths = np.array([a, b]) + np.zeros((400_000, 2))
    for level in levels:
        place = [draws[f"{level}_term"].values.tolist().index(label) for label in ("m~x.within", "y~m.within")]
        sd = draws[f"sd_{level}"].values[place]
        corr = draws[f"corr_{level}"].values[np.ix_(place, place)]
        paths += rng.multivariate_normal([0, 0], corr * np.outer(sd, sd), size=len(paths))
    product = paths.prod(axis=1)
    found = psm.indirect_effects(tree)["indirect"].isel(chain=0, draw=0, mediator=0).sel(level="within")
    assert abs(float(found) - product.mean()) < MC_SIGMAS * product.std() / np.sqrt(len(product))

    def own(level: str, unit: str, label: str) -> float:
        return float(draws[f"u_{level}"].sel({level: unit, f"{level}_term": label}))

    clinic = FRAME.drop_duplicates("therapist").set_index("therapist")["clinic"]["T04"]
    of_therapist = [
        mean_path + own("therapist", "T04", label) + own("clinic", clinic, label)
        for mean_path, label in ((a, "m~x.within"), (b, "y~m.within"))
    ]
    patient = FRAME.loc[FRAME["therapist"] == "T04", "patient"].iloc[0]
    of_patient = [
        path + own("patient", patient, label)
        for path, label in zip(of_therapist, ("m~x.within", "y~m.within"), strict=True)
    ]
    by_patient = psm.indirect_effects(tree, by="patient")["indirect"].isel(chain=0, draw=0, mediator=0)
    assert float(by_patient.sel(patient=patient)) == pytest.approx(np.prod(of_patient))
    terms = draws["patient_term"].values.tolist()
    i, j = terms.index("m~x.within"), terms.index("y~m.within")
    shared = float(draws["corr_patient"][i, j] * draws["sd_patient"][i] * draws["sd_patient"][j])
    by_therapist = psm.indirect_effects(tree, by="therapist")["indirect"].isel(chain=0, draw=0, mediator=0)
    assert float(by_therapist.sel(therapist="T04")) == pytest.approx(np.prod(of_therapist) + shared)


def test_share_of_a_binary_score_a_patient_holds_its_residual() -> None:
    tree = drawn_tree(psm.outcomes("cured", techniques=["x"], family="bernoulli"), NESTED, chains=1, draws=2)
    found = psm.variance_partition(tree, per="patient", scale="response")
    assert found["level"].values.tolist() == ["therapist", "residual"]
    xr.testing.assert_allclose(found["share"], psm.variance_partition(tree, scale="response")["share"])
    with pytest.raises(SpecError, match="no mean of sessions"):
        psm.variance_partition(tree, per="patient", scale="response", sessions=5)


def test_shares_of_the_outcome_itself_do_not_hang_on_the_order_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """39 courses of 16 sessions: every 16th row is a first session, and slopes over time have no variance there."""
    data = sessions(table(therapists=13, patients=3, sessions=16))
    tree = drawn_tree(psm.growth("binary", family="bernoulli"), data, chains=1)
    few = mean(psm.variance_partition(tree, scale="response")["share"])
    monkeypatch.setattr(response_scale, "ROWS", 10**6)
    np.testing.assert_allclose(few, mean(psm.variance_partition(tree, scale="response")["share"]), atol=ROWS_IN_TURN)


def test_raw_means_of_therapists_whose_patients_change() -> None:
    """Each patient counts once with the sessions that the therapist held."""
    tree = drawn_tree(psm.growth("y", random={"patient": []}), CROSSED)
    x, beta = tree["constant_data"]["X"], tree["posterior"]["beta"].mean(("chain", "draw"))
    left = FRAME["y"].to_numpy() - (x * beta).sum("term").values
    expected = pd.Series(left).groupby([FRAME["held_by"], FRAME["patient"]]).mean().groupby(level=0).mean()
    found = psm.summarize_therapists(tree)["raw_mean"]
    np.testing.assert_allclose(found, expected)
    assert found.index.tolist() == expected.index.tolist()


def test_raw_means_are_deviations_from_the_levels_above() -> None:
    tree = drawn_tree(psm.growth("y", random={"patient": []}), WITH_CLINICS)
    average = tree["posterior"].dataset.mean(("chain", "draw"))
    left = FRAME["y"].to_numpy() - (tree["constant_data"]["X"] * average["beta"]).sum("term").values
    left = left - average["u_clinic"].sel(clinic=FRAME["clinic"].to_numpy()).values[:, 0]
    expected = pd.Series(left).groupby(FRAME["therapist"]).mean()  # patients have equally many sessions
    np.testing.assert_allclose(psm.summarize_therapists(tree)["raw_mean"], expected)
    left = left - average["u_therapist"].sel(therapist=FRAME["therapist"].to_numpy()).values[:, 0]
    expected = pd.Series(left).groupby(FRAME["patient"]).mean()
    np.testing.assert_allclose(psm.summarize_therapists(tree, level="patient")["raw_mean"], expected)
    assert psm.summarize_therapists(without(tree, "u_clinic"))["raw_mean"].isna().all()
    assert "same clinic" in psm.therapist_effects(tree).attrs["estimand"]


def test_courses_of_therapists_are_those_of_patients_who_have_one() -> None:
    tree = drawn_tree(psm.growth("y", covariates=["arm", "trait"], therapist_in="arm"), NESTED)
    found = psm.expected_trajectories(tree)
    average = tree["posterior"].dataset.mean(("chain", "draw"))
    beta = average["beta"].to_series()
    held = FRAME.loc[FRAME["arm"] == 1, "trait"].mean()
    line = beta["Intercept"] + beta["time"] * found["time"] + beta["arm"] + beta["trait"] * held
    np.testing.assert_allclose(mean(found["mean"]), line)
    own = average["u_therapist"].sel(therapist="T02", therapist_term="arm")
    np.testing.assert_allclose(found["unit"].sel(therapist="T02"), line + float(own))
    assert "who have a therapist" in found.attrs["held_at"]


def test_fits_saved_without_sessions_refuse_what_whole_ones_refuse(tmp_path: Path) -> None:
    course = psm.process("y", techniques=["x"], slopes={"patient": ["x"]}, decompose="none")
    spec = psm.outcomes("post", covariates=["trait"], process=course, suffixes=None, baseline=False)
    tree = drawn_tree(spec, NESTED)
    psm.save(tree, tmp_path / "fit.nc", data=False)
    for each in (tree, psm.load(tmp_path / "fit.nc")):
        with pytest.raises(SpecError, match="random effects of another response"):
            psm.predict(each, FRAME.head(3), response="post")


def test_without_sessions_nobody_knows_whether_therapists_share_rows(tmp_path: Path) -> None:
    tree = drawn_tree(psm.growth("y", membership="to date"), CROSSED)
    psm.save(tree, tmp_path / "fit.nc", data=False)
    rows = FRAME.drop(columns="therapist").rename(columns={"held_by": "therapist"})
    with pytest.raises(PsymechError, match="without"):
        psm.predict(psm.load(tmp_path / "fit.nc"), rows.head(3))


def test_what_does_not_need_patients_effects_works_without_them() -> None:
    tree = drawn_tree(psm.growth("y", random={"patient": ["time"]}), NESTED)
    kept, rows = without(tree, "u_patient"), FRAME.head(9)
    for target in ("new_patient", "new_therapist", "average_therapist"):
        xr.testing.assert_identical(
            psm.predict(kept, rows, target=target, seed=2), psm.predict(tree, rows, target=target, seed=2)
        )
    asked = (
        lambda: psm.predict(kept, rows),
        lambda: psm.true_change(kept, threshold=1.0),
        lambda: psm.check_model(kept),
    )
    for ask in asked:
        with pytest.raises(DataError, match="kept no effects of patients"):
            ask()
    assert names.effect("therapist") in kept["posterior"]


def test_thresholds_belong_to_one_outcome_and_take_the_place_of_its_intercept() -> None:
    ask = {"techniques": ["x"], "family": "ordinal", "level": "session", "suffixes": None, "baseline": False}
    assert psm.outcomes("binary", **ask).responses[0].labels[0] == "time"
    with pytest.raises(SpecError, match=r"ordinal.*one outcome"):
        psm.outcomes(["binary", "y"], **ask)
