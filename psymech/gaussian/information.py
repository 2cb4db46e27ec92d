"""What the rows say about each unit's coefficients, the levels below integrated out, compiled."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numba import njit

from psymech.gaussian.cross import FloatArray, IntArray
from psymech.gaussian.leave_numba import eliminate_unit
from psymech.gaussian.threads import over_draws

DRAWS_AT_ONCE: Final = 500
CLEARLY_SOUND: Final = 1e-6  # smallest pivot over the largest diagonal entry; others are judged by eigenvalues
SOUND: Final = 1e-10  # smallest eigenvalue over the largest
PART: Final = 1e-8  # of a coefficient that lies in a direction of which the rows say nothing


def own_variances(
    products: FloatArray,
    parents: Sequence[IntArray],
    sizes: Sequence[int],
    widths: Sequence[int],
    roots: Sequence[FloatArray],
    sigma2: FloatArray,
) -> FloatArray:
    """Return the diagonals of the inverse information about each unit of the highest level, ``(D, n_units, q)``.

    Parameters
    ----------
    products
        ``(n, m, m)`` cross-products of all random columns, lowest level first, of each lowest unit.
    parents, sizes, widths
        Each unit's parent (one entry fewer than levels), and numbers of units and of columns by level.
    roots
        ``(D, q, q)`` with ``Omega = L L'`` of each level but the highest.
    sigma2
        ``(D,)`` residual variances.

    Notes
    -----
    Infinite where a unit's rows do not determine a coefficient.
    """
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    at = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    z = tuple(np.arange(a, b) for a, b in pairwise(at))
    above = [parent + offset for parent, offset in zip(parents, offsets[1:], strict=False)]
    parent = np.concatenate([np.zeros(0, dtype=np.int64), *above]).astype(np.int64)
    # the kernel asks for as many factors as levels; the highest level is not eliminated
    factors = (*(np.ascontiguousarray(root) for root in roots), np.zeros((sigma2.size, widths[-1], widths[-1])))
    variances = np.empty((sigma2.size, sizes[-1], widths[-1]))

    def some(chosen: slice) -> None:
        for draws in _slices(chosen):
            information = np.empty((draws.stop - draws.start, sizes[-1], widths[-1], widths[-1]))
            found = variances[draws]
            part = tuple(factor[draws] for factor in factors)
            _information(products, offsets, parent, z, part, sigma2[draws], information, found)
            doubtful = np.isnan(found[..., 0])
            if doubtful.any():
                found[doubtful] = diagonal_of_inverse(information[doubtful])

    over_draws(some, sigma2.size)
    return variances


def _slices(draws: slice) -> Iterator[slice]:
    for start in range(draws.start, draws.stop, DRAWS_AT_ONCE):
        yield slice(start, min(start + DRAWS_AT_ONCE, draws.stop))


def diagonal_of_inverse(a: FloatArray) -> FloatArray:
    """Return the diagonals of the inverses of symmetric matrices, infinite where a matrix is singular."""
    values, vectors = np.linalg.eigh(a)
    largest = values[..., -1:]
    sound = values > SOUND * np.maximum(largest, np.finfo(float).tiny)
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=sound)
    diagonal = (vectors**2 @ inverse[..., None])[..., 0]
    lost = (vectors**2 @ (~sound)[..., None].astype(float))[..., 0] > PART
    return np.where(lost, np.inf, diagonal)


@njit(nogil=True, error_model="numpy", cache=True)
def _information(products, offsets, parent, z, roots, sigma2, information, found):
    m, n_all, top = products.shape[1], offsets[-1], len(z) - 1
    widest = max([each.size for each in z])
    W, chol = np.empty((widest, m)), np.empty((widest, widest))
    own, up = np.empty((n_all, m, m)), np.empty((m, m))
    q = z[top].size
    for d in range(sigma2.size):
        own[offsets[1] :] = 0.0
        for u in range(products.shape[0]):
            for c in range(m):
                for e in range(m):
                    own[u, c, e] = products[u, c, e] / sigma2[d]
        for level in range(top):
            for u in range(offsets[level], offsets[level + 1]):
                eliminate_unit(own[u], z[level], roots[level][d], W, chol, up)
                for c in range(m):
                    for e in range(m):
                        own[parent[u], c, e] += up[c, e]
        for k in range(found.shape[1]):
            for i in range(q):
                for j in range(q):
                    information[d, k, i, j] = own[offsets[top] + k, z[top][i], z[top][j]]
            _inverse_diagonal(information[d, k], chol, found[d, k])


@njit(nogil=True, error_model="numpy", cache=True)
def _inverse_diagonal(a, chol, out):
    """Fill the diagonal of the inverse, or NaN where the matrix is not clearly regular."""
    q, largest, smallest = a.shape[0], 0.0, np.inf
    for i in range(q):
        largest = max(largest, a[i, i])
    for i in range(q):
        for j in range(i + 1):
            s = a[i, j]
            for b in range(j):
                s -= chol[i, b] * chol[j, b]
            if i > j:
                chol[i, j] = s / chol[j, j]
            else:
                smallest = min(smallest, s)
                chol[i, i] = np.sqrt(s) if s > 0.0 else 1.0
    if not smallest > CLEARLY_SOUND * largest:
        out[:] = np.nan
        return
    for c in range(q):  # column c of the inverse factor, over the factor's strict upper part
        out[c] = 0.0
        for i in range(c, q):
            s = 1.0 if i == c else 0.0
            for b in range(c, i):
                s -= chol[i, b] * chol[c, b + 1]
            x = s / chol[i, i]
            if i + 1 < q:
                chol[c, i + 1] = x
            out[c] += x * x
