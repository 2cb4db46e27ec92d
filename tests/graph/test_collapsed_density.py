"""The collapsed log posterior: fused code, PyMC graph and JAX against priors by hand and one dense normal."""

from dataclasses import replace

import numpy as np
import pymc as pm
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

import psymech as psm
from psymech.design import make_design
from psymech.errors import NotCollapsibleError
from psymech.graph.collapsed import collapsed_model, draw_response
from psymech.graph.crossing import make_crossing
from psymech.priors import choose_priors
from psymech.spec.model import ModelSpec
from tests.graph.collapsed_cases import (
    CollapsedCase,
    beta_moments,
    central_differences,
    collapsed_cases,
    dense_covariance,
    dense_log_posterior,
    graph_gradient,
    graph_point,
    make_case,
    read_point,
    reference_value_and_grad,
    two_responses,
)
from tests.graph.explicit_designs import MODE, ragged_study, session_data
from tests.inference.studies import FREE, small_frame
from tests.oracles import dense_log_density, fixed_log_pdf

DENSITY_TOLERANCE = 1e-9  # relative to 1 + |log p|: rounding of sums of some hundred terms, with room
GRADIENT_TOLERANCE = 1e-5  # relative: central differences with steps of 1e-5 lose about ten digits of sixteen
FACES_TOLERANCE = 1e-9  # relative: two orders of summation of the same gradient
STEP = 1e-5
EXAMPLES = 25
DRAWS = 4000
STANDARD_ERRORS = 4.5  # of a Monte Carlo mean; seeds are fixed, so the test is the same every time
SD_TOLERANCE = 0.06  # relative: the SD of 4000 draws of a scale mixture of normals has a standard error below 1.5%


def relative(found: float, expected: float) -> float:
    return abs(found - expected) / (1 + abs(expected))


def assert_close_vectors(found: NDArray, expected: NDArray, tolerance: float) -> None:
    scale = 1 + np.abs(expected)
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance, rtol=0)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(case=collapsed_cases(), seed=st.integers(0, 1000))
def test_value_equals_priors_by_hand_and_the_dense_normal(case: CollapsedCase, seed: int) -> None:
    event(f"{len(case.design.levels)} levels, {case.design.residual}, {len(case.design.responses)} responses")
    x = case.draw_point(np.random.default_rng(seed))
    assert relative(reference_value_and_grad(case, x)[0], dense_log_posterior(case, x)) < DENSITY_TOLERANCE


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(case=collapsed_cases(), seed=st.integers(0, 1000))
def test_gradient_equals_central_differences(case: CollapsedCase, seed: int) -> None:
    x = case.draw_point(np.random.default_rng(seed))
    expected = central_differences(lambda at: reference_value_and_grad(case, at)[0], x, step=STEP)
    assert_close_vectors(reference_value_and_grad(case, x)[1], expected, GRADIENT_TOLERANCE)


# One case a shape that compiles: the shapes are few because each costs seconds.
def growth_case(*, seed: int = 3) -> CollapsedCase:
    spec = psm.growth("y", random={"patient": ["time"], "therapist": []})
    return make_case(spec, session_data(ragged_study(np.random.default_rng(seed), 2), 2))


def ar1_clinics_case() -> CollapsedCase:
    spec = psm.growth(
        "y",
        random={"patient": []},
        residual="ar1",
        priors={
            "sd_clinic": psm.Exponential(0.7),
            "sd_therapist": psm.HalfStudentT(4.0, 1.0),
            "phi": psm.SymmetricBeta(3.0),
        },
    )
    return make_case(spec, session_data(ragged_study(np.random.default_rng(4), 3), 3))


def responses_case() -> CollapsedCase:
    spec = two_responses(therapists=False, priors={"sigma": psm.HalfStudentT(4.0, 1.5)})
    return make_case(spec, session_data(ragged_study(np.random.default_rng(5), 1), 1))


CASES = {"growth": growth_case, "ar1 in clinics": ar1_clinics_case, "two responses": responses_case}


def scale_places(case: CollapsedCase) -> NDArray[np.int64]:
    named = graph_point(case, np.arange(case.target.n, dtype=float))
    return np.concatenate([place for name, place in named.items() if name.startswith("scale_")]).astype(int)


@pytest.fixture(
    scope="module", params=["growth", "ar1 in clinics", pytest.param("two responses", marks=pytest.mark.slow)]
)
def case(request: pytest.FixtureRequest) -> CollapsedCase:
    return CASES[request.param]()


@pytest.fixture(scope="module")
def model(case: CollapsedCase) -> pm.Model:
    return collapsed_model(case.design, case.priors)


def test_compiled_target_equals_dense_density_also_at_zero_scales(case: CollapsedCase) -> None:
    rng = np.random.default_rng(1)
    for zeros in (0, 1, sum(case.target.q)):
        x = case.draw_point(rng)
        x[scale_places(case)[:zeros]] = 0.0
        value, gradient = case.target.value_and_grad(x)
        assert relative(value, dense_log_posterior(case, x)) < DENSITY_TOLERANCE
        expected = central_differences(lambda at: dense_log_posterior(case, at), x, step=STEP)
        # An exponential prior has a kink at zero; there the middle of both sides is meant, as in the differences.
        assert_close_vectors(gradient, expected, GRADIENT_TOLERANCE)


def test_graph_equals_the_fused_target(case: CollapsedCase, model: pm.Model) -> None:
    logp, dlogp = model.compile_logp(mode=MODE), model.compile_dlogp(mode=MODE)
    names = [str(v.name) for v in model.continuous_value_vars]
    rng = np.random.default_rng(2)
    for zero in (False, True):
        x = case.draw_point(rng)
        x[0] = 0.0 if zero else x[0]
        point = graph_point(case, x)
        assert set(point) == set(names)
        value, gradient = case.target.value_and_grad(x)
        assert relative(float(logp(point)), value) < DENSITY_TOLERANCE
        ends = np.cumsum([np.size(point[name]) for name in names])
        flat = np.split(np.asarray(dlogp(point)), ends[:-1])
        by_name = {name: part.reshape(np.shape(point[name])) for name, part in zip(names, flat, strict=True)}
        assert_close_vectors(graph_gradient(case, by_name), gradient, FACES_TOLERANCE)


def test_jax_equals_the_fused_target(case: CollapsedCase, model: pm.Model) -> None:
    jax = pytest.importorskip("jax")
    from pymc.sampling.jax import get_jaxified_logp

    import psymech.graph.ops_jax  # noqa: F401 - registers the operators with JAX

    names = [str(v.name) for v in model.value_vars]
    x = case.draw_point(np.random.default_rng(3))
    point = graph_point(case, x)
    with jax.enable_x64(True):
        logp = get_jaxified_logp(model)  # PyMC's name for the sign is misleading: by default it is the log density
        value, gradient = jax.jit(jax.value_and_grad(logp))([np.asarray(point[name], dtype=float) for name in names])
    expected, expected_gradient = case.target.value_and_grad(x)
    assert relative(float(value), expected) < DENSITY_TOLERANCE
    by_name = dict(zip(names, map(np.asarray, gradient), strict=True))
    assert_close_vectors(graph_gradient(case, by_name), expected_gradient, FACES_TOLERANCE)


def test_flipping_a_scale_with_its_correlations_changes_nothing() -> None:
    case = growth_case()
    x = case.draw_point(np.random.default_rng(4))
    mirrored = x.copy()
    mirrored[[1, 2]] *= -1  # the SD of the slope and its correlation with the intercept
    assert relative(case.target.value_and_grad(mirrored)[0], case.target.value_and_grad(x)[0]) < DENSITY_TOLERANCE
    other = x.copy()
    other[1] *= -1
    assert relative(case.target.value_and_grad(other)[0], case.target.value_and_grad(x)[0]) > DENSITY_TOLERANCE


def test_response_can_be_replaced_without_rebuilding(case: CollapsedCase, model: pm.Model) -> None:
    other = np.random.default_rng(6).normal(2, 3, case.design.n_obs)
    x = case.draw_point(np.random.default_rng(7))
    found = float(pm.observe(model, {"y": other}).compile_logp(mode=MODE)(graph_point(case, x)))
    assert relative(found, dense_log_posterior(case, x, other)) < DENSITY_TOLERANCE
    assert relative(found, dense_log_posterior(case, x)) > DENSITY_TOLERANCE


def spec_with_heavy_tails() -> ModelSpec:
    return psm.growth(
        "y", random={"patient": ["time"], "therapist": []}, priors={"beta[time]": psm.StudentT(3.0, -0.5, 1.5)}
    )


def test_fixed_effects_with_other_priors_stay_in_the_model() -> None:
    data = session_data(ragged_study(np.random.default_rng(3), 2), 2)
    design = make_design(spec_with_heavy_tails(), data)
    priors = choose_priors(spec_with_heavy_tails(), design)
    assert make_crossing(design, priors).beta_prior is None
    plain = growth_case()  # the same design
    case = replace(plain, design=design, priors=priors)
    model = collapsed_model(design, priors)
    x = case.draw_point(np.random.default_rng(8))
    standard = np.array([0.3, -0.7])
    families = ("fixed_Normal", "fixed_StudentT")
    point = graph_point(case, x) | {name: np.array([s]) for name, s in zip(families, standard, strict=True)}
    free = np.array([p.mean + p.sd * s for p, s in zip(priors.beta, standard, strict=True)])
    beta = free - [free[1] * design.X[:, 1].mean(), 0.0]
    values = read_point(case, x)
    expected = values.prior + dense_log_density(design.y, design.X @ beta, dense_covariance(design, values))
    expected += sum(fixed_log_pdf(p, b) + np.log(p.sd) for p, b in zip(priors.beta, free, strict=True))
    assert relative(float(model.compile_logp(mode=MODE)(point)), expected) < DENSITY_TOLERANCE


def test_prior_predictive_has_the_moments_of_the_model() -> None:
    spec = psm.growth(
        "y",
        random={"patient": ["time"], "therapist": []},
        priors={
            "beta": psm.Normal(2.0, 1.0),
            "sd_patient": psm.HalfNormal(1.0),
            "sd_therapist": psm.HalfNormal(0.5),
            "sigma": psm.HalfNormal(2.0),
        },
    )
    case = make_case(spec, session_data(ragged_study(np.random.default_rng(9), 2), 2))
    model = collapsed_model(case.design, case.priors)
    y = pm.draw(model["y"], draws=DRAWS, random_seed=3, mode=MODE)
    mean, covariance = beta_moments(case)
    X, z = case.design.X, case.design.levels[0].Z
    # E[sd^2] = scale^2 for a half-normal, and correlations have mean zero.
    variance = np.diag(X @ covariance @ X.T) + (z**2).sum(axis=1) + 0.25 + 4.0
    assert (np.abs(y.mean(axis=0) - X @ mean) < STANDARD_ERRORS * np.sqrt(variance / DRAWS)).all()
    np.testing.assert_allclose(y.std(axis=0), np.sqrt(variance), rtol=SD_TOLERANCE)


def test_draws_given_the_parameters_have_the_dense_covariance() -> None:
    case = ar1_clinics_case()
    x = case.draw_point(np.random.default_rng(10))
    values = read_point(case, x)
    mean, beta_covariance = beta_moments(case)
    X = case.design.X
    covariance = dense_covariance(case.design, values) + X @ beta_covariance @ X.T
    assert case.crossing.beta_prior is not None
    rng = np.random.default_rng(11)
    theta = np.append(values.sigma, values.phi)
    arguments = (case.design, *case.crossing.beta_prior, theta, values.factors, rng)
    draws = np.array([draw_response(*arguments, integrate=True) for _ in range(DRAWS)])
    lower = np.linalg.cholesky(covariance)
    white = np.linalg.solve(lower, (draws - X @ mean).T)  # independent standard normals, if all is right
    n = white.shape[0]
    assert (np.abs(white.mean(axis=1)) < STANDARD_ERRORS / np.sqrt(DRAWS)).all()
    second = white @ white.T / DRAWS - np.eye(n)
    assert np.abs(second).max() < STANDARD_ERRORS * np.sqrt(2 / DRAWS)
    assert stats.kstest((white**2).sum(axis=0), stats.chi2(n).cdf).pvalue > 1e-3


def test_a_design_that_is_not_exact_is_refused() -> None:
    frame = small_frame(1, therapists=10)
    crossed = frame.assign(therapist=np.random.default_rng(1).permutation(frame["therapist"].to_numpy()))
    data = psm.SessionData.from_frame(crossed, patient_ids="crossed", ranges=FREE)
    with pytest.raises(NotCollapsibleError, match="crossed"):
        psm.build_model(psm.growth("y", random={"patient": []}), data, engine="collapsed")
