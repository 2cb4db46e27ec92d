"""The study of membership_study.csv: patients of whom many change therapist, once or twice.

``python -m tests.models.golden.make_membership_study`` writes the file again.
"""

from pathlib import Path

import numpy as np
import pandas as pd

GOLDEN = Path(__file__).parent


def membership_study(*, therapists: int, patients: int, seed: int, sd_therapist: float = 1.0) -> pd.DataFrame:
    """Sessions with an outcome y each, and scores before and after treatment, which are constant within patients.

    The therapists' effects reach y by shares of the sessions so far, and the score after treatment by shares of all.
    """
    rng = np.random.default_rng(seed)
    v = sd_therapist * rng.normal(size=therapists)
    rows = []
    for patient in range(patients):
        seen = rng.choice(therapists, size=rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]), replace=False)
        n_sessions = int(rng.integers(4, 10))
        ends = np.sort(rng.choice(np.arange(1, n_sessions), size=len(seen) - 1, replace=False))
        held = seen[np.searchsorted(ends, np.arange(n_sessions), side="right")]
        pre, u = 20 + 3 * rng.normal(), 0.8 * rng.normal()
        share = np.array([v[held[: t + 1]].mean() for t in range(n_sessions)])
        y = 10 - 0.4 * np.arange(n_sessions) + share + u + 1.2 * rng.normal(size=n_sessions)
        post = 8 + 0.3 * pre + share[-1] + 1.5 * rng.normal()
        numbers = np.arange(1, n_sessions + 1) + np.cumsum(rng.random(n_sessions) < 0.1)
        rows += [
            (f"P{patient:02d}", f"T{k:02d}", int(t), round(each, 3), round(pre, 3), round(post, 3))
            for k, t, each in zip(held, numbers, y, strict=True)
        ]
    return pd.DataFrame(rows, columns=["patient", "therapist", "session", "y", "score_pre", "score_post"])


if __name__ == "__main__":
    membership_study(therapists=12, patients=70, seed=20).to_csv(GOLDEN / "membership_study.csv", index=False)
