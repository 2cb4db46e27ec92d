"""A run with store= in a process of its own, to be killed or interrupted: python -m tests.inference.stored_run."""

import os
import signal
import sys
import warnings
from pathlib import Path

import psymech as psm
from psymech.inference import chains
from psymech.inference.chains import ChainDraws
from psymech.inference.store import Store

SEED = 4
CHAINS = 3


def built(engine: str) -> psm.BuiltModel:
    return psm.build_model(psm.growth("phq9"), psm.load_example("process_study"), engine=engine)  # pyright: ignore[reportArgumentType]


def sample(model: psm.BuiltModel, *, draws: int, store: Path | None = None, n_chains: int = CHAINS):
    return psm.sample(
        model,
        draws=draws,
        tune=200,
        chains=n_chains,
        cores=1,
        seed=SEED,
        effects=["therapist"],
        store=store,
        progressbar=False,
    )


def kill_at_commit(number: int) -> None:
    """Let the process be killed at once after so many blocks of draws."""
    keep, seen = Store.keep, []

    def killing(self: Store, chain: int, draws: ChainDraws, *, last: bool) -> None:
        keep(self, chain, draws, last=last)
        seen.append(chain)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    Store.keep = killing  # pyright: ignore[reportAttributeAccessIssue]


def say_when_sampling_begins() -> None:
    start = chains._start

    def says(*args, **kwargs):
        started = start(*args, **kwargs)
        print("begun", flush=True)
        return started

    chains._start = says


if __name__ == "__main__":
    engine, path, draws, kill_at, seconds = sys.argv[1:]
    Store.__init__.__defaults__ = (float(seconds), *Store.__init__.__defaults__[1:])  # pyright: ignore
    if int(kill_at):
        kill_at_commit(int(kill_at))
    model = built(engine)
    say_when_sampling_begins()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = sample(model, draws=int(draws), store=None if path == "none" else Path(path))
    print(tree.sizes, tree.attrs.get("psymech_interrupted"), psm.check_sampling(tree).verdict)
    print("\n".join(str(each.message) for each in caught), flush=True)
