"""Time every estimate, figure and the report on a fit with 500 therapists and 4,000 draws.

Run: ``python benchmarks/estimates.py [--only predict,report] [--rounds 3] [--tree FIT] [--out FILE]``. The study is
simulated (500 therapists, 5 patients each, 8 sessions each) and fitted once on the collapsed engine. The median of the
rounds goes to ``benchmarks/results/estimates.json``, wall clock and CPU time of the process, with the load of the
machine: on a busy machine only the CPU time means something.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xarray as xr

import psymech as psm

OUT = Path(__file__).resolve().parent / "results" / "estimates.json"
THERAPISTS, PATIENTS, SESSIONS = 500, 5, 8
SLOW = ("loo", "report", "write_tables")  # measured once, after the first run


def fitted(seed: int) -> tuple[xr.DataTree, Any]:
    """Return a fit of 4 x 1,000 draws, and 2,000 of its rows."""
    spec = psm.process(
        "score",
        techniques=["exposure"],
        common_factors=["alliance"],
        slopes={"patient": ["time"], "therapist": ["alliance"]},
    )
    sizes = psm.Sizes(therapists=THERAPISTS, patients=PATIENTS, sessions=SESSIONS)
    study = psm.simulate(spec, sizes=sizes, seed=seed)
    return psm.fit(spec, study.data(), seed=seed, progressbar=False), study.frame.head(2000)


def cases(tree: xr.DataTree, rows: Any, folder: Path) -> dict[str, Callable[[], object]]:
    """Return every estimate, figure and check by name."""
    at = {"time": list(range(SESSIONS))}
    patients = {"level": "patient"}
    return {
        "therapist_effects": lambda: psm.therapist_effects(tree),
        "summarize_therapists": lambda: psm.summarize_therapists(tree),
        "summarize_therapists, 2,500 patients": lambda: psm.summarize_therapists(tree, **patients),
        "rank_therapists": lambda: psm.rank_therapists(tree),
        "rank_therapists, 2,500 patients": lambda: psm.rank_therapists(tree, **patients),
        "compare_therapists": lambda: psm.compare_therapists(tree),
        "reliability": lambda: psm.reliability(tree),
        "reliability, formula": lambda: psm.reliability(tree, method="formula"),
        "rankability, formula": lambda: psm.rankability(tree, method="formula"),
        "minimum_caseload": lambda: psm.minimum_caseload(tree),
        "caseload": lambda: psm.caseload(tree),
        "caseload_table": lambda: psm.caseload_table(tree),
        "exceedance": lambda: psm.exceedance(tree, threshold=1.0),
        "variance_partition": lambda: psm.variance_partition(tree),
        "variance_partition, over time": lambda: psm.variance_partition(tree, at=at),
        "r2": lambda: psm.r2(tree),
        "effects": lambda: psm.effects(tree),
        "effects, standardised": lambda: psm.effects(tree, standardize="level"),
        "ingredient_shares": lambda: psm.ingredient_shares(tree),
        "summarize_shares": lambda: psm.summarize_shares(psm.ingredient_shares(tree)),
        "standardized_effects": lambda: psm.standardized_effects(tree),
        "contrasts": lambda: psm.contrasts(tree, across="ingredients"),
        "predict, this therapist": lambda: psm.predict(tree, rows, seed=1),
        "predict, this therapist, draws": lambda: psm.predict(tree, rows, kind="draw", seed=1),
        "predict, new patient, draws": lambda: psm.predict(tree, rows, target="new_patient", kind="draw", seed=1),
        "predict, new therapist, draws": lambda: psm.predict(tree, rows, target="new_therapist", kind="draw", seed=1),
        "predict, average therapist": lambda: psm.predict(tree, rows, target="average_therapist", seed=1),
        "expected_trajectories": lambda: psm.expected_trajectories(tree),
        "true_change": lambda: psm.true_change(tree, threshold=1.0, cutoff=10.0),
        "check_sampling": lambda: psm.check_sampling(tree),
        "plot_therapists": lambda: psm.plot_therapists(tree, backend="matplotlib"),
        "plot_trajectories": lambda: psm.plot_trajectories(tree, backend="matplotlib"),
        "plot_variance_partition": lambda: psm.plot_variance_partition(tree, at=at, backend="matplotlib"),
        "plot_effects": lambda: psm.plot_effects(tree, backend="matplotlib"),
        "plot_ranks": lambda: psm.plot_ranks(tree, backend="matplotlib"),
        "plot_ppc": lambda: psm.plot_ppc(tree, backend="matplotlib"),
        "plot_design": lambda: psm.plot_design(tree, backend="matplotlib"),
        "check_model": lambda: psm.check_model(tree),
        "loo, 500 therapists": lambda: psm.loo(tree, unit="therapist"),
        "loo, 2,500 patients": lambda: psm.loo(tree, unit="patient"),
        "loo, 20,000 sessions": lambda: psm.loo(tree, unit="session"),
        "report": lambda: psm.report(tree, folder / "report.html", seed=1),
        "write_tables": lambda: psm.write_tables(tree, folder / "tables"),
    }


def main() -> None:
    """Measure and write."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="beginnings of names, separated by commas")
    parser.add_argument("--without", default="", help="beginnings of names to leave out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tree", type=Path, help="a saved fit of the same study, to spare the sampling")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    tree, rows = fitted(options.seed) if options.tree is None else (psm.load(options.tree), None)
    if rows is None:
        rows = psm.simulate(
            psm.process("score", techniques=["exposure"], common_factors=["alliance"]),
            sizes=psm.Sizes(therapists=THERAPISTS, patients=PATIENTS, sessions=SESSIONS),
            seed=options.seed,
        ).frame.head(2000)
    found: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Pareto k is greater")
        for name, run in cases(tree, rows, Path(folder)).items():
            if not name.startswith(tuple(options.only.split(","))):
                continue
            if options.without and name.startswith(tuple(options.without.split(","))):
                continue
            run()  # compiled code and caches
            walls, cpus = [], []
            for _ in range(1 if name.startswith(SLOW) else options.rounds):
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                walls.append(time.perf_counter() - wall)
                cpus.append(time.process_time() - cpu)
                plt.close("all")
            load = round(os.getloadavg()[0], 1)
            found[name] = {
                "seconds": round(statistics.median(walls), 3),
                "cpu_seconds": round(statistics.median(cpus), 3),
                "load": load,
            }
            print(
                f"{name:<40} {found[name]['seconds']:>8} s, CPU {found[name]['cpu_seconds']:>8} s, load {load}",
                flush=True,
            )
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "study": {
            "therapists": THERAPISTS,
            "patients": THERAPISTS * PATIENTS,
            "sessions": PATIENTS * SESSIONS * THERAPISTS,
        },
        "draws": int(tree["posterior"].sizes["chain"] * tree["posterior"].sizes["draw"]),
        "rounds": options.rounds,
        "estimates": found,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
