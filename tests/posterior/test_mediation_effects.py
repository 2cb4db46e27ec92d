"""Indirect effects against brute force and hand algebra, on chosen draws."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech import names
from psymech.posterior import tree as read
from psymech.posterior.mediation_paths import expected_product, read_mediation
from psymech.posterior.mediation_sensitivity import confounded_slope
from psymech.simulation.mediation import MediationTruth, simulate_mediation
from tests.posterior.mediation_trees import CHAINS, DRAWS, chosen_tree

EXACT = 1e-12
MONTE_CARLO_SE = 5.0  # standard errors of a mean of simulated products
LARGE_N = 0.02  # of least squares on 400,000 rows
BOTH = {"patient": ("a", "b", "c"), "therapist": ("a", "b")}


@pytest.fixture(scope="module")
def data() -> psm.SessionData:
    return simulate_mediation(therapists=5, patients=3, sessions=5, seed=3).data


@pytest.fixture(scope="module")
def study() -> psm.SessionData:
    return psm.load_example("process_study")


@pytest.fixture(scope="module")
def simple(data: psm.SessionData) -> xr.DataTree:
    return chosen_tree(psm.mediation("y", treatment="x", mediators="m", random=BOTH, time=None), data)


def beta(tree: xr.DataTree, label: str) -> np.ndarray:
    values = read.posterior(tree)[names.BETA]
    return values.values[..., list(values[names.TERM].values).index(label)]


def covariance(tree: xr.DataTree, level: str, a: str, b: str) -> np.ndarray:
    labels = list(read.posterior(tree)[names.term_dim(level)].values)
    return read.covariance(tree, level)[..., labels.index(a), labels.index(b)]


def test_indirect_effect_holds_the_covariances_of_both_levels(simple: xr.DataTree) -> None:
    effects = psm.indirect_effects(simple)
    assert effects["indirect"].dims == ("chain", "draw", "mediator", "level")
    assert list(effects["level"].values) == ["within", "patient", "therapist"]
    a, b = beta(simple, "m~x.within"), beta(simple, "y~m.within")
    both = sum(covariance(simple, level, "m~x.within", "y~m.within") for level in ("patient", "therapist"))
    within = effects["indirect"].sel(level="within", mediator="m").values
    np.testing.assert_allclose(within, a * b + both, rtol=EXACT)
    np.testing.assert_allclose(effects["product_of_means"].sel(level="within", mediator="m"), a * b, rtol=EXACT)
    assert np.abs(within - a * b).mean() > 0.1  # the comparison is another number
    for level in ("patient", "therapist"):
        product = beta(simple, f"m~x.{level}") * beta(simple, f"y~m.{level}")
        np.testing.assert_allclose(effects["indirect"].sel(level=level, mediator="m"), product, rtol=EXACT)


def test_effects_of_patients_and_therapists(simple: xr.DataTree) -> None:
    draws = read.posterior(simple)
    therapist_of = read.constants(simple)[names.parent_of_unit("patient", "therapist")].values
    by_patient = psm.indirect_effects(simple, by="patient")
    u, v = draws["u_patient"], draws["u_therapist"]
    own = {}
    for path, label in (("a", "m~x.within"), ("b", "y~m.within"), ("c", "y~x.within")):
        own[path] = beta(simple, label)[..., None] + u.sel(patient_term=label).values
        if path != "c":
            own[path] = own[path] + v.sel(therapist_term=label).values[..., therapist_of]
    np.testing.assert_allclose(by_patient["indirect"].sel(mediator="m"), own["a"] * own["b"], rtol=EXACT)
    np.testing.assert_allclose(by_patient["direct"].sel(mediator="m"), own["c"], rtol=EXACT)
    by_therapist = psm.indirect_effects(simple, by="therapist")
    a = beta(simple, "m~x.within")[..., None] + v.sel(therapist_term="m~x.within").values
    b = beta(simple, "y~m.within")[..., None] + v.sel(therapist_term="y~m.within").values
    wanted = a * b + covariance(simple, "patient", "m~x.within", "y~m.within")[..., None]
    np.testing.assert_allclose(by_therapist["indirect"].sel(mediator="m"), wanted, rtol=EXACT)
    assert by_therapist["indirect"].dims == ("chain", "draw", "mediator", "therapist")


def test_expected_product_of_jointly_normal_paths() -> None:
    rng = np.random.default_rng(4)
    factor = rng.normal(size=(4, 4))
    means = rng.normal(size=4)
    drawn = means + rng.standard_normal((400_000, 4)) @ factor.T
    for k in (1, 2, 3, 4):
        products = drawn[:, :k].prod(axis=1)
        found = expected_product([np.array(m) for m in means[:k]], (factor @ factor.T)[:k, :k])
        assert abs(found - products.mean()) < MONTE_CARLO_SE * products.std() / np.sqrt(len(products))


@pytest.mark.parametrize("serial", [False, True])
def test_parts_add_up_in_every_draw(serial: bool, study: psm.SessionData) -> None:
    spec = psm.mediation(
        ["phq9", "quality_of_life_post"] if not serial else "phq9",
        treatment=["exposure", "insight"],
        mediators=["alliance", "empathy"],
        serial=serial,
        random={"patient": ("a", "b", "d") if serial else ("a", "b")},
        time=None,
    )
    effects = psm.indirect_effects(chosen_tree(spec, study))
    indirect = effects["indirect"].sum("mediator", min_count=1)
    np.testing.assert_allclose(indirect, effects["total_indirect"].transpose(*indirect.dims), rtol=1e-9, atol=1e-12)
    total = effects["direct"].isel(mediator=0) + effects["total_indirect"]
    np.testing.assert_allclose(total, effects["total"].isel(mediator=0).transpose(*total.dims), rtol=1e-9, atol=1e-12)
    assert set(effects["treatment"].values) == {"exposure", "insight"}
    if not serial:
        post = effects.sel(outcome="quality_of_life_post", level="within")
        assert all(bool(post[name].isnull().all()) for name in ("indirect", "direct", "total", "total_indirect"))
    if serial:
        assert list(effects["mediator"].values) == ["alliance", "empathy", "alliance -> empathy"]


def test_route_over_two_mediators(study: psm.SessionData) -> None:
    spec = psm.mediation(
        "phq9",
        treatment="exposure",
        mediators=["alliance", "empathy"],
        serial=True,
        random={"patient": ("a", "b", "d")},
        time=None,
    )
    tree = chosen_tree(spec, study)
    labels = ["alliance~exposure.within", "empathy~alliance.within", "phq9~empathy.within"]
    a, d, b = (beta(tree, label) for label in labels)
    s = {(i, j): covariance(tree, "patient", labels[i], labels[j]) for i in range(3) for j in range(i)}
    wanted = a * d * b + a * s[2, 1] + d * s[2, 0] + b * s[1, 0]
    found = psm.indirect_effects(tree)["indirect"].sel(level="within", mediator="alliance -> empathy")
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_traits_have_between_effects_only(study: psm.SessionData) -> None:
    trait = chosen_tree(psm.mediation("phq9", treatment="reactance", mediators="alliance", time=None), study)
    effects = psm.indirect_effects(trait)
    assert list(effects["level"].values) == ["patient", "therapist"]
    wanted = beta(trait, "alliance~reactance.patient") * beta(trait, "phq9~alliance.patient")
    np.testing.assert_allclose(effects["indirect"].sel(level="patient", mediator="alliance"), wanted, rtol=EXACT)
    post = chosen_tree(psm.mediation("coping_post", treatment="exposure", mediators="alliance"), study)
    assert list(psm.indirect_effects(post)["level"].values) == ["patient", "therapist"]
    above = chosen_tree(psm.mediation("phq9", treatment="experience_years", mediators="alliance", time=None), study)
    assert list(psm.indirect_effects(above)["level"].values) == ["therapist"]
    with pytest.raises(psm.SpecError, match="within patients"):
        psm.indirect_effects(above, by="patient")


def test_index_of_moderated_mediation_is_the_derivative(study: psm.SessionData) -> None:
    spec = psm.mediation(
        "phq9",
        treatment="exposure",
        mediators="alliance",
        moderators={"a": "reactance", "b": "reactance"},
        random={"patient": ("a", "b")},
        time=None,
    )
    tree = chosen_tree(spec, study)
    step = 0.5  # the effect is quadratic in the moderator, so that central differences are exact
    ends = [psm.indirect_effects(tree, at={"reactance": 2.0 + s}) for s in (step, -step)]
    slope = (ends[0]["indirect"] - ends[1]["indirect"]).sel(level="within") / (2 * step)
    index = psm.moderated_mediation(tree, moderator="reactance", at={"reactance": 2.0})["index"]
    np.testing.assert_allclose(index, slope.transpose(*index.dims), rtol=1e-9, atol=1e-12)
    assert "reactance = 2" in psm.indirect_effects(tree, at={"reactance": 2.0}).attrs["at"]
    with pytest.raises(psm.SpecError, match="moderates no path"):
        psm.indirect_effects(tree, at={"age": 1.0})


def test_latent_paths_are_slopes_of_each_levels_covariance(data: psm.SessionData) -> None:
    tree = chosen_tree(psm.mediation("y", treatment="x", mediators="m", decompose="latent", time=None), data)
    effects = psm.indirect_effects(tree)
    draws = read.posterior(tree)
    for level in ("within", "patient", "therapist"):
        S = read.covariance(tree, level) if level != "within" else None
        if S is None:
            sd = draws["sigma"].values
            S = draws["corr_residual"].values * sd[..., :, None] * sd[..., None, :]
        a = S[..., 0, 1] / S[..., 0, 0]
        b = (S[..., 1, 2] - S[..., 0, 1] * S[..., 0, 2] / S[..., 0, 0]) / (
            S[..., 1, 1] - S[..., 0, 1] ** 2 / S[..., 0, 0]
        )
        np.testing.assert_allclose(effects["indirect"].sel(level=level, mediator="m"), a * b, rtol=1e-9)
        total = effects["total"].sel(level=level, mediator="m")
        np.testing.assert_allclose(total, S[..., 0, 2] / S[..., 0, 0], rtol=1e-7)


def test_proportion_needs_one_sign(data: psm.SessionData) -> None:
    spec = psm.mediation("y", treatment="x", mediators="m", time=None)
    tree = chosen_tree(spec, data)
    effects = psm.indirect_effects(tree)
    differ = (effects["indirect"] * effects["direct"]) < 0
    assert bool(differ.any())
    assert bool(effects["proportion"].isnull().where(differ, True).all())
    assert bool(effects["proportion"].notnull().where(~differ, True).all())
    assert "differ in sign" in effects["proportion"].attrs["reason"]
    table = psm.mediation_table(tree)
    rows = table[table["effect"] == "proportion"]
    assert rows["mean"].isna().all()
    assert rows["note"].str.contains("one sign in").all()


def test_table_names_the_product_of_means_a_comparison(simple: xr.DataTree) -> None:
    table = psm.mediation_table(simple, ci_prob=0.9)
    comparison = table[table["effect"] == "product of means"]
    assert (comparison["note"] == "for comparison only, not the indirect effect").all()
    assert len(comparison) == 1
    row = table[(table["effect"] == "indirect") & (table["level"] == "within")].iloc[0]
    draws = psm.indirect_effects(simple)["indirect"].sel(level="within")
    assert row["mean"] == pytest.approx(float(draws.mean()))
    assert (row["eti90_lb"], row["eti90_ub"]) == pytest.approx(tuple(np.quantile(draws, [0.05, 0.95])), abs=1e-6)


def test_other_models_are_refused(study: psm.SessionData) -> None:
    tree = chosen_tree(psm.growth("phq9"), study)
    with pytest.raises(psm.SpecError, match=r"mediation model \(psymech.mediation\), found one of kind 'growth'"):
        psm.indirect_effects(tree)


def test_file_gives_the_same_effects(simple: xr.DataTree, tmp_path: Path) -> None:
    psm.save(simple, tmp_path / "fit.nc")
    again = psm.load(tmp_path / "fit.nc")
    xr.testing.assert_allclose(psm.indirect_effects(again), psm.indirect_effects(simple))
    assert psm.mediation_sensitivity(again).equals(psm.mediation_sensitivity(simple))


@pytest.mark.parametrize("rho", [-0.4, 0.3, 0.6])
def test_confounded_slope_undoes_a_residual_correlation(rho: float) -> None:
    rng = np.random.default_rng(5)
    n, true, sd_m, sd_y = 400_000, 0.3, 0.8, 1.1
    z = rng.standard_normal((2, n))
    u_m, u_y = sd_m * z[0], sd_y * (rho * z[0] + np.sqrt(1 - rho**2) * z[1])
    error = 0.5  # SD of the error of an observed mean; the outcome follows the observed mean
    m = u_m + error * rng.standard_normal(n)
    y = true * m + u_y
    fitted = np.cov(m, y)[0, 1] / m.var()
    reliability = np.array(sd_m**2 / (sd_m**2 + error**2))
    ratio = np.array((y - fitted * m).std() / sd_m)
    assert confounded_slope(fitted, rho, ratio=ratio, reliability=reliability) == pytest.approx(true, abs=LARGE_N)


def test_sensitivity_finds_where_the_interval_touches_zero(data: psm.SessionData) -> None:
    rng = np.random.default_rng(6)
    spec = psm.mediation("y", treatment="x", mediators="m", random={"patient": ()}, time=None)
    labels = list(chosen_tree(spec, data)["posterior"]["term"].values)
    draws = np.zeros((CHAINS, DRAWS, len(labels)))
    draws[..., labels.index("m~x.within")] = 0.5
    draws[..., labels.index("y~m.within")] = 0.3 + 0.05 * rng.normal(size=(CHAINS, DRAWS))
    tree = chosen_tree(spec, data, beta=draws, sigma=np.array([1.0, 2.0]))
    table = psm.mediation_sensitivity(tree, ci_prob=0.9).set_index("level")
    row = table.loc["within"]
    b = draws[..., labels.index("y~m.within")]
    wanted = {"rho_zero": b.mean() / 2, "rho_interval": np.quantile(b, 0.05) / 2}  # kappa = b sd_m / sd_y
    for name, kappa in wanted.items():
        exact = kappa / np.sqrt(1 + kappa**2)
        assert exact <= row[name] < exact + 0.0101  # the first of a grid in steps of 0.01


def test_truth_of_the_simulator_is_the_algebra_of_its_paths() -> None:
    truth = MediationTruth()
    study = simulate_mediation(therapists=4000, patients=5, sessions=2, seed=8)
    products = (study.patients["a"] * study.patients["b"]).to_numpy()
    error = products.reshape(4000, 5).mean(axis=1).std() / np.sqrt(4000)
    assert abs(products.mean() - truth.indirect["within"]) < MONTE_CARLO_SE * error


@pytest.mark.parametrize("level", [None, "within", ["patient", "therapist"]])
def test_diagram_names_every_variable_and_path(level, simple: xr.DataTree) -> None:
    collection = psm.plot_paths(simple, level=level)
    figure = collection.viz["figure"].item()
    axes = [a for a in figure.axes if a.texts]
    assert len(axes) == (3 if level is None else 1 if isinstance(level, str) else 2)
    for each in axes:
        texts = [t.get_text() for t in each.texts if t.get_text()]
        assert {"x", "m", "y"} <= set(texts)
        assert sum("[" in t for t in texts) == 4  # three paths and the indirect effect
    with pytest.raises(psm.SpecError, match="expected one of within, patient, therapist"):
        psm.plot_paths(simple, level="clinic")


def test_diagram_says_what_the_paths_are(simple: xr.DataTree) -> None:
    figure = psm.plot_paths(simple, level="within", ci_prob=0.5).viz["figure"].item()
    path = read_mediation(simple).paths["within", "x", "m"].draws
    low, high = np.quantile(path, [0.25, 0.75])
    wanted = f"{path.mean():.2f} [{low:.2f}, {high:.2f}]"
    assert wanted in [t.get_text() for a in figure.axes for t in a.texts]
