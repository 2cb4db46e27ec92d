"""What is taken eight draws at a time against the same draw by draw."""

import numpy as np
import pytest
from engine_designs import make_case

from psymech.errors import SpecError
from psymech.gaussian.draw_blocks import parts
from psymech.gaussian.leave_numba import rows_left_out, units_left_out
from psymech.gaussian.leave_out import leave_out
from psymech.gaussian.leave_row import leave_row_out
from psymech.gaussian.patterns import ByPattern, by_pattern
from psymech.gaussian.residual import AR1, ByGroup, Unstructured
from psymech.gaussian.residual_draws import residual_draws

TOLERANCE = 1e-10  # the same sums in another order, relative to the largest density
STEPS = np.linspace(0.5, 1.5, 11)  # eleven draws: a whole block of eight, and one filled up


@pytest.mark.parametrize(("n_levels", "residual"), [(1, "ar1"), (2, "iid"), (3, "iid")])
def test_parts_of_any_size_are_what_numpy_says_of_all(n_levels: int, residual: str) -> None:
    case = make_case(5, n_levels=n_levels, residual=residual)
    theta = STEPS[:, None] ** 0.2 * case.theta
    unit = case.rows.unit_of_row
    coefs = np.stack([case.structure.evaluate(t).coefs for t in theta])
    by_unit = np.stack([case.structure.log_det_by_unit(t, unit) for t in theta])
    factors = [STEPS[:, None, None] * factor for factor in case.factors]
    log_det = np.eye(by_unit.shape[1]), by_unit
    rows = (case.rows.columns, case.rows.y, unit, case.structure.terms())
    for at_once in (1, 3, 10_000):
        for level in range(n_levels):
            expected = leave_out(case.cross, coefs, factors, by_unit, level=level, prior=case.prior)
            cut = units_left_out(case.cross, coefs, factors, log_det, level=level, prior=case.prior, at_once=at_once)
            found = list(cut)
            assert max(len(which) for which, _ in found) <= at_once
            assert np.concatenate([which for which, _ in found]).tolist() == list(range(case.cross.sizes[level]))
            whole = np.concatenate([density for _, density in found]).T
            np.testing.assert_allclose(whole, expected, rtol=TOLERANCE, atol=TOLERANCE * np.abs(expected).max())
        expected = leave_row_out(case.cross, *rows, coefs, factors, prior=case.prior)
        found = list(rows_left_out(case.cross, *rows, coefs, factors, prior=case.prior, at_once=at_once))
        assert max(len(which) for which, _ in found) <= at_once
        assert sorted(np.concatenate([which for which, _ in found])) == list(range(unit.size))
        for which, density in found:
            np.testing.assert_allclose(
                density.T, expected[:, which], rtol=TOLERANCE, atol=TOLERANCE * np.abs(expected).max()
            )


def test_parts_keep_what_belongs_to_one_unit_together_where_they_can() -> None:
    of_top = np.array([0, 0, 1, 1, 1, 1, 1, 2])
    assert [(p.start, p.stop, a, b) for p, a, b in parts(of_top, 3)] == [
        (0, 2, 0, 1),
        (2, 5, 1, 2),
        (5, 8, 1, 3),
    ]
    assert [(p.start, p.stop, a, b) for p, a, b in parts(of_top, 7)] == [(0, 7, 0, 2), (7, 8, 2, 3)]


@pytest.mark.parametrize(("residual", "n_responses"), [("iid", 2), ("ar1", 1), ("unstructured", 2)])
def test_residual_structures_at_many_draws_are_those_of_each(residual: str, n_responses: int) -> None:
    case = make_case(3, residual=residual, n_responses=n_responses)
    structure, unit = case.structure, case.rows.unit_of_row
    if isinstance(structure, Unstructured):
        table = structure.rows
        occasion, response = np.empty((2, unit.size), dtype=np.int64)
        occasion[table], response[table] = np.indices(table.shape)
        kept = np.arange(unit.size) != table[0, 1]  # an occasion without its second response
        structure, unit = by_pattern(occasion[kept], response[kept]), unit[kept]
    assert isinstance(structure, ByGroup | AR1 | ByPattern)
    theta = STEPS[:, None] ** 0.2 * case.theta
    found = residual_draws(structure, theta, unit)
    np.testing.assert_allclose(found.coefs, [structure.evaluate(t).coefs for t in theta], rtol=TOLERANCE)
    expected = [structure.log_det_by_unit(t, unit) for t in theta]
    np.testing.assert_allclose((found.counts @ found.terms.T).T, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_number_of_residual_terms_is_checked() -> None:
    case = make_case(2)
    rows = (case.rows.columns, case.rows.y, case.rows.unit_of_row, case.structure.terms() * 2)
    coefs = case.structure.evaluate(case.theta).coefs[None]
    with pytest.raises(SpecError, match="Expected 1 residual terms, one for each coefficient, found 2"):
        next(rows_left_out(case.cross, *rows, coefs, [f[None] for f in case.factors], prior=case.prior))
