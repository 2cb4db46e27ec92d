"""Any source of a table, file or memory, to the neutral table."""

from os import PathLike
from pathlib import Path
from typing import Any

from psymech.data.frames import EXPECTED, read_frame
from psymech.data.table import Table
from psymech.data.text_files import read_text_file
from psymech.errors import DataError, shown_id

TEXT_SUFFIXES = (".csv", ".tsv", ".txt")


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
    advice = " Save the sheet as CSV UTF-8." if suffix in (".xlsx", ".xls", ".ods") else ""
    raise DataError(f"Cannot read a file of kind '{suffix or path.name}': expected {EXPECTED}.{advice}")


def _read_parquet(path: Path) -> Table:
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
