"""The way in: a table and its roles to `SessionData`, one check after the other."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from psymech.data.ids import read_ids
from psymech.data.nesting import Nesting, PatientIds, canonical_order, nest, refuse_repeated_sessions
from psymech.data.numbers import as_numbers, refuse_infinite
from psymech.data.readers import read_table
from psymech.data.roles import check_roles
from psymech.data.session_numbers import read_sessions, read_time
from psymech.data.sessions import Ranges, SessionData
from psymech.data.table import Column, Table
from psymech.errors import DataError
from psymech.names import LEVELS, Level


def assemble(
    frame: object,
    *,
    roles: Mapping[str, str | None],
    unit_tables: Mapping[Level, object | None],
    patient_ids: PatientIds,
    ranges: Ranges | None,
) -> SessionData:
    """Return `SessionData` from a source and its roles; see `SessionData.from_frame`."""
    table = read_table(frame)
    check_roles(table, roles)
    if table.n_rows == 0:
        raise DataError(f"{table.source} is empty: it has columns but no rows. Expected one row a session.")
    labels: dict[Level, np.ndarray] = {}
    notes = list(table.notes)
    for level in LEVELS:
        if (name := roles[level]) is not None:
            labels[level], found = read_ids(table.columns[name], role=level, table=table)
            notes += found
    session = read_sessions(table.columns[str(roles["session"])], table, labels["patient"])
    time = session if roles["time"] is None else read_time(table.columns[roles["time"]], table, labels["patient"])
    nesting = nest(labels, roles, patient_ids)
    refuse_repeated_sessions(nesting, session, table, roles)
    order = canonical_order(nesting, session)
    sessions = _session_frame(table, roles, nesting, session, time, order)
    return SessionData(
        sessions=sessions,
        ids=nesting.ids,
        codes={level: codes[order] for level, codes in nesting.codes.items()},
        parents=nesting.parents,
        session=session[order],
        time=time[order],
        units={level: pd.DataFrame(index=pd.RangeIndex(len(nesting.ids[level]))) for level in nesting.ids},
        roles=dict(roles),
        patient_ids=nesting.patient_ids,
        source_row=order.astype(np.int64),
        notes=tuple(notes),
    )


def _session_frame(
    table: Table, roles: Mapping[str, str | None], nesting: Nesting, session: np.ndarray, time: np.ndarray, order: np.ndarray
) -> pd.DataFrame:
    columns: dict[str, pd.Series] = {}
    for name, column in table.columns.items():
        role = next((role for role, named in roles.items() if named == name), None)
        if role in nesting.ids:
            level: Level = role  # pyright: ignore[reportAssignmentType]
            cells = nesting.ids[level][nesting.codes[level]]
            columns[name] = pd.Series(cells[order], dtype=cells.dtype)
        elif role in ("session", "time"):
            columns[name] = pd.Series((session if role == "session" else time)[order])
        else:
            columns[name] = series(column, table).iloc[order].reset_index(drop=True)
    return pd.DataFrame(columns)


def series(column: Column, table: Table, patients: np.ndarray | None = None) -> pd.Series:
    """Return a column as float64, or as objects (None where missing) where a cell is text."""
    values = as_numbers(column)
    if values is None:
        return pd.Series(np.where(column.missing, None, column.cells), dtype=object)
    refuse_infinite(values, column, table, patients)
    return pd.Series(values)


