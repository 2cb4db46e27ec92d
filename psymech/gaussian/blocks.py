"""Cross-products laid out for compiled kernels: blocks of eight units, units innermost, lower triangle only.

Each level has its own column order with its random columns first; after the top level the order is fixed effects,
response, rest. A unit's place is its slot. Slots of one parent are contiguous; where it costs little, each parent
starts a new block, so that most blocks have one parent. Empty slots hold zeros, which change neither value nor
gradient.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from psymech.gaussian.cross import CrossProducts, FloatArray, IntArray

LANES = 8
# Slots per unit up to which every parent starts a new block. With four random columns that was 12 % faster at 1.33
# slots
# per unit and 34 % slower at 2.67.
MAX_PADDING = 1.35


@dataclass(frozen=True, slots=True)
class KernelShape:
    """What a compiled kernel is specialised to: sizes only, no data.

    Attributes
    ----------
    q
        Number of random columns of each level, lowest first.
    m
        Number of columns, the response included.
    p
        Number of fixed effects.
    n_coef
        Number of residual coefficients.
    integrate
        Whether the fixed effects are integrated out under a normal prior (else they are given).
    """

    q: tuple[int, ...]
    m: int
    p: int
    n_coef: int
    integrate: bool

    @classmethod
    def of(cls, cross: CrossProducts, *, integrate: bool) -> Self:
        """Return the shape for these cross-products."""
        q = tuple(int(z.size) for z in cross.z)
        return cls(q, cross.n_columns, int(cross.x.size), cross.n_coef, integrate)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where every unit and column goes; depends on nesting and columns, not on the response.

    ``slot[l]`` is ``(n_units_l,)``; ``parent_slot[l]`` is ``(n_slots_l,)`` (zeros at the top); ``order[l]`` is
    ``(m,)`` with the top's order last; ``up[l]`` maps a place in the level's lower triangle to one in the next level's.
    """

    slot: tuple[IntArray, ...]
    parent_slot: tuple[IntArray, ...]
    order: tuple[IntArray, ...]
    up: tuple[IntArray, ...]


def make_layout(cross: CrossProducts) -> Layout:
    """Return the layout of these cross-products."""
    m = cross.n_columns
    top = np.append(cross.x, m - 1)
    order = tuple(_first(columns, m) for columns in (*cross.z, top))
    slots: list[IntArray] = []
    parents: list[IntArray] = []
    sizes = cross.sizes
    for level in range(cross.n_levels):
        last = level == cross.n_levels - 1
        parent = np.zeros(sizes[level], dtype=np.int64) if last else cross.parents[level]
        slots.append(_slots(parent))
    for level in range(cross.n_levels):
        n_slots = -(-int(slots[level][-1] + 1) // LANES) * LANES
        of_slot = np.zeros(n_slots, dtype=np.int64)
        if level < cross.n_levels - 1:
            of_slot[slots[level]] = slots[level + 1][cross.parents[level]] + 1
            # An empty slot takes the parent of the slot before it.
            of_slot = np.maximum.accumulate(of_slot) - 1
        parents.append(of_slot)
    up = tuple(_triangle_map(order[level], order[level + 1]) for level in range(cross.n_levels))
    return Layout(tuple(slots), tuple(parents), order, up)


def pack(cross: CrossProducts, layout: Layout) -> FloatArray:
    """Return the flat array of blocks: ``(n_blocks, n_coef, m (m + 1) / 2, 8)``, raveled and aligned to 64 bytes."""
    m = cross.n_columns
    row, column = np.tril_indices(m)
    order = layout.order[0]
    packed = cross.S[:, :, order[row], order[column]]
    n_slots = layout.parent_slot[0].size
    shape = (n_slots // LANES, cross.n_coef, row.size, LANES)
    out = aligned_zeros(int(np.prod(shape)))
    blocks = out.reshape(shape)
    block, lane = np.divmod(layout.slot[0], LANES)
    blocks[block, :, :, lane] = packed
    return out


def aligned_zeros(size: int) -> FloatArray:
    """Return a flat array of zeros that starts at a multiple of 64 bytes, the width of a cache line."""
    raw = np.zeros(size + 8)
    offset = (-raw.ctypes.data % 64) // 8
    return raw[offset : offset + size]


def _first(columns: IntArray, m: int) -> IntArray:
    return np.concatenate([columns, np.setdiff1d(np.arange(m), columns)]).astype(np.int64)


def _slots(parent: IntArray) -> IntArray:
    counts = np.bincount(parent)
    padded = -(-counts // LANES) * LANES
    if padded.sum() > MAX_PADDING * counts.sum():
        return np.arange(parent.size, dtype=np.int64)
    starts = np.cumsum(padded) - padded
    first = np.cumsum(counts) - counts
    return (starts[parent] + np.arange(parent.size) - first[parent]).astype(np.int64)


def _triangle_map(own: IntArray, other: IntArray) -> IntArray:
    position = np.argsort(other)
    row, column = np.tril_indices(own.size)
    a, b = position[own[row]], position[own[column]]
    high, low = np.maximum(a, b), np.minimum(a, b)
    return (high * (high + 1) // 2 + low).astype(np.int64)
