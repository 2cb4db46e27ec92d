"""simulate(): the table follows the model exactly, and the truth says what is true of it."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from psymech.data.sessions import SessionData
from psymech.design import make_design
from psymech.errors import PsymechError, SpecError
from psymech.models.growth import growth
from psymech.models.process import process
from psymech.simulation import Predictor, Simulation, Sizes, simulate

ALMOST_EXACT = 1e-9  # floating-point error of a few sums of numbers near ten
TINY = 1e-12  # a residual SD that cannot be seen at ALMOST_EXACT
FOUR_SE = 4.0  # a correct estimate of a fixed seed lies within four standard errors of the truth
RAGGED = Sizes(
    therapists=6, patients=5, sessions=9, patients_spread=2, sessions_spread=3, gaps=0.1, dropout=0.05, missing=0.1
)


def rich_spec(**changes):
    keywords = {
        "techniques": ["exposure"],
        "common_factors": ["alliance"],
        "covariates": ["severity"],
        "interactions": [("exposure", "alliance"), ("exposure.patient", "reactance")],
        "slopes": {"patient": ["alliance"], "therapist": ["alliance", "exposure.within"]},
    } | changes
    return process("score", **keywords)


SPECS = {
    "growth": growth("score", random={"patient": ["time"], "therapist": ["time"]}, moderators=["severity"]),
    "spline": growth("score", shape="spline", covariates=["severity"]),
    "ar1": growth("score", shape="log", residual="ar1"),
    "student": growth("score", family="student"),
    "bernoulli": growth("score", family="bernoulli"),
    "ordinal": growth("score", family="ordinal", covariates=["severity"]),
    "process": rich_spec(),
    "lagged": rich_spec(lag=1),
    "autoregressive": rich_spec(lag=1, autoregressive=True),
    "as given": process("score", techniques=["exposure"], decompose="none", time=None, lag=2),
    "bernoulli lag": process("score", techniques=["exposure"], family="bernoulli", autoregressive=True),
}
EXACT = ["growth", "spline", "process", "lagged", "autoregressive", "as given"]


def linear_predictor(study: Simulation, data: SessionData) -> tuple[np.ndarray, np.ndarray]:
    """The design's own X beta + Z u at the true values, with the rows it belongs to."""
    design = make_design(study.spec, data)
    truth = study.truth
    assert design.terms == tuple(truth["term"].values)
    eta = design.X @ truth["beta"].values
    for level in design.levels:
        effects = truth[f"u_{level.level}"].sel({level.level: level.labels, f"{level.level}_term": list(level.terms)})
        eta = eta + (level.Z * effects.values[level.code]).sum(axis=1)
    return eta, design.row


@pytest.mark.parametrize("name", EXACT)
def test_without_residual_the_outcome_is_the_design_at_the_true_values(name):
    study = simulate(SPECS[name], sizes=RAGGED, truth={"sigma": TINY}, seed=4)
    data = study.data()
    eta, row = linear_predictor(study, data)
    np.testing.assert_allclose(data.values("score")[row], eta, atol=ALMOST_EXACT)
    np.testing.assert_allclose(study.truth["expected"].values[row], eta, atol=ALMOST_EXACT)
    assert 0 < row.size < data.n_sessions  # missing outcomes, gaps: not every session counts


@pytest.mark.parametrize("name", list(SPECS))
def test_same_seed_same_study_and_another_seed_another(name):
    one, same, other = (simulate(SPECS[name], sizes=RAGGED, seed=seed) for seed in (1, 1, 2))
    assert_frame_equal(one.frame, same.frame)
    assert one.truth.identical(same.truth)
    assert not one.frame.equals(other.frame)


@pytest.mark.parametrize("name", list(SPECS))
def test_true_values_carry_the_names_of_a_tree(name):
    spec = SPECS[name]
    study = simulate(spec, sizes=RAGGED, seed=1)
    truth = study.truth
    assert truth["beta"].dims == ("term",)
    assert truth["u_therapist"].dims == ("therapist", "therapist_term")
    assert truth["sd_patient"].dims == ("patient_term",)
    assert truth["corr_patient"].dims == ("patient_term", "patient_term_aux") if "corr_patient" in truth else True
    assert ("sigma" in truth) == (spec.family in ("gaussian", "student"))
    assert ("phi" in truth) == (spec.residual == "ar1")
    assert ("nu" in truth) == (spec.family == "student")
    assert ("cutpoints" in truth) == (spec.family == "ordinal")
    assert float(truth["variance_partition"].sum()) == pytest.approx(1.0)
    assert list(truth["level"].values) == ["therapist", "patient", "residual"]


def test_truth_leaves_ids_and_predictors_as_they_are():
    plain = simulate(rich_spec(), sizes=RAGGED, seed=3)
    other = simulate(rich_spec(), sizes=RAGGED, truth={"beta[alliance.within]": 5.0, "sigma": 9.0}, seed=3)
    assert_frame_equal(
        plain.frame.drop(columns="score"),
        other.frame.drop(columns="score"),
    )
    assert not np.allclose(plain.frame["score"], other.frame["score"], equal_nan=True)


def test_truth_by_name_by_mapping_and_for_all():
    truth = {
        "beta": {"time": -0.5, "severity": 2.0},
        "beta[time]": -0.7,  # the exact key wins
        "sd_patient": 1.5,
        "sd_therapist[Intercept]": 0.0,
        "corr_patient": [[1.0, -0.6], [-0.6, 1.0]],
        "sigma": 3,
    }
    spec = growth("score", random={"patient": ["time"]}, covariates=["severity"])
    found = simulate(spec, sizes=RAGGED, truth=truth, seed=1).truth
    assert found["beta"].sel(term="time") == -0.7
    assert found["beta"].sel(term="severity") == 2.0
    assert found["sd_patient"].values.tolist() == [1.5, 1.5]
    assert float(found["corr_patient"][0, 1]) == -0.6
    assert float(found["sigma"]) == 3.0
    assert not found["u_therapist"].any()


def test_ranks_are_those_of_the_effects():
    truth = simulate(SPECS["growth"], seed=1).truth
    effect = truth["u_therapist"].sel(therapist_term="Intercept").values
    rank = truth["rank_therapist"].sel(therapist_term="Intercept").values
    assert sorted(rank) == list(range(1, 21))
    assert rank[effect.argmin()] == 1
    assert rank[effect.argmax()] == 20


def test_variance_partition_of_intercepts_only_is_the_ratio_of_variances():
    truth = {"sd_patient": 3.0, "sd_therapist": 1.0, "sigma": 2.0}
    study = simulate(growth("score", random={}), truth=truth, seed=1)
    assert study.truth["variance"].values.tolist() == [1.0, 9.0, 4.0]
    np.testing.assert_allclose(study.truth["variance_partition"], np.array([1, 9, 4]) / 14)


def test_variance_partition_with_slopes_averages_over_the_rows():
    study = simulate(SPECS["growth"], sizes=RAGGED, seed=1)
    design = make_design(study.spec, study.data())
    sd, corr = study.truth["sd_patient"].values, study.truth["corr_patient"].values
    omega = sd[:, None] * corr * sd
    patient = next(level for level in design.levels if level.level == "patient")
    by_row = [z @ omega @ z for z in patient.Z]
    assert float(study.truth["variance"].sel(level="patient")) == pytest.approx(np.mean(by_row))


def test_residual_variance_is_that_of_the_family():
    spec = {family: growth("score", family=family) for family in ("student", "bernoulli", "ordinal")}
    variance = {
        family: float(simulate(s, seed=1).truth["variance"].sel(level="residual")) for family, s in spec.items()
    }
    assert variance["student"] == pytest.approx(4.0 * 5 / 3)
    assert variance["bernoulli"] == variance["ordinal"] == pytest.approx(np.pi**2 / 3)


def test_random_effects_have_their_covariance():
    many = Sizes(therapists=10, patients=400, sessions=3)
    truth = simulate(growth("score"), sizes=many, truth={"corr_patient": -0.5}, seed=1).truth
    effects = truth["u_patient"].values
    n = len(effects)
    np.testing.assert_allclose(effects.std(axis=0), truth["sd_patient"], rtol=FOUR_SE / np.sqrt(2 * n))
    assert np.corrcoef(effects.T)[0, 1] == pytest.approx(-0.5, abs=FOUR_SE * 0.75 / np.sqrt(n))


def residuals(study: Simulation) -> pd.DataFrame:
    found = study.frame[["patient", "session"]].assign(e=study.frame["score"] - study.truth["expected"].values)
    return found


def test_ar1_residuals_correlate_by_distance_over_gaps():
    sizes = Sizes(therapists=10, patients=40, sessions=20, gaps=0.2)
    study = simulate(SPECS["ar1"], sizes=sizes, truth={"phi": 0.6, "sigma": 2.0}, seed=1)
    table = residuals(study)
    n = len(table)
    # The variance of a correlated series' SD is inflated by (1 + phi^2) / (1 - phi^2).
    assert table["e"].std() == pytest.approx(2.0, rel=FOUR_SE * np.sqrt((1 + 0.36) / (1 - 0.36) / (2 * n)))
    step = table.groupby("patient")["session"].diff().to_numpy()
    before = table.groupby("patient")["e"].shift().to_numpy()
    for distance in (1, 2, 3):
        rows = step == distance
        r = np.corrcoef(before[rows], table["e"].to_numpy()[rows])[0, 1]
        assert r == pytest.approx(0.6**distance, abs=FOUR_SE * 1.5 / np.sqrt(rows.sum()))


def test_student_residuals_have_heavy_tails():
    table = residuals(simulate(SPECS["student"], sizes=Sizes(sessions=60), truth={"nu": 3.0, "sigma": 1.0}, seed=1))
    beyond = (table["e"].abs() > 5.841).mean()  # the 99.5 percent point of Student's t with 3 degrees of freedom
    assert beyond == pytest.approx(0.01, abs=FOUR_SE * np.sqrt(0.01 * 0.99 / len(table)))


def test_bernoulli_and_ordinal_responses_follow_the_logit():
    truth = {"sd_patient": 0.0, "sd_therapist": 0.0}
    wide = Sizes(sessions=60)
    yes = simulate(growth("score", family="bernoulli", random={}), sizes=wide, truth=truth, seed=1)
    chance = 1 / (1 + np.exp(-yes.truth["expected"].values))
    gap = yes.frame["score"].mean() - chance.mean()
    assert abs(gap) < FOUR_SE * np.sqrt((chance * (1 - chance)).sum()) / chance.size
    order = simulate(
        growth("score", family="ordinal", random={}), sizes=wide, truth=truth | {"cutpoints": [-1.0, 1.0]}, seed=1
    )
    for category, cut in enumerate([-1.0, 1.0]):
        below = 1 / (1 + np.exp(-(cut - order.truth["expected"].values)))
        gap = (order.frame["score"] <= category).mean() - below.mean()
        assert abs(gap) < FOUR_SE * np.sqrt((below * (1 - below)).sum()) / below.size
    assert set(order.frame["score"]) == {0.0, 1.0, 2.0}


def test_least_squares_finds_the_fixed_effects_of_a_large_study():
    spec = rich_spec(lag=1, slopes=None)
    study = simulate(spec, sizes=Sizes(therapists=60, patients=10), truth={"sd_patient": 0, "sd_therapist": 0}, seed=1)
    design = make_design(spec, study.data())
    inverse = np.linalg.inv(design.X.T @ design.X)
    estimate = inverse @ design.X.T @ design.y
    z = (estimate - study.truth["beta"].values) / (2.0 * np.sqrt(np.diag(inverse)))
    assert np.abs(z).max() < FOUR_SE


def test_predictors_vary_where_they_should():
    chosen = {
        "exposure": Predictor(mean=2.0, within=0.5, patient=1.0, therapist=0.8),
        "severity": Predictor(within=0.0, patient=0.0, therapist=1.0),
    }
    study = simulate(rich_spec(), sizes=Sizes(therapists=200, patients=20), predictors=chosen, seed=1)
    data = study.data()
    assert data.home("exposure") == "session"
    assert data.home("reactance") == data.varies_at("reactance") == "patient"
    assert data.home("severity") == data.varies_at("severity") == "therapist"
    grouped = study.frame.groupby("patient")["exposure"]
    within = (study.frame["exposure"] - grouped.transform("mean")).std() * np.sqrt(12 / 11)
    assert within == pytest.approx(0.5, rel=0.02)
    between = study.frame.groupby("therapist")["exposure"].mean().std()
    expected = np.sqrt(0.8**2 + 1.0**2 / 20 + 0.5**2 / 240)
    assert between == pytest.approx(expected, rel=FOUR_SE / np.sqrt(2 * 200))


def test_sizes_are_kept():
    plain = simulate(growth("score"), sizes=Sizes(therapists=4, patients=3, sessions=5), seed=1)
    assert plain.frame.groupby("therapist")["patient"].nunique().tolist() == [3] * 4
    assert plain.frame.groupby("patient").size().tolist() == [5] * 12
    sizes = Sizes(therapists=30, patients=6, sessions=10, patients_spread=3, sessions_spread=4, clinics=4)
    ragged = simulate(growth("score"), sizes=sizes, seed=1).frame
    caseload = ragged.groupby("therapist")["patient"].nunique()
    assert (caseload.min(), caseload.max()) == (3, 9)
    sessions = ragged.groupby("patient").size()
    assert (sessions.min(), sessions.max()) == (6, 14)
    assert ragged.groupby("clinic")["therapist"].nunique().tolist() == [8, 7, 8, 7]


def test_gaps_dropout_and_missing_outcomes_occur_as_often_as_asked():
    sizes = Sizes(therapists=50, patients=20, sessions=12, gaps=0.1, dropout=0.05, missing=0.15)
    frame = simulate(growth("score"), sizes=sizes, seed=1).frame
    last = frame.groupby("patient")["session"].max()
    held = frame[frame["session"] > 2].merge(last.rename("last"), on="patient")
    inner = held[held["session"] < held["last"]]
    slots = (last - 3).clip(lower=0).sum()
    assert len(inner) / slots == pytest.approx(0.9, abs=FOUR_SE * np.sqrt(0.09 / slots))
    assert (last == 12).mean() == pytest.approx(0.9 * 0.95**9, abs=FOUR_SE * 0.5 / np.sqrt(1000))
    assert frame["score"].isna().mean() == pytest.approx(0.15, abs=FOUR_SE * np.sqrt(0.15 * 0.85 / len(frame)))
    assert frame[frame["session"] == 1]["score"].notna().all()


def test_missing_outcomes_follow_high_ones():
    frame = simulate(growth("score"), sizes=Sizes(therapists=50, patients=20, missing=0.2), seed=1).frame
    complete = simulate(growth("score"), sizes=Sizes(therapists=50, patients=20), seed=1).frame
    before = complete.groupby("patient")["score"].shift()
    gone = frame["score"].isna()
    pd.testing.assert_series_equal(frame["score"][~gone], complete["score"][~gone])
    assert before[gone].mean() > before[~gone].mean() + 0.5


def test_patients_without_therapists():
    study = simulate(rich_spec(slopes={"patient": ["alliance"]}), sizes=Sizes(therapists=None, patients=30), seed=1)
    data = study.data()
    assert data.levels == ("patient",)
    assert data.n_patients == 30
    assert "alliance.therapist" not in study.truth["term"].values
    assert not any("therapist" in str(name) for name in study.truth)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"truth": {"sigmo": 1.0}}, "'sigmo' names no parameter"),
        ({"truth": {"beta[tim]": 1.0}}, "names no term. Expected one of Intercept, time"),
        ({"truth": {"sigma": -1.0}}, "'sigma' must lie between 0 and inf, found -1"),
        ({"truth": {"sigma": "two"}}, "must be a finite number"),
        ({"truth": {"phi": 0.5}}, "'phi' names no parameter"),
        ({"truth": {"sd_patient": [1.0, -1.0]}}, "cannot be negative"),
        ({"truth": {"sd_patient": [1.0, 1.0, 1.0]}}, "needs 2 finite numbers"),
        ({"truth": {"corr_patient": 1.5}}, "must be a correlation"),
        ({"truth": {"corr_patient": "high"}}, "must be finite numbers"),
        ({"predictors": {"mood": Predictor()}}, "'mood' is no predictor of this model"),
        ({"sizes": Sizes(therapists=None), "predictors": {"severity": Predictor(0, 0, 0, 1)}}, "therapists only"),
    ],
)
def test_what_cannot_be_simulated_is_refused(keywords, message):
    spec = growth("score", covariates=["severity"])
    with pytest.raises(SpecError, match=message.replace("(", r"\(")):
        simulate(spec, seed=1, **keywords)


def test_a_level_without_units_and_reserved_names_are_refused():
    with pytest.raises(SpecError, match=r"level 'therapist', but sizes\.therapists is None"):
        simulate(growth("score", random={"therapist": ["time"]}), sizes=Sizes(therapists=None), seed=1)
    with pytest.raises(SpecError, match="column 'session'"):
        simulate(growth("score", covariates=["session"]), seed=1)
    with pytest.raises(SpecError, match="would not settle"):
        simulate(SPECS["autoregressive"], truth={"beta[score.lag1]": 0.99}, seed=1)


@pytest.mark.parametrize(
    "sizes",
    [
        {"therapists": 0},
        {"patients": 0},
        {"patients_spread": 8},
        {"sessions_spread": -1},
        {"gaps": 1.0},
        {"missing": -0.1},
        {"therapists": None, "clinics": 2},
        {"therapists": 2, "clinics": 3},
    ],
)
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(SpecError, match="Sizes"):
        Sizes(**sizes)


@pytest.mark.parametrize("keywords", [{"within": -1.0}, {"mean": np.inf}, {"within": 0, "patient": 0, "therapist": 0}])
def test_impossible_predictors_are_refused(keywords):
    with pytest.raises(PsymechError, match="Predictor"):
        Predictor(**keywords)
