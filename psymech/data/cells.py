"""A column without a role to a pandas series: float64 where every cell is a number, objects where some cell is text."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from psymech.data.findings import Finding
from psymech.data.numbers import as_numbers, refuse_infinite
from psymech.data.scales import Range, note_codes, refuse_outside
from psymech.data.table import Column, Table


def value_series(
    column: Column, table: Table, *, ranges: Mapping[str, Range | None], owner: str, labels: np.ndarray
) -> tuple[pd.Series, tuple[Finding, ...]]:
    """Return a column as float64 (NaN where missing), or as objects (None where missing) where some cell is text.

    The findings note codes for missing values; the column is refused only when it is used.

    Parameters
    ----------
    column : Column
    table : Table
        Where the rows are.
    ranges : mapping of column to (lowest, highest) or None
    owner : str
        Level of the ids in `labels`.
    labels : ndarray, shape (n_rows,)
        Ids for the message.

    Raises
    ------
    DataError
        An infinite value, or one outside its scale.
    """
    values = as_numbers(column)
    if values is None:
        cells = column.cells.copy()
        cells[column.missing] = None
        return pd.Series(cells, dtype=object), ()
    refuse_infinite(values, column, table, labels)
    refuse_outside(column.name, values, ranges=ranges, table=table, owner=owner, labels=labels)
    notes = note_codes(column.name, values, ranges=ranges, table=table, owner=owner, labels=labels)
    return pd.Series(values), notes
