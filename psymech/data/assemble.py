"""The way in: a table and its roles to `SessionData`, one check after the other."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from psymech.data.cells import value_series
from psymech.data.findings import Finding
from psymech.data.ids import read_ids
from psymech.data.nesting import Nesting, PatientIds, canonical_order, nest, refuse_repeated_sessions
from psymech.data.privacy import drop_identifying
from psymech.data.readers import read_table
from psymech.data.roles import check_roles
from psymech.data.scales import check_ranges
from psymech.data.session_numbers import read_sessions, read_time
from psymech.data.sessions import Ranges, SessionData
from psymech.data.table import Table
from psymech.data.units import UnitTable, align_units, read_units
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
    given = read_table(frame)
    check_roles(given, roles)
    if given.n_rows == 0:
        raise DataError(f"{given.source} is empty: it has columns but no rows. Expected one row a session.")
    table, privacy = drop_identifying(given, [name for name in roles.values() if name is not None])
    labels, tidied = _labels(table, roles)
    session = read_sessions(table.columns[str(roles["session"])], table, labels["patient"])
    time = session if roles["time"] is None else read_time(table.columns[roles["time"]], table, labels["patient"])
    nesting = nest(labels, roles, patient_ids)
    refuse_repeated_sessions(nesting, session, table, roles)
    unit_columns: dict[Level, UnitTable] = {
        level: read_units(source, level=level, nesting=nesting, roles=roles)
        for level, source in unit_tables.items()
        if source is not None
    }
    taken = dict.fromkeys(table.columns, "session")
    every = [*table.columns, *(name for units in unit_columns.values() for name in units.table.columns)]
    check_ranges({} if ranges is None else ranges, every, roles=[name for name in roles.values() if name is not None])
    own_ranges = dict(ranges or {})
    order = canonical_order(nesting, session)
    unsorted, coded = _session_frame(table, roles, nesting, session, time, own_ranges)
    sessions = unsorted.iloc[order].reset_index(drop=True)
    frames: dict[Level, pd.DataFrame] = {
        level: pd.DataFrame(index=pd.RangeIndex(len(nesting.ids[level]))) for level in nesting.ids
    }
    notes: list[Finding] = [*table.notes, *privacy, *tidied, *nesting.notes, *coded]
    for level, units in unit_columns.items():
        frames[level], found = align_units(
            units, level=level, nesting=nesting, roles=roles, ranges=own_ranges, taken=taken
        )
        taken |= dict.fromkeys(frames[level].columns, level)
        notes += found
    return SessionData(
        sessions=sessions,
        ids=nesting.ids,
        codes={level: codes[order] for level, codes in nesting.codes.items()},
        parents=nesting.parents,
        session=session[order],
        time=time[order],
        units=frames,
        roles=dict(roles),
        patient_ids=nesting.patient_ids,
        source_row=order.astype(np.int64),
        notes=tuple(dict.fromkeys(notes)),
        source_line=table.rows[order] if table.in_file else None,
    )


def _labels(table: Table, roles: Mapping[str, str | None]) -> tuple[dict[Level, np.ndarray], list[Finding]]:
    labels: dict[Level, np.ndarray] = {}
    notes: list[Finding] = []
    for level in LEVELS:
        if (name := roles[level]) is not None:
            labels[level], found = read_ids(table.columns[name], role=level, table=table)
            notes += found
    return labels, notes


def _session_frame(
    table: Table,
    roles: Mapping[str, str | None],
    nesting: Nesting,
    session: np.ndarray,
    time: np.ndarray,
    ranges: Ranges,
) -> tuple[pd.DataFrame, list[Finding]]:
    """Return the table's columns in the given order of rows, roles first as exact ids and numbers, and notes."""
    patients = nesting.ids["patient"][nesting.codes["patient"]]
    columns: dict[str, pd.Series] = {}
    for level in nesting.ids:
        cells = nesting.ids[level][nesting.codes[level]]
        columns[str(roles[level])] = pd.Series(cells, dtype=cells.dtype)
    columns[str(roles["session"])] = pd.Series(session)
    if roles["time"] is not None:
        columns[roles["time"]] = pd.Series(time)
    notes: list[Finding] = []
    for name, column in table.columns.items():
        if name not in columns:
            columns[name], found = value_series(column, table, ranges=ranges, owner="patient", labels=patients)
            notes += found
    return pd.DataFrame(columns), notes
