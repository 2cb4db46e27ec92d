"""A small study that passes every check of the design without a warning."""

import numpy as np
import pandas as pd

import psymech as psm
from psymech.spec.model import Family

FREE = {"y": None, "x": None}  # no questionnaire's range


def small_frame(seed: int, *, therapists: int = 6, patients: int = 4, sessions: int = 6) -> pd.DataFrame:
    """Draw therapists, patients and ragged sessions with gaps; the outcome falls over time and depends on x."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(therapists):
        v = 0.7 * rng.normal()
        for i in range(patients):
            u, slope = rng.normal(), -0.3 + 0.2 * rng.normal()
            for t in np.sort(
                rng.choice(np.arange(1, sessions + 3), size=int(rng.integers(3, sessions + 1)), replace=False)
            ):
                x = rng.normal()
                rows.append((f"T{k}", f"T{k}P{i}", int(t), x, 8 + v + u + slope * t + 0.5 * x + rng.normal()))
    return pd.DataFrame(rows, columns=["therapist", "patient", "session", "x", "y"])


def small_data(seed: int, *, family: Family = "gaussian", therapist: bool = True) -> psm.SessionData:
    """Return the study with an outcome that fits the family."""
    frame = small_frame(seed)
    if family == "bernoulli":
        frame["y"] = (frame["y"] > frame["y"].median()).astype(float)
    elif family == "ordinal":
        frame["y"] = np.digitize(frame["y"], frame["y"].quantile([0.25, 0.5, 0.75])) + 1.0
    return psm.SessionData.from_frame(frame, therapist="therapist" if therapist else None, ranges=FREE)
