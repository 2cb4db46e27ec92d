"""What the rows say about each unit's coefficients, the levels below integrated out, compiled."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from psymech.gaussian.cross import FloatArray, IntArray
from psymech.gaussian.draw_blocks import Nest, pack_draws, triangle
from psymech.gaussian.draw_lanes import NO_PARENT, B, combine, forward, kept, room_for_elimination, step, workspace
from psymech.gaussian.simd import LANES
from psymech.gaussian.threads import LEAST_BLOCKS, share_out

BLOCKS_AT_ONCE: Final = 64  # of eight draws
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
    at = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    above = [parent + offset for parent, offset in zip(parents, offsets[1:], strict=False)]
    parent = np.concatenate([*above, np.full(sizes[-1], NO_PARENT)]).astype(np.int64)
    m = products.shape[-1]
    row, column = np.tril_indices(m)
    S = np.ascontiguousarray(products[:, None, row, column])
    nest = Nest(S, offsets, parent, np.arange(m), at, triangle(m))
    draws = pack_draws(1.0 / sigma2[:, None], roots, np.empty((sigma2.size, 0)))
    variances = np.empty((sigma2.size, sizes[-1], widths[-1]))

    def some(chosen: slice) -> None:
        for start in range(chosen.start, chosen.stop, BLOCKS_AT_ONCE):
            stop = min(start + BLOCKS_AT_ONCE, chosen.stop)
            found = variances[start * LANES : stop * LANES]
            information = np.empty((len(found), sizes[-1], widths[-1], widths[-1]))
            _information((start, stop), *nest.arrays(), draws.coefs, draws.factors, information, found)
            doubtful = np.isnan(found[..., 0])
            if doubtful.any():
                found[doubtful] = diagonal_of_inverse(information[doubtful])

    share_out(some, draws.n_blocks, least=LEAST_BLOCKS)
    return variances


def diagonal_of_inverse(a: FloatArray) -> FloatArray:
    """Return the diagonals of the inverses of symmetric matrices, infinite where a matrix is singular."""
    values, vectors = np.linalg.eigh(a)
    largest = values[..., -1:]
    sound = values > SOUND * np.maximum(largest, np.finfo(float).tiny)
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=sound)
    diagonal = (vectors**2 @ inverse[..., None])[..., 0]
    lost = (vectors**2 @ (~sound)[..., None].astype(float))[..., 0] > PART
    return np.where(lost, np.inf, diagonal)


@kept
def _information(blocks, S, offsets, parent, z, z_at, tri, coefs, factors, information, found):
    m, n_tri, highest = tri.shape[0], S.shape[2], offsets.size - 2
    columns = z[z_at[highest] :]
    q, entries, widest = columns.size, np.sum(np.diff(z_at[: highest + 1]) ** 2), np.max(np.diff(z_at))
    upper = (parent.size - offsets[1]) * n_tri * B
    own, up, nothing = workspace(upper), workspace(upper), workspace(0)
    w, sums, mine = workspace(room_for_elimination(widest, m)), workspace(n_tri * B), workspace(2 * n_tri * B)
    chol = np.empty((q, q))
    for d in range(blocks[0], blocks[1]):
        forward(
            S, offsets, parent, z, z_at, tri, coefs, d * B, factors, d * entries * B, highest, False, own, up, nothing,
            sums, w, mine,
        )  # fmt: skip
        start = (d - blocks[0]) * B
        for k in range(found.shape[1]):
            source, base = own, (offsets[highest] - offsets[1] + k) * n_tri * B
            if highest == 0:
                combine(S, k, coefs, d * B, mine, 0)
                source, base = mine, 0
            for b in range(min(B, found.shape[0] - start)):
                for i in range(q):
                    for j in range(q):
                        information[start + b, k, i, j] = source[base + tri[columns[i], columns[j]] + b]
                _inverse_diagonal(information[start + b, k], chol, found[start + b, k])


@step
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
