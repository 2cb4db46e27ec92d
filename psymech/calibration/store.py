"""Finished fits of a calibration run on disk: a journal that a kill cannot harm."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psymech.errors import DataError
from psymech.inference.store_lock import locked

RUN = "run.json"
FITS = "fits.jsonl"
Record = dict[str, Any]


@contextmanager
def journal_of(folder: str | Path, identity: Mapping[str, object]) -> Iterator["Journal"]:
    """Give a run's journal, which is this process's alone while it lasts."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        yield Journal(path, identity)


class Journal:
    """A folder with what the run is (``run.json``) and one line a finished fit (``fits.jsonl``).

    A line carries a checksum and is on the disk before the next fit is reported; one that was cut off is ignored, and
    its fit is made again.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, object]) -> None:
        self._folder = Path(folder)
        path = self._folder / RUN
        if path.exists():
            _refuse_another_run(self._folder, json.loads(path.read_text(encoding="utf-8")), identity)
        else:
            temporary = path.with_name(f".{RUN}.{os.getpid()}")
            _write(temporary, json.dumps(identity, indent=1, ensure_ascii=False) + "\n", "w")
            os.replace(temporary, path)
        fits = self._folder / FITS
        if fits.exists() and fits.stat().st_size and fits.read_bytes()[-1:] != b"\n":
            _write(fits, "\n", "a")  # ends the line that a kill cut off

    def finished(self) -> dict[int, Record]:
        """Return the fits that are there, by the number of their simulation."""
        path = self._folder / FITS
        found: dict[int, Record] = {}
        if not path.exists():
            return found
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            digest, _, text = line.partition(" ")
            if digest == _digest(text):
                record = json.loads(text)
                found.setdefault(int(record["simulation"]), record)
        return found

    def add(self, record: Record) -> None:
        """Append a finished fit."""
        text = json.dumps(record)
        _write(self._folder / FITS, f"{_digest(text)} {text}\n", "a")


def _write(path: Path, text: str, mode: str) -> None:
    with open(path, mode, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _refuse_another_run(folder: Path, stored: Mapping[str, object], identity: Mapping[str, object]) -> None:
    plain = json.loads(json.dumps(identity))
    differing = sorted(key for key in {*stored, *plain} if stored.get(key) != plain.get(key))
    if differing:
        raise DataError(
            f"The folder {folder.name!r} holds fits of another run: {', '.join(differing)} differ"
            f"{'s' if len(differing) == 1 else ''}. Name another folder, or repeat that run's call."
        )
