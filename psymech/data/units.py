"""Tables with one row a patient, a therapist or a clinic, matched to the ids of the sessions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from psymech.data.cells import value_series
from psymech.data.findings import Finding
from psymech.data.id_likeness import near_ids
from psymech.data.ids import as_key, read_ids
from psymech.data.nesting import Nesting, joined
from psymech.data.privacy import drop_identifying
from psymech.data.readers import read_table
from psymech.data.roles import absent_message, index_hint
from psymech.data.scales import Range
from psymech.data.table import Table
from psymech.errors import DataError, shown_id, shown_ids
from psymech.names import LEVELS, Level


@dataclass(frozen=True, slots=True)
class UnitTable:
    """A unit table as read: cells, ids and notes, not yet matched with the sessions."""

    table: Table
    labels: np.ndarray
    notes: tuple[Finding, ...]


def read_units(source: object, *, level: Level, nesting: Nesting, roles: Mapping[str, str | None]) -> UnitTable:
    """Return a unit table with checked ids.

    Raises
    ------
    DataError
        No id column, a missing or repeated id, or a parent that contradicts the sessions.
    """
    name = roles[level]
    if level not in nesting.ids or name is None:
        raise DataError(
            f"A {level} table was given, but the data have no {level} level. Name its column with {level}=."
        )
    table = read_table(source)
    if name not in table.columns:
        absent = f"{absent_message(name, table.columns)}{index_hint(name, table)}"
        raise DataError(f"The {level} table needs the id column of the sessions: {absent}")
    if table.n_rows == 0:
        raise DataError(f"The {level} table has no rows. Give one row a {level}, or leave the table out.")
    taken = [role for role, column in roles.items() if column is not None]
    table, privacy = drop_identifying(table, [str(roles[role]) for role in taken])
    labels, found = read_ids(table.columns[name], role=level, table=table)
    above: list[Level] = [upper for upper in LEVELS[LEVELS.index(level) + 1 :] if upper in nesting.ids]
    if level == "patient" and nesting.patient_ids == "nested" and above:
        parent = str(roles[above[0]])
        if parent not in table.columns:
            raise DataError(
                f"patient_ids='nested' needs the column '{parent}' in the patient table too: "
                f"{absent_message(parent, table.columns)}"
            )
        upper, _ = read_ids(table.columns[parent], role=above[0], table=table)
        labels = joined(upper, labels)
    _refuse_repeated(labels, level, table)
    for upper in above:
        if roles[upper] in table.columns:
            _refuse_other_parent(table, labels, level, upper, nesting, str(roles[upper]))
    return UnitTable(table, labels, (*table.notes, *privacy, *found, *_unread(table, level, roles)))


def _unread(table: Table, level: Level, roles: Mapping[str, str | None]) -> list[Finding]:
    """Say that a session number or a time in a table with one row a unit is not read."""
    names = dict.fromkeys(name for role in ("session", "time") if (name := roles[role]) in table.columns)
    said = {str(name): f"Column '{name}' of the {level} table was not read." for name in names}
    return [Finding("note", "unit-role-column", name, (), text, "Rename it.") for name, text in said.items()]


def _refuse_repeated(labels: np.ndarray, level: Level, table: Table) -> None:
    unique, counts = np.unique([as_key(label) for label in labels.tolist()], return_counts=True)
    repeated = unique[counts > 1]
    if repeated.size:
        raise DataError(
            f"The {level} table must have one row a {level}, but {repeated.size} ids have several (duplicate): "
            f"{shown_ids(repeated.tolist())}. Keep one row of each; what changes over sessions belongs into the "
            "sessions."
        )


def _refuse_other_parent(
    table: Table, labels: np.ndarray, level: Level, upper: Level, nesting: Nesting, column: str
) -> None:
    """Compare the unit table's own parent column with the parents seen in the sessions, where those are unique."""
    seen = _ancestors(nesting, level, upper)
    if seen is None:
        return
    known = {as_key(label): as_key(parent) for label, parent in zip(nesting.ids[level].tolist(), seen, strict=True)}
    given, _ = read_ids(table.columns[column], role=upper, table=table)
    wrong = [
        label
        for label, parent in zip(labels.tolist(), given.tolist(), strict=True)
        if known.get(as_key(label), as_key(parent)) != as_key(parent)
    ]
    if wrong:
        raise DataError(
            f"The {level} table gives {len(wrong)} {level}s another {upper} (column '{column}') than the sessions do: "
            f"{shown_ids(wrong)}. Correct one of the tables."
        )


def _ancestors(nesting: Nesting, level: Level, upper: Level) -> list[object] | None:
    index = np.arange(len(nesting.ids[level]))
    for step in LEVELS[LEVELS.index(level) : LEVELS.index(upper)]:
        if step not in nesting.ids:
            continue
        if step not in nesting.parents:
            return None
        index = nesting.parents[step][index]
    return nesting.ids[upper][index].tolist()


def align_units(
    units: UnitTable,
    *,
    level: Level,
    nesting: Nesting,
    roles: Mapping[str, str | None],
    ranges: Mapping[str, Range | None],
    taken: Mapping[str, str],
) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    """Return the unit table's columns aligned with the ids of a level, and findings on units without a partner.

    Parameters
    ----------
    units : UnitTable
    taken : mapping of column to table
        Columns that other tables have already; a name must mean one thing.

    Raises
    ------
    DataError
        A column that another table has too, or an impossible value.
    """
    table, name = units.table, str(roles[level])
    place = {as_key(label): row for row, label in enumerate(units.labels.tolist())}
    keys = [as_key(label) for label in nesting.ids[level].tolist()]
    rows = np.array([place.get(key, -1) for key in keys], dtype=np.int64)
    columns: dict[str, pd.Series] = {}
    coded: list[Finding] = []
    for column in table.columns.values():
        if column.name in roles.values():
            continue
        if column.name in taken:
            raise DataError(
                f"Column '{column.name}' is both in the {level} table and in the {taken[column.name]} table. "
                "Rename or drop one, so that the name means one thing."
            )
        cells, found = value_series(column, table, ranges=ranges, owner=level, labels=units.labels)
        coded += found
        columns[column.name] = _aligned(cells, rows)
    frame = pd.DataFrame(columns, index=pd.RangeIndex(len(keys)))
    return frame, (*units.notes, *coded, *_unmatched(units.labels, keys, rows, level, name))


def _aligned(cells: pd.Series, rows: np.ndarray) -> pd.Series:
    blank = None if cells.dtype == object else np.nan
    values = cells.to_numpy()
    return pd.Series([blank if row < 0 else values[row] for row in rows], dtype=cells.dtype)


def _unmatched(labels: np.ndarray, keys: list[str], rows: np.ndarray, level: Level, name: str) -> list[Finding]:
    findings: list[Finding] = []
    known = set(keys)
    extra = [label for label in labels.tolist() if as_key(label) not in known]
    absent = [key for key, row in zip(keys, rows, strict=True) if row < 0]
    pairs = near_ids(absent, map(as_key, extra))
    hint = ""
    if pairs:
        seen, given = (shown_id(label) for label in pairs[0])
        hint = (
            f" {len(pairs)} of them differ only in case, spaces, zeros or the like, such as {seen} in the sessions and "
            f"{given} in the table: give each {level} one spelling."
        )
    if len(absent) == len(keys):
        raise DataError(
            f"No {level} of the sessions is in the {level} table (column '{name}'): the sessions have "
            f"{shown_ids(absent[:2])}, ..., the table {shown_ids(extra[:2])}, ....{hint or ' Are these the same ids?'}"
        )
    if extra:
        count = f"{len(extra)} of {len(labels)} rows of the {level} table"
        message = f"{count} have no sessions and were left out: {shown_ids(extra)}."
        findings.append(Finding("note", "units-without-sessions", name, _shown(extra), message, ""))
    if absent:
        message = (
            f"{len(absent)} of {len(keys)} {level}s with sessions are not in the {level} table, so its columns are "
            "missing for "
            f"them: {shown_ids(absent)}."
        )
        findings.append(Finding("warning", "units-missing", name, _shown(absent), message, f"Add their rows.{hint}"))
    return findings


def _shown(labels: list[object] | list[str]) -> tuple[str, ...]:
    return tuple(shown_id(label) for label in labels[:5])
