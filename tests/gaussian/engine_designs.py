"""Drawn designs for the engine's tests: unbalanced, tiny, singular, one to three levels, every residual structure."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from psymech.gaussian.cross import CrossProducts, FloatArray, IntArray, cross_products
from psymech.gaussian.dense import DenseRows
from psymech.gaussian.residual import ByGroup, Residual, Unstructured, ar1, iid

RESIDUALS = ("iid", "by_group", "unstructured", "ar1", "ar1_real", "ar1_by_group")


@dataclass(frozen=True, slots=True)
class Case:
    """One design with parameter values."""

    rows: DenseRows
    structure: Residual
    theta: FloatArray
    factors: tuple[FloatArray, ...]
    beta: FloatArray
    prior: tuple[FloatArray, FloatArray]

    @property
    def cross(self) -> CrossProducts:
        r = self.rows
        return cross_products(r.columns, r.y, r.unit_of_row, r.parents, r.z, r.x, self.structure.terms())


def nested(rng: np.random.Generator, n_levels: int) -> tuple[tuple[IntArray, ...], int]:
    """Draw parents from the top down; every unit has one to three children."""
    n = int(rng.integers(1, 4))
    parents: list[IntArray] = []
    for _ in range(n_levels - 1):
        children = rng.integers(1, 4, size=n)
        parents.append(np.repeat(np.arange(n), children))
        n = int(children.sum())
    return tuple(reversed(parents)), n


def draw_factor(rng: np.random.Generator, q: int, kind: str) -> FloatArray:
    """Draw a factor: lower triangular, with a zero SD, all zero, of rank one, or a full square matrix."""
    factor = np.tril(rng.normal(size=(q, q)))
    if kind == "zero_sd":
        factor[int(rng.integers(q))] = 0.0
    elif kind == "zero":
        factor[:] = 0.0
    elif kind == "rank_one":
        factor[:, 1:] = 0.0
    elif kind == "square":
        factor = rng.normal(size=(q, q))
    return factor


def residual_structure(
    rng: np.random.Generator, kind: str, unit: IntArray, response: IntArray, occasion: IntArray
) -> tuple[Residual, FloatArray]:
    """Return a structure over stacked rows and parameter values for it."""
    n_responses = int(response.max()) + 1
    if kind == "iid":
        return iid(unit.size), rng.uniform(0.5, 2, size=1)
    if kind == "by_group":
        return ByGroup(response), rng.uniform(0.5, 2, size=n_responses)
    if kind == "unstructured":
        rows = np.empty((int(occasion.max()) + 1, n_responses), dtype=np.int64)
        rows[occasion, response] = np.arange(unit.size)
        factor = np.tril(rng.normal(size=(n_responses, n_responses)) * 0.4)
        factor[np.diag_indices(n_responses)] = rng.uniform(0.7, 1.5, size=n_responses)
        return Unstructured(rows), factor[np.tril_indices(n_responses)]
    gaps = rng.choice([1.0, 1.0, 2.0] if kind != "ar1_real" else [0.7, 1.3], size=int(occasion.max()) + 1)
    position, series = np.cumsum(gaps)[occasion], unit * n_responses + response
    group = response if kind == "ar1_by_group" else None
    structure = ar1(position, series, group=group)
    lowest = 0.05 if kind == "ar1_real" else -0.8
    return structure, np.concatenate(
        [rng.uniform(0.5, 2, size=structure.n_groups), rng.uniform(lowest, 0.8, size=structure.n_groups)]
    )


def make_case(
    seed: int,
    *,
    n_levels: int = 2,
    n_random: tuple[int, ...] | None = None,
    n_extra: int = 1,
    n_responses: int = 1,
    residual: str = "iid",
    factor_kinds: tuple[str, ...] | None = None,
) -> Case:
    """Draw one design. ``n_random`` is the number of random columns of each level; ``n_extra`` columns are fixed
    only."""
    rng = np.random.default_rng(seed)
    q = n_random or (2,) * n_levels
    kinds = factor_kinds or ("plain",) * n_levels
    parents, n_units = nested(rng, n_levels)
    sessions = rng.integers(1, 5, size=n_units)
    unit_of_occasion = np.repeat(np.arange(n_units), sessions)
    occasion = np.repeat(np.arange(unit_of_occasion.size), n_responses)
    response = np.tile(np.arange(n_responses), unit_of_occasion.size)
    unit = unit_of_occasion[occasion]
    n_columns = max(q) + n_extra
    columns = rng.normal(size=(unit.size, n_columns))
    columns[:, 0] = 1.0
    z = tuple(np.sort(rng.choice(n_columns, size=size, replace=False)) for size in q)
    x = rng.permutation(n_columns)[: max(1, n_columns - 1)]
    structure, theta = residual_structure(rng, residual, unit, response, occasion)
    p = x.size
    precision = 0.3 * np.eye(p) + np.outer(*(2 * (rng.normal(size=p) * 0.2,)))
    rows = DenseRows(columns, 3 + rng.normal(size=unit.size) * 2, unit, parents, z, x)
    factors = tuple(draw_factor(rng, size, kind) for size, kind in zip(q, kinds, strict=True))
    return Case(rows, structure, theta, factors, rng.normal(size=p), (rng.normal(size=p), precision))


FACTOR_KINDS = st.sampled_from(["plain", "zero_sd", "zero", "rank_one", "square"])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Every combination the engine claims to support, small enough for the dense oracle."""
    n_levels = draw(st.integers(1, 3))
    return make_case(
        draw(st.integers(0, 10_000)),
        n_levels=n_levels,
        n_random=tuple(draw(st.lists(st.integers(1, 8), min_size=n_levels, max_size=n_levels))),
        n_extra=draw(st.integers(0, 3)),
        n_responses=draw(st.integers(1, 4)),
        residual=draw(st.sampled_from(RESIDUALS)),
        factor_kinds=tuple(draw(st.lists(FACTOR_KINDS, min_size=n_levels, max_size=n_levels))),
    )
