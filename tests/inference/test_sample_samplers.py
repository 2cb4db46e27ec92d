"""Sampling: seeds, engines and samplers agree."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from arviz_stats.sampling_diagnostics import mcse

import psymech as psm
from psymech.errors import SpecError
from psymech.graph.build import Engine
from psymech.inference.run import Sampler
from psymech.inference.tree import variable_dims
from tests.inference.studies import FREE, small_data, small_frame

pytestmark = pytest.mark.sampling

STANDARD_ERRORS = 4.5  # of the difference of two Monte Carlo means, some twenty of which are compared at fixed seeds
VARIABLES = ("beta", "sd_patient", "sd_therapist", "sigma", "corr_patient", "u_therapist")
SPEC = psm.growth("y", random={"patient": ["time"], "therapist": []})


@cache
def built(engine: Engine) -> psm.BuiltModel:
    return psm.build_model(SPEC, small_data(1), engine=engine)


@cache
def draws(engine: Engine, sampler: Sampler) -> xr.DataTree:
    return psm.sample(built(engine), draws=500, tune=500, chains=2, seed=1, sampler=sampler, progressbar=False)


def assert_same_posterior(first: xr.DataTree, second: xr.DataTree) -> None:
    a, b = first["posterior"].dataset, second["posterior"].dataset
    for name in VARIABLES:
        assert a[name].dims == b[name].dims
        assert a[name].shape == b[name].shape
        error = np.hypot(mcse(a[name]).values, mcse(b[name]).values)
        difference = (a[name].mean(("chain", "draw")) - b[name].mean(("chain", "draw"))).values
        constant = a[name].std(("chain", "draw")).values == 0  # the diagonal of a correlation matrix
        np.testing.assert_allclose(difference[constant], 0, atol=1e-12)
        assert (np.abs(difference[~constant]) < STANDARD_ERRORS * error[~constant]).all(), name


def assert_contract(tree: xr.DataTree, sampler: str, engine: str) -> None:
    posterior = tree["posterior"].dataset
    dims = variable_dims(built("collapsed").design)
    assert {str(n): v.dims[2:] for n, v in posterior.data_vars.items()} == dims
    assert dict(posterior.sizes) | {"chain": 2, "draw": 500} == dict(posterior.sizes)
    assert all(np.isfinite(v.values).all() for v in posterior.data_vars.values())
    stats = tree["sample_stats"].dataset
    # PyMC's bridge to blackjax does not hand the step size on.
    portable = {"diverging", "energy", "n_steps", "tree_depth", "reached_max_treedepth", "lp", "acceptance_rate"}
    assert portable <= set(stats.data_vars)
    attrs = tree.attrs
    assert (attrs["sampler"], attrs["engine"], attrs["seed"]) == (sampler, engine, 1)
    assert attrs["sampling_seconds"] > 0
    assert attrs["compile_seconds"] >= 0


def test_the_default_sampler_keeps_the_contract() -> None:
    tree = draws("collapsed", "nutpie")
    assert_contract(tree, "nutpie", "collapsed")
    assert tree.attrs["recover_seconds"] > 0
    assert int(tree["sample_stats"]["diverging"].sum()) == 0


def test_the_same_seed_gives_the_same_draws() -> None:
    options: dict = {"draws": 50, "tune": 100, "chains": 2, "progressbar": False}
    first, again, one_core, other = (
        psm.sample(built("collapsed"), **options, seed=seed, cores=cores)["posterior"].dataset
        for seed, cores in ((7, 2), (7, 2), (7, 1), (8, 2))
    )
    for name in first.data_vars:
        np.testing.assert_array_equal(first[name], again[name])
        np.testing.assert_array_equal(first[name], one_core[name])
    assert not np.array_equal(first["beta"], other["beta"])


def test_row_order_does_not_change_the_draws() -> None:
    shuffled = small_frame(1).sample(frac=1, random_state=2)
    data = psm.SessionData.from_frame(shuffled, ranges=FREE)
    options: dict = {"draws": 50, "tune": 100, "chains": 1, "seed": 7, "progressbar": False}
    first = psm.sample(built("collapsed"), **options)["posterior"].dataset
    again = psm.sample(psm.build_model(SPEC, data), **options)["posterior"].dataset
    for name in first.data_vars:
        np.testing.assert_array_equal(first[name], again[name])


def test_a_linear_change_of_the_outcome_changes_the_draws_alike() -> None:
    table = small_frame(1)
    scaled = psm.SessionData.from_frame(table.assign(y=100 + 3 * table["y"]), ranges=FREE)
    tree = psm.sample(psm.build_model(SPEC, scaled), draws=500, tune=500, chains=2, seed=1, progressbar=False)
    posterior = tree["posterior"].dataset
    back = xr.Dataset(
        {
            "beta": (posterior["beta"] - xr.where(posterior["term"] == "Intercept", 100, 0)) / 3,
            **{name: posterior[name] / 3 for name in ("sd_patient", "sd_therapist", "sigma", "u_therapist")},
            "corr_patient": posterior["corr_patient"],
        }
    )
    assert_same_posterior(xr.DataTree.from_dict({"/posterior": back}), draws("collapsed", "nutpie"))


def test_pymc_on_the_collapsed_model_agrees() -> None:
    tree = draws("collapsed", "pymc")
    assert_contract(tree, "pymc", "collapsed")
    assert_same_posterior(tree, draws("collapsed", "nutpie"))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["numpyro", "blackjax"])
def test_jax_samplers_on_the_collapsed_model_agree(sampler: Sampler) -> None:
    pytest.importorskip(sampler, reason="the extra psymech[jax] brings the samplers that run on JAX")
    tree = draws("collapsed", sampler)
    assert_contract(tree, sampler, "collapsed")
    assert_same_posterior(tree, draws("collapsed", "nutpie"))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["nutpie", "pymc", "numpyro", "blackjax"])
def test_every_sampler_on_the_explicit_model_agrees(sampler: Sampler) -> None:
    if sampler in ("numpyro", "blackjax"):
        pytest.importorskip(sampler, reason="the extra psymech[jax] brings the samplers that run on JAX")
    tree = draws("explicit", sampler)
    assert_contract(tree, sampler, "explicit")
    assert_same_posterior(tree, draws("collapsed", "nutpie"))


def test_two_level_data_have_no_therapist_in_their_tree() -> None:
    data = small_data(1, therapist=False)
    built_ = psm.build_model(psm.growth("y"), data)
    tree = psm.sample(built_, draws=50, tune=100, chains=2, seed=1, progressbar=False)
    names = {str(n) for group in tree.children.values() for n in (*group.dataset.variables, *group.dataset.dims)}
    assert not [n for n in names if "therapist" in n]


def test_fit_warns_where_the_draws_are_not_to_be_trusted() -> None:
    with pytest.warns(psm.SamplingWarning):
        tree = psm.fit(SPEC, small_data(1), draws=10, tune=10, chains=2, seed=1, progressbar=False)
    assert tree["posterior"].sizes["draw"] == 10


def test_without_a_seed_one_is_drawn_and_kept() -> None:
    options: dict = {"draws": 5, "tune": 20, "chains": 1, "progressbar": False}
    tree = psm.sample(built("collapsed"), **options)
    again = psm.sample(built("collapsed"), **options, seed=int(tree.attrs["seed"]))
    np.testing.assert_array_equal(tree["posterior"]["beta"], again["posterior"]["beta"])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"sampler": "stan"}, "sampler: expected one of 'nutpie', 'pymc', 'numpyro', 'blackjax', found 'stan'"),
        ({"draws": 0}, "draws: expected a whole number above zero, found 0"),
        ({"tune": 0}, "tune: expected a whole number above zero, found 0"),
        ({"chains": 2.5}, "chains: expected a whole number above zero, found 2.5"),
    ],
)
def test_impossible_requests_are_refused_before_anything_compiles(keywords: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        psm.sample(built("collapsed"), **keywords)


def test_engines_are_chosen_and_refused_with_reasons() -> None:
    assert psm.build_model(SPEC, small_data(1)).engine == "collapsed"
    student = psm.growth("y", family="student")
    chosen = psm.build_model(student, small_data(1))
    assert chosen.engine == "explicit"
    assert "the family is 'student', not 'gaussian'" in chosen.reason
    with pytest.raises(psm.NotCollapsibleError, match="the family is 'student', not 'gaussian'"):
        psm.build_model(student, small_data(1), engine="collapsed")
    frame = small_frame(4)
    frame["therapist"] = [f"T{k}" for k in np.random.default_rng(4).integers(0, 6, size=len(frame))]
    crossed = psm.SessionData.from_frame(frame, patient_ids="crossed", ranges=FREE)
    assert "patients are crossed with therapists" in psm.build_model(psm.growth("y"), crossed).reason
    with pytest.raises(SpecError, match="engine: expected one of 'auto', 'collapsed', 'explicit', found 'fast'"):
        psm.build_model(SPEC, small_data(1), engine="fast")  # pyright: ignore[reportArgumentType]


def test_design_warnings_are_issued_and_errors_raised_before_anything_compiles() -> None:
    lonely = pd.concat([small_frame(1), pd.DataFrame([("T0", "T0P9", 1, 0.0, 8.0)], columns=small_frame(1).columns)])
    with pytest.warns(psm.DesignWarning, match="1 of 25 patients have only one session: T0P9"):
        psm.build_model(SPEC, psm.SessionData.from_frame(lonely, ranges=FREE))
    two = small_frame(1).query("therapist in ['T0', 'T1']")
    with pytest.raises(psm.DesignError, match="A variance needs at least 3 therapists"):
        psm.build_model(SPEC, psm.SessionData.from_frame(two, ranges=FREE))
