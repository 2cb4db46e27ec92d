"""Fixed and random effects drawn given the variance parameters, against the dense conditional normal."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import block_diag

import psymech as psm
from psymech import names
from psymech.inference.collapsed import recover_effects, unpack
from tests.graph.collapsed_cases import CollapsedCase, Values, beta_moments, make_case, read_point, residual_covariance
from tests.graph.explicit_designs import ragged_study, session_data

DRAWS = 4000
STANDARD_ERRORS = 4.5  # of Monte Carlo means; seeds are fixed, so the tests are the same every time
ROUNDING = 1e-9  # relative: the same numbers by another order of operations

GROWTH = psm.growth("y", random={"patient": ["time"], "therapist": []})


@pytest.fixture(scope="module")
def case() -> CollapsedCase:
    frame = ragged_study(np.random.default_rng(3), 2)
    ids = np.random.default_rng(1).permutation(frame["patient"].nunique())  # ids do not follow the nesting
    frame["patient"] = frame["patient"].map({p: f"Z{ids[i]}" for i, p in enumerate(frame["patient"].unique())})
    return make_case(GROWTH, session_data(frame, 2))


def repeated(case: CollapsedCase, x: NDArray, draws: int) -> dict[str, NDArray]:
    """The parameters of one point as a fit of one chain would hold them."""
    return unpack(case.design, case.target, np.broadcast_to(x, (1, draws, x.size)))


def dense_conditional(case: CollapsedCase, values: Values) -> tuple[NDArray, NDArray]:
    """Mean and covariance of (beta, effects of each level, unit by unit) given y."""
    design = case.design
    mean, V = beta_moments(case)
    columns, priors = [design.X], [V]
    for level, L in zip(design.levels, values.factors, strict=True):
        Z = np.zeros((design.n_obs, level.n_units, len(level.terms)))
        Z[np.arange(design.n_obs), level.code] = level.Z
        columns.append(Z.reshape(design.n_obs, -1))
        priors.append(np.kron(np.eye(level.n_units), L @ L.T))
    A, prior = np.hstack(columns), block_diag(*priors)
    gain = prior @ A.T @ np.linalg.inv(A @ prior @ A.T + residual_covariance(design, values))
    center = np.concatenate([mean, np.zeros(len(prior) - len(mean))])
    return center + gain @ (design.y - A @ center), prior - gain @ A @ prior


def stacked(case: CollapsedCase, drawn: dict[str, NDArray]) -> NDArray:
    """All drawn effects, (draws, beta and effects)."""
    parts = [drawn[names.BETA][0], *(drawn[names.effect(level.level)][0] for level in case.design.levels)]
    return np.hstack([part.reshape(len(part), -1) for part in parts])


def test_draws_have_the_mean_and_covariance_of_the_dense_conditional(case: CollapsedCase) -> None:
    x = case.draw_point(np.random.default_rng(2))
    mean, covariance = dense_conditional(case, read_point(case, x))
    drawn = stacked(case, recover_effects(case.design, case.crossing, repeated(case, x, DRAWS), seed=1))
    white = np.linalg.solve(np.linalg.cholesky((covariance + covariance.T) / 2), (drawn - mean).T)
    assert np.abs(white.mean(axis=1)).max() < STANDARD_ERRORS / np.sqrt(DRAWS)
    second = white @ white.T / DRAWS - np.eye(len(white))
    assert np.abs(second).max() < STANDARD_ERRORS * np.sqrt(2 / DRAWS)


def test_draws_are_independent_of_one_another(case: CollapsedCase) -> None:
    x = case.draw_point(np.random.default_rng(2))
    drawn = stacked(case, recover_effects(case.design, case.crossing, repeated(case, x, DRAWS), seed=2))
    z = (drawn - drawn.mean(axis=0)) / drawn.std(axis=0)
    assert np.abs((z[1:] * z[:-1]).mean(axis=0)).max() < STANDARD_ERRORS / np.sqrt(DRAWS)


def test_an_sd_of_zero_gives_effects_of_zero(case: CollapsedCase) -> None:
    x = case.draw_point(np.random.default_rng(4))
    x[[1, 3]] = 0.0  # the slope over patients, and the intercept over therapists
    drawn = recover_effects(case.design, case.crossing, repeated(case, x, 50), seed=1)
    assert np.all(drawn["u_therapist"] == 0.0)
    assert np.all(drawn["u_patient"][..., 1] == 0.0)
    assert np.all(np.isfinite(drawn["u_patient"])) and np.ptp(drawn["u_patient"][..., 0]) > 0
    assert np.all(np.isfinite(drawn["beta"]))


def test_perfectly_correlated_effects_are_drawn(case: CollapsedCase) -> None:
    values = repeated(case, case.draw_point(np.random.default_rng(5)), 50)
    values["corr_patient"] = np.ones_like(values["corr_patient"])
    drawn = recover_effects(case.design, case.crossing, values, seed=1)["u_patient"]
    standard = drawn / values["sd_patient"][:, :, None, :]
    np.testing.assert_allclose(standard[..., 0], standard[..., 1], atol=1e-6)  # the root of a singular matrix: 1e-8


def test_unpacked_parameters_are_those_of_the_textbook(case: CollapsedCase) -> None:
    x = case.draw_point(np.random.default_rng(6))
    values, expected = repeated(case, x, 1), read_point(case, x)
    for level, L in zip(case.design.levels, expected.factors, strict=True):
        covariance = L @ L.T
        sd = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(values[names.sd(level.level)][0, 0], sd, rtol=ROUNDING)
        np.testing.assert_allclose(
            values[names.corr(level.level)][0, 0], covariance / np.outer(sd, sd), rtol=ROUNDING, atol=ROUNDING
        )
    np.testing.assert_allclose(values["sigma"][0, 0], expected.sigma[0], rtol=ROUNDING)


def test_row_order_and_ids_change_nothing() -> None:
    frame = ragged_study(np.random.default_rng(3), 2)
    renamed = {t: f"N{i}" for i, t in enumerate(reversed(sorted(frame["therapist"].unique())))}
    other = frame.sample(frac=1, random_state=5).assign(therapist=lambda f: f["therapist"].map(renamed))
    one, two = (make_case(GROWTH, session_data(f, 2)) for f in (frame, other))
    x = one.draw_point(np.random.default_rng(7))
    (value, gradient), (again, gradient_again) = one.target.value_and_grad(x), two.target.value_and_grad(x)
    np.testing.assert_allclose(again, value, rtol=ROUNDING)
    np.testing.assert_allclose(gradient_again, gradient, rtol=1e-7)  # sums with cancellation lose two digits more
    means = []
    for each in (one, two):
        mean, _ = dense_conditional(each, read_point(each, x))
        drawn = recover_effects(each.design, each.crossing, repeated(each, x, DRAWS), seed=1)["u_therapist"][0, :, :, 0]
        np.testing.assert_allclose(drawn.mean(axis=0), mean[-drawn.shape[1] :], atol=5 * drawn.std() / np.sqrt(DRAWS))
        labels = each.design.levels[1].labels.tolist()
        means.append(dict(zip(labels, mean[-drawn.shape[1] :], strict=True)))
    for therapist, name in renamed.items():
        np.testing.assert_allclose(means[0][therapist], means[1][name], rtol=1e-7)


def test_given_fixed_effects_are_kept(case: CollapsedCase) -> None:
    x = case.draw_point(np.random.default_rng(8))
    values = repeated(case, x, 20)
    values["beta"] = np.random.default_rng(1).normal(size=(1, 20, 2))
    crossing = replace(case.crossing, beta_prior=None)
    drawn = recover_effects(case.design, crossing, values, seed=1)
    np.testing.assert_array_equal(drawn["beta"], values["beta"])
