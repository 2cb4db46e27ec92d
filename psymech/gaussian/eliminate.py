r"""Integrate the random effects of one level out of its units' cross-products.

For a unit with cross-product ``S``, random columns ``z`` (``C = S[z, :]``, ``A = S[z, z]``) and covariance factor
``L``:

    T = L' C,   M = I + L' A L,   X = M^{-1} T,   S_up = S - T' X,   log_det = log|M|

``U = L X`` is the posterior regression of the random effects on all columns and ``E = L M^{-1} L'`` their posterior
covariance; nothing is divided by ``L``, so zero and singular factors are ordinary values. With ``G`` the derivative
by ``S_up`` (and weight -1/2 on ``log_det``), ``V = C - T_z' X`` and ``P`` the identity less ``U`` in the rows ``z``:

    L_bar = -2 V G X' - X_z',   S_bar = P G P' - E / 2 in the block (z, z).

All functions take leading batch axes (draws) before the axis of units.
"""

from dataclasses import dataclass

import numpy as np

from psymech.gaussian.cross import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Elimination:
    """The forward pass over the units of one level; shapes ``(..., n, ...)``."""

    T: FloatArray  # (..., n, q, m)
    X: FloatArray  # (..., n, q, m)
    chol: FloatArray  # (..., n, q, q), lower factor of M
    S_up: FloatArray  # (..., n, m, m)
    log_det: FloatArray  # (..., n)


def forward(S: FloatArray, z: IntArray, factor: FloatArray) -> Elimination:
    """Eliminate the random effects of every unit: ``S (..., n, m, m)``, ``factor (..., q, q)``."""
    L = factor[..., None, :, :]
    T = _t(L) @ S[..., z, :]
    M = np.eye(z.size) + T[..., z] @ L
    chol = np.linalg.cholesky((M + _t(M)) / 2)
    X = _solve_chol(chol, T)
    S_up = S - _t(T) @ X
    log_det = 2 * np.log(np.diagonal(chol, axis1=-2, axis2=-1)).sum(axis=-1)
    return Elimination(T, X, chol, (S_up + _t(S_up)) / 2, log_det)


def backward(
    S: FloatArray, z: IntArray, factor: FloatArray, done: Elimination, G: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the derivatives by ``factor`` (``(..., q, q)``, every entry) and by ``S`` (``(..., n, m, m)``,
    symmetric).
    """
    V = S[..., z, :] - _t(done.T[..., z]) @ done.X
    factor_bar = (-2 * V @ G @ _t(done.X) - _t(done.X[..., z])).sum(axis=-3)
    P = projection(z, factor, done)
    S_bar = P @ G @ _t(P)
    S_bar[..., z[:, None], z] -= covariance(factor, done) / 2
    return factor_bar, S_bar


def regression(factor: FloatArray, done: Elimination) -> FloatArray:
    """Return ``U (..., n, q, m)``: the effects' posterior mean is ``U`` applied to the columns' combination."""
    return factor[..., None, :, :] @ done.X


def projection(z: IntArray, factor: FloatArray, done: Elimination) -> FloatArray:
    """Return ``P (..., n, m, m)``, the identity less ``U`` in the rows ``z``."""
    U = regression(factor, done)
    P = np.broadcast_to(np.eye(U.shape[-1]), (*U.shape[:-2], U.shape[-1], U.shape[-1])).copy()
    P[..., z, :] -= U
    return P


def covariance(factor: FloatArray, done: Elimination) -> FloatArray:
    """Return ``E = L M^{-1} L'``, the posterior covariance of the effects given the levels above, ``(..., n, q,
    q)``.
    """
    root = covariance_root(factor, done)
    return root @ _t(root)


def covariance_root(factor: FloatArray, done: Elimination) -> FloatArray:
    """Return ``L chol^{-T}``, a square root of the posterior covariance, ``(..., n, q, q)``."""
    L = np.broadcast_to(factor[..., None, :, :], done.chol.shape)
    return _t(np.linalg.solve(done.chol, _t(L)))


def sum_by_parent(values: FloatArray, parent: IntArray, *, axis: int) -> FloatArray:
    """Sum units of one parent; ``parent`` is sorted and has no gaps."""
    starts = np.flatnonzero(np.diff(parent, prepend=-1))
    return np.add.reduceat(values, starts, axis=axis)


def _t(array: FloatArray) -> FloatArray:
    return np.swapaxes(array, -1, -2)


def _solve_chol(chol: FloatArray, right: FloatArray) -> FloatArray:
    return np.linalg.solve(_t(chol), np.linalg.solve(chol, right))
