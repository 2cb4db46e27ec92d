"""Tables in memory, of pandas, polars, pyarrow or DuckDB, to the neutral table, through narwhals."""

import math
from decimal import Decimal
from typing import Any, Final

import narwhals as nw
import numpy as np

from psymech.data.findings import Finding
from psymech.data.table import Column, Kind, Table
from psymech.errors import DataError

NOTES: Final = "psymech_notes"
"""Key of a pandas frame's attrs under which an earlier step says what it did: lists of code, column and message."""
INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)
UINT64_MAX: Final = 2**64 - 1
EXPECTED: Final = (
    "a path (.csv, .tsv, .txt, .parquet, .sav) or a pandas, polars, pyarrow or DuckDB table, one row a session"
)


def read_frame(frame: object, *, source: str = "the table") -> Table:
    """Return any in-memory table as a `Table`; lazy tables are collected.

    Raises
    ------
    DataError
        The object is no table, or its column names are not distinct text.
    """
    if nw.dependencies.is_pandas_dataframe(frame):  # narwhals would refuse these in its own words
        _refuse_bad_names([*frame.columns])
    try:
        native = nw.from_native(frame)  # pyright: ignore[reportArgumentType, reportCallIssue]
    except (TypeError, ValueError, nw.exceptions.NarwhalsError) as error:
        raise DataError(f"Expected {EXPECTED}, but got {type(frame).__name__}.{_advice(frame)}") from error
    eager: nw.DataFrame[Any] = _collected(native) if isinstance(native, nw.LazyFrame) else native
    _refuse_bad_names(eager.columns)
    columns: dict[str, Column] = {}
    notes: list[Finding] = _earlier_notes(frame)
    for name in eager.columns:
        column = _column(name, eager.get_column(name))
        if column is None:
            message = f"Column '{name}' holds lists, records or bytes, not single values, and was left out."
            notes.append(Finding("note", "column-not-scalar", name, (), message, ""))
        else:
            columns[name] = column
    index = getattr(getattr(frame, "index", None), "names", None) or ()
    return Table(
        columns,
        np.arange(len(eager), dtype=np.int64),
        in_file=False,
        source=source,
        notes=tuple(notes),
        index_names=tuple(str(name) for name in index if name is not None),
    )


def _collected(lazy: "nw.LazyFrame[Any]") -> "nw.DataFrame[Any]":
    try:
        return lazy.collect()
    except Exception as error:  # each library has its own errors for a query that fails
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise DataError(f"The table could not be computed: {reason}. Run its query by itself first.") from error


def _advice(frame: object) -> str:
    if type(frame).__name__ == "SessionData":
        return " It is checked already: use it as it is."
    if isinstance(frame, (list, tuple, dict, np.ndarray)):
        return " Make a table of it, with its column names: pandas.DataFrame(...)."
    return ""


def _earlier_notes(frame: object) -> list[Finding]:
    attrs = getattr(frame, "attrs", None)
    said = attrs.get(NOTES, []) if isinstance(attrs, dict) else []
    return [Finding("note", str(code), str(column), (), str(message), "") for code, column, message in said]


def _refuse_bad_names(names: list[Any]) -> None:
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise DataError(f"Column names must be text, but {odd[0]!r} is {type(odd[0]).__name__}. Rename the columns.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"Column names must be distinct, but '{repeated[0]}' is a duplicate. Rename or drop one of them."
        )


def _column(name: str, series: "nw.Series[Any]") -> Column | None:
    kind = series.dtype
    if kind.is_integer() and kind not in (nw.Int128, nw.UInt128):
        missing = np.asarray(series.is_null().to_numpy(), dtype=bool)
        cells = np.asarray(series.fill_null(0).to_numpy() if missing.any() else series.to_numpy())
        return Column(name, "integer", _narrowed(cells), missing)
    if kind.is_float():
        filled = series.fill_null(math.nan) if series.is_null().any() else series
        cells = np.asarray(filled.to_numpy(), dtype=np.float64)
        return Column(name, "number", cells, np.isnan(cells))
    if kind.is_nested() or kind == nw.Binary:
        return None
    return column_of_objects(name, series.to_list())


def _narrowed(cells: np.ndarray) -> np.ndarray:
    if cells.dtype.kind == "u" and cells.size and int(cells.max()) > INT64_MAX:
        return cells.astype(np.uint64)
    return cells.astype(np.int64)


def is_missing(cell: object) -> bool:
    """Return whether a Python object stands for a missing cell (None, NaN, NaT, pandas.NA)."""
    if cell is None:
        return True
    if isinstance(cell, (float, Decimal)):
        return cell != cell
    return type(cell).__name__ in ("NAType", "NaTType")


def column_of_objects(name: str, cells: list[Any]) -> Column | None:
    """Return a column from Python objects, choosing the one kind that keeps every cell exact; None if not scalar."""
    missing = np.array([is_missing(cell) for cell in cells], dtype=bool)
    present = [cell for cell, gone in zip(cells, missing, strict=True) if not gone]
    if any(isinstance(cell, (list, dict, tuple, set, bytes, np.ndarray)) for cell in present):
        return None
    if present and all(isinstance(cell, (bool, np.bool_)) for cell in present):
        return _filled(name, "boolean", cells, missing, np.int64)
    if present and all(isinstance(cell, (int, np.integer)) and not isinstance(cell, bool) for cell in present):
        low, high = min(present), max(present)
        if low >= INT64_MIN and high <= INT64_MAX:
            return _filled(name, "integer", cells, missing, np.int64)
        if low >= 0 and high <= UINT64_MAX:
            return _filled(name, "integer", cells, missing, np.uint64)
        return _text(name, cells, missing, present)
    whole = all(isinstance(cell, Decimal) and cell == cell.to_integral_value() for cell in present)
    if present and whole:
        return column_of_objects(name, [None if gone else int(cell) for cell, gone in zip(cells, missing, strict=True)])
    numbers = (int, float, np.number, Decimal)
    if present and all(isinstance(cell, numbers) and not isinstance(cell, (bool, complex)) for cell in present):
        return _filled(name, "number", cells, missing, np.float64)
    return _text(name, cells, missing, present)


def _filled(name: str, kind: Kind, cells: list[Any], missing: np.ndarray, dtype: Any) -> Column:
    blank = math.nan if kind == "number" else 0
    values = [
        blank if gone else (float(cell) if kind == "number" else int(cell))
        for cell, gone in zip(cells, missing, strict=True)
    ]
    return Column(name, kind, np.array(values, dtype=dtype), missing)


def _text(name: str, cells: list[Any], missing: np.ndarray, present: list[Any]) -> Column:
    if any(hasattr(cell, "isoformat") for cell in present) or any(hasattr(cell, "total_seconds") for cell in present):
        kind: Kind = "date"
    else:
        kind = "text"
        _refuse_merged(name, present)
    texts = np.empty(len(cells), dtype=object)
    texts[:] = [None if gone else _as_text(cell) for cell, gone in zip(cells, missing, strict=True)]
    return Column(name, kind, texts, missing)


def _as_text(cell: object) -> str:
    if isinstance(cell, float) and math.isfinite(cell) and cell == int(cell):
        return str(int(cell))
    return str(cell)


def _refuse_merged(name: str, present: list[Any]) -> None:
    kinds: dict[str, type] = {}
    for cell in present:
        kind = str if isinstance(cell, str) else float
        if kinds.setdefault(_as_text(cell), kind) is not kind:
            raise DataError(
                f"Column '{name}' holds {_as_text(cell)} both as a number and as text, so that one cannot say whether "
                "they are the same. Give the column one type."
            )
