"""Compiled code on disk: one cache file for each function and each set of sizes."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def digest_of(*files: str) -> str:
    """Return a digest of source files, to be part of the key of compiled code that is made of all of them.

    numba looks at the time of one file, that of the compiled function, to tell whether its code on disk is stale.
    """
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:16]


def own_cache(function: Callable[..., Any], *key: object) -> Callable[..., Any]:
    """Return the function under a name of its own for this key, to be compiled with ``cache=True``.

    numba numbers the variants of one function in one index. Two processes that compile different variants at the same
    time can take the same number, and then one of them would later run the other's code. With a name for each variant
    they share nothing.
    """
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    function.__qualname__ = f"{function.__qualname__}_{digest}"
    return function
