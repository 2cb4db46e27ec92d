"""Cross-products from a DuckDB query: the rows stay in the database, only sums over each patient come back."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psymech.errors import DataError, DesignError, SpecError, shown_ids
from psymech.gaussian.cross import CrossProducts, from_sums


@dataclass(frozen=True, slots=True, eq=False)
class QueriedCross:
    """Cross-products with the ids of each level's units, lowest first, in the order of the cross-products."""

    cross: CrossProducts
    ids: tuple[NDArray, ...]


def from_query(
    source: Any,
    *,
    columns: Mapping[str, str],
    response: str,
    levels: Sequence[str],
    random: Sequence[Sequence[str]],
    fixed: Sequence[str],
    group: str | None = None,
) -> QueriedCross:
    """Return cross-products summed by DuckDB.

    Parameters
    ----------
    source
        A DuckDB relation, or the path of a Parquet file (or a pattern of paths). One row is one observation.
    columns
        Name of each distinct column and the SQL expression that computes it, such as ``{"Intercept": "1", "time":
        "session - 1"}``. Expressions are run as they are: never build them from text of unknown origin.
    response
        SQL expression of the response.
    levels
        SQL expressions of the ids, lowest level first, such as ``["patient", "therapist"]``.
    random
        For each level, the names of its random columns.
    fixed
        Names of the fixed-effect columns, in the order of ``beta``.
    group
        SQL expression with the groups that have a residual SD each (a response, an arm), in the order of their
        sorted values. One residual SD if left out.

    Raises
    ------
    DataError
        If an id, a column or the response is missing or not finite in any row.
    DesignError
        If a unit has more than one parent.

    Examples
    --------
    >>> import duckdb
    >>> values = "('a', 't', 1.0), ('a', 't', 3.0), ('b', 't', 5.0)"
    >>> rows = duckdb.sql(f"SELECT * FROM (VALUES {values}) r(patient, therapist, score)")
    >>> intercept, levels = ["Intercept"], ["patient", "therapist"]
    >>> found = from_query(
    ...     rows,
    ...     columns={"Intercept": "1"},
    ...     response="score",
    ...     levels=levels,
    ...     random=[intercept, intercept],
    ...     fixed=intercept,
    ... )
    >>> found.cross.S[0, 0]
    array([[ 2.,  4.],
           [ 4., 10.]])
    """
    names = list(columns)
    unknown = sorted({name for name in (*fixed, *(n for level in random for n in level)) if name not in columns})
    if unknown:
        raise SpecError(f"Columns {shown_ids(unknown)} are not among {shown_ids(names)}. Add them to columns.")
    if len(random) != len(levels):
        raise SpecError(f"Expected random columns for each of {len(levels)} levels, found {len(random)}.")
    rows = _rows(source, [*columns.values(), response], levels, group)
    m = len(names) + 1
    _check_values(rows, m, len(levels), with_group=group is not None)
    groups = _groups(rows) if group is not None else None
    sums, counts, ids = _summed(rows, m, len(levels), groups)
    parents, unit_ids = _nesting(ids)
    z = [[names.index(name) for name in level] for level in random]
    cross = from_sums(sums, counts, parents, z, [names.index(name) for name in fixed])
    return QueriedCross(cross, unit_ids)


def _rows(source: Any, columns: Sequence[str], levels: Sequence[str], group: str | None) -> Any:
    """Return a relation with ids ``u0, u1, ...``, columns ``c0, c1, ...`` (response last) and perhaps ``g``."""
    import duckdb

    relation = duckdb.read_parquet(str(source)) if isinstance(source, str | Path) else source
    parts = [f"({expression}) AS u{i}" for i, expression in enumerate(levels)]
    parts += [f"CAST(({expression}) AS DOUBLE) AS c{i}" for i, expression in enumerate(columns)]
    if group is not None:
        parts.append(f"({group}) AS g")
    return relation.project(", ".join(parts))


def _check_values(rows: Any, m: int, n_levels: int, *, with_group: bool) -> None:
    missing = [f"u{i} IS NULL" for i in range(n_levels)] + (["g IS NULL"] if with_group else [])
    missing += [f"c{i} IS NULL OR NOT isfinite(c{i})" for i in range(m)]
    found = rows.filter(" OR ".join(f"({condition})" for condition in missing)).project("u0").limit(6).fetchall()
    if found:
        ids = shown_ids([row[0] for row in found])
        raise DataError(
            f"Every id, column and response must be present and finite; not so in rows of {ids}. Filter those rows out."
        )
    if not rows.limit(1).fetchall():
        raise DataError("Expected at least one row, found none. Check the query or the path.")


def _groups(rows: Any) -> list[Any]:
    return [row[0] for row in rows.project("g").distinct().order("g").fetchall()]


def _summed(rows: Any, m: int, n_levels: int, groups: list[Any] | None) -> tuple[NDArray, NDArray, list[NDArray]]:
    """Return packed sums ``(n, n_coef, m (m + 1) / 2)``, row counts and the ids of every level for each lowest-level
    unit.
    """
    pairs = list(zip(*np.tril_indices(m), strict=True))
    # fsum compensates rounding, so that the order in which threads add makes no visible difference.
    if groups is None:
        sums = [f"fsum(c{i} * c{j}) AS s{t}" for t, (i, j) in enumerate(pairs)]
        n_coef = 1
    else:
        n_coef = len(groups)
        ranked = rows.project("*, dense_rank() OVER (ORDER BY g) - 1 AS k")
        sums = [
            f"coalesce(fsum(c{i} * c{j}) FILTER (WHERE k = {k}), 0) AS s{k * len(pairs) + t}"
            for k in range(n_coef)
            for t, (i, j) in enumerate(pairs)
        ]
        rows = ranked
    ids = [f"u{level}" for level in range(n_levels)]
    order = ", ".join(reversed(ids))
    table = rows.aggregate(", ".join([*ids, "count(*) AS n", *sums]), ", ".join(ids)).order(order).fetchnumpy()
    packed = np.column_stack([np.asarray(table[f"s{t}"]) for t in range(n_coef * len(pairs))])
    return (
        packed.reshape(-1, n_coef, len(pairs)),
        np.asarray(table["n"]).astype(np.int64),
        [np.asarray(table[i]) for i in ids],
    )


def _nesting(ids: list[NDArray]) -> tuple[list[NDArray], tuple[NDArray, ...]]:
    parents: list[NDArray] = []
    unit_ids: list[NDArray] = []
    rows = list(zip(*reversed(ids), strict=True))  # top level first
    for level in range(len(ids)):
        paths = [row[: len(ids) - level] for row in rows]
        first = [index for index, path in enumerate(paths) if index == 0 or path != paths[index - 1]]
        labels = [paths[index][-1] for index in first]
        repeated = sorted(label for label, count in Counter(labels).items() if count > 1)
        if repeated and level < len(ids) - 1:
            raise DesignError(
                f"Every unit belongs to one unit of the next level; level {level} ids {shown_ids(repeated)} belong "
                "to several. "
                "Give them an id in each, or assign them to one."
            )
        unit_ids.append(np.array(labels))
        if level < len(ids) - 1:
            above = [paths[index][:-1] for index in first]
            changes = [index == 0 or path != above[index - 1] for index, path in enumerate(above)]
            parents.append(np.cumsum(changes) - 1)
        rows = [rows[index] for index in first]
    return parents, tuple(unit_ids)
