"""Coverage of the intervals of indirect effects over simulated three-level studies.

Run ``python -m benchmarks.mediation_coverage`` in the repository; it writes
``benchmarks/calibration/mediation_coverage.json`` after every replication and goes on where it stopped. Every fit has
the same shape, so that compiled code is made once.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

import psymech as psm
from psymech.simulation.mediation import MediationTruth, simulate_mediation

STORE = Path(__file__).parent / "calibration" / "mediation_coverage.json"
SIZES = {"therapists": 30, "patients": 6, "sessions": 10}
SAMPLING = {"draws": 500, "tune": 500, "chains": 2}
REPLICATIONS = 120
FIRST_SEED = 5000
PROBS = (0.5, 0.8, 0.9)


def one(seed: int, truth: MediationTruth) -> dict[str, dict[str, float]]:
    """Fit one study; return truth, mean, SD and rank of the truth among the draws for each effect."""
    study = simulate_mediation(**SIZES, truth=truth, seed=seed)
    spec = psm.mediation(
        "y",
        treatment="x",
        mediators="m",
        random={"patient": ("a", "b", "c"), "therapist": ("a", "b")},
        time=None,
    )
    built = psm.build_model(spec, study.data)
    tree = psm.sample(built, seed=seed, progressbar=False, cores=1, **SAMPLING)
    effects = psm.indirect_effects(tree)
    found = {}
    for kind, values in (("indirect", truth.indirect), ("direct", truth.direct)):
        for level, true in values.items():
            draws = effects[kind].sel(level=level).values.ravel()
            found[f"{kind} {level}"] = summary(draws, true)
    product = float(effects["product_of_means"].sel(level="within").mean())
    found["product of means within"] = {"truth": truth.indirect["within"], "mean": product}
    return found


def summary(draws: np.ndarray, true: float) -> dict[str, float]:
    """Return truth, posterior mean and SD, and the share of draws below the truth."""
    return {
        "truth": true,
        "mean": float(draws.mean()),
        "sd": float(draws.std(ddof=1)),
        "below": float((draws < true).mean()),
    }


def coverage(replications: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Return for each effect the share of central intervals that hold the truth, and the mean error."""
    out: dict[str, dict[str, float]] = {}
    for name in next(iter(replications.values())):
        rows = [r[name] for r in replications.values()]
        error = np.array([r["mean"] - r["truth"] for r in rows])
        out[name] = {
            "mean error": float(error.mean()),
            "its standard error": float(error.std(ddof=1) / len(rows) ** 0.5),
        }
        if "below" in rows[0]:
            below = np.array([r["below"] for r in rows])
            out[name] |= {f"coverage {p:g}": float((abs(below - 0.5) < p / 2).mean()) for p in PROBS}
    return out


def main(limit: int) -> None:
    truth = MediationTruth()
    stored = json.loads(STORE.read_text()) if STORE.exists() else {"replications": {}}
    replications = stored["replications"]
    for seed in range(FIRST_SEED, FIRST_SEED + limit):
        if str(seed) in replications:
            continue
        start = time.perf_counter()
        replications[str(seed)] = one(seed, truth)
        print(seed, f"{time.perf_counter() - start:.1f} s", flush=True)
        if len(replications) > 1:
            text = {
                "what": "central intervals of indirect and direct effects, psymech.mediation with decompose='observed'",
                "sizes": SIZES,
                "sampling": SAMPLING,
                "seeds": f"{FIRST_SEED} on, one a replication, for simulation and sampling",
                "n": len(replications),
                "summary": coverage(replications),
                "replications": replications,
            }
            STORE.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else REPLICATIONS)
