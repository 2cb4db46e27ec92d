"""Arithmetic that does not depend on how a function was compiled.

PyTensor lets LLVM reorder sums and fuse products (fast-math). The same function then rounds otherwise when it is
optimised alone or within its caller, and which of these copies runs depends on what this process has compiled, and what
it has found on the disk: gradients differ in their last bits, and a chain magnifies that. IEEE arithmetic leaves LLVM
no such choice.
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
    from pytensor import config

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
