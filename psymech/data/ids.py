"""Ids kept exact: integers stay integers, text stays text; what could merge or split people is refused or said."""

import re
import unicodedata
from collections import defaultdict
from decimal import Decimal
from typing import Final

import numpy as np

from psymech.data.findings import Finding
from psymech.data.table import Column, Table
from psymech.errors import MAX_IDS_IN_MESSAGE, DataError, shown_id, shown_ids

MAX_ID_LENGTH: Final = 200
EXACT_FLOAT: Final = 2**53  # from here on, neighbouring integers share a float
AMBIGUOUS: Final = frozenset(
    {"NA", "N/A", "n/a", "NaN", "nan", "NAN", "-nan", "-NaN", "NULL", "Null", "null", "None", "none", "NONE"}
    | {"<NA>", "#N/A", "#NA", "-", "--", ".", "?", "missing", "Missing", "MISSING"}
)
"""Ids that other programs write for, or read as, a missing cell; they may just as well be somebody's initials."""

SCIENTIFIC: Final = re.compile(r"\d\.\d+[eE]\+\d+", re.ASCII)
TOTALS: Final = re.compile(
    r"(grand )?(sub)?(total|sum|mean|average|avg|count|n|gesamt|summe|mittelwert)s?:?", re.IGNORECASE
)
_CYRILLIC_GREEK: Final = "АВЕКМНОРСТУХаеорсухіјѕԁԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧο"
_LATIN: Final = "ABEKMHOPCTYXaeopcyxijsdqwABEZHIKMNOPTYXo"
LOOK_ALIKES: Final = str.maketrans(_CYRILLIC_GREEK, _LATIN)  # letters that are printed as Latin ones are
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
    if column.kind == "integer":
        return column.cells, ()
    return _whole_floats(column, label=label, table=table), ()


def _refuse_missing(missing: np.ndarray, *, role: str, label: str, table: Table) -> None:
    rows = np.flatnonzero(missing)
    if rows.size:
        raise DataError(
            f"The {label} is missing (blank) in {rows.size} of {missing.size} rows: {table.where(rows)}."
            f"{_totals_hint(rows, table)} Every session needs its {role}: fill the id in, or remove the row."
        )


def _totals_hint(rows: np.ndarray, table: Table) -> str:
    row = int(rows[-1])
    if row != table.n_rows - 1:
        return ""
    for column in table.columns.values():
        if column.kind == "text" and not column.missing[row] and TOTALS.fullmatch(column.cells[row].strip()):
            return " The last row looks like a totals row of a spreadsheet: delete it."
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
    for tidied in sorted(set(tidy.values())):
        _refuse_bad_id(tidied, ids, role=role, label=label, table=table)
    return ids, (*_tidy_notes(tidy, role, column.name), *_near_duplicates(set(tidy.values()), role, column.name))


def _tidied(cell: str | None) -> str:
    return "" if cell is None else unicodedata.normalize("NFC", cell.strip())


def _refuse_bad_id(label_text: str, ids: np.ndarray, *, role: str, label: str, table: Table) -> None:
    def places() -> str:
        return table.where(np.flatnonzero(ids == label_text))

    if label_text in AMBIGUOUS:
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
    if SCIENTIFIC.fullmatch(label_text):
        raise DataError(
            f"The {label} is '{label_text}' at {places()}: a spreadsheet has rounded a long number to scientific "
            "notation, "
            "and different ids may have become one. Export the column as text."
        )


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


def _near_duplicates(labels: set[str], role: str, name: str) -> list[Finding]:
    by_case: defaultdict[str, list[str]] = defaultdict(list)
    by_number: defaultdict[str, list[str]] = defaultdict(list)
    by_looks: defaultdict[str, list[str]] = defaultdict(list)
    for label in sorted(labels):
        by_looks[unicodedata.normalize("NFKC", label).translate(LOOK_ALIKES)].append(label)
        by_case[" ".join(label.casefold().split())].append(label)
        number = label.removesuffix(".0")
        if number.isascii() and number.isdigit():
            by_number[number.lstrip("0")].append(label)
    found: list[Finding] = []
    for severity, code, groups, what in (
        ("warning", "ids-differ-by-case", by_case, "differ only in upper and lower case or in spaces"),
        ("warning", "ids-look-alike", by_looks, "look alike but are written with letters of different alphabets"),
        ("note", "ids-differ-by-zeros", by_number, "differ only in leading zeros or a trailing .0"),
    ):
        alike = [group for group in groups.values() if len(group) > 1]
        if alike:
            pairs = "; ".join(
                " and ".join(shown_id(label) for label in group[:2]) for group in alike[:MAX_IDS_IN_MESSAGE]
            )
            message = f"Some {role} ids (column '{name}') {what} and are kept as different: {pairs}."
            remedy = f"If they are one {role}, give them one spelling."
            found.append(Finding(severity, code, name, _five([group[0] for group in alike]), message, remedy))  # pyright: ignore[reportArgumentType]
    return found


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
