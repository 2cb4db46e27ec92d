"""Session numbers and times: whole numbers from 0 or 1 on, and any finite time."""

from typing import Final

import numpy as np

from psymech.data.ids import SECOND_HEADER
from psymech.data.numbers import as_numbers, not_numeric_message, refuse_infinite, text_rows
from psymech.data.table import Column, Table
from psymech.errors import DataError, shown_id, shown_ids

WILD_SESSION: Final = 999  # a session number from here on is a typing error, a date or a missing-value code ...
WILD_PER_ROW: Final = 20  # ... unless the patient has so many rows that it can be real


def read_sessions(column: Column, table: Table, patients: np.ndarray) -> np.ndarray:
    """Return the session numbers as float64, shape (n_rows,).

    Raises
    ------
    DataError
        A session number that is missing, text, infinite, negative, not whole, or far too large.
    """
    values = _numbers("session", column, table, patients)
    _refuse(values < 0, "not be negative", "Number the sessions from 0 or 1 on.", values, column, table, patients)
    _refuse(
        values != np.floor(values),
        "be whole numbers",
        "Number the sessions 1, 2, 3, ... and give fractional times as time=.",
        values,
        column,
        table,
        patients,
    )
    _, codes, counts = np.unique(patients, return_inverse=True, return_counts=True)
    wild = (values >= WILD_SESSION) & (values > WILD_PER_ROW * counts[codes])
    advice = "Is it a date or a missing-value code? Number the sessions 1, 2, 3, ...; days go into time=, as numbers."
    _refuse(wild, f"count sessions (far below {WILD_SESSION} for so few rows)", advice, values, column, table, patients)
    return values


def read_time(column: Column, table: Table, patients: np.ndarray) -> np.ndarray:
    """Return the times as float64, shape (n_rows,); missing, text and infinite times are refused."""
    return _numbers("time", column, table, patients)


def _numbers(role: str, column: Column, table: Table, patients: np.ndarray) -> np.ndarray:
    values = None if column.kind == "boolean" else as_numbers(column)
    if values is None:
        rows = np.arange(table.n_rows) if column.kind == "boolean" else text_rows(column)
        cells = [column.shown(int(row)) for row in rows]
        message = not_numeric_message(
            f"'{column.name}' ({role} number)", cells, table.where(rows), len(rows), table.n_rows
        )
        hint = SECOND_HEADER if table.in_file and rows.tolist() == [0] else ""
        raise DataError(f"{message}{hint} Patient {shown_ids(_distinct(patients, rows))}.")
    refuse_infinite(values, column, table, patients)
    missing = np.flatnonzero(np.isnan(values))
    if missing.size:
        raise DataError(
            f"The {role} number (column '{column.name}') is missing (blank) in {missing.size} of {values.size} rows: "
            f"{table.where(missing)}, patient {shown_ids(_distinct(patients, missing))}. Fill it in or remove the row."
        )
    return values


def _refuse(
    bad: np.ndarray, must: str, remedy: str, values: np.ndarray, column: Column, table: Table, patients: np.ndarray
) -> None:
    rows = np.flatnonzero(bad)
    if rows.size:
        found = ", ".join(dict.fromkeys(f"{values[row]:.15g}" for row in rows[:3]))
        raise DataError(
            f"Session numbers (column '{column.name}') must {must}, but {rows.size} of {values.size} break that: "
            f"{found} at "
            f"{table.where(rows)}, patient {shown_ids(_distinct(patients, rows))}. {remedy}"
        )


def _distinct(patients: np.ndarray, rows: np.ndarray) -> list[str]:
    return list(dict.fromkeys(shown_id(label) for label in patients[rows].tolist()))
