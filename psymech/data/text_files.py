"""Delimited text files (.csv, .tsv, .txt): every cell is read as text; nothing about the file is guessed silently."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from psymech.data.findings import Finding
from psymech.data.numbers import NUMBER
from psymech.data.table import Column, Table
from psymech.errors import DataError, shown_id, shown_ids

SEPARATORS: Final = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
UNNAMED: Final = re.compile(r"Unnamed: \d+|__index_level_\d+__")
BINARY_STARTS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"PAR1", b"%PDF", b"\x1f\x8b", b"$FL2", b"\x89HDF")
POINT_THOUSANDS: Final = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+", re.ASCII)
MIN_SEPARATORS: Final = 2
MAX_CELL: Final = 1_000_000
SPACE: Final = "\t\r\n"


def read_text_file(path: Path) -> Table:
    """Return a delimited text file as a `Table` of text columns.

    The file must be UTF-8 (with or without a byte order mark) or marked UTF-16, with one header line.  The separator is
    the one that splits the header; any other than the one the file's name promises is noted.

    Raises
    ------
    DataError
        An empty or binary file, another encoding, a NUL byte, a line with too few or too many fields, a quote that is
        never closed, a repeated column name or a header that appears twice.
    """
    name = path.name
    text, encoding_note = _decoded(path.read_bytes(), name)
    separator, text, first_line = _separator(text)
    lines, numbers, blank = _records(text, separator, first_line, name)
    if not lines:
        raise DataError(f"{name} is empty: expected a header line with column names and one row a session.")
    header = [cell.strip().removeprefix("\ufeff") for cell in lines[0]]
    rows, row_lines = lines[1:], numbers[1:]
    _refuse_ragged(header, rows, row_lines, separator, name)
    _refuse_header_again(header, rows, row_lines, name)
    _refuse_one_column(header, separator, name)
    notes = [*encoding_note, *_separator_note(separator, path), *_blank_note(blank)]
    named, unnamed_note = _named_columns(header, rows, name)
    columns: dict[str, Column] = {}
    for place, column_name in named:
        cells = np.empty(len(rows), dtype=object)
        cells[:] = [row[place] for row in rows]
        columns[column_name] = Column(
            column_name, "text", cells, np.array([not row[place].strip() for row in rows], dtype=bool)
        )
    notes += [*unnamed_note, *(_thousands(columns.values()) if separator == ";" else ())]
    return Table(columns, np.array(row_lines, dtype=np.int64), in_file=True, source=name, notes=tuple(notes))


def _decoded(raw: bytes, name: str) -> tuple[str, list[Finding]]:
    if not raw.strip():
        raise DataError(
            f"{name} is empty ({len(raw)} bytes): expected a header line with column names and one row a session."
        )
    if raw.startswith(BINARY_STARTS):
        raise DataError(
            f"{name} is a binary file (a spreadsheet or an archive?), not text. Export the table as CSV in UTF-8."
        )
    if raw.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        raise DataError(f"{name} is in the encoding UTF-32. Save it again as 'CSV UTF-8'.")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            text = raw.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DataError(f"{name} has the encoding mark of UTF-16 but is damaged. Save it as UTF-8.") from error
        _refuse_nul(text, name)
        return text, [
            Finding("note", "file-encoding", "", (), f"{name} has the encoding UTF-16 and was read as such.", "")
        ]
    if raw[:200].count(0) > len(raw[:200]) // 3:
        raise DataError(
            f"{name} holds many NUL bytes: it seems to be in the encoding UTF-16 without its mark. Save it again as "
            "'CSV UTF-8'."
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{name} is not in the encoding UTF-8: byte {raw[error.start]:#04x} on line {line}. It may be Latin-1 or "
            "Windows-1252. Save it again as 'CSV UTF-8', so that names and ids keep their letters."
        ) from error
    _refuse_nul(text, name)
    return text, []


def _refuse_nul(text: str, name: str) -> None:
    if "\x00" in text:
        line = text[: text.index("\x00")].count("\n") + 1
        raise DataError(
            f"{name} holds a NUL byte (a binary control character) on line {line}, which would make a second id that "
            "looks the same. Remove it, or export the file again."
        )


def _separator(text: str) -> tuple[str, str, int]:
    """Return the separator, the text from the header on, and the number of the header's line."""
    first, _, rest = text.partition("\n")
    declared = re.fullmatch(r'"?sep=(.)"?\s*', first)
    if declared:
        return declared.group(1), rest, 2
    outside_quotes = re.sub(r'"[^"]*"', "", first)
    counts = {mark: outside_quotes.count(mark) for mark in SEPARATORS}
    return max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else ",", text, 1


def _separator_note(separator: str, path: Path) -> list[Finding]:
    expected = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())
    if expected is None or separator == expected:
        return []
    found = SEPARATORS.get(separator, repr(separator))
    message = f"{path.name} uses a {found} as separator (delimiter), not a {SEPARATORS[expected]}, and was read so."
    return [Finding("note", "file-separator", "", (), message, "")]


def _records(text: str, separator: str, first_line: int, name: str) -> tuple[list[list[str]], list[int], int]:
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    lines: list[list[str]] = []
    numbers: list[int] = []
    blank = 0
    line = first_line
    try:
        for record in reader:
            if any(cell.strip() for cell in record):
                lines.append(record)
                numbers.append(line)
            else:
                blank += 1 if record else 0
            line = first_line + reader.line_num
    except csv.Error as error:
        raise DataError(
            f"{name} cannot be read as a table from line {line} on: {error}. Look for a quotation mark that is never "
            "closed."
        ) from error
    return lines, numbers, blank


def _blank_note(blank: int) -> list[Finding]:
    message = f"{blank} rows without any value were left out."
    return [Finding("note", "rows-blank", "", (), message, "")] if blank else []


def _refuse_ragged(header: list[str], rows: list[list[str]], lines: list[int], separator: str, name: str) -> None:
    wrong = [(line, len(row)) for line, row in zip(lines, rows, strict=True) if len(row) != len(header)]
    if not wrong:
        return
    line, found = wrong[0]
    others = f" (and {len(wrong) - 1} other lines)" if len(wrong) > 1 else ""
    hint = (
        "Is the separator also the decimal mark, or is a text with a separator not quoted?"
        if found > len(header)
        else ""
    )
    if len(header) == 1:
        hint = "Is there a title or a comment above the header? Remove it."
    elif found == 1 and line == lines[-1]:
        hint = "Is the last line a comment or a footer? Remove it."
    raise DataError(
        f"{name}: line {line} has {found} fields, but the header has {len(header)} columns{others}: "
        f"{'fields are missing' if found < len(header) else 'there are too many fields'} "
        f"(separator: {SEPARATORS.get(separator, repr(separator))}). Complete the line. {hint}".rstrip()
    )


def _refuse_one_column(header: list[str], separator: str, name: str) -> None:
    """Several names in one cell of the header: another separator than expected, or each line in quotes."""
    only = header[0] if len(header) == 1 else ""
    quoted = any(only.count(mark) >= MIN_SEPARATORS for mark in SEPARATORS)
    spaced = len(only.split()) > MIN_SEPARATORS and only[0] not in "#%"
    if quoted or spaced:
        why = "each line stands in quotes" if quoted else "the columns are separated by spaces"
        raise DataError(
            f"{name} has only one column, named {shown_id(only)}: {why}, it seems. Expected "
            f"{', '.join(SEPARATORS.values())} as separator: save it again as CSV."
        )


def _thousands(columns: Iterable[Column]) -> list[Finding]:
    """In a file with semicolons 1.234 may mean 1234."""
    found: list[Finding] = []
    for column in columns:
        pointed = {cell.strip() for cell in column.cells.tolist() if "." in cell}
        if pointed and all(POINT_THOUSANDS.fullmatch(cell) for cell in pointed):
            example = min(pointed)
            message = (
                f"Every cell of column '{column.name}' with a point has three digits behind it, in a file with "
                f"semicolons: {example} was read as a number with decimals, not as {example.replace('.', '')}."
            )
            remedy = "If the points separate thousands, remove them."
            found.append(Finding("warning", "points-thousands", column.name, (), message, remedy))
    return found


def _refuse_header_again(header: list[str], rows: list[list[str]], lines: list[int], name: str) -> None:
    again = [line for line, row in zip(lines, rows, strict=True) if [cell.strip() for cell in row] == header]
    if again:
        raise DataError(
            f"{name}: the header line with the column names is repeated on line {shown_ids(again)}, as when files "
            "are pasted "
            "together. Remove the repeated header."
        )


def _named_columns(header: list[str], rows: list[list[str]], name: str) -> tuple[list[tuple[int, str]], list[Finding]]:
    unnamed = [place for place, title in enumerate(header) if not title or UNNAMED.fullmatch(title)]
    named = [(place, title) for place, title in enumerate(header) if place not in unnamed]
    titles = [title for _, title in named]
    repeated = sorted({title for title in titles if titles.count(title) > 1})
    if repeated:
        hint = " Is the header line with the column names missing?" if NUMBER.fullmatch(repeated[0]) else ""
        raise DataError(
            f"{name}: column names must be distinct, but {shown_id(repeated[0])} is a duplicate. Rename or remove "
            f"one.{hint}"
        )
    filled = [place for place in unnamed if any(row[place].strip() for row in rows)]
    if not filled:
        return named, []
    message = f"{len(filled)} unnamed column (no name in the header) was ignored, as an index column."
    return named, [Finding("note", "column-unnamed", "", (), message, "Name it if it is needed.")]
