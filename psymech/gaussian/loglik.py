r"""The likelihood with every random effect integrated out, and its gradient: the reference in NumPy.

    y = x'beta + sum_l z_l' u_l + e,   u_l ~ N(0, L_l L_l'),   e ~ N(0, R(theta))

    log p(y | beta, theta) = -1/2 [n log 2 pi + log|R| + log_det + (-beta, 1)' H (-beta, 1)]

where ``H`` and ``log_det`` come from eliminating one level after another. With a normal prior ``beta ~ N(b0,
P0^{-1})`` the fixed effects can be integrated out too, with one Cholesky factor of size ``p``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from psymech.errors import SpecError
from psymech.gaussian.cross import CrossProducts, FloatArray
from psymech.gaussian.eliminate import Elimination, backward, forward, sum_by_parent

LOG_2PI = float(np.log(2 * np.pi))
Prior = tuple[ArrayLike, ArrayLike]


@dataclass(frozen=True, slots=True, eq=False)
class Collapsed:
    """The forward pass: ``S`` entering each level, what each level's elimination gave, and what is left for the
    fixed effects.
    """

    S: tuple[FloatArray, ...]
    levels: tuple[Elimination, ...]
    H: FloatArray  # (..., m, m), all columns
    log_det: FloatArray  # (...)


@dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """Derivatives of the log likelihood; entries that do not apply (``beta`` or ``prior`` not given) are ``None``.

    ``factors`` has every entry of each factor, also above the diagonal.
    """

    coefs: FloatArray
    factors: tuple[FloatArray, ...]
    log_det_R: float
    beta: FloatArray | None
    prior_mean: FloatArray | None
    prior_precision: FloatArray | None


@dataclass(frozen=True, slots=True, eq=False)
class Top:
    """The last step: value without ``n log 2 pi``, ``log|R|`` and the levels' determinants, and its derivatives."""

    value: FloatArray
    H_bar: FloatArray  # derivative by H, columns x then y
    mean: FloatArray  # posterior mean of beta, or beta itself
    precision: FloatArray | None  # posterior precision of beta; None where beta is given
    residual: FloatArray  # H_xy - H_xx b, at beta or at the prior mean


def run_forward(cross: CrossProducts, coefs: ArrayLike, factors: Sequence[ArrayLike]) -> Collapsed:
    """Eliminate every level. ``coefs (..., n_coef)`` and ``factors`` ``(..., q, q)`` may have leading axes of draws."""
    weights, roots = _checked(cross, coefs, factors)
    S = np.einsum("...l,nlij->...nij", weights, cross.S)
    entering: list[FloatArray] = []
    levels: list[Elimination] = []
    log_det = np.zeros(weights.shape[:-1])
    for level, (z, factor) in enumerate(zip(cross.z, roots, strict=True)):
        done = forward(S, z, factor)
        entering.append(S)
        levels.append(done)
        log_det = log_det + done.log_det.sum(axis=-1)
        if level < cross.n_levels - 1:
            S = sum_by_parent(done.S_up, cross.parents[level], axis=-3)
    return Collapsed(tuple(entering), tuple(levels), levels[-1].S_up.sum(axis=-3), log_det)


def collapse(cross: CrossProducts, coefs: ArrayLike, factors: Sequence[ArrayLike]) -> tuple[FloatArray, FloatArray]:
    """Return ``H (p + 1, p + 1)``, ordered fixed effects then response, and the summed log determinants of all
    levels.
    """
    done = run_forward(cross, coefs, factors)
    return select_top(cross, done.H), done.log_det


def log_likelihood(
    cross: CrossProducts,
    coefs: ArrayLike,
    factors: Sequence[ArrayLike],
    log_det_R: float,
    *,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
) -> float:
    """Return ``log p(y | beta, theta)``, or with ``prior`` the same with the fixed effects integrated out.

    Parameters
    ----------
    cross
        Cross-products of the data.
    coefs
        ``(n_coef,)``: coefficients of the residual precision's constant matrices; ``[1 / sigma^2]`` for one residual
        SD.
    factors
        For each level, lowest first, a ``(q, q)`` matrix ``L`` with covariance ``L L'``; any matrix, also zero.
    log_det_R
        ``log|R|`` over all rows.
    beta
        ``(p,)``: fixed effects.
    prior
        ``(mean, precision)`` of a normal prior, precision ``(p, p)`` or its diagonal ``(p,)``. Exactly one of
        ``beta`` and ``prior``.

    Examples
    --------
    >>> from psymech.gaussian.cross import cross_products
    >>> cross = cross_products([[1.0], [1.0]], [0.0, 0.0], [0, 0], parents=[], z=[[0]], x=[0])
    >>> round(log_likelihood(cross, [1.0], [[[0.0]]], 0.0, beta=[0.0]), 4)
    -1.8379
    """
    H, log_det = collapse(cross, coefs, factors)
    top = solve_top(H, beta=beta, prior=prior)
    return float(top.value - 0.5 * (cross.n_obs * LOG_2PI + log_det_R + log_det))


def value_and_grad(
    cross: CrossProducts,
    coefs: ArrayLike,
    factors: Sequence[ArrayLike],
    log_det_R: float,
    *,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
) -> tuple[float, Gradient]:
    """Return `log_likelihood` and its derivatives by every argument; arguments as there, one value at a time."""
    weights, roots = _checked(cross, coefs, factors)
    done = run_forward(cross, weights, roots)
    top = solve_top(select_top(cross, done.H), beta=beta, prior=prior)
    value = float(top.value - 0.5 * (cross.n_obs * LOG_2PI + log_det_R + done.log_det))
    H_bar = expand_top(cross, top.H_bar)
    G = np.broadcast_to(H_bar, done.S[-1].shape)
    factor_bars: list[FloatArray] = []
    for level in reversed(range(cross.n_levels)):
        bar, S_bar = backward(done.S[level], cross.z[level], roots[level], done.levels[level], G)
        factor_bars.append(bar)
        G = S_bar[cross.parents[level - 1]] if level else S_bar
    coef_bar = np.einsum("nij,nlij->l", G, cross.S)
    return value, Gradient(coef_bar, tuple(reversed(factor_bars)), -0.5, *_top_gradient(top, prior))


def select_top(cross: CrossProducts, H: FloatArray) -> FloatArray:
    """Return the rows and columns of the fixed effects and the response."""
    keep = np.append(cross.x, cross.n_columns - 1)
    return H[..., keep[:, None], keep]


def expand_top(cross: CrossProducts, top: FloatArray) -> FloatArray:
    """Put a matrix over fixed effects and response into one over all columns, zero elsewhere."""
    keep = np.append(cross.x, cross.n_columns - 1)
    full = np.zeros((*top.shape[:-2], cross.n_columns, cross.n_columns))
    full[..., keep[:, None], keep] = top
    return full


def solve_top(H: FloatArray, *, beta: ArrayLike | None, prior: Prior | None) -> Top:
    """Return the fixed-effects step for ``H (..., p + 1, p + 1)``; ``beta (..., p)`` may vary by draw."""
    p = H.shape[-1] - 1
    if (beta is None) == (prior is None):
        raise SpecError("Give exactly one of beta (fixed effects known) and prior (fixed effects integrated out).")
    if prior is None:
        known = np.broadcast_to(np.asarray(beta, dtype=np.float64), (*H.shape[:-2], p))
        a = np.concatenate([-known, np.ones((*H.shape[:-2], 1))], axis=-1)
        quad = np.einsum("...i,...ij,...j->...", a, H, a)
        left = np.einsum("...ij,...j->...i", H[..., :p, :], a)
        return Top(-0.5 * quad, -0.5 * a[..., :, None] * a[..., None, :], known, None, left)
    b0, P0 = prior_arrays(prior, p)
    Q = H[..., :p, :p] + P0
    # The response is taken relative to the prior mean, so that a mean far from zero costs no digits.
    d = H[..., :p, p] - H[..., :p, :p] @ b0
    a0 = np.append(-b0, 1.0)
    quad0 = np.einsum("i,...ij,j->...", a0, H, a0)
    chol = np.linalg.cholesky(Q)
    half = np.linalg.solve(chol, d[..., None])[..., 0]
    chol_inverse = np.linalg.inv(chol)
    covariance = np.swapaxes(chol_inverse, -1, -2) @ chol_inverse
    shift = np.einsum("...ij,...j->...i", covariance, d)
    mean = b0 + shift
    log_det = 2 * np.log(np.diagonal(chol, axis1=-2, axis2=-1)).sum(-1) - np.linalg.slogdet(P0)[1]
    value = -0.5 * (log_det + quad0 - (half**2).sum(-1))
    a = np.concatenate([-mean, np.ones((*mean.shape[:-1], 1))], axis=-1)
    H_bar = a[..., :, None] * a[..., None, :]
    H_bar[..., :p, :p] += covariance
    return Top(value, -0.5 * H_bar, mean, Q, d)


def prior_arrays(prior: Prior, p: int) -> tuple[FloatArray, FloatArray]:
    """Return prior mean ``(p,)`` and precision ``(p, p)``."""
    b0, P0 = np.asarray(prior[0], dtype=np.float64), np.asarray(prior[1], dtype=np.float64)
    P0 = np.diag(P0) if P0.ndim == 1 else P0
    if b0.shape != (p,) or P0.shape != (p, p):
        raise SpecError(
            f"Expected a prior mean ({p},) and precision ({p}, {p}) or ({p},), found {b0.shape} and {P0.shape}."
        )
    return b0, P0


def _top_gradient(top: Top, prior: Prior | None) -> tuple[FloatArray | None, FloatArray | None, FloatArray | None]:
    if prior is None or top.precision is None:
        return top.residual, None, None
    b0, P0 = prior_arrays(prior, top.mean.shape[-1])
    shift = top.mean - b0
    spread = np.linalg.inv(top.precision) + np.outer(shift, shift) - np.linalg.inv(P0)
    return None, P0 @ shift, -0.5 * spread


def _checked(
    cross: CrossProducts, coefs: ArrayLike, factors: Sequence[ArrayLike]
) -> tuple[FloatArray, list[FloatArray]]:
    weights = np.asarray(coefs, dtype=np.float64)
    if weights.ndim < 1 or weights.shape[-1] != cross.n_coef:
        raise SpecError(f"Expected {cross.n_coef} residual coefficients, found shape {weights.shape}.")
    if len(factors) != cross.n_levels:
        raise SpecError(f"Expected one factor for each of {cross.n_levels} levels, found {len(factors)}.")
    roots = [np.asarray(factor, dtype=np.float64) for factor in factors]
    for level, (root, z) in enumerate(zip(roots, cross.z, strict=True)):
        if root.shape[-2:] != (z.size, z.size):
            raise SpecError(f"Expected a ({z.size}, {z.size}) factor at level {level}, found shape {root.shape}.")
    return weights, roots
