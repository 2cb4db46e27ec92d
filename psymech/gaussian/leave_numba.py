"""Leaving units or rows out at many draws, compiled: what `leave_out` and `leave_row` do, eight draws at a time.

All units are eliminated once for what the fixed effects see of them. Then the units of the highest level are gone
through some at a time, each with all that belongs to it, so that memory grows neither with draws times units nor with
draws times rows.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from psymech.errors import SpecError
from psymech.gaussian.cross import CrossProducts, FloatArray, IntArray, RowTerm
from psymech.gaussian.draw_blocks import Draws, Nest, arguments, nest_of, parts
from psymech.gaussian.draw_lanes import (
    NO_PARENT,
    B,
    combine,
    copy,
    descend,
    eliminate,
    forward,
    kept,
    log_lanes,
    room_for_descent,
    room_for_elimination,
    room_for_top,
    step,
    top,
    top_moments,
    workspace,
)
from psymech.gaussian.eliminate import sum_by_parent
from psymech.gaussian.leave_row import weighted_rows
from psymech.gaussian.loglik import LOG_2PI, Prior
from psymech.gaussian.simd import fma, fnma, load, splat, store
from psymech.gaussian.threads import LEAST_BLOCKS, share_out

AT_ONCE: Final = 1024  # units or rows whose densities are held at a time: 32 MB at 4,000 draws


def units_left_out(
    cross: CrossProducts,
    coefs: ArrayLike,
    factors: Sequence[ArrayLike],
    log_det_R: tuple[ArrayLike, ArrayLike],
    *,
    level: int,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
    at_once: int = AT_ONCE,
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Go through the units of a level: which ones, and ``log p(y_k | y_-k, theta)``, ``(units, D)``.

    Parameters
    ----------
    cross, coefs, factors, level, beta, prior
        As in `psymech.gaussian.leave_out.leave_out`, with ``(D, n_coef)`` coefficients.
    log_det_R
        ``(n_lowest, K)`` and ``(D, K)``, whose product is ``log|R_i|`` of each lowest-level unit.
    at_once
        Units in one part at most.
    """
    if not 0 <= level < cross.n_levels:
        raise SpecError(f"Expected a level from 0 to {cross.n_levels - 1}, found {level}.")
    draws, fixed = arguments(cross, coefs, factors, beta, prior)
    counts, logs = (np.asarray(each, dtype=np.float64) for each in log_det_R)
    n_left = cross.n_obs_by_unit.astype(np.float64)
    for parent in cross.parents[:level]:
        counts, n_left = sum_by_parent(counts, parent, axis=0), sum_by_parent(n_left, parent, axis=0)
    of_top = np.arange(cross.sizes[level])
    for parent in cross.parents[level:]:
        of_top = parent[of_top]
    cut = list(parts(of_top, at_once))
    H = _seen_by_fixed_effects(cross, draws) if len(cut) > 1 else np.empty(0)
    for chosen, first, last in cut:
        nest = _some(cross, first, last)
        start = chosen.start - int(np.searchsorted(of_top, first))
        out = np.empty((chosen.stop - chosen.start, draws.n_blocks * B))

        def work(blocks: slice, nest: Nest = nest, start: int = start, out: FloatArray = out) -> None:
            which = blocks.start, blocks.stop
            _leave_units(which, *nest.arrays(), *draws.arrays(), *fixed.arrays(), H, level, start, out.reshape(-1))

        share_out(work, draws.n_blocks, least=LEAST_BLOCKS)
        density = out[:, : draws.n]
        density -= 0.5 * (n_left[chosen, None] * LOG_2PI + counts[chosen] @ logs.T)
        yield np.arange(chosen.start, chosen.stop), density


def rows_left_out(
    cross: CrossProducts,
    columns: ArrayLike,
    y: ArrayLike,
    unit_of_row: ArrayLike,
    terms: Sequence[RowTerm],
    coefs: ArrayLike,
    factors: Sequence[ArrayLike],
    *,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
    at_once: int = AT_ONCE,
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Go through the rows, unit by unit: which ones, and ``log p(y_j | y_-j, theta)``, ``(rows, D)``.

    Arguments as in `psymech.gaussian.leave_row.leave_row_out`; `at_once` rows in one part at most.
    """
    draws, fixed = arguments(cross, coefs, factors, beta, prior)
    if len(terms) != cross.n_coef:
        raise SpecError(f"Expected {cross.n_coef} residual terms, one for each coefficient, found {len(terms)}.")
    table = np.column_stack([np.asarray(columns, dtype=np.float64), np.asarray(y, dtype=np.float64)])
    weighted, diagonal = weighted_rows(table, terms)
    order = np.argsort(np.asarray(unit_of_row, dtype=np.int64), kind="stable")
    unit = np.asarray(unit_of_row, dtype=np.int64)[order]
    of_top = np.arange(cross.sizes[0])
    for parent in cross.parents:
        of_top = parent[of_top]
    cut = list(parts(of_top[unit], at_once))
    H = _seen_by_fixed_effects(cross, draws) if len(cut) > 1 else np.empty(0)
    for chosen, first, last in cut:
        nest = _some(cross, first, last)
        lowest = np.arange(*np.searchsorted(of_top, [first, last]))
        edges = np.searchsorted(unit[chosen], np.append(lowest, lowest[-1] + 1))
        rows = order[chosen]
        data = weighted[rows], diagonal[rows], edges
        out = np.empty((rows.size, draws.n_blocks * B))

        def work(blocks: slice, nest: Nest = nest, data: tuple = data, out: FloatArray = out) -> None:
            which = blocks.start, blocks.stop
            _leave_rows(which, *nest.arrays(), *draws.arrays(), *fixed.arrays(), H, *data, out.reshape(-1))

        share_out(work, draws.n_blocks, least=LEAST_BLOCKS)
        yield rows, out[:, : draws.n]


def _some(cross: CrossProducts, first: int, last: int) -> Nest:
    return nest_of(cross.S, cross.parents, cross.z, first=first, last=last)


def _seen_by_fixed_effects(cross: CrossProducts, draws: Draws) -> FloatArray:
    """All levels eliminated: what is left for the fixed effects, a triangle for each block of draws."""
    nest = _some(cross, 0, cross.sizes[-1])
    H = np.empty((draws.n_blocks, nest.S.shape[2] * B))

    def work(blocks: slice) -> None:
        _eliminate_all((blocks.start, blocks.stop), *nest.arrays(), *draws.arrays()[:2], H.reshape(-1))

    share_out(work, draws.n_blocks, least=LEAST_BLOCKS)
    return H.reshape(-1)


@step
def _widest(z_at):
    return np.max(np.diff(z_at))


@step
def _room(S, offsets, parent):
    """Triangles of the units above the lowest level twice, a vector for each unit, and two triangles."""
    size = S.shape[2] * B
    upper = (parent.size - offsets[1]) * size
    return workspace(upper), workspace(upper), workspace(parent.size * B), workspace(2 * size)


@kept
def _eliminate_all(blocks, S, offsets, parent, z, z_at, tri, coefs, factors, H):
    n_coef, n_tri, n_levels = S.shape[1], S.shape[2], offsets.size - 1
    entries = np.sum(np.diff(z_at) ** 2)
    own, up, log_det, mine = _room(S, offsets, parent)
    w, sums = workspace(room_for_elimination(_widest(z_at), tri.shape[0])), workspace(n_tri * B)
    for d in range(blocks[0], blocks[1]):
        forward(
            S, offsets, parent, z, z_at, tri, coefs, d * n_coef * B, factors, d * entries * B, n_levels, False,
            own, up, log_det, sums, w, mine,
        )  # fmt: skip
        copy(sums, 0, n_tri, H, d * n_tri * B)


@kept
def _leave_units(
    blocks, S, offsets, parent, z, z_at, tri, coefs, factors, center, x, integrate, precision, H, level, start, out
):
    m, p, n_coef, n_tri, n_levels = tri.shape[0], x.size, S.shape[1], S.shape[2], offsets.size - 1
    entries, first, size = np.sum(np.diff(z_at) ** 2), offsets[1], n_tri * B
    stride = coefs.size // n_coef
    own, up, log_det, mine = _room(S, offsets, parent)
    w = workspace(max(room_for_elimination(_widest(z_at), m), room_for_top(p)))
    sums, changed, delta, below = workspace(size), workspace(2 * size), workspace(size), workspace(parent.size * B)
    for d in range(blocks[0], blocks[1]):
        at_coefs, at_factors, at_center = d * n_coef * B, d * entries * B, d * p * B
        forward(
            S, offsets, parent, z, z_at, tri, coefs, at_coefs, factors, at_factors, n_levels, True, own, up, log_det,
            sums, w, mine,
        )  # fmt: skip
        if H.size > 0:
            copy(H, d * size, n_tri, sums, 0)
        every = top(sums, 0, tri, x, integrate, center, at_center, precision, w)
        copy(log_det, 0, parent.size, below, 0)
        for u in range(offsets[level]):
            store(below, parent[u] * B, load(below, parent[u] * B) + load(below, u * B))
        for k in range(out.size // stride):
            u, at = offsets[level] + start + k, at_factors
            change = splat(0.0) - load(below, u * B)
            if level == 0:
                combine(S, u, coefs, at_coefs, mine, 0)
                eliminate(mine, 0, tri, z[: z_at[1]], factors, at, False, w, mine, size)
            passed, base = (mine, size) if level == 0 else (up, (u - first) * size)
            for t in range(n_tri):
                store(delta, t * B, splat(0.0) - load(passed, base + t * B))
            for above in range(n_levels):
                q = z_at[above + 1] - z_at[above]
                if above > level:
                    u = parent[u]
                    base = (u - first) * size
                    for t in range(n_tri):
                        store(changed, t * B, load(own, base + t * B) + load(delta, t * B))
                    columns = z[z_at[above] : z_at[above + 1]]
                    value = eliminate(changed, 0, tri, columns, factors, at, True, w, changed, size)
                    change = change + value - load(log_det, u * B)
                    for t in range(n_tri):
                        store(delta, t * B, load(changed, size + t * B) - load(up, base + t * B))
                at += q * q * B
            for t in range(n_tri):
                store(changed, t * B, load(sums, t * B) + load(delta, t * B))
            others = top(changed, 0, tri, x, integrate, center, at_center, precision, w)
            store(out, k * stride + d * B, fma(splat(0.5), change, every - others))


@kept
def _leave_rows(
    blocks, S, offsets, parent, z, z_at, tri, coefs, factors, center, x, integrate, precision, H, weighted, diagonal,
    edges, out,
):  # fmt: skip
    m, p, n_coef, n_tri, n_levels = tri.shape[0], x.size, S.shape[1], S.shape[2], offsets.size - 1
    entries, first, q = np.sum(np.diff(z_at) ** 2), offsets[1], _widest(z_at)
    stride, size = coefs.size // n_coef, (m + n_tri) * B
    own, up, log_det, mine = _room(S, offsets, parent)
    w, sums = workspace(max(room_for_descent(q, m), room_for_top(p))), workspace(n_tri * B)
    n_upper = parent.size - first
    moments = workspace((n_upper + 2) * size)  # of the units above the lowest level, the fixed effects, and one unit
    seen = workspace((m + 1) * B)
    for d in range(blocks[0], blocks[1]):
        at_coefs, at_factors, at_center = d * n_coef * B, d * entries * B, d * p * B
        forward(
            S, offsets, parent, z, z_at, tri, coefs, at_coefs, factors, at_factors, n_levels, False, own, up, log_det,
            sums, w, mine,
        )  # fmt: skip
        if H.size > 0:
            copy(H, d * n_tri * B, n_tri, sums, 0)
        top(sums, 0, tri, x, integrate, center, at_center, precision, w)
        top_moments(tri, x, integrate, center, at_center, w, moments[n_upper * size :])
        at = at_factors + entries * B
        for i in range(n_levels):
            level = n_levels - 1 - i
            columns = z[z_at[level] : z_at[level + 1]]
            at -= columns.size * columns.size * B
            for u in range(offsets[level], offsets[level + 1]):
                above = (n_upper if parent[u] == NO_PARENT else parent[u] - first) * size
                if level > 0:
                    base = (u - first) * n_tri * B
                    eliminate(own, base, tri, columns, factors, at, False, w, up, base)
                    descend(tri, columns, factors, at, w, moments, above, (u - first) * size)
                elif edges[u] < edges[u + 1]:
                    combine(S, u, coefs, at_coefs, mine, 0)
                    eliminate(mine, 0, tri, columns, factors, at, False, w, mine, n_tri * B)
                    here = (n_upper + 1) * size
                    descend(tri, columns, factors, at, w, moments, above, here)
                    for row in range(edges[u], edges[u + 1]):
                        value = _row(weighted, diagonal, row, coefs, at_coefs, moments, here, seen)
                        store(out, row * stride + d * B, value)


@step
def _row(weighted, diagonal, row, coefs, at, moments, here, seen):
    """Return the log density of a row given all others, from the moments that its unit leaves to explain."""
    n_coef, m = weighted.shape[1], weighted.shape[2]
    r, precision = splat(0.0), splat(0.0)
    for k in range(n_coef):
        precision = fma(load(coefs, at + k * B), splat(diagonal[row, k]), precision)
    for c in range(m):
        s = splat(0.0)
        for k in range(n_coef):
            s = fma(load(coefs, at + k * B), splat(weighted[row, k, c]), s)
        store(seen, c * B, s)
        r = fma(s, load(moments, here + c * B), r)
    t = here + m * B
    for c in range(m):
        s = splat(0.0)
        for e in range(c):
            s = fma(load(moments, t), load(seen, e * B), s)
            t += B
        s = fma(splat(0.5) * load(moments, t), load(seen, c * B), s)
        t += B
        precision = fnma(splat(2.0) * s, load(seen, c * B), precision)
    return splat(0.5) * (log_lanes(precision, seen, m * B) - splat(LOG_2PI) - r * r / precision)
