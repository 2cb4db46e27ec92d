"""The log posterior over unconstrained parameters, likelihood and priors in one compiled function.

Parameters, in this order: for each level, lowest first, its signed scales ``t`` (q) and, where its terms correlate,
its canonical partial correlations on the log-odds scale (q (q - 1) / 2, row by row, those fixed at zero left out);
then the logarithms of the residual SDs; then, for AR(1) residuals, ``logit((phi + 1) / 2)``. Residuals that correlate
across responses have signed scales and partial correlations like a level, in place of logarithms. The covariance
factor of a level is ``diag(t) C``. Fixed and random effects are integrated out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload
from numpy.typing import NDArray
from scipy.special import gammaln

from psymech.gaussian import target_patterns
from psymech.gaussian.blocks import KernelShape, make_layout, pack
from psymech.gaussian.compiled import digest_of, own_cache
from psymech.gaussian.cross import CrossProducts, FloatArray
from psymech.gaussian.kernels_numba import VERSION, make_kernel
from psymech.gaussian.patterns import ByPattern
from psymech.gaussian.residual import AR1, ByGroup, Residual
from psymech.gaussian.target_patterns import pattern_adjoint, pattern_coefficients

_Lengths = tuple[int, ...]
Sizes = tuple[tuple[_Lengths, ...], tuple[_Lengths, ...], _Lengths, _Lengths, _Lengths]

NORMAL, STUDENT, LAPLACE = 0, 1, 2

CODE_VERSION = VERSION + digest_of(__file__, target_patterns.__file__)


@dataclass(frozen=True, slots=True, eq=False)
class ScalePriors:
    """Priors of scales as symmetric densities of the signed scale: family code, spread and degrees of freedom of
    each.
    """

    family: NDArray[np.int64]
    spread: FloatArray
    nu: FloatArray

    def table(self) -> FloatArray:
        """Return (n, 4): family, spread, nu, log of the normalising constant."""
        normal = -0.5 * np.log(2 * np.pi) - np.log(self.spread)
        nu = np.where(self.family == STUDENT, self.nu, 1.0)
        student = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(np.pi * nu) - np.log(self.spread)
        laplace = -np.log(2 * self.spread)
        constant = np.select([self.family == NORMAL, self.family == STUDENT], [normal, student], laplace)
        return np.column_stack([self.family.astype(float), self.spread, nu, constant])


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A compiled log posterior with its data.

    Attributes
    ----------
    sizes : what the compiled code is specialised to.
    arguments : data and priors, arrays and tuples of arrays, in the order of :func:`log_posterior`.
    n : number of parameters.
    """

    sizes: Sizes
    arguments: tuple[Any, ...]
    n: int
    q: tuple[int, ...]
    correlated: tuple[bool, ...]
    n_sigma: int
    residual: int  # 0: one SD a group; 1: AR(1); 2 + R: correlated across R responses
    free: tuple[NDArray[np.bool_], ...]  # for each level, which partial correlations are parameters, row by row

    @property
    def autoregressive(self) -> bool:
        """Whether residuals follow a first-order autoregression."""
        return self.residual == 1

    @property
    def correlated_residuals(self) -> bool:
        """Whether residuals correlate across responses."""
        return self.residual > 1

    def value_and_grad(self, x: FloatArray) -> tuple[float, FloatArray]:
        """Return the log posterior density and its gradient at one point."""
        gradient = np.zeros(self.n)
        function = _python_face(self.sizes, CODE_VERSION)
        return float(function(np.ascontiguousarray(x, dtype=np.float64), gradient, *self.arguments)), gradient


def make_target(
    cross: CrossProducts,
    residual: Residual,
    *,
    scales: Sequence[ScalePriors],
    eta: Sequence[float | None],
    sigma: ScalePriors,
    phi_a: float,
    beta_prior: tuple[FloatArray, FloatArray],
    zero: Sequence[NDArray[np.bool_] | None] | None = None,
    residual_eta: float | None = None,
) -> Target:
    """Compile the log posterior of a design.

    Parameters
    ----------
    cross, residual
        Cross-products and the residual structure that made them (:class:`ByGroup`, :class:`ByPattern` or a
        one-group :class:`AR1`).
    scales, eta
        For each level the priors of its scales, and LKJ's eta, or None where its terms do not correlate.
    sigma
        Priors of the residual SDs.
    phi_a
        (phi + 1) / 2 ~ Beta(phi_a, phi_a); used with AR(1) only.
    beta_prior
        Mean and precision of the fixed effects.
    zero
        For each level ``(q, q)``: below the diagonal, which partial correlations are fixed at zero.
    residual_eta
        LKJ's eta of the residual correlations; used with :class:`ByPattern` only.
    """
    layout = make_layout(cross)
    shape = KernelShape.of(cross, integrate=True)
    q = shape.q
    correlated = tuple(e is not None for e in eta)
    alphas = [_alphas(size, e, z) for size, e, z in zip(q, eta, zero or [None] * len(q), strict=True)]
    free = tuple(a[:, 0] > 0 for a in alphas)
    counts, gaps, steps = _residual_tables(residual)
    kind, n_sigma, n_residual = int(isinstance(residual, AR1)), int(counts.size), int(counts.size)
    last = np.array([phi_a, gammaln(2 * phi_a) - 2 * gammaln(phi_a)])
    if isinstance(residual, ByPattern):
        n_sigma = residual.n_responses
        kind, last = 2 + n_sigma, _alphas(n_sigma, residual_eta or 1.0, None).ravel()
        n_residual = n_sigma * (n_sigma + 1) // 2
    sizes = make_sizes(q, correlated, shape.m, shape.n_coef, residual=kind)
    arguments = (
        pack(cross, layout),
        layout.parent_slot,
        layout.up,
        float(cross.n_obs),
        np.ascontiguousarray(beta_prior[0]),
        np.ascontiguousarray(beta_prior[1]),
        tuple(p.table() for p in scales),
        tuple(alphas),
        sigma.table(),
        counts,
        gaps,
        steps,
        last,
    )
    n = sum(size + int(f.sum()) for size, f in zip(q, free, strict=True)) + n_residual + int(kind == 1)
    return Target(sizes, arguments, n, q, correlated, n_sigma, kind, free)


def _alphas(q: int, eta: float | None, zero: NDArray[np.bool_] | None) -> FloatArray:
    """(n, 2): Beta parameter of each partial correlation, row by row, and minus the log of its Beta function; (-1, 0)
    where it is fixed at zero.
    """
    if eta is None:
        return np.zeros((0, 2))
    lower = np.tril_indices(q, -1)
    a = eta + (q - 2 - lower[1]) / 2.0
    table = np.column_stack([a, gammaln(2 * a) - 2 * gammaln(a)])
    if zero is not None:
        table[zero[lower]] = (-1.0, 0.0)
    return table


def _residual_tables(residual: Residual) -> tuple[FloatArray, FloatArray, FloatArray]:
    if isinstance(residual, ByGroup):
        return np.bincount(residual.group).astype(float), np.zeros(0), np.zeros(0)
    if isinstance(residual, ByPattern):
        return residual.counts, residual.masks.astype(float).ravel(), np.zeros(0)
    assert isinstance(residual, AR1) and residual.n_groups == 1
    gaps, counts = np.unique(residual.steps()[2], return_counts=True)
    return np.array([float(residual.group.size)]), gaps, counts.astype(float)


@njit(nogil=True, error_model="numpy")
def _scale_prior(x, row):
    """Log density of a signed scale and its derivative."""
    spread = row[1]
    if row[0] == 0.0:
        return row[3] - 0.5 * (x / spread) ** 2, -x / spread**2
    if row[0] == 1.0:
        nu = row[2]
        ratio = x * x / (nu * spread * spread)
        return row[3] - 0.5 * (nu + 1) * np.log1p(ratio), -(nu + 1) * x / (nu * spread * spread * (1 + ratio))
    return row[3] - abs(x) / spread, -np.sign(x) / spread


@njit(nogil=True, error_model="numpy")
def _unpack_level(x, start, q, correlated, priors, alphas, L, C, grad):
    """Fill the factor L = diag(t) C of one level; add the prior's gradient; return its log density and the next
    place.
    """
    log_density = 0.0
    for i in range(q):
        value, slope = _scale_prior(x[start + i], priors[i])
        log_density += value
        grad[start + i] = slope
    k = start + q
    entry = -1
    for i in range(q):
        rest = 1.0
        for j in range(i):
            entry += 1
            if correlated and alphas[entry, 0] > 0.0:
                y = x[k]
                r = np.tanh(0.5 * y)
                decay = np.exp(-abs(y))
                log_quarter = -abs(y) - 2 * np.log1p(decay)  # log((1 - r^2) / 4), exact in the tails
                a = alphas[entry, 0]
                log_density += a * log_quarter + alphas[entry, 1]
                grad[k] = -a * r
                C[i, j] = r * np.sqrt(rest)
                rest *= 4.0 * np.exp(log_quarter)
                k += 1
            else:
                C[i, j] = 0.0
        C[i, i] = np.sqrt(rest)
        for j in range(i + 1):
            L[i, j] = x[start + i] * C[i, j]
    return log_density, k


@njit(nogil=True, error_model="numpy")
def _pull_back(x, start, q, correlated, alphas, C, L_bar, grad):
    """Add the derivative by scales and partial correlations that comes through the factor."""
    for i in range(q):
        total = 0.0
        for j in range(i + 1):
            total += L_bar[i, j] * C[i, j]
        grad[start + i] += total
    if not correlated:
        return
    k = start + q
    entry = -1
    for i in range(q):
        rest = 1.0
        for j in range(i):
            entry += 1
            if alphas[entry, 0] < 0.0:
                continue
            r = np.tanh(0.5 * x[k])
            w2 = 1.0 / np.cosh(0.5 * x[k]) ** 2
            later = 0.0
            for k_ in range(j + 1, i + 1):
                later += L_bar[i, k_] * C[i, k_]
            grad[k] += x[start + i] * (0.5 * L_bar[i, j] * np.sqrt(rest) * w2 - 0.5 * r * later)
            rest *= w2
            k += 1


@njit(nogil=True, error_model="numpy")
def _residual(x, k, sigma_priors, counts, gaps, steps, phi_prior, kind, coefs, d_phi, grad):
    """Fill the coefficients; return the priors' log density and log|R|. ``d_phi`` is d coefs / d logit, its last
    entry log|R|'s.
    """
    log_density, log_det = 0.0, 0.0
    if kind > 1:
        R = kind - 2
        L, C = np.zeros((R, R)), np.zeros((R, R))
        alphas = phi_prior.reshape((R * (R - 1) // 2, 2))
        log_density, _ = _unpack_level(x, k, R, True, sigma_priors, alphas, L, C, grad)
        return log_density, pattern_coefficients(L, counts, gaps, coefs)
    n_sigma = counts.size
    for g in range(n_sigma):
        sigma = np.exp(x[k + g])
        value, slope = _scale_prior(sigma, sigma_priors[g])
        log_density += value + np.log(2.0) + x[k + g]
        grad[k + g] = slope * sigma + 1.0
        log_det += 2.0 * counts[g] * x[k + g]
        coefs[g] = np.exp(-2.0 * x[k + g])
    if kind == 1:
        y = x[k + n_sigma]
        phi = np.tanh(0.5 * y)
        log_quarter = -abs(y) - 2 * np.log1p(np.exp(-abs(y)))
        slope = 2.0 * np.exp(log_quarter)  # d phi / d logit
        log_density += phi_prior[0] * log_quarter + phi_prior[1]
        grad[k + n_sigma] = -phi_prior[0] * phi
        c = coefs[0]
        for d in range(gaps.size):
            rho = np.sign(phi) ** gaps[d] * abs(phi) ** gaps[d]
            d_rho = gaps[d] * np.sign(phi) ** (gaps[d] - 1) * abs(phi) ** (gaps[d] - 1) * slope
            rest = 1.0 - rho * rho
            coefs[1 + 2 * d] = c / rest
            coefs[2 + 2 * d] = -c * rho / rest
            d_phi[1 + 2 * d] = c * 2 * rho * d_rho / rest**2
            d_phi[2 + 2 * d] = -c * (1 + rho * rho) * d_rho / rest**2
            log_det += steps[d] * np.log(rest)
            d_phi[-1] += -2.0 * steps[d] * rho * d_rho / rest
    return log_density, log_det


@njit(nogil=True, error_model="numpy")
def _residual_back(x, k, sigma_priors, counts, gaps, phi_prior, kind, coefs, coef_bar, d_phi, grad):
    n_sigma = counts.size
    if kind > 1:
        R = kind - 2
        L, C, L_bar = np.zeros((R, R)), np.zeros((R, R)), np.zeros((R, R))
        alphas = phi_prior.reshape((R * (R - 1) // 2, 2))
        _unpack_level(x, k, R, True, sigma_priors, alphas, L, C, np.zeros(grad.size))
        pattern_adjoint(L, counts, gaps, coef_bar, L_bar)
        _pull_back(x, k, R, True, alphas, C, L_bar, grad)
    elif kind == 1:
        for index in range(coefs.size):
            grad[k] += -2.0 * coefs[index] * coef_bar[index]
            grad[k + 1] += coef_bar[index] * d_phi[index]
        grad[k] -= counts[0]
        grad[k + 1] -= 0.5 * d_phi[-1]
    else:
        for g in range(n_sigma):
            grad[k + g] += -2.0 * coefs[g] * coef_bar[g] - counts[g]


def make_sizes(q: tuple[int, ...], correlated: tuple[bool, ...], m: int, n_coef: int, *, residual: int) -> Sizes:
    """Encode sizes as lengths of tuples, which are part of a type: compiled code can then be found on disk by its
    types.
    """
    flags = tuple((0,) * int(c) for c in correlated)
    return (tuple((0,) * size for size in q), flags, (0,) * m, (0,) * n_coef, (0,) * residual)


def log_posterior(
    sizes, x, grad, S, parents, maps, n_obs, mean, precision, scales, alphas, sigma, counts, gaps, steps, phi_prior
):
    """Log posterior density at ``x``, its gradient in ``grad``; only to be called from compiled functions."""
    raise NotImplementedError("call this from a function compiled by numba")


@overload(log_posterior, jit_options={"nogil": True, "error_model": "numpy"})
def _compiled_log_posterior(
    sizes, x, grad, S, parents, maps, n_obs, mean, precision, scales, alphas, sigma, counts, gaps, steps, phi_prior
):
    q, correlated = tuple(len(t) for t in sizes[0]), tuple(len(t) == 1 for t in sizes[1])
    m, n_coef, kind = len(sizes[2]), len(sizes[3]), len(sizes[4])
    kernel = make_kernel(KernelShape(q, m, 0, n_coef, True))  # the number of fixed effects is no constant of the code
    return (_one, _two, _three)[len(q) - 1](kernel, q, correlated, n_coef, kind)


@cache
def _python_face(sizes: Sizes, version: str) -> Callable[..., float]:
    def target(
        x, grad, S, parents, maps, n_obs, mean, precision, scales, alphas, sigma, counts, gaps, steps, phi_prior
    ):
        _ = version  # a free variable, so that it is part of the cache key
        return log_posterior(
            sizes,
            x,
            grad,
            S,
            parents,
            maps,
            n_obs,
            mean,
            precision,
            scales,
            alphas,
            sigma,
            counts,
            gaps,
            steps,
            phi_prior,
        )

    return njit(nogil=True, error_model="numpy", cache=True)(own_cache(target, sizes, version))


def _one(kernel, q, correlated, n_coef, kind):
    (q0,), (c0,) = q, correlated

    def target(
        sizes, x, grad, S, parents, maps, n_obs, mean, precision, scales, alphas, sigma, counts, gaps, steps, phi_prior
    ):
        L0, C0 = np.zeros((q0, q0)), np.zeros((q0, q0))
        lp, k = _unpack_level(x, 0, q0, c0, scales[0], alphas[0], L0, C0, grad)
        coefs, d_phi = np.zeros(n_coef), np.zeros(n_coef + 1)
        more, log_det = _residual(x, k, sigma, counts, gaps, steps, phi_prior, kind, coefs, d_phi, grad)
        value, coef_bar, bars, _ = kernel(S, parents, maps, n_obs, coefs, (L0,), log_det, mean, precision)
        _pull_back(x, 0, q0, c0, alphas[0], C0, bars[0], grad)
        _residual_back(x, k, sigma, counts, gaps, phi_prior, kind, coefs, coef_bar, d_phi, grad)
        return value + lp + more

    return target


def _two(kernel, q, correlated, n_coef, kind):
    (q0, q1), (c0, c1) = q, correlated

    def target(
        sizes, x, grad, S, parents, maps, n_obs, mean, precision, scales, alphas, sigma, counts, gaps, steps, phi_prior
    ):
        L0, C0, L1, C1 = np.zeros((q0, q0)), np.zeros((q0, q0)), np.zeros((q1, q1)), np.zeros((q1, q1))
        lp, k1 = _unpack_level(x, 0, q0, c0, scales[0], alphas[0], L0, C0, grad)
        lp1, k = _unpack_level(x, k1, q1, c1, scales[1], alphas[1], L1, C1, grad)
        coefs, d_phi = np.zeros(n_coef), np.zeros(n_coef + 1)
        more, log_det = _residual(x, k, sigma, counts, gaps, steps, phi_prior, kind, coefs, d_phi, grad)
        value, coef_bar, bars, _ = kernel(S, parents, maps, n_obs, coefs, (L0, L1), log_det, mean, precision)
        _pull_back(x, 0, q0, c0, alphas[0], C0, bars[0], grad)
        _pull_back(x, k1, q1, c1, alphas[1], C1, bars[1], grad)
        _residual_back(x, k, sigma, counts, gaps, phi_prior, kind, coefs, coef_bar, d_phi, grad)
        return value + lp + lp1 + more

    return target


def _three(kernel, q, correlated, n_coef, kind):
    (q0, q1, q2), (c0, c1, c2) = q, correlated

    def target(
        sizes, x, grad, S, parents, maps, n_obs, mean, precision, scales, alphas, sigma, counts, gaps, steps, phi_prior
    ):
        L0, C0, L1, C1 = np.zeros((q0, q0)), np.zeros((q0, q0)), np.zeros((q1, q1)), np.zeros((q1, q1))
        L2, C2 = np.zeros((q2, q2)), np.zeros((q2, q2))
        lp, k1 = _unpack_level(x, 0, q0, c0, scales[0], alphas[0], L0, C0, grad)
        lp1, k2 = _unpack_level(x, k1, q1, c1, scales[1], alphas[1], L1, C1, grad)
        lp2, k = _unpack_level(x, k2, q2, c2, scales[2], alphas[2], L2, C2, grad)
        coefs, d_phi = np.zeros(n_coef), np.zeros(n_coef + 1)
        more, log_det = _residual(x, k, sigma, counts, gaps, steps, phi_prior, kind, coefs, d_phi, grad)
        value, coef_bar, bars, _ = kernel(S, parents, maps, n_obs, coefs, (L0, L1, L2), log_det, mean, precision)
        _pull_back(x, 0, q0, c0, alphas[0], C0, bars[0], grad)
        _pull_back(x, k1, q1, c1, alphas[1], C1, bars[1], grad)
        _pull_back(x, k2, q2, c2, alphas[2], C2, bars[2], grad)
        _residual_back(x, k, sigma, counts, gaps, phi_prior, kind, coefs, coef_bar, d_phi, grad)
        return value + lp + lp1 + lp2 + more

    return target
