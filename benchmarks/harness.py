"""Run cases, each in a process of its own with a time limit, and keep what is measured after every case.

A run that is stopped goes on where it was: a case that has figures in the file is not run again. A case that was not
done in time, could not be run or was not reached says so in its place, and is never guessed.
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
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
RIVALS = ROOT / ".venv-rivals" / "bin" / "python"
LIBRARIES = ("pymc", "pytensor", "nutpie", "numpyro", "blackjax", "jax", "numba", "numpy", "arviz")
SHORTEST = 20.0  # seconds; with less left of the run's time a case is not begun
NOT_REACHED = "not reached in the time of the run"

Case = dict[str, Any]
Figures = dict[str, Any]


def measure(case: Case, *, limit: float, device: str) -> Figures:
    """Run one case and return its figures, or why there are none."""
    if missing := what_is_missing(case):
        return {"not_measured": missing}
    environment = {"PYTENSOR_FLAGS": "blas__ldflags=", "MPLBACKEND": "Agg", **os.environ}
    environment["JAX_PLATFORMS"] = "cuda" if device == "gpu" else "cpu"
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE)])
    process = subprocess.Popen(
        [sys.executable, str(HERE / case["script"]), json.dumps(case | {"limit": limit})],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    begin = time.perf_counter()
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"not_measured": f"not finished in {limit:.0f} s", "limit_seconds": limit}
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode != 0:
        lines = err.strip().splitlines()
        return {"not_measured": f"failed: {lines[-1] if lines else f'exit status {process.returncode}'}"[:300]}
    return json.loads(out.strip().splitlines()[-1]) | {"process_seconds": time.perf_counter() - begin}


def what_is_missing(case: Case) -> str:
    """Say what a case needs and this machine lacks; empty where it can run."""
    if case.get("needs") == "rivals" and not RIVALS.exists():
        return "not installed: benchmarks/install_rivals.sh installs it"
    if package := case.get("r_package"):
        if shutil.which("Rscript") is None:
            return "R is not installed: benchmarks/install_rivals.sh installs it"
        found = subprocess.run(["Rscript", "-e", f"library({package})"], capture_output=True, check=False)
        return "" if found.returncode == 0 else f"R is installed, its package {package} is not"
    return ""


def machine() -> Figures:
    """Describe the machine without naming it."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": model, "cores": usable, "system": platform.system(), "load_before": load()}


def load() -> float:
    """Processes that wanted a core in the last minute."""
    return round(os.getloadavg()[0], 2)


def commit() -> str:
    """The commit that is measured; marked where the library's or the benchmarks' code differs from it."""
    if not shutil.which("git"):
        return "unknown"
    code = [":psymech", ":benchmarks/*.py", ":benchmarks/*.R"]
    name = _git("rev-parse", "--short", "HEAD")
    return (name + ("-dirty" if _git("status", "--porcelain", "--", *code) else "")) or "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of Python, of the libraries that are installed, and the commit that is measured."""
    found = {"python": platform.python_version(), "psymech commit": commit()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def today() -> str:
    """The date, in UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def write(path: Path, result: Figures) -> None:
    """Replace a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def shown(figures: Figures) -> str:
    """The figures of a case that fit on a line of the terminal."""
    if "not_measured" in figures:
        return str(figures["not_measured"])
    parts = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in figures.items()
        if isinstance(value, int | float | str)
    ]
    return ", ".join(parts)


def drive(question: str, make_cases: Callable[[bool, int], Iterable[Case]], about: str) -> None:
    """Run a question's cases from the command line."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny cases: shows that the benchmark runs, not speed")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds allowed for a case")
    parser.add_argument("--minutes", type=float, default=None, help="time of the whole run; then it stops")
    parser.add_argument("--only", default="", help="run only cases whose description contains this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where the JAX samplers run")
    parser.add_argument("--again", action="store_true", help="run cases anew that have figures already")
    parser.add_argument("--out", type=Path, default=None, help=f"by default results/{question}.json; none with --quick")
    asked = parser.parse_args()
    out = asked.out or (None if asked.quick else RESULTS / f"{question}.json")
    end = time.perf_counter() + 60 * asked.minutes if asked.minutes else float("inf")
    before = json.loads(out.read_text(encoding="utf-8"))["cases"] if out is not None and out.exists() else []
    known = {key(row["case"]): row for row in before}
    wanted = list(make_cases(asked.quick, asked.seed))
    rows = {
        key(case): known.get(key(case), {"case": case, "figures": {"not_measured": NOT_REACHED}}) for case in wanted
    }
    about_run = {"date": today(), "machine": machine(), "versions": versions()}
    failed = False
    for case in wanted:
        has = known.get(key(case), {"figures": {"not_measured": NOT_REACHED}})["figures"]
        settled = "not_measured" not in has or has.get("limit_seconds", 0.0) >= asked.limit
        if (settled and not asked.again) or asked.only not in described(case):
            continue
        if case.get("device", asked.device) != asked.device:
            continue
        left = end - time.perf_counter()
        if left < SHORTEST:
            break
        stamp = {"date": today(), "load": load(), "commit": commit()}
        figures = measure(case, limit=min(asked.limit, left), device=asked.device)
        print(f"{described(case)}: {shown(figures)}", flush=True)
        failed |= "failed" in str(figures.get("not_measured", ""))
        rows[key(case)] = {"case": case, "figures": figures, "run": stamp}
        if out is not None:
            write(out, {"question": question, **about_run, "cases": list(rows.values())})
    if out is not None:
        write(out, {"question": question, **about_run, "cases": list(rows.values())})
        print(f"Figures: {out}. As a page: python benchmarks/table.py")
    if asked.quick and failed:
        sys.exit("A case failed.")


def key(case: Case) -> str:
    """What makes a case the same as one measured before."""
    return json.dumps(case, sort_keys=True)


def described(case: Case) -> str:
    """A case in words."""
    return " ".join(str(value) for name, value in case.items() if name not in ("script", "needs", "r_package"))
