"""Stacked responses in both engines, against one multivariate normal of all rows written from its definition."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from numpy.typing import NDArray
from scipy import linalg, stats

import psymech as psm
from psymech.design import make_design
from psymech.errors import DesignError
from psymech.gaussian.loglik import log_likelihood
from psymech.gaussian.patterns import by_pattern
from psymech.graph.collapsed import collapsed_model
from psymech.graph.crossing import make_crossing
from psymech.graph.explicit import explicit_model
from psymech.inference.collapsed import unpack
from psymech.priors import choose_priors
from psymech.spec.model import ModelSpec
from tests.graph.collapsed_cases import (
    CollapsedCase,
    beta_moments,
    central_differences,
    make_case,
    reference_value_and_grad,
)

Floats = NDArray[np.float64]
EXACT = 1e-9  # relative; sums of a few hundred terms in another order
SLOPE_STEP, SLOPE_ERROR = 1e-5, 1e-6  # central differences of a value of a few hundred
LOG_LIK_ERROR = 1e-5  # eight decimals are stored
GOLDEN = Path(__file__).parent / "golden"
MODE = "FAST_COMPILE"


@pytest.fixture(scope="module")
def data() -> psm.SessionData:
    """Four therapists, ragged; m and y each missing in some sessions, one score a patient, one trait a therapist."""
    rng = np.random.default_rng(2)
    rows = [
        (f"T{k}", f"P{k}{i}", t)
        for k in range(4)
        for i in range(int(rng.integers(2, 4)))
        for t in range(1, int(rng.integers(3, 6)))
    ]
    frame = pd.DataFrame(rows, columns=["therapist", "patient", "session"])
    frame = frame.assign(**{name: 2 + rng.normal(size=len(frame)) for name in "xmy"})
    frame["post"] = frame["patient"].map({p: rng.normal() for p in frame["patient"].unique()})
    frame["trait"] = frame["therapist"].map({k: rng.normal() for k in frame["therapist"].unique()})
    frame.loc[[1, 8], "y"] = np.nan
    return psm.SessionData.from_frame(frame)


@pytest.fixture(scope="module")
def holed(data: psm.SessionData) -> psm.SessionData:
    sessions = data.sessions.copy()
    sessions.loc[[0, 5, 8], "m"] = np.nan
    return psm.SessionData.from_frame(sessions)


SPECS = {
    "1-1-1": psm.mediation(
        "y", treatment="x", mediators="m", time=None, random={"patient": ("a", "b"), "therapist": ("a",)}
    ),
    "1-1-2": psm.mediation("post", treatment="x", mediators="m", time=None, random={"patient": ("a",)}),
    "latent": psm.mediation("y", treatment="x", mediators="m", time=None, decompose="latent"),
}


def case_of(name: str, data: psm.SessionData, holed: psm.SessionData) -> CollapsedCase:
    return make_case(SPECS[name], holed if name == "latent" else data)


def read_values(case: CollapsedCase, x: Floats) -> dict[str, Floats]:
    return {name: value[0, 0] for name, value in unpack(case.design, case.target, x[None, None]).items()}


def dense_log_likelihood(case: CollapsedCase, values: dict[str, Floats]) -> float:
    """Density of all rows with fixed and random effects integrated out."""
    design = case.design
    sigma = values["sigma"]
    corr = values.get("corr_residual", np.eye(len(sigma)))
    same = design.row[:, None] == design.row[None, :]
    r = design.response
    V = same * (corr * np.outer(sigma, sigma))[r[:, None], r[None, :]]
    for level in design.levels:
        sd = values[f"sd_{level.level}"]
        S = values[f"corr_{level.level}"] * np.outer(sd, sd)
        V = V + (level.code[:, None] == level.code[None, :]) * (level.Z @ S @ level.Z.T)
    mean, spread = beta_moments(case)
    return float(
        stats.multivariate_normal(design.X @ mean, V + design.X @ spread @ design.X.T).logpdf(design.y)  # pyright: ignore
    )


@pytest.mark.parametrize("name", SPECS)
def test_likelihood_is_one_normal_of_all_rows(name: str, data: psm.SessionData, holed: psm.SessionData) -> None:
    case = case_of(name, data, holed)
    rng = np.random.default_rng(3)
    points = 0.4 * rng.normal(size=(2, case.target.n)) + 0.7
    found, wanted = [], []
    for x in points:
        value, _ = reference_value_and_grad(case, x)
        found.append(value - prior_alone(case, x))
        wanted.append(dense_log_likelihood(case, read_values(case, x)))
    np.testing.assert_allclose(found, wanted, rtol=EXACT)


def prior_alone(case: CollapsedCase, x: Floats) -> float:
    """Log prior of the unconstrained values: the PyMC model's, whose variables are declared one by one."""
    with_prior = collapsed_model(case.design, case.priors)
    terms = [rv for rv in with_prior.free_RVs]
    function = with_prior.compile_logp(vars=terms, mode=MODE)
    return float(function(point_of(case, with_prior, x)))


def point_of(case: CollapsedCase, model: pm.Model, x: Floats) -> dict[str, NDArray]:
    """The target's point under the names of the PyMC model."""
    point: dict[str, NDArray] = {}
    k = 0
    blocks = [(lv.level, len(lv.terms), free) for lv, free in zip(case.design.levels, case.target.free, strict=True)]
    if case.target.correlated_residuals:
        n = case.target.n_sigma
        blocks.append(("residual", n, np.ones(n * (n - 1) // 2, dtype=bool)))
    for name, q, free in blocks:
        point[f"scale_{name}"] = x[k : k + q]
        k += q
        if free.sum():
            point[f"partial_{name}_logodds__"] = x[k : k + int(free.sum())]
            k += int(free.sum())
    if not case.target.correlated_residuals:
        point["sigma_log__"] = x[k:]
    assert set(point) == set(model.initial_point())
    return point


@pytest.mark.parametrize("name", SPECS)
def test_pymc_model_states_the_same_density(name: str, data: psm.SessionData, holed: psm.SessionData) -> None:
    case = case_of(name, data, holed)
    model = collapsed_model(case.design, case.priors)
    x = 0.3 * np.random.default_rng(4).normal(size=case.target.n) + 0.7
    value, _ = reference_value_and_grad(case, x)
    assert float(model.compile_logp(mode=MODE)(point_of(case, model, x))) == pytest.approx(value, rel=EXACT)


@pytest.mark.parametrize("name", SPECS)
def test_gradient(name: str, data: psm.SessionData, holed: psm.SessionData) -> None:
    case = case_of(name, data, holed)
    x = 0.3 * np.random.default_rng(5).normal(size=case.target.n) + 0.7
    _, gradient = reference_value_and_grad(case, x)
    found = central_differences(lambda p: reference_value_and_grad(case, p)[0], x, step=SLOPE_STEP)
    np.testing.assert_allclose(gradient, found, rtol=SLOPE_ERROR, atol=SLOPE_ERROR * np.abs(gradient).max())


def test_intercepts_of_mediator_and_outcome_do_not_correlate(data: psm.SessionData) -> None:
    case = make_case(SPECS["1-1-1"], data)
    values = read_values(case, np.random.default_rng(6).normal(size=case.target.n))
    for level in ("patient", "therapist"):
        corr = values[f"corr_{level}"]
        assert corr[0, 1] == 0.0
        assert np.abs(corr[np.triu_indices(len(corr), 2)]).min() > 1e-3
        np.testing.assert_allclose(np.linalg.eigvalsh(corr).min() > 0, True)


@pytest.mark.parametrize("name", ["1-1-1", "1-1-2"])
def test_explicit_rows_have_the_density_of_their_equations(name: str, data: psm.SessionData) -> None:
    spec: ModelSpec = SPECS[name]
    design = make_design(spec, data)
    model = explicit_model(design, choose_priors(spec, design))
    rng = np.random.default_rng(7)
    point = {key: value + 0.3 * rng.normal(size=np.shape(value)) for key, value in model.initial_point().items()}
    replace = [model["beta"], model["sigma"], *(model[f"u_{lv.level}"] for lv in design.levels)]
    transformed = model.replace_rvs_by_values(replace)
    beta, sigma, *effects = model.compile_fn(transformed, mode=MODE, on_unused_input="ignore")(point)
    eta = design.X @ beta
    for level, u in zip(design.levels, effects, strict=True):
        eta = eta + np.sum(level.Z * u[level.code], axis=1)
    wanted = stats.norm.logpdf(design.y, eta, sigma[design.response]).sum()
    found = float(model.compile_logp(vars=[model["y"]], mode=MODE)(point))
    assert found == pytest.approx(wanted, rel=EXACT)


def test_patterns_with_every_response_are_one_covariance() -> None:
    structure = by_pattern([4, 4, 2, 2, 9], [1, 0, 0, 1, 1])
    assert structure.counts.tolist() == [2.0, 1.0]
    theta = np.array([1.2, 0.4, 0.8])
    S = structure.factor(theta) @ structure.factor(theta).T
    value = structure.evaluate(theta)
    assert value.log_det == pytest.approx(2 * np.linalg.slogdet(S)[1] + np.log(S[1, 1]), rel=EXACT)
    np.testing.assert_allclose(structure.coefficients(S), value.coefs)
    slopes = [
        (structure.evaluate(theta + e).coefs - structure.evaluate(theta - e).coefs) / (2 * SLOPE_STEP)
        for e in SLOPE_STEP * np.eye(3)
    ]
    np.testing.assert_allclose(value.d_coefs, np.transpose(slopes), rtol=SLOPE_ERROR, atol=SLOPE_ERROR)
    unit = np.array([0, 0, 1, 1, 1])
    assert structure.log_det_by_unit(theta, unit).sum() == pytest.approx(value.log_det)
    with pytest.raises(DesignError, match="twice in one occasion: 4"):
        by_pattern([4, 4, 2], [0, 0, 1])


def test_log_likelihood_at_estimates_of_nlme() -> None:
    """Stacked equations at three levels; golden/mediation.R made the numbers from golden/mediation_study.csv."""
    golden = json.loads((GOLDEN / "mediation_r.json").read_text())["nlme"]
    study = psm.SessionData.from_frame(pd.read_csv(GOLDEN / "mediation_study.csv"))
    spec = psm.mediation(
        "y",
        treatment="x",
        mediators="m",
        decompose="none",
        time=None,
        random={"patient": ("a", "b"), "therapist": ()},
    )
    design = make_design(spec, study)
    name = {"m~Intercept": "dm", "m~x": "dm:x", "y~Intercept": "dy", "y~x": "x:dy", "y~m": "dy:m"}
    beta = np.array([golden["fixed"][golden["fixed_labels"].index(name[t])] for t in design.terms])
    roots = []
    for level in design.levels:
        order = [golden[f"{level.level}_labels"].index(name[t]) for t in level.terms]
        roots.append(linalg.sqrtm(np.array(golden[level.level])[np.ix_(order, order)]).real)
    crossing = make_crossing(design, choose_priors(spec, design))
    value = crossing.residual.evaluate([golden["sigma"]["m"], golden["sigma"]["y"]])
    found = log_likelihood(crossing.cross, value.coefs, roots, value.log_det, beta=beta)
    assert found == pytest.approx(golden["log_lik"], abs=LOG_LIK_ERROR)
