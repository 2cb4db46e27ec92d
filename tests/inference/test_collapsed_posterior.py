"""Posteriors of the collapsed engine: beside the explicit graph's, and where a true variance is zero."""

import numpy as np
import pytest
import xarray as xr
from arviz_stats.sampling_diagnostics import ess, mcse, rhat

import psymech as psm
from psymech.simulation import Sizes, simulate
from psymech.spec.model import ModelSpec
from tests.graph.collapsed_cases import two_responses
from tests.inference.studies import FREE, small_frame

STANDARD_ERRORS = 4.0  # of the difference of two Monte Carlo means; seeds are fixed
RHAT = 1.01
NEAR_ZERO = 0.1  # share of the residual SD: a therapist SD of this size is 1% of the variance of a session
SAMPLE_DIMS = ["chain", "draw"]

LONG: dict[str, object] = {"seed": 2, "draws": 4000, "tune": 2000}  # the explicit graph mixes several times slower
GROWTH = psm.growth("y", random={"patient": ["time"], "therapist": []})


def study(seed: int = 5) -> psm.SessionData:
    frame = small_frame(seed, therapists=8, patients=4, sessions=5)
    frame["w"] = 0.3 * frame["y"] + np.random.default_rng(seed).normal(size=len(frame))
    return psm.SessionData.from_frame(frame, therapist="therapist", ranges=FREE | {"w": None})


def fit(spec: ModelSpec, data: psm.SessionData, **keywords: object) -> xr.DataTree:
    options = {"seed": 1, "progressbar": False, "target_accept": 0.95} | keywords
    return psm.fit(spec, data, **options)  # pyright: ignore[reportArgumentType]


def assert_same_posterior(one: xr.DataTree, two: xr.DataTree) -> None:
    """Means and SDs of every variable agree within Monte Carlo error."""
    a, b = one["posterior"].dataset, two["posterior"].dataset
    assert set(a.data_vars) == set(b.data_vars)
    for name in a.data_vars:
        assert a[name].dims == b[name].dims
        for power in (1, 2):
            x, y = a[name] ** power, b[name] ** power
            error = np.hypot(mcse(x, sample_dims=SAMPLE_DIMS), mcse(y, sample_dims=SAMPLE_DIMS))
            moved = np.abs(x.mean(SAMPLE_DIMS) - y.mean(SAMPLE_DIMS))
            constant = (x.std(SAMPLE_DIMS) == 0) & (y.std(SAMPLE_DIMS) == 0)  # the diagonal of a correlation matrix
            good = (moved < STANDARD_ERRORS * error) | (constant & (moved == 0))
            assert bool(good.all()), (name, power, moved.values, error.values)


@pytest.mark.sampling
def test_growth_has_the_posterior_of_the_explicit_graph() -> None:
    data = study()
    assert_same_posterior(fit(GROWTH, data), fit(GROWTH, data, engine="explicit", **LONG))


PROCESS = psm.process(
    "y", techniques=["x"], slopes={"patient": ["x"], "therapist": ["x"]}, priors={"sd_therapist": psm.HalfNormal(1.0)}
)
AR1 = psm.growth("y", random={"patient": [], "therapist": []}, residual="ar1", priors={"sigma": psm.Exponential(2.0)})


@pytest.mark.slow
@pytest.mark.parametrize("spec", [PROCESS, AR1, two_responses()], ids=["process", "ar1", "two responses"])
def test_other_models_have_the_posterior_of_the_explicit_graph(spec: ModelSpec) -> None:
    data = study()
    assert_same_posterior(fit(spec, data), fit(spec, data, engine="explicit", **LONG))


@pytest.mark.slow
def test_graph_of_the_engine_has_the_posterior_of_the_fused_target() -> None:
    # A prior that is all but normal keeps the fixed effects in the graph, which nutpie then compiles.
    data = study()
    normal, nearly = psm.Normal(0.0, 2.0), psm.StudentT(1e6, 0.0, 2.0)
    one, two = (
        psm.growth("y", random={"patient": ["time"], "therapist": []}, priors={"beta[time]": prior})
        for prior in (normal, nearly)
    )
    assert_same_posterior(fit(one, data), fit(two, data, seed=2))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["pymc", "numpyro", "blackjax"])
def test_every_sampler_has_the_same_posterior(sampler: str) -> None:
    data = study()
    assert_same_posterior(fit(GROWTH, data), fit(GROWTH, data, sampler=sampler, seed=2))


@pytest.mark.sampling
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_no_difference_between_eight_therapists_is_found_without_trouble(seed: int) -> None:
    made = simulate(
        GROWTH, sizes=Sizes(therapists=8, patients=6, sessions=8), truth={"sd_therapist[Intercept]": 0.0}, seed=seed
    )
    tree = psm.fit(GROWTH, made.data(), seed=seed, progressbar=False)
    draws = tree["posterior"].dataset
    assert int(tree["sample_stats"]["diverging"].sum()) == 0
    for name in ("sd_therapist", "sd_patient", "sigma", "beta"):
        assert float(rhat(draws[name], sample_dims=SAMPLE_DIMS).max()) <= RHAT, name
        assert float(ess(draws[name], sample_dims=SAMPLE_DIMS, method="tail").min()) > 400, name
    sd = draws["sd_therapist"].values.ravel()
    low, high = np.quantile(sd, [0.055, 0.945])
    assert low < NEAR_ZERO * float(made.truth["sigma"]) < high
    # The posterior reaches zero itself: no gap, as a log scale would leave or an endless tail would fill.
    assert 1e-6 < sd.min() < 0.01 * float(made.truth["sigma"])
