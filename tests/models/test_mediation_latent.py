"""Latent means with random, lagged and moderated paths: rows, density, generator, estimates, refusals.

The density is compared with one written from the equations over a table of sessions, which shares nothing with the
graph or the design but the labels of the parameters.
"""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

import psymech as psm
from psymech import names
from psymech.columns import settle_levels
from psymech.design import Design, make_design
from psymech.errors import DesignError, NotCollapsibleError, SpecError
from psymech.graph.latent_means import draw_latent, latent_model, residuals, response_blocks, waves
from psymech.latent_rows import GIVEN, IMPUTED, OBSERVED
from psymech.posterior.mediation_latent import residual_sds
from psymech.posterior.mediation_paths import read_mediation
from psymech.priors import choose_priors
from psymech.spec.model import ModelSpec, from_json
from tests.posterior.mediation_trees import chosen_tree

Floats = NDArray[np.float64]
MODE = "FAST_COMPILE"
EXACT = 1e-9  # relative; sums of a few hundred terms in another order
STEP, SLOPE_ERROR = 1e-5, 1e-6  # central differences of a value of a few hundred


def study(*, holes: bool = False) -> pd.DataFrame:
    """Five therapists, ragged, gaps between session numbers; with `holes` x, m and y are missing here and there."""
    rng = np.random.default_rng(11)
    rows = [
        (f"T{k}", f"P{k}{i}", t)
        for k in range(5)
        for i in range(int(rng.integers(2, 4)))
        for t in np.sort(rng.choice(np.arange(1, 9), size=int(rng.integers(4, 7)), replace=False))
    ]
    frame = pd.DataFrame(rows, columns=["therapist", "patient", "session"])
    frame = frame.assign(**{name: 2 + rng.normal(size=len(frame)) for name in ("x", "x2", "m", "m2", "y")})
    for column, unit in (("w", "patient"), ("post", "patient"), ("trait", "patient")):
        frame[column] = frame[unit].map({u: rng.normal() for u in frame[unit].unique()})
    if holes:
        for column, share in (("x", 0.1), ("m", 0.2), ("y", 0.2)):
            frame.loc[rng.random(len(frame)) < share, column] = np.nan
    return frame


def table(frame: pd.DataFrame) -> psm.SessionData:
    return psm.SessionData.from_frame(frame, ranges=dict.fromkeys(("x", "x2", "m", "m2", "y", "post", "w", "trait")))


def latent(outcome: str = "y", **keywords: object) -> ModelSpec:
    chosen: dict = {"treatment": "x", "mediators": "m", "time": None, "decompose": "latent", **keywords}
    return psm.mediation(outcome, **chosen)


ALL = {"patient": ("a", "b", "c"), "therapist": ("a", "b")}
CASES: dict[str, tuple[ModelSpec, dict[str, int]]] = {
    "random paths": (latent(random=ALL), {}),
    "lags and own values": (
        latent(random={"patient": ("b", "y~y.lag1")}, lag=1, autoregressive=["m", "y"]),
        {"y~x.within": 1, "y~m.within": 1, "m~m.lag1": 1, "y~y.lag1": 1},
    ),
    "moderated, with a trend": (latent(random={"patient": ("a",)}, moderators={"a": "w", "b": "w"}, time="linear"), {}),
    "in series": (latent(mediators=["m", "m2"], serial=True, random={"patient": ("a", "d"), "therapist": ("b",)}), {}),
    "in parallel": (latent(treatment=["x", "x2"], mediators=["m", "m2"], random={"patient": ("a",)}), {}),
    "one score a patient": (latent("post", random={"patient": ("a",)}, moderators={"b": "w"}), {}),
    "a trait": (latent(treatment="trait", random={"patient": ("b",)}), {}),
    "a trait and a score": (latent("post", treatment="trait"), {}),
}
WITH_HOLES = ("random paths", "lags and own values", "in parallel", "one score a patient")


def log_density(
    frame: pd.DataFrame, design: Design, lags: dict[str, int], beta: Floats, sigma: Floats, effects: dict[str, Floats]
) -> Callable[[dict[tuple[str, str, int], float]], float]:
    """Log density of all observed and imputed values, written over the sessions one by one."""
    at = dict(zip(design.terms, beta, strict=True))
    sd = dict(zip(design.responses, sigma, strict=True))
    rows = {(r.patient, int(r.session)): r for r in frame.itertuples()}
    units = {lv.level: {str(u): i for i, u in enumerate(lv.labels)} for lv in design.levels}
    spread: dict[tuple[str, str, str], float] = {}
    for lv in design.levels:
        for unit, i in units[lv.level].items():
            for j, label in enumerate(lv.terms):
                spread[lv.level, unit, label] = effects[lv.level][i, j]

    def slope(label: str, row: object) -> float:
        each = (spread.get((level, str(getattr(row, level)), label), 0.0) for level in units)
        return at[label] + sum(each)

    def value(imputed: dict, name: str, patient: str, session: int) -> float:
        key = (name, patient, session)
        return imputed[key] if key in imputed else float(getattr(rows[patient, session], name))

    def mean(name: str, row: object) -> float:
        total = slope(f"{name}~Intercept", row)
        for label in at:
            found = re.fullmatch(rf"{name}~(time|w|trait\.patient|trait\.therapist)", label)
            if found:
                total += at[label] * observed_part(found[1], row)
        return total

    def observed_part(label: str, row: object) -> float:
        column, _, part = label.partition(".")
        if not part:
            return float(row.session if column == "time" else getattr(row, column))  # pyright: ignore
        of_therapist = frame.loc[frame["therapist"] == row.therapist, column].mean()  # pyright: ignore
        return of_therapist if part == "therapist" else float(getattr(row, column)) - of_therapist

    def deviation(imputed: dict, name: str, patient: str, session: int) -> float:
        return value(imputed, name, patient, session) - mean(name, rows[patient, session])

    def residual(imputed: dict, name: str, patient: str, session: int) -> float:
        row = rows[patient, session]
        left = deviation(imputed, name, patient, session)
        for label in at:
            found = re.fullmatch(rf"{name}~(\w+)\.(within|lag1|residual|patient)(:w)?", label)
            if found is None or found[1] == "trait":
                continue
            weight = float(row.w) if found[3] else 1.0  # pyright: ignore
            before = session - lags.get(label, 0)
            if found[2] == "residual":
                taken = residual(imputed, found[1], patient, before)
            elif found[2] == "patient":
                taken = spread["patient", patient, f"{found[1]}~Intercept"]
            else:
                taken = deviation(imputed, found[1], patient, before)
            left -= slope(label, row) * weight * taken
        return left

    def total(imputed: dict[tuple[str, str, int], float]) -> float:
        out = 0.0
        for r, row in zip(design.response, design.row, strict=True):
            each = ordered(frame).iloc[row]
            name = design.responses[r]
            out += stats.norm.logpdf(residual(imputed, name, each["patient"], int(each["session"])), 0, sd[name])
        for name, patient, session in imputed:
            out += stats.norm.logpdf(residual(imputed, name, patient, session), 0, sd[name])
        return float(out)

    return total


def ordered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(["therapist", "patient", "session"]).reset_index(drop=True)


def drawn_point(model: pm.Model, seed: int) -> dict[str, NDArray]:
    rng = np.random.default_rng(seed)
    return {key: value + 0.4 * rng.normal(size=np.shape(value)) for key, value in model.initial_point().items()}


def values_at(model: pm.Model, design: Design, point: dict[str, NDArray]) -> list[NDArray]:
    wanted = [model["beta"], model["sigma"], *(model[names.effect(lv.level)] for lv in design.levels)]
    if "imputed" in model.named_vars:
        wanted.append(model["imputed"])
    function = model.compile_fn(model.replace_rvs_by_values(wanted), mode=MODE, on_unused_input="ignore")
    return list(function(point))


def imputed_sessions(frame: pd.DataFrame, design: Design, values: Floats) -> dict[tuple[str, str, int], float]:
    """Imputed values by response, patient and session, in the order of the design's rows."""
    found = design.latent
    assert found is not None
    table_, out = ordered(frame), {}
    places = range(found.n_obs, found.n_obs + found.n_imputed)
    for k, place in enumerate(places):
        name = design.responses[found.response[place]]
        row = table_.iloc[found.row[place]]
        out[name, row["patient"], int(row["session"])] = float(values[k])
    return out


def built(name: str, *, holes: bool = False) -> tuple[pd.DataFrame, Design, pm.Model]:
    frame = study(holes=holes)
    spec, data = CASES[name][0], table(frame)
    design = make_design(spec, data)
    return frame, design, latent_model(design, choose_priors(settle_levels(spec, data), design))


@pytest.mark.parametrize(("name", "holes"), [*((n, False) for n in CASES), *((n, True) for n in WITH_HOLES)])
def test_density_is_that_of_the_equations(name: str, holes: bool) -> None:
    frame, design, model = built(name, holes=holes)
    point = drawn_point(model, seed=3)
    beta, sigma, *rest = values_at(model, design, point)
    effects = {lv.level: u for lv, u in zip(design.levels, rest, strict=False)}
    assert design.latent is not None
    assert (design.latent.n_imputed > 0) == holes
    imputed = imputed_sessions(frame, design, rest[-1]) if holes else {}
    wanted = log_density(frame, design, CASES[name][1], beta, sigma, effects)(imputed)
    parts = [model["y"], *([model["z_imputed"], *model.potentials] if holes else [])]
    found = float(model.compile_logp(vars=parts, mode=MODE)(point))
    assert found == pytest.approx(wanted, rel=EXACT)


def test_gradient_is_that_of_the_density() -> None:
    _, _, model = built("lags and own values", holes=True)
    point = drawn_point(model, seed=4)
    logp = model.compile_logp(mode=MODE)
    found = np.asarray(model.compile_dlogp(mode=MODE)(point))
    expected = []
    rng = np.random.default_rng(5)
    ends: list[tuple[str, tuple[int, ...]]] = [
        (str(v.name), index) for v in model.continuous_value_vars for index in np.ndindex(np.shape(point[str(v.name)]))
    ]
    chosen = np.sort(rng.choice(len(ends), size=40, replace=False))
    for name, index in (ends[i] for i in chosen):
        moved = [np.array(point[name], dtype=float) for _ in range(2)]
        moved[0][index] += STEP
        moved[1][index] -= STEP
        high, low = (float(logp({**point, name: m})) for m in moved)
        expected.append((high - low) / (2 * STEP))
    np.testing.assert_allclose(found[chosen], expected, rtol=SLOPE_ERROR, atol=SLOPE_ERROR * np.abs(found).max())


def test_generator_makes_the_rows_whose_residuals_are_its_noise() -> None:
    frame = study(holes=True)
    spec = CASES["lags and own values"][0]
    found = make_design(spec, table(frame)).latent
    assert found is not None
    blocks = response_blocks(found)
    rng = np.random.default_rng(6)
    means = [rng.normal(size=block.rows.size) for block in blocks]
    slopes = [rng.normal(size=column.rows.size) for block in blocks for column in block.columns]
    sigma = np.exp(rng.normal(size=3))
    n = found.n_obs + found.n_imputed
    drawn, every = draw_latent(found, sigma, means, slopes, np.random.default_rng(7))
    noise = sigma[found.response[:n]] * np.random.default_rng(7).standard_normal(n)
    deviations = [every[block.rows] - mean for block, mean in zip(blocks, means, strict=True)]
    for block, left in zip(blocks, residuals(blocks, deviations, slopes), strict=True):
        np.testing.assert_allclose(left, noise[block.rows[: block.n_model]], rtol=EXACT, atol=EXACT)
    np.testing.assert_array_equal(drawn, every[: found.n_obs])
    np.testing.assert_allclose(every[n:], found.y[n:], rtol=EXACT)


def test_waves_put_sources_first() -> None:
    target, source = np.array([1, 2, 2]), np.array([0, 1, 3])
    assert waves(4, 3, target, source).tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize("name", ["random paths", "a trait and a score"])
def test_model_can_be_drawn_from_before_it_has_seen_data(name: str) -> None:
    built = psm.build_model(CASES[name][0], table(study(holes=True)))
    tree = psm.prior_predictive(built, draws=20, seed=1)
    assert np.isfinite(tree["prior_predictive"]["y"].values).all()


def tiny(**columns: list[float]) -> psm.SessionData:
    """One long patient to look at, and enough others to make a table."""
    rng = np.random.default_rng(1)
    rows = [("T0", "P0", t) for t in (1, 2, 3, 5, 6)]
    rows += [(f"T{k}", f"P{k}{i}", t) for k in range(4) for i in range(1, 4) for t in range(1, 5)]
    frame = pd.DataFrame(rows, columns=["therapist", "patient", "session"])
    frame = frame.assign(**{name: rng.normal(size=len(frame)) for name in "xmy"})
    for name, values in columns.items():
        frame.loc[:4, name] = values
    return psm.SessionData.from_frame(frame)


def kinds(data: psm.SessionData, spec: ModelSpec) -> dict[str, dict[int, int]]:
    """What the rows of the first patient are: by response and session."""
    design = make_design(spec, data)
    found = design.latent
    assert found is not None
    kind = np.full(len(found.y), GIVEN)
    kind[: found.n_obs], kind[found.n_obs : found.n_obs + found.n_imputed] = OBSERVED, IMPUTED
    out: dict[str, dict[int, int]] = {name: {} for name in design.responses}
    first = data.codes["patient"][found.row] == list(data.ids["patient"]).index("P0")
    for place in np.flatnonzero(first):
        out[design.responses[found.response[place]]][int(data.session[found.row[place]])] = int(kind[place])
    return out


def test_what_an_observed_value_depends_on_is_imputed_and_nothing_else() -> None:
    nan = np.nan
    data = tiny(x=[1.0, nan, 2.0, nan, 3.0], m=[1.0, 2.0, nan, nan, 5.0], y=[1.0, 2.0, 3.0, nan, 5.0])
    found = kinds(data, latent(random={"patient": ("a",)}))
    assert found == {
        "x": {1: OBSERVED, 2: IMPUTED, 3: OBSERVED, 6: OBSERVED},  # x of session 5: no value there depends on it
        "m": {1: OBSERVED, 2: OBSERVED, 3: IMPUTED, 6: OBSERVED},
        "y": {1: OBSERVED, 2: OBSERVED, 3: OBSERVED, 6: OBSERVED},
    }
    notes = [f.message for f in make_design(latent(random={"patient": ("a",)}), data).report.findings]
    assert any("1 missing values of 'm' on which observed values depend" in note for note in notes)


def test_lags_stop_at_gaps_and_what_precedes_counts_as_given() -> None:
    data = tiny(m=[1.0, 2.0, 3.0, 4.0, 5.0])
    found = kinds(data, latent(lag={"b": 1}, autoregressive="m"))
    assert found["m"] == {1: GIVEN, 2: OBSERVED, 3: OBSERVED, 5: GIVEN, 6: OBSERVED}
    assert found["y"] == {2: OBSERVED, 3: OBSERVED, 6: OBSERVED}


def test_first_value_that_is_missing_cannot_be_imputed_without_its_own_predecessor() -> None:
    data = tiny(m=[np.nan, 2.0, 3.0, 4.0, 5.0])
    found = kinds(data, latent(lag={"b": 1}, autoregressive="m"))
    assert found["m"] == {2: GIVEN, 3: OBSERVED, 5: GIVEN, 6: OBSERVED}
    assert found["y"] == {3: OBSERVED, 6: OBSERVED}


def test_equal_paths_of_one_session_are_left_to_the_collapsed_engine() -> None:
    data = table(study())
    assert psm.build_model(latent(), data).engine == "collapsed"
    assert psm.build_model(latent(random={"therapist": None}), data).engine == "collapsed"
    free = psm.build_model(latent(random={"patient": ("b",)}), data)
    assert free.engine == "explicit"
    assert "deviations from latent means" in free.reason
    with pytest.raises(NotCollapsibleError, match="latent means"):
        psm.build_model(latent(lag=1), data, engine="collapsed")


def test_stand_in_columns_have_no_mean_so_that_intercepts_keep_their_prior() -> None:
    design = make_design(CASES["one score a patient"][0], table(study()))
    assert design.latent is not None
    for column in design.latent.columns:
        rows = design.response == design.term_response[column.term]
        assert abs(design.X[rows, column.term].mean()) < EXACT
        assert design.X[rows, column.term].std() > 0
        assert not design.latent.X[:, column.term].any()


@pytest.mark.parametrize("name", ["a trait", "one score a patient"])
def test_without_therapists_nothing_stands_between_them(name: str) -> None:
    frame = study().drop(columns="therapist")
    data = psm.SessionData.from_frame(frame, therapist=None)
    design = make_design(CASES[name][0], data)
    assert [level.level for level in design.levels] == ["patient"]
    assert not [t for t in design.terms if "therapist" in t]
    assert {level for level, _, _ in paths(chosen_tree(CASES[name][0], data))} == {"within", "patient"}


def paths(tree: xr.DataTree) -> dict[tuple[str, str, str], Floats]:
    return {key: path.draws for key, path in read_mediation(tree).paths.items()}


def test_effects_combine_terms_within_and_covariances_between() -> None:
    spec = latent(random=ALL)
    tree = chosen_tree(spec, table(study()))
    draws = tree["posterior"]
    effects = psm.indirect_effects(tree)
    beta = draws["beta"]
    a, b = (beta.sel(term=t, drop=True) for t in ("m~x.within", "y~m.within"))
    wanted = a * b
    S = {}
    for level in ("patient", "therapist"):
        sd, corr = draws[f"sd_{level}"].values, draws[f"corr_{level}"].values
        S[level] = corr * sd[..., :, None] * sd[..., None, :]
        at = [str(t) for t in draws[f"{level}_term"].values]
        wanted = wanted + S[level][..., at.index("m~x.within"), at.index("y~m.within")]
        assert at[:3] == ["x~Intercept", "m~Intercept", "y~Intercept"]
        alpha = S[level][..., 0, 1] / S[level][..., 0, 0]
        given = np.linalg.solve(S[level][..., :2, :2], S[level][..., :2, 2][..., None])[..., 0]
        found = effects["indirect"].sel(level=level).isel(mediator=0)
        np.testing.assert_allclose(found, alpha * given[..., 1])
        np.testing.assert_allclose(effects["direct"].sel(level=level).isel(mediator=0), given[..., 0])
    np.testing.assert_allclose(effects["indirect"].sel(level="within").isel(mediator=0), wanted)
    assert effects.attrs["decompose"] == "latent"
    own = psm.indirect_effects(tree, by="therapist")
    v = draws["u_therapist"]
    labels = [str(t) for t in draws["therapist_term"].values]
    at_patient = [str(t) for t in draws["patient_term"].values]
    each = (a + v[..., labels.index("m~x.within")]) * (b + v[..., labels.index("y~m.within")])
    spread = S["patient"][..., at_patient.index("m~x.within"), at_patient.index("y~m.within")]
    np.testing.assert_allclose(own["indirect"].isel(mediator=0), each + spread[..., None])


def test_outcome_of_patients_takes_its_own_paths_there_and_covariances_above() -> None:
    tree = chosen_tree(latent("post", random={"patient": ("a",)}), table(study()))
    found = paths(tree)
    beta = tree["posterior"]["beta"]
    np.testing.assert_array_equal(found["patient", "m", "post"], beta.sel(term="post~m.patient"))
    np.testing.assert_array_equal(found["patient", "x", "post"], beta.sel(term="post~x.patient"))
    assert ("within", "m", "post") not in found
    draws = tree["posterior"]
    sd, corr = draws["sd_therapist"].values, draws["corr_therapist"].values
    S = corr * sd[..., :, None] * sd[..., None, :]
    assert [str(t) for t in draws["therapist_term"].values] == ["x~Intercept", "m~Intercept", "post~Intercept"]
    given = np.linalg.solve(S[..., :2, :2], S[..., :2, 2][..., None])[..., 0]
    np.testing.assert_allclose(found["therapist", "m", "post"], given[..., 1])


def test_trait_acts_through_latent_means() -> None:
    tree = chosen_tree(CASES["a trait"][0], table(study()))
    found = paths(tree)
    draws = tree["posterior"]
    beta = draws["beta"]
    score = chosen_tree(CASES["a trait and a score"][0], table(study()))
    own = score["posterior"]["beta"]
    through = own.sel(term="post~m.patient") * own.sel(term="m~trait.patient")
    direct = own.sel(term="post~trait.patient") - through
    np.testing.assert_allclose(paths(score)["patient", "trait", "post"], direct)
    sd, corr = draws["sd_patient"].values, draws["corr_patient"].values
    S = corr * sd[..., :, None] * sd[..., None, :]
    assert [str(t) for t in draws["patient_term"].values][:2] == ["m~Intercept", "y~Intercept"]
    b = S[..., 0, 1] / S[..., 0, 0]
    np.testing.assert_allclose(found["patient", "m", "y"], b)
    total = beta.sel(term="y~trait.patient") - b * beta.sel(term="m~trait.patient")
    np.testing.assert_allclose(found["patient", "trait", "y"], total)
    np.testing.assert_array_equal(found["within", "m", "y"], beta.sel(term="y~m.within"))


def test_moderated_paths_stand_at_the_moderator() -> None:
    tree = chosen_tree(CASES["moderated, with a trend"][0], table(study()))
    beta = tree["posterior"]["beta"]
    found = read_mediation(tree, at={"w": 2.0}).paths["within", "x", "m"].draws
    np.testing.assert_allclose(found, beta.sel(term="m~x.within") + 2.0 * beta.sel(term="m~x.within:w"))
    index = psm.moderated_mediation(tree, moderator="w")
    assert index.attrs["level"] == "within"
    for response in ("x", "m", "y"):
        assert f"{response}~w" in beta["term"].values


def test_residual_sd_counts_what_another_residual_explains() -> None:
    tree = chosen_tree(CASES["lags and own values"][0], table(study()))
    beta, sigma = tree["posterior"]["beta"], tree["posterior"]["sigma"]
    parts = {s: beta.sel(term=f"y~{s}.residual") ** 2 * sigma.sel(response=s) ** 2 for s in ("x", "m")}
    wanted = np.sqrt(sigma.sel(response="y") ** 2 + parts["x"] + parts["m"])
    np.testing.assert_allclose(residual_sds(tree)["y"], wanted)


@pytest.mark.parametrize("name", ["random paths", "one score a patient", "a trait"])
def test_tables_sensitivity_and_figure(name: str) -> None:
    tree = chosen_tree(CASES[name][0], table(study()))
    assert {"within", "patient", "therapist"} >= set(psm.mediation_table(tree)["level"])
    moved = psm.mediation_sensitivity(tree)
    assert set(moved["level"]) >= {"patient", "therapist"}
    assert np.isfinite(moved["indirect"]).all()
    psm.plot_paths(tree)


def test_what_reads_columns_refuses_by_name(tmp_path) -> None:
    tree = chosen_tree(latent(random=ALL), table(study()))
    assert np.isnan(tree["constant_data"]["X"].sel(term="y~m.within")).all()
    assert np.isfinite(tree["constant_data"]["X"].sel(term="y~Intercept")).all()
    psm.save(tree, tmp_path / "fit.nc")
    again = psm.load(tmp_path / "fit.nc")
    refused = [
        lambda: psm.variance_partition(again, response="y"),
        lambda: psm.r2(again, response="y"),
        lambda: psm.minimum_caseload(again, response="y"),
        lambda: psm.predict(again, table(study()).sessions, response="y"),
        lambda: psm.loo(again),
        lambda: psm.check_model(again),
        lambda: psm.standardized_effects(again),
        lambda: psm.plot_ppc(again, response="y"),
    ]
    for estimate in refused:
        with pytest.raises(SpecError, match="deviations from latent means"):
            estimate()
    assert psm.indirect_effects(again).identical(psm.indirect_effects(tree))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (latent(random={"patient": None}), "Latent means of patients"),
        (latent(mediators="w"), "mediators that vary within patients, but 'w' has one value a patient"),
        (latent(treatment="trait", moderators={"a": "w"}, random={"patient": ("b",)}), "trait"),
    ],
)
def test_designs_that_are_refused(spec: ModelSpec, message: str) -> None:
    with pytest.raises(DesignError, match=message):
        make_design(spec, table(study()))


def test_own_values_of_a_patients_score_are_refused() -> None:
    with pytest.raises(SpecError, match="'post' has one value a patient"):
        make_design(latent("post", autoregressive=True), table(study()))
    with pytest.raises(SpecError, match="columns among x, m, y, found 'z'"):
        latent(autoregressive="z")


def test_missing_covariate_is_refused() -> None:
    frame = study()
    frame.loc[3, "x2"] = np.nan
    with pytest.raises(psm.DataError, match="'x2': 1 missing"):
        make_design(latent(covariates="x2", random={"patient": ("a",)}), table(frame))


@pytest.mark.parametrize("name", CASES)
def test_json_round_trip(name: str) -> None:
    spec = CASES[name][0]
    assert from_json(spec.to_json()) == spec
    settled = settle_levels(spec, table(study()))
    assert from_json(settled.to_json()) == settled
    assert settle_levels(settled, table(study())) == settled
