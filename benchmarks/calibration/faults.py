"""Which seeded faults a calibration run catches: ``python -m benchmarks.calibration.faults [simulations]``.

Writes ``results/faults.json`` after every fault. The faults stand in ``tests/calibration``.
"""

import json
import sys
from datetime import date
from pathlib import Path

import psymech as psm
from psymech.inference.versions import library_versions
from tests.calibration.engine_faults import FAULTS, calibrated, sampled

PATH = Path(__file__).parent / "results" / "faults.json"


def main(simulations: int) -> None:
    found: dict[str, dict[str, object]] = {}
    for name, fit in {"none": sampled, **FAULTS}.items():
        found[name] = summary(calibrated(fit, simulations=simulations))
        print(name, found[name], flush=True)
        text = {
            "command": f"python -m benchmarks.calibration.faults {simulations}",
            "what": "growth on the collapsed engine, 8 therapists x 4 patients x 5 sessions, seed 1",
            "alpha": 0.001,
            "faults": found,
            "date": date.today().isoformat(),
            "versions": library_versions(),
        }
        PATH.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


def summary(report: psm.CalibrationReport) -> dict[str, object]:
    worst = report.table.sort_values("adjusted").iloc[0]
    return {
        "caught": bool((report.table["adjusted"] < report.alpha).any()),
        "first to differ": str(worst["quantity"]),
        "adjusted p": float(worst["adjusted"]),
        "simulations": report.simulations,
        "failed fits": report.failed,
    }


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
