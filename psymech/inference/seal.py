"""Checksums of the bytes on disk, checked before any library parses them: netCDF's may crash on a damaged file."""

import hashlib
from pathlib import Path
from typing import Final

from psymech.errors import DataError, shown_ids

SEAL: Final = b"\npsymech sha256 "  # with the SHA-256 of all bytes before it, the end of a .nc file
SEAL_BYTES: Final = len(SEAL) + 64
READ_BYTES: Final = 2**20
LIST_NAME: Final = (
    ".psymech.sha256"  # in a .zarr folder: SHA-256 and name of every file, as sha256sum writes and reads it
)
REMEDY: Final = "Take a copy that is whole, or fit again."


def seal(path: Path) -> None:
    """Append its checksum to a file; write the list of its files' checksums into a folder."""
    if path.is_dir():
        lines = [f"{digest}  {name}\n" for name, digest in _files(path).items()]
        (path / LIST_NAME).write_text("".join(lines), encoding="utf-8")
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with path.open("ab") as file:
        file.write(SEAL + digest.encode())


def check_seal(path: Path) -> None:
    """Raise DataError unless the bytes are those that were sealed."""
    if path.is_dir():
        _check_folder(path)
    else:
        _check_file(path)


def _check_file(path: Path) -> None:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = max(0, size - SEAL_BYTES)
        while piece := file.read(min(left, READ_BYTES)):
            digest.update(piece)
            left -= len(piece)
        end = file.read()
    if not end.startswith(SEAL):
        raise DataError(
            f"{path.name!r} is not a complete psymech fit: the end that psymech.save writes is missing ({size} bytes "
            f"found). It was cut off, or changed by another program, or it never was a fit. {REMEDY}"
        )
    if end[len(SEAL) :] != digest.hexdigest().encode():
        raise DataError(
            f"{path.name!r} is damaged: its checksum (sha256) differs from the one it was saved with. {REMEDY}"
        )


def _check_folder(path: Path) -> None:
    try:
        text = (path / LIST_NAME).read_text(encoding="utf-8")
        expected = {name: digest for digest, name in (line.split("  ", 1) for line in text.splitlines())}
    except FileNotFoundError as problem:
        raise DataError(
            f"{path.name!r} is not a complete psymech fit: the list {LIST_NAME!r} that psymech.save writes is missing. "
            f"Files were left out of the copy, or it never was a fit. {REMEDY}"
        ) from problem
    except ValueError as problem:  # no UTF-8, or no such line
        raise DataError(f"{path.name!r} is damaged: its list {LIST_NAME!r} cannot be read. {REMEDY}") from problem
    found = _files(path)
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise DataError(f"{path.name!r} is not a complete psymech fit: {shown_ids(missing)} missing. {REMEDY}")
    wrong = sorted(name for name in found if expected.get(name) != found[name])
    if wrong:
        raise DataError(
            f"{path.name!r} is damaged: the checksum (sha256) of {shown_ids(wrong)} differs from the one it was saved "
            f"with. {REMEDY}"
        )


def _files(path: Path) -> dict[str, str]:
    digests = {}
    for each in sorted(path.rglob("*")):
        if each.is_file() and each.name != LIST_NAME:
            with each.open("rb") as file:
                digests[each.relative_to(path).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
