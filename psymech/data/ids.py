"""Ids kept exact: integers stay integers, text stays text; what could merge or split people is refused or said."""

import re
import unicodedata
from decimal import Decimal
from typing import Final

import numpy as np

from psymech.data.findings import Finding
from psymech.data.id_likeness import code_ids, doubtful_ids
from psymech.data.table import Column, Table
from psymech.errors import MAX_IDS_IN_MESSAGE, DataError, shown_id, shown_ids

MAX_ID_LENGTH: Final = 200
EXACT_FLOAT: Final = 2**53  # from here on, neighbouring integers share a float
AMBIGUOUS: Final = frozenset(
    {"NA", "N/A", "n/a", "NaN", "nan", "NAN", "-nan", "-NaN", "NULL", "Null", "null", "None", "none", "NONE"}
    | {"<NA>", "#N/A", "#NA", "-", "--", ".", "?", "missing", "Missing", "MISSING"}
)
"""Ids that other programs write for, or read as, a missing cell; they may just as well be somebody's initials."""

MISSING_WORDS: Final = frozenset(
    {"unknown", "not known", "unassigned", "undefined", "not available", "blank", "(blank)", "n.a.", "n.n.", "tbd"}
    | {"unbekannt", "fehlt", "fehlend", "k.a.", "k. a.", "k.a", "keine angabe", "leer", "(leer)", "inconnu"}
    | {"#ref!", "#div/0!", "#value!", "#name?", "#null!", "#num!", "#wert!", "#bezug!", "#zahl!", "#nv"}
)
"""Ids, compared without case, that stand for no unit or for a failed formula of a spreadsheet."""

SCIENTIFIC: Final = re.compile(r"\d\.\d+[eE]\+\d+", re.ASCII)
ROUND_TRIP: Final = re.compile(r"\d+\.0", re.ASCII)
TOTALS: Final = re.compile(
    r"(grand )?(sub)?(total|sum|mean|average|avg|count|n|gesamt|gesamtergebnis|summe|mittelwert)s?:?", re.IGNORECASE
)
SUBTOTAL: Final = re.compile(r"(.+) (total|subtotal|ergebnis|summe)", re.IGNORECASE)
NOT_TOTALS: Final = frozenset({"n", "count", "avg", "sum"})  # initials, as likely as not
SECOND_HEADER: Final = " Is there a second line of names, labels or units under the header? Remove it."
JOINERS: Final = frozenset("\u200c\u200d")  # belong to the spelling of words in several scripts


def read_ids(column: Column, *, role: str, table: Table) -> tuple[np.ndarray, tuple[Finding, ...]]:
    """Return the exact ids of a role column and notes on what was tidied.

    Integers come back as int64 (uint64 where larger), whole floats below 2**53 as int64, text as str with surrounding
    space trimmed and Unicode composed (NFC).  007 and 7 stay two people.

    Parameters
    ----------
    column : Column
    role : str
        "patient", "therapist" or "clinic", for the message.
    table : Table
        Where the rows are.

    Returns
    -------
    ids : ndarray, shape (n_rows,)
        int64, uint64 or object (str).
    notes : tuple of Finding

    Raises
    ------
    DataError
        A missing or ambiguous id, a float that is not exact, a date or a truth value, an id that is too long or holds
        control characters, an id that a spreadsheet has rounded.
    """
    label = f"{role} id (column '{column.name}')"
    if column.kind in ("boolean", "date"):
        what = "true/false values" if column.kind == "boolean" else "dates"
        raise DataError(f"The {label} must be whole numbers or text, but holds {what}. Give each {role} a code.")
    if column.kind == "text":
        return _text_ids(column, role=role, label=label, table=table)
    _refuse_missing(column.missing, role=role, label=label, table=table)
    ids = column.cells if column.kind == "integer" else _whole_floats(column, label=label, table=table)
    numbers = {str(number): number for number in np.unique(ids).tolist()}
    return ids, tuple(code_ids(numbers, role=role, name=column.name))


def _refuse_missing(missing: np.ndarray, *, role: str, label: str, table: Table) -> None:
    rows = np.flatnonzero(missing)
    if rows.size:
        raise DataError(
            f"The {label} is missing (blank) in {rows.size} of {missing.size} rows: {table.where(rows)}."
            f"{_totals_hint(rows, table)} Every session needs its {role}: fill the id in, or remove the row."
        )


def _totals_hint(rows: np.ndarray, table: Table) -> str:
    if table.in_file and rows.tolist() == [0]:
        return SECOND_HEADER
    texts = [column for column in table.columns.values() if column.kind == "text"]
    for row in (int(row) for row in rows):
        cells = [column.cells[row].strip() for column in texts if not column.missing[row]]
        if any(TOTALS.fullmatch(cell) or SUBTOTAL.fullmatch(cell) for cell in cells):
            last = row == table.n_rows - 1
            what = "The last row" if last else f"The row at {table.where([row])}"
            return f" {what} looks like a totals row of a spreadsheet: delete {'it' if last else 'such rows'}."
    return ""


def _whole_floats(column: Column, *, label: str, table: Table) -> np.ndarray:
    cells = column.cells
    rows = np.flatnonzero(~np.isfinite(cells) | (cells != np.floor(cells)))
    if rows.size:
        raise DataError(
            f"The {label} must be whole numbers or text, but {rows.size} ids are not whole numbers, "
            f"as at {table.where(rows)}. Store the ids as text or as integers."
        )
    rows = np.flatnonzero(np.abs(cells) >= EXACT_FLOAT)
    if rows.size:
        raise DataError(
            f"The {label} is stored as floating-point numbers, which are not exact from 2**53 on: {rows.size} ids at "
            f"{table.where(rows)} may have been merged with their neighbours. Read the column as text or as integers "
            "(pandas: dtype='Int64' or str)."
        )
    return cells.astype(np.int64)


def _text_ids(column: Column, *, role: str, label: str, table: Table) -> tuple[np.ndarray, tuple[Finding, ...]]:
    tidy: dict[str | None, str] = {cell: _tidied(cell) for cell in set(column.cells.tolist())}
    ids = np.array([tidy[cell] for cell in column.cells.tolist()], dtype=object)
    _refuse_missing(ids == "", role=role, label=label, table=table)
    distinct = set(tidy.values())
    for tidied in sorted(distinct):
        _refuse_bad_id(tidied, ids, distinct, role=role, label=label, table=table)
    return ids, (*_tidy_notes(tidy, role, column.name), *doubtful_ids(distinct, role=role, name=column.name))


def _tidied(cell: str | None) -> str:
    return "" if cell is None else unicodedata.normalize("NFC", cell.strip())


def _refuse_bad_id(
    label_text: str, ids: np.ndarray, distinct: set[str], *, role: str, label: str, table: Table
) -> None:
    def places() -> str:
        return table.where(np.flatnonzero(ids == label_text))

    if label_text in AMBIGUOUS or label_text.casefold() in MISSING_WORDS:
        raise DataError(
            f"The {label} is '{label_text}' in {int((ids == label_text).sum())} rows ({places()}), which may be a "
            f"missing id or the initials of a real {role}. Leave no id missing; if it is a real {role}, rename it, "
            f"for example to '{label_text}_'."
        )
    if len(label_text) > MAX_ID_LENGTH:
        raise DataError(
            f"The {label} is too long at {places()}: {len(label_text)} characters, at most {MAX_ID_LENGTH} are taken. "
            "Is free text pasted into the id column? Use a short code."
        )
    if any(not character.isprintable() and character not in JOINERS for character in label_text):
        raise DataError(
            f"The {label} {shown_id(label_text)} at {places()} holds a control or non-printable character (such as "
            "NUL), "
            f"which would make a second {role} of the same name. Remove the character."
        )
    if "\ufffd" in label_text:
        raise DataError(
            f"The {label} {shown_id(label_text)} at {places()} holds the mark of a lost letter (U+FFFD): the file was "
            "converted from another encoding, and different ids may have become one. Export the table again as UTF-8."
        )
    if _is_total(label_text, distinct):
        raise DataError(
            f"The {label} is '{label_text}' at {places()}, which looks like a totals row of a spreadsheet. Delete the "
            f"row; if it is a real {role}, rename it, for example to '{label_text}_'."
        )
    if ROUND_TRIP.fullmatch(label_text) and label_text.removesuffix(".0") in distinct:
        raise DataError(
            f"The {label} is '{label_text}' at {places()} and '{label_text.removesuffix('.0')}' in other rows: one "
            f"{role} read once as text and once as a decimal number, it seems. Give the ids one spelling."
        )
    if SCIENTIFIC.fullmatch(label_text):
        raise DataError(
            f"The {label} is '{label_text}' at {places()}: a spreadsheet has rounded a long number to scientific "
            "notation, "
            "and different ids may have become one. Export the column as text."
        )


def _is_total(label_text: str, distinct: set[str]) -> bool:
    under = SUBTOTAL.fullmatch(label_text)
    whole = TOTALS.fullmatch(label_text) is not None and label_text.casefold().rstrip(":") not in NOT_TOTALS
    return whole or (under is not None and under.group(1) in distinct)


def _tidy_notes(tidy: dict[str | None, str], role: str, name: str) -> list[Finding]:
    trimmed = sorted({new for old, new in tidy.items() if old is not None and old != old.strip()})
    composed = sorted({new for old, new in tidy.items() if old is not None and new != old.strip()})
    notes: list[Finding] = []
    for code, labels, what in (
        ("ids-trimmed", trimmed, "had spaces around them, which were trimmed (leading or trailing whitespace)"),
        ("ids-composed", composed, "were written in another Unicode normal form and were composed (NFC)"),
    ):
        if labels:
            message = f"The {role} ids {shown_ids(labels)} (column '{name}') {what}, so that each is one {role}."
            notes.append(Finding("note", code, name, _five(labels), message, ""))
    return notes


def _five(labels: list[str]) -> tuple[str, ...]:
    return tuple(shown_id(label) for label in labels[:MAX_IDS_IN_MESSAGE])


def as_key(label: object) -> str:
    """Return the text by which ids of two tables are matched (7 and '7' match, '007' does not)."""
    if isinstance(label, (float, Decimal)) and label == int(label):
        return str(int(label))
    return str(label)


def factorized(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted unique labels and the int64 index of each row's label."""
    unique, codes = np.unique(labels, return_inverse=True)
    return unique, codes.astype(np.int64)
