"""Stages of a fit: told to the user as they begin, timed as they end."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds per stage, in the order in which they ran; with `show`, a line on standard error for each."""

    show: bool = True
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, doing: str) -> Iterator[None]:
        """Time what happens inside under ``<name>_seconds``."""
        self.tell(f"{doing} ...")
        start = time.perf_counter()
        try:
            yield
        finally:
            key = f"{name}_seconds"
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - start

    def tell(self, text: str) -> None:
        """Show one line, where lines are wanted."""
        if self.show:
            print(f"psymech: {text}", file=sys.stderr, flush=True)

    def progress(self, text: str) -> None:
        """Replace the last line of progress, on a terminal or in a notebook; a file would only grow by it."""
        if self.show and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            print(f"\rpsymech: {text:<78}", end="", file=sys.stderr, flush=True)

    def end_progress(self) -> None:
        """Go on below the line of progress."""
        if self.show and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            print(file=sys.stderr, flush=True)
