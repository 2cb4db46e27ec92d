"""Predictions of new sessions, against the design of the fit and sums by hand."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import psymech as psm
from psymech import names
from psymech.design import make_design
from psymech.errors import DesignWarning
from psymech.posterior.predict import population_draws
from tests.inference.studies import FREE, small_data, small_frame
from tests.posterior.drawn_trees import drawn_tree

ROUNDING = 1e-9  # sums of the same numbers in another order
MC_SIGMAS = 4.5  # a mean of independent draws may lie this many standard errors off, once in 100,000

PROCESS = {"common_factors": ["x"], "slopes": {"patient": ["x"], "therapist": ["x", "time"]}}


@pytest.fixture(scope="module")
def data() -> psm.SessionData:
    return small_data(1)


@pytest.fixture(scope="module")
def tree(data: psm.SessionData) -> xr.DataTree:
    return drawn_tree(psm.process("y", **PROCESS), data)


def linear_predictor(tree: xr.DataTree, *, effects: tuple[str, ...]) -> xr.DataArray:
    """X beta and the levels' Z u at the rows of the fit, read off the tree."""
    draws, fixed = tree["posterior"].dataset, tree["constant_data"].dataset
    eta = (fixed[names.DESIGN_X] * draws[names.BETA]).sum("term")
    for level in effects:
        u = draws[names.effect(level)].isel({level: xr.DataArray(fixed[names.group_of_obs(level)].values, dims="obs")})
        eta = eta + (fixed[names.design_z(level)] * u).sum(names.term_dim(level))
    return eta.transpose("chain", "draw", "obs")


SPECS = {
    "growth log": (psm.growth("y", shape="log", random={"therapist": ["time"]}), "gaussian"),
    "growth spline": (psm.growth("y", shape="spline", moderators=["x"]), "gaussian"),
    "growth piecewise": (psm.growth("y", shape="piecewise", knots=[3], family="student"), "student"),
    "process": (psm.process("y", **PROCESS), "gaussian"),
    "process, no therapist effect": (psm.process("y", techniques=["x"], slopes={"therapist": None}), "gaussian"),
    "process, lag and own last value": (psm.process("y", techniques=["x"], lag=1, autoregressive=True), "gaussian"),
    "process, interaction": (
        psm.process("y", techniques=["x"], interactions=[("x", "time")], time="quadratic"),
        "gaussian",
    ),
    "bernoulli": (psm.process("y", techniques=["x"], family="bernoulli"), "bernoulli"),
    "ordinal": (psm.growth("y", family="ordinal"), "ordinal"),
    "ar1": (psm.process("y", techniques=["x"], residual="ar1", decompose="none"), "gaussian"),
}


@pytest.mark.parametrize("name", SPECS)
def test_rows_of_the_fit_give_the_linear_predictor_of_the_fit(name: str):
    spec, family = SPECS[name]
    data = small_data(2, family=family)
    tree = drawn_tree(spec, data)
    shuffled = data.sessions.sample(frac=1.0, random_state=3)
    predicted = psm.predict(tree, shuffled, seed=0)
    design = make_design(spec, data)
    eta = linear_predictor(tree, effects=tuple(level.level for level in design.levels)).values
    if family == "bernoulli":
        eta = 1.0 / (1.0 + np.exp(-eta))
    if family == "ordinal":
        cut = tree["posterior"][names.CUTPOINTS].values
        eta = 1.0 + sum(1.0 / (1.0 + np.exp(cut[..., j, None] - eta)) for j in range(3))  # categories are 1, 2, 3, 4
    rows = shuffled.index.to_numpy()[predicted["obs"].values]  # row of the shuffled table -> row of the data
    place = {row: position for position, row in enumerate(design.row)}
    np.testing.assert_allclose(predicted.values, eta[..., [place[row] for row in rows]], atol=ROUNDING)
    assert predicted.sizes["obs"] == design.n_obs


def test_columns_come_from_a_stored_tree_alone(tree: xr.DataTree, data: psm.SessionData, tmp_path: Path):
    tree.to_netcdf(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc") as opened:
        stored = opened.load()
    new = data.sessions.iloc[10:14]
    xr.testing.assert_allclose(psm.predict(stored, new, seed=1), psm.predict(tree, new, seed=1))


def test_fits_saved_without_sessions_predict_what_needs_no_means(tmp_path: Path, data: psm.SessionData):
    growth = drawn_tree(psm.growth("y"), data)
    psm.save(growth, tmp_path / "growth.nc", data=False)
    stored = psm.load(tmp_path / "growth.nc")
    np.testing.assert_array_equal(
        psm.predict(stored, data.sessions, seed=1), psm.predict(growth, data.sessions, seed=1)
    )
    psm.save(drawn_tree(psm.process("y", techniques=["x"]), data), tmp_path / "process.nc", data=False)
    with pytest.raises(psm.DataError, match="data=True"):
        psm.predict(psm.load(tmp_path / "process.nc"), data.sessions)


def test_average_therapist_has_no_effects(tree: xr.DataTree, data: psm.SessionData):
    predicted = psm.predict(tree, data.sessions, target="average_therapist")
    np.testing.assert_allclose(predicted, linear_predictor(tree, effects=()), atol=ROUNDING)


def test_new_patient_keeps_the_therapist(tree: xr.DataTree, data: psm.SessionData):
    new = data.sessions[data.sessions["patient"] == "T2P1"]
    predicted = psm.predict(tree, new, target="new_patient", seed=3)
    rows = np.flatnonzero(data.sessions["patient"] == "T2P1")
    known = linear_predictor(tree, effects=("therapist",)).values[..., rows]
    own = predicted.values - known  # z'u of one drawn patient: the same u in all rows
    z = tree["constant_data"]["Z_patient"].values[rows]
    u = np.linalg.lstsq(z, own.reshape(-1, rows.size).T, rcond=None)[0]
    np.testing.assert_allclose(z @ u, own.reshape(-1, rows.size).T, atol=1e-8)
    expected = population_draws(tree, "patient", 1, np.random.default_rng([3, 0]))[:, 0]
    np.testing.assert_allclose(u.T, expected, atol=1e-8)


def test_population_draws_have_the_covariance_of_the_level(data: psm.SessionData):
    tree = drawn_tree(psm.process("y", **PROCESS), data, chains=1, draws=2)
    n = 40_000
    draws = population_draws(tree, "therapist", n, np.random.default_rng(5))
    sd = tree["posterior"]["sd_therapist"].values[0]
    omega = tree["posterior"]["corr_therapist"].values[0] * sd[:, :, None] * sd[:, None, :]
    scale = np.sqrt(np.einsum("dii,djj->dij", omega, omega) + omega**2) / np.sqrt(n)  # SE of a normal covariance
    assert (np.abs(np.einsum("dni,dnj->dij", draws, draws) / n - omega) < MC_SIGMAS * scale).all()
    assert (np.abs(draws.mean(1)) < MC_SIGMAS * sd / np.sqrt(n)).all()


def test_unseen_therapist_is_drawn_said_and_repeatable(tree: xr.DataTree, data: psm.SessionData):
    new = data.sessions.iloc[:6].assign(therapist="T77", patient="P1")
    with pytest.warns(DesignWarning, match=r"not in the fit.*T77.*population"):
        first = psm.predict(tree, new, seed=4)
    with pytest.warns(DesignWarning, match="T77"):
        again = psm.predict(tree, new, seed=4)
    with pytest.warns(DesignWarning, match="T77"):
        other = psm.predict(tree, new, seed=5)
    xr.testing.assert_identical(first, again)
    assert not np.allclose(first, other)
    assert "T77" in first.attrs["notes"] and "P1" in first.attrs["notes"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = psm.predict(tree, new, target="new_therapist", seed=4)
    xr.testing.assert_allclose(asked.drop_attrs(), first.drop_attrs())


def test_new_therapists_differ_from_each_other_but_not_within(data: psm.SessionData):
    tree = drawn_tree(psm.growth("y", random={"patient": None, "therapist": ["Intercept"]}), data)
    new = data.sessions.groupby("therapist").head(2)
    predicted = psm.predict(tree, new, target="new_therapist", seed=1)
    effect = (predicted - psm.predict(tree, new, target="average_therapist")).values
    therapist = predicted["therapist"].values
    first = {name: effect[..., therapist == name] for name in dict.fromkeys(therapist)}
    for rows in first.values():
        np.testing.assert_allclose(rows[..., 0], rows[..., 1], atol=ROUNDING)
    assert len({float(rows[0, 0, 0]) for rows in first.values()}) == len(first)


def test_therapist_is_that_of_the_patient_where_not_named(tree: xr.DataTree, data: psm.SessionData):
    new = data.sessions.iloc[5:9]
    without = psm.predict(tree, new.drop(columns="therapist"), seed=1)
    np.testing.assert_allclose(without, psm.predict(tree, new, seed=1), atol=ROUNDING)
    assert without["therapist"].values.tolist() == new["therapist"].tolist()


def test_a_grid_without_patients_is_one_new_patient_per_therapist(data: psm.SessionData):
    tree = drawn_tree(psm.growth("y"), data)
    grid = pd.DataFrame({"therapist": ["T1"] * 3 + ["T2"] * 3, "session": [1, 2, 3] * 2})
    predicted = psm.predict(tree, grid, seed=1)
    average = psm.predict(tree, grid, target="average_therapist")
    beta = tree["posterior"][names.BETA]
    np.testing.assert_allclose(average[..., 1], beta[..., 0] + 2 * beta[..., 1], atol=ROUNDING)
    u = tree["posterior"]["u_therapist"].values[..., 0]
    between = (predicted - average).values
    patient = population_draws(tree, "patient", 2, np.random.default_rng([1, 0])).reshape(2, -1, 2, 2)
    np.testing.assert_allclose(between[..., 0], u[..., 1] + patient[..., 0, :] @ [1, 1], atol=ROUNDING)
    np.testing.assert_allclose(between[..., 5], u[..., 2] + patient[..., 1, :] @ [1, 3], atol=ROUNDING)


def test_means_of_new_patients_are_of_the_new_rows(tree: xr.DataTree, data: psm.SessionData):
    new = pd.DataFrame({"therapist": "T0", "patient": "N", "session": [1, 2], "x": [1.0, 4.0]})
    predicted = psm.predict(tree, new, target="average_therapist")
    beta = tree["posterior"][names.BETA]
    own = data.sessions.loc[data.sessions["therapist"] == "T0", "x"].mean()
    columns = {"Intercept": [1, 1], "time": [1, 2], "x.within": [-1.5, 1.5], "x.patient": 2.5 - own, "x.therapist": own}
    expected = sum(beta.sel(term=label) * xr.DataArray(np.ones(2) * v, dims="obs") for label, v in columns.items())
    np.testing.assert_allclose(predicted, expected, atol=ROUNDING)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="x"), r"'x'"),
        (lambda f: f.assign(x=f["x"].where(f.index != 1)), r"'x'.*1 of 4 missing.*T0P0"),
        (lambda f: f.assign(x="high"), r"'x'.*number"),
        (lambda f: f.assign(session=["s1", "s2", "s3", "s4"]), r"session.*number"),
        (lambda f: f.drop(columns="session"), r"session"),
        (lambda f: f.iloc[:0], r"empty"),
    ],
)
def test_bad_new_data_are_refused(tree: xr.DataTree, data: psm.SessionData, change, message: str):
    with pytest.raises(psm.DataError, match=message):
        psm.predict(tree, change(data.sessions.head(4)))


def test_wrong_options_are_refused(tree: xr.DataTree, data: psm.SessionData):
    with pytest.raises(psm.SpecError, match="target"):
        psm.predict(tree, data.sessions, target="therapist")  # type: ignore[arg-type]
    with pytest.raises(psm.SpecError, match="kind"):
        psm.predict(tree, data.sessions, kind="median")  # type: ignore[arg-type]
    two_levels = small_data(1, therapist=False)
    flat = drawn_tree(psm.growth("y"), two_levels)
    with pytest.raises(psm.SpecError, match="therapist"):
        psm.predict(flat, two_levels.sessions, target="new_therapist")
    assert psm.predict(flat, two_levels.sessions).sizes["obs"] == two_levels.n_sessions


def test_lag_without_any_predecessor_is_refused(data: psm.SessionData):
    tree = drawn_tree(psm.process("y", techniques=["x"], lag=1), data)
    with pytest.raises(psm.DesignError, match="earlier session"):
        psm.predict(tree, data.sessions.iloc[[0]])
    some = psm.predict(tree, data.sessions)
    assert "left out" in some.attrs["notes"]


def test_numeric_ids_match_across_types():
    frame = small_frame(3).assign(therapist=lambda f: f["therapist"].str[1:].astype(int))
    data = psm.SessionData.from_frame(frame, ranges=FREE)
    tree = drawn_tree(psm.growth("y"), data)
    as_text = frame.assign(therapist=frame["therapist"].astype(str))
    np.testing.assert_allclose(psm.predict(tree, as_text, seed=0), psm.predict(tree, frame, seed=0))


def moments_of_residuals(tree: xr.DataTree, new: pd.DataFrame) -> np.ndarray:
    mean = psm.predict(tree, new, seed=2)
    return (psm.predict(tree, new, kind="draw", seed=2) - mean).values.reshape(-1, len(new))


def test_draws_add_the_residual():
    data = small_data(4)
    new = data.sessions[data.sessions["patient"] == "T0P0"].head(3)
    tree = drawn_tree(psm.growth("y"), data, draws=4000)
    error = moments_of_residuals(tree, new) / tree["posterior"]["sigma"].values.reshape(-1, 1)
    assert (np.abs(error.mean(0)) < MC_SIGMAS / np.sqrt(len(error))).all()
    assert (np.abs(error.var(0) - 1) < MC_SIGMAS * np.sqrt(2 / len(error))).all()


def test_autoregressive_draws_correlate_by_distance():
    data = small_data(4)
    tree = drawn_tree(psm.growth("y", residual="ar1"), data, draws=4000)
    phi = 0.5
    tree["posterior"][names.PHI] = xr.full_like(tree["posterior"][names.PHI], phi)
    new = pd.DataFrame({"therapist": "T0", "patient": ["A", "A", "A", "B"], "session": [1, 2, 4, 1]})
    error = moments_of_residuals(tree, new) / tree["posterior"]["sigma"].values.reshape(-1, 1)
    expected = np.eye(4)
    for i, j, gap in ((0, 1, 1), (0, 2, 3), (1, 2, 2)):
        expected[i, j] = expected[j, i] = phi**gap
    assert (np.abs(np.cov(error.T) - expected) < MC_SIGMAS * np.sqrt(2 / len(error))).all()


def test_ar1_residuals_carry_on_as_the_dense_conditional_normal(data: psm.SessionData, tmp_path: Path):
    tree = drawn_tree(psm.growth("y", residual="ar1"), data, draws=4000)
    posterior = tree["posterior"]
    for name in posterior.data_vars:  # one value of everything, so that draws differ by the residual alone
        posterior[name] = posterior[name].isel(chain=0, draw=0) * xr.ones_like(posterior[name])
    fixed = tree["constant_data"].dataset
    patient = str(posterior["patient"].values[0])
    mine = fixed[names.group_of_obs("patient")].values == 0
    seen, y = fixed[names.SESSION_OF_OBS].values[mine].astype(float), tree["observed_data"]["y"].values[mine]
    therapist = str(posterior["therapist"].values[fixed[names.group_of_obs("therapist")].values[mine][0]])
    later = seen.max() + np.array([1.0, 3.0, 4.0])
    residual = y - linear_predictor(tree, effects=("patient", "therapist")).values[0, 0, mine]
    phi, sigma = float(posterior[names.PHI][0, 0]), float(posterior[names.SIGMA][0, 0])
    sessions = np.concatenate([seen, later])
    R = phi ** np.abs(sessions[:, None] - sessions)
    n = seen.size
    weights = np.linalg.solve(R[:n, :n], R[:n, n:])
    new = pd.DataFrame({"patient": patient, "therapist": therapist, "session": [later[1], later[0], later[2]]})
    order = [1, 0, 2]
    known = psm.predict(tree, new, seed=1)
    plain = psm.predict(tree, new.assign(session=[1, 1, 1]).iloc[:1], seed=1)  # a session of the fit: nothing carried
    assert "carried on" in known.attrs["notes"] and "carried on" not in plain.attrs["notes"]
    drawn = psm.predict(tree, new, kind="draw", seed=1)
    without = drawn_mean_without_carrying(tree, new, tmp_path)
    np.testing.assert_allclose((known - without).values[0, 0], (residual @ weights)[order], atol=ROUNDING)
    error = (drawn - known).values.reshape(-1, 3)
    expected = sigma**2 * (R[n:, n:] - R[n:, :n] @ weights)[np.ix_(order, order)]
    spread = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / len(error))
    assert (np.abs(np.cov(error.T) - expected) < MC_SIGMAS * spread).all()
    assert (np.abs(error.mean(axis=0)) < MC_SIGMAS * np.sqrt(np.diag(expected) / len(error))).all()


def drawn_mean_without_carrying(tree: xr.DataTree, new: pd.DataFrame, folder: Path) -> xr.DataArray:
    """Predictions of the same rows by the fit saved without its sessions, which says that it carries nothing."""
    bare = psm.load(psm.save(tree, folder / "bare.nc", data=False))
    found = psm.predict(bare, new, seed=1)
    assert "saved without its sessions" in found.attrs["notes"]
    return found


def test_nothing_is_carried_to_other_patients_and_targets(data: psm.SessionData):
    tree = drawn_tree(psm.growth("y", residual="ar1"), data)
    new = pd.DataFrame(
        {"patient": "nobody", "therapist": str(tree["posterior"]["therapist"].values[0]), "session": [99]}
    )
    assert "carried on" not in psm.predict(tree, new, seed=1).attrs["notes"]
    own = new.assign(patient=str(tree["posterior"]["patient"].values[0]))
    for target in ("new_patient", "new_therapist", "average_therapist"):
        assert "carried on" not in psm.predict(tree, own, target=target, seed=1).attrs["notes"]


@pytest.mark.parametrize("family", ["bernoulli", "ordinal"])
def test_draws_of_categories_have_the_expected_outcome_as_mean(family):
    data = small_data(5, family=family)
    tree = drawn_tree(psm.growth("y", family=family), data, draws=4000)
    new = data.sessions.head(3)
    draws = psm.predict(tree, new, kind="draw", seed=1)
    mean = psm.predict(tree, new, seed=1)
    assert set(np.unique(draws)) <= set(np.unique(data.values("y")))
    error = (draws - mean).values.reshape(-1, 3)
    assert (np.abs(error.mean(0)) < MC_SIGMAS * error.std(0) / np.sqrt(len(error))).all()


def crossed_data() -> psm.SessionData:
    """Patients who change therapist half-way."""
    frame = small_frame(7)
    late = frame["session"] > 4
    number = frame["therapist"].str[1:].astype(int)
    frame.loc[late, "therapist"] = "T" + ((number[late] + 1) % 6).astype(str)
    return psm.SessionData.from_frame(frame, ranges=FREE, patient_ids="crossed")


def test_patients_who_change_therapist_are_predicted_with_the_therapist_of_the_session():
    data = crossed_data()
    tree = drawn_tree(psm.process("y", techniques=["x"]), data)
    predicted = psm.predict(tree, data.sessions.sample(frac=1.0, random_state=1), seed=0)
    order = np.argsort(data.sessions.sample(frac=1.0, random_state=1).index.to_numpy())
    eta = linear_predictor(tree, effects=("patient", "therapist"))
    np.testing.assert_allclose(predicted.values[..., order], eta, atol=ROUNDING)
    owners = predicted["therapist"].to_series().groupby(predicted["patient"].values).nunique()
    assert owners.max() == 2


@pytest.mark.parametrize("kind", ["mediation", "outcomes"])
def test_each_of_several_responses_has_its_own_rows(kind: str):
    data = psm.load_example("process_study")
    spec = (
        psm.mediation("phq9", treatment="exposure", mediators="alliance", random={"patient": ("a", "b")})
        if kind == "mediation"
        else psm.outcomes(["coping", "resources"], predictors=["exposure", "alliance"])
    )
    tree = drawn_tree(spec, data, draws=5)
    levels = tuple(level for level in ("patient", "therapist") if names.effect(level) in tree["posterior"])
    eta = linear_predictor(tree, effects=levels).values
    fixed = tree["constant_data"].dataset
    with pytest.raises(psm.SpecError, match="responses"):
        psm.predict(tree, data)
    for position, response in enumerate(r.column for r in spec.responses):
        predicted = psm.predict(tree, data, response=response, seed=0)
        rows = np.flatnonzero(fixed[names.RESPONSE_OF_OBS].values == position)
        source = data.source_row[fixed["row_of_obs"].values[rows]]
        np.testing.assert_allclose(predicted.sel(obs=source), eta[..., rows], atol=ROUNDING)


def test_patients_without_a_therapist_have_one_mean_whatever_their_placeholder() -> None:
    """The mean by which predictors are split is that of the fit's untreated patients, not of one new patient's rows."""
    rng = np.random.default_rng(0)
    rows = [(k, f"P{k}-{i}", t, i % 2) for k in range(6) for i in range(4) for t in range(1, 5)]
    frame = pd.DataFrame(rows, columns=["therapist", "patient", "session", "arm"])
    frame["therapist"] = ("T" + frame["therapist"].astype(str)).where(frame["arm"] == 1, "untreated")
    frame = frame.assign(x=rng.normal(size=len(rows)), y=rng.normal(size=len(rows)))
    data = psm.SessionData.from_frame(frame, ranges={"x": None, "y": None})
    spec = psm.process("y", techniques=["x"], covariates=["arm"], therapist_in="arm")
    tree = drawn_tree(spec, data, chains=1, draws=2)

    def predicted(new: pd.DataFrame) -> np.ndarray:
        return psm.predict(tree, new, target="average_therapist", seed=1).values[0]

    beta = tree["posterior"]["beta"].isel(chain=0).to_pandas()

    def expected(new: pd.DataFrame, arm: int, mean: float) -> np.ndarray:
        x, own = new["x"].to_numpy(), new["x"].mean()
        parts = {"x.within": x - own, "x.patient": own - mean, "x.therapist": mean, "time": new["session"].to_numpy()}
        return beta["Intercept"].to_numpy()[:, None] + sum(
            beta[label].to_numpy()[:, None] * value for label, value in (parts | {"arm": arm}).items()
        )

    untreated = frame[frame["arm"] == 0].head(4).assign(patient="new")
    mean = frame.loc[frame["arm"] == 0, "x"].mean()
    for new in (untreated, untreated.assign(therapist="another"), untreated.drop(columns="therapist")):
        np.testing.assert_allclose(predicted(new), expected(new, 0, mean))
    treated = frame[frame["arm"] == 1].head(4).assign(patient="new").drop(columns="therapist")
    of_therapists = frame[frame["arm"] == 1].groupby("therapist")["x"].mean().mean()
    np.testing.assert_allclose(predicted(treated), expected(treated, 1, of_therapists))
