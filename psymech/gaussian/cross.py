"""Cross-products: everything that a Gaussian multilevel likelihood needs to know about the rows.

With ``W`` the columns of a unit and its response side by side, and residual precision ``sum_l c_l(theta) K_l``, the
likelihood sees the rows only through ``S_l = W' K_l W``. These are sums over rows, so their size does not depend on
the number of sessions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psymech.errors import DesignError, shown_ids

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class RowTerm:
    """One constant matrix ``K`` of the residual precision, as row weights and weighted pairs of rows.

    ``weight`` is ``(n,)``, the diagonal of ``K`` (``None``: no diagonal). ``first``, ``second`` and ``pair_weight``
    list the off-diagonal entries once; ``K`` is symmetric.
    """

    weight: FloatArray | None = None
    first: IntArray | None = None
    second: IntArray | None = None
    pair_weight: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CrossProducts:
    """Cross-products of the lowest-level units and how the units are nested.

    Attributes
    ----------
    S
        ``(n_units, n_coef, m, m)``: ``W' K_l W`` of each lowest-level unit; the response is the last of the ``m``
        columns.
    parents
        ``parents[l]`` is ``(n_units_l,)``: each unit's parent at the next level, non-decreasing. One entry fewer
        than levels.
    z
        For each level, lowest first, the columns that carry its random effects.
    x
        The columns of the fixed effects, in the order of ``beta``.
    n_obs_by_unit
        ``(n_units,)``: rows of each lowest-level unit.
    """

    S: FloatArray
    parents: tuple[IntArray, ...]
    z: tuple[IntArray, ...]
    x: IntArray
    n_obs_by_unit: IntArray

    def __post_init__(self) -> None:
        n_units, _, m = _check_sums(self.S)
        if len(self.parents) != len(self.z) - 1:
            raise DesignError(
                f"Expected one parent index fewer than levels; found {len(self.parents)} for {len(self.z)} levels "
                "with random columns."
            )
        size = n_units
        for level, parent in enumerate(self.parents):
            size = _check_parent(parent, size=size, level=level)
        for name, index in (*((f"z of level {level}", z) for level, z in enumerate(self.z)), ("x", self.x)):
            if index.ndim != 1 or (index.size and (index.min() < 0 or index.max() >= m - 1)):
                raise DesignError(f"Column indices {name} must lie in 0..{m - 2}; found {shown_ids(index.tolist())}.")
            if np.unique(index).size != index.size:
                raise DesignError(
                    f"Column indices {name} name a column twice: {shown_ids(index.tolist())}. List each column once."
                )
        if self.n_obs_by_unit.shape != (n_units,):
            raise DesignError(
                f"Expected one row count for each of {n_units} units, found shape {self.n_obs_by_unit.shape}."
            )

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return int(self.n_obs_by_unit.sum())

    @property
    def n_coef(self) -> int:
        """Number of residual coefficients."""
        return self.S.shape[1]

    @property
    def n_columns(self) -> int:
        """Number of columns ``m``, the response included."""
        return self.S.shape[2]

    @property
    def n_levels(self) -> int:
        """Number of levels with random effects."""
        return len(self.z)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of units of each level, lowest first."""
        return (self.S.shape[0], *(int(parent[-1]) + 1 for parent in self.parents))


def cross_products(
    columns: ArrayLike,
    y: ArrayLike,
    unit_of_row: ArrayLike,
    parents: Sequence[ArrayLike],
    z: Sequence[ArrayLike],
    x: ArrayLike,
    residual_terms: Sequence[RowTerm] | None = None,
) -> CrossProducts:
    """Return the cross-products of every lowest-level unit.

    Parameters
    ----------
    columns
        ``(n, m - 1)``: the distinct columns of all levels and of the fixed effects.
    y
        ``(n,)``: the response; several responses are stacked as rows.
    unit_of_row
        ``(n,)``: index of each row's lowest-level unit (patient), every one of ``0..n_units - 1`` present. Rows in
        any order.
    parents, z, x
        As in `CrossProducts`.
    residual_terms
        The constant matrices of the residual precision, from ``terms`` of a residual structure; the identity if left
        out.

    Raises
    ------
    DesignError
        If shapes disagree, values are not finite, a unit has no rows, or a pair of rows spans two units.

    Examples
    --------
    >>> cross = cross_products([[1.0], [1.0], [1.0]], [2.0, 4.0, 6.0], [0, 0, 1], parents=[], z=[[0]], x=[0])
    >>> cross.S[0, 0]
    array([[ 2.,  6.],
           [ 6., 20.]])
    """
    table, unit = _checked_rows(columns, y, unit_of_row)
    terms = _checked_terms(residual_terms, unit)
    n_units, m = int(unit.max()) + 1, table.shape[1]
    sums = np.empty((n_units, len(terms), m, m))
    for index, term in enumerate(terms):
        for row in range(m):
            _fill_row(sums[:, index], table, unit, term, row)
    parents_, z_ = tuple(_int(p) for p in parents), tuple(_int(index) for index in z)
    return CrossProducts(sums, parents_, z_, _int(x), np.bincount(unit, minlength=n_units).astype(np.int64))


def with_response(
    cross: CrossProducts,
    columns: ArrayLike,
    y: ArrayLike,
    unit_of_row: ArrayLike,
    residual_terms: Sequence[RowTerm] | None = None,
) -> CrossProducts:
    """Return cross-products with another response; only the products with ``y`` are computed anew.

    Arguments as in `cross_products`, for the same rows that made ``cross``.
    """
    table, unit = _checked_rows(columns, y, unit_of_row)
    terms = _checked_terms(residual_terms, unit)
    expected = (cross.S.shape[0], cross.n_coef, cross.n_columns)
    found = (int(unit.max()) + 1, len(terms), table.shape[1])
    if expected != found:
        raise DesignError(
            f"Expected units, residual terms and columns {expected} as in the cross-products, found {found}."
        )
    sums = cross.S.copy()
    for index, term in enumerate(terms):
        _fill_row(sums[:, index], table, unit, term, table.shape[1] - 1)
    return replace(cross, S=sums)


def from_sums(
    sums: ArrayLike,
    n_obs_by_unit: ArrayLike,
    parents: Sequence[ArrayLike],
    z: Sequence[ArrayLike],
    x: ArrayLike,
) -> CrossProducts:
    """Return cross-products from sums computed elsewhere, as by a ``GROUP BY``.

    Parameters
    ----------
    sums
        ``(n_units, n_coef, m (m + 1) / 2)`` or, with one coefficient, ``(n_units, m (m + 1) / 2)``: the lower
        triangle row by row, ``(0, 0), (1, 0), (1, 1), ...``, the response last.
    n_obs_by_unit, parents, z, x
        As in `CrossProducts`.
    """
    packed = np.asarray(sums, dtype=np.float64)
    packed = packed[:, None, :] if packed.ndim == 2 else packed
    m = int((np.sqrt(8 * packed.shape[-1] + 1) - 1) / 2) if packed.ndim == 3 else 0
    if packed.ndim != 3 or m * (m + 1) // 2 != packed.shape[-1]:
        raise DesignError(f"Expected sums of shape (n_units, n_coef, m (m + 1) / 2), found {packed.shape}.")
    row, column = np.tril_indices(m)
    full = np.empty((*packed.shape[:2], m, m))
    full[..., row, column] = packed
    full[..., column, row] = packed
    return CrossProducts(
        full, tuple(_int(p) for p in parents), tuple(_int(index) for index in z), _int(x), _int(n_obs_by_unit)
    )


def merge(crosses: Sequence[CrossProducts]) -> CrossProducts:
    """Return the cross-products of several sites as one; units of different sites stay different units.

    Raises
    ------
    DesignError
        If the sites differ in columns, levels or residual terms.
    """
    if not crosses:
        raise DesignError("Expected the cross-products of at least one site, found none.")
    first = crosses[0]
    for index, other in enumerate(crosses):
        same = (
            other.S.shape[1:] == first.S.shape[1:]
            and other.n_levels == first.n_levels
            and np.array_equal(other.x, first.x)
        )
        if not same or any(not np.array_equal(a, b) for a, b in zip(other.z, first.z, strict=True)):
            raise DesignError(
                f"Site {index} differs from site 0 in columns, levels or residual terms. Build all sites from one "
                "specification."
            )
    parents = []
    for level in range(first.n_levels - 1):
        offsets = np.cumsum([0, *(cross.sizes[level + 1] for cross in crosses[:-1])])
        parents.append(
            np.concatenate([cross.parents[level] + offset for cross, offset in zip(crosses, offsets, strict=True)])
        )
    sums = np.concatenate([cross.S for cross in crosses])
    counts = np.concatenate([cross.n_obs_by_unit for cross in crosses])
    return CrossProducts(sums, tuple(parents), first.z, first.x, counts)


def _fill_row(sums: FloatArray, table: FloatArray, unit: IntArray, term: RowTerm, row: int) -> None:
    n_units = sums.shape[0]
    for column in range(row + 1):
        total = np.zeros(n_units)
        if term.weight is not None:
            total += np.bincount(unit, weights=term.weight * table[:, row] * table[:, column], minlength=n_units)
        if term.first is not None and term.second is not None and term.pair_weight is not None:
            a, b = term.first, term.second
            product = term.pair_weight * (table[a, row] * table[b, column] + table[b, row] * table[a, column])
            total += np.bincount(unit[a], weights=product, minlength=n_units)
        sums[:, row, column] = total
        sums[:, column, row] = total


def _int(index: ArrayLike) -> IntArray:
    found = np.asarray(index)
    if found.size and not np.issubdtype(found.dtype, np.integer):
        raise DesignError(f"Expected integer indices, found {found.dtype}.")
    return found.astype(np.int64)


def _checked_rows(columns: ArrayLike, y: ArrayLike, unit_of_row: ArrayLike) -> tuple[FloatArray, IntArray]:
    design, response, unit = np.asarray(columns, dtype=np.float64), np.asarray(y, dtype=np.float64), _int(unit_of_row)
    n = response.shape[0] if response.ndim == 1 else -1
    if n < 1 or design.ndim != 2 or design.shape[0] != n or unit.shape != (n,):
        raise DesignError(
            f"Expected columns (n, m - 1), y (n,) and unit_of_row (n,) with n >= 1; found {design.shape}, "
            f"{response.shape} and {unit.shape}."
        )
    table = np.column_stack([design, response])
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if bad.size:
        raise DesignError(
            f"Columns and response must be finite; rows {shown_ids(bad.tolist())} are not. Remove or impute them first."
        )
    if unit.min() < 0:
        raise DesignError(f"Unit indices must not be negative; found {int(unit.min())}.")
    empty = np.flatnonzero(np.bincount(unit) == 0)
    if empty.size:
        raise DesignError(
            f"Every unit needs at least one row; units {shown_ids(empty.tolist())} have none. Number the units "
            "without gaps."
        )
    return table, unit


def _checked_terms(terms: Sequence[RowTerm] | None, unit: IntArray) -> tuple[RowTerm, ...]:
    n = unit.shape[0]
    if terms is None:
        return (RowTerm(weight=np.ones(n)),)
    for term in terms:
        if term.weight is not None and term.weight.shape != (n,):
            raise DesignError(f"Expected one residual weight for each of {n} rows, found shape {term.weight.shape}.")
        if term.first is not None and term.second is not None:
            crossing = np.flatnonzero(unit[term.first] != unit[term.second])
            if crossing.size:
                rows = shown_ids(term.first[crossing].tolist())
                raise DesignError(
                    f"Residuals may be correlated within a unit only; rows {rows} are paired with another unit's rows."
                )
    return tuple(terms)


def _check_sums(sums: FloatArray) -> tuple[int, int, int]:
    if sums.ndim != 4 or sums.shape[2] != sums.shape[3] or 0 in sums.shape:
        raise DesignError(f"Expected cross-products of shape (n_units, n_coef, m, m), found {sums.shape}.")
    return sums.shape[0], sums.shape[1], sums.shape[2]


def _check_parent(parent: IntArray, *, size: int, level: int) -> int:
    if parent.shape != (size,):
        raise DesignError(
            f"Expected a parent for each of the {size} units of level {level}, found shape {parent.shape}."
        )
    steps = np.diff(parent)
    if parent[0] != 0 or np.any((steps != 0) & (steps != 1)):
        raise DesignError(
            f"Units of level {level} must be sorted by parent, and parents numbered from 0 without gaps. Sort the "
            "units before numbering them."
        )
    return int(parent[-1]) + 1
