r"""Steps of the elimination with a draw in each lane: eight draws of the parameters go through the same units at once.

Formulas as in `psymech.gaussian.eliminate`, with ``M = R D R'`` (unit lower ``R``) in place of a Cholesky factor. Sizes
are read at run time, so that one compiled function serves every model. Symmetric matrices are lower triangles of
vectors; ``tri[i, j]`` says where an entry is, in numbers. Every offset into a flat array counts numbers, not vectors.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from psymech.gaussian import ldl, simd
from psymech.gaussian.compiled import digest_of, own_cache
from psymech.gaussian.ldl import ldl_column, solve_column
from psymech.gaussian.simd import LANES, fma, fnma, load, splat, store

B = LANES
NO_PARENT = -1
AT_ONCE = 4  # pivots multiplied before the logarithm is taken; each may be up to 1e77


VERSION = digest_of(__file__, ldl.__file__, simd.__file__)
step = njit(nogil=True, error_model="numpy")


def kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that calls the steps, and keep its code on disk."""
    return njit(nogil=True, error_model="numpy", cache=True)(own_cache(function, VERSION))


@step
def workspace(size):
    """Return zeros that start at a cache line, so that no vector straddles two."""
    raw = np.zeros(size + 8)
    return raw[(-raw.ctypes.data % 64) // 8 :]


@step
def log_lanes(value, w, at):
    """Return the logarithm of every lane; ``w`` has room for a vector at ``at``."""
    store(w, at, value)
    for b in range(B):
        w[at + b] = np.log(w[at + b])
    return load(w, at)


@step
def copy(source, base, size, target, at):
    """Copy vectors."""
    for t in range(size):
        store(target, at + t * B, load(source, base + t * B))


@step
def combine(S, unit, coefs, at_coefs, out, at):
    """Write sum_l c_l S_l of one lowest-level unit, ``S (n_units, n_coef, n_tri)``."""
    for t in range(S.shape[2]):
        acc = load(coefs, at_coefs) * splat(S[unit, 0, t])
        for k in range(1, S.shape[1]):
            acc = fma(load(coefs, at_coefs + k * B), splat(S[unit, k, t]), acc)
        store(out, at + t * B, acc)


@step
def _factorise(size, w, R, scratch, logs):
    """Replace a symmetric matrix (full, lower part filled) by R, with 1/D on its diagonal; return the logarithm of the
    product of D, or zero without `logs`.
    """
    value, det = splat(0.0), splat(1.0)
    for j in range(size):
        det = det * ldl_column(w, R, size, j)
        if logs and (j % AT_ONCE == AT_ONCE - 1 or j == size - 1):
            value = value + log_lanes(det, w, scratch)
            det = splat(1.0)
    return value


@step
def room_for_elimination(q, m):
    """Return how many numbers of workspace `eliminate` uses: X and W (each q m), R (q q), and a vector."""
    return (2 * q * m + q * q + 1) * B


@step
def eliminate(S, base, tri, z, L, at, logs, w, up, to):
    """Integrate one unit's random effects out: write ``S - W'X`` at ``up[to]`` and leave X, W and R in ``w``; return
    log|M| with `logs`, which takes time, else zero.
    """
    q, m = z.size, tri.shape[0]
    W, R = q * m * B, 2 * q * m * B
    for c in range(m):
        for a in range(q):
            acc = splat(0.0)
            for b in range(q):
                acc = fma(load(L, at + (b * q + a) * B), load(S, base + tri[z[b], c]), acc)
            store(w, W + (a * m + c) * B, acc)
    for i in range(q):
        for j in range(i + 1):
            acc = splat(1.0 if i == j else 0.0)
            for b in range(q):
                acc = fma(load(w, W + (i * m + z[b]) * B), load(L, at + (b * q + j) * B), acc)
            store(w, R + (i * q + j) * B, acc)
    log_det = _factorise(q, w, R, R + q * q * B, logs)
    t = 0
    for c in range(m):
        solve_column(w, R, q, m, c, W, W, 0)
        for e in range(c + 1):
            acc = load(S, base + t)
            for a in range(q):
                acc = fnma(load(w, W + (a * m + c) * B), load(w, (a * m + e) * B), acc)
            store(up, to + t, acc)
            t += B
    return log_det


@step
def forward(
    S, offsets, parent, z, z_at, tri, coefs, at_coefs, factors, at_factors, top, logs, own, up, log_det, H, w, mine
):
    """Eliminate the levels below ``top`` at eight draws.

    ``own`` and ``up`` hold the triangles of the units above the lowest level, ``log_det`` one vector for each unit if
    `logs`;
    what the last eliminated level passes up is added to ``own``, or to ``H`` where it is the highest. ``mine`` has room
    for two triangles.
    """
    n_tri, first = S.shape[2], offsets[1]
    own[:] = 0.0
    H[: n_tri * B] = 0.0
    at = at_factors
    for level in range(top):
        columns = z[z_at[level] : z_at[level + 1]]
        for u in range(offsets[level], offsets[level + 1]):
            if level == 0:
                combine(S, u, coefs, at_coefs, mine, 0)
                passed, to = mine, n_tri * B
                value = eliminate(mine, 0, tri, columns, factors, at, logs, w, mine, to)
            else:
                base = (u - first) * n_tri * B
                passed, to = up, base
                value = eliminate(own, base, tri, columns, factors, at, logs, w, up, to)
            if logs:
                store(log_det, u * B, value)
            if parent[u] == NO_PARENT:
                for t in range(n_tri):
                    store(H, t * B, load(H, t * B) + load(passed, to + t * B))
            else:
                base = (parent[u] - first) * n_tri * B
                for t in range(n_tri):
                    store(own, base + t * B, load(own, base + t * B) + load(passed, to + t * B))
        at += columns.size * columns.size * B


@step
def room_for_top(p):
    """Return how many numbers of workspace `top` and `top_moments` use: R and its inverse, the solution, a vector."""
    return (2 * p * p + p + 1) * B


@step
def top(H, base, tri, x, integrate, center, at, precision, w):
    """Return the log density of the fixed effects' step, but for constants of the data; leave R, and R^{-1} of what the
    response has beyond the centre, in ``w``.
    """
    p, y = x.size, tri.shape[0] - 1
    half = 2 * p * p * B
    quad = load(H, base + tri[y, y])
    for i in range(p):
        s = load(H, base + tri[x[i], y])
        first = s
        for j in range(p):
            s = fnma(load(H, base + tri[x[i], x[j]]), load(center, at + j * B), s)
        store(w, half + i * B, s)
        quad = fnma(load(center, at + i * B), first + s, quad)
    value = splat(-0.5) * quad
    if not integrate:
        return value
    for i in range(p):
        for j in range(i + 1):
            store(w, (i * p + j) * B, splat(precision[i, j]) + load(H, base + tri[x[i], x[j]]))
    value = fnma(splat(0.5), _factorise(p, w, 0, half + p * B, True), value)
    for i in range(p):
        s = load(w, half + i * B)
        for b in range(i):
            s = fnma(load(w, (i * p + b) * B), load(w, half + b * B), s)
        store(w, half + i * B, s)
        value = fma(splat(0.5) * s * s, load(w, (i * p + i) * B), value)
    return value


@step
def top_moments(tri, x, integrate, center, at, w, out):
    """Write mean and covariance of the combination of columns that the fixed effects leave to explain, after `top`."""
    p, m = x.size, tri.shape[0]
    K, half = p * p * B, 2 * p * p * B
    out[: (m + (m * (m + 1)) // 2) * B] = 0.0
    store(out, (m - 1) * B, splat(1.0))
    for i in range(p):
        store(out, x[i] * B, splat(0.0) - load(center, at + i * B))
    if not integrate:
        return
    for c in range(p):
        for i in range(c, p):
            s = splat(1.0 if i == c else 0.0)
            for b in range(c, i):
                s = fnma(load(w, (i * p + b) * B), load(w, K + (b * p + c) * B), s)
            store(w, K + (i * p + c) * B, s)
    for i in range(p):
        s = load(out, x[i] * B)
        for b in range(i, p):
            scaled = load(w, K + (b * p + i) * B) * load(w, (b * p + b) * B)
            s = fnma(scaled, load(w, half + b * B), s)
        store(out, x[i] * B, s)
        for j in range(i + 1):
            s = splat(0.0)
            for b in range(i, p):
                scaled = load(w, K + (b * p + i) * B) * load(w, (b * p + b) * B)
                s = fma(scaled, load(w, K + (b * p + j) * B), s)
            store(out, m * B + tri[x[i], x[j]], s)


@step
def room_for_descent(q, m):
    """Return how many numbers of workspace `descend` uses: those of `eliminate`, root (q q), U and h (each q m)."""
    return room_for_elimination(q, m) + (q * q + 2 * q * m) * B


@step
def descend(tri, z, L, at, w, moments, above, here):
    """Write the moments (mean, triangle of the covariance) of the combination of columns that a unit leaves to explain,
    from those above it, after `eliminate` of the unit.
    """
    q, m = z.size, tri.shape[0]
    R, root = 2 * q * m * B, room_for_elimination(q, m)
    U = root + q * q * B
    h = U + q * m * B
    size = m + (m * (m + 1)) // 2
    copy(moments, above, size, moments, here)
    above_spread, spread = above + m * B, here + m * B
    for a in range(q):  # root = R^{-1} L', U = root' X
        for c in range(q):
            s = load(L, at + (c * q + a) * B)
            for b in range(a):
                s = fnma(load(w, R + (a * q + b) * B), load(w, root + (b * q + c) * B), s)
            store(w, root + (a * q + c) * B, s)
    for i in range(q):
        mean = load(moments, above + z[i] * B)
        for c in range(m):
            s = splat(0.0)
            for b in range(q):
                s = fma(load(w, root + (b * q + i) * B), load(w, (b * m + c) * B), s)
            store(w, U + (i * m + c) * B, s)
            mean = fnma(s, load(moments, above + c * B), mean)
        store(moments, here + z[i] * B, mean)
        for c in range(m):
            s = load(moments, above_spread + tri[z[i], c])
            for e in range(m):
                s = fnma(load(w, U + (i * m + e) * B), load(moments, above_spread + tri[e, c]), s)
            store(w, h + (i * m + c) * B, s)
            store(moments, spread + tri[z[i], c], s)
    for i in range(q):
        for j in range(i + 1):
            s = load(w, h + (i * m + z[j]) * B)
            for e in range(m):
                s = fnma(load(w, h + (i * m + e) * B), load(w, U + (j * m + e) * B), s)
            for b in range(q):
                scaled = load(w, root + (b * q + i) * B) * load(w, R + (b * q + b) * B)
                s = fma(scaled, load(w, root + (b * q + j) * B), s)
            store(moments, spread + tri[z[i], z[j]], s)
