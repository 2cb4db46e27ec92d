"""Several outcomes in one explicit graph: correlated residuals, pooled coefficients, patients' slopes as predictors."""

import json

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from numpy.typing import NDArray
from scipy import stats

import psymech as psm
from psymech.design import Design, make_design
from psymech.errors import DesignError, SpecError
from psymech.graph.build import build_model
from psymech.graph.joined import joined_model
from psymech.inference.prior_table import prior_table
from psymech.joined import MEAN_SD, SPREAD_SD
from psymech.priors import choose_priors
from psymech.spec.model import ModelSpec, from_json
from tests.oracles import central_differences, scale_log_pdf
from tests.posterior.mediation_trees import chosen_tree

Floats = NDArray[np.float64]
Point = dict[str, NDArray]
EXACT = 1e-9  # relative; sums of a few hundred terms in another order
MODE = "FAST_COMPILE"
OUTCOMES = ["mood", "social", "coping"]
WORSE = {"mood": False}


@pytest.fixture(scope="module")
def data() -> psm.SessionData:
    """Four therapists, three patients each, scores before and after, three of them missing."""
    rng = np.random.default_rng(4)
    rows = [(f"T{k}", f"P{k}{i}", t) for k in range(4) for i in range(3) for t in range(1, int(rng.integers(4, 6)))]
    frame = pd.DataFrame(rows, columns=["therapist", "patient", "session"])
    frame = frame.assign(**{name: 2 + rng.normal(size=len(frame)) for name in ("technique", "alliance")})
    table = pd.DataFrame({"patient": frame["patient"].unique()})
    for name in OUTCOMES:
        table[f"{name}_pre"], table[f"{name}_post"] = rng.normal(size=(2, len(table)))
    table.loc[[1, 4], "mood_post"] = np.nan
    table.loc[4, "coping_post"] = np.nan
    return psm.SessionData.from_frame(frame, patients=table)


PROCESS = psm.process("alliance", techniques=["technique"], slopes={"patient": ["technique"]}, time=None)
SPECS = {
    "correlated": psm.outcomes(OUTCOMES, techniques=["technique"]),
    "pooled": psm.outcomes(
        OUTCOMES, techniques=["technique"], common_factors=["alliance"], pool=True, higher_is_better=WORSE
    ),
    "slopes": psm.outcomes(OUTCOMES, process=PROCESS),
    "one outcome": psm.outcomes(["mood"], process=PROCESS, slopes=["technique", "Intercept"]),
}


def values_at(model: pm.Model, point: Point, *wanted: str) -> dict[str, Floats]:
    graphs = model.replace_rvs_by_values([model[name] for name in wanted])
    function = model.compile_fn(graphs, inputs=model.value_vars, mode=MODE, on_unused_input="ignore")
    return dict(zip(wanted, map(np.asarray, function(point)), strict=True))


def linear_predictor(design: Design, spec: ModelSpec, found: dict[str, Floats]) -> Floats:
    """By the equations, row by row."""
    eta = np.zeros(design.n_obs)
    for i in range(design.n_obs):
        eta[i] = sum(x * b for x, b in zip(design.X[i], found["beta"], strict=True))
        for level in design.levels:
            u = found[f"u_{level.level}"][level.code[i]]
            eta[i] += sum(z * value for z, value in zip(level.Z[i], u, strict=True))
        patients = design.level("patient")
        for k, (response, term) in enumerate(spec.loadings):
            if design.responses[design.response[i]] == response:
                assert patients is not None
                eta[i] += found["loading"][k] * found["u_patient"][patients.code[i], patients.terms.index(term)]
    return eta


def row_density(design: Design, spec: ModelSpec, found: dict[str, Floats], absent: Floats) -> float:
    """Rows that correlate as one normal a patient, an unobserved score at the value that its z stands for."""
    eta = linear_predictor(design, spec, found)
    joint = [j for j, r in enumerate(spec.responses) if r.level == "patient"]
    alone = ~np.isin(design.response, joint) if len(joint) > 1 else np.ones(design.n_obs, dtype=bool)
    sd = found["sigma"]
    total = stats.norm.logpdf(design.y[alone], eta[alone], sd[design.response[alone]]).sum()
    if alone.all():
        return float(total)
    S = (found["corr_residual"] * np.outer(sd, sd))[np.ix_(joint, joint)]
    L = np.linalg.cholesky(S)
    unused = list(absent)
    for row in np.unique(design.row[~alone]):
        error, jacobian, z = np.zeros(len(joint)), 0.0, np.zeros(len(joint))
        for place, r in enumerate(joint):
            here = np.flatnonzero((design.row == row) & (design.response == r))
            if here.size:
                error[place] = design.y[here[0]] - eta[here[0]]
                z[place] = (error[place] - L[place, :place] @ z[:place]) / L[place, place]
            else:
                z[place] = unused.pop(0)
                error[place] = L[place, : place + 1] @ z[: place + 1]
                jacobian += np.log(L[place, place])
        total += stats.multivariate_normal(np.zeros(len(joint)), S).logpdf(error) + jacobian  # pyright: ignore
    assert not unused
    return float(total)


@pytest.mark.parametrize("name", SPECS)
def test_rows_have_the_density_of_their_equations(name: str, data: psm.SessionData) -> None:
    spec = SPECS[name]
    design = make_design(spec, data)
    model = joined_model(design, choose_priors(spec, design))
    rng = np.random.default_rng(5)
    point = {key: value + 0.4 * rng.normal(size=np.shape(value)) for key, value in model.initial_point().items()}
    wanted = ["beta", "sigma", *(f"u_{level.level}" for level in design.levels)]
    wanted += [v for v in ("corr_residual", "loading", "pooled_mean", "pooled_sd") if v in model.named_vars]
    found = values_at(model, point, *wanted)
    absent = point.get("z_absent", np.zeros(0))
    value = float(model.compile_logp(vars=[model["y"]], mode=MODE)(point))
    expected = row_density(design, spec, found, absent)
    if "z_absent" in point:  # of it the prior is a term of its own
        expected -= stats.norm.logpdf(absent).sum()
    assert value == pytest.approx(expected, rel=EXACT)
    if name == "pooled":
        assert_pooled(design, model, point, found)


def assert_pooled(design: Design, model: pm.Model, point: Point, found: dict[str, Floats]) -> None:
    """Standardised by hand, signs turned, the coefficients are mean + SD z."""
    y, X = design.y, design.X
    for label, mean in zip(("technique.patient", "technique.therapist"), found["pooled_mean"], strict=False):
        for outcome in OUTCOMES:
            j = design.terms.index(f"{outcome}_post~{label}")
            rows = design.response == design.term_response[j]
            standard = found["beta"][j] * X[rows, j].std() / y[rows].std() * (-1 if outcome == "mood" else 1)
            pooled = design.pooled
            assert pooled is not None
            z = point["z_pooled"][pooled.term.tolist().index(j)]
            assert standard == pytest.approx(mean + float(point["scale_pooled"][0]) * z, rel=EXACT)
    assert found["pooled_sd"] == abs(point["scale_pooled"][0])
    # the sign of the scale is free: half the density of its absolute value
    wanted = stats.norm(0, MEAN_SD).logpdf(found["pooled_mean"]).sum()
    wanted += scale_log_pdf(psm.HalfNormal(SPREAD_SD), float(found["pooled_sd"])) - np.log(2)
    parts = [model["pooled_mean"], model["scale_pooled"]]
    assert float(model.compile_logp(vars=parts, mode=MODE)(point)) == pytest.approx(wanted, rel=EXACT)


def test_gradient(data: psm.SessionData) -> None:
    spec = SPECS["slopes"]
    design = make_design(spec, data)
    model = joined_model(design, choose_priors(spec, design))
    rng = np.random.default_rng(6)
    point = {key: value + 0.3 * rng.normal(size=np.shape(value)) for key, value in model.initial_point().items()}
    gradient = model.compile_dlogp(mode=MODE)(point)
    found = central_differences(model, point, step=1e-5, mode=MODE)
    np.testing.assert_allclose(gradient, found, rtol=1e-5, atol=1e-5 * np.abs(gradient).max())


def test_slopes_join_the_process_and_the_outcomes(data: psm.SessionData) -> None:
    spec = SPECS["slopes"]
    assert [r.column for r in spec.responses] == ["alliance", *(f"{name}_post" for name in OUTCOMES)]
    assert spec.block("patient") == psm.spec.model.RandomBlock(
        "patient", ("alliance~Intercept", "alliance~technique.within")
    )
    assert spec.loadings == tuple((f"{name}_post", "alliance~technique.within") for name in OUTCOMES)
    assert SPECS["one outcome"].loadings == (
        ("mood_post", "alliance~technique.within"),
        ("mood_post", "alliance~Intercept"),
    )
    for each in SPECS.values():
        assert from_json(each.to_json()) == each
    design = make_design(spec, data)
    assert design.correlated_responses == (1, 2, 3)
    therapist = design.level("therapist")
    assert therapist is not None and therapist.terms[0] == "alliance~Intercept" and len(therapist.terms) == 4
    both = psm.outcomes(
        ["mood"],
        process=psm.process(
            "alliance", techniques=["technique"], slopes={"patient": ["technique"], "therapist": ["technique"]}
        ),
    )
    block = both.block("therapist")
    assert block is not None
    assert block.terms == ("alliance~Intercept", "alliance~technique.within", "mood_post~Intercept")


@pytest.mark.filterwarnings("ignore:.*only 4 therapists")
def test_engine_and_reason(data: psm.SessionData) -> None:
    assert build_model(SPECS["correlated"], data).engine == "collapsed"
    pooled = build_model(SPECS["pooled"], data)
    assert (pooled.engine, pooled.reason) == ("explicit", "coefficients are pooled over outcomes (pool=True).")
    slopes = build_model(SPECS["slopes"], data)
    assert (slopes.engine, slopes.reason) == ("explicit", "patients' random effects predict outcomes (process=).")
    assert "z_absent" in build_model(SPECS["correlated"], data, engine="explicit").model.named_vars


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"outcomes": ["mood"], "pool": True}, "there is one"),
        ({"higher_is_better": WORSE}, "used by pool=True only"),
        ({"pool": True, "higher_is_better": {"sleep": True}}, "higher_is_better names 'sleep'"),
        ({"slopes": ["technique"]}, "Give process"),
        ({"process": psm.growth("alliance", random={"patient": []})}, "no slope varies over patients"),
        ({"process": PROCESS, "slopes": ["empathy"]}, "'empathy' does not vary over patients"),
        ({"process": PROCESS, "level": "session"}, "found 'mood' of sessions"),
        ({"process": psm.outcomes(["mood"], techniques=["x"])}, "found one of kind 'outcomes'"),
        ({"process": PROCESS, "family": "student"}, "expected Gaussian responses"),
    ],
)
def test_what_contradicts_itself_is_refused(keywords: dict, words: str) -> None:
    given = {"outcomes": OUTCOMES, "techniques": ["technique"]} | keywords
    with pytest.raises(SpecError, match=words):
        psm.outcomes(given.pop("outcomes"), **given)


def test_a_pooled_coefficient_has_no_prior_of_its_own(data: psm.SessionData) -> None:
    spec = psm.outcomes(
        OUTCOMES, techniques=["technique"], pool=True, priors={"beta[mood_post~technique.patient]": psm.Normal(0, 1)}
    )
    with pytest.raises(SpecError, match=r"'beta\[mood_post~technique.patient\]' is pooled over outcomes"):
        make_design(spec, data)


def test_estimates_show_the_slopes_or_refuse_by_name(data: psm.SessionData) -> None:
    tree = chosen_tree(SPECS["slopes"], data)
    table = psm.effects(tree)
    label = "social_post~[alliance~technique.within]"
    assert table.loc[label, "mean"] == pytest.approx(float(tree["posterior"]["loading"].sel(loading_term=label).mean()))
    for refused in (psm.r2, psm.variance_partition, psm.loo):
        with pytest.raises(SpecError, match=r"mood_post.*also go with patients' random effects"):
            refused(tree, **({} if refused is psm.loo else {"response": "mood_post"}))


def test_priors_are_told(data: psm.SessionData) -> None:
    told = psm.describe_priors(SPECS["pooled"], data).table.set_index("parameter")["prior"]
    assert (
        told["pooled_sd"] == "HalfNormal(sd=0.5)" and told["pooled_mean[technique.patient]"] == "Normal(mean=0, sd=1)"
    )
    assert "beta[mood_post~technique.patient]" not in told and "beta[mood_post~mood_pre]" in told
    design = make_design(SPECS["slopes"], data)
    priors = choose_priors(SPECS["slopes"], design)
    told = psm.describe_priors(SPECS["slopes"], data).table.set_index("parameter")["prior"]
    label = "mood_post~[alliance~technique.within]"
    s, own = design.y[design.response == 1].std(), priors.sd["patient"][1]
    assert isinstance(own, psm.HalfNormal)
    assert priors.loading[0].mean == 0.0 and priors.loading[0].sd == pytest.approx(2.5 * s / own.sd)
    assert f"loading[{label}]" in told
    stored = json.loads(prior_table(design, priors))
    assert stored[f"loading[{label}]"]["sd"] == priors.loading[0].sd


def test_missing_levels_are_named(data: psm.SessionData) -> None:
    slopes = {"clinic": ["technique"], "patient": ["technique"]}
    process = psm.process("alliance", techniques=["technique"], slopes=slopes)
    with pytest.raises(DesignError, match="clinic"):
        make_design(psm.outcomes(["mood"], process=process), data)


def slopes_study(seed: int) -> tuple[psm.SessionData, dict[str, float]]:
    """Patients whose alliance answers to the technique more get better in mood, not in social life."""
    rng = np.random.default_rng(seed)
    therapists, patients, sessions = 20, 10, 12
    n = therapists * patients
    of = np.repeat(np.arange(therapists), patients)
    slope = 0.3 + 0.4 * rng.normal(size=n)
    patient = np.repeat(np.arange(n), sessions)
    technique = rng.normal(size=patient.size)
    within = technique - np.bincount(patient, technique)[patient] / sessions
    level = 0.4 * rng.normal(size=therapists)[of] + 0.5 * rng.normal(size=n)
    alliance = level[patient] + slope[patient] * within + rng.normal(size=patient.size)
    truth = {"mood_post": 1.5, "social_post": 0.0}
    table = pd.DataFrame({"patient": [f"P{i:03d}" for i in range(n)]})
    shared = 0.5 * rng.normal(size=n)
    for name, c in truth.items():
        pre = rng.normal(size=n)
        table[name.replace("post", "pre")] = pre
        effect = 0.3 * rng.normal(size=therapists)[of]
        table[name] = 0.5 * pre + c * (slope - 0.3) + effect + shared + 0.5 * rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "therapist": [f"T{k:02d}" for k in of[patient]],
            "patient": table["patient"].to_numpy()[patient],
            "session": np.tile(np.arange(1, sessions + 1), n),
            "technique": technique,
            "alliance": alliance,
        }
    )
    return psm.SessionData.from_frame(frame, patients=table), truth


@pytest.mark.slow
@pytest.mark.sampling
def test_a_slope_that_predicts_is_recovered_where_estimated_slopes_are_biased() -> None:
    study, truth = slopes_study(1)
    process = psm.process("alliance", techniques=["technique"], slopes={"patient": ["technique"]}, time=None)
    tree = psm.fit(
        psm.outcomes(["mood", "social"], process=process), study, draws=1000, tune=1000, chains=2, seed=1,
        progressbar=False,
    )  # fmt: skip
    found = tree["posterior"]["loading"]
    for name, c in truth.items():
        draws = found.sel(loading_term=f"{name}~[alliance~technique.within]").values
        assert abs(draws.mean() - c) < 2 * draws.std()
    mood = found.sel(loading_term="mood_post~[alliance~technique.within]").values
    # each patient's own regression, its slope put into a second one: attenuated by the slopes' unreliability
    sessions = study.sessions
    own = sessions.groupby("patient").apply(
        lambda f: np.polyfit(f["technique"], f["alliance"], 1)[0], include_groups=False
    )
    units = study.units["patient"].set_axis(study.ids["patient"])
    X = np.column_stack([np.ones(len(own)), units.loc[own.index, "mood_pre"], own])
    plugged = np.linalg.lstsq(X, units.loc[own.index, "mood_post"], rcond=None)[0][2]
    assert plugged < mood.mean() - 2 * mood.std()
    assert 0.3 < float(tree["posterior"]["sd_patient"].sel(patient_term="alliance~technique.within").mean()) < 0.5
    with pytest.raises(SpecError, match="mood_post, social_post also go with patients' random effects"):
        psm.variance_partition(tree, response="mood_post")


@pytest.mark.slow
@pytest.mark.sampling
def test_pooling_inside_the_model_agrees_with_the_second_stage() -> None:
    """The second stage is exact for normal likelihoods and flat first-stage priors, which hold nearly."""
    study = psm.load_example("process_study")
    ingredients = {"techniques": ["exposure", "restructuring"], "common_factors": ["alliance", "empathy"]}
    names, better = ["psychopathology", "coping", "quality_of_life"], {"psychopathology_post": False}
    options = {"draws": 1000, "tune": 1000, "chains": 4, "seed": 1, "progressbar": False}
    inside = psm.fit(psm.outcomes(names, predictors=ingredients, pool=True, higher_is_better=better), study, **options)
    outside = psm.fit(psm.outcomes(names, predictors=ingredients), study, **options)
    one = psm.standardized_effects(inside, higher_is_better=better)
    two = psm.standardized_effects(outside, higher_is_better=better, pool=True)
    free = psm.standardized_effects(outside, higher_is_better=better)
    dims = ("chain", "draw")
    spread = two.std(dims)
    assert (
        float(abs((one.mean(dims) - two.mean(dims)) / spread).max()) < 0.35
    )  # Monte Carlo error, and a normal first stage
    assert 0.8 < float((one.std(dims) / spread).mean()) < 1.2
    assert float((one.std(dims) / free.std(dims)).mean()) < 0.9
    with pytest.raises(SpecError, match="pools already"):
        psm.standardized_effects(inside, higher_is_better=better, pool=True)
