"""One process at a time in a run's folder."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psymech.errors import DataError
from psymech.inference.run_folder import LOCK_NAME


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; the lock of a process that has died on this machine is taken over.

    Raises
    ------
    DataError
        Another process holds it, or a process of another machine, of which nobody can say whether it lives.
    """
    path = folder / LOCK_NAME
    with _alone(folder):
        _take(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time judge a lock and take it, where the system can see to that.

    Otherwise two that start together could both find the lock of the same dead process, or one half written.
    """
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with suppress(OSError):  # some file systems of other machines know no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _take(path: Path) -> None:
    own = {"pid": os.getpid(), "host": socket.gethostname(), "start": _start(os.getpid()), "since": time.time()}
    for _ in range(2):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            _refuse_living(path)
            path.unlink(missing_ok=True)
            continue
        except OSError as problem:
            raise DataError(f"Cannot write into {path.parent.name!r}: {problem.strerror or problem}.") from problem
        with os.fdopen(handle, "w") as file:
            json.dump(own, file)
        return
    raise DataError(f"{path.parent.name!r} is being taken by another process. Try again when it has ended.")


def _refuse_living(path: Path) -> None:
    try:
        held = json.loads(path.read_text())
        pid, host, start, since = int(held["pid"]), str(held["host"]), held["start"], float(held["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # torn while it was written: its process died there
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(since))
    if host != socket.gethostname():
        raise DataError(
            f"{path.parent.name!r} was taken by process {pid} on {host!r} at {when}. If that run has ended, delete "
            f"{path.name!r} in the folder; two runs at once would spoil it."
        )
    if _lives(pid) and (start is None or _start(pid) == start):
        raise DataError(
            f"{path.parent.name!r} is in use by process {pid} since {when}. Wait until it has ended, or stop it."
        )


def _lives(pid: int) -> bool:
    if os.name == "nt":
        return True  # a signal of 0 would end the process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start(pid: int) -> str | None:
    """When a process began, where the system tells; a number may be given to a new process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None
