"""Calibrate one model and write what came out.

``python -m benchmarks.calibration.run --model growth --engine collapsed --therapists 10 --simulations 300`` in the
repository. Finished fits are kept in ``build/calibration/``, so the same call goes on after it was stopped; results and
figure stand in the folders beside this file when all fits are there.
"""

import argparse
import json
import platform
from datetime import date
from pathlib import Path

import numpy as np
import xarray as xr

import psymech as psm
from benchmarks.calibration.models import MODELS
from psymech.inference.versions import library_versions

HERE = Path(__file__).parent
STORES = HERE.parents[1] / "build" / "calibration"
SAMPLING = {"draws": 1000, "tune": 500, "chains": 2}
# Ranks among 99 draws need some 50 independent ones, which is asked for besides. The explicit graph has a few hundred
# of 2000, and R-hat then scatters up to 1.03 where nothing is wrong.
LARGEST_R_HAT = {"collapsed": 1.02, "explicit": 1.05}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(MODELS), required=True)
    parser.add_argument("--engine", choices=("collapsed", "explicit"), default="collapsed")
    parser.add_argument("--therapists", type=int, default=10)
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=None)
    asked = parser.parse_args()
    name = f"{asked.model}_{asked.engine}_{asked.therapists}"
    case = MODELS[asked.model](asked.therapists, asked.engine)
    result = psm.calibrate(
        case.spec,
        case.data,
        simulations=asked.simulations,
        seed=asked.seed,
        engine=asked.engine,
        **SAMPLING,
        max_r_hat=LARGEST_R_HAT[asked.engine],
        effects=case.effects,
        truth=case.truth,
        fresh_priors=case.truth is not None,
        workers=asked.workers,
        store=STORES / f"{name}_seed{asked.seed}",
    )
    simulations = result["simulations"].dataset
    status = simulations["status"].values.tolist()
    table = psm.coverage(result, by_entry=case.truth is None)
    text = {
        "command": f"python -m benchmarks.calibration.run --model {asked.model} --engine {asked.engine} "
        f"--therapists {asked.therapists} --simulations {asked.simulations} --seed {asked.seed}",
        "model": (MODELS[asked.model].__doc__ or "").strip(),
        "design": {"rows": case.data.n_sessions, "patients": case.data.n_patients, "therapists": asked.therapists},
        "fits": {
            **SAMPLING,
            "largest R-hat allowed": LARGEST_R_HAT[asked.engine],
            "ranked": result.attrs["ranked_draws"],
        },
        "simulations": len(status),
        "status": {each: status.count(each) for each in sorted(set(status))},
        "failed": psm.calibration_failures(result),
        "median seconds of a fit": float(np.median(simulations["seconds"])),
        "largest R-hat": float(np.nanmax(simulations["r_hat"])),
        "truth": case.truth,
        "date": date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, shared with other jobs",
        "versions": library_versions(),
    }
    if case.truth is None:
        report = psm.check_calibration(result)
        text |= {"ok": report.ok, "alpha": report.alpha, "checks": records(report.table)}
        text["ranks"] = {str(k): v.values[0].round(4).tolist() for k, v in result["prior_sbc"].dataset.items()}
        figure(result, HERE / "figures" / f"{name}.png")
        print(report)
    text["coverage"] = records(table)
    print(table.to_string(index=False))
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(text) + "\n", encoding="utf-8")


def records(table) -> list[dict[str, object]]:
    return json.loads(table.to_json(orient="records", double_precision=6))


def figure(result: xr.DataTree, path: Path) -> None:
    import arviz as az

    path.parent.mkdir(exist_ok=True)
    entries = sum(v[0, 0].size for v in result["prior_sbc"].dataset.values())
    size = {"figsize": (14, 2.1 * -(-entries // 5)), "dpi": 60}
    with az.rc_context({"plot.max_subplots": entries}):
        collection = az.plot_ecdf_pit(result, backend="matplotlib", figure_kwargs=size, col_wrap=5)
    collection.viz["figure"].item().tight_layout()
    collection.savefig(path)


if __name__ == "__main__":
    main()
