"""Any source of a table, file or memory, to the neutral table."""

import re
from collections.abc import Mapping
from errno import EISDIR
from os import PathLike
from pathlib import Path
from typing import Any, Final

from psymech.data.frames import EXPECTED, read_frame
from psymech.data.table import Table
from psymech.data.text_files import read_text_file
from psymech.errors import DataError, shown_id

TEXT_SUFFIXES: Final = (".csv", ".tsv", ".txt")
_PACKED: Final = "Unpack the file first."
_SHEET: Final = "Save the sheet as CSV UTF-8."
ADVICE: Final[Mapping[str, str]] = {
    ".xlsx": _SHEET,
    ".xls": _SHEET,
    ".ods": _SHEET,
    ".gz": _PACKED,
    ".zip": _PACKED,
    ".7z": _PACKED,
    ".dta": "Read it with pandas.read_stata and pass the table, or save it as CSV UTF-8.",
    ".json": "Read it with pandas.read_json and pass the table, or save it as CSV UTF-8.",
    ".rds": "Save the table as CSV UTF-8, in R with write.csv(table, row.names = FALSE).",
    ".rdata": "Save the table as CSV UTF-8, in R with write.csv(table, row.names = FALSE).",
}


def read_table(source: object) -> Table:
    """Return a path (.csv, .tsv, .txt, .parquet, .sav) or an in-memory table as a `Table`.

    Raises
    ------
    DataError
        The file is absent, unreadable, damaged or of another kind, or the object is no table.
    """
    if isinstance(source, Table):
        return source
    if not isinstance(source, (str, PathLike)):
        return read_frame(source)
    _refuse_other_texts(source)
    path = Path(source)  # pyright: ignore[reportArgumentType]
    suffix = path.suffix.lower()
    try:
        return _read_file(path, suffix)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"Cannot read {path.name or 'the file'}: {reason}. Expected {EXPECTED}.") from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"Cannot read the path {shown_id(path.name)}: {error}. Expected {EXPECTED}.") from error


def _read_file(path: Path, suffix: str) -> Table:
    if suffix in TEXT_SUFFIXES:
        return read_text_file(path)
    if suffix == ".parquet":
        return _read_parquet(path)
    if suffix == ".sav":
        return _read_sav(path)
    if path.is_dir():
        raise DataError(f"{path.name or path} is a folder, not a file: name the file in it. Expected {EXPECTED}.")
    advice = ADVICE.get(suffix, "Save the table as CSV UTF-8.")
    raise DataError(f"Cannot read a file of kind '{suffix or path.name}': expected {EXPECTED}. {advice}")


def _refuse_other_texts(source: str | PathLike[Any]) -> None:
    text = str(source)
    if "\n" in text:
        raise DataError(
            f"Expected a path, but got a text of {len(text)} characters in several lines. Save it as a file."
        )
    if re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
        raise DataError("Expected a path, but got an internet address, which is not fetched. Download the file first.")


def _read_parquet(path: Path) -> Table:  # a folder of parts too
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError("Reading .parquet needs pyarrow: install it, or save the table as CSV.") from error
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty (0 bytes).")
    try:
        frame: Any = pq.read_table(path)
    except (pa.ArrowException, ValueError) as error:
        if isinstance(error, OSError) and not path.exists():
            raise
        raise DataError(f"{path.name} is not a complete parquet file. Write it again.") from error
    return read_frame(frame, source=path.name)


def _read_sav(path: Path) -> Table:
    if path.is_dir():
        raise IsADirectoryError(EISDIR, "Is a directory")
    try:
        import pyreadstat
    except ImportError as error:
        raise DataError("Reading .sav needs pyreadstat: install it, or save the table as CSV.") from error
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty (0 bytes).")
    try:
        frame, _ = pyreadstat.read_sav(str(path), user_missing=False)
    except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path.name} is not a complete SPSS file (.sav). Save it again, or as CSV.") from error
    return read_frame(frame, source=path.name)
