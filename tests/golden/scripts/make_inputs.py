"""Write inputs/simulated.csv: the simulated study that simulated.R fits with nlme and lme4.

    python tests/golden/scripts/make_inputs.py

12 therapists x about 5 patients x about 7 sessions out of 12 with gaps, residuals with phi = 0.5, random slopes of time
at both levels. Written once and kept: a change of NumPy's generators would change the draws.
"""

from pathlib import Path

import numpy as np
import pandas as pd


def main() -> None:
    rng = np.random.default_rng(20)
    rows = []
    for k in range(12):
        v = rng.multivariate_normal([0, 0], [[1.0, -0.1], [-0.1, 0.05]])
        for i in range(int(rng.integers(3, 8))):
            u = rng.multivariate_normal([0, 0], [[2.0, 0.2], [0.2, 0.15]])
            sessions = np.sort(rng.choice(np.arange(1, 13), size=int(rng.integers(3, 12)), replace=False))
            distance = np.abs(sessions[:, None] - sessions[None, :])
            e = rng.multivariate_normal(np.zeros(sessions.size), 1.5**2 * 0.5**distance)
            x = rng.normal(size=sessions.size)
            t = sessions - 1
            y = 12 + v[0] + u[0] + (-0.4 + v[1] + u[1]) * t + 0.6 * x + e
            rows += [
                (f"T{k:02d}", f"T{k:02d}P{i}", "ABC"[k % 3], int(s), int(s) - 1, round(a, 4), round(b, 4))
                for s, a, b in zip(sessions, x, y, strict=True)
            ]
    frame = pd.DataFrame(rows, columns=["therapist", "patient", "clinic", "session", "t", "x", "y"])
    target = Path(__file__).resolve().parents[1] / "inputs" / "simulated.csv"
    target.parent.mkdir(exist_ok=True)
    frame.to_csv(target, index=False)


if __name__ == "__main__":
    main()
