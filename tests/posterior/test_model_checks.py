"""check_model(): a right model passes, and each fault is found by the check that is meant for it."""

import json

import numpy as np
import pytest
import xarray as xr

from psymech import names
from psymech.posterior import tree as read
from psymech.posterior.discrepancies import departure_from_normal, unit_means
from psymech.posterior.model_checks import check_model
from psymech.posterior.prior_weight import log_density, prior_variance, prior_weight, rescaled, reweighted_mean
from psymech.posterior.replicates import chunks, draw_outcome, linear, rows_of
from psymech.spec.priors import Exponential, HalfNormal, HalfStudentT, to_dict
from tests.posterior.fitted_trees import make_tree

SEED = 7
MC_SE = 4.0  # standard errors of a Monte Carlo mean: one false alarm in 16,000


def exact_tree(
    *,
    noise: str = "normal",
    residual: str = "iid",
    family: str = "gaussian",
    therapist_factor: float = 1.0,
    outlier: float = 0.0,
    n_therapists: int = 30,
) -> xr.DataTree:
    """A tree whose draws all are the truth: replicates follow the data's own law; `noise` and the rest break it."""
    made = make_tree(
        n_therapists=n_therapists,
        patients_each=6,
        sessions_each=12,
        chains=2,
        draws=200,
        residual=residual,
        family=family,
    )
    rng = np.random.default_rng(SEED)
    groups = {node.path: node.to_dataset(inherit=False) for node in made.subtree}
    posterior = groups["/posterior"]
    fixed = {name: posterior[name].isel(chain=[0], draw=[0]) for name in posterior.data_vars}
    new = {}
    for name, value in fixed.items():
        values = np.broadcast_to(value.values[0, 0], posterior[name].shape).copy()
        new[name] = (posterior[name].dims, values)
    for level in ("patient", "therapist"):
        omega = read.covariance(made, level)[0, 0]
        n = posterior.sizes[level]
        u = rng.multivariate_normal(np.zeros(len(omega)), omega, size=n)
        if level == "therapist":
            u[:, 0] *= therapist_factor
            u[0, 0] += outlier
        dims, values = new[names.effect(level)]
        new[names.effect(level)] = (dims, np.broadcast_to(u, values.shape).copy())
    groups["/posterior"] = xr.Dataset(new, coords=posterior.coords)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = dict(made.attrs)
    data = read.constants(tree)
    eta = data["X"].values @ new["beta"][1][0, 0]
    for level in ("patient", "therapist"):
        u = new[names.effect(level)][1][0, 0]
        eta = eta + (data[names.design_z(level)].values * u[read.unit_of_obs(tree, level)]).sum(axis=1)
    patient = read.unit_of_obs(tree, "patient")
    if family == "bernoulli":
        y = (rng.random(eta.size) < 1 / (1 + np.exp(-eta))).astype(float)
    else:
        y = eta + float(new["sigma"][1][0, 0]) * drawn_noise(noise, patient, rng)
    groups["/observed_data"] = groups["/observed_data"].copy(data={"y": y})
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = dict(made.attrs)
    return tree


def drawn_noise(kind: str, patient: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    z = rng.standard_normal(patient.size)
    if kind == "heavy":
        return rng.standard_t(2.5, patient.size)
    if kind == "unequal":
        return z * np.exp(0.8 * rng.standard_normal(patient.max() + 1))[patient]
    if kind.startswith("ar"):
        phi = float(kind[2:])
        for i in range(1, z.size):
            if patient[i] == patient[i - 1]:
                z[i] = phi * z[i - 1] + np.sqrt(1 - phi**2) * z[i]
    return z


def failing(tree: xr.DataTree) -> set[str]:
    return {check.name for check in check_model(tree, draws=200).failed}


@pytest.mark.parametrize("family", ["gaussian", "bernoulli"])
def test_a_right_model_passes(family: str) -> None:
    report = check_model(exact_tree(family=family), draws=200)
    assert report.failed == (), str(report)
    assert {check.level for check in report.checks} == {"session", "patient", "therapist"}
    assert report.verdict == "ok"


def test_autocorrelated_residuals_are_found_and_ar1_takes_them() -> None:
    report = check_model(exact_tree(noise="ar0.4"), draws=200)
    assert [check.name for check in report.failed] == ["residual autocorrelation"]
    assert report.doubtful("effects") and "residual='ar1'" in report.failed[0].remedy
    assert failing(exact_tree(noise="ar0.4", residual="ar1")) == set()


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"noise": "heavy"}, "heavy tails (kurtosis)"),
        ({"noise": "unequal"}, "unequal residual SDs"),
        ({"therapist_factor": 3.0}, "SD of therapist means"),
        ({"outlier": 14.0}, "normality of Intercept"),
    ],
)
def test_each_fault_fails_its_check(changed: dict, name: str) -> None:
    assert name in failing(exact_tree(**changed))


def test_a_gross_fault_fails_with_few_draws_too() -> None:
    """With 60 draws no p-value is below 1/61: a check that asks for 0.005 could not fail."""
    report = check_model(exact_tree(noise="ar0.4"), draws=60)
    assert "residual autocorrelation" in {check.name for check in report.failed}
    few = check_model(exact_tree(noise="ar0.4"), draws=10)
    (check,) = (each for each in few.checks if each.name == "residual autocorrelation")
    assert (check.status, check.text) == ("not assessed", "Cannot be judged from 10 draws.")


def test_a_bound_by_size_keeps_trifles_from_failing() -> None:
    report = check_model(exact_tree(noise="ar0.05", n_therapists=60), draws=200)
    assert "residual autocorrelation" not in {check.name for check in report.failed}


def test_ar1_replicates_have_the_autocorrelation_of_the_model() -> None:
    tree = exact_tree(residual="ar1")
    rows = rows_of(tree, "phq9")
    rng = np.random.default_rng(1)
    chunk = next(chunks(tree, rows, draws=50, rng=rng))
    eta = linear(chunk)
    noise = draw_outcome(tree, rows, eta, chunk.draw, rng) - eta
    at = np.flatnonzero(rows.gap == 1)
    phi = float(read.posterior(tree)[names.PHI][0, 0])
    sigma = float(read.posterior(tree)[names.SIGMA][0, 0])
    found = (noise[:, at] * noise[:, at - 1]).mean(axis=1) / sigma**2  # draws are independent, sessions are not
    assert found.mean() == pytest.approx(phi, abs=MC_SE * found.std(ddof=1) / np.sqrt(found.size))
    assert noise.std() == pytest.approx(sigma, rel=MC_SE / np.sqrt(noise.size))


def test_statistics_by_hand() -> None:
    np.testing.assert_allclose(unit_means(np.array([[1.0, 2.0, 6.0]]), np.array([4, 2, 4])), [[2.0, 3.5]])
    scores = np.array([[-1.2, -0.3, 0.3, 1.2]])
    assert departure_from_normal(scores)[0] < 0.01 < departure_from_normal(np.array([[0.0, 0.0, 0.0, 9.0]]))[0]


def with_priors(tree: xr.DataTree, prior) -> xr.DataTree:
    tree.attrs[names.ATTR_PRIORS] = json.dumps({"sd_therapist[Intercept]": to_dict(prior)})
    return tree


def test_a_prior_that_decides_is_flagged() -> None:
    tree = make_tree(draws=500)
    rng = np.random.default_rng(3)
    sd = tree["posterior"]["sd_therapist"].values.copy()
    sd[..., 0] = np.abs(rng.standard_normal(sd.shape[:2]))  # the posterior is the prior
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    groups["/posterior"] = groups["/posterior"].assign(sd_therapist=(tree["posterior"]["sd_therapist"].dims, sd))
    driven = xr.DataTree.from_dict(groups)
    driven.attrs = dict(tree.attrs)
    (check,) = prior_weight(with_priors(driven, HalfNormal(1.0)))
    assert check.status == "failed" and "prior drives sd_therapist[Intercept]" in check.text
    assert set(check.concerns) == {"variance", "therapists"}
    (check,) = prior_weight(with_priors(tree, HalfNormal(20.0)))
    assert check.status == "ok"


def test_without_stored_priors_the_weight_is_unknown() -> None:
    (check,) = prior_weight(make_tree())
    assert check.status == "not assessed"


def test_reweighting_reaches_the_other_prior() -> None:
    rng = np.random.default_rng(5)
    draws = xr.DataArray(np.abs(rng.standard_normal((4, 4000))), dims=("chain", "draw"))
    mean, khat = reweighted_mean(draws, HalfNormal(1.0), rescaled(HalfNormal(1.0), 0.7))
    exact = 0.7 * np.sqrt(2 / np.pi)
    assert mean == pytest.approx(exact, rel=0.02)  # 16,000 draws of a distribution with SD about its mean
    assert khat < 0.7


@pytest.mark.parametrize("prior", [HalfNormal(2.0), HalfStudentT(5.0, 1.5), Exponential(0.7)])
def test_prior_variance_and_density_agree(prior) -> None:
    x = np.linspace(0, 400, 800_001)
    density = np.exp(log_density(prior, x))
    mass = np.trapezoid(density, x)
    mean = np.trapezoid(x * density, x) / mass
    variance = np.trapezoid((x - mean) ** 2 * density, x) / mass
    assert prior_variance(prior) == pytest.approx(variance, rel=1e-3)  # the Student's tail beyond 400 is cut off


def test_report_prints_and_tabulates(tree: xr.DataTree) -> None:
    report = check_model(tree, draws=50)
    assert "rests on 6 therapists" in str(report)
    frame = report.to_frame()
    assert {"level", "observed", "predicted_low", "status"} <= set(frame.columns)
    few = [check for check in report.checks if check.level == "therapist" and check.name == "normality"]
    assert few[0].status == "not assessed"
