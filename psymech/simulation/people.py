"""The people of the simulated process study, and which sessions they attend."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psymech.simulation.magnitudes import A_B_CORRELATION_THERAPIST, A_PATH, A_PATH_SD_THERAPIST, CENTRES, SD_THERAPIST

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_PATIENTS, MOST_PATIENTS = 4, 12
FEWEST_SESSIONS, MOST_SESSIONS = 13, 22
GAP = 0.06  # probability that a session leaves no record
DROPOUT = 0.018  # hazard of each session after the third, for a patient at average alliance who was not matched
FIRST_RISK = 3
DROPOUT_ALLIANCE = -0.7  # log odds per point of alliance
DROPOUT_MATCHED = 2 / 3  # odds ratio of patients matched to their preference


@dataclass(frozen=True, slots=True)
class Staff:
    """Therapists: one entry each."""

    caseload: Ints
    experience: Ints
    cbt: Ints
    effects: Floats  # (therapist, term of SD_THERAPIST)
    a_path: Floats


@dataclass(frozen=True, slots=True)
class People:
    """Patients: one entry each, `therapist` is an index into `staff`."""

    label: NDArray[np.str_]
    therapist: Ints
    staff: Staff
    planned: Ints
    severity: Ints
    reactance: Floats
    coping_style: Floats
    stage: Ints
    expectations: Ints
    matched: Ints
    age: Ints
    female: Ints


def labels(letter: str, count: int) -> NDArray[np.str_]:
    """Return ids that sort in the order of their numbers."""
    width = max(2 if letter == "T" else 3, len(str(count)))
    return np.array([f"{letter}{i + 1:0{width}d}" for i in range(count)])


def draw_therapists(rng: np.random.Generator, count: int) -> Staff:
    """Draw therapists with their caseloads and effects."""
    caseload = rng.integers(FEWEST_PATIENTS, MOST_PATIENTS + 1, count)
    z = rng.normal(size=(count, 4))
    effects = z[:, :3] * np.array(list(SD_THERAPIST.values()))
    rho = A_B_CORRELATION_THERAPIST
    a_path = A_PATH + A_PATH_SD_THERAPIST * (rho * z[:, 2] + np.sqrt(1 - rho**2) * z[:, 3])
    experience = np.round(rng.gamma(2.5, 4.0, count)).astype(np.int64)
    return Staff(caseload, np.minimum(experience, 40), (rng.random(count) < 0.6).astype(np.int64), effects, a_path)


def draw_patients(rng: np.random.Generator, staff: Staff) -> People:
    """Draw the patients of the caseloads, as they are before therapy."""
    therapist = np.repeat(np.arange(staff.caseload.size), staff.caseload)
    n = therapist.size
    return People(
        label=labels("P", n),
        therapist=therapist,
        staff=staff,
        planned=rng.integers(FEWEST_SESSIONS, MOST_SESSIONS + 1, n),
        severity=np.clip(np.round(rng.normal(5.0, 1.2, n)), 2, 8).astype(np.int64),
        reactance=on_scale(rng.normal(CENTRES["reactance"], 0.7, n), 1, 5, 0.1),
        coping_style=on_scale(rng.normal(CENTRES["coping_style"], 0.8, n), 1, 5, 0.1),
        stage=rng.choice(np.arange(1, 5), n, p=[0.1, 0.3, 0.35, 0.25]),
        expectations=np.clip(np.round(rng.normal(6.0, 2.0, n)), 0, 10).astype(np.int64),
        matched=(rng.random(n) < 0.6).astype(np.int64),
        age=np.clip(np.round(rng.normal(39, 12, n)), 18, 75).astype(np.int64),
        female=(rng.random(n) < 0.65).astype(np.int64),
    )


def on_scale(values: Floats, low: float, high: float, step: float) -> Floats:
    """Round to steps of a scale, as decimals that print short."""
    return np.round(np.clip(np.round(values / step) * step, low, high), 4)


def attendance(rng: np.random.Generator, people: People, ratings: Mapping[str, Floats]) -> NDArray[np.bool_]:
    """Return who comes to which session, shape (patient, session); low alliance makes dropping out likelier."""
    n = people.planned.size
    staying = np.ones(n, dtype=bool)
    attended = np.zeros((n, MOST_SESSIONS), dtype=bool)
    base = np.log(DROPOUT / (1 - DROPOUT)) + np.log(DROPOUT_MATCHED) * people.matched
    for t in range(MOST_SESSIONS):
        draw = rng.random(n)
        if t >= FIRST_RISK:
            odds = np.exp(base + DROPOUT_ALLIANCE * (ratings["alliance"][:, t - 1] - 3.7))
            staying &= draw >= odds / (1 + odds)
        attended[:, t] = staying & (t < people.planned)
    return attended


def gaps(rng: np.random.Generator, attended: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which sessions leave no record; the first two always do."""
    found = rng.random(attended.shape) < GAP
    found[:, :2] = False
    return found
