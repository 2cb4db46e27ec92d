"""Arithmetic that does not depend on how a function was compiled.

By default PyTensor lets LLVM reorder sums and fuse products (fast-math). The machine code then rounds otherwise in the
process that compiles a function, where each is optimised by itself, than in one that finds it on the disk within its
callers: gradients differed by up to 3e-13 of themselves, and a chain magnifies that. IEEE arithmetic leaves no choice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

_LOCK: Final = Lock()
_BEFORE: Final[list[bool]] = []  # PyTensor's setting as each of those inside found it: threads compile side by side


@contextmanager
def strict_arithmetic() -> Iterator[None]:
    """Let PyTensor compile without fast-math inside; the last to leave puts its setting back."""
    from pytensor.configdefaults import config

    with _LOCK:
        _BEFORE.append(config.numba__fastmath)
        config.numba__fastmath = False
    try:
        yield
    finally:
        with _LOCK:
            before = _BEFORE.pop()
            if not _BEFORE:
                config.numba__fastmath = before
