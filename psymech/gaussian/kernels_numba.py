"""The engine compiled by numba: value and gradient over blocks of eight units, one unit in each vector lane.

Kernels start no threads, release the interpreter lock and allocate their own small workspaces, so chains may call
them at once. Every level runs the same code. With one residual coefficient ``c`` the factors are scaled by
``sqrt(c)`` instead of the cross-products. Compiled code is kept on disk by numba.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from psymech.errors import SpecError
from psymech.gaussian import kernel_steps, ldl, simd
from psymech.gaussian.blocks import LANES, KernelShape, Layout, make_layout, pack
from psymech.gaussian.compiled import digest_of, own_cache
from psymech.gaussian.cross import CrossProducts, FloatArray
from psymech.gaussian.kernel_steps import (
    backward_level,
    forward_level,
    inner_product,
    scaled,
    solve_top,
    sum_of_products,
    unblock,
)
from psymech.gaussian.loglik import Gradient, Prior, prior_arrays

LOG_2PI = float(np.log(2 * np.pi))
B = LANES


# Whoever caches compiled code that calls a kernel needs it too.
VERSION = digest_of(__file__, kernel_steps.__file__, ldl.__file__, simd.__file__)


def make_kernel(shape: KernelShape) -> Callable[..., Any]:
    """Return the compiled value-and-gradient function of a shape.

    The function may be called from other compiled functions. Arguments: ``(S, parents, maps, n_obs, coefs, factors,
    log_det_R, center, precision)`` where ``S`` is from `psymech.gaussian.blocks.pack`; ``parents`` and ``maps`` are
    the layout's ``parent_slot`` and ``up``; ``factors`` is a tuple of C-contiguous ``(q, q)`` arrays of which only
    the lower triangles are read; ``center`` is beta ``(p,)`` or, with ``shape.integrate``, the prior mean, and
    ``precision`` its precision ``(p, p)`` (``(0, 0)`` otherwise). Results: ``(value, coef_bar (n_coef,), tuple of
    factor_bar (q, q) lower triangles, center_bar (p,))``. A value that is not finite means parameters outside their
    range.
    """
    return _make_kernel(shape.q, shape.m, shape.n_coef, shape.integrate)


@cache
def _make_kernel(q: tuple[int, ...], m: int, n_coef: int, integrate: bool) -> Callable[..., Any]:
    m_, k_, one_ = (0,) * m, (0,) * n_coef, (0,)
    build = (_one_level, _two_levels, _three_levels)[len(q) - 1]
    return build(tuple((0,) * size for size in q), m_, k_, one_, integrate, VERSION)


def _one_level(q_, m_, k_, one_, integrate, version):
    n_tri, (q0,), n_coef = len(m_) * (len(m_) + 1) // 2, q_, len(k_)

    def kernel(S, parents, maps, n_obs, coefs, factors, log_det_R, center, precision):
        _ = version  # a free variable, so that it is part of the cache key
        fold = n_coef == 1
        c = coefs[0] if fold else 1.0
        root = np.sqrt(c)
        L0 = scaled(factors[0], root)
        H = np.zeros(n_tri * B)
        log_det = forward_level(S, coefs, parents[0], maps[0], L0, q0, m_, k_, H)
        H_bar, center_bar, coef_bar = np.zeros(n_tri), np.zeros(center.size), np.zeros(n_coef)
        top = unblock(H, n_tri)
        G_top = np.empty(n_tri)
        value = solve_top(top, c, integrate, center, precision, H_bar, center_bar)
        for t in range(n_tri):
            G_top[t] = c * H_bar[t]
        bar0 = scaled(L0, 0.0)
        backward_level(S, coefs, parents[0], maps[0], L0, q0, m_, k_, G_top, False, G_top, bar0, coef_bar)
        if fold:
            coef_bar[0] = inner_product(H_bar, top, len(m_)) + 0.5 * sum_of_products(bar0, L0) / c
        value -= 0.5 * (n_obs * LOG_2PI + log_det_R + log_det)
        return value, coef_bar, (scaled(bar0, root),), center_bar

    return njit(nogil=True, error_model="numpy", cache=True)(own_cache(kernel, q_, m_, k_, integrate, version))


def _two_levels(q_, m_, k_, one_, integrate, version):
    n_tri, (q0, q1), n_coef = len(m_) * (len(m_) + 1) // 2, q_, len(k_)

    def kernel(S, parents, maps, n_obs, coefs, factors, log_det_R, center, precision):
        _ = version  # a free variable, so that it is part of the cache key
        fold = n_coef == 1
        c = coefs[0] if fold else 1.0
        root = np.sqrt(c)
        L0, L1 = scaled(factors[0], root), scaled(factors[1], root)
        S1, H = np.zeros(parents[1].size * n_tri), np.zeros(n_tri * B)
        log_det = forward_level(S, coefs, parents[0], maps[0], L0, q0, m_, k_, S1)
        log_det += forward_level(S1, coefs, parents[1], maps[1], L1, q1, m_, one_, H)
        H_bar, center_bar, coef_bar = np.zeros(n_tri), np.zeros(center.size), np.zeros(n_coef)
        top = unblock(H, n_tri)
        G_top = np.empty(n_tri)
        value = solve_top(top, c, integrate, center, precision, H_bar, center_bar)
        for t in range(n_tri):
            G_top[t] = c * H_bar[t]
        bar0, bar1, G1 = scaled(L0, 0.0), scaled(L1, 0.0), np.empty(parents[1].size * n_tri)
        backward_level(S1, coefs, parents[1], maps[1], L1, q1, m_, one_, G_top, True, G1, bar1, coef_bar)
        backward_level(S, coefs, parents[0], maps[0], L0, q0, m_, k_, G1, False, G1, bar0, coef_bar)
        if fold:
            coef_bar[0] = (
                inner_product(H_bar, top, len(m_)) + 0.5 * (sum_of_products(bar0, L0) + sum_of_products(bar1, L1)) / c
            )
        value -= 0.5 * (n_obs * LOG_2PI + log_det_R + log_det)
        return value, coef_bar, (scaled(bar0, root), scaled(bar1, root)), center_bar

    return njit(nogil=True, error_model="numpy", cache=True)(own_cache(kernel, q_, m_, k_, integrate, version))


def _three_levels(q_, m_, k_, one_, integrate, version):
    n_tri, (q0, q1, q2), n_coef = len(m_) * (len(m_) + 1) // 2, q_, len(k_)

    def kernel(S, parents, maps, n_obs, coefs, factors, log_det_R, center, precision):
        _ = version  # a free variable, so that it is part of the cache key
        fold = n_coef == 1
        c = coefs[0] if fold else 1.0
        root = np.sqrt(c)
        L0, L1, L2 = scaled(factors[0], root), scaled(factors[1], root), scaled(factors[2], root)
        S1, S2, H = np.zeros(parents[1].size * n_tri), np.zeros(parents[2].size * n_tri), np.zeros(n_tri * B)
        log_det = forward_level(S, coefs, parents[0], maps[0], L0, q0, m_, k_, S1)
        log_det += forward_level(S1, coefs, parents[1], maps[1], L1, q1, m_, one_, S2)
        log_det += forward_level(S2, coefs, parents[2], maps[2], L2, q2, m_, one_, H)
        H_bar, center_bar, coef_bar = np.zeros(n_tri), np.zeros(center.size), np.zeros(n_coef)
        top = unblock(H, n_tri)
        G_top = np.empty(n_tri)
        value = solve_top(top, c, integrate, center, precision, H_bar, center_bar)
        for t in range(n_tri):
            G_top[t] = c * H_bar[t]
        bar0, bar1, bar2 = scaled(L0, 0.0), scaled(L1, 0.0), scaled(L2, 0.0)
        G1, G2 = np.empty(parents[1].size * n_tri), np.empty(parents[2].size * n_tri)
        backward_level(S2, coefs, parents[2], maps[2], L2, q2, m_, one_, G_top, True, G2, bar2, coef_bar)
        backward_level(S1, coefs, parents[1], maps[1], L1, q1, m_, one_, G2, True, G1, bar1, coef_bar)
        backward_level(S, coefs, parents[0], maps[0], L0, q0, m_, k_, G1, False, G1, bar0, coef_bar)
        if fold:
            total = sum_of_products(bar0, L0) + sum_of_products(bar1, L1) + sum_of_products(bar2, L2)
            coef_bar[0] = inner_product(H_bar, top, len(m_)) + 0.5 * total / c
        value -= 0.5 * (n_obs * LOG_2PI + log_det_R + log_det)
        return value, coef_bar, (scaled(bar0, root), scaled(bar1, root), scaled(bar2, root)), center_bar

    return njit(nogil=True, error_model="numpy", cache=True)(own_cache(kernel, q_, m_, k_, integrate, version))


@dataclass(frozen=True, slots=True, eq=False)
class BoundKernel:
    """A compiled kernel with the data it is called on; made by `bind`."""

    kernel: Callable[..., Any]
    shape: KernelShape
    layout: Layout
    S: FloatArray
    n_obs: int

    def value_and_grad(
        self,
        coefs: ArrayLike,
        factors: Sequence[ArrayLike],
        log_det_R: float,
        *,
        beta: ArrayLike | None = None,
        prior: Prior | None = None,
    ) -> tuple[float, Gradient]:
        """Return what `psymech.gaussian.loglik.value_and_grad` returns, for lower-triangular factors.

        Derivatives by a factor are given for its lower triangle; the derivative by the prior precision is left out.
        """
        if (prior is None) == self.shape.integrate or (beta is None) != self.shape.integrate:
            raise SpecError(f"This kernel expects {'prior' if self.shape.integrate else 'beta'}, and only that.")
        roots = tuple(np.array(factor, dtype=np.float64, order="C") for factor in factors)
        if any(np.any(np.triu(root, 1)) for root in roots):
            raise SpecError(
                "Compiled kernels expect lower-triangular factors; take the Cholesky factor of the covariance."
            )
        if prior is None:
            center, precision = np.array(beta, dtype=np.float64), np.empty((0, 0))
        else:
            center, precision = prior_arrays(prior, self.shape.p)
        value, coef_bar, factor_bars, center_bar = self.kernel(
            self.S,
            self.layout.parent_slot,
            self.layout.up,
            self.n_obs,
            np.array(coefs, dtype=np.float64),
            roots,
            float(log_det_R),
            np.ascontiguousarray(center),
            np.ascontiguousarray(precision),
        )
        mean_bar, beta_bar = (center_bar, None) if self.shape.integrate else (None, center_bar)
        return float(value), Gradient(coef_bar, factor_bars, -0.5, beta_bar, mean_bar, None)


def bind(cross: CrossProducts, *, integrate: bool) -> BoundKernel:
    """Return the compiled kernel for these cross-products, ready to call."""
    shape, layout = KernelShape.of(cross, integrate=integrate), make_layout(cross)
    return BoundKernel(make_kernel(shape), shape, layout, pack(cross, layout), cross.n_obs)
