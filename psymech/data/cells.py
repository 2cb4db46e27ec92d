"""A column without a role to a pandas series: float64 where every cell is a number, objects where some cell is text."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from psymech.data.numbers import as_numbers, refuse_infinite
from psymech.data.scales import Range, refuse_impossible
from psymech.data.table import Column, Table


def value_series(
    column: Column, table: Table, *, ranges: Mapping[str, Range | None], owner: str, labels: np.ndarray
) -> pd.Series:
    """Return a column as float64 (NaN where missing), or as objects (None where missing) where some cell is text.

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
        An infinite value, one outside its scale, or a code for missing values.
    """
    values = as_numbers(column)
    if values is None:
        cells = column.cells.copy()
        cells[column.missing] = None
        return pd.Series(cells, dtype=object)
    refuse_infinite(values, column, table, labels)
    refuse_impossible(column.name, values, ranges=ranges, table=table, owner=owner, labels=labels)
    return pd.Series(values)
