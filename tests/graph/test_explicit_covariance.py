"""The prior of scales and correlations: partial correlations are LKJ, signed scales have the stated SD priors."""

import numpy as np
import pymc as pm
import pytensor
import pytest
from scipy import stats

import psymech as psm
from psymech.graph.variables import correlation_factor, covariance_factor, positive_scales, signed_scales
from tests.graph.explicit_designs import MODE
from tests.oracles import by_family, correlation_matrix, lkj_log_normaliser, scale_log_pdf

DENSITY_TOLERANCE = 1e-9  # the densities are closed forms on both sides
NUMERIC_TOLERANCE = 1e-6  # the change of variables is differentiated numerically
HALF_STUDENT_TOLERANCE = 1e-8  # a constant: PyMC's half-Student density carries log 2 to nine digits
DRAWS = 4000
REJECT_BELOW = 1e-3  # p value of a Kolmogorov-Smirnov test at a fixed seed; deterministic until a dependency changes
STEP = 1e-6


def correlation_model(q: int, eta: float) -> tuple[pm.Model, object]:
    with pm.Model() as model:
        factor = correlation_factor("partial", psm.LKJ(eta), q)
        pm.Deterministic("R", factor @ factor.T)
    return model, factor


@pytest.mark.parametrize("eta", [0.7, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("q", [2, 3, 4])
def test_density_of_the_correlation_matrix_is_lkj(q: int, eta: float) -> None:
    model, _ = correlation_model(q, eta)
    (value,) = model.value_vars
    rng = np.random.default_rng(q)
    logits = rng.normal(size=q * (q - 1) // 2)
    matrix = pytensor.function([value], model.replace_rvs_by_values([model["R"]])[0], mode=MODE)
    logp = model.compile_logp(mode=MODE)
    lower = np.tril_indices(q, -1)

    R = matrix(logits)
    np.testing.assert_allclose(R, correlation_matrix(2 / (1 + np.exp(-logits)) - 1, q), atol=1e-12)
    jacobian = np.column_stack(
        [
            (matrix(logits + step)[lower] - matrix(logits - step)[lower]) / (2 * STEP)
            for step in STEP * np.eye(logits.size)
        ]
    )
    density = float(logp({str(value.name): logits})) - np.linalg.slogdet(jacobian)[1]
    expected = (eta - 1) * np.linalg.slogdet(R)[1] - lkj_log_normaliser(q, eta)
    assert abs(density - expected) < NUMERIC_TOLERANCE * (1 + abs(expected))


@pytest.mark.parametrize(("q", "eta"), [(2, 2.0), (4, 2.0), (3, 1.0)])
def test_every_correlation_has_the_same_beta_prior(q: int, eta: float) -> None:
    model, _ = correlation_model(q, eta)
    draws = pm.draw(model["R"], draws=DRAWS, random_seed=1, mode=MODE)
    a = eta - 1 + q / 2
    for i, j in zip(*np.tril_indices(q, -1), strict=True):
        p = stats.kstest((draws[:, i, j] + 1) / 2, stats.beta(a, a).cdf).pvalue
        assert p > REJECT_BELOW, (i, j)
    assert np.abs(np.diagonal(draws, axis1=1, axis2=2) - 1).max() < 1e-12


PRIORS = {
    "half-normal": (psm.HalfNormal(0.7), psm.HalfNormal(3.0)),
    "half-Student": (psm.HalfStudentT(3.0, 1.0), psm.HalfStudentT(7.0, 0.4)),
    "exponential": (psm.Exponential(0.5), psm.Exponential(2.0)),
    "mixed": (psm.HalfNormal(0.7), psm.Exponential(2.0), psm.HalfNormal(1.1), psm.HalfStudentT(3.0, 1.0)),
}


@pytest.mark.parametrize("chosen", PRIORS.values(), ids=PRIORS.keys())
def test_signed_scales_have_exactly_the_stated_prior_of_the_sd(chosen: tuple) -> None:
    with pm.Model() as model:
        pm.Deterministic("t", signed_scales("scale", chosen))
    rng = np.random.default_rng(3)
    point = {name: rng.normal(size=np.shape(start)) for name, start in model.initial_point().items()}
    t = by_family(point, "scale", chosen)
    # Both signs of t give one SD, so the density of t is half of that of |t|.
    expected = sum(scale_log_pdf(p, abs(x)) - np.log(2) for p, x in zip(chosen, t, strict=True))
    assert abs(float(model.compile_logp(mode=MODE)(point)) - expected) < DENSITY_TOLERANCE
    order = pytensor.function(model.value_vars, model.replace_rvs_by_values([model["t"]])[0], mode=MODE)
    np.testing.assert_array_equal(order(*(point[str(v.name)] for v in model.value_vars)), t)


@pytest.mark.parametrize("chosen", PRIORS.values(), ids=PRIORS.keys())
def test_positive_scales_have_the_same_prior(chosen: tuple) -> None:
    with pm.Model() as model:
        positive_scales("scale", chosen)
    rng = np.random.default_rng(4)
    point = {name: rng.normal(size=np.shape(start)) for name, start in model.initial_point().items()}
    logs = by_family(point, "scale", chosen, "_log__")
    expected = sum(scale_log_pdf(p, np.exp(x)) + x for p, x in zip(chosen, logs, strict=True))
    tolerance = HALF_STUDENT_TOLERANCE if any(isinstance(p, psm.HalfStudentT) for p in chosen) else DENSITY_TOLERANCE
    assert abs(float(model.compile_logp(mode=MODE)(point)) - expected) < tolerance


def test_flipping_a_sign_with_its_correlations_leaves_the_covariance_unchanged() -> None:
    chosen = (psm.HalfNormal(1.0), psm.HalfNormal(1.0))
    with pm.Model() as model:
        factor = covariance_factor("patient", chosen, psm.LKJ(2.0), signed=True)
        pm.Deterministic("covariance", factor @ factor.T)
    covariance = pytensor.function(model.value_vars, model.replace_rvs_by_values([model["covariance"]])[0], mode=MODE)
    logp = model.compile_logp(mode=MODE)
    at = {"scale_patient": np.array([0.4, 1.3]), "partial_patient_logodds__": np.array([0.8])}
    mirrored = {"scale_patient": np.array([0.4, -1.3]), "partial_patient_logodds__": np.array([-0.8])}
    order = [str(v.name) for v in model.value_vars]
    np.testing.assert_allclose(
        covariance(*(at[n] for n in order)), covariance(*(mirrored[n] for n in order)), rtol=1e-14
    )
    assert abs(float(logp(at)) - float(logp(mirrored))) < DENSITY_TOLERANCE


def test_the_covariance_reaches_zero_smoothly() -> None:
    chosen = (psm.HalfNormal(1.0), psm.HalfNormal(1.0))
    with pm.Model() as model:
        covariance_factor("patient", chosen, psm.LKJ(2.0), signed=True)
    gradient = model.compile_dlogp(mode=MODE)
    found = gradient({"scale_patient": np.array([0.0, 0.0]), "partial_patient_logodds__": np.array([0.0])})
    np.testing.assert_array_equal(found, np.zeros(3))
