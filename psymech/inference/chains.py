"""Chains of nutpie, each a sampler of its own: a chain depends on the seed and its number, not on the others.

So a chain that a stopped run has finished need not be run again, and Ctrl-C leaves what was drawn.
"""

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech.inference.stages import Stages
from psymech.names import LEVELS

Arrays = dict[str, NDArray]

LOOK_SECONDS: Final = 0.05  # between looks at a running chain
PROGRESS_SECONDS: Final = 0.5
KEPT_STATS: Final = (
    "diverging",
    "energy",
    "n_steps",
    "step_size",
    "depth",
    "maxdepth_reached",
    "logp",
    "mean_tree_accept",
)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What every sampler is told."""

    draws: int
    tune: int
    chains: int
    cores: int
    seed: int
    target_accept: float
    max_treedepth: int
    progressbar: bool
    effects: tuple[str, ...] = LEVELS


@dataclass(frozen=True, slots=True)
class ChainDraws:
    """What one chain has drawn: variables (draw, ...) and statistics (draw)."""

    values: Arrays
    stats: Arrays

    @property
    def n(self) -> int:
        """Number of draws."""
        return len(next(iter(self.stats.values()))) if self.stats else 0

    def part(self, first: int, last: int) -> "ChainDraws":
        """Return the draws from `first` up to `last`."""
        return ChainDraws(
            {name: array[first:last] for name, array in self.values.items()},
            {name: array[first:last] for name, array in self.stats.items()},
        )


class Keeper(Protocol):
    """Where chains are kept while they run."""

    def finished(self) -> Mapping[int, ChainDraws]:
        """Return the chains that are there already."""
        ...

    def due(self) -> bool:
        """Return whether running chains should be kept now."""
        ...

    def keep(self, chain: int, draws: ChainDraws, *, last: bool) -> None:
        """Keep a chain's draws so far."""
        ...


@dataclass(frozen=True, slots=True)
class Drawn:
    """Draws of all chains.

    Attributes
    ----------
    values, stats : each (chain, draw, ...).
    made : how many draws each chain made; where a run was interrupted these differ, and `kept` of them are in `values`.
    kept : the chains in `values`.
    """

    values: Arrays
    stats: Arrays
    made: tuple[int, ...]
    kept: tuple[int, ...]


def chain_seed(seed: int, chain: int) -> int:
    """Seed of a chain, from the run's seed and the chain's number."""
    return int(np.random.SeedSequence([seed, chain]).generate_state(1, np.uint64)[0])


def sample_chains(compiled: Any, options: RunOptions, stages: Stages, keeper: Keeper | None = None) -> Drawn:
    """Run the chains that are not there yet, at most ``options.cores`` at once.

    The first Ctrl-C ends the chains and keeps what they have drawn; a second one raises KeyboardInterrupt, as does the
    first where no chain has left its warm-up.
    """
    found: dict[int, ChainDraws] = {} if keeper is None else dict(keeper.finished())
    waiting = [k for k in range(options.chains) if k not in found]
    running: dict[int, Any] = {}
    progress = _Progress(stages, wanted=options.progressbar, total=len(waiting) * (options.tune + options.draws))
    try:
        with _interrupts() as interrupted:
            while (waiting or running) and not interrupted():
                while waiting and len(running) < options.cores:
                    k = waiting.pop(0)
                    running[k] = _start(compiled, options, k, progress.report(k))
                for k, sampler in list(running.items()):
                    whole = _if_finished(sampler)
                    if whole is not None:
                        del running[k]
                        found[k] = whole
                        if keeper is not None:
                            keeper.keep(k, whole, last=True)
                if keeper is not None and running and keeper.due():
                    for k, sampler in running.items():
                        keeper.keep(k, _quietly(sampler.inspect), last=False)
                progress.show()
            for k in list(running) if interrupted() else ():
                found[k] = _quietly(running.pop(k).abort)
                if keeper is not None:
                    keeper.keep(k, found[k], last=found[k].n == options.draws)
    finally:
        for sampler in running.values():
            sampler.cancel()
        progress.end()
    return together([found.get(k) for k in range(options.chains)])


def together(chains: list[ChainDraws | None]) -> Drawn:
    """Put chains side by side. Where they differ in length, the chains and the length that keep most draws are taken.

    Raises
    ------
    KeyboardInterrupt
        There is no draw at all.
    """
    made = tuple(0 if chain is None else chain.n for chain in chains)
    kept, n = largest_block(made)
    if n == 0:
        raise KeyboardInterrupt
    parts = [chain.part(0, n) for k in kept if (chain := chains[k]) is not None]
    return Drawn(
        {name: np.stack([part.values[name] for part in parts]) for name in parts[0].values},
        {name: np.stack([part.stats[name] for part in parts]) for name in parts[0].stats},
        made,
        kept,
    )


def largest_block(made: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return the chains, and the number of draws of each, that hold most draws in all.

    >>> largest_block((1000, 1000, 900, 3))
    ((0, 1, 2), 900)
    """
    longest_first = sorted(set(made), reverse=True)
    n = max(longest_first, key=lambda n: n * sum(m >= n for m in made))
    return tuple(k for k, m in enumerate(made) if m >= n > 0), n


def _start(compiled: Any, options: RunOptions, chain: int, report: Callable[..., None] | None) -> Any:
    import nutpie

    return nutpie.sample(
        compiled,
        draws=options.draws,
        tune=options.tune,
        chains=1,
        cores=1,
        seed=chain_seed(options.seed, chain),
        target_accept=options.target_accept,
        maxdepth=options.max_treedepth,
        save_warmup=False,
        progress_bar=False,
        progress_callback=report,
        blocking=False,
    )


def _if_finished(sampler: Any) -> ChainDraws | None:
    try:
        return _quietly(lambda: sampler.wait(timeout=LOOK_SECONDS))
    except TimeoutError:
        return None


def _quietly(get: Callable[[], xr.DataTree]) -> ChainDraws:
    """Read a sampler's draws; of few draws ArviZ warns that there may be a mix-up of dims, which there is not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found chain dimension to be longer than draw dimension")
        tree = get()
    if "posterior" not in tree.children:
        return ChainDraws({}, {})
    posterior, stats = tree["posterior"].dataset, tree["sample_stats"].dataset
    values = {str(name): array.transpose("chain", "draw", ...).values[0] for name, array in posterior.items()}
    return ChainDraws(values, {name: stats[name].transpose("chain", "draw").values[0] for name in KEPT_STATS})


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C was pressed; a second Ctrl-C raises KeyboardInterrupt at once."""
    pressed: list[int] = []

    def note(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.getsignal(signal.SIGINT)
    mine = threading.current_thread() is threading.main_thread() and before not in (signal.SIG_IGN, None)
    if mine:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        if mine:
            signal.signal(signal.SIGINT, before)


class _Progress:
    """One line on all chains, where it is wanted."""

    def __init__(self, stages: Stages, *, wanted: bool, total: int) -> None:
        self._stages = stages
        self._wanted = wanted and stages.show
        self._total = total
        self._chains: dict[int, tuple[int, int]] = {}
        self._shown = self._begin = time.monotonic()
        self._line = False

    def report(self, chain: int) -> Callable[..., None] | None:
        """Return what nutpie calls, from a thread of its own, with a chain's progress."""
        if not self._wanted:
            return None

        def take(progress: list[Any]) -> None:
            self._chains[chain] = (int(progress[0].finished_draws), int(progress[0].divergences))

        return take

    def show(self) -> None:
        now = time.monotonic()
        if not self._chains or now - self._shown < PROGRESS_SECONDS:
            return
        self._shown, self._line = now, True
        chains = list(self._chains.values())
        done, diverging = sum(n for n, _ in chains), sum(n for _, n in chains)
        left = (now - self._begin) * (self._total - done) / max(done, 1)
        self._stages.progress(
            f"{done:,} of {self._total:,} draws with warm-up, {diverging} divergences, about {left:.0f} s left"
        )

    def end(self) -> None:
        if self._line:
            self._stages.end_progress()
