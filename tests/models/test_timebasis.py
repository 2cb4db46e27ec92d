"""Basis functions of time: each shape by its definition; the natural spline against SciPy's splines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

from psymech.errors import DesignError
from psymech.spec.model import TimeShape
from psymech.timebasis import evaluate, make_time_basis

ROUNDING = 1e-10
SECOND_DIFFERENCE = 1e-3  # step of numerical second derivatives
CURVATURE_TOLERANCE = 1e-4  # of second differences at that step, columns being of order one


def test_simple_shapes_are_their_definitions() -> None:
    t = np.array([1.0, 2.0, 4.0, 7.5])
    np.testing.assert_array_equal(evaluate(make_time_basis(TimeShape("linear"), t), t), t[:, None])
    np.testing.assert_array_equal(evaluate(make_time_basis(TimeShape("quadratic"), t), t), np.column_stack([t, t * t]))
    np.testing.assert_allclose(
        evaluate(make_time_basis(TimeShape("log"), t), t), np.log(t)[:, None], atol=ROUNDING
    )  # sessions start at 1, so log(1 + t - 1)
    piecewise = evaluate(make_time_basis(TimeShape("piecewise", (2.0, 5.0)), t), t)
    np.testing.assert_array_equal(piecewise[:, 1], [0, 0, 2, 5.5])
    np.testing.assert_array_equal(piecewise[:, 2], [0, 0, 0, 2.5])


def test_log_counts_from_the_earliest_time() -> None:
    t = np.array([-3.0, 0.0, 4.0])
    basis = make_time_basis(TimeShape("log"), t)
    assert basis.origin == -3.0
    np.testing.assert_allclose(evaluate(basis, t)[:, 0], np.log([1, 4, 8]), atol=ROUNDING)


@given(df=st.integers(2, 5), seed=st.integers(0, 1000))
def test_the_spline_is_natural(df: int, seed: int) -> None:
    t = np.sort(np.random.default_rng(seed).uniform(0, 20, size=30))
    basis = make_time_basis(TimeShape("spline", df=df), t)
    assert len(basis.knots) == df + 1
    low, high = basis.knots[0], basis.knots[-1]
    width = (high - low) * SECOND_DIFFERENCE

    def second(at: np.ndarray) -> np.ndarray:
        around = [evaluate(basis, at + step * width) for step in (-1, 0, 1)]
        return (around[0] - 2 * around[1] + around[2]) / SECOND_DIFFERENCE**2

    # Linear outside the boundary knots, on both sides, hence no curvature at the ends.
    outside = np.array([low - 5 * width, low - width, high + width, high + 5 * width])
    np.testing.assert_allclose(second(outside), 0, atol=CURVATURE_TOLERANCE)
    inside = np.linspace(low, high, 9)[1:-1]
    assert np.abs(second(inside)).max() > 0.1


@pytest.mark.parametrize("df", [2, 3, 5])
def test_the_spline_spans_the_natural_cubic_splines_of_its_knots(df: int) -> None:
    t = np.linspace(1, 15, 40)
    basis = make_time_basis(TimeShape("spline", df=df), t)
    columns = np.column_stack([np.ones_like(t), evaluate(basis, t)])
    assert np.linalg.matrix_rank(columns) == df + 1
    knots = np.array(basis.knots)
    # Natural cubic splines through the unit vectors at the knots are a basis of the same space (the one of R's ns).
    cardinal = np.column_stack([CubicSpline(knots, unit, bc_type="natural")(t) for unit in np.eye(df + 1)])
    for a, b in ((columns, cardinal), (cardinal, columns)):
        fitted = a @ np.linalg.lstsq(a, b, rcond=None)[0]
        np.testing.assert_allclose(fitted, b, atol=ROUNDING)


def test_the_spline_is_smooth_at_its_knots() -> None:
    t = np.linspace(0, 10, 21)
    basis = make_time_basis(TimeShape("spline", df=4), t)
    for knot in basis.knots[1:-1]:
        h = 1e-4
        left = evaluate(basis, np.array([knot - 2 * h, knot - h, knot]))
        right = evaluate(basis, np.array([knot, knot + h, knot + 2 * h]))
        np.testing.assert_allclose(np.diff(left, axis=0)[-1], np.diff(right, axis=0)[0], atol=1e-6)


def test_too_few_times_and_knots_outside_are_refused() -> None:
    t = np.array([1.0, 2.0, 3.0])
    with pytest.raises(DesignError, match="shape='spline' needs at least 4 different times, found 3"):
        make_time_basis(TimeShape("spline"), t)
    with pytest.raises(DesignError, match="shape='linear' needs at least 2 different times, found 1"):
        make_time_basis(TimeShape("linear"), np.array([4.0, 4.0]))
    with pytest.raises(DesignError, match=r"knots must lie between the first and last time \(1 and 3\), found 3"):
        make_time_basis(TimeShape("piecewise", (3.0,)), t)


def test_the_basis_is_kept_as_plain_values() -> None:
    basis = make_time_basis(TimeShape("piecewise", (2.0,)), np.array([1.0, 2.0, 3.0]))
    assert basis.to_dict() == {"kind": "piecewise", "origin": 1.0, "knots": (2.0,)}
