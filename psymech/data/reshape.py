"""Tables as people keep them, SPSS files, one column a session, to one row a session."""

import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from psymech.arguments import is_whole, mapping
from psymech.data.frames import NOTES
from psymech.data.ids import read_ids
from psymech.data.numbers import as_numbers, refuse_infinite
from psymech.data.readers import read_table
from psymech.data.roles import absent_message
from psymech.data.table import Column, Table
from psymech.errors import DataError, shown_id, shown_ids

PLACE: Final = "{session}"

Note = tuple[str, str, str]


def read_long(source: object, *, ids: Sequence[str] = ()) -> pd.DataFrame:
    """Return a table that has one row a session already, with its numbers as numbers and its ids exact.

    `SessionData.from_frame` reads the same sources itself; this is for a table that has to be scored or joined first.

    Parameters
    ----------
    source : path or table
        A path (.csv, .tsv, .txt, .parquet, .sav) or a pandas, polars, pyarrow or DuckDB table.
    ids : sequence of str
        Columns to keep as ids: text stays text, so that 007 and 7 are two people.

    Returns
    -------
    DataFrame
        A column of numbers is float64 (NaN where missing), any other holds objects (None where missing).

    Raises
    ------
    DataError
        The source cannot be read, a column named in `ids` is absent, or a number is infinite.

    Examples
    --------
    >>> import pandas as pd
    >>> read_long(pd.DataFrame({"patient": ["007", "7"], "mood": ["3", "."]}), ids=["patient"])
      patient  mood
    0     007   3.0
    1       7   NaN
    """
    table = read_table(source)
    _check_columns(ids, table)
    series = {name: _exact(column) if name in ids else _parsed(column, table) for name, column in table.columns.items()}
    return _noted(pd.DataFrame(series), [(note.code, note.column, note.message) for note in table.notes])


def read_spss(path: str | PathLike[str], *, ids: Sequence[str] = ()) -> pd.DataFrame:
    """Return the table of an SPSS file (.sav), user-missing values as missing, with its labels beside it.

    Parameters
    ----------
    path : path
    ids : sequence of str
        Columns to keep as ids.

    Returns
    -------
    DataFrame
        As `read_long`.  ``frame.attrs["variable_labels"]`` maps a column to its label, and
        ``frame.attrs["value_labels"]`` a column to its labelled values, where the file has them.

    Raises
    ------
    DataError
        The file is absent, damaged or no .sav file, or a column named in `ids` is absent.

    Examples
    --------
    >>> frame = read_spss("study.sav", ids=["patient"])  # doctest: +SKIP
    >>> frame.attrs["variable_labels"]["wai1"]  # doctest: +SKIP
    'My therapist and I agree on what I want to achieve'
    """
    given = Path(path)
    if given.suffix.lower() != ".sav":
        raise DataError(f"read_spss expects a file of kind '.sav', but got {shown_id(given.name)}. Use read_long.")
    frame = read_long(given, ids=ids)
    import pyreadstat

    _, labels = pyreadstat.read_sav(str(given), metadataonly=True)
    frame.attrs["variable_labels"] = {name: text for name, text in labels.column_names_to_labels.items() if text}
    frame.attrs["value_labels"] = {
        name: {str(value): text for value, text in values.items()}
        for name, values in labels.variable_value_labels.items()
    }
    return frame


def read_wide(
    source: object,
    *,
    measures: Mapping[str, str | Sequence[str]],
    patient: str = "patient",
    session: str = "session",
    sessions: Sequence[int] | None = None,
    keep: Sequence[str] | None = None,
    ids: Sequence[str] = ("therapist",),
) -> pd.DataFrame:
    """Return one row a session from a table with one row a patient and one column a session.

    Parameters
    ----------
    source : path or table
        As for `read_long`.
    measures : mapping of new name to pattern or column names
        A pattern holds ``{session}`` where the session number stands, as in ``{"phq9": "phq9_s{session}"}``; or the
        columns are listed in the order of `sessions`.
    patient : str
        Column with the patients' ids, each once.
    session : str
        Name of the new column with session numbers.
    sessions : sequence of int, optional
        Session numbers of columns that are listed; 1, 2, ... by default.
    keep : sequence of str, optional
        Other columns to repeat on each of a patient's sessions; all that belong to no measure by default.
    ids : sequence of str
        Columns kept as ids, where they are there.

    Returns
    -------
    DataFrame
        Sorted by the order of the patients, then session.  Sessions in which a patient has no value of any measure are
        left out; a note says how many, and `check_design` repeats it once the frame has become `SessionData`.

    Raises
    ------
    DataError
        A column is absent or claimed twice, a pattern finds no column, two columns stand for one session (``s1`` and
        ``s01``), a patient has several rows, or `sessions` are no whole numbers or number no listed column.

    Examples
    --------
    >>> import pandas as pd
    >>> wide = pd.DataFrame({"patient": ["A", "B"], "bdi_1": [20, 31], "bdi_2": [14, None], "age": [30, 41]})
    >>> read_wide(wide, measures={"bdi": "bdi_{session}"})
      patient  session   bdi   age
    0       A        1  20.0  30.0
    1       A        2  14.0  30.0
    2       B        1  31.0  41.0
    """
    mapping(measures, "measures", "{'phq9': 'phq9_{session}'}")
    _refuse_sessions(sessions, measures)
    table = read_table(source)
    _check_columns([patient, *(keep or ())], table)
    columns = {name: _columns_of(name, given, table, sessions) for name, given in measures.items()}
    if not columns:
        raise DataError("read_wide expects at least one measure, such as measures={'phq9': 'phq9_{session}'}.")
    claimed = [name for by_session in columns.values() for name in by_session.values()]
    _refuse_twice(claimed, [patient, *(keep or ())])
    others = [name for name in table.columns if name not in claimed and name != patient] if keep is None else [*keep]
    _refuse_names(session, [*measures, patient, *others], table)
    labels, _ = read_ids(table.columns[patient], role="patient", table=table)
    _refuse_rows(patient, labels, table)
    numbers = sorted({number for by_session in columns.values() for number in by_session})
    values = {name: _values(by_session, numbers, table) for name, by_session in columns.items()}
    seen = ~np.all([np.isnan(each) for each in values.values()], axis=0)
    rows, places = np.nonzero(seen)
    long: dict[str, object] = {patient: labels[rows], session: np.array(numbers, dtype=np.int64)[places]}
    long |= {name: each[rows, places] for name, each in values.items()}
    for name in others:
        column = table.columns[name]
        cells = (_exact(column) if name in ids else _parsed(column, table)).to_numpy()
        long[name] = cells[rows]
    return _noted(
        pd.DataFrame(long),
        [(note.code, note.column, note.message) for note in table.notes] + _left_out(seen, numbers, labels),
    )


def _check_columns(names: Iterable[str], table: Table) -> None:
    for name in names:
        if name not in table.columns:
            raise DataError(absent_message(name, table.columns))


def _exact(column: Column) -> pd.Series:
    if column.kind == "number" or (column.kind == "integer" and column.missing.any()):
        cells = np.where(column.missing, np.nan, column.cells.astype(np.float64))
        return pd.Series(cells)
    cells = column.cells.copy()
    if column.kind in ("text", "date"):
        cells[column.missing] = None
    return pd.Series(cells, dtype=cells.dtype)


def _parsed(column: Column, table: Table) -> pd.Series:
    values = as_numbers(column)
    if values is None:
        return _exact(column)
    refuse_infinite(values, column, table, None)
    return pd.Series(values)


def _columns_of(name: str, given: object, table: Table, sessions: Sequence[int] | None) -> dict[int, str]:
    if not isinstance(given, Iterable):
        raise DataError(f"measures['{name}'] expects a pattern or a list of columns, but got {given!r}.")
    if not isinstance(given, str):
        return _listed(name, [*given], table, sessions)  # pyright: ignore[reportGeneralTypeIssues]
    if given.count(PLACE) != 1:
        raise DataError(
            f"measures['{name}'] expects a pattern with {PLACE} in it once, as in 'phq9_{PLACE}', or a list of "
            f"columns, but got {given!r}."
        )
    before, after = given.split(PLACE)
    shape = re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}")
    found: dict[int, str] = {}
    for column in table.columns:
        if match := shape.fullmatch(column):
            number = int(match.group(1))
            if number in found:
                raise DataError(
                    f"Columns '{found[number]}' and '{column}' both stand for session {number} of '{name}'. Rename or "
                    "drop one."
                )
            found[number] = column
    if not found:
        raise DataError(f"No column fits the pattern {given!r} of '{name}'. {absent_message(before, table.columns)}")
    return dict(sorted(found.items()))


def _refuse_sessions(sessions: Sequence[int] | None, measures: Mapping[str, str | Sequence[str]]) -> None:
    if sessions is None:
        return
    if all(isinstance(given, str) for given in measures.values()):
        raise DataError(
            f"sessions numbers columns that are listed, but measures has patterns only, which take the numbers from "
            f"the columns' names: {', '.join(map(repr, measures.values()))}. Leave sessions out, or list the columns."
        )
    odd = [n for n in sessions if not is_whole(n) or n < 0]
    if odd:
        raise DataError(f"sessions expects whole numbers from 0 on, but got {odd[0]!r}.")


def _listed(name: str, columns: list[str], table: Table, sessions: Sequence[int] | None) -> dict[int, str]:
    _check_columns(columns, table)
    numbers = list(range(1, len(columns) + 1)) if sessions is None else [*sessions]
    if len(numbers) != len(columns) or len(set(numbers)) != len(numbers):
        raise DataError(
            f"measures['{name}'] lists {len(columns)} columns, but sessions lists {len(set(numbers))} different "
            "numbers. Give one number a column."
        )
    return dict(zip(numbers, columns, strict=True))


def _refuse_twice(claimed: list[str], others: list[str]) -> None:
    every = [*claimed, *others]
    twice = sorted({name for name in every if every.count(name) > 1})
    if twice:
        raise DataError(
            f"Column '{twice[0]}' is claimed twice, by two measures or by a measure and keep. Name it once."
        )


def _refuse_names(session: str, names: list[str], table: Table) -> None:
    if session in names:
        found = "is a column of the table already" if session in table.columns else "is the name of a measure"
        raise DataError(f"The new column '{session}' {found}. Pass another name as session=, or leave it out of keep.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"'{twice[0]}' is both a measure and another column of the table. Give the measure another name."
        )


def _refuse_rows(patient: str, labels: np.ndarray, table: Table) -> None:
    distinct, counts = np.unique(labels, return_counts=True)
    several = distinct[counts > 1]
    if several.size:
        rows = np.flatnonzero(np.isin(labels, several))
        raise DataError(
            f"A wide table has one row a patient, but column '{patient}' holds {several.size} ids more than once, at "
            f"{table.where(rows)}: {shown_ids(several.tolist())}. If the table has one row a session, it is long: "
            "use read_long."
        )


def _values(by_session: Mapping[int, str], numbers: list[int], table: Table) -> np.ndarray:
    """Return float64 (n_patients, n_sessions), NaN where there is no column or no value."""
    values = np.full((table.n_rows, len(numbers)), np.nan)
    for number, name in by_session.items():
        series = _parsed(table.columns[name], table)
        if series.dtype != np.float64:
            column = table.columns[name]
            raise DataError(
                f"Column '{name}' is to be a measure and must hold numbers, but holds text such as "
                f"{shown_id(next(cell for cell in column.cells if cell))}. Correct the cells, or leave them blank if "
                "missing."
            )
        values[:, numbers.index(number)] = series.to_numpy()
    return values


def _left_out(seen: np.ndarray, numbers: list[int], labels: np.ndarray) -> list[Note]:
    notes: list[Note] = []
    empty = int((~seen).sum())
    if empty:
        message = (
            f"The wide table has {seen.shape[0]} patients x {len(numbers)} sessions; {empty} without a value of any "
            "measure were left out."
        )
        notes.append(("sessions-empty", "", message))
    none = labels[~seen.any(axis=1)]
    if none.size:
        message = f"{none.size} patients have no value of any measure and no row: {shown_ids(none.tolist())}."
        notes.append(("patients-empty", "", message))
    return notes


def _noted(frame: pd.DataFrame, notes: list[Note]) -> pd.DataFrame:
    frame.attrs[NOTES] = [list(note) for note in notes]
    return frame
