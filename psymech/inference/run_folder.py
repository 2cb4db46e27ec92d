"""Telling the folder of a run that has not come to its end from a saved fit; it loads nothing."""

from pathlib import Path
from typing import Final

JOURNAL_NAME: Final = "journal"
MODEL_NAME: Final = "model.npz"
LOCK_NAME: Final = "lock.json"


def is_run(path: Path) -> bool:
    """Return whether a path is such a folder."""
    return path.is_dir() and any((path / name).is_file() for name in (JOURNAL_NAME, LOCK_NAME, f".{MODEL_NAME}.part"))
