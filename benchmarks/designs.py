"""The tables and the model that every case of the benchmark uses: an intercept and three slopes, correlated, at both
levels.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import psymech as psm

COLUMNS = ("exposure", "restructuring", "alliance")
SD = {"patient": np.array([1.0, 0.4, 0.3, 0.5]), "therapist": np.array([0.5, 0.2, 0.2, 0.3])}
CORRELATION = 0.3
BETA = np.array([10.0, -0.5, -0.4, -0.8])
SIGMA = 2.0


@dataclass(frozen=True, slots=True)
class Size:
    """Therapists, patients of each, sessions of each patient."""

    therapists: int
    patients: int
    sessions: int

    def __str__(self) -> str:
        return f"{self.therapists} x {self.patients} x {self.sessions}"


SIZES = {
    "tiny": Size(8, 5, 6),
    "small": Size(20, 8, 10),
    "medium": Size(60, 15, 12),
    "large": Size(300, 30, 12),
}


def table(size: Size, seed: int) -> pd.DataFrame:
    """Return one row a session; the three predictors have mean 0 and SD 1."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(size.therapists * size.patients), size.sessions)
    therapist = patient // size.patients
    x = rng.normal(size=(patient.size, len(COLUMNS)))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    z = np.column_stack([np.ones(patient.size), x])
    y = z @ BETA + SIGMA * rng.normal(size=patient.size)
    for index, sd in ((patient, SD["patient"]), (therapist, SD["therapist"])):
        corr = np.full((sd.size, sd.size), CORRELATION) + (1 - CORRELATION) * np.eye(sd.size)
        effects = rng.multivariate_normal(np.zeros(sd.size), corr * np.outer(sd, sd), size=index.max() + 1)
        y += (z * effects[index]).sum(axis=1)
    frame = pd.DataFrame(x, columns=list(COLUMNS))
    frame.insert(0, "symptoms", y)
    frame.insert(0, "session", np.tile(np.arange(1, size.sessions + 1), size.therapists * size.patients))
    frame.insert(0, "patient", patient)
    frame.insert(0, "therapist", therapist)
    return frame


def specification() -> "psm.ModelSpec":
    """Return the model: predictors as given, no trend, all four terms random at both levels."""
    import psymech as psm

    slopes = {"patient": list(COLUMNS), "therapist": list(COLUMNS)}
    return psm.process("symptoms", techniques=COLUMNS, slopes=slopes, time=None, decompose="none")


def session_data(frame: pd.DataFrame) -> "psm.SessionData":
    """Return the checked table."""
    import psymech as psm

    return psm.SessionData.from_frame(frame, patient="patient", therapist="therapist", session="session")
