"""Compiled steps of the log posterior for residuals that correlate across the responses of an occasion."""

import numpy as np
from numba import njit


@njit(nogil=True, error_model="numpy")
def invert(A, n):
    """Replace the leading block of a symmetric positive definite matrix by its inverse; return the log determinant."""
    log_det = 0.0
    for k in range(n):
        pivot = A[k, k]
        log_det += np.log(pivot)
        A[k, k] = 1.0
        for j in range(n):
            A[k, j] /= pivot
        for i in range(n):
            if i != k:
                factor = A[i, k]
                A[i, k] = 0.0
                for j in range(n):
                    A[i, j] -= factor * A[k, j]
    return log_det


@njit(nogil=True, error_model="numpy")
def _part(L, masks, p, R, place, A):
    """Fill ``A`` with the covariance of the responses of one pattern and ``place`` with their numbers; return how
    many.
    """
    size = 0
    for r in range(R):
        if masks[p * R + r] > 0.0:
            place[size] = r
            size += 1
    for i in range(size):
        for j in range(size):
            total = 0.0
            for r in range(R):
                total += L[place[i], r] * L[place[j], r]
            A[i, j] = total
    return size


@njit(nogil=True, error_model="numpy")
def pattern_coefficients(L, counts, masks, coefs):
    """Fill the coefficients of a residual factor ``L``; return log|R|."""
    R = L.shape[0]
    A, place = np.zeros((R, R)), np.zeros(R, np.int64)
    log_det, at = 0.0, 0
    for p in range(counts.size):
        size = _part(L, masks, p, R, place, A)
        log_det += counts[p] * invert(A, size)
        for i in range(size):
            for j in range(i + 1):
                coefs[at] = A[i, j]
                at += 1
    return log_det


@njit(nogil=True, error_model="numpy")
def pattern_adjoint(L, counts, masks, coef_bar, L_bar):
    """Fill the derivative by the factor from that by the coefficients, that of -log|R| / 2 included.

    With P the precision of a pattern and G the symmetric adjoint of P: Sigma_bar = -P G P - n P / 2, L_bar = 2
    Sigma_bar L.
    """
    R = L.shape[0]
    A, G, T = np.zeros((R, R)), np.zeros((R, R)), np.zeros((R, R))
    whole, place = np.zeros((R, R)), np.zeros(R, np.int64)
    at = 0
    for p in range(counts.size):
        size = _part(L, masks, p, R, place, A)
        invert(A, size)
        for i in range(size):
            for j in range(i + 1):
                half = 1.0 if i == j else 0.5
                G[i, j] = half * coef_bar[at]
                G[j, i] = G[i, j]
                at += 1
        for i in range(size):
            for j in range(size):
                total = 0.0
                for r in range(size):
                    total += A[i, r] * G[r, j]
                T[i, j] = total
        for i in range(size):
            for j in range(size):
                total = 0.0
                for r in range(size):
                    total += T[i, r] * A[r, j]
                whole[place[i], place[j]] -= total + 0.5 * counts[p] * A[i, j]
    for i in range(R):
        for j in range(i + 1):
            total = 0.0
            for r in range(R):
                total += whole[i, r] * L[r, j]
            L_bar[i, j] = 2.0 * total
