"""Measure psymech and its neighbours side by side: every case in a fresh process, one after the other.

Run: ``make bench``, or ``python benchmarks/run.py [--quick] [--only samplers,lme4] [--limit 900] [--out FILE]``.
A case that is not done in time is recorded as such. The figures go to ``benchmarks/results`` as JSON, and from there
into ``docs/benchmarks.md`` (``python benchmarks/table.py``).
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DEFAULT_OUT = HERE / "results" / "full.json"
GROUPS = ("samplers", "hand_written", "lme4", "brms", "growth_of_cost", "large", "startup")
LIBRARIES = ("pymc", "pytensor", "nutpie", "numpyro", "blackjax", "jax", "numba", "numpy", "arviz")
SAMPLERS = (
    ("collapsed", "nutpie"),
    ("explicit", "nutpie"),
    ("explicit", "pymc"),
    ("explicit", "numpyro"),
    ("explicit", "blackjax"),
)
IMPORTS = 5

Case = dict[str, Any]


def cases(groups: list[str], *, quick: bool, seed: int) -> Iterator[Case]:
    """Yield the cases of the groups asked for, in the order in which they run."""
    run = {"draws": 50, "tune": 100, "chains": 2} if quick else {"draws": 1000, "tune": 1000, "chains": 4}
    sizes = ("tiny",) if quick else ("small", "medium")
    for size in sizes:
        common = {"size": size, "seed": seed, **run}
        if "samplers" in groups:
            for engine, sampler in SAMPLERS[:2] if quick else SAMPLERS:
                yield {"group": "samplers", "case": "fit", "engine": engine, "sampler": sampler, **common}
        if "hand_written" in groups and not quick:
            yield {"group": "hand_written", "case": "hand_written", **common}
        if "lme4" in groups:
            yield {"group": "lme4", "case": "lme4", "size": size, "seed": seed}
    if "brms" in groups and not quick:
        yield {"group": "brms", "case": "brms", "size": "small", "seed": seed, **run}
    if "growth_of_cost" in groups:
        grid = {"therapists": 8, "patients": 5, "sessions": [5, 10], "rounds": 2, "calls": 20}
        full = {"therapists": 60, "patients": 15, "sessions": [5, 10, 20, 40, 80], "rounds": 20, "calls": 100}
        yield {"group": "growth_of_cost", "case": "growth_of_cost", "seed": seed, **(grid if quick else full)}
    if "large" in groups and not quick:
        large = {"size": "large", "seed": seed, "draws": 500, "tune": 500, "chains": 4}
        yield {"group": "large", "case": "fit", "engine": "collapsed", "sampler": "nutpie", **large}
        yield {"group": "large", "case": "lme4", "size": "large", "seed": seed}
    if "startup" in groups:
        for _ in range(1 if quick else IMPORTS):
            yield {"group": "startup", "case": "import"}
        for cache in () if quick else ("cold", "warm"):
            yield {"group": "startup", "case": "first_fit", "cache": cache, "seed": seed, "draws": 1000, "tune": 1000}


def measure(case: Case, *, limit: float, caches: Path) -> dict[str, Any]:
    """Run one case and return its figures, or why there are none."""
    if case["case"] in ("lme4", "brms") and (missing := missing_in_r(case["case"])):
        return {"not_measured": missing}
    environment = {"PYTENSOR_FLAGS": "blas__ldflags=", **os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if "cache" in case:
        environment["PYTENSOR_FLAGS"] += f",base_compiledir={caches / 'pytensor'}"
        environment["NUMBA_CACHE_DIR"] = str(caches / "numba")
    process = subprocess.Popen(
        [sys.executable, str(HERE / "cases.py"), json.dumps(case)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"not_measured": f"not finished in {limit:g} s"}
    if process.returncode != 0:
        lines = err.strip().splitlines()
        return {"not_measured": f"failed: {lines[-1] if lines else f'exit status {process.returncode}'}"[:300]}
    return json.loads(out.strip().splitlines()[-1])


def missing_in_r(package: str) -> str:
    """Say why an R package cannot be measured; empty where it can."""
    if shutil.which("Rscript") is None:
        return "R is not installed"
    found = subprocess.run(["Rscript", "-e", f"library({package})"], capture_output=True, check=False)
    return "" if found.returncode == 0 else f"R is installed, its package {package} is not"


def machine() -> dict[str, Any]:
    """Describe the machine without naming it."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": model, "cores": usable, "system": platform.system(), "load_before": round(os.getloadavg()[0], 2)}


def versions() -> dict[str, str]:
    """Versions of Python, of the libraries that are installed, and the commit that is measured."""
    found = {"python": platform.python_version()}
    if shutil.which("git"):
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        found["psymech commit"] = commit.stdout.strip() or "unknown"
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def shown(case: Case, figures: dict[str, Any]) -> str:
    """One line for the terminal."""
    what = " ".join(str(case[key]) for key in ("group", "case", "size", "engine", "sampler", "cache") if key in case)
    if "not_measured" in figures:
        return f"{what}: {figures['not_measured']}"
    keys = [
        "compile_seconds",
        "sampling_seconds",
        "recover_seconds",
        "min_ess",
        "min_ess_per_cpu_second",
        "wall_seconds",
        "import_seconds",
        "from_start_seconds",
        "microseconds",
    ]
    parts = [
        f"{key} {figures[key]:.3g}" if isinstance(figures[key], float) else f"{key} {figures[key]}"
        for key in keys
        if key in figures
    ]
    return f"{what}: {', '.join(parts)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a tiny design and few cases: shows that the benchmark runs"
    )
    parser.add_argument("--only", default=",".join(GROUPS), help=f"groups, of {', '.join(GROUPS)}")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds allowed for a case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=None, help="where to; by default results/full.json, nowhere with --quick"
    )
    asked = parser.parse_args()
    groups = asked.only.split(",")
    if unknown := sorted(set(groups) - set(GROUPS)):
        parser.error(f"--only: expected groups of {', '.join(GROUPS)}, found {', '.join(unknown)}")
    out = asked.out or (None if asked.quick else DEFAULT_OUT)
    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "quick": asked.quick,
        "seed": asked.seed,
        "limit_seconds": asked.limit,
        "machine": machine(),
        "versions": versions(),
        "cases": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(groups, quick=asked.quick, seed=asked.seed):
            figures = measure(case, limit=asked.limit, caches=Path(folder))
            print(shown(case, figures), flush=True)
            result["cases"].append({"case": case, "figures": figures})
            if out is not None:  # after every case, so that an interrupted run keeps what it has
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if out is not None:
        print(f"Figures: {out}. As tables: python benchmarks/table.py {out}")
    if asked.quick and any("failed" in row["figures"].get("not_measured", "") for row in result["cases"]):
        sys.exit("A case failed.")


if __name__ == "__main__":
    main()
