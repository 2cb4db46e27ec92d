"""process_study(): a simulated psychotherapy process study, as real studies are: uneven, ragged, rated on coarse
scales.

The course of the simulation: therapists and their patients; who attends which session; techniques, alliance and
empathy session by session, rounded to their scales; symptoms from the *recorded* ratings of the session before;
measures before and after.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psymech.data.sessions import SessionData
from psymech.errors import SpecError
from psymech.simulation.magnitudes import (
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
from psymech.simulation.people import (
    MOST_SESSIONS,
    People,
    Staff,
    attendance,
    draw_patients,
    draw_therapists,
    gaps,
    labels,
    on_scale,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STUDY_SEED = 296
THERAPISTS = 20
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

    with the within-patient parts one session earlier, the patients' and therapists' parts as means over the recorded
    sessions, and products such as directiveness x reactance; then rounded and cut to 0-27. The within parts are zero
    at the first session.

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
    staff = draw_therapists(rng, therapists)
    people = draw_patients(rng, staff)
    ratings = _ratings(rng, staff, people)
    attended = attendance(rng, people, ratings)
    recorded = attended & ~gaps(rng, attended)
    expected, at_end, effects = _symptoms(rng, people, ratings, attended, recorded)
    score = np.clip(np.round(expected + rng.normal(0.0, SIGMA, expected.shape)), 0, 27)
    patients = _patient_table(rng, people, attended, at_end, effects)
    who, when = np.nonzero(recorded)
    label = labels("T", therapists)[people.therapist]
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
            {"therapist": labels("T", therapists), "experience_years": staff.experience, "cbt_training": staff.cbt}
        ),
        beta=BETA,
        sigma=SIGMA,
        sd_patient=SD_PATIENT,
        sd_therapist=SD_THERAPIST,
        u_patient=pd.DataFrame(effects.patient, columns=list(SD_PATIENT), index=pd.Index(people.label, name="patient")),
        u_therapist=pd.DataFrame(
            np.column_stack([staff.effects, staff.a_path]),
            columns=[*SD_THERAPIST, "exposure.within on alliance"],
            index=pd.Index(labels("T", therapists), name="therapist"),
        ),
        expected=expected[who, when],
    )


@dataclass(frozen=True, slots=True)
class _Effects:
    patient: Floats  # (patient, term of SD_PATIENT)
    before: Floats  # (patient,) expected symptom level before therapy


def _ratings(rng: np.random.Generator, staff: Staff, people: People) -> dict[str, Floats]:
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
        out[name] = on_scale(level(mean, 0.4, 0.45, 0.8, trends[name]) + leaning, 0, 4, 1)
    out["directiveness"] = on_scale(level(CENTRES["directiveness"], 0.4, 0.5, 0.6), 0, 4, 1)

    bond = 0.20 * rng.normal(size=k)[who] + 0.38 * rng.normal(size=n)
    drift = np.zeros((n, last))
    shocks = rng.normal(size=(n, last))
    for t in range(last):
        drift[:, t] = 0.35 * shocks[:, t] + (0.3 * drift[:, t - 1] if t else 0.0)
    exposure = out["exposure"] - out["exposure"].mean(axis=1, keepdims=True)
    alliance = 3.7 + bond[:, None] + 0.15 * course + drift + staff.a_path[who][:, None] * exposure
    for name, shift in zip(ALLIANCE_PARTS, (0.0, -0.1, 0.1), strict=True):
        out[name] = on_scale(alliance + shift + level(0.0, 0.05, 0.12, 0.15), 1, 5, 0.25)
    out["alliance"] = np.round(np.mean([out[name] for name in ALLIANCE_PARTS], axis=0), 4)
    out["empathy"] = on_scale(level(2.6, 0.15, 0.35, 0.6) + 0.7 * bond[:, None], 0, 4, 1)
    return out


def _mean_over(values: Floats, rows: NDArray[np.bool_]) -> Floats:
    return np.where(rows, values, 0.0).sum(axis=1) / rows.sum(axis=1)


def _symptoms(
    rng: np.random.Generator,
    people: People,
    ratings: Mapping[str, Floats],
    attended: NDArray[np.bool_],
    recorded: NDArray[np.bool_],
) -> tuple[Floats, Floats, _Effects]:
    """Expected symptoms (patient, session), expected level after the last session, and the patients' own effects."""
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


def _between(people: People, means: Mapping[str, Floats], upper: Mapping[str, Floats]) -> Floats:
    """What differs between patients and acts through therapy: process means, products, expectations and the like."""
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
    rng: np.random.Generator, people: People, attended: NDArray[np.bool_], at_end: Floats, effects: _Effects
) -> pd.DataFrame:
    n = at_end.size
    left = attended.sum(axis=1) < people.planned
    gone = rng.random(n) < np.where(left, NO_POST["dropped out"], NO_POST["completed"])
    # Constant, points per point of distress, SD of the stable part and of each occasion; lowest, highest value, step.
    measures = {
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
        columns[f"{name}_pre"] = on_scale(pre, low, high, step)
        columns[f"{name}_post"] = np.where(gone, np.nan, on_scale(post, low, high, step))
    return pd.DataFrame(columns | {"dropped_out": left.astype(np.int64)})
