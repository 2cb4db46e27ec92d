"""The explicit graph through simuk, another implementation of simulation-based calibration.

simuk is no dependency: ``pip install simuk``. It compiles the model for every simulation, and draws parameters and
outcomes with the model's own random functions, so that it shares nothing with ``psymech.calibration``.
"""

import argparse
import json
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np

import psymech as psm
from psymech.calibration.uniformity import chi_square, ecdf_p_value
from psymech.inference.refits import exchangeable_model
from psymech.inference.versions import library_versions

HERE = Path(__file__).parent
DRAWS = 500


def main() -> None:
    import simuk

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    spec = psm.growth("y", random={"patient": []})
    data = psm.simulate(spec, sizes=psm.Sizes(therapists=6, patients=4, sessions=5), seed=1).data()
    model = exchangeable_model(psm.build_model(spec, data, engine="explicit"))
    start = time.perf_counter()
    calibration = simuk.SBC(
        model,
        num_simulations=asked.simulations,
        seed=asked.seed,
        sample_kwargs={"draws": DRAWS, "tune": 500, "chains": 2, "cores": 1, "nuts": {"target_accept": 0.95}},
        transform=without_signs,
        keep_fits=False,
        progress_bar=False,
    )
    calibration.run_simulations()
    seconds = time.perf_counter() - start
    group = calibration.simulations["prior_sbc"].dataset
    rows = []
    for name in ("fixed", "scale_patient", "scale_therapist", "sigma"):
        values = group[name].values.reshape(asked.simulations, -1).T
        for k, ranks in enumerate(values):
            whole = np.clip(
                (ranks * 20).astype(int) if ranks.max() <= 1 else ranks.astype(int) * 20 // (2 * DRAWS), 0, 19
            )
            rows.append(
                {"quantity": f"{name}[{k}]", "chi_square": chi_square(whole, 20), "ecdf": ecdf_p_value(whole, 20)}
            )
    text = {
        "command": "python -m benchmarks.calibration.simuk_check "
        f"--simulations {asked.simulations} --seed {asked.seed}",
        "simuk": version("simuk"),
        "seconds a simulation": round(seconds / asked.simulations, 1),
        "checks": rows,
        "ranks": {str(k): v.values.ravel().tolist() for k, v in group.items() if not str(k).startswith("z_")},
        "date": date.today().isoformat(),
        "versions": library_versions(),
    }
    (HERE / "results" / "simuk.json").write_text(json.dumps(text) + "\n", encoding="utf-8")
    print(json.dumps({k: text[k] for k in ("seconds a simulation", "checks")}, indent=1))


def without_signs(name: str, value: np.ndarray) -> np.ndarray:
    """Scales are sampled with a sign that has no meaning."""
    return np.abs(value) if name.startswith("scale_") else value


if __name__ == "__main__":
    main()
