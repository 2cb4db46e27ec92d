"""Write nested_study.csv, the simulated input of nested.R: only patients of arm 1 have therapists."""

from pathlib import Path

import numpy as np
import pandas as pd


def nested_study(*, therapists: int, patients: int, sessions: int, seed: int) -> pd.DataFrame:
    """Draw a trial; residual SD 1 without and 2 with therapists, SDs of patients 1 and of therapists 1.5."""
    rng = np.random.default_rng(seed)
    rows = []
    for arm in (0, 1):
        for therapist in range(therapists):
            v = 1.5 * rng.normal() * arm
            for patient in range(patients):
                u = rng.normal()
                for session in range(1, int(rng.integers(2, sessions + 1)) + 1):
                    y = 10 - arm - 0.3 * session + v + u + (1 + arm) * rng.normal()
                    name = f"T{therapist}" if arm else "untreated"
                    rows.append((name, f"P{arm}{therapist}{patient}", session, arm, round(y, 4)))
    return pd.DataFrame(rows, columns=["therapist", "patient", "session", "arm", "y"])


if __name__ == "__main__":
    table = nested_study(therapists=8, patients=4, sessions=6, seed=17)
    table.to_csv(Path(__file__).parent / "nested_study.csv", index=False, lineterminator="\n")
