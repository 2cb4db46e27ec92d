"""Base against head in two worktrees, same seed, in turns: figures and their ratios. Two minutes.

Run: ``make bench-compare BASE=main~5``, or ``python benchmarks/compare.py BASE [HEAD]``. Without HEAD, the working
tree as it stands. The benchmark's own code is that of the working tree for both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import HERE, ROOT, load

TURNS = 3  # the first finds no compiled code of its worktree and tells the time of compiling
ONCE = ("explicit compile s", "explicit gradient us")
BETTER_HIGH = ("ESS per CPU s",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a revision")
    parser.add_argument("head", nargs="?", help="a revision; by default the working tree")
    parser.add_argument("--size", default="medium")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--turns", type=int, default=TURNS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trees = {"base": worktree(Path(folder) / "base", asked.base)}
        trees["head"] = worktree(Path(folder) / "head", asked.head) if asked.head else ROOT
        try:
            found = turns(trees, asked.size, asked.seed, asked.turns, Path(folder))
        finally:
            for path in trees.values():
                if path != ROOT:
                    subprocess.run(["git", "worktree", "remove", "--force", str(path)], cwd=ROOT, check=False)
    print(f"\n{asked.base} against {asked.head or 'the working tree'}, {asked.size}, load {load()}")
    print(f"{'':32s}{'base':>12s}{'head':>12s}{'head / base':>13s}")
    for name, values in summary(found).items():
        base, head = values["base"], values["head"]
        note = " (higher is better)" if name in BETTER_HIGH else ""
        print(f"{name:32s}{base:12.4g}{head:12.4g}{head / base:13.3f}{note}")


def worktree(path: Path, revision: str) -> Path:
    """Check a revision out beside this one."""
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(path), revision], cwd=ROOT, check=True)
    return path


def turns(trees: dict[str, Path], size: str, seed: int, number: int, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Figures of base and head, in turns, so that a change of the machine's load meets both."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for turn in range(number):
        for name, path in trees.items():
            environment = {"PYTENSOR_FLAGS": "blas__ldflags=", "MPLBACKEND": "Agg", **os.environ}
            environment["PYTHONPATH"] = os.pathsep.join([str(path), str(HERE)])
            environment["NUMBA_CACHE_DIR"] = str(folder / f"numba_{name}")
            options = {"size": size, "seed": seed, "explicit": turn == 0}
            done = subprocess.run(
                [sys.executable, str(HERE / "regress.py"), json.dumps(options)],
                capture_output=True,
                text=True,
                cwd=path,
                env=environment,
                check=False,
            )
            if done.returncode != 0:
                sys.exit(f"{name}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"turn {turn + 1} of {number}: {name} done", flush=True)
    return found


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians; compiling is the first turn's, loading compiled code that of the others."""
    rows: dict[str, dict[str, float]] = {}
    for name in found["base"][0]:
        if name not in found["head"][0]:
            continue
        if name == "load or compile s":
            rows["compile s (no code on disk)"] = {side: turns[0][name] for side, turns in found.items()}
            if all(len(turns) > 1 for turns in found.values()):
                rows["load compiled code s"] = {
                    side: statistics.median(t[name] for t in turns[1:]) for side, turns in found.items()
                }
            continue
        rows[name] = {
            side: turns[0][name] if name in ONCE else statistics.median(t[name] for t in turns)
            for side, turns in found.items()
        }
    return rows


if __name__ == "__main__":
    main()
