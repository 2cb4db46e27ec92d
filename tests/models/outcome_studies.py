"""Studies with scores before and after, the truth behind them, and trees around a truth that need no sampling."""

import numpy as np
import pandas as pd
import xarray as xr

import psymech as psm
from psymech import names
from psymech.design import make_design
from psymech.inference.tree import assemble_tree
from psymech.spec.model import ModelSpec

# Per SD of the patients' part: coefficients of the two outcomes, the second measured on a scale ten times as wide.
MOOD = {"pre": 0.6, "technique": 0.50, "factor": 0.10}
SOCIAL = {"pre": 0.6, "technique": 0.5, "factor": 4.0}
SIGMA = {"mood": 0.6, "social": 6.0}
THERAPIST_SD = {"mood": 0.3, "social": 3.0}


def study(seed: int, *, therapists: int = 40, patients: int = 10, sessions: int = 3) -> psm.SessionData:
    """Simulate scores after treatment from patients' means: mood goes with the technique, social with the factor."""
    rng = np.random.default_rng(seed)
    n = therapists * patients
    of_patient = np.repeat(np.arange(therapists), patients)
    ids = np.array([f"P{i:04d}" for i in range(n)])
    frame = pd.DataFrame(
        {
            "therapist": np.repeat([f"T{k:02d}" for k in of_patient], sessions),
            "patient": np.repeat(ids, sessions),
            "session": np.tile(np.arange(1, sessions + 1), n),
        }
    )
    parts = {}
    for name in ("technique", "factor"):
        unit = rng.normal(size=n)
        frame[name] = np.repeat(unit, sessions) + 0.3 * rng.normal(size=n * sessions)
        means = frame.groupby("patient")[name].mean().to_numpy()
        parts[name] = means - frame.groupby("therapist")[name].mean().to_numpy()[of_patient]
    table = pd.DataFrame({"patient": ids})
    for outcome, truth in (("mood", MOOD), ("social", SOCIAL)):
        pre = rng.normal(size=n) * (1.0 if outcome == "mood" else 10.0)
        effect = THERAPIST_SD[outcome] * rng.normal(size=therapists)
        mean = truth["pre"] * pre + truth["technique"] * parts["technique"] + truth["factor"] * parts["factor"]
        table[f"{outcome}_pre"] = pre
        table[f"{outcome}_post"] = mean + effect[of_patient] + SIGMA[outcome] * rng.normal(size=n)
    return psm.SessionData.from_frame(frame, patients=table)


def tree_at(
    spec: ModelSpec, data: psm.SessionData, *, seed: int = 1, draws: int = 50, spread: float = 0.1
) -> xr.DataTree:
    """Return a tree with drawn parameters, no posterior: what holds in every draw can be tested on it."""
    design = make_design(spec, data)
    rng = np.random.default_rng(seed)
    shape = (2, draws)
    values = {names.BETA: rng.normal(size=len(design.terms)) + spread * rng.normal(size=(*shape, len(design.terms)))}
    several = (len(design.responses),) if len(design.responses) > 1 else ()
    values[names.SIGMA] = np.exp(spread * rng.normal(size=(*shape, *several)))
    for level in design.levels:
        q = len(level.terms)
        values[names.sd(level.level)] = 0.5 * np.exp(spread * rng.normal(size=(*shape, q)))
        root = rng.normal(size=(q, q))
        covariance = root @ root.T + np.eye(q)
        scale = np.sqrt(np.diag(covariance))
        values[names.corr(level.level)] = np.broadcast_to(covariance / np.outer(scale, scale), (*shape, q, q)).copy()
        values[names.effect(level.level)] = rng.normal(size=(*shape, level.n_units, q))
    return assemble_tree(values, {"diverging": np.zeros(shape, dtype=bool)}, spec=spec, design=design, attrs={})
