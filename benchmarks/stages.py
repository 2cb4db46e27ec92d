"""Where does the time of an everyday fit go? Stage by stage, warm, in one process; and starting up.

Run: ``python benchmarks/stages.py [--size medium] [--out benchmarks/results/profile.json]``. Code is compiled by a
first fit, which is not counted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import designs
from harness import HERE, ROOT, commit, load, machine, today, versions, write

ROUNDS = 5
STARTS = 3


def stages(size: designs.Size, seed: int) -> list[dict[str, float]]:
    """Seconds of each stage, for each round."""
    import nutpie

    import psymech as psm
    from psymech.design import make_design
    from psymech.graph.crossing import make_crossing
    from psymech.inference.collapsed import design_target, recover_effects, starting_points, unpack
    from psymech.inference.direct import POINT, compile_target
    from psymech.inference.tree import assemble_tree
    from psymech.priors import choose_priors

    frame, spec = designs.table(size, seed), designs.specification()
    psm.sample(psm.build_model(spec, designs.session_data(frame)), draws=100, tune=100, seed=seed, progressbar=False)
    rounds = []
    for number in range(ROUNDS):
        seconds: dict[str, float] = {}

        def timed(name: str, action: Callable[[], Any], seconds: dict[str, float] = seconds) -> Any:
            begin = time.perf_counter()
            out = action()
            seconds[name] = time.perf_counter() - begin
            return out

        data = timed("check the table", lambda: designs.session_data(frame))
        design = timed("design and its checks", lambda data=data: make_design(spec, data))
        priors = timed("priors", lambda design=design: choose_priors(spec, design))
        crossing = timed("cross-products", lambda d=design, p=priors: make_crossing(d, p))
        target = timed("target", lambda d=design, p=priors, c=crossing: design_target(d, p, c))
        compiled = timed(
            "compiled code", lambda t=target, d=design, p=priors: compile_target(t, starting_points(t, d, p))
        )
        drawn = timed(
            "warm-up and draws",
            lambda c=compiled, n=number: nutpie.sample(
                c, draws=1000, tune=1000, chains=4, cores=2, seed=n, save_warmup=True, progress_bar=False
            ),
        )
        steps = [int(drawn[group]["n_steps"].sum()) for group in ("warmup_sample_stats", "sample_stats")]
        seconds["warm-up (by its share of gradients)"] = seconds["warm-up and draws"] * steps[0] / sum(steps)
        points = drawn["posterior"].dataset[POINT].values
        values = timed("SDs and correlations", lambda d=design, t=target, p=points: unpack(d, t, p))
        values |= timed(
            "drawing the effects", lambda d=design, c=crossing, v=values, n=number: recover_effects(d, c, v, seed=n)
        )
        stats = {name: drawn["sample_stats"][name].values for name in ("diverging", "energy", "n_steps", "depth")}
        tree = timed(
            "conversion to the tree",
            lambda v=values, s=stats, d=design: assemble_tree(v, s, spec=spec, design=d, attrs={}),
        )
        timed("check of the sampling", lambda tree=tree: psm.check_sampling(tree))
        timed("variance shares", lambda tree=tree: psm.variance_partition(tree))
        rounds.append(seconds)
    return rounds


def starting() -> dict[str, Any]:
    """Seconds of the imports and of a newcomer's first fit with compiled code on disk, each in a new process."""

    def run(case: dict[str, Any]) -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, str(HERE / "cases.py"), json.dumps(case)],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])

    fit = {"case": "first_fit", "draws": 1000, "tune": 1000, "seed": 1}
    run(fit)
    imports, fits = [run({"case": "import"}) for _ in range(STARTS)], [run(fit) for _ in range(STARTS)]
    return {
        "import psymech": statistics.median(f["import_seconds"] for f in imports),
        "first use of psm.fit after that": statistics.median(f["first_use_seconds"] for f in imports),
        "new process to fitted tree, warm caches (growth, shipped study)": statistics.median(
            f["from_start_seconds"] for f in fits
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(designs.SIZES), default="medium")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    about = {"date": today(), "machine": machine(), "versions": versions(), "commit": commit(), "load": load()}
    rounds = stages(designs.SIZES[asked.size], asked.seed)
    medians = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    result = about | {
        "size": asked.size,
        "seed": asked.seed,
        "rounds": len(rounds),
        "median_seconds": medians,
        "starting_up": starting(),
    }
    print(json.dumps(result, indent=1))
    if asked.out is not None:
        write(asked.out, result)


if __name__ == "__main__":
    main()
