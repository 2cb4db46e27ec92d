"""The tables and the models that the benchmarks use, and the one spelling of their parameters."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import psymech as psm
    from psymech.design import Design
    from psymech.priors import ChosenPriors

COLUMNS = ("exposure", "restructuring", "alliance")
SD = {"patient": np.array([1.0, 0.4, 0.3, 0.5]), "therapist": np.array([0.5, 0.2, 0.2, 0.3])}
CORRELATION = 0.3
BETA = np.array([10.0, -0.5, -0.4, -0.8])
SIGMA = 2.0
# Of the mediator's intercept and path a; of the outcome's intercept and paths b and c.
MEDIATION_SD = {"patient": np.array([1.0, 0.3, 1.0, 0.3, 0.3]), "therapist": np.array([0.5, 0.15, 0.5, 0.15, 0.15])}
MEDIATION_BETA = np.array([0.0, 0.5, 10.0, -0.4, -0.3])
MEDIATION_SIGMA = (1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Size:
    """Therapists, patients of each, sessions of each patient."""

    therapists: int
    patients: int
    sessions: int

    def __str__(self) -> str:
        return f"{self.therapists} x {self.patients} x {self.sessions}"

    @property
    def rows(self) -> int:
        """Number of sessions in all."""
        return self.therapists * self.patients * self.sessions


SIZES = {
    "tiny": Size(8, 5, 6),
    "small": Size(20, 8, 10),
    "medium": Size(60, 15, 12),
    "large": Size(300, 30, 12),
}
MODELS = {
    "process": "an intercept and three slopes, correlated, over patients and over therapists",
    "process_uncorrelated": "the same without correlations",
    "growth": "a linear trend; intercepts and slopes over patients, intercepts over therapists",
    "mediation": "1-1-1: both intercepts and the paths a, b and c, correlated, over patients and over therapists",
    "mediation_intercepts": "1-1-1: two intercepts over patients, uncorrelated, no therapists",
    "outcomes": "two outcomes of sessions, one predictor; intercepts over patients and over therapists",
}


def table(size: Size, seed: int, model: str = "process") -> pd.DataFrame:
    """Return one row a session; predictors and mediator have mean 0, so that every program's intercept is the same."""
    return mediation_table(size, seed) if model.startswith("mediation") else process_table(size, seed)


def process_table(size: Size, seed: int) -> pd.DataFrame:
    """Return one row a session; the three predictors have mean 0 and SD 1."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(size.therapists * size.patients), size.sessions)
    therapist = patient // size.patients
    x = rng.normal(size=(patient.size, len(COLUMNS)))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    z = np.column_stack([np.ones(patient.size), x])
    y = z @ BETA + SIGMA * rng.normal(size=patient.size)
    for index, sd in ((patient, SD["patient"]), (therapist, SD["therapist"])):
        y += (z * effects(rng, sd, index)).sum(axis=1)
    frame = pd.DataFrame(x, columns=list(COLUMNS))
    frame.insert(0, "wellbeing", 50 - y + 3 * rng.normal(size=patient.size))
    frame.insert(0, "symptoms", y)
    return with_ids(frame, size)


def mediation_table(size: Size, seed: int) -> pd.DataFrame:
    """Return one row a session: exposure acts on symptoms through the alliance and besides it."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(size.therapists * size.patients), size.sessions)
    therapist = patient // size.patients
    x = rng.normal(size=patient.size)
    x = (x - x.mean()) / x.std()
    coef = MEDIATION_BETA + effects(rng, MEDIATION_SD["patient"], patient)
    coef += effects(rng, MEDIATION_SD["therapist"], therapist)
    m = coef[:, 0] + coef[:, 1] * x + MEDIATION_SIGMA[0] * rng.normal(size=x.size)
    m -= m.mean()
    y = coef[:, 2] + coef[:, 3] * m + coef[:, 4] * x + MEDIATION_SIGMA[1] * rng.normal(size=x.size)
    return with_ids(pd.DataFrame({"symptoms": y, "alliance": m, "exposure": x}), size)


def effects(rng: np.random.Generator, sd: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Draw correlated effects of units and return those of each row."""
    corr = np.full((sd.size, sd.size), CORRELATION) + (1 - CORRELATION) * np.eye(sd.size)
    return rng.multivariate_normal(np.zeros(sd.size), corr * np.outer(sd, sd), size=index.max() + 1)[index]


def with_ids(frame: pd.DataFrame, size: Size) -> pd.DataFrame:
    """Put therapist, patient and session in front."""
    units = size.therapists * size.patients
    frame.insert(0, "session", np.tile(np.arange(1, size.sessions + 1), units))
    frame.insert(0, "patient", np.repeat(np.arange(units), size.sessions))
    frame.insert(0, "therapist", np.repeat(np.arange(size.therapists), size.patients * size.sessions))
    return frame


def specification(model: str = "process") -> "psm.ModelSpec":
    """Return a model: predictors as given, no trend but in growth."""
    import psymech as psm

    slopes = {"patient": list(COLUMNS), "therapist": list(COLUMNS)}
    paths = ("a", "b", "c")
    if model == "growth":
        return psm.growth("symptoms")
    if model == "outcomes":
        return psm.outcomes(
            ["symptoms", "wellbeing"],
            techniques=["exposure"],
            level="session",
            residual="iid",
            time=None,
            decompose="none",
        )
    if model == "mediation_intercepts":
        return psm.mediation(
            "symptoms",
            treatment="exposure",
            mediators="alliance",
            random={"patient": (), "therapist": None},
            time=None,
            decompose="none",
            correlated=False,
        )
    if model == "mediation":
        return psm.mediation(
            "symptoms",
            treatment="exposure",
            mediators="alliance",
            random={"patient": paths, "therapist": paths},
            time=None,
            decompose="none",
        )
    return psm.process(
        "symptoms",
        techniques=COLUMNS,
        slopes=slopes,
        time=None,
        decompose="none",
        correlated=model == "process",
    )


def session_data(frame: pd.DataFrame) -> "psm.SessionData":
    """Return the checked table."""
    import psymech as psm

    return psm.SessionData.from_frame(frame, patient="patient", therapist="therapist", session="session")


def design_and_priors(size: Size, seed: int, model: str) -> "tuple[Design, ChosenPriors]":
    """Return the matrices and the priors of a benchmark."""
    from psymech.design import make_design
    from psymech.priors import choose_priors

    spec = specification(model)
    design = make_design(spec, session_data(table(size, seed, model)))
    return design, choose_priors(spec, design)
