"""The NumPy engine against the dense oracle and central differences."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from engine_designs import RESIDUALS, Case, cases, make_case
from hypothesis import given, settings

from psymech.errors import DesignError, SpecError
from psymech.gaussian import dense
from psymech.gaussian.cross import CrossProducts, FloatArray, RowTerm, cross_products, from_sums, merge, with_response
from psymech.gaussian.loglik import collapse, log_likelihood, value_and_grad

VALUE_RTOL = 1e-10  # two exact formulas in double precision, matrices of fewer than 500 rows
GRADIENT_TOL = 1e-6  # error of a central difference with STEP, relative to the largest entry
STEP = 1e-5
REORDER_RTOL = 1e-11  # the same sums in another order


def both(case: Case) -> list[dict]:
    return [{"beta": case.beta}, {"prior": case.prior}]


def check_difference(f: Callable[[FloatArray], float], at: FloatArray, gradient: FloatArray) -> None:
    numeric = np.empty(at.size)
    for index in range(at.size):
        step = np.zeros(at.size)
        step[index] = STEP * max(1.0, abs(at.flat[index]))
        up, down = f(at + step.reshape(at.shape)), f(at - step.reshape(at.shape))
        numeric[index] = (up - down) / (2 * step[index])
    scale = max(1.0, np.abs(numeric).max(initial=0.0))
    np.testing.assert_allclose(gradient.ravel(), numeric, rtol=GRADIENT_TOL, atol=GRADIENT_TOL * scale)


@settings(max_examples=60)
@given(case=cases())
def test_value_equals_dense_density(case: Case) -> None:
    R = dense.residual_covariance(case.structure, case.theta)
    at = case.structure.evaluate(case.theta)
    for given_ in both(case):
        expected = dense.log_likelihood(case.rows, case.factors, R, **given_)
        found = log_likelihood(case.cross, at.coefs, case.factors, at.log_det, **given_)
        assert found == pytest.approx(expected, rel=VALUE_RTOL)


@settings(max_examples=25)
@given(case=cases())
def test_gradient_equals_central_differences(case: Case) -> None:
    cross, at = case.cross, case.structure.evaluate(case.theta)
    for given_ in both(case):
        value, gradient = value_and_grad(cross, at.coefs, case.factors, at.log_det, **given_)
        assert value == pytest.approx(
            log_likelihood(cross, at.coefs, case.factors, at.log_det, **given_), rel=VALUE_RTOL
        )
        for level, factor in enumerate(case.factors):

            def by_factor(value: FloatArray, level: int = level, given_: dict = given_) -> float:
                factors = [*case.factors[:level], value, *case.factors[level + 1 :]]
                return log_likelihood(cross, at.coefs, factors, at.log_det, **given_)

            check_difference(by_factor, factor, gradient.factors[level])
        # Through the residual parameters: keeps the precision positive definite, and checks the structure's
        # derivatives too.
        by_theta = gradient.coefs @ at.d_coefs + gradient.log_det_R * at.d_log_det

        def by_residual(theta: FloatArray, given_: dict = given_) -> float:
            there = case.structure.evaluate(theta)
            return log_likelihood(cross, there.coefs, case.factors, there.log_det, **given_)

        check_difference(by_residual, case.theta, by_theta)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_by_coefficients_and_fixed_effects(seed: int) -> None:
    case = make_case(seed, n_levels=3, n_random=(2, 1, 2), residual="by_group", n_responses=2)
    cross, at = case.cross, case.structure.evaluate(case.theta)
    b0, P0 = case.prior
    _, known = value_and_grad(cross, at.coefs, case.factors, at.log_det, beta=case.beta)
    _, integrated = value_and_grad(cross, at.coefs, case.factors, at.log_det, prior=case.prior)
    check_difference(
        lambda c: log_likelihood(cross, c, case.factors, at.log_det, beta=case.beta), at.coefs, known.coefs
    )
    assert known.beta is not None and integrated.prior_mean is not None and integrated.prior_precision is not None
    check_difference(lambda b: log_likelihood(cross, at.coefs, case.factors, at.log_det, beta=b), case.beta, known.beta)
    check_difference(
        lambda b: log_likelihood(cross, at.coefs, case.factors, at.log_det, prior=(b, P0)), b0, integrated.prior_mean
    )
    check_difference(
        lambda P: log_likelihood(cross, at.coefs, case.factors, at.log_det, prior=(b0, (P + P.T) / 2)),
        P0,
        integrated.prior_precision,
    )


def test_diagonal_prior_is_the_matrix() -> None:
    case = make_case(3)
    at, p = case.structure.evaluate(case.theta), case.beta.size
    diagonal = np.arange(1.0, p + 1)
    values = [
        log_likelihood(case.cross, at.coefs, case.factors, at.log_det, prior=(case.prior[0], P))
        for P in (diagonal, np.diag(diagonal))
    ]
    assert values[0] == values[1]


@pytest.mark.parametrize("residual", RESIDUALS)
def test_row_order_and_labels_do_not_matter(residual: str) -> None:
    case = make_case(11, n_levels=2, n_responses=2, residual=residual)
    rows, rng = case.rows, np.random.default_rng(0)
    R, at = dense.residual_covariance(case.structure, case.theta), case.structure.evaluate(case.theta)
    order = rng.permutation(rows.y.size)
    back = np.argsort(order)
    moved = tuple(move(term, order, back) for term in case.structure.terms())
    shuffled = cross_products(
        rows.columns[order], rows.y[order], rows.unit_of_row[order], rows.parents, rows.z, rows.x, moved
    )
    expected = dense.log_likelihood(rows, case.factors, R, prior=case.prior)
    assert log_likelihood(shuffled, at.coefs, case.factors, at.log_det, prior=case.prior) == pytest.approx(
        expected, rel=VALUE_RTOL
    )
    np.testing.assert_allclose(
        shuffled.S, case.cross.S, rtol=REORDER_RTOL, atol=REORDER_RTOL * np.abs(case.cross.S).max()
    )


def move(term: RowTerm, order: np.ndarray, back: np.ndarray) -> RowTerm:
    """The same term for rows in another order: new row ``i`` is old row ``order[i]``."""
    if term.first is None or term.second is None:
        return replace(term, weight=None if term.weight is None else term.weight[order])
    return replace(term, first=back[term.first], second=back[term.second])


def test_relabelled_units_give_the_same_likelihood_and_gradient() -> None:
    case = make_case(5, n_levels=3, n_random=(3, 2, 1))
    cross, at = case.cross, case.structure.evaluate(case.theta)
    therapists, clinics = cross.sizes[1], cross.sizes[2]
    clinic_label = np.arange(clinics)[::-1]
    therapist_order = np.lexsort((-np.arange(therapists), clinic_label[cross.parents[1]]))
    therapist_label = np.argsort(therapist_order)
    unit_order = np.lexsort((-np.arange(cross.sizes[0]), therapist_label[cross.parents[0]]))
    relabelled = CrossProducts(
        cross.S[unit_order],
        (therapist_label[cross.parents[0]][unit_order], clinic_label[cross.parents[1]][therapist_order]),
        cross.z,
        cross.x,
        cross.n_obs_by_unit[unit_order],
    )
    one = value_and_grad(cross, at.coefs, case.factors, at.log_det, prior=case.prior)
    two = value_and_grad(relabelled, at.coefs, case.factors, at.log_det, prior=case.prior)
    assert one[0] == pytest.approx(two[0], rel=REORDER_RTOL)
    for a, b in zip(one[1].factors, two[1].factors, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_collapse_leaves_generalised_least_squares() -> None:
    case = make_case(8, n_levels=2, n_random=(2, 2))
    at = case.structure.evaluate(case.theta)
    H, _ = collapse(case.cross, at.coefs, case.factors)
    R = dense.residual_covariance(case.structure, case.theta)
    _, V = dense.marginal(case.rows, case.factors, R, beta=case.beta, prior=None)
    W = np.column_stack([case.rows.columns[:, case.rows.x], case.rows.y])
    np.testing.assert_allclose(H, W.T @ np.linalg.solve(V, W), rtol=1e-8, atol=1e-8 * np.abs(H).max())


@pytest.mark.parametrize("residual", ["iid", "ar1", "unstructured"])
def test_new_response_equals_a_fresh_start(residual: str) -> None:
    case = make_case(4, n_responses=2, residual=residual)
    r, terms = case.rows, case.structure.terms()
    y = np.random.default_rng(1).normal(size=r.y.size)
    again = with_response(case.cross, r.columns, y, r.unit_of_row, terms)
    fresh = cross_products(r.columns, y, r.unit_of_row, r.parents, r.z, r.x, terms)
    np.testing.assert_array_equal(again.S, fresh.S)
    assert not np.array_equal(again.S, case.cross.S)


def test_sums_of_another_engine_and_merged_sites() -> None:
    case = make_case(9, n_levels=2, residual="by_group", n_responses=2)
    cross, at = case.cross, case.structure.evaluate(case.theta)
    packed = cross.S[..., *np.tril_indices(cross.n_columns)]
    again = from_sums(packed, cross.n_obs_by_unit, cross.parents, cross.z, cross.x)
    np.testing.assert_array_equal(again.S, cross.S)
    twice = merge([cross, again])
    assert twice.n_obs == 2 * cross.n_obs and twice.sizes == tuple(2 * n for n in cross.sizes)
    H1, log_det1 = collapse(cross, at.coefs, case.factors)
    H2, log_det2 = collapse(twice, at.coefs, case.factors)
    np.testing.assert_allclose(H2, 2 * H1, rtol=1e-9, atol=1e-9 * np.abs(H1).max())
    assert log_det2 == pytest.approx(2 * log_det1)


def test_split_by_site_equals_all_rows_at_once() -> None:
    case = make_case(22, n_levels=2)
    cross, at = case.cross, case.structure.evaluate(case.theta)
    assert cross.sizes[1] > 1
    sites = []
    for therapist in range(cross.sizes[1]):
        mine = cross.parents[0] == therapist
        sites.append(
            CrossProducts(
                cross.S[mine], (np.zeros(mine.sum(), dtype=np.int64),), cross.z, cross.x, cross.n_obs_by_unit[mine]
            )
        )
    values = [log_likelihood(c, at.coefs, case.factors, at.log_det, prior=case.prior) for c in (cross, merge(sites))]
    assert values[0] == pytest.approx(values[1], rel=REORDER_RTOL)


def test_refusals_name_what_is_wrong() -> None:
    ones = np.ones((4, 1))
    with pytest.raises(DesignError, match="sorted by parent"):
        cross_products(ones, np.ones(4), [0, 1, 2, 2], [[1, 0, 1]], [[0], [0]], [0])
    with pytest.raises(DesignError, match="units 1 have none"):
        cross_products(ones, np.ones(4), [0, 0, 2, 2], [], [[0]], [0])
    with pytest.raises(DesignError, match="rows 2 are not"):
        cross_products(ones, [1, 2, np.nan, 4], [0, 0, 1, 1], [], [[0]], [0])
    with pytest.raises(DesignError, match="another unit's rows"):
        pair = RowTerm(first=np.array([1]), second=np.array([2]), pair_weight=np.ones(1))
        cross_products(ones, np.ones(4), [0, 0, 1, 1], [], [[0]], [0], [pair])
    with pytest.raises(DesignError, match=r"must lie in 0\.\.0"):
        cross_products(ones, np.ones(4), [0, 0, 1, 1], [], [[1]], [0])
    cross = cross_products(ones, np.ones(4), [0, 0, 1, 1], [], [[0]], [0])
    with pytest.raises(SpecError, match="exactly one of beta"):
        log_likelihood(cross, [1.0], [[[1.0]]], 0.0)
    with pytest.raises(SpecError, match=r"\(1, 1\) factor at level 0"):
        log_likelihood(cross, [1.0], [np.eye(2)], 0.0, beta=[0.0])
    with pytest.raises(DesignError, match="series 0"):
        make_ar1_with_repeated_position()


def make_ar1_with_repeated_position() -> None:
    from psymech.gaussian.residual import ar1

    ar1([1, 1, 2], [0, 0, 0])
