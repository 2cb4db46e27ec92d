"""Recovered effects and leave-one-unit-out densities against dense normal algebra."""

import numpy as np
import pytest
from engine_designs import Case, cases, make_case
from hypothesis import given, settings

from psymech.errors import SpecError
from psymech.gaussian import conditional, dense, recover_numba
from psymech.gaussian.conditional import Recovered, conditional_moments, recover
from psymech.gaussian.leave_numba import rows_left_out, units_left_out
from psymech.gaussian.leave_out import leave_out
from psymech.gaussian.leave_row import leave_row_out

RTOL = 1e-8  # conditional moments: differences of nearly equal matrices, solved twice
COMPILED_RTOL = 1e-9  # two exact algorithms in double precision, relative to the largest effect
N_DRAWS = 4000
SIGMAS = 5.0  # Monte Carlo errors allowed; with fixed seeds a pass stays a pass


def flat_blocks(case: Case, mean: np.ndarray, covariance: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Cut dense moments into those of each unit, by level; return where the fixed effects start."""
    means, covariances, at = [], [], 0
    for n, z in zip(case.cross.sizes, case.rows.z, strict=True):
        index = at + np.arange(n * z.size).reshape(n, z.size)
        means.append(mean[index])
        covariances.append(covariance[index[:, :, None], index[:, None, :]])
        at += index.size
    return means, covariances, at


@settings(max_examples=40)
@given(case=cases())
def test_moments_equal_the_dense_conditional_normal(case: Case) -> None:
    R, at = dense.residual_covariance(case.structure, case.theta), case.structure.evaluate(case.theta)
    for top in ({"beta": case.beta}, {"prior": case.prior}):
        mean, covariance = dense.conditional(case.rows, case.factors, R, **top)
        means, covariances, start = flat_blocks(case, mean, covariance)
        found = conditional_moments(case.cross, at.coefs, case.factors, **top)
        for level in range(case.cross.n_levels):
            scale = max(1.0, np.abs(means[level]).max(), np.abs(covariances[level]).max())
            np.testing.assert_allclose(found.means[level], means[level], rtol=RTOL, atol=RTOL * scale)
            np.testing.assert_allclose(found.covariances[level], covariances[level], rtol=RTOL, atol=RTOL * scale)
        if "prior" in top:
            np.testing.assert_allclose(found.beta_mean, mean[start:], rtol=RTOL, atol=RTOL)
            np.testing.assert_allclose(found.beta_covariance, covariance[start:, start:], rtol=RTOL, atol=RTOL)


def draws_at(case: Case, n: int, seed: int, top: dict) -> Recovered:
    coefs = case.structure.evaluate(case.theta).coefs
    factors = [np.broadcast_to(factor, (n, *factor.shape)) for factor in case.factors]
    return recover(case.cross, np.broadcast_to(coefs, (n, coefs.size)), factors, rng=np.random.default_rng(seed), **top)


@pytest.mark.parametrize("residual", ["iid", "unstructured", "ar1"])
@pytest.mark.parametrize("known", [True, False])
def test_draws_have_the_joint_distribution(residual: str, known: bool) -> None:
    case = make_case(7, n_levels=3, n_random=(2, 2, 1), residual=residual, n_responses=2)
    top = {"beta": case.beta} if known else {"prior": case.prior}
    R = dense.residual_covariance(case.structure, case.theta)
    mean, covariance = dense.conditional(case.rows, case.factors, R, **top)
    drawn = draws_at(case, N_DRAWS, 5, top)
    columns = [effect.reshape(N_DRAWS, -1) for effect in drawn.effects] + ([] if known else [drawn.beta])
    sample = np.column_stack(columns)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_array_less(np.abs(sample.mean(axis=0) - mean), SIGMAS * sd / np.sqrt(N_DRAWS) + 1e-12)
    # The error of a covariance of normal draws is sqrt((v_i v_j + c_ij^2) / N).
    error = np.sqrt((np.outer(sd, sd) ** 2 + covariance**2) / N_DRAWS)
    np.testing.assert_array_less(np.abs(np.cov(sample.T) - covariance), SIGMAS * error + 1e-12)


def test_effects_of_a_level_without_variance_are_zero() -> None:
    case = make_case(2, n_levels=2, factor_kinds=("plain", "zero"))
    drawn = draws_at(case, 20, 1, {"prior": case.prior})
    assert np.all(drawn.effects[1] == 0) and np.all(drawn.effects[0].std(axis=0) > 0)


def test_chunks_do_not_change_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(7, n_levels=2)
    whole = draws_at(case, 50, 3, {"prior": case.prior})
    monkeypatch.setattr(conditional, "MAX_BYTES", 1)
    cut = draws_at(case, 50, 3, {"prior": case.prior})
    np.testing.assert_allclose(cut.beta, whole.beta, rtol=1e-12)
    for a, b in zip(cut.effects, whole.effects, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_each_draw_uses_its_own_parameters() -> None:
    case = make_case(6, n_levels=2)
    coefs = case.structure.evaluate(case.theta).coefs
    factors = [np.stack([factor, np.zeros_like(factor)]) for factor in case.factors]
    rng = np.random.default_rng(0)
    drawn = recover(case.cross, np.stack([coefs, coefs]), factors, rng=rng, prior=case.prior)
    assert all(np.all(effect[1] == 0) and np.any(effect[0] != 0) for effect in drawn.effects)


@settings(max_examples=30)
@given(case=cases())
def test_leaving_a_unit_out_equals_the_dense_conditional_density(case: Case) -> None:
    R, at = dense.residual_covariance(case.structure, case.theta), case.structure.evaluate(case.theta)
    by_unit = case.structure.log_det_by_unit(case.theta, case.rows.unit_of_row)
    assert by_unit.sum() == pytest.approx(at.log_det, rel=1e-9, abs=1e-9)
    for top in ({"beta": case.beta}, {"prior": case.prior}):
        for level in range(case.cross.n_levels):
            expected = dense.leave_out(case.rows, case.factors, R, level=level, **top)
            found = leave_out(case.cross, at.coefs, case.factors, by_unit, level=level, **top)
            np.testing.assert_allclose(found, expected, rtol=RTOL, atol=RTOL)


@settings(max_examples=12)
@given(case=cases())
def test_compiled_leaving_out_is_the_plain_one(case: Case) -> None:
    theta = np.stack([case.theta, case.theta])
    coefs = np.stack([case.structure.evaluate(t).coefs for t in theta])
    by_unit = np.stack([case.structure.log_det_by_unit(t, case.rows.unit_of_row) for t in theta])
    factors = [np.stack([factor, 0.5 * factor]) for factor in case.factors]
    rows = (case.rows.columns, case.rows.y, case.rows.unit_of_row, case.structure.terms())
    for top in ({"beta": np.stack([case.beta, 2.0 * case.beta])}, {"prior": case.prior}):
        for level in range(case.cross.n_levels):
            expected = leave_out(case.cross, coefs, factors, by_unit, level=level, **top)
            log_det = np.eye(case.cross.sizes[0]), by_unit
            parts = units_left_out(case.cross, coefs, factors, log_det, level=level, **top)
            found = np.concatenate([density for _, density in parts]).T
            np.testing.assert_allclose(found, expected, rtol=COMPILED_RTOL, atol=COMPILED_RTOL * np.abs(expected).max())
        expected = leave_row_out(case.cross, *rows, coefs, factors, **top)
        found = np.empty_like(expected)
        for which, density in rows_left_out(case.cross, *rows, coefs, factors, **top):
            found[:, which] = density.T
        np.testing.assert_allclose(found, expected, rtol=RTOL, atol=RTOL * np.abs(expected).max())


def test_leave_out_takes_many_draws_at_once() -> None:
    case = make_case(13, n_levels=3, n_random=(2, 2, 1))
    theta = np.array([[0.8], [1.4]])
    coefs = np.stack([case.structure.evaluate(t).coefs for t in theta])
    by_unit = np.stack([case.structure.log_det_by_unit(t, case.rows.unit_of_row) for t in theta])
    factors = [np.stack([factor, 0.5 * factor]) for factor in case.factors]
    for level in range(3):
        together = leave_out(case.cross, coefs, factors, by_unit, level=level, prior=case.prior)
        for d in range(2):
            alone = leave_out(case.cross, coefs[d], [f[d] for f in factors], by_unit[d], level=level, prior=case.prior)
            np.testing.assert_allclose(together[d], alone, rtol=1e-10)


def test_wrong_shapes_are_refused() -> None:
    case = make_case(2)
    coefs = case.structure.evaluate(case.theta).coefs
    with pytest.raises(SpecError, match=r"coefs \(D, n_coef\)"):
        recover(case.cross, coefs, case.factors, rng=np.random.default_rng(0), beta=case.beta)
    with pytest.raises(SpecError, match="level from 0 to 1"):
        leave_out(case.cross, coefs, case.factors, np.zeros(case.cross.sizes[0]), level=2, beta=case.beta)


@pytest.mark.parametrize(
    ("known", "shape"),
    [
        (True, {"n_levels": 1, "n_random": (2,)}),
        (False, {"n_levels": 2, "n_random": (4, 4), "n_extra": 0, "factor_kinds": ("plain", "zero_sd")}),
        (False, {"n_levels": 3, "n_random": (1, 3, 2), "n_responses": 2, "residual": "unstructured"}),
    ],
)
def test_compiled_draws_equal_those_of_numpy(shape: dict, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional, "MAX_BYTES", 40_000)  # several chunks
    for seed in range(4):
        case = make_case(seed, **shape)
        coefs = np.array([1.0, 0.3, 2.0])[:, None] * case.structure.evaluate(case.theta).coefs
        factors = [np.stack([factor, 0.0 * factor, 2.0 * factor]) for factor in case.factors]
        top = {"beta": case.beta + np.arange(3)[:, None]} if known else {"prior": case.prior}
        found = recover_numba.recover(case.cross, coefs, factors, rng=np.random.default_rng(seed), **top)
        expected = recover(case.cross, coefs, factors, rng=np.random.default_rng(seed), **top)
        for a, b in zip((found.beta, *found.effects), (expected.beta, *expected.effects), strict=True):
            np.testing.assert_allclose(a, b, rtol=COMPILED_RTOL, atol=COMPILED_RTOL * max(1.0, np.abs(b).max()))
