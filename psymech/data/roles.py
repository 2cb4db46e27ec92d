"""Which column plays which role, and what to say when the column is not there."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from psymech.data.table import Table
from psymech.errors import DataError, shown_ids

SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "patient": ("client", "patient_id", "patientid", "pid", "case", "participant", "subject", "id", "person"),
    "therapist": (
        "therapist_id",
        "therapistid",
        "tid",
        "clinician",
        "counsellor",
        "counselor",
        "practitioner",
        "provider",
    ),
    "clinic": ("clinic_id", "site", "centre", "center", "service", "practice", "hospital"),
    "session": (
        "visit",
        "week",
        "occasion",
        "wave",
        "session_number",
        "session_no",
        "sessionnumber",
        "measurement",
        "time",
    ),
}
CLOSE_ENOUGH: Final = 0.6  # similarity of two names below which a suggestion misleads more than it helps
MAX_NAMES: Final = 5
REQUIRED: Final = ("patient", "session")
TITLE_ROWS: Final = 5
MIN_WIDE: Final = 3  # columns of one stem from which on a table without sessions looks wide


def near_names(name: str, candidates: Iterable[str]) -> list[str]:
    """Return the candidates most like a name, best first.

    >>> near_names("alliance", ["patient", "aliance", "Alliance_"])
    ['Alliance_', 'aliance']
    """
    by_folded: dict[str, str] = {}
    for candidate in candidates:
        by_folded.setdefault(candidate.casefold().strip(), candidate)
    close = difflib.get_close_matches(name.casefold(), by_folded, n=MAX_NAMES, cutoff=CLOSE_ENOUGH)
    inside = [
        key
        for key in by_folded
        if key not in close and len(key) > 2 and (key in name.casefold() or name.casefold() in key)
    ]
    return [by_folded[key] for key in [*close, *inside][:MAX_NAMES]]


def absent_message(name: str, candidates: Iterable[str]) -> str:
    """Return 'There is no column ...' with the nearest names, or else the first names there are."""
    columns = list(candidates)
    if not isinstance(name, str):
        return f"Columns are named by text, but got {name!r}. The columns are: {shown_ids(columns)}."
    near = near_names(name, columns)
    if near and unicodedata.normalize("NFC", near[0]) == unicodedata.normalize("NFC", name):
        return f"There is no column '{name}', but one whose letters have another Unicode form (NFC): rename it."
    if near:
        return f"There is no column '{name}'. Did you mean {', '.join(repr(each) for each in near)}?"
    return f"There is no column '{name}'. The columns are: {shown_ids(columns)}."


def check_roles(table: Table, roles: Mapping[str, str | None]) -> None:
    """Raise DataError unless each role names a column of the table, and no column has two roles.

    Parameters
    ----------
    table : Table
    roles : mapping of role to column name
        Roles that are not used are None.
    """
    for role in REQUIRED:
        if roles.get(role) is None:
            raise DataError(f"The role {role} needs a column: pass {role}= with its name, not None.")
    if not table.columns:
        raise DataError(f"{table.source} has no columns. Expected one row a session with named columns.")
    used = {role: name for role, name in roles.items() if name is not None}
    for role, name in used.items():
        if not isinstance(name, str):
            raise DataError(f"The role {role} expects the name of a column (text), but got {type(name).__name__}.")
        if name not in table.columns:
            raise DataError(_absent_role(role, name, table, used))
    counts = Counter(name for role, name in used.items() if role != "time")
    shared = [name for name, count in counts.items() if count > 1]
    if shared:
        both = " and ".join(role for role, name in used.items() if name == shared[0])
        raise DataError(f"Column '{shared[0]}' is given for {both}. Name a column of its own for each role.")


def _absent_role(role: str, name: str, table: Table, used: Mapping[str, str]) -> str:
    columns = [column for column in table.columns if column not in used.values() or column == name]
    message = f"The role {role} needs a column: {absent_message(name, columns)}"
    folded = {column.casefold().replace(" ", "_"): column for column in columns}
    likely = [folded[synonym] for synonym in SYNONYMS.get(role, ()) if synonym in folded]
    if likely:
        message += f" Perhaps '{likely[0]}' is it: pass {role}='{likely[0]}'."
    message += index_hint(name, table)
    if any(note.code == "column-not-scalar" and note.column == name for note in table.notes):
        return f"The role {role} needs ids or numbers, but column '{name}' holds lists, records or bytes."
    if (row := _names_below(table, used)) is not None:
        message += f" The column names seem to stand on {table.where([row])}: remove what is above them."
    if role == "session":
        message += wide_hint(table)
    if role == "therapist":
        message += " For data without therapists pass therapist=None (two levels)."
    if table.in_file and any(re.fullmatch(r"[+-]?\d+\.?\d*", column) for column in table.columns):
        message += " Is the header line with the column names missing from the file?"
    return message


def index_hint(name: str, table: Table) -> str:
    """Return a sentence where a column that is not there is in the pandas index, else nothing."""
    return " It is in the pandas index: call reset_index() first." if name in table.index_names else ""


def _names_below(table: Table, used: Mapping[str, str]) -> int | None:
    """Return one of the first rows that holds the name of a role's column, as under a title."""
    for row in range(min(table.n_rows, TITLE_ROWS)):
        cells = {column.shown(row).strip() for column in table.columns.values()}
        if cells & set(used.values()):
            return row
    return None


def wide_hint(table: Table) -> str:
    """Return a sentence on reshaping where the table has one column a session (phq9_1, phq9_2, ...), else nothing."""
    stems = Counter(match.group(1) for name in table.columns if (match := re.fullmatch(r"(.*\D)\d{1,3}", name)))
    stem, count = stems.most_common(1)[0] if stems else ("", 0)
    if count < MIN_WIDE:
        return ""
    return (
        f" The table looks wide, one row a patient ({count} columns '{stem}...'): reshape it to long, one row a "
        f"session, with psm.read_wide(table, measures={{'{stem.rstrip('_. ')}': '{stem}{{session}}'}})."
    )
