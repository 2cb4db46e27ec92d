"""Cells to numbers: what counts as missing, what counts as a number, and how to say what does not."""

import math
import re
from typing import Final

import numpy as np

from psymech.data.table import Column, Table
from psymech.errors import DataError, shown_id

MISSING_CELLS: Final = frozenset({"", "na", "n/a", "nan", "null", ".", "-", "<na>", "#n/a", "none"})
"""Cells of a number column that mean "missing", compared without case and without surrounding space."""

NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INFINITE: Final = re.compile(r"[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
DECIMAL_COMMA: Final = re.compile(r"[+-]?\d+,\d+", re.ASCII)
DATE: Final = re.compile(r"\d{4}-\d\d?-\d\d?([ T][\d:.Z+-]+)?|\d\d?[./]\d\d?[./](\d\d){1,2}", re.ASCII)
YES_NO: Final = frozenset({"yes", "no", "y", "n", "true", "false", "ja", "nein", "oui", "non", "si", "x"})
POINT_AND_COMMA: Final = re.compile(r"[+-]?\d{1,3}([.']\d{3})+,\d+", re.ASCII)
PERCENT: Final = re.compile(r"[+-]?\d+([.,]\d+)? ?%", re.ASCII)
NO_ANSWER: Final = frozenset({"k.a.", "k. a.", "?", "missing", "unknown", "unbekannt", "fehlt", "keine angabe", "--"})
MAX_CATEGORIES: Final = 12
THOUSANDS: Final = re.compile(r"[+-]?\d{1,3}(,\d{3})+", re.ASCII)
MAX_CELLS_SHOWN: Final = 3
LARGEST: Final = 1e100  # squares and sums of larger values overflow


def parse_cell(cell: str | None) -> float | None:
    """Return a cell's number: NaN where missing, plus or minus infinity where infinite, None where it is text."""
    text = "" if cell is None else cell.strip()
    if text.lower() in MISSING_CELLS:
        return math.nan
    if NUMBER.fullmatch(text):
        return float(text)
    if INFINITE.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    return None


def as_numbers(column: Column) -> np.ndarray | None:
    """Return the column as float64 with NaN for missing cells, or None where some cell is not a number.

    Text cells are numbers only when written with ASCII digits and a decimal point; "4,21", "12 (prorated)" and "1_000"
    are text.  Infinite cells come back infinite, so that the caller can refuse them.
    """
    if column.kind in ("integer", "number", "boolean"):
        return np.where(column.missing, np.nan, column.cells.astype(np.float64))
    if column.kind == "date":
        return None
    distinct = {cell: parse_cell(cell) for cell in set(column.cells.tolist())}
    if any(number is None for number in distinct.values()):
        return None
    return np.array([distinct[cell] for cell in column.cells.tolist()], dtype=np.float64)


def text_rows(column: Column) -> np.ndarray:
    """Return the positions of the cells that are neither numbers nor missing."""
    if column.kind == "date":
        return np.flatnonzero(~column.missing)
    if column.kind != "text":
        return np.array([], dtype=np.int64)
    return np.array([row for row, cell in enumerate(column.cells.tolist()) if parse_cell(cell) is None], dtype=np.int64)


def not_numeric_message(name: str, cells: list[str], places: str, n_bad: int, n_all: int) -> str:
    """Return the message for a column that was needed as numbers and holds text.

    Parameters
    ----------
    name : str
        The column, as it should stand in the message.
    cells : list of str
        Every offending cell, in order.
    places : str
        Where they are, as `Table.where` gives it.
    n_bad, n_all : int
        Number of offending and of all cells.
    """
    distinct = list(dict.fromkeys(cell.strip() for cell in cells))
    shown = ", ".join(f"'{shown_id(cell)}'" for cell in distinct[:MAX_CELLS_SHOWN])
    found = f"{n_bad} of {n_all} cells {'is' if n_bad == 1 else 'are'} text: {shown} at {places}."
    message = f"Column {name} must hold numbers (numeric cells), but {found}"
    if all(THOUSANDS.fullmatch(cell) for cell in distinct):
        return (
            f"{message} The commas may separate thousands or be decimal commas: write {distinct[0].replace(',', '')} "
            f"or {distinct[0].replace(',', '.', 1)}, as it is meant."
        )
    if all(DECIMAL_COMMA.fullmatch(cell) for cell in distinct):
        return (
            f"{message} This looks like a decimal comma: write a decimal point, as in {distinct[0].replace(',', '.')}."
        )
    if all(POINT_AND_COMMA.fullmatch(cell) for cell in distinct):
        plain = distinct[0].replace(".", "").replace("'", "").replace(",", ".")
        return f"{message} Points separate thousands and a comma decimals here, it seems: write {plain}."
    if all(PERCENT.fullmatch(cell) for cell in distinct):
        return f"{message} Write percentages without the sign: {distinct[0].rstrip('% ').replace(',', '.')}."
    words = {cell.lower() for cell in distinct}
    if words <= YES_NO | NO_ANSWER and words & YES_NO:
        if words & NO_ANSWER:
            message += " Leave a missing cell blank."
        return f"{message} Code a binary column as 0/1 numbers: 1 for yes (true), 0 for no (false)."
    if all(DATE.fullmatch(cell) for cell in distinct):
        return f"{message} These look like dates: count sessions 1, 2, 3, ... or days since a fixed date."
    if n_bad == n_all and len(distinct) <= MAX_CATEGORIES:
        return (
            f"{message} These look like categories: code each but one as a 0/1 column of its own, or ordered ones as "
            "1, 2, 3, ..."
        )
    return f"{message} Correct the cells; leave a missing cell blank."


def refuse_infinite(values: np.ndarray, column: Column, table: Table, patients: np.ndarray | None) -> None:
    """Raise DataError where a value is infinite or beyond 1e100, showing the cell, its row and its patient."""
    rows = np.flatnonzero(np.abs(values) > LARGEST)
    if rows.size:
        cells = ", ".join(dict.fromkeys(f"'{column.shown(int(row))}'" for row in rows[:MAX_CELLS_SHOWN]))
        whose = "" if patients is None else f", patient {shown_id(patients[rows[0]])}"
        raise DataError(
            f"Column '{column.name}' must hold finite numbers, but {rows.size} of {values.size} cells "
            f"{'is' if rows.size == 1 else 'are'} infinite (inf) or too large for a number: {cells} at "
            f"{table.where(rows)}{whose}. "
            "Correct the cells, or leave them blank if the value is missing."
        )
