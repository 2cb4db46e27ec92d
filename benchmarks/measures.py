"""What is measured: CPU time of a stage, peak memory, and the quality of draws, for every program by the same code.

Needs NumPy, xarray and ArviZ, not psymech: the programs in an environment of their own use it too.
"""

import resource
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

CLOCK_SECONDS = 0.05
MEBIBYTE = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss: bytes there, kibibytes elsewhere
MEASURED = ("sd_patient", "sd_therapist", "beta", "u_therapist", "sigma")
COMPARED = ("beta", "sd_patient", "sd_therapist", "sigma")


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak_mebibytes() -> float:
    """Peak memory of this process or of its largest child, whichever is larger."""
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(peaks) / MEBIBYTE


class CpuClock:
    """CPU time used so far, noted every few hundredths of a second, so that a stage's share can be read off later."""

    def __init__(self) -> None:
        self.notes: list[tuple[float, float]] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.stop.is_set():
            self.notes.append((time.perf_counter(), cpu_seconds()))
            self.stop.wait(CLOCK_SECONDS)

    def __enter__(self) -> "CpuClock":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.notes.append((time.perf_counter(), cpu_seconds()))

    def in_last(self, seconds: float) -> float:
        """CPU time used in the last seconds of wall clock."""
        begin = self.notes[-1][0] - seconds
        before = [used for at, used in self.notes if at <= begin]
        return self.notes[-1][1] - (before[-1] if before else self.notes[0][1])


def quality(draws: Mapping[str, np.ndarray], labels: Mapping[str, list[str]]) -> dict[str, Any]:
    """Smallest effective sample sizes and largest R-hat over SDs, fixed effects, therapist effects and residual SDs.

    `draws` are (chain, draw, ...) by canonical name. Of the variables in `labels` the mean, SD and Monte Carlo error
    of each entry come back too, so that programs can be compared.
    """
    import arviz as az
    import xarray as xr

    data = xr.Dataset(
        {
            name: (("chain", "draw", *(f"{name}_{i}" for i in range(values.ndim - 2))), values)
            for name, values in draws.items()
            if name in MEASURED and values[0, 0].size
        }
    )
    out: dict[str, Any] = {}
    for method in ("bulk", "tail"):
        values = az.ess(data, method=method)
        by_variable = {str(name): float(values[name].min()) for name in values.data_vars}
        out[f"min_ess_{method}"] = min(by_variable.values())
        out[f"min_ess_{method}_by_variable"] = by_variable
    rhat = az.rhat(data)
    out["max_rhat"] = max(float(rhat[name].max()) for name in rhat.data_vars)
    out["min_ess"] = min(out["min_ess_bulk"], out["min_ess_tail"])
    error = az.mcse(data, method="mean")
    out["estimates"] = {}
    for name in COMPARED:
        if name not in data or name not in labels:
            continue
        flat = draws[name].reshape(*draws[name].shape[:2], -1)
        mean, sd = flat.mean(axis=(0, 1)), flat.std(axis=(0, 1), ddof=1)
        errors = np.ravel(error[name].values)
        for label, *figures in zip(labels[name], mean, sd, errors, strict=True):
            out["estimates"][f"{name}[{label}]"] = [float(value) for value in figures]
    return out


def rates(result: dict[str, Any]) -> dict[str, Any]:
    """Add effective draws per second: of drawing alone, of CPU time, and of everything from building on."""
    drawing = result["sampling_seconds"] + result.get("recover_seconds", 0.0)
    steps = result.get("gradients_after_warmup")
    return result | {
        "min_ess_per_second": result["min_ess"] / drawing,
        "min_ess_per_cpu_second": result["min_ess"] / result["cpu_seconds"],
        "min_ess_per_second_with_compilation": result["min_ess"] / result["total_seconds"],
        "gradients_per_effective_draw": None if steps is None else steps / result["min_ess"],
        "peak_mebibytes": peak_mebibytes(),
    }
