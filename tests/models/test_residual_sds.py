"""Residual SDs by group and by therapist, and partially nested designs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from scipy.special import expit

import psymech as psm
from psymech import names
from psymech.design import make_design
from psymech.errors import DataError, DesignError, NotCollapsibleError, SpecError
from psymech.gaussian.loglik import log_likelihood
from psymech.graph.build import why_not_collapsed
from psymech.graph.crossing import make_crossing
from psymech.graph.explicit import explicit_model
from psymech.inference.checks import check_sampling
from psymech.plots.design import _counts
from psymech.posterior.caseload import caseload
from psymech.posterior.influence import therapist_influence
from psymech.posterior.loo import unit_log_density
from psymech.posterior.model_checks import check_model, rests_on
from psymech.posterior.newdata import new_rows
from psymech.posterior.predict import _add_random, _therapist_sd
from psymech.posterior.residuals import mean_variance
from psymech.priors import choose_priors
from psymech.reporting.privacy import mask
from psymech.reporting.words import counts
from psymech.spec.model import from_json
from psymech.spec.priors import SymmetricBeta
from tests.graph.collapsed_cases import make_case, read_point
from tests.graph.explicit_designs import MODE, draw_point
from tests.models.golden.make_nested_study import nested_study
from tests.oracles import dense_log_density, level_values, scale_log_pdf
from tests.posterior.drawn_trees import drawn_tree

GOLDEN = Path(__file__).parent / "golden"
DEVIANCE_TOLERANCE = 1e-6  # nlme's 15 digits; its optimum is flat
DENSITY_TOLERANCE = 1e-9  # relative to 1 + |log p|: rounding of sums of some hundred terms, with room
GRADIENT_TOLERANCE = 1e-5  # relative: central differences with steps of 1e-5
STEP = 1e-5
AGREE_ML = 0.6  # posterior SDs from the ML estimate: the priors and the skewness of SDs from 8 therapists
ROUNDING = 1e-12


def as_data(frame: pd.DataFrame) -> psm.SessionData:
    return psm.SessionData.from_frame(frame, therapist="therapist", ranges={"y": None, "arm": None})


def partially_nested(**keywords: object) -> psm.ModelSpec:
    return psm.growth(
        "y",
        covariates=["arm"],
        random={"patient": []},
        therapist_in="arm",
        residual_by="arm",
        **keywords,  # pyright: ignore[reportArgumentType]
    )


@pytest.fixture(scope="module")
def data() -> psm.SessionData:
    return as_data(pd.read_csv(GOLDEN / "nested_study.csv"))


@pytest.fixture(scope="module")
def tree(data: psm.SessionData) -> xr.DataTree:
    return psm.fit(partially_nested(), data, seed=3, progressbar=False)


def test_likelihood_at_the_estimates_of_nlme(data: psm.SessionData) -> None:
    fit = json.loads((GOLDEN / "nested_r.json").read_text())
    spec = partially_nested()
    design = make_design(spec, data)
    assert design.terms == tuple(fit["fixed_labels"])
    assert design.residual_by is not None
    assert design.residual_by.labels == tuple(fit["sigma_arms"])
    assert [level.terms for level in design.levels] == [("Intercept",), ("arm",)]
    crossing = make_crossing(design, choose_priors(spec, design))
    value = crossing.residual.evaluate(fit["sigma"])
    roots = [np.array([[fit["sd_patient"]]]), np.array([[fit["sd_therapist"]]])]
    beta = np.array(fit["fixed"])
    beta[0] += fit["fixed"][1] * (1 - design.X[design.session == 1, 1][0])  # nlme counts sessions from 0
    found = log_likelihood(crossing.cross, value.coefs, roots, value.log_det, beta=beta)
    assert abs(-2 * found + 2 * fit["log_likelihood"]) < DEVIANCE_TOLERANCE


def test_compiled_density_and_gradient_equal_the_dense_normal(data: psm.SessionData) -> None:
    small = as_data(nested_study(therapists=3, patients=2, sessions=4, seed=2))
    case = make_case(partially_nested(), small)
    design = case.design
    x = case.draw_point(np.random.default_rng(4))
    values = read_point(case, x)
    assert values.sigma.shape == (2,)
    V = np.diag(values.sigma[design.sd_code] ** 2)
    for level, L in zip(design.levels, values.factors, strict=True):
        V += (level.code[:, None] == level.code[None, :]) * (level.Z @ L @ L.T @ level.Z.T)
    assert case.crossing.beta_prior is not None
    mean, precision = case.crossing.beta_prior
    V += design.X @ np.linalg.solve(precision, design.X.T)
    expected = values.prior + dense_log_density(design.y, design.X @ mean, V)
    found, gradient = case.target.value_and_grad(x)
    assert abs(found - expected) < DENSITY_TOLERANCE * (1 + abs(expected))
    for j in range(x.size):
        ends = [case.target.value_and_grad(x + sign * STEP * (np.arange(x.size) == j))[0] for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * STEP)
        assert abs(gradient[j] - slope) < GRADIENT_TOLERANCE * (1 + abs(slope))


def explicit_rows(
    spec: psm.ModelSpec, data: psm.SessionData, rng: np.random.Generator, *, centred: bool = False
) -> tuple[float, float]:
    """Log density of the explicit graph at a drawn point, and the same written with SciPy."""
    design = make_design(spec, data)
    priors = choose_priors(spec, design)
    model = explicit_model(design, priors)
    point = draw_point(model, rng)
    found = float(model.compile_logp(mode=MODE)(point))
    total = float(stats.norm.logpdf(point["fixed"]).sum())  # standardised
    free = np.array([p.mean + p.sd * b for p, b in zip(priors.beta, point["fixed"], strict=True)])
    beta = free.copy()
    beta[0] -= free[1:] @ design.X[:, 1:].mean(axis=0)
    eta = design.X @ beta
    first = np.zeros(0)
    for level in design.levels:
        _, u, theta, effects = level_values(point, level, priors, centred=centred)
        total += theta + effects
        eta = eta + np.sum(level.Z * u[level.code], axis=1)
        first = u[:, 0] / np.exp(point["scale_therapist_log__"][0]) if centred else point[f"z_{level.level}"][:, 0]
    if priors.sd_log_sigma is None:
        sigma, z = np.atleast_1d(np.exp(point["sigma_log__"])), np.zeros(0)
    else:  # the average of the therapists' logarithms stands for sigma
        z = point["z_log_sigma"]
        if priors.corr_log_sigma is not None:
            half = expit(point["corr_log_sigma_half_logodds__"])
            a, rho = priors.corr_log_sigma.a, 2 * half - 1
            total += float(stats.beta.logpdf(half, a, a) + np.log(half * (1 - half)))
            z = rho * first + np.sqrt(1 - rho**2) * z  # the therapists' level stands last
        sigma = np.atleast_1d(np.exp(point["mean_log_sigma"] - point["scale_log_sigma"] * z.mean()))
    total += sum(scale_log_pdf(p, s) + np.log(s) for p, s in zip(priors.sigma, sigma, strict=True))
    if priors.sd_log_sigma is None:
        sd = sigma[design.sd_code]
    else:
        therapist = design.level("therapist")
        assert therapist is not None
        spread = float(np.squeeze(point["scale_log_sigma"]))
        total += scale_log_pdf(priors.sd_log_sigma, abs(spread)) - np.log(2)
        total += float(stats.norm.logpdf(point["z_log_sigma"]).sum())
        sd = (sigma * np.exp(spread * z))[therapist.code]
    return found, float(total + stats.norm.logpdf(design.y, eta, sd).sum())


def test_explicit_graph_by_group_and_by_therapist() -> None:
    small = as_data(nested_study(therapists=3, patients=2, sessions=4, seed=2))
    uncentred = {"patient": False, "therapist": False}
    by_therapist = psm.growth("y", random={"patient": []}, residual_by="therapist", centred=uncentred)
    for spec in (partially_nested(centred=uncentred), by_therapist):
        found, expected = explicit_rows(spec, small, np.random.default_rng(5))
        assert abs(found - expected) < DENSITY_TOLERANCE * (1 + abs(expected))


@pytest.mark.parametrize("centred", [True, False])
def test_log_sds_that_correlate_with_effects(centred: bool) -> None:
    small = as_data(nested_study(therapists=3, patients=2, sessions=4, seed=2))
    spec = psm.growth(
        "y",
        random={"patient": [], "therapist": []},
        residual_by="therapist",
        centred={"patient": centred, "therapist": centred},
        priors={"corr_log_sigma": SymmetricBeta(2.0)},
    )
    found, expected = explicit_rows(spec, small, np.random.default_rng(5), centred=centred)
    assert abs(found - expected) < DENSITY_TOLERANCE * (1 + abs(expected))


@pytest.mark.sampling
def test_fit_agrees_with_nlme_and_names_the_groups(tree: xr.DataTree) -> None:
    fit = json.loads((GOLDEN / "nested_r.json").read_text())
    draws = tree[names.POSTERIOR].to_dataset()
    assert draws[names.SIGMA].dims == ("chain", "draw", names.RESIDUAL_GROUP)
    assert draws[names.RESIDUAL_GROUP].values.tolist() == ["0", "1"]
    assert tree.attrs[names.ATTR_ENGINE] == "collapsed"
    for found, expected in (
        (draws[names.SIGMA].values[..., 0], fit["sigma"][0]),
        (draws[names.SIGMA].values[..., 1], fit["sigma"][1]),
        (draws["sd_patient"].values[..., 0], fit["sd_patient"]),
        (draws["sd_therapist"].values[..., 0], fit["sd_therapist"]),
        (draws["beta"].sel(term="arm").values, fit["fixed"][2]),
    ):
        assert abs(found.mean() - expected) < AGREE_ML * found.std()


@pytest.mark.sampling
def test_estimates_know_groups_and_placeholders(tree: xr.DataTree, data: psm.SessionData) -> None:
    variance = tree[names.POSTERIOR][names.SIGMA].values ** 2
    share_of_arm = data.values("arm").mean()
    expected = variance[..., 0] * (1 - share_of_arm) + variance[..., 1] * share_of_arm
    np.testing.assert_allclose(mean_variance(tree, "y"), expected, rtol=ROUNDING)

    at = psm.variance_partition(tree, at={"arm": [0, 1]})["variance"].transpose("chain", "draw", "level", "arm")
    np.testing.assert_allclose(at.sel(level="residual").values, variance, rtol=ROUNDING)
    assert not at.sel(level="therapist", arm=0).values.any()
    with pytest.raises(SpecError, match="are known for 0, 1 only"):
        psm.variance_partition(tree, at={"arm": [0.5]})

    table = psm.summarize_therapists(tree, term="arm")
    assert "untreated" not in table.index
    assert len(table) == 8
    assert psm.rank_therapists(tree, term="arm").sizes["therapist"] == 8
    with pytest.raises(SpecError, match="residual_by"):
        psm.reliability(tree, term="arm", method="formula")
    assert np.isfinite(float(psm.loo(tree).elpd))


@pytest.mark.sampling
def test_predictions_have_the_spread_of_their_group(tree: xr.DataTree, data: psm.SessionData) -> None:
    rows = pd.read_csv(GOLDEN / "nested_study.csv").groupby("arm").head(1)
    draws = psm.predict(tree, rows, kind="draw", target="average_therapist", seed=1)
    mean = psm.predict(tree, rows, kind="mean", target="average_therapist", seed=1)
    error = (draws - mean).values.reshape(-1, 2)
    sigma = tree[names.POSTERIOR][names.SIGMA].values.reshape(-1, 2)
    root = np.sqrt((sigma**2).mean(axis=0))
    assert np.all(np.abs(error.std(axis=0) / root - 1) < 5 / np.sqrt(2 * len(error)))  # five standard errors of an SD
    with pytest.raises(DataError, match="expected the groups of the fit"):
        psm.predict(tree, rows.assign(arm=2), kind="draw", seed=1)


def test_specifications_are_checked(data: psm.SessionData) -> None:
    spec = partially_nested()
    assert from_json(spec.to_json()) == spec
    older = json.loads(spec.to_json())
    del older["residual_by"], older["therapist_in"]
    assert from_json(json.dumps(older)).residual_by is None

    with pytest.raises(SpecError, match="residual='iid'"):
        psm.growth("y", residual_by="arm", residual="ar1")
    with pytest.raises(SpecError, match="has no residual SD"):
        psm.growth("y", residual_by="arm", family="bernoulli")
    with pytest.raises(SpecError, match="the outcome itself"):
        psm.growth("y", residual_by="y")
    with pytest.raises(SpecError, match="must be a fixed effect as well"):
        psm.growth("y", therapist_in="arm")
    with pytest.raises(SpecError, match="left out with None"):
        psm.growth("y", covariates="arm", therapist_in="arm", random={"patient": [], "therapist": None})
    with pytest.raises(SpecError, match="its product with 'arm'"):
        psm.growth("y", covariates="arm", therapist_in="arm", random={"therapist": ["time"]})
    elsewhere = psm.growth("y", priors={"corr_log_sigma": SymmetricBeta(2.0)})
    with pytest.raises(SpecError, match="'corr_log_sigma' belongs to a level"):
        choose_priors(elsewhere, make_design(elsewhere, data))
    slopes = psm.growth("y", moderators="arm", therapist_in="arm", random={"therapist": ["time"]})
    block = slopes.block("therapist")
    assert block is not None
    assert block.terms == ("arm", "time:arm")
    of_process = psm.process(
        "y",
        techniques="x",
        covariates="arm",
        interactions=["x:arm"],
        therapist_in="arm",
        slopes={"therapist": ["x"]},
    ).block("therapist")
    assert of_process is not None
    assert of_process.terms == ("arm", "x.within:arm")


def test_columns_are_checked(data: psm.SessionData) -> None:
    with pytest.raises(DesignError, match="2 to 20 different values"):
        make_design(psm.growth("y", residual_by="one"), as_data(data.sessions.assign(one=1.0)))
    frame = pd.read_csv(GOLDEN / "nested_study.csv")
    holes = frame.assign(period=np.where(frame["session"] > 2, 1.0, np.nan))
    with pytest.raises(DataError, match="needs a value in every row"):
        make_design(psm.growth("y", residual_by="period"), as_data(holes))
    halves = frame.assign(arm=frame["arm"] / 2)
    with pytest.raises(DesignError, match="Code the column as 0 and 1"):
        make_design(psm.growth("y", covariates="arm", therapist_in="arm"), as_data(halves))
    alone = psm.SessionData.from_frame(frame, therapist=None, ranges={"y": None, "arm": None})
    with pytest.raises(DesignError, match="needs therapists"):
        make_design(psm.growth("y", residual_by="therapist"), alone)


def test_by_therapist_takes_the_explicit_engine(data: psm.SessionData) -> None:
    spec = psm.growth("y", residual_by="therapist")
    design = make_design(spec, data)
    assert "residual_by='therapist'" in why_not_collapsed(design, choose_priors(spec, design))
    with pytest.raises(NotCollapsibleError, match="each therapist has a residual SD"):
        psm.build_model(spec, data, engine="collapsed")


@pytest.mark.slow
@pytest.mark.sampling
def test_location_scale_recovers_the_therapists() -> None:
    rng = np.random.default_rng(6)
    therapist = np.repeat(np.arange(12), 40)
    true = np.exp(0.4 * rng.normal(size=12)) * 2
    frame = pd.DataFrame(
        {
            "therapist": [f"T{k:02d}" for k in therapist],
            "patient": [f"P{i // 8:03d}" for i in range(480)],
            "session": np.tile(np.arange(1, 9), 60),
        }
    )
    patient = rng.normal(size=60)[np.arange(480) // 8]
    frame["y"] = 10 + rng.normal(size=12)[therapist] + patient + true[therapist] * rng.normal(size=480)
    data = psm.SessionData.from_frame(frame, therapist="therapist", ranges={"y": None})
    spec = psm.growth("y", random={"patient": []}, residual_by="therapist", centred={"therapist": True})
    tree = psm.fit(spec, data, seed=2, draws=2000, progressbar=False)
    assert tree.attrs[names.ATTR_ENGINE] == "explicit"
    draws = tree[names.POSTERIOR].to_dataset()
    log_sd = draws[names.LOG_SIGMA].values.reshape(-1, 12)
    assert np.corrcoef(log_sd.mean(axis=0), np.log(true))[0, 1] > 0.9  # 40 sessions know a log SD to 0.11
    table = psm.consistency(tree, ci_prob=0.95)
    inside = (table["eti95_lb"] < true) & (true < table["eti95_ub"])
    assert inside.sum() >= 9  # fewer of 12 has probability 2e-4 where each holds with 0.95
    assert table["n_sessions"].tolist() == [40] * 12
    weights = np.full(12, 1 / 12)
    np.testing.assert_allclose(mean_variance(tree, "y").ravel(), np.exp(2 * log_sd) @ weights, rtol=ROUNDING)
    assert psm.predict(tree, frame.head(5), kind="draw", seed=1).shape == (4, 2000, 5)
    with pytest.raises(SpecError, match="each therapist has a residual SD"):
        psm.loo(tree)


def test_new_therapists_have_sds_that_go_with_their_effects() -> None:
    """Draws of new therapists: their residual SDs correlate with their effects as the fit says."""
    study = nested_study(therapists=4, patients=2, sessions=4, seed=2)
    spec = psm.growth(
        "y", random={"patient": []}, residual_by="therapist", priors={"corr_log_sigma": SymmetricBeta(2.0)}
    )
    made = drawn_tree(spec, as_data(study), chains=1, draws=2)
    for name, pair in ((names.CORR_LOG_SIGMA, [0.8, -0.6]), (names.SD_LOG_SIGMA, [0.5, 0.5])):
        made[names.POSTERIOR][name] = xr.DataArray([pair], dims=("chain", "draw"))
    rows = pd.DataFrame({"patient": [f"N{i}" for i in range(4000)], "session": 1, "arm": 1.0})
    rows["therapist"] = [f"K{i}" for i in range(4000)]
    rng = np.random.default_rng(3)
    eta = np.zeros((2, 4000))
    new = new_rows(made, rows, response="y")
    drawn = _add_random(eta, made, "therapist", new.Z["therapist"], new.units["therapist"], drawn=True, rng=rng)
    log_sd = np.log(_therapist_sd(made, new.units["therapist"], drawn, rng))
    for place, corr in enumerate((0.8, -0.6)):
        found = np.corrcoef(eta[place], log_sd[place])[0, 1]
        assert abs(found - corr) < 4.5 * (1 - corr**2) / np.sqrt(4000)  # standard errors of a correlation
        assert abs(log_sd[place].std() / 0.5 - 1) < 4.5 / np.sqrt(8000)


@pytest.mark.slow
@pytest.mark.sampling
def test_correlation_of_sds_and_effects_is_recovered() -> None:
    rng = np.random.default_rng(9)
    n, corr = 50, -0.7
    effect = rng.normal(size=n)
    log_sd = np.log(2) + 0.4 * (corr * effect + np.sqrt(1 - corr**2) * rng.normal(size=n))
    therapist = np.repeat(np.arange(n), 24)
    frame = pd.DataFrame(
        {
            "therapist": [f"T{k:02d}" for k in therapist],
            "patient": [f"P{i // 8:03d}" for i in range(24 * n)],
            "session": np.tile(np.arange(1, 9), 3 * n),
        }
    )
    patient = 0.5 * rng.normal(size=3 * n)[np.arange(24 * n) // 8]
    frame["y"] = 10 + 1.5 * effect[therapist] + patient + np.exp(log_sd)[therapist] * rng.normal(size=24 * n)
    data = psm.SessionData.from_frame(frame, therapist="therapist", ranges={"y": None})
    spec = psm.growth(
        "y", random={"patient": []}, residual_by="therapist", priors={"corr_log_sigma": SymmetricBeta(2.0)}
    )
    tree = psm.fit(spec, data, seed=2, draws=3000, progressbar=False)
    found = tree[names.POSTERIOR][names.CORR_LOG_SIGMA].values
    low, high = np.quantile(found, [0.005, 0.995])
    assert low < np.corrcoef(effect, log_sd)[0, 1] < high
    assert high < -0.1
    attrs = psm.consistency(tree).attrs
    assert attrs[names.CORR_LOG_SIGMA] == pytest.approx(found.mean())
    assert psm.predict(tree, frame.head(5), kind="draw", target="new_therapist", seed=1).shape == (4, 3000, 5)


def test_placeholder_of_untreated_patients_is_no_therapist(data: psm.SessionData) -> None:
    made = drawn_tree(partially_nested(), data)
    assert "untreated" in made[names.POSTERIOR]["therapist"].values
    table = caseload(made)
    assert table.index.tolist() == [f"T{k}" for k in range(8)]
    assert table["n_patients"].tolist() == [4] * 8
    arm = data.values("arm")
    assert table["n_sessions"].sum() == arm.sum()
    assert counts(made)["therapist"] == 8
    assert counts(made)["patient"] == data.n_patients
    assert "rests on 8 therapists with a median of 4 patients each; the largest therapist has 12%" in rests_on(made)[0]
    shown = mask(made, anonymize=True, min_patients=5, seed=1)
    assert len(shown.hidden["therapist"]) == 8  # four patients each; the many untreated ones are no ninth therapist
    assert not set(shown.hidden["therapist"]) & {shown.codes["therapist"]["untreated"]}
    assert any(message.text.startswith("The answer rests on 8 therapists") for message in check_sampling(made).messages)
    normal = next(c for c in check_model(made, draws=40).checks if c.name == "normality of arm")
    assert normal.status != "not assessed"  # eight therapists are enough; the same without the placeholder's draws
    with pytest.raises(SpecError, match=r"at=\{'arm': \[1\]\}"):
        psm.minimum_caseload(made)
    pairs = _counts(made).pairs
    assert pairs is not None
    assert len(pairs) == 32


def test_influence_and_leaving_out_know_no_placeholder(tree: xr.DataTree) -> None:
    left = unit_log_density(tree, unit="therapist")
    assert left["therapist"].values.tolist() == [f"T{k}" for k in range(8)]
    assert "untreated" not in therapist_influence(tree)[0].text


def test_untreated_patients_under_a_real_therapist_do_not_count() -> None:
    study = nested_study(therapists=8, patients=4, sessions=6, seed=17)
    study["therapist"] = study["patient"].str[2].map(lambda k: f"T{k}")  # those of arm 0 wait for the same therapists
    table = caseload(drawn_tree(partially_nested(), as_data(study)))
    assert table["n_patients"].tolist() == [4] * 8
