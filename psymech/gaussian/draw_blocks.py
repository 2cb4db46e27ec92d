"""Units and draws laid out for the steps that take eight draws at a time (`psymech.gaussian.draw_lanes`)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from psymech.errors import SpecError
from psymech.gaussian.blocks import aligned_zeros
from psymech.gaussian.cross import CrossProducts, FloatArray, IntArray
from psymech.gaussian.draw_lanes import NO_PARENT
from psymech.gaussian.loglik import Prior, prior_arrays
from psymech.gaussian.simd import LANES


@dataclass(frozen=True, slots=True, eq=False)
class Nest:
    """Units of some or all units of the highest level with all that is below them, level behind level.

    Attributes
    ----------
    S : (n_lowest, n_coef, n_tri) lower triangles.
    offsets : (levels + 1,) where each level starts; parent : (n_all,), `NO_PARENT` at the highest level.
    z, z_at : random columns of all levels, and where each level's start.
    tri : (m, m) where an entry stands in a triangle of vectors, counted in numbers.
    """

    S: FloatArray
    offsets: IntArray
    parent: IntArray
    z: IntArray
    z_at: IntArray
    tri: IntArray

    def arrays(self) -> tuple[FloatArray, IntArray, IntArray, IntArray, IntArray, IntArray]:
        """Return the arrays as the compiled functions take them."""
        return self.S, self.offsets, self.parent, self.z, self.z_at, self.tri


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Parameters of `n` draws, flat, blocks of eight draws side by side; the last draw fills the last block up.

    Attributes
    ----------
    coefs : blocks x n_coef x 8; factors : blocks x entries of all levels' factors x 8; center : blocks x p x 8, fixed
        effects or their prior mean.
    """

    n: int
    coefs: FloatArray
    factors: FloatArray
    center: FloatArray

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return -(-self.n // LANES)

    def arrays(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the arrays as the compiled functions take them."""
        return self.coefs, self.factors, self.center


@dataclass(frozen=True, slots=True, eq=False)
class Top:
    """The fixed effects' columns, whether they are integrated out, and the precision of their prior if so."""

    x: IntArray
    integrate: bool
    precision: FloatArray

    def arrays(self) -> tuple[IntArray, bool, FloatArray]:
        """Return the arrays as the compiled functions take them."""
        return self.x, self.integrate, self.precision


def triangle(m: int) -> IntArray:
    """Return (m, m) where each entry of a symmetric matrix stands in its lower triangle of vectors, in numbers."""
    row, column = np.indices((m, m))
    high, low = np.maximum(row, column), np.minimum(row, column)
    return ((high * (high + 1) // 2 + low) * LANES).astype(np.int64)


def nest_of(S: FloatArray, parents: Sequence[IntArray], z: Sequence[IntArray], *, first: int, last: int) -> Nest:
    """Return the units of the highest level from `first` to before `last`, with all below them; ``S (n, n_coef, m,
    m)``.
    """
    bounds = [(first, last)]
    for parent in reversed(parents):
        a, b = np.searchsorted(parent, bounds[0])
        bounds.insert(0, (int(a), int(b)))
    offsets = np.concatenate([[0], np.cumsum([b - a for a, b in bounds])]).astype(np.int64)
    above = [
        parent[a:b] - bounds[level + 1][0] + offsets[level + 1]
        for level, (parent, (a, b)) in enumerate(zip(parents, bounds[:-1], strict=True))
    ]
    parent = np.concatenate([*above, np.full(last - first, NO_PARENT)]).astype(np.int64)
    row, column = np.tril_indices(S.shape[-1])
    mine = np.ascontiguousarray(S[slice(*bounds[0])][:, :, row, column])
    columns = np.concatenate([np.asarray(each, dtype=np.int64) for each in z])
    z_at = np.concatenate([[0], np.cumsum([each.size for each in z])]).astype(np.int64)
    return Nest(mine, offsets, parent, columns, z_at, triangle(S.shape[-1]))


def pack_draws(coefs: FloatArray, factors: Sequence[FloatArray], center: FloatArray) -> Draws:
    """Lay out draws: ``coefs (D, n_coef)``, ``factors (D, q, q)`` of each level, ``center (D, p)``."""
    n = len(coefs)
    flat = np.concatenate([np.empty((n, 0)), *(factor.reshape(n, -1) for factor in factors)], axis=1)
    return Draws(n, _in_lanes(coefs), _in_lanes(flat), _in_lanes(center))


def _in_lanes(values: FloatArray) -> FloatArray:
    n, width = values.shape
    blocks = -(-n // LANES)
    out = aligned_zeros(blocks * width * LANES)
    shaped = out.reshape(blocks, width, LANES)
    padded = values[np.minimum(np.arange(blocks * LANES), n - 1)]
    shaped[:] = padded.reshape(blocks, LANES, width).swapaxes(1, 2)
    return out


def arguments(
    cross: CrossProducts, coefs: ArrayLike, factors: Sequence[ArrayLike], beta: ArrayLike | None, prior: Prior | None
) -> tuple[Draws, Top]:
    """Check draws of the parameters, and the fixed effects' values (``(D, p)``) or normal prior, and lay them out."""
    weights = np.asarray(coefs, dtype=np.float64)
    roots = [np.asarray(factor, dtype=np.float64) for factor in factors]
    shapes = [(weights.shape[0], z.size, z.size) for z in cross.z]
    if weights.ndim != 2 or weights.shape[1] != cross.n_coef or [root.shape for root in roots] != shapes:
        raise SpecError(
            f"Expected coefs (D, {cross.n_coef}) and factors {shapes}, found {weights.shape}, "
            f"{[r.shape for r in roots]}."
        )
    if (beta is None) == (prior is None):
        raise SpecError("Give exactly one of beta (fixed effects known) and prior (fixed effects integrated out).")
    x, shape = np.asarray(cross.x, dtype=np.int64), (weights.shape[0], cross.x.size)
    if prior is None:
        center = np.broadcast_to(np.asarray(beta, dtype=np.float64), shape)
        return pack_draws(weights, roots, center), Top(x, False, np.empty((0, 0)))
    mean, precision = prior_arrays(prior, shape[1])
    return pack_draws(weights, roots, np.broadcast_to(mean, shape)), Top(x, True, np.ascontiguousarray(precision))


def parts(of_top: IntArray, at_once: int) -> Iterator[tuple[slice, int, int]]:
    """Cut things, sorted by unit of the highest level, into parts of at most `at_once`: which things, and which units
    of the highest level they belong to. A unit's things are in one part unless it has too many.
    """
    start, n = 0, of_top.size
    while start < n:
        stop = min(start + at_once, n)
        if stop < n and of_top[stop - 1] == of_top[stop]:
            whole = int(np.searchsorted(of_top, of_top[stop]))
            stop = whole if whole > start else stop
        yield slice(start, stop), int(of_top[start]), int(of_top[stop - 1]) + 1
        start = stop
