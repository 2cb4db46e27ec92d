"""Compiled code on disk: one cache file for each function and each set of sizes."""

import hashlib
from collections.abc import Callable
from typing import Any


def own_cache(function: Callable[..., Any], *key: object) -> Callable[..., Any]:
    """Return the function under a name of its own for this key, to be compiled with ``cache=True``.

    numba numbers the variants of one function in one index. Two processes that compile different variants at the same
    time can take the same number, and then one of them would later run the other's code. With a name for each variant
    they share nothing.
    """
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    function.__qualname__ = f"{function.__qualname__}_{digest}"
    return function
