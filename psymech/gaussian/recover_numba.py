"""Recovery of fixed and random effects, compiled: what `psymech.gaussian.conditional.recover` does, draw by draw
over blocks of units.

Given the levels above, a unit's effects are ``L R^{-T} (D^{-1} R^{-1} T a + D^{-1/2} e)`` with ``M = R D R'``, ``a``
the combination of columns left to explain and ``e`` standard normal: no covariance is formed.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from psymech.errors import SpecError
from psymech.gaussian.blocks import LANES, KernelShape, make_layout, pack
from psymech.gaussian.compiled import own_cache
from psymech.gaussian.conditional import Noise, Recovered, chunks
from psymech.gaussian.cross import CrossProducts, IntArray
from psymech.gaussian.kernel_steps import (
    cholesky_inverse,
    combine,
    entry,
    factorise,
    forward_level,
    scaled,
    unblock,
    workspace,
)
from psymech.gaussian.kernels_numba import VERSION
from psymech.gaussian.loglik import Prior, prior_arrays
from psymech.gaussian.simd import fma, fnma, load, splat, store

B = LANES


def recover(
    cross: CrossProducts,
    coefs: ArrayLike,
    factors: Sequence[ArrayLike],
    *,
    rng: np.random.Generator,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
) -> Recovered:
    """Return what `psymech.gaussian.conditional.recover` returns, to rounding, for lower-triangular factors.

    Arguments, results and the use of ``rng`` are the same.
    """
    weights = np.ascontiguousarray(coefs, dtype=np.float64)
    roots = tuple(np.ascontiguousarray(factor, dtype=np.float64) for factor in factors)
    shapes = [(weights.shape[0], z.size, z.size) for z in cross.z]
    if weights.ndim != 2 or weights.shape[1] != cross.n_coef or [root.shape for root in roots] != shapes:
        raise SpecError(
            f"Expected coefs (D, {cross.n_coef}) and factors {shapes}; found {weights.shape}, "
            f"{[r.shape for r in roots]}."
        )
    if any(np.any(np.triu(root, 1)) for root in roots):
        raise SpecError(
            "Compiled recovery expects lower-triangular factors; take the Cholesky factor of the covariance."
        )
    if (beta is None) == (prior is None):
        raise SpecError("Give exactly one of beta (fixed effects known) and prior (fixed effects drawn).")
    n_draws, p = weights.shape[0], int(cross.x.size)
    if prior is None:
        center = np.ascontiguousarray(np.broadcast_to(np.asarray(beta, dtype=np.float64), (n_draws, p)))
        precision = np.empty((0, 0))
    else:
        mean, precision = prior_arrays(prior, p)
        center = np.ascontiguousarray(np.broadcast_to(mean, (n_draws, p)))
    layout = make_layout(cross)
    units = tuple(
        _unit_of_slot(slot, parent.size) for slot, parent in zip(layout.slot, layout.parent_slot, strict=True)
    )
    kernel = make_recovery(KernelShape.of(cross, integrate=prior is not None))
    S = pack(cross, layout)
    drawn = np.empty((n_draws, p))
    effects = tuple(np.empty((n_draws, n, z.size)) for n, z in zip(cross.sizes, cross.z, strict=True))
    for chunk in chunks(cross, n_draws):
        noise = Noise.draw(cross, chunk.stop - chunk.start, rng)
        kernel(
            S,
            layout.parent_slot,
            layout.up,
            layout.order,
            units,
            weights[chunk],
            tuple(root[chunk] for root in roots),
            center[chunk],
            np.ascontiguousarray(precision),
            noise.beta,
            noise.effects,
            drawn[chunk],
            tuple(effect[chunk] for effect in effects),
        )
    return Recovered(drawn, effects)


def make_recovery(shape: KernelShape) -> Callable[..., Any]:
    """Return the compiled recovery of a shape; it fills its last two arguments, one draw after another."""
    return _make_recovery(shape.q, shape.m, shape.n_coef, shape.integrate)


def _unit_of_slot(slot: IntArray, n_slots: int) -> IntArray:
    unit = np.full(n_slots, -1, dtype=np.int64)
    unit[slot] = np.arange(slot.size)
    return unit


@njit(nogil=True, error_model="numpy")
def _down_level(S, coefs, parent, order, unit, L, L_scaled, root, q_, m_, k_, above, left, noise, out):
    """Draw the effects of one level; ``above`` and ``left`` hold, slot by slot, the columns' combination left to
    explain.
    """
    q, m = len(q_), len(m_)
    n_tri = (m * (m + 1)) // 2
    T, R, A = q * m * B, 4 * q * m * B, (4 * q * m + q * q) * B
    E = A + m * B
    MIX = E + q * B
    w = workspace(MIX + n_tri * B)
    for block in range(parent.size // B):
        source, base = S, block * n_tri * B
        if len(k_) > 1:
            combine(S, block, coefs, k_, m_, w, MIX)
            source, base = w, MIX
        factorise(source, base, q_, m_, L_scaled, w)
        for b in range(B):
            for c in range(m):
                w[A + c * B + b] = above[parent[block * B + b] * m + order[c]]
            mine = unit[block * B + b]
            for a in range(q):
                w[E + a * B + b] = noise[mine, a] * np.sqrt(w[R + (a * q + a) * B + b]) if mine >= 0 else 0.0
        for a in range(q):  # R^{-1} T a over the first column of T
            acc = load(w, T + a * m * B) * load(w, A)
            for c in range(1, m):
                acc = fma(load(w, T + (a * m + c) * B), load(w, A + c * B), acc)
            for b in range(a):
                acc = fnma(load(w, R + (a * q + b) * B), load(w, T + b * m * B), acc)
            store(w, T + a * m * B, acc)
        for i in range(q):
            a = q - 1 - i
            acc = splat(root) * load(w, T + a * m * B) * load(w, R + (a * q + a) * B) + load(w, E + a * B)
            for b in range(a + 1, q):
                acc = fnma(load(w, R + (b * q + a) * B), load(w, E + b * B), acc)
            store(w, E + a * B, acc)
        for i in range(q):
            a = q - 1 - i
            acc = splat(L[a, a]) * load(w, E + a * B)
            for b in range(a):
                acc = fma(splat(L[a, b]), load(w, E + b * B), acc)
            store(w, E + a * B, acc)
        for b in range(B):
            slot = block * B + b
            mine = unit[slot]
            if mine >= 0:
                for a in range(q):
                    out[mine, a] = w[E + a * B + b]
            if left.size > 0:
                for c in range(m):
                    left[slot * m + order[c]] = w[A + c * B + b] - (w[E + c * B + b] if c < q else 0.0)


@njit(nogil=True, error_model="numpy")
def _draw_beta(H, scale, integrate, center, precision, noise, order, left, out):
    """Draw the fixed effects, and write the combination of columns they leave to explain."""
    p = center.size
    for i in range(p):
        out[i] = center[i]
    if integrate and p > 0:
        Q, C = np.empty((p, p)), np.empty((p, p))
        for i in range(p):
            for j in range(p):
                Q[i, j] = precision[i, j] + scale * entry(H, i, j)
        cholesky_inverse(Q, C)
        for i in range(p):
            d = entry(H, p, i)
            for j in range(p):
                d -= entry(H, i, j) * center[j]
            for j in range(p):
                out[j] += C[j, i] * scale * d
        z = np.empty(p)
        for k in range(p):
            i = p - 1 - k
            s = noise[i]
            for j in range(i + 1, p):
                s -= Q[j, i] * z[j]
            z[i] = s / Q[i, i]
        for i in range(p):
            out[i] += z[i]
    for c in range(left.size):
        left[c] = 0.0
    for i in range(p):
        left[order[i]] = -out[i]
    left[order[p]] = 1.0


@cache
def _make_recovery(q: tuple[int, ...], m: int, n_coef: int, integrate: bool) -> Callable[..., Any]:
    build = (_one_level, _two_levels, _three_levels)[len(q) - 1]
    return build(tuple((0,) * size for size in q), (0,) * m, (0,) * n_coef, (0,), integrate, VERSION)


def _one_level(q_, m_, k_, one_, integrate, version):
    n_tri, m, (q0,), fold = len(m_) * (len(m_) + 1) // 2, len(m_), q_, len(k_) == 1

    def kernel(S, parents, maps, orders, units, coefs, factors, center, precision, z, noise, beta, effects):
        _ = version  # a free variable, so that it is part of the cache key
        nothing, left = np.empty(0), np.empty(m)
        for d in range(coefs.shape[0]):
            c = coefs[d, 0] if fold else 1.0
            root = np.sqrt(c)
            L0 = scaled(factors[0][d], root)
            H = np.zeros(n_tri * B)
            forward_level(S, coefs[d], parents[0], maps[0], L0, q0, m_, k_, H)
            _draw_beta(unblock(H, n_tri), c, integrate, center[d], precision, z[d], orders[1], left, beta[d])
            _down_level(
                S,
                coefs[d],
                parents[0],
                orders[0],
                units[0],
                factors[0][d],
                L0,
                root,
                q0,
                m_,
                k_,
                left,
                nothing,
                noise[0][d],
                effects[0][d],
            )

    return njit(nogil=True, error_model="numpy", cache=True)(own_cache(kernel, q_, m_, k_, integrate, version))


def _two_levels(q_, m_, k_, one_, integrate, version):
    n_tri, m, (q0, q1), fold = len(m_) * (len(m_) + 1) // 2, len(m_), q_, len(k_) == 1

    def kernel(S, parents, maps, orders, units, coefs, factors, center, precision, z, noise, beta, effects):
        _ = version
        nothing, left, left1 = np.empty(0), np.empty(m), np.empty(parents[1].size * m)
        for d in range(coefs.shape[0]):
            c = coefs[d, 0] if fold else 1.0
            root = np.sqrt(c)
            L0, L1 = scaled(factors[0][d], root), scaled(factors[1][d], root)
            S1, H = np.zeros(parents[1].size * n_tri), np.zeros(n_tri * B)
            forward_level(S, coefs[d], parents[0], maps[0], L0, q0, m_, k_, S1)
            forward_level(S1, coefs[d], parents[1], maps[1], L1, q1, m_, one_, H)
            _draw_beta(unblock(H, n_tri), c, integrate, center[d], precision, z[d], orders[2], left, beta[d])
            _down_level(
                S1,
                coefs[d],
                parents[1],
                orders[1],
                units[1],
                factors[1][d],
                L1,
                root,
                q1,
                m_,
                one_,
                left,
                left1,
                noise[1][d],
                effects[1][d],
            )
            _down_level(
                S,
                coefs[d],
                parents[0],
                orders[0],
                units[0],
                factors[0][d],
                L0,
                root,
                q0,
                m_,
                k_,
                left1,
                nothing,
                noise[0][d],
                effects[0][d],
            )

    return njit(nogil=True, error_model="numpy", cache=True)(own_cache(kernel, q_, m_, k_, integrate, version))


def _three_levels(q_, m_, k_, one_, integrate, version):
    n_tri, m, (q0, q1, q2), fold = len(m_) * (len(m_) + 1) // 2, len(m_), q_, len(k_) == 1

    def kernel(S, parents, maps, orders, units, coefs, factors, center, precision, z, noise, beta, effects):
        _ = version
        nothing, left = np.empty(0), np.empty(m)
        left1, left2 = np.empty(parents[1].size * m), np.empty(parents[2].size * m)
        for d in range(coefs.shape[0]):
            c = coefs[d, 0] if fold else 1.0
            root = np.sqrt(c)
            L0, L1, L2 = scaled(factors[0][d], root), scaled(factors[1][d], root), scaled(factors[2][d], root)
            S1, S2, H = np.zeros(parents[1].size * n_tri), np.zeros(parents[2].size * n_tri), np.zeros(n_tri * B)
            forward_level(S, coefs[d], parents[0], maps[0], L0, q0, m_, k_, S1)
            forward_level(S1, coefs[d], parents[1], maps[1], L1, q1, m_, one_, S2)
            forward_level(S2, coefs[d], parents[2], maps[2], L2, q2, m_, one_, H)
            _draw_beta(unblock(H, n_tri), c, integrate, center[d], precision, z[d], orders[3], left, beta[d])
            _down_level(
                S2,
                coefs[d],
                parents[2],
                orders[2],
                units[2],
                factors[2][d],
                L2,
                root,
                q2,
                m_,
                one_,
                left,
                left2,
                noise[2][d],
                effects[2][d],
            )
            _down_level(
                S1,
                coefs[d],
                parents[1],
                orders[1],
                units[1],
                factors[1][d],
                L1,
                root,
                q1,
                m_,
                one_,
                left2,
                left1,
                noise[1][d],
                effects[1][d],
            )
            _down_level(
                S,
                coefs[d],
                parents[0],
                orders[0],
                units[0],
                factors[0][d],
                L0,
                root,
                q0,
                m_,
                k_,
                left1,
                nothing,
                noise[0][d],
                effects[0][d],
            )

    return njit(nogil=True, error_model="numpy", cache=True)(own_cache(kernel, q_, m_, k_, integrate, version))
