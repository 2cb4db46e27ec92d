"""One neutral table between the readers and the checks: named columns of exact cells, and where each row came from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from psymech.data.findings import Finding
from psymech.errors import MAX_IDS_IN_MESSAGE

Kind = Literal["text", "integer", "number", "boolean", "date"]


@dataclass(frozen=True, slots=True)
class Column:
    """The cells of one column, exact.

    Attributes
    ----------
    name : str
    kind : {"text", "integer", "number", "boolean", "date"}
    cells : ndarray, shape (n_rows,)
        text and date: object array of str (None where missing); integer: int64 or uint64; number: float64;
        boolean: int64 0/1.
    missing : ndarray of bool, shape (n_rows,)
    """

    name: str
    kind: Kind
    cells: np.ndarray
    missing: np.ndarray

    def taken(self, rows: np.ndarray) -> "Column":
        """Return the column with these rows only, in this order."""
        return Column(self.name, self.kind, self.cells[rows], self.missing[rows])

    def shown(self, row: int) -> str:
        """Return the text of one cell for a message."""
        return "" if self.missing[row] else str(self.cells[row])


@dataclass(frozen=True, slots=True)
class Table:
    """A table as read: columns in order, and the line of the file or the row of the table each row came from.

    Attributes
    ----------
    columns : mapping of name to Column
    rows : ndarray of int64, shape (n_rows,)
        Line numbers in a text file (the header is line 1), else row numbers counted from 0.
    in_file : bool
        Whether `rows` are lines of a text file.
    source : str
        How to name the table in a message: a file name without its folder, or "the table".
    notes : tuple of Finding
    index_names : tuple of str
        Names of a pandas index, which is not read; used only to say so when a column is absent.
    """

    columns: Mapping[str, Column]
    rows: np.ndarray
    in_file: bool
    source: str
    notes: tuple[Finding, ...] = ()
    index_names: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def where(self, rows: Iterable[int] | np.ndarray) -> str:
        """Return 'line 3, 17 and 2 more' or 'row 1, 15 (counted from 0)' for positions in this table."""
        positions = np.asarray(list(rows), dtype=np.int64)
        first = ", ".join(str(number) for number in self.rows[positions[:MAX_IDS_IN_MESSAGE]])
        rest = len(positions) - MAX_IDS_IN_MESSAGE
        more = f" and {rest} more" if rest > 0 else ""
        return f"line {first}{more}" if self.in_file else f"row {first}{more} (counted from 0)"
