"""Do the intervals of indirect effects hold the truth as often as they say? Simulated three-level studies.

``python -m benchmarks.mediation_coverage VARIANT [N]`` in the repository writes ``benchmarks/results`` after every
replication and goes on where it stopped. Every fit of a variant has the same shape, so that compiled code is made once.

``fixed``: one truth, default priors. ``wide``: the same studies, flat correlations (LKJ(1)) and wide half-normal priors
of the SDs. ``drawn``: the truth of each study is drawn from the very priors of the fit; only there is every interval
calibrated by theory, so that a fault of the program shows as such (Talts et al. 2018, arXiv:1804.06788).
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import psymech as psm
from psymech.data.decompose import split
from psymech.simulation.mediation import MediationTruth, simulate_mediation
from psymech.spec.priors import Prior

FOLDER = Path(__file__).parent / "results"
SIZES = {"therapists": 30, "patients": 6, "sessions": 10}
SAMPLING = {"draws": 500, "tune": 500, "chains": 2}
RANDOM = {"patient": ("a", "b", "c"), "therapist": ("a", "b")}
REPLICATIONS = 120
FIRST_SEED = 5000
PROBS = (0.5, 0.8, 0.9)
Floats = NDArray[np.float64]

WIDE: Mapping[str, Prior] = {
    "corr_patient": psm.LKJ(1.0),
    "corr_therapist": psm.LKJ(1.0),
    "sd_patient": psm.HalfNormal(3.0),
    "sd_therapist": psm.HalfNormal(3.0),
}
DRAWN: Mapping[str, Prior] = {
    "beta": psm.Normal(0.0, 0.3),
    "sd_patient": psm.HalfNormal(0.3),
    "sd_therapist": psm.HalfNormal(0.2),
    "corr_patient": psm.LKJ(2.0),
    "corr_therapist": psm.LKJ(2.0),
    "sigma": psm.HalfNormal(1.0),
}
SPREAD_X = (1.0, 0.6, 0.3)


def one(
    data: psm.SessionData, priors: Mapping[str, Prior] | None, truth: dict[str, dict[str, float]], seed: int
) -> dict[str, dict[str, float]]:
    """Fit one study; return truth, mean, SD and rank of the truth among the draws for each effect."""
    spec = psm.mediation("y", treatment="x", mediators="m", random=RANDOM, time=None, priors=priors)
    tree = psm.sample(psm.build_model(spec, data), seed=seed, progressbar=False, cores=1, **SAMPLING)
    effects = psm.indirect_effects(tree)
    found = {
        f"{kind} {level}": summary(effects[kind].sel(level=level).values.ravel(), true)
        for kind, values in truth.items()
        for level, true in values.items()
    }
    product = float(effects["product_of_means"].sel(level="within").mean())
    found["product of means within"] = {"truth": truth["indirect"]["within"], "mean": product}
    return found


def fixed(seed: int, priors: Mapping[str, Prior] | None = None) -> dict[str, dict[str, float]]:
    """One study with the truth that all share."""
    truth = MediationTruth()
    study = simulate_mediation(**SIZES, truth=truth, seed=seed)
    return one(study.data, priors, {"indirect": truth.indirect, "direct": truth.direct}, seed)


def wide(seed: int) -> dict[str, dict[str, float]]:
    """The same study under wide priors."""
    return fixed(seed, WIDE)


def drawn(seed: int) -> dict[str, dict[str, float]]:
    """One study whose truth is drawn from the priors of the fit."""
    data, truth = drawn_study(np.random.default_rng(seed))
    return one(data, DRAWN, truth, seed)


def drawn_study(rng: np.random.Generator) -> tuple[psm.SessionData, dict[str, dict[str, float]]]:
    """Draw parameters from `DRAWN`, then mediator, then outcome, by the equations of :func:`psymech.mediation`."""
    blank = simulate_mediation(**SIZES, seed=0).data
    patient, therapist = blank.codes["patient"], blank.codes["therapist"]
    within, between, above = SPREAD_X
    x = rng.normal(0, within, patient.size)
    x += rng.normal(0, between, blank.n_patients)[patient] + rng.normal(0, above, blank.n_therapists)[therapist]
    slope = {name: rng.normal(0, 0.3, 3) for name in ("a", "b", "c")}  # within, patient, therapist
    level = rng.normal(0, 0.3, 2)
    sigma = np.abs(rng.normal(0, 1.0, 2))
    # random terms in the order of the specification: intercepts of m and y, a, b and (patients only) c
    root_u, root_v = drawn_root(rng, 5, 0.3), drawn_root(rng, 4, 0.2)
    u = (rng.normal(size=(blank.n_patients, 5)) @ root_u.T)[patient]
    v = np.column_stack([rng.normal(size=(blank.n_therapists, 4)) @ root_v.T, np.zeros(blank.n_therapists)])[therapist]
    effect = u + v

    def parts(values: Floats) -> Floats:
        found = split(values, blank).parts
        return np.column_stack([found["within"], found["patient"], found["therapist"] - found["therapist"].mean()])

    px = parts(x)
    m = level[0] + px @ slope["a"] + effect[:, 0] + effect[:, 2] * px[:, 0] + rng.normal(0, sigma[0], x.size)
    pm = parts(m)
    y = level[1] + pm @ slope["b"] + px @ slope["c"] + effect[:, 1] + effect[:, 3] * pm[:, 0] + effect[:, 4] * px[:, 0]
    y += rng.normal(0, sigma[1], x.size)
    frame = blank.sessions[["therapist", "patient", "session"]].assign(x=x, m=m, y=y)
    covariance = (root_u @ root_u.T)[2, 3] + (root_v @ root_v.T)[2, 3]
    products = dict(zip(("within", "patient", "therapist"), map(float, slope["a"] * slope["b"]), strict=True))
    direct = dict(zip(("within", "patient", "therapist"), map(float, slope["c"]), strict=True))
    truth = {"indirect": products | {"within": products["within"] + float(covariance)}, "direct": direct}
    return psm.SessionData.from_frame(frame), truth


def drawn_root(rng: np.random.Generator, q: int, scale: float) -> Floats:
    """Factor of a covariance: half-normal SDs, LKJ(2) correlations of which the first pair is zero."""
    factor = np.eye(q)
    for i in range(1, q):
        rest = 1.0
        for j in range(i):
            a = 2.0 + (q - 2 - j) / 2
            r = 0.0 if (i, j) == (1, 0) else 2 * rng.beta(a, a) - 1
            factor[i, j] = r * np.sqrt(rest)
            rest *= 1 - r**2
        factor[i, i] = np.sqrt(rest)
    return np.abs(rng.normal(0, scale, q))[:, None] * factor


def summary(draws: Floats, true: float) -> dict[str, float]:
    """Return truth, posterior mean and SD, and the share of draws below the truth."""
    return {
        "truth": true,
        "mean": float(draws.mean()),
        "sd": float(draws.std(ddof=1)),
        "below": float((draws < true).mean()),
    }


def coverage(replications: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Return for each effect the share of central intervals that hold the truth, and the mean error.

    ``error in posterior SDs`` has mean 0 and SD 1 where posterior and sampling distribution agree.
    """
    out: dict[str, dict[str, float]] = {}
    for name in next(iter(replications.values())):
        rows = [r[name] for r in replications.values()]
        error = np.array([r["mean"] - r["truth"] for r in rows])
        out[name] = {
            "mean error": float(error.mean()),
            "its standard error": float(error.std(ddof=1) / len(rows) ** 0.5),
        }
        if "below" in rows[0]:
            below, scaled = np.array([r["below"] for r in rows]), error / np.array([r["sd"] for r in rows])
            out[name] |= {"error in posterior SDs, mean": float(scaled.mean()), "its SD": float(scaled.std(ddof=1))}
            out[name] |= {f"coverage {p:g}": float((abs(below - 0.5) < p / 2).mean()) for p in PROBS}
    return out


VARIANTS: Mapping[str, Callable[[int], dict[str, dict[str, float]]]] = {"fixed": fixed, "wide": wide, "drawn": drawn}


def main(variant: str, limit: int) -> None:
    store = FOLDER / f"mediation_{variant}.json"
    stored = json.loads(store.read_text()) if store.exists() else {"replications": {}}
    replications = stored["replications"]
    for seed in range(FIRST_SEED, FIRST_SEED + limit):
        if str(seed) in replications:
            continue
        start = time.perf_counter()
        replications[str(seed)] = VARIANTS[variant](seed)
        print(variant, seed, f"{time.perf_counter() - start:.1f} s", flush=True)
        if len(replications) > 1:
            text = {
                "what": "central intervals of indirect and direct effects, psymech.mediation with decompose='observed'",
                "variant": variant,
                "sizes": SIZES,
                "sampling": SAMPLING,
                "seeds": f"{FIRST_SEED} on, one a replication, for simulation and sampling",
                "n": len(replications),
                "summary": coverage(replications),
                "replications": replications,
            }
            store.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "fixed", int(sys.argv[2]) if len(sys.argv) > 2 else REPLICATIONS)
