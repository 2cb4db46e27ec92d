"""Draws shared out among the processor's cores, for compiled code that lets go of the interpreter."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

LEAST = 100  # draws a thread, below which starting one is not worth it


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_draws(work: Callable[[slice], None], n_draws: int) -> None:
    """Call `work` on slices that cover the draws, side by side; it fills what belongs to its slice and nothing else."""
    parts = max(1, min(cores(), n_draws // LEAST))
    edges = [n_draws * part // parts for part in range(parts + 1)]
    slices = [slice(start, stop) for start, stop in pairwise(edges)]
    if parts == 1:
        work(slices[0])
        return
    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(work, slices))
