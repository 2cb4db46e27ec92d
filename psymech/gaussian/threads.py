"""Work shared out among the processor's cores, for compiled code that lets go of the interpreter."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Final

LEAST_BLOCKS: Final = 12  # of eight draws of every unit: fewer are not worth a thread


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_out(work: Callable[[slice], None], n: int, *, least: int) -> None:
    """Call `work` on slices that cover `n` things, side by side; it fills what belongs to its slice and nothing else.

    A thread is not worth starting for fewer than `least` things.
    """
    parts = max(1, min(available_cores(), n // least))
    edges = [n * part // parts for part in range(parts + 1)]
    slices = [slice(start, stop) for start, stop in pairwise(edges)]
    if parts == 1:
        work(slices[0])
        return
    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(work, slices))
