"""Multiple membership: patients who change therapist, shared among their therapists by sessions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import psymech as psm
from psymech import names
from psymech.data.membership import Members, session_shares
from psymech.design import Design, make_design
from psymech.errors import DataError, DesignError, NotCollapsibleError, SpecError
from psymech.graph.build import why_not_collapsed
from psymech.graph.explicit import explicit_model, parametrisation
from psymech.inference.storage import without_data
from psymech.level_design import LevelDesign
from psymech.posterior.caseload import caseload, unshared_caseload
from psymech.posterior.exceedance import caseload_table
from psymech.posterior.replicates import chunks, linear, rows_of
from psymech.priors import choose_priors
from psymech.spec.model import from_json
from tests.graph.explicit_designs import MODE, draw_point
from tests.models.golden.make_membership_study import membership_study
from tests.oracles import central_differences, dense_log_density, dense_weights, level_values, scale_log_pdf
from tests.posterior.drawn_trees import drawn_tree

GOLDEN = Path(__file__).parent / "golden"
DEVIANCE_TOLERANCE = 1e-6  # lme4's 15 digits; its optimum is flat
DENSITY_TOLERANCE = 1e-9  # relative to 1 + |log p|: rounding of sums of some hundred terms, with room
GRADIENT_TOLERANCE = 1e-5  # relative: central differences with steps of 1e-5
STEP = 1e-5
ROUNDING = 1e-12
AGREE_ML = 0.6  # posterior SDs from the ML estimate: the priors and the skewness of SDs from 12 therapists
TO_DATE = psm.growth("y", random={"patient": []}, membership="to date")
MULTIPLE = psm.outcomes("score", predictors="y", decompose="observed", random={"therapist": []}, membership="multiple")


def as_data(sessions: pd.DataFrame, **keywords: object) -> psm.SessionData:
    """Sessions with the scores in a table of patients."""
    scores = ["score_pre", "score_post"]
    patients = sessions.groupby("patient", as_index=False)[scores].first()
    return psm.SessionData.from_frame(
        sessions.drop(columns=scores),
        patients=patients,
        patient_ids="crossed",
        ranges={"y": None},
        **keywords,  # pyright: ignore[reportArgumentType]
    )


def therapists(design: Design) -> LevelDesign:
    level = design.level("therapist")
    assert level is not None
    return level


@pytest.fixture(scope="module")
def study() -> pd.DataFrame:
    return pd.read_csv(GOLDEN / "membership_study.csv")


@pytest.fixture(scope="module")
def data(study: pd.DataFrame) -> psm.SessionData:
    return as_data(study)


@pytest.fixture(scope="module")
def lme4() -> dict:
    return json.loads((GOLDEN / "membership_r.json").read_text())


def after_treatment(data: psm.SessionData) -> Design:
    """The design of the scores after treatment with no predictor but the score before, as lme4 fitted it."""
    spec = psm.outcomes("score", predictors="y", membership="multiple")
    response = spec.responses[0]
    kept = tuple(term for term in response.terms if term.label in ("Intercept", "score_pre"))
    values = json.loads(spec.to_json())
    values["responses"][0]["terms"] = [
        t for t in values["responses"][0]["terms"] if t["label"] in {k.label for k in kept}
    ]
    return make_design(from_json(json.dumps(values)), data)


def test_weights_and_likelihood_equal_lme4(data: psm.SessionData, lme4: dict) -> None:
    for name, design in (("to date", make_design(TO_DATE, data)), ("multiple", after_treatment(data))):
        fit = lme4[name]
        level = therapists(design)
        assert level.labels.tolist() == lme4["therapists"]
        W = dense_weights(level)
        patient = data.codes["patient"][design.row]
        order = np.lexsort((design.session, patient))  # the order of the script
        expected = np.array(fit["weights_of_first_rows"]).reshape(-1, level.n_units)
        np.testing.assert_allclose(W[order][: len(expected)], expected, atol=ROUNDING)
        assert ((W > 0).sum(axis=1) > 1).any()

        beta = np.array(fit["fixed"])
        if name == "to date":  # session 0 of lme4, the first session here
            beta[0] += beta[1] * (1 - design.X[design.session == 1, 1][0])
        V = fit["sigma"] ** 2 * np.eye(design.n_obs) + fit["sd"]["therapist"] ** 2 * W @ W.T
        if "patient" in fit["sd"]:
            V += fit["sd"]["patient"] ** 2 * (patient[:, None] == patient[None, :])
        found = dense_log_density(design.y, design.X @ beta, V)
        assert abs(found - fit["log_likelihood"]) < DEVIANCE_TOLERANCE


def small_case(
    spec: psm.ModelSpec, seed: int = 3, data: psm.SessionData | None = None
) -> tuple[Design, object, dict[str, np.ndarray], float]:
    """Model and point of a small study, and the log density there written with SciPy."""
    data = as_data(membership_study(therapists=4, patients=8, seed=seed)) if data is None else data
    design = make_design(spec, data)
    priors = choose_priors(spec, design)
    model = explicit_model(design, priors)
    point = draw_point(model, np.random.default_rng(seed))
    total, parts = 0.0, np.zeros(design.n_obs)
    for level in design.levels:
        centred = parametrisation(design, level) == "centred"
        _, u, theta, effects = level_values(point, level, priors, centred=centred)
        total += theta + effects
        W = dense_weights(level)
        parts += np.sum(level.Z * (W @ u), axis=1)
    scale = np.array([p.sd for p in priors.beta])
    standard = point["fixed"].copy()
    standard[0] -= parts.mean() / scale[0]  # the sampler moves the expected outcome of the average row
    total += float(stats.norm.logpdf(standard).sum())
    free = np.array([p.mean for p in priors.beta]) + scale * standard
    beta = free.copy()
    beta[0] -= free[1:] @ design.X[:, 1:].mean(axis=0)
    eta = design.X @ beta + parts
    sigma = float(np.exp(point["sigma_log__"]))
    total += scale_log_pdf(priors.sigma[0], sigma) + np.log(sigma)
    return design, model, point, float(total + stats.norm.logpdf(design.y, eta, sigma).sum())


@pytest.mark.parametrize("centred", [True, False])
def test_explicit_density_equals_scipy(centred: bool) -> None:
    slopes = psm.growth(
        "y",
        random={"patient": [], "therapist": ["time"]},
        membership="to date",
        centred={"patient": not centred, "therapist": centred},
    )
    design, model, point, expected = small_case(slopes)
    assert therapists(design).members is not None
    found = float(model.compile_logp(mode=MODE)(point))  # pyright: ignore[reportAttributeAccessIssue]
    assert abs(found - expected) < DENSITY_TOLERANCE * (1 + abs(expected))


def test_density_and_gradient_of_patients_scores() -> None:
    _, model, point, expected = small_case(MULTIPLE)
    logp = model.compile_logp(mode=MODE)  # pyright: ignore[reportAttributeAccessIssue]
    assert abs(float(logp(point)) - expected) < DENSITY_TOLERANCE * (1 + abs(expected))
    found = np.asarray(model.compile_dlogp(mode=MODE)(point))  # pyright: ignore[reportAttributeAccessIssue]
    slopes = central_differences(model, point, step=STEP, mode=MODE)
    np.testing.assert_allclose(found, slopes, atol=GRADIENT_TOLERANCE * (1 + np.abs(slopes).max()), rtol=0)


def test_therapists_of_one_arm_share_its_patients() -> None:
    frame = membership_study(therapists=4, patients=12, seed=3)
    waiting = frame["patient"].isin(["P01", "P04", "P07"])
    frame = frame.assign(arm=(~waiting).astype(float), therapist=frame["therapist"].mask(waiting, "untreated"))
    data = as_data(frame)
    spec = psm.growth("y", covariates="arm", random={"patient": []}, therapist_in="arm", membership="to date")
    design, model, point, expected = small_case(spec, data=data)
    found = float(model.compile_logp(mode=MODE)(point))  # pyright: ignore[reportAttributeAccessIssue]
    assert abs(found - expected) < DENSITY_TOLERANCE * (1 + abs(expected))

    tree = drawn_tree(spec, data)
    table = caseload(tree)
    assert "untreated" not in table.index
    assert table["caseload"].sum() == pytest.approx(9)
    W = dense_weights(therapists(design)) * therapists(design).Z
    sd = tree[names.POSTERIOR]["sd_therapist"].values[..., 0]
    for variance in (psm.variance_partition(tree)["variance"].sel(level="therapist"), therapists_part(tree)):
        np.testing.assert_allclose(variance, sd**2 * (W**2).sum(axis=1).mean(), rtol=1e-10)

    begun = frame.assign(arm=frame["arm"].where(frame["session"] > 2, 0.0))
    with pytest.raises(DesignError, match="needs one arm a patient"):
        make_design(spec, as_data(begun))


def therapists_part(tree: xr.DataTree) -> xr.DataArray:
    """All that r2 counts to the therapists."""
    variance = psm.r2(tree)["variance"]
    return variance.sel(source=[s for s in variance["source"].values if ".therapist" in s]).sum("source")


def test_shares_by_hand() -> None:
    frame = pd.DataFrame(
        {
            "patient": ["a", "a", "a", "b", "b"],
            "therapist": ["T2", "T1", "T2", "T1", "T1"],
            "session": [1, 2, 4, 1, 2],
            "y": [1.0, np.nan, 3.0, 4.0, 5.0],
        }
    )
    data = psm.SessionData.from_frame(frame.sample(frac=1, random_state=2), patient_ids="crossed", ranges={"y": None})
    row = np.lexsort((data.session, data.codes["patient"]))
    found = session_shares(data, "therapist", row, shared=np.ones(5, dtype=bool))
    W = np.zeros((5, 2))
    np.add.at(W, (np.arange(5)[:, None], found.code), found.weight)
    third = 1 / 3
    np.testing.assert_allclose(W, [[0, 1], [0.5, 0.5], [third, 2 * third], [1, 0], [1, 0]], atol=ROUNDING)
    assert found.code[2, 0] == 1  # the therapist with the largest share stands first
    own = session_shares(data, "therapist", row, shared=np.zeros(5, dtype=bool))
    assert own.code.shape == (5, 1)
    assert own.code[:, 0].tolist() == data.codes["therapist"][row].tolist()
    with pytest.raises(AssertionError, match="one in sum"):
        Members(np.zeros((1, 2), dtype=np.int64), np.array([[0.5, 0.4]]))


def test_patients_of_one_therapist_are_nested_exactly() -> None:
    stayed = membership_study(therapists=6, patients=40, seed=4)
    stayed["therapist"] = stayed.groupby("patient")["therapist"].transform("first")
    data = as_data(stayed)
    for spec in (TO_DATE, psm.outcomes("score", predictors="y", membership="multiple")):
        values = json.loads(spec.to_json())
        values["membership"] = "current"
        shared, nested = make_design(spec, data), make_design(from_json(json.dumps(values)), data)
        np.testing.assert_array_equal(shared.X, nested.X)
        np.testing.assert_array_equal(therapists(shared).code, therapists(nested).code)
        assert all(level.members is None for level in shared.levels)
        assert why_not_collapsed(shared, choose_priors(spec, shared)) == ""


def test_order_of_rows_and_names_of_therapists_change_nothing(study: pd.DataFrame, data: psm.SessionData) -> None:
    before = therapists(make_design(TO_DATE, data))
    shuffled = as_data(study.sample(frac=1, random_state=5))
    again = make_design(TO_DATE, shuffled)
    np.testing.assert_array_equal(dense_weights(therapists(again)), dense_weights(before))
    renamed = {name: f"Z{11 - int(name[1:]):02d}" for name in study["therapist"].unique()}
    other = make_design(TO_DATE, as_data(study.assign(therapist=study["therapist"].map(renamed))))
    key = [(data.codes["patient"][r], data.session[r]) for r in make_design(TO_DATE, data).row]
    turned = as_data(study.assign(therapist=study["therapist"].map(renamed)))
    other_key = [(turned.codes["patient"][r], turned.session[r]) for r in other.row]
    place = {each: i for i, each in enumerate(other_key)}
    W = dense_weights(therapists(other))[[place[each] for each in key]][:, ::-1]
    np.testing.assert_array_equal(W, dense_weights(before))


def test_columns_of_patients_scores_are_share_weighted(study: pd.DataFrame) -> None:
    table = pd.DataFrame({"therapist": sorted(study["therapist"].unique())})
    table["experience"] = np.arange(len(table), dtype=float)
    data = as_data(study, therapists=table)
    spec = psm.outcomes("score", predictors="y", covariates="experience", membership="multiple")
    design = make_design(spec, data)
    W = dense_weights(therapists(design))
    means = study.groupby("therapist")["y"].mean().to_numpy()
    own = study.groupby("patient")["y"].mean()[data.ids["patient"][data.codes["patient"][design.row]]].to_numpy()
    column = dict(zip(design.terms, design.X.T, strict=True))
    np.testing.assert_allclose(column["y.therapist"], W @ means, atol=1e-10)  # sums of values of about ten
    np.testing.assert_allclose(column["y.patient"], own - W @ means, atol=1e-10)
    np.testing.assert_allclose(column["experience"], W @ np.arange(12.0), atol=1e-10)


def test_what_is_refused(data: psm.SessionData) -> None:
    assert from_json(TO_DATE.to_json()) == TO_DATE
    older = json.loads(TO_DATE.to_json())
    del older["membership"]
    assert from_json(json.dumps(older)).membership == "current"
    with pytest.raises(SpecError, match="expected one of 'current', 'multiple', 'to date'"):
        psm.growth("y", membership="shared")  # pyright: ignore[reportArgumentType]
    with pytest.raises(SpecError, match="use membership='to date'"):
        psm.growth("y", membership="multiple")
    with pytest.raises(SpecError, match="left out with None"):
        psm.growth("y", membership="to date", random={"patient": [], "therapist": None})
    with pytest.raises(SpecError, match="together with residual_by='therapist'"):
        psm.growth("y", membership="to date", residual_by="therapist")
    with pytest.raises(DesignError, match="Give membership='multiple'"):
        make_design(psm.outcomes("score", predictors="y"), data)
    with pytest.raises(NotCollapsibleError, match="shared among therapists"):
        psm.build_model(TO_DATE, data, engine="collapsed")
    built = psm.build_model(TO_DATE, data)
    assert (built.engine, built.reason) == ("explicit", "patients are shared among therapists (membership=).")


@pytest.fixture(scope="module")
def drawn(data: psm.SessionData) -> xr.DataTree:
    return drawn_tree(TO_DATE, data)


def test_caseloads_are_fractions_of_patients(drawn: xr.DataTree, study: pd.DataFrame, data: psm.SessionData) -> None:
    table = caseload(drawn)
    assert table["caseload"].sum() == pytest.approx(study["patient"].nunique())
    shares = study.groupby("patient")["therapist"].value_counts(normalize=True).groupby("therapist").sum()
    np.testing.assert_allclose(table["caseload"], shares[table.index], atol=1e-10)
    seen = study.groupby("therapist")["patient"].nunique()
    assert table["n_patients"].tolist() == seen[table.index].tolist()
    assert (table["n_sessions"] >= study["therapist"].value_counts()[table.index]).all()  # those after a change too
    after = caseload(drawn_tree(MULTIPLE, data))
    np.testing.assert_allclose(after["caseload"], table["caseload"], atol=1e-10)
    assert after["n_sessions"].tolist() == after["n_patients"].tolist()  # one row a patient
    summary = psm.summarize_therapists(drawn)
    assert summary["raw_mean"].isna().all()
    assert summary["caseload"].sum() == pytest.approx(70)


def test_variance_counts_squared_weights(drawn: xr.DataTree, data: psm.SessionData) -> None:
    W = dense_weights(therapists(make_design(TO_DATE, data)))
    sd = drawn[names.POSTERIOR]["sd_therapist"].values[..., 0]
    found = psm.variance_partition(drawn)["variance"].sel(level="therapist").values
    np.testing.assert_allclose(found, sd**2 * (W**2).sum(axis=1).mean(), rtol=ROUNDING)

    slopes = psm.growth("y", random={"patient": [], "therapist": ["time"]}, membership="to date")
    tree = drawn_tree(slopes, data)
    omega = psm.variance_partition(tree, at={"time": [2.0]})["variance"].sel(level="therapist", time=2.0).values
    draws = tree[names.POSTERIOR].to_dataset()
    s, r = draws["sd_therapist"].values, draws["corr_therapist"].values[..., 0, 1]
    expected = s[..., 0] ** 2 + 4 * s[..., 0] * s[..., 1] * r + 4 * s[..., 1] ** 2
    np.testing.assert_allclose(omega, expected * (W**2).sum(axis=1).mean(), rtol=ROUNDING)


def test_caseloads_needed_are_of_patients_with_one_therapist(drawn: xr.DataTree, data: psm.SessionData) -> None:
    draws = drawn[names.POSTERIOR].to_dataset()
    v, u = (draws[f"sd_{level}"].values[..., 0] ** 2 for level in ("therapist", "patient"))
    needed = psm.minimum_caseload(drawn, reliability=0.7)
    np.testing.assert_allclose(needed, 7 / 3 * u / v, rtol=ROUNDING)
    table = caseload_table(drawn, reliabilities=(0.2, 0.5))
    W = dense_weights(therapists(make_design(TO_DATE, data)))
    row = make_design(TO_DATE, data).row
    last = pd.Series(np.arange(len(row)), index=data.session[row]).groupby(data.codes["patient"][row])
    has = (W[[int(each.iloc[int(np.argmax(each.index))]) for _, each in last]] ** 2).sum(axis=0)
    np.testing.assert_allclose(unshared_caseload(drawn), has, rtol=ROUNDING)
    assert table["share_reached"].tolist() == [(has >= middle).mean() for middle in table["median"]]


def test_shared_patients_tell_no_more_than_their_squared_shares(data: psm.SessionData) -> None:
    """Reliability at known variances, by dense algebra, stays below that of as many patients of one's own."""
    design = make_design(MULTIPLE, data)
    W, variance, rest = dense_weights(therapists(design)), 0.3, 1.0
    posterior = np.linalg.inv(np.eye(12) / variance + W.T @ W / rest)
    exact = 1 - np.diag(posterior) / variance
    squared, plain = (W**2).sum(axis=0), W.sum(axis=0)
    bound = variance * squared / (variance * squared + rest)
    assert (exact <= bound + ROUNDING).all()
    assert (exact < variance * plain / (variance * plain + rest) - 0.01).all()  # sums of shares would promise more
    np.testing.assert_allclose(unshared_caseload(drawn_tree(MULTIPLE, data)), squared, rtol=ROUNDING)


def test_replicates_weigh_effects(drawn: xr.DataTree, data: psm.SessionData) -> None:
    rows = rows_of(drawn, "y")
    chunk = next(chunks(drawn, rows, draws=7, rng=np.random.default_rng(1)))
    design = make_design(TO_DATE, data)
    W = dense_weights(therapists(design))
    draws = drawn[names.POSTERIOR].to_dataset()
    u = {
        level: draws[names.effect(level)].values[..., 0].reshape(80, -1)[chunk.draw]
        for level in ("patient", "therapist")
    }
    beta = draws[names.BETA].values.reshape(80, -1)[chunk.draw]
    eta = beta @ design.X.T + u["patient"][:, design.levels[0].code] + u["therapist"] @ W.T
    np.testing.assert_allclose(linear(chunk), eta[:, rows.index], atol=1e-10)


def expected_rows(tree: xr.DataTree, design: Design) -> np.ndarray:
    """Linear predictor of the fit's rows, (samples, rows), with weights as a matrix."""
    draws = tree[names.POSTERIOR].to_dataset()
    eta = draws[names.BETA].values.reshape(80, -1) @ design.X.T
    for level in design.levels:
        W = dense_weights(level)
        u = draws[names.effect(level.level)].values.reshape(80, level.n_units, -1)
        eta = eta + np.einsum("nk,nj,skj->sn", W, level.Z, u)
    return eta


@pytest.mark.parametrize("spec", [TO_DATE, MULTIPLE], ids=["to date", "multiple"])
def test_predictions_of_the_fits_own_rows(spec: psm.ModelSpec, study: pd.DataFrame, data: psm.SessionData) -> None:
    tree, design = drawn_tree(spec, data), make_design(spec, data)
    found = psm.predict(tree, study, seed=1).values.reshape(80, -1)
    assert found.shape[1] == len(study)
    rows = data.source_row[design.row]  # of patients' scores, the row of the last session
    np.testing.assert_allclose(found[:, rows], expected_rows(tree, design), atol=1e-10)


def test_scores_are_predicted_from_the_sessions_so_far(study: pd.DataFrame, data: psm.SessionData) -> None:
    tree = drawn_tree(MULTIPLE, data)
    cut = study[study["session"] <= 3]
    whole = psm.predict(tree, study, target="average_therapist").sel(obs=cut.index).values
    np.testing.assert_allclose(psm.predict(tree, cut, target="average_therapist").values, whole, atol=1e-10)


def test_new_patients_and_therapists_have_weights(drawn: xr.DataTree) -> None:
    rows = pd.DataFrame(
        {"patient": "X", "therapist": ["T01", "T99", "T99", "T99"], "session": [1, 2, 3, 4], "y": [np.nan] * 4}
    )
    draws = drawn[names.POSTERIOR].to_dataset()
    own = draws["u_therapist"].sel(therapist="T01", therapist_term="Intercept").values
    slope = draws[names.BETA].sel(term="time").values
    with pytest.warns(psm.DesignWarning, match="T99"):
        found = psm.predict(drawn, rows, seed=1)
    by_row = [(found.values[..., k] - found.values[..., 0]) - k * slope for k in range(4)]
    other = (by_row[1] + own / 2) * 2  # of T99
    for k, share in ((2, 2 / 3), (3, 3 / 4)):
        np.testing.assert_allclose(by_row[k], share * (other - own), atol=1e-10)


def test_a_new_therapist_has_weight_one(drawn: xr.DataTree, study: pd.DataFrame) -> None:
    late = study[study["session"] > 3]  # weights are not asked for
    apart = psm.predict(drawn, late, target="new_therapist", seed=2) - psm.predict(
        drawn, late, target="average_therapist"
    )
    draws = drawn[names.POSTERIOR].to_dataset()
    variance = draws["sd_therapist"].values[..., 0] ** 2 + draws["sd_patient"].values[..., 0] ** 2
    ratio = (apart.values**2 / variance[..., None]).mean()
    assert abs(ratio - 1) < 5 * np.sqrt(2 / (80 * 12))  # five standard errors, were the 12 therapists all there is


def test_a_new_therapist_of_a_score_has_weight_one(data: psm.SessionData) -> None:
    tree = drawn_tree(MULTIPLE, data)
    rows = pd.DataFrame({"patient": "X", "therapist": ["T01", "T02", "T01"], "session": [1, 2, 3], "y": 9.0})
    rows["score_pre"] = 15.0
    found = [psm.predict(tree, rows, target=target, seed=2).values for target in ("new_therapist", "average_therapist")]
    apart = found[0] - found[1]
    np.testing.assert_allclose(apart[..., 2], apart[..., 0], atol=1e-10)  # with shares a third would be of the other's
    assert np.abs(apart[..., 1] - apart[..., 0]).max() > 0.1


def test_sessions_that_weights_need_are_asked_for(drawn: xr.DataTree, study: pd.DataFrame) -> None:
    late = study[study["session"] > 3]
    with pytest.raises(DataError, match=r"expected all sessions of a patient .* P00"):
        psm.predict(drawn, late)
    stored = without_data(drawn)
    with pytest.raises(DataError, match="saved without them"):
        psm.predict(stored, study)
    assert psm.predict(stored, late, target="average_therapist").sizes["obs"] == len(late)


def test_true_change_weights_the_therapists_of_the_last_session(drawn: xr.DataTree) -> None:
    """Only the weights differ between a patient's first and last row, once time's coefficient is taken out."""
    change = psm.true_change(drawn, threshold=1.0)
    assert change.sizes["patient"] == 70
    fixed, posterior = drawn["constant_data"].to_dataset(), drawn["posterior"].to_dataset()
    effects = posterior["u_therapist"].sel(therapist_term="Intercept").transpose("chain", "draw", "therapist").values
    members = fixed["therapist_members_of_obs"].values
    weights = fixed["therapist_weights_of_obs"].values
    patients, time = fixed["patient_of_obs"].values, fixed["time_of_obs"].values
    slope = posterior["beta"].sel(term="time").values
    for place in range(70):
        rows = np.flatnonzero(patients == place)
        first, last = rows[time[rows].argmin()], rows[time[rows].argmax()]
        by_therapists = [(effects[..., members[row]] * weights[row]).sum(axis=-1) for row in (first, last)]
        expected = slope * (time[last] - time[first]) + by_therapists[1] - by_therapists[0]
        np.testing.assert_allclose(change["change"].values[..., place], expected, atol=1e-10)


@pytest.mark.slow
@pytest.mark.sampling
def test_fits_agree_with_lme4(data: psm.SessionData, lme4: dict, tmp_path: Path) -> None:
    fit = lme4["to date"]
    spec = psm.growth("y", random={"patient": []}, membership="to date", centred={"therapist": True})
    tree = psm.fit(spec, data, seed=4, draws=2000, progressbar=False)
    draws = tree[names.POSTERIOR].to_dataset()
    for found, expected in (
        (draws[names.SIGMA].values, fit["sigma"]),
        (draws["sd_patient"].values[..., 0], fit["sd"]["patient"]),
        (draws["sd_therapist"].values[..., 0], fit["sd"]["therapist"]),
        (draws["beta"].sel(term="time").values, fit["fixed"][1]),
    ):
        assert abs(found.mean() - expected) < AGREE_ML * found.std()
    effects = psm.therapist_effects(tree)
    apart = (effects.mean(names.SAMPLE_DIMS).values - fit["effects"]) / effects.std(names.SAMPLE_DIMS).values
    assert np.abs(apart).max() < AGREE_ML
    back = psm.load(psm.save(tree, tmp_path / "fit.nc"))
    assert psm.summarize_therapists(back).equals(psm.summarize_therapists(tree))
    assert psm.check_model(tree, draws=100).verdict in ("ok", "not ok")
    assert psm.report(tree, tmp_path / "report.html").exists()
