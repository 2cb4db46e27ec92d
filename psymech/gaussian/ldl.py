"""Steps of M = R D R' on vectors, R unit lower: what lanes of units and lanes of draws have in common.

Matrices are flat, entry (i, j) of a (q, q) one at (i q + j) vectors from its start; every offset counts numbers.
"""

from numba import njit

from psymech.gaussian.simd import LANES, fnma, load, splat, store

B = LANES


@njit(nogil=True, error_model="numpy", forceinline=True)
def ldl_column(w, R, q, j):
    """Replace column j of a symmetric matrix (lower part, earlier columns done) by that of R, with 1/D on the diagonal
    and the unscaled column above it; return D_j.
    """
    d = load(w, R + (j * q + j) * B)
    inverse = splat(1.0) / d
    for i in range(j + 1, q):
        below = load(w, R + (i * q + j) * B)
        store(w, R + (j * q + i) * B, below)
        r = below * inverse
        for k in range(j + 1, i + 1):
            store(w, R + (i * q + k) * B, fnma(r, load(w, R + (j * q + k) * B), load(w, R + (i * q + k) * B)))
        store(w, R + (i * q + j) * B, r)
    store(w, R + (j * q + j) * B, inverse)
    return d


@njit(nogil=True, error_model="numpy", forceinline=True)
def solve_column(w, R, q, m, c, T, W, X):
    """Write column c of W = R^{-1} T and of X = D^{-1} W, each (q, m); W may stand where T stood."""
    for a in range(q):
        acc = load(w, T + (a * m + c) * B)
        for b in range(a):
            acc = fnma(load(w, R + (a * q + b) * B), load(w, W + (b * m + c) * B), acc)
        store(w, W + (a * m + c) * B, acc)
        store(w, X + (a * m + c) * B, acc * load(w, R + (a * q + a) * B))
