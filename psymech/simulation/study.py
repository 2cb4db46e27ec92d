"""process_study(): a simulated psychotherapy process study, as real studies are: uneven, ragged, rated on coarse scales.

The course of the simulation: therapists and their patients; who attends which session; techniques, alliance and empathy session
by session, rounded to their scales; symptoms from the *recorded* ratings of the session before; measures before and after.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psymech.data.sessions import SessionData
from psymech.errors import SpecError
from psymech.simulation.magnitudes import (
    A_B_CORRELATION_THERAPIST,
    A_PATH,
    A_PATH_SD_THERAPIST,
    ALLIANCE_PARTS,
    BETA,
    CENTRES,
    OUTCOME,
    SD_PATIENT,
    SD_THERAPIST,
    SIGMA,
    SKILLS,
    TECHNIQUES,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STUDY_SEED = 110
THERAPISTS = 20
FEWEST_PATIENTS, MOST_PATIENTS = 4, 12
FEWEST_SESSIONS, MOST_SESSIONS = 13, 22
GAP = 0.06  # probability that a session leaves no record
DROPOUT = 0.018  # hazard of each session after the third, for a patient at average alliance who was not matched
FIRST_RISK = 3
DROPOUT_ALLIANCE = -0.7  # log odds per point of alliance
DROPOUT_MATCHED = 2 / 3  # odds ratio of patients matched to their preference
NO_POST = {"completed": 0.04, "dropped out": 0.45}


@dataclass(frozen=True, slots=True, eq=False)
class ProcessStudy:
    """A simulated study: the tables as a researcher would hold them, and what is true in it.

    Attributes
    ----------
    sessions, patients, therapists : DataFrame
        One row a recorded session, a patient, a therapist.
    beta : effects on the symptom score by term label, see :data:`psymech.simulation.magnitudes.BETA`.
    sigma : residual SD of a session, before rounding.
    sd_patient, sd_therapist : SDs of the random effects by term.
    u_patient, u_therapist : DataFrame
        The random effects that were drawn, one row a unit, one column a term; `u_therapist` holds the therapists' own
        effect of exposure on alliance too (column ``exposure.within on alliance``).
    expected : (n_sessions,) symptom score before residual and rounding, aligned with `sessions`.
    """

    sessions: pd.DataFrame
    patients: pd.DataFrame
    therapists: pd.DataFrame
    beta: Mapping[str, float]
    sigma: float
    sd_patient: Mapping[str, float]
    sd_therapist: Mapping[str, float]
    u_patient: pd.DataFrame
    u_therapist: pd.DataFrame
    expected: Floats

    def data(self) -> SessionData:
        """The study as checked data, patients' and therapists' tables included."""
        return SessionData.from_frame(self.sessions, patients=self.patients, therapists=self.therapists)


def process_study(*, seed: int = STUDY_SEED, therapists: int = THERAPISTS) -> ProcessStudy:
    r"""Simulate a psychotherapy process study; :func:`psymech.load_example` holds the one with the default arguments.

    Symptoms of session t of patient i of therapist k:

    .. math::

        y_{tik} = x_{tik}'\beta + (u_{0ik} + v_{0k}) + (u_{1ik} + v_{1k})\,t
                  + (u_{2ik} + v_{2k})\,\text{alliance}^{W}_{t-1,ik} + e_{tik}

    with the within-patient parts one session earlier, the patients' and therapists' parts as means over the recorded sessions,
    and products such as directiveness x reactance; then rounded and cut to 0-27. The within parts are zero at the first session.

    Parameters
    ----------
    seed
        The study is a function of this number and of `therapists`.
    therapists
        Number of therapists, each with 4 to 12 patients.

    Returns
    -------
    ProcessStudy

    Raises
    ------
    SpecError
        For fewer than two therapists.

    Examples
    --------
    >>> from psymech.simulation import process_study
    >>> study = process_study(seed=1, therapists=3)
    >>> list(study.sessions.columns[:4])
    ['therapist', 'patient', 'session', 'exposure']
    """
    if therapists < 2:
        raise SpecError(f"therapists: expected at least 2, found {therapists}.")
    rng = np.random.default_rng(seed)
    staff = _therapists(rng, therapists)
    people = _patients(rng, staff)
    ratings = _ratings(rng, staff, people)
    attended = _attendance(rng, people, ratings)
    recorded = attended & ~_gaps(rng, attended)
    expected, at_end, effects = _symptoms(rng, people, ratings, attended, recorded)
    score = np.clip(np.round(expected + rng.normal(0.0, SIGMA, expected.shape)), 0, 27)
    patients = _patient_table(rng, people, attended, at_end, effects)
    who, when = np.nonzero(recorded)
    label = _labels("T", therapists)[people.therapist]
    sessions = pd.DataFrame(
        {
            "therapist": label[who],
            "patient": people.label[who],
            "session": when + 1,
            **{
                name: ratings[name][who, when]
                for name in (*TECHNIQUES, "directiveness", *ALLIANCE_PARTS, "alliance", "empathy")
            },
            OUTCOME: score[who, when],
        }
    )
    whole = (*TECHNIQUES, "directiveness", "empathy", OUTCOME)
    return ProcessStudy(
        sessions=sessions.astype(dict.fromkeys(whole, "int64")),
        patients=patients,
        therapists=pd.DataFrame(
            {"therapist": _labels("T", therapists), "experience_years": staff.experience, "cbt_training": staff.cbt}
        ),
        beta=BETA,
        sigma=SIGMA,
        sd_patient=SD_PATIENT,
        sd_therapist=SD_THERAPIST,
        u_patient=pd.DataFrame(effects.patient, columns=list(SD_PATIENT), index=pd.Index(people.label, name="patient")),
        u_therapist=pd.DataFrame(
            np.column_stack([staff.effects, staff.a_path]),
            columns=[*SD_THERAPIST, "exposure.within on alliance"],
            index=pd.Index(_labels("T", therapists), name="therapist"),
        ),
        expected=expected[who, when],
    )


@dataclass(frozen=True, slots=True)
class _Staff:
    caseload: Ints
    experience: Ints
    cbt: Ints
    effects: Floats  # (therapist, term of SD_THERAPIST)
    a_path: Floats


@dataclass(frozen=True, slots=True)
class _People:
    label: NDArray[np.str_]
    therapist: Ints
    staff: _Staff
    planned: Ints
    severity: Ints
    reactance: Floats
    coping_style: Floats
    stage: Ints
    expectations: Ints
    matched: Ints
    age: Ints
    female: Ints


@dataclass(frozen=True, slots=True)
class _Effects:
    patient: Floats  # (patient, term of SD_PATIENT)
    before: Floats  # (patient,) expected symptom level before therapy


def _labels(letter: str, count: int) -> NDArray[np.str_]:
    width = max(2 if letter == "T" else 3, len(str(count)))
    return np.array([f"{letter}{i + 1:0{width}d}" for i in range(count)])


def _therapists(rng: np.random.Generator, count: int) -> _Staff:
    caseload = rng.integers(FEWEST_PATIENTS, MOST_PATIENTS + 1, count)
    z = rng.normal(size=(count, 4))
    effects = z[:, :3] * np.array(list(SD_THERAPIST.values()))
    rho = A_B_CORRELATION_THERAPIST
    a_path = A_PATH + A_PATH_SD_THERAPIST * (rho * z[:, 2] + np.sqrt(1 - rho**2) * z[:, 3])
    experience = np.round(rng.gamma(2.5, 4.0, count)).astype(np.int64)
    return _Staff(caseload, np.minimum(experience, 40), (rng.random(count) < 0.6).astype(np.int64), effects, a_path)


def _patients(rng: np.random.Generator, staff: _Staff) -> _People:
    therapist = np.repeat(np.arange(staff.caseload.size), staff.caseload)
    n = therapist.size
    return _People(
        label=_labels("P", n),
        therapist=therapist,
        staff=staff,
        planned=rng.integers(FEWEST_SESSIONS, MOST_SESSIONS + 1, n),
        severity=np.clip(np.round(rng.normal(5.0, 1.2, n)), 2, 8).astype(np.int64),
        reactance=_on_scale(rng.normal(CENTRES["reactance"], 0.7, n), 1, 5, 0.1),
        coping_style=_on_scale(rng.normal(CENTRES["coping_style"], 0.8, n), 1, 5, 0.1),
        stage=rng.choice(np.arange(1, 5), n, p=[0.1, 0.3, 0.35, 0.25]),
        expectations=np.clip(np.round(rng.normal(6.0, 2.0, n)), 0, 10).astype(np.int64),
        matched=(rng.random(n) < 0.6).astype(np.int64),
        age=np.clip(np.round(rng.normal(39, 12, n)), 18, 75).astype(np.int64),
        female=(rng.random(n) < 0.65).astype(np.int64),
    )


def _on_scale(values: Floats, low: float, high: float, step: float) -> Floats:
    """Round to steps of a scale, as decimals that print short."""
    return np.round(np.clip(np.round(values / step) * step, low, high), 4)


def _ratings(rng: np.random.Generator, staff: _Staff, people: _People) -> dict[str, Floats]:
    """Everything rated in a session, shape (patient, session), for planned and unplanned sessions alike."""
    n, k, last = people.therapist.size, staff.caseload.size, MOST_SESSIONS
    course = np.linspace(-1.0, 1.0, last)
    who = people.therapist
    out: dict[str, Floats] = {}

    def level(mean: float, therapist: float, patient: float, within: float, trend: float = 0.0) -> Floats:
        units = mean + therapist * rng.normal(size=k)[who] + patient * rng.normal(size=n)
        return units[:, None] + trend * course + within * rng.normal(size=(n, last))

    cbt = staff.cbt[who][:, None] - 0.5
    trends = {"exposure": 0.5, "restructuring": 0.3, "behavioural_activation": -0.4, "relaxation": -0.3, "insight": 0.2}
    for name in TECHNIQUES:
        leaning = -0.8 * cbt if name == "insight" else 0.5 * cbt
        mean = CENTRES["insight"] if name == "insight" else CENTRES["skills"]
        out[name] = _on_scale(level(mean, 0.4, 0.45, 0.8, trends[name]) + leaning, 0, 4, 1)
    out["directiveness"] = _on_scale(level(CENTRES["directiveness"], 0.4, 0.5, 0.6), 0, 4, 1)

    bond = 0.20 * rng.normal(size=k)[who] + 0.38 * rng.normal(size=n)
    drift = np.zeros((n, last))
    shocks = rng.normal(size=(n, last))
    for t in range(last):
        drift[:, t] = 0.25 * shocks[:, t] + (0.3 * drift[:, t - 1] if t else 0.0)
    exposure = out["exposure"] - out["exposure"].mean(axis=1, keepdims=True)
    alliance = 3.7 + bond[:, None] + 0.15 * course + drift + staff.a_path[who][:, None] * exposure
    for name, shift in zip(ALLIANCE_PARTS, (0.0, -0.1, 0.1), strict=True):
        out[name] = _on_scale(alliance + shift + level(0.0, 0.05, 0.12, 0.15), 1, 5, 0.25)
    out["alliance"] = np.round(np.mean([out[name] for name in ALLIANCE_PARTS], axis=0), 4)
    out["empathy"] = _on_scale(level(2.6, 0.15, 0.35, 0.6) + 0.7 * bond[:, None], 0, 4, 1)
    return out


def _attendance(rng: np.random.Generator, people: _People, ratings: Mapping[str, Floats]) -> NDArray[np.bool_]:
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


def _gaps(rng: np.random.Generator, attended: NDArray[np.bool_]) -> NDArray[np.bool_]:
    gaps = rng.random(attended.shape) < GAP
    gaps[:, :2] = False
    return gaps


def _mean_over(values: Floats, rows: NDArray[np.bool_]) -> Floats:
    return np.where(rows, values, 0.0).sum(axis=1) / rows.sum(axis=1)


def _symptoms(
    rng: np.random.Generator,
    people: _People,
    ratings: Mapping[str, Floats],
    attended: NDArray[np.bool_],
    recorded: NDArray[np.bool_],
) -> tuple[Floats, Floats, _Effects]:
    """Expected symptoms (patient, session), the expected level after the last session, and the patients' own effects."""
    n, last = recorded.shape
    who, k = people.therapist, people.staff.caseload.size
    means = {name: _mean_over(values, recorded) for name, values in ratings.items()}
    weight = recorded.sum(axis=1).astype(float)
    total = np.bincount(who, weight, k)
    upper = {name: (np.bincount(who, weight * mean, k) / total)[who] for name, mean in means.items()}

    def before(name: str) -> Floats:
        within = ratings[name] - means[name][:, None]
        return np.concatenate([np.zeros((n, 1)), within[:, :-1]], axis=1)

    patient = rng.normal(size=(n, 3)) * np.array(list(SD_PATIENT.values()))
    own = patient + people.staff.effects[who]
    intake = BETA["Intercept"] + BETA["severity_pre"] * (people.severity - 5)
    shift = _between(people, means, upper)
    alliance = before("alliance")
    within = sum(BETA[f"{name}.within"] * before(name) for name in (*TECHNIQUES, "empathy"))
    within = within + (BETA["alliance.within"] + own[:, 2:3]) * alliance
    within = within + BETA["exposure.within:alliance.within"] * before("exposure") * alliance
    slope = BETA["time"] + own[:, 1]
    expected = (intake + own[:, 0] + shift)[:, None] + slope[:, None] * np.arange(1, last + 1) + within
    at_end = intake + own[:, 0] + shift + slope * attended.sum(axis=1)
    return expected, at_end, _Effects(patient, intake + patient[:, 0])


def _between(people: _People, means: Mapping[str, Floats], upper: Mapping[str, Floats]) -> Floats:
    """What differs between patients and acts through therapy: process means, their products, expectations and the like."""
    shift = np.zeros(people.therapist.size)
    for name in TECHNIQUES:
        centre = CENTRES["insight"] if name == "insight" else CENTRES["skills"]
        shift += BETA[f"{name}.patient"] * (means[name] - upper[name]) + BETA[f"{name}.therapist"] * (
            upper[name] - centre
        )
    for name, centre in (("alliance", 3.7), ("empathy", 2.6)):
        shift += BETA[f"{name}.patient"] * (means[name] - upper[name]) + BETA[f"{name}.therapist"] * (
            upper[name] - centre
        )
    directive = means["directiveness"] - CENTRES["directiveness"]
    skills = np.mean([means[name] for name in SKILLS], axis=0) - CENTRES["skills"]
    insight = means["insight"] - CENTRES["insight"]
    externalising = people.coping_style - CENTRES["coping_style"]
    shift += BETA["directiveness:reactance"] * directive * (people.reactance - CENTRES["reactance"])
    shift += (BETA["insight:coping_style"] * insight + BETA["skills:coping_style"] * skills) * externalising
    shift += BETA["expectations"] * (people.expectations - 6) + BETA["stage_of_change"] * (people.stage - 2.75)
    return shift + BETA["preference_match"] * (people.matched - 0.6)


def _patient_table(
    rng: np.random.Generator, people: _People, attended: NDArray[np.bool_], at_end: Floats, effects: _Effects
) -> pd.DataFrame:
    n = at_end.size
    left = attended.sum(axis=1) < people.planned
    gone = rng.random(n) < np.where(left, NO_POST["dropped out"], NO_POST["completed"])
    measures = {  # intercept, points per point of distress, SD of the stable part, of each occasion; lowest, highest, step
        "psychopathology": (0.20, 0.085, 0.08, 0.10, 0, 4, 0.01),
        "social_functioning": (86, -2.2, 8, 6, 0, 100, 1),
        "resources": (4.2, -0.07, 0.35, 0.25, 1, 5, 0.1),
        "coping": (4.0, -0.07, 0.40, 0.25, 1, 5, 0.1),
        "quality_of_life": (84, -2.3, 10, 7, 0, 100, 1),
    }
    columns: dict[str, object] = {
        "patient": people.label,
        "age": people.age,
        "female": people.female,
        "severity_pre": people.severity,
        "reactance": people.reactance,
        "coping_style": people.coping_style,
        "stage_of_change": people.stage,
        "expectations": people.expectations,
        "preference_match": people.matched,
    }
    for name, (constant, per_point, stable, noise, low, high, step) in measures.items():
        trait = constant + stable * rng.normal(size=n)
        pre = trait + per_point * effects.before + noise * rng.normal(size=n)
        post = trait + per_point * at_end + noise * rng.normal(size=n)
        columns[f"{name}_pre"] = _on_scale(pre, low, high, step)
        columns[f"{name}_post"] = np.where(gone, np.nan, _on_scale(post, low, high, step))
    return pd.DataFrame(columns | {"dropped_out": left.astype(np.int64)})
