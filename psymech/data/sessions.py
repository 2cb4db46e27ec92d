"""SessionData: a table of sessions as checked arrays, complete and valid once it exists."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from psymech.arguments import instance
from psymech.data.findings import Finding
from psymech.data.nesting import PatientIds
from psymech.data.numbers import not_numeric_message, parse_cell
from psymech.data.roles import absent_message
from psymech.data.scales import MISSING_CODES, Range
from psymech.errors import DataError, shown_ids
from psymech.names import LEVELS, Level

Ranges = Mapping[str, Range | None]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class SessionData:
    """Sessions in patients in therapists (in clinics), as arrays that every later step can rely on.

    Make one with `SessionData.from_frame`.

    Attributes
    ----------
    sessions : DataFrame
        One row a session, sorted by clinic, therapist, patient and session; the role columns, and every other column as
        float64, or as objects where it holds text (refused only when a model uses it).
    ids : mapping of level to ndarray, shape (n_units,)
        Labels of the units, unique and sorted; int64, uint64 or str.
    codes : mapping of level to int64 ndarray, shape (n_sessions,)
        Index of each session's unit in `ids`.
    parents : mapping of level to int64 ndarray, shape (n_units,)
        Index of each unit's parent at the next level present; no "patient" where patients are crossed with therapists.
    session, time : float64 ndarray, shape (n_sessions,)
        Session numbers, and times (the session numbers where no time was given).
    units : mapping of level to DataFrame
        Columns of the patient, therapist and clinic tables, aligned with `ids`; no columns where no table was given.
    roles : mapping of role to column name or None
    patient_ids : {"unique", "nested", "crossed"}
    source_row : int64 ndarray, shape (n_sessions,)
        Row of the given table, from 0.
    notes : tuple of Finding
        What was tidied, dropped or left out on the way in.
    source_line : int64 ndarray, shape (n_sessions,), or None
        Line of the text file (the header is line 1); None for other sources.
    """

    sessions: pd.DataFrame
    ids: Mapping[Level, np.ndarray]
    codes: Mapping[Level, np.ndarray]
    parents: Mapping[Level, np.ndarray]
    session: np.ndarray
    time: np.ndarray
    units: Mapping[Level, pd.DataFrame]
    roles: Mapping[str, str | None]
    patient_ids: PatientIds
    source_row: np.ndarray
    notes: tuple[Finding, ...]
    source_line: np.ndarray | None = None

    @classmethod
    def from_frame(
        cls,
        frame: object,
        *,
        patient: str = "patient",
        therapist: str | None = "therapist",
        clinic: str | None = None,
        session: str = "session",
        time: str | None = None,
        patients: object | None = None,
        therapists: object | None = None,
        clinics: object | None = None,
        patient_ids: PatientIds = "unique",
        ranges: Ranges | None = None,
    ) -> "SessionData":
        """Return the checked data of a table with one row a session.

        Parameters
        ----------
        frame : path or table
            A path (.csv, .tsv, .txt, .parquet, .sav) or a pandas, polars (also lazy), pyarrow or DuckDB table.
        patient, therapist, clinic, session, time : str or None
            Columns that play the roles.  ``therapist=None`` gives two levels.  Sessions are whole numbers from 0 or
            1 on; times may be fractional and default to the session numbers.
        patients, therapists, clinics : path or table, optional
            One row a patient, a therapist or a clinic, with the id column named as in `frame`.
        patient_ids : {"unique", "nested", "crossed"}
            "nested": patient numbers restart under each therapist and become "<therapist>/<patient>".
            "crossed": patients may change therapist.
        ranges : mapping of column to (lowest, highest) or None
            Values a column can take.  Well-known scales (`psymech.data.scales.SCALES`) are checked by name unless
            given here; None switches the check off.

        Returns
        -------
        SessionData

        Raises
        ------
        DataError
            The table cannot be used as it is; the message says which column, which rows, whose ids and what to do.

        Notes
        -----
        In text files every cell is read as text first, so ids keep leading zeros and long numbers stay exact.  Ids
        are trimmed and composed (Unicode NFC).  In a number column the cells "", NA, N/A, #N/A, NaN, null, none,
        "." and "-" are missing; any other cell that is not a plain number with a decimal point makes the column
        text.  Columns that name people (names, birth dates, e-mail addresses, ...) are dropped, with a note.

        Examples
        --------
        >>> import pandas as pd
        >>> rows = {"therapist": ["T1", "T1", "T2"], "patient": [7, 7, 9], "session": [1, 2, 1], "mood": [3, 4, 5]}
        >>> SessionData.from_frame(pd.DataFrame(rows))
        SessionData(3 sessions, 2 patients, 2 therapists; columns: mood)
        """
        from psymech.data.assemble import assemble

        roles = {"patient": patient, "therapist": therapist, "clinic": clinic, "session": session, "time": time}
        unit_tables: dict[Level, object | None] = {"patient": patients, "therapist": therapists, "clinic": clinics}
        return assemble(frame, roles=roles, unit_tables=unit_tables, patient_ids=patient_ids, ranges=ranges)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Levels present, lowest first."""
        return tuple(level for level in LEVELS if level in self.ids)

    @property
    def n_sessions(self) -> int:
        """Number of rows."""
        return len(self.session)

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return self.n_units("patient")

    @property
    def n_therapists(self) -> int:
        """Number of therapists, 0 for two-level data."""
        return self.n_units("therapist") if "therapist" in self.ids else 0

    def n_units(self, level: Level) -> int:
        """Return the number of units of a level; DataError where the level is absent."""
        if level not in self.ids:
            raise DataError(
                f"The data have no {level} level; they have {', '.join(self.levels)}. Name its column in from_frame."
            )
        return len(self.ids[level])

    @property
    def column_names(self) -> tuple[str, ...]:
        """Columns without a role, of the sessions and then of the unit tables."""
        taken = {name for name in self.roles.values() if name is not None}
        own = [name for name in self.sessions.columns if name not in taken]
        return (*own, *(name for level in self.levels for name in self.units[level].columns))

    def home(self, name: str) -> Literal["session"] | Level:
        """Return the table a column lives in: "session", or the level of its unit table."""
        if name in self.sessions.columns:
            return "session"
        for level in self.levels:
            if name in self.units[level].columns:
                return level
        raise DataError(self._absent(name))

    def values(self, name: str) -> np.ndarray:
        """Return a column as float64, shape (n_sessions,), NaN where missing; unit columns are repeated by session.

        Raises
        ------
        DataError
            No such column (near names are suggested), an id column, cells that are not numbers (shown with row and
            id), or codes for missing values.
        """
        if not isinstance(name, str):
            raise DataError(self._absent(name))
        if name == self.roles["session"]:
            return self.session
        if name == self.roles["time"]:
            return self.time
        if name in self.roles.values():
            raise DataError(f"Column '{name}' holds ids, not numbers, and cannot be used as a variable.")
        home = self.home(name)
        column = self.sessions[name] if home == "session" else self.units[home][name]
        if column.dtype == object:
            raise DataError(self._not_numeric(name, column.to_numpy(), home))
        for note in self.notes:
            if note.code == MISSING_CODES and note.column == name:
                raise DataError(f"{note.message} {note.remedy}")
        values = column.to_numpy(dtype=np.float64)
        return values if home == "session" else values[self.codes[home]]

    def where(self, rows: np.ndarray) -> str:
        """Return the lines of the file, or the rows of the table, that some sessions came from, five at most."""
        if self.source_line is not None:
            return f"line {shown_ids(np.sort(self.source_line[rows]).tolist())}"
        return f"row {shown_ids(np.sort(self.source_row[rows]).tolist())} (counted from 0)"

    def varies_at(self, name: str) -> Literal["session"] | Level | None:
        """Return the lowest level at which a column really varies; None where it is constant.

        A column that is constant within every therapist varies at the therapist level, and so on; missing cells
        count as any value.
        """
        values = self.values(name)
        known = ~np.isnan(values)
        if not known.any() or np.ptp(values[known]) == 0:
            return None
        for level in reversed(self.levels):
            if not varies_within(values, self.codes[level], len(self.ids[level])).size:
                return level
        return "session"

    def _absent(self, name: str) -> str:
        message = absent_message(name, self.column_names)
        codes = {note.code for note in self.notes if note.column == name}
        if "column-identifying" in codes:
            return f"{message} It was dropped because it looks like a direct identifier; rename it if not."
        if "column-not-scalar" in codes:
            return f"{message} It was left out because it holds lists, records or bytes: give one number a cell."
        return message

    def _not_numeric(self, name: str, cells: np.ndarray, home: Literal["session"] | Level) -> str:
        bad = np.array([row for row, cell in enumerate(cells) if cell is not None and parse_cell(str(cell)) is None])
        texts = [str(cells[row]) for row in bad]
        if home == "session":
            patients = self.ids["patient"][self.codes["patient"][bad]]
            places = f"{self.where(bad)}, patient {shown_ids(dict.fromkeys(patients.tolist()))}"
        else:
            places = f"{home} {shown_ids(self.ids[home][bad])}"
        return not_numeric_message(f"'{name}'", texts, places, len(bad), len(cells))

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.ids[level])} {level}s" for level in self.levels)
        names = self.column_names
        more = f", ... ({len(names)} in all)" if len(names) > 8 else ""
        return f"SessionData({self.n_sessions} sessions, {counts}; columns: {', '.join(names[:8])}{more})"


def refuse_other_data(data: object) -> None:
    """Raise SpecError where checked data are expected and something else was given."""
    instance(data, SessionData, "data", "checked data, psymech.SessionData.from_frame(table)")


def varies_within(values: np.ndarray, codes: np.ndarray, n_units: int, *, tolerance: float = 0.0) -> np.ndarray:
    """Return the units within which a variable's values differ by more than a tolerance, NaN aside; int64 indices in
    order.
    """
    known = np.flatnonzero(~np.isnan(values))
    low = np.full(n_units, np.inf)
    high = np.full(n_units, -np.inf)
    np.minimum.at(low, codes[known], values[known])
    np.maximum.at(high, codes[known], values[known])
    return np.flatnonzero(high - low > tolerance)
