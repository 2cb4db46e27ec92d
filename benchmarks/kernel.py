"""Time one value and gradient of the compiled engine: microseconds of CPU time per patient, on one core.

Run: python benchmarks/kernel.py [--out kernel.json]. Designs have four random columns at both levels, which are also
the fixed effects, and one residual SD. Also timed: patients spread unevenly over therapists, other shapes, more
sessions at equal patients, and the first call in a new process with an empty and a filled cache on disk.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np

from psymech.gaussian.cross import CrossProducts, cross_products
from psymech.gaussian.kernels_numba import BoundKernel, bind
from psymech.gaussian.loglik import value_and_grad

BUDGET_SECONDS = 1.0  # for each timing
Q = 4


def design(caseloads: np.ndarray, sessions: int, *, q: int = Q, extra: int = 0, groups: int = 1) -> CrossProducts:
    """Return a design with the given patients for each therapist."""
    rng = np.random.default_rng(1)
    n = int(caseloads.sum())
    unit = np.repeat(np.arange(n), sessions)
    columns = np.column_stack([np.ones(unit.size), rng.normal(size=(unit.size, q + extra - 1))])
    terms = None
    if groups > 1:
        from psymech.gaussian.residual import ByGroup

        terms = ByGroup(np.arange(unit.size) % groups).terms()
    parents = [np.repeat(np.arange(caseloads.size), caseloads)]
    fixed = np.arange(q + extra)
    return cross_products(columns, rng.normal(size=unit.size) + 5, unit, parents, [np.arange(q)] * 2, fixed, terms)


def call(bound: BoundKernel) -> Callable[[], Any]:
    """Return the bare compiled call."""
    rng = np.random.default_rng(2)
    factors = tuple(np.tril(rng.normal(size=(q, q)) * 0.3) + np.eye(q) * 0.5 for q in bound.shape.q)
    p, layout = bound.shape.p, bound.layout
    coefs, center, precision = np.full(bound.shape.n_coef, 0.3), np.zeros(p), np.eye(p) * 0.01
    kernel, S, n = bound.kernel, bound.S, bound.n_obs
    return lambda: kernel(S, layout.parent_slot, layout.up, n, coefs, factors, 0.0, center, precision)


def median_cpu_seconds(run: Callable[[], Any]) -> tuple[float, int]:
    """Return the median CPU time of one call over many, and how many."""
    run()
    times: list[float] = []
    stop = time.perf_counter() + BUDGET_SECONDS
    while len(times) < 5 or time.perf_counter() < stop:
        start = time.process_time_ns()
        run()
        times.append((time.process_time_ns() - start) / 1e9)
    return float(np.median(times)), len(times)


def per_patient(name: str, cross: CrossProducts) -> dict[str, Any]:
    run = call(bind(cross, integrate=True))
    seconds, calls = median_cpu_seconds(run)
    patients = cross.sizes[0]
    row = {
        "design": name,
        "patients": patients,
        "therapists": cross.sizes[1],
        "microseconds_per_patient": round(seconds / patients * 1e6, 4),
        "microseconds": round(seconds * 1e6, 2),
        "calls": calls,
    }
    print(
        f"{name:44s} {patients:7d} patients {row['microseconds_per_patient']:8.4f} us/patient "
        f"{row['microseconds']:10.1f} us"
    )
    return row


FIRST_CALL = """
import time
start = time.process_time(), time.perf_counter()
import sys
sys.path.insert(0, "benchmarks")
import numpy as np
from kernel import bind, call, design
run = call(bind(design(np.full(3, 4), 5), integrate=True))
before = time.process_time(), time.perf_counter()
run()
print(before[0] - start[0], time.process_time() - before[0])
"""


def first_call_seconds() -> list[dict[str, float]]:
    """Return CPU seconds of import and of the first call, with an empty and then with a filled cache."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for state in ("empty cache", "filled cache"):
            environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
            root = Path(__file__).resolve().parents[1]
            out = subprocess.run(
                [sys.executable, "-c", FIRST_CALL],
                cwd=root,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            imported, called = (round(float(part), 2) for part in out.split())
            print(f"new process, {state}: {imported} s of CPU time to import and build, {called} s for the first call")
            rows.append({"cache": state, "import_and_build_seconds": imported, "first_call_seconds": called})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None)
    out = parser.parse_args().out
    rng = np.random.default_rng(3)
    rows = [
        per_patient("20 therapists x 8", design(np.full(20, 8), 10)),
        per_patient("60 x 15", design(np.full(60, 15), 12)),
        per_patient("300 x 30", design(np.full(300, 30), 12)),
        per_patient("300, unbalanced caseloads", design(1 + rng.poisson(rng.gamma(1.5, 20, size=300)), 12)),
        per_patient("3000 x 30", design(np.full(3000, 30), 4)),
        per_patient("60 x 15, 1 random column", design(np.full(60, 15), 12, q=1)),
        per_patient("60 x 15, 8 random columns", design(np.full(60, 15), 12, q=8)),
        per_patient("60 x 15, 2 residual SDs", design(np.full(60, 15), 12, groups=2)),
        per_patient("60 x 15, 4 random and 8 fixed-only columns", design(np.full(60, 15), 16, extra=8)),
    ]
    rows += [
        per_patient(f"60 x 15, {sessions} sessions", design(np.full(60, 15), sessions))
        for sessions in (5, 10, 20, 40, 80)
    ]
    cross = design(np.full(60, 15), 12)
    factors = [np.eye(Q) * 0.5] * 2
    prior = (np.zeros(Q), np.full(Q, 0.01))
    seconds, calls = median_cpu_seconds(lambda: value_and_grad(cross, [0.3], factors, 0.0, prior=prior))
    reference = {
        "design": "60 x 15, NumPy reference",
        "microseconds_per_patient": round(seconds / 900 * 1e6, 3),
        "calls": calls,
    }
    print(f"{reference['design']:44s} {900:7d} patients {reference['microseconds_per_patient']:8.4f} us/patient")
    result = {
        "what": "CPU time of one value and gradient, median of many calls, one core",
        "rows": [*rows, reference],
        "first_call": first_call_seconds(),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
            "llvmlite": llvmlite.__version__,
            "machine": platform.machine(),
        },
    }
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
