"""The explicit model's log density against one written with NumPy and SciPy, on drawn designs."""

from dataclasses import replace

import numpy as np
import pymc as pm
import pytest
from hypothesis import HealthCheck, event, given, settings

import psymech as psm
from psymech.errors import SpecError
from psymech.graph.explicit import positive_sigma
from tests.graph.explicit_designs import MODE, Case, gaussian_cases, make_case, ragged_study, session_data
from tests.oracles import central_differences, dense_conditional, dense_marginal, explicit_log_joint

DENSITY_TOLERANCE = 1e-9  # relative to 1 + |log p|: rounding of sums of some hundred terms, with room
GRADIENT_TOLERANCE = 1e-5  # relative: central differences with steps of 1e-5 lose about ten digits of sixteen
STEP = 1e-5
EXAMPLES = 15


def relative(found: float, expected: float) -> float:
    return abs(found - expected) / (1 + abs(expected))


def log_density(case: Case) -> float:
    return float(case.model.compile_logp(mode=MODE)(case.point))


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(case=gaussian_cases())
def test_joint_density_and_marginal_density_equal_the_dense_normal(case: Case) -> None:
    event(f"{len(case.design.levels)} levels, {case.design.residual}, centred {sorted(case.centred.items())}")
    found = log_density(case)
    parts, values = explicit_log_joint(case.design, case.priors, case.point, centred=case.centred)
    assert relative(found, parts.joint) < DENSITY_TOLERANCE

    # Log p(y, u | theta) - log p(u | y, theta) is the density of y alone, whatever u is.
    marginal = dense_marginal(case.design, values)
    if len(set(case.centred.values())) == 1:
        centred = all(case.centred.values())
        names = [("u_" if centred else "z_") + level.level for level in case.design.levels]
        stacked = np.concatenate([np.ravel(case.point[name]) for name in names])
        conditional = dense_conditional(case.design, values, stacked, standardised=not centred)
        assert relative(found - parts.theta - conditional, marginal) < DENSITY_TOLERANCE


@settings(max_examples=4, suppress_health_check=[HealthCheck.too_slow])
@given(case=gaussian_cases())
def test_gradient_equals_central_differences(case: Case) -> None:
    assert_gradient(case)


def assert_gradient(case: Case) -> None:
    found = np.asarray(case.model.compile_dlogp(mode=MODE)(case.point))
    expected = central_differences(case.model, case.point, step=STEP, mode=MODE)
    scale = 1 + np.abs(expected)
    assert found.shape == (len(expected),)
    np.testing.assert_allclose(found / scale, expected / scale, atol=GRADIENT_TOLERANCE, rtol=0)


def family_case(family: str, seed: int, **keywords: object) -> Case:
    rng = np.random.default_rng(seed)
    frame = ragged_study(rng, 2)
    match family:
        case "bernoulli":
            frame["y"] = (frame["y"] > 4).astype(float)
        case "ordinal":
            frame["y"] = np.digitize(frame["y"], [2, 4, 6]) + 1.0
    spec = psm.process(
        "y",
        covariates=["x", "w"],
        decompose="none",
        slopes={"patient": ["x"], "therapist": ["x"]},
        family=family,  # pyright: ignore[reportArgumentType]
        **keywords,  # pyright: ignore[reportArgumentType]
    )
    return make_case(spec, session_data(frame, 2), rng)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("family", ["student", "bernoulli", "ordinal"])
def test_families_equal_scipy(family: str, centred: bool, seed: int) -> None:
    case = family_case(family, seed, centred={"patient": centred, "therapist": not centred})
    assert case.centred == {"patient": centred, "therapist": not centred}
    parts, _ = explicit_log_joint(case.design, case.priors, case.point, centred=case.centred)
    assert relative(log_density(case), parts.joint) < DENSITY_TOLERANCE


@pytest.mark.parametrize("family", ["student", "bernoulli", "ordinal"])
def test_gradients_of_the_families(family: str) -> None:
    assert_gradient(family_case(family, 3))


def test_two_ordinal_categories_have_one_threshold() -> None:
    rng = np.random.default_rng(5)
    frame = ragged_study(rng, 2)
    frame["y"] = (frame["y"] > 4) + 1.0
    case = make_case(psm.growth("y", family="ordinal"), session_data(frame, 2), rng)
    assert case.model.coords["threshold"] == ("1|2",)
    parts, _ = explicit_log_joint(case.design, case.priors, case.point, centred=case.centred)
    assert relative(log_density(case), parts.joint) < DENSITY_TOLERANCE


def test_crossed_patients_with_ar1_residuals() -> None:
    # Rows of one patient are apart in the table, and the later session may stand above the earlier one.
    rng = np.random.default_rng(8)
    frame = ragged_study(rng, 2)
    crossed = frame.assign(therapist=rng.permutation(frame["therapist"].to_numpy()))
    data = psm.SessionData.from_frame(crossed, patient_ids="crossed", ranges={"y": None})
    case = make_case(psm.growth("y", random={"patient": ["time"]}, residual="ar1"), data, rng)
    assert not case.design.nested
    assert np.any(case.design.previous > np.arange(case.design.n_obs))
    parts, _ = explicit_log_joint(case.design, case.priors, case.point, centred=case.centred)
    assert relative(log_density(case), parts.joint) < DENSITY_TOLERANCE


def test_likelihood_does_not_depend_on_row_order_or_on_ids() -> None:
    rng = np.random.default_rng(11)
    frame = ragged_study(rng, 2)
    spec = psm.growth("y", random={"patient": ["time"], "therapist": ["time"]}, residual="ar1")
    renamed = {p: f"Z{i:03d}" for i, p in enumerate(sorted(frame["patient"].unique()))}  # keeps the order of ids
    other = frame.sample(frac=1, random_state=3).assign(patient=lambda f: f["patient"].map(renamed))
    case = make_case(spec, session_data(frame, 2), rng)
    again = make_case(spec, session_data(other, 2), rng)
    found = float(again.model.compile_logp(mode=MODE)(case.point))
    assert relative(found, log_density(case)) < DENSITY_TOLERANCE


def test_built_model_can_be_extended_by_hand() -> None:
    rng = np.random.default_rng(12)
    case = make_case(psm.growth("y"), session_data(ragged_study(rng, 2), 2), rng)
    before = log_density(case)
    with case.model:
        pm.Potential("penalty", -3.0 * case.model["sigma"])
    sigma = float(np.exp(case.point["sigma_log__"]))
    assert relative(log_density(case), before - 3.0 * sigma) < DENSITY_TOLERANCE


def test_model_names_dims_and_coords() -> None:
    rng = np.random.default_rng(13)
    spec = psm.growth("y", random={"patient": ["time"], "therapist": []})
    case = make_case(spec, session_data(ragged_study(rng, 3), 3), rng)
    dims = case.model.named_vars_to_dims
    assert dims["u_patient"] == ("patient", "patient_term")
    assert dims["corr_patient"] == ("patient_term", "patient_term_aux")
    assert dims["sd_clinic"] == ("clinic_term",)
    assert dims["beta"] == ("term",)
    assert "corr_therapist" not in case.model.named_vars
    assert case.model.coords["patient_term"] == ("Intercept", "time")
    assert case.model.coords["clinic"] == ("C0", "C1", "C2")
    assert list(case.model.coords["patient"]) == [str(p) for p in case.design.levels[0].labels]


def test_sigma_priors_of_several_families_are_refused() -> None:
    rng = np.random.default_rng(14)
    case = make_case(psm.growth("y"), session_data(ragged_study(rng, 2), 2), rng)
    mixed = replace(case.priors, sigma=(psm.HalfNormal(1.0), psm.Exponential(1.0)))
    with pytest.raises(SpecError, match="of one family for all responses"):
        positive_sigma(case.design, mixed)
