"""Units left out: densities against dense normals, and the whole against fits without each therapist."""

import sys
from dataclasses import replace

import arviz as az
import numpy as np
import pytest
import xarray as xr
from arviz_stats.sampling_diagnostics import ess
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import logsumexp

import psymech as psm
from psymech import names
from psymech.design import Design, make_design
from psymech.errors import SpecError
from psymech.gaussian.leave_row import leave_row_out
from psymech.graph.build import BuiltModel
from psymech.inference.prior_table import prior_table
from psymech.posterior.loo import Unit, density_parts, unit_log_density
from psymech.priors import choose_priors
from tests.graph.collapsed_cases import (
    CollapsedCase,
    Values,
    beta_moments,
    collapsed_cases,
    dense_covariance,
    make_case,
    read_point,
    two_responses,
)
from tests.inference.studies import FREE, small_frame
from tests.oracles import dense_log_density
from tests.posterior.drawn_trees import drawn_tree

DENSITY_TOLERANCE = 1e-8  # relative to 1 + |log p|: the oracle solves with the dense covariance of all other rows
PARTS_TOLERANCE = 1e-10  # the same eliminations, summed over all units in another order
ARVIZ_TOLERANCE = 1e-8  # the same estimator, written anew; the fit of the tail weighs its terms by exponentials
STANDARD_ERRORS = 4.0  # of the Monte Carlo error of both sides; the seeds are fixed
THERAPISTS = 8
loo_module = sys.modules[unit_log_density.__module__]  # psymech.posterior.loo: the name is also the function's
GOOD_K = 0.7  # above, Pareto-smoothed importance sampling is not to be trusted (Vehtari et al. 2024)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(case=collapsed_cases(), seed=st.integers(0, 1000), known=st.booleans())
def test_rows_left_out_equal_the_dense_conditional(case: CollapsedCase, seed: int, known: bool) -> None:
    rng = np.random.default_rng(seed)
    values = read_point(case, case.draw_point(rng))
    beta = rng.normal(size=len(case.design.terms))
    covariance = dense_covariance(case.design, values)
    mean = case.design.X @ beta
    if not known:
        m, V = beta_moments(case)
        mean, covariance = case.design.X @ m, covariance + case.design.X @ V @ case.design.X.T
    c = case.crossing
    theta = values.sigma if case.design.residual == "iid" else np.append(values.sigma, values.phi)
    if values.residual_corr is not None:
        theta = (np.diag(values.sigma) @ np.linalg.cholesky(values.residual_corr))[np.tril_indices(2)]
    found = leave_row_out(
        c.cross,
        c.columns,
        case.design.y,
        c.unit,
        c.residual.terms(),
        c.residual.evaluate(theta).coefs[None],
        [L[None] for L in values.factors],
        beta=beta[None] if known else None,
        prior=None if known else c.beta_prior,
    )[0]
    expected = [without(case.design.y, mean, covariance, np.arange(len(mean)) == j) for j in range(len(mean))]
    np.testing.assert_allclose(found, expected, rtol=DENSITY_TOLERANCE, atol=DENSITY_TOLERANCE)


def without(y: NDArray, mean: NDArray, covariance: NDArray, left: NDArray) -> float:
    """Log density of the rows left out given all others: the dense conditional normal.

    A difference of two dense densities would lose digits where these are many thousands.
    """
    kept = ~left
    gain = np.linalg.solve(covariance[np.ix_(kept, kept)], covariance[np.ix_(kept, left)]).T
    spread = covariance[np.ix_(left, left)] - gain @ covariance[np.ix_(kept, left)]
    return dense_log_density(y[left], mean[left] + gain @ (y - mean)[kept], spread)


def interleaved(seed: int) -> psm.SessionData:
    """A study whose patients, in the order of their ids, do not stand together by therapist."""
    frame = small_frame(seed, therapists=6, patients=3, sessions=4)
    ids = np.random.default_rng(seed).permutation(frame["patient"].nunique())
    frame["patient"] = frame["patient"].map({p: f"Z{ids[i]:02d}" for i, p in enumerate(frame["patient"].unique())})
    frame["w"] = frame["y"] * 0.3 + np.random.default_rng(seed + 1).normal(size=len(frame))
    frame["clinic"] = "C" + (frame["therapist"].str[1:].astype(int) % 3).astype(str)
    return psm.SessionData.from_frame(frame, therapist="therapist", clinic="clinic", ranges=FREE | {"w": None})


SPECS = {
    "growth": psm.growth("y", random={"patient": ["time"], "therapist": [], "clinic": None}),
    "ar1 in clinics": psm.growth("y", random={"patient": ["time"], "therapist": ["time"]}, residual="ar1"),
    "two responses": replace(two_responses(), without=("clinic",)),
    "residuals that correlate": replace(two_responses(residual="unstructured"), without=("clinic",)),
    "heavy-tailed fixed effect": psm.growth(
        "y", random={"patient": [], "clinic": None}, priors={"beta[time]": psm.StudentT(3.0, 0.0, 1.0)}
    ),
    "pooled fixed effects": replace(
        psm.outcomes(["y", "w"], techniques=["x"], suffixes=None, level="session", baseline=False, pool=True),
        without=("clinic",),
    ),
}


def tree_and_case(spec: psm.ModelSpec) -> tuple[xr.DataTree, Design]:
    data = interleaved(3)
    tree = drawn_tree(spec, data, chains=2, draws=3)
    design = make_design(spec, data)
    tree.attrs[names.ATTR_PRIORS] = prior_table(design, choose_priors(spec, design))
    return tree, design


def values_of(tree: xr.DataTree, design: Design, chain: int, draw: int) -> Values:
    post = tree["posterior"].dataset.isel(chain=chain, draw=draw)
    factors = []
    for level in design.levels:
        sd, corr = post[names.sd(level.level)].values, post[names.corr(level.level)].values
        factors.append(np.diag(sd) @ np.linalg.cholesky(corr))
    phi = float(post[names.PHI]) if names.PHI in post else 0.0
    residual_corr = post[names.RESIDUAL_CORR].values if names.RESIDUAL_CORR in post else None
    return Values(tuple(factors), np.atleast_1d(post[names.SIGMA].values), phi, 0.0, residual_corr)


@pytest.mark.parametrize("name", list(SPECS))
def test_densities_of_units_read_from_a_tree_equal_the_dense_conditional(name: str) -> None:
    tree, design = tree_and_case(SPECS[name])
    kept = name in ("heavy-tailed fixed effect", "pooled fixed effects")  # draws, as their prior is not normal
    units = {level.level: level.code for level in design.levels} | {"session": np.arange(design.n_obs)}
    chain, draw = 1, 2
    covariance = dense_covariance(design, values_of(tree, design, chain, draw))
    if kept:
        mean = design.X @ tree["posterior"]["beta"].values[chain, draw]
    else:
        m, V = beta_moments(make_case(SPECS[name], interleaved(3)))
        mean, covariance = design.X @ m, covariance + design.X @ V @ design.X.T
    for unit, code in units.items():
        found = unit_log_density(tree, unit=unit)  # pyright: ignore[reportArgumentType]
        dim = "obs" if unit == "session" else unit
        assert found.dims == ("chain", "draw", dim)
        if dim != "obs":
            assert found[dim].values.tolist() == tree["posterior"][dim].values.tolist()
        expected = [without(design.y, mean, covariance, code == k) for k in range(code.max() + 1)]
        np.testing.assert_allclose(
            found.values[chain, draw], expected, rtol=DENSITY_TOLERANCE, atol=DENSITY_TOLERANCE, err_msg=unit
        )


def test_singular_covariances_are_ordinary() -> None:
    tree, design = tree_and_case(SPECS["growth"])
    tree["posterior"]["sd_therapist"][:] = 0.0
    tree["posterior"]["corr_patient"][:] = 1.0
    found = unit_log_density(tree, unit="patient")
    post = tree["posterior"].dataset.isel(chain=0, draw=0)
    sd = post["sd_patient"].values
    values = Values((np.outer(sd, [1.0, 0.0]), np.zeros((1, 1))), np.atleast_1d(post["sigma"].values), 0.0, 0.0)
    m, V = beta_moments(make_case(SPECS["growth"], interleaved(3)))
    covariance = dense_covariance(design, values) + design.X @ V @ design.X.T
    code = design.levels[0].code
    expected = [without(design.y, design.X @ m, covariance, code == k) for k in range(code.max() + 1)]
    np.testing.assert_allclose(found.values[0, 0], expected, rtol=DENSITY_TOLERANCE, atol=DENSITY_TOLERANCE)


def test_what_cannot_be_left_out_is_refused() -> None:
    tree, _ = tree_and_case(SPECS["growth"])
    with pytest.raises(SpecError, match="no random effects at the level 'clinic'"):
        psm.loo(tree, unit="clinic")
    with pytest.raises(SpecError, match="unit: expected one of"):
        psm.loo(tree, unit="centre")  # pyright: ignore[reportArgumentType]
    spec = psm.growth("y", family="student", random={"patient": [], "clinic": None})
    with pytest.raises(SpecError, match="Gaussian responses only, found the family student"):
        psm.loo(drawn_tree(spec, interleaved(3)), unit="therapist")
    frame = small_frame(1, therapists=10)
    crossed = frame.assign(therapist=np.random.default_rng(1).permutation(frame["therapist"].to_numpy()))
    data = psm.SessionData.from_frame(crossed, patient_ids="crossed", ranges=FREE)
    with pytest.raises(SpecError, match="they are crossed"):
        psm.loo(drawn_tree(psm.growth("y", random={"patient": []}), data), unit="therapist")


@pytest.fixture(scope="module")
def study() -> psm.SessionData:
    frame = small_frame(5, therapists=THERAPISTS, patients=4, sessions=5)
    return psm.SessionData.from_frame(frame, therapist="therapist", ranges=FREE)


SPEC = psm.growth("y", random={"patient": ["time"], "therapist": []})


@pytest.fixture(scope="module")
def tree(study: psm.SessionData) -> xr.DataTree:
    return fitted(study, make_design(SPEC, study))


def fitted(study: psm.SessionData, design: Design) -> xr.DataTree:
    """Fit a part of the study under the priors of the whole, past the warning about few therapists."""
    priors = choose_priors(SPEC, make_design(SPEC, study))
    built = BuiltModel(SPEC, design, priors, "collapsed", "asked for")
    return psm.sample(built, seed=3, draws=1000, tune=500, progressbar=False)


@pytest.mark.sampling
def test_elpd_equals_fits_without_each_therapist(study: psm.SessionData, tree: xr.DataTree) -> None:
    result = psm.loo(tree, unit="therapist")
    assert result.n_data_points == THERAPISTS
    assert float(result.pareto_k.max()) < GOOD_K
    frame = small_frame(5, therapists=THERAPISTS, patients=4, sessions=5)
    for k, therapist in enumerate(tree["posterior"]["therapist"].values):
        part = psm.SessionData.from_frame(frame[frame["therapist"] != therapist], therapist="therapist", ranges=FREE)
        refit = fitted(study, make_design(SPEC, part))
        theta = {v: refit["posterior"][v] for v in ("sd_patient", "corr_patient", "sd_therapist", "sigma")}
        moved = xr.DataTree.from_dict(
            {
                "posterior": tree["posterior"].dataset.assign(theta),
                "constant_data": tree["constant_data"].dataset,
                "observed_data": tree["observed_data"].dataset,
            }
        )
        moved.attrs = tree.attrs
        densities = unit_log_density(moved, unit="therapist").isel(therapist=k)
        expected = float(logsumexp(densities) - np.log(densities.size))
        error = np.hypot(error_of_mean(densities), error_of_mean(-unit_log_density(tree, unit="therapist")[..., k]))
        assert abs(float(result.elpd_i[k]) - expected) < STANDARD_ERRORS * error, therapist


def error_of_mean(log_values: xr.DataArray) -> float:
    """Relative Monte Carlo error of the mean of exp(log_values): that of its logarithm."""
    scaled = np.exp(log_values - log_values.max())
    return float(
        scaled.std() / scaled.mean() / np.sqrt(float(ess(scaled, sample_dims=["chain", "draw"], method="mean")))
    )


@pytest.mark.sampling
def test_loo_prefers_the_model_that_made_the_data(study: psm.SessionData, tree: xr.DataTree) -> None:
    for unit in ("session", "patient", "therapist"):
        result = psm.loo(tree, unit=unit)  # pyright: ignore[reportArgumentType]
        assert float(result.pareto_k.max()) < GOOD_K, unit
        assert result.elpd_i.dims == ("obs" if unit == "session" else unit,)
        np.testing.assert_allclose(float(result.elpd_i.sum()), result.elpd)
    flat = tree.copy()
    flat["posterior"]["sd_patient"] = flat["posterior"]["sd_patient"] * [0.01, 0.01]
    table = az.compare({"as fitted": psm.loo(tree, unit="session"), "patients alike": psm.loo(flat, unit="session")})
    assert table.index[0] == "as fitted"


@pytest.mark.sampling
@pytest.mark.parametrize("unit", ["session", "patient"])
def test_units_taken_some_at_a_time_are_what_arviz_says_of_all_at_once(
    tree: xr.DataTree, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tree.isel(draw=slice(200))
    densities = unit_log_density(tree, unit=unit)
    theta = tree["posterior"].dataset[["sd_patient", "sd_therapist", "sigma"]]
    whole = az.loo(
        xr.DataTree.from_dict({"posterior": theta, "log_likelihood": densities.to_dataset(name="y")}), pointwise=True
    )
    n_draws = densities.sizes["chain"] * densities.sizes["draw"]
    monkeypatch.setattr(loo_module, "CHUNK_VALUES", 7 * n_draws)  # seven units, the last time fewer
    parts = list(density_parts(tree, unit=unit))
    dim = "obs" if unit == "session" else unit
    assert len(parts) > 2 and max(len(which) for which, _ in parts) <= 7
    assert np.array_equal(np.sort(np.concatenate([which for which, _ in parts])), np.arange(densities.sizes[dim]))
    for which, some in parts:
        expected = densities.values.reshape(n_draws, -1)[:, which].T
        np.testing.assert_allclose(some, expected, rtol=PARTS_TOLERANCE, atol=PARTS_TOLERANCE)
    found = psm.loo(tree, unit=unit)
    assert found.elpd_i.dims == found.pareto_k.dims == (dim,)
    for name in ("elpd_i", "pareto_k"):
        xr.testing.assert_allclose(found[name].drop_attrs(), whole[name].drop_attrs(), rtol=ARVIZ_TOLERANCE)
    np.testing.assert_allclose(
        (found.elpd, found.se, found.p, found.good_k),
        (whole.elpd, whole.se, whole.p, whole.good_k),
        rtol=ARVIZ_TOLERANCE,
    )
    assert found.n_data_points == whole.n_data_points and found.n_samples == whole.n_samples


def test_a_pareto_k_too_large_is_told_once_for_all_units(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = drawn_tree(SPECS["growth"], interleaved(3), draws=40)  # draws that no data have seen
    design = make_design(SPECS["growth"], interleaved(3))
    tree.attrs[names.ATTR_PRIORS] = prior_table(design, choose_priors(SPECS["growth"], design))
    monkeypatch.setattr(loo_module, "CHUNK_VALUES", 1)
    with pytest.warns(UserWarning, match=r"Pareto k is greater than 0\.47 for \d+ of 18 patients") as told:
        found = psm.loo(tree, unit="patient")
    assert len(told) == 1 and found.warning
    assert f"for {int((found.pareto_k > found.good_k).sum())} of 18" in str(told[0].message)
