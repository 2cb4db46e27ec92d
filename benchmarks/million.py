"""One million sessions of 90,000 patients of 3,000 therapists: full posterior from a Parquet file through DuckDB.

The rows stay in the file; only sums over each patient come into memory.

Run: python -m benchmarks.million [--small] [--out FILE]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20261122
COLUMNS = ("Intercept", "time", "alliance", "exposure")


@dataclass(frozen=True, slots=True)
class Size:
    """Units of each level; sessions vary over patients around the mean."""

    therapists: int
    patients: int
    sessions: float


FULL, SMALL = Size(3000, 30, 11.12), Size(100, 10, 11.12)


def write_table(path: Path, size: Size) -> int:
    """Simulate a process study with four correlated random columns at both levels and write it as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(SEED)
    n_patients = size.therapists * size.patients
    therapist = np.repeat(np.arange(size.therapists), size.patients)
    sessions = 3 + rng.poisson(size.sessions - 3, n_patients)
    patient = np.repeat(np.arange(n_patients), sessions)
    start = np.repeat(np.cumsum(sessions) - sessions, sessions)
    session = np.arange(patient.size) - start
    X = np.column_stack(
        [np.ones(patient.size), session / 10, rng.normal(size=patient.size), rng.normal(size=patient.size)]
    )
    v = _effects(rng, np.array([1.2, 0.8, 0.3, 0.3]), 0.3, size.therapists)
    u = _effects(rng, np.array([3.0, 2.0, 0.5, 0.5]), -0.2, n_patients)
    mean = np.array([15.0, -5.0, -1.0, -0.5]) + v[therapist[patient]] + u[patient]
    y = np.sum(X * mean, axis=1) + rng.normal(scale=2.0, size=patient.size)
    columns = {"patient": patient, "therapist": therapist[patient], "time": X[:, 1], "alliance": X[:, 2]}
    pq.write_table(pa.table(columns | {"exposure": X[:, 3], "score": y}), path)
    return patient.size


def _effects(rng: np.random.Generator, sd: np.ndarray, rho: float, n: int) -> np.ndarray:
    corr = np.full((sd.size, sd.size), rho)
    np.fill_diagonal(corr, 1.0)
    return rng.multivariate_normal(np.zeros(sd.size), np.outer(sd, sd) * corr, size=n)


def run(path: Path, draws: int, tune: int) -> dict[str, Any]:
    """Sum, compile, sample and recover; return seconds, memory and the quality of the draws."""
    import arviz as az
    import nutpie

    from psymech.gaussian.query import from_query
    from psymech.gaussian.recover_numba import recover
    from psymech.gaussian.residual import iid
    from psymech.gaussian.target import NORMAL, ScalePriors, make_target
    from psymech.inference.direct import POINT, compile_target

    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    found = from_query(
        str(path),
        columns={"Intercept": "1", "time": "time", "alliance": "alliance", "exposure": "exposure"},
        response="score",
        levels=["patient", "therapist"],
        random=[COLUMNS, COLUMNS],
        fixed=COLUMNS,
    )
    cross = found.cross
    seconds = {"sum": lap()}

    def half_normal(*sd: float) -> ScalePriors:
        return ScalePriors(np.full(len(sd), NORMAL), np.array(sd), np.ones(len(sd)))

    prior = (np.array([15.0, 0.0, 0.0, 0.0]), np.eye(4) / 225.0)
    target = make_target(
        cross,
        iid(cross.n_obs),
        scales=[half_normal(6, 6, 3, 3), half_normal(3, 3, 1.5, 1.5)],
        eta=[2.0, 2.0],
        sigma=half_normal(6),
        phi_a=1.0,
        beta_prior=prior,
    )

    def start(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        x = rng.uniform(-0.5, 0.5, target.n)
        x[[0, 1, 2, 3, 10, 11, 12, 13]] = rng.uniform(0.5, 2.0, 8)
        x[-1] = rng.uniform(0.5, 1.5)
        return x

    compiled = compile_target(target, start)
    seconds["compile"] = lap()
    fitted = nutpie.sample(
        compiled, draws=draws, tune=tune, chains=4, cores=2, seed=SEED, progress_bar=False, save_warmup=False
    )
    seconds["sample"] = lap()
    points = fitted["posterior"].dataset[POINT].values
    n = points.shape[0] * points.shape[1]
    roots = _roots(points.reshape(n, -1))
    sigma = np.exp(points[..., -1])
    rng = np.random.default_rng(SEED)
    beta, therapists = np.empty((n, 4)), np.empty((n, cross.sizes[1], 4), dtype=np.float32)
    step = 25
    for i in range(0, n, step):
        part = slice(i, min(i + step, n))
        drawn = recover(cross, sigma.reshape(n, 1)[part] ** -2.0, [r[part] for r in roots], rng=rng, prior=prior)
        beta[part], therapists[part] = drawn.beta, drawn.effects[1]
    seconds["recover"] = lap()
    shape = points.shape[:2]
    sd = [np.sqrt((r**2).sum(-1)) for r in roots]
    monitored = {
        "beta": beta.reshape(*shape, 4),
        "sd_patient": sd[0].reshape(*shape, 4),
        "sd_therapist": sd[1].reshape(*shape, 4),
        "sigma": sigma,
        "therapist": therapists[:, :50].reshape(*shape, 50, 4).astype(float),
    }
    summary = az.summary(az.convert_to_dataset(monitored), round_to="none")
    return {
        "sessions": cross.n_obs,
        "patients": cross.sizes[0],
        "therapists": cross.sizes[1],
        "draws": draws,
        "tune": tune,
        "chains": 4,
        "seconds": seconds | {"total": clock[-1] - clock[0]},
        "gradients": int(fitted["sample_stats"].dataset["n_steps"].sum()),
        "divergences": int(fitted["sample_stats"].dataset["diverging"].sum()),
        "ess_bulk_min": float(summary["ess_bulk"].min()),
        "ess_tail_min": float(summary["ess_tail"].min()),
        "r_hat_max": float(summary["r_hat"].max()),
        "posterior_mean": {str(k): float(v) for k, v in summary["mean"].items() if not str(k).startswith("therapist")},
        "peak_gibibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _roots(points: np.ndarray) -> list[np.ndarray]:
    roots, k = [], 0
    for _ in range(2):
        t = points[:, k : k + 4]
        k += 4
        C, rest = np.zeros((len(points), 4, 4)), np.ones((len(points), 4))
        for i in range(4):
            for j in range(i):
                C[:, i, j] = np.tanh(0.5 * points[:, k]) * np.sqrt(rest[:, i])
                rest[:, i] /= np.cosh(0.5 * points[:, k]) ** 2
                k += 1
        C[:, range(4), range(4)] = np.sqrt(rest)
        roots.append(t[:, :, None] * C)
    return roots


def main() -> None:
    """Write the table in one process, fit it in another, so that memory is that of the fit alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a smoke run of 1,000 patients")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--tune", type=int, default=500)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table is not None:
        print(json.dumps(run(options.table, options.draws, options.tune)))
        return
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "sessions.parquet"
        write_table(table, SMALL if options.small else FULL)
        command = [sys.executable, "-m", "benchmarks.million", "--table", str(table)]
        command += ["--draws", str(options.draws), "--tune", str(options.tune)]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    from benchmarks.harness import machine, versions

    result = {"date": time.strftime("%Y-%m-%d"), "seed": SEED, "machine": machine(), "versions": versions()}
    result |= json.loads(found.stdout.splitlines()[-1])
    text = json.dumps(result, indent=1)
    if options.out is not None:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
