"""The magnitudes of the simulated process study, and which row of the evidence table each comes from.

An anchor is a published figure that the study is tuned to reproduce, as a correlation with improvement, a share of
variance or a standardised change. What the table reports for other populations, other comparisons or variables that
the study does not have is listed in `UNMAPPED` with the reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType
from typing import Final, Literal

SKILLS: Final = ("exposure", "restructuring", "behavioural_activation", "relaxation")
TECHNIQUES: Final = (*SKILLS, "insight")
ALLIANCE_PARTS: Final = ("alliance_goals", "alliance_tasks", "alliance_bond")
OUTCOME: Final = "phq9"

# Centres at which the products of two variables are taken, on the scales of the variables.
CENTRES: Final[Mapping[str, float]] = MappingProxyType(
    {"reactance": 2.8, "coping_style": 2.9, "directiveness": 2.0, "insight": 1.6, "skills": 1.7}
)

# Effects on the symptom score (points of 0-27) per unit of the recorded rating. `.within` parts act one session later.
BETA: Final[Mapping[str, float]] = MappingProxyType(
    {
        "Intercept": 15.3,
        "time": -0.25,
        "severity_pre": 1.0,
        "exposure.within": -0.25,
        "restructuring.within": -0.20,
        "behavioural_activation.within": -0.25,
        "relaxation.within": -0.10,
        "insight.within": -0.10,
        "alliance.within": -0.90,
        "empathy.within": -0.25,
        "exposure.within:alliance.within": -0.30,
        **{f"{name}.{part}": -0.40 for name in TECHNIQUES for part in ("patient", "therapist")},
        "alliance.patient": -1.0,
        "empathy.patient": -1.5,
        "alliance.therapist": -1.0,
        "empathy.therapist": -1.5,
        "directiveness:reactance": 3.2,
        "insight:coping_style": 1.4,
        "skills:coping_style": -1.4,
        "expectations": -0.26,
        "stage_of_change": -0.88,
        "preference_match": -1.05,
    }
)

SIGMA: Final = 2.2
SD_PATIENT: Final[Mapping[str, float]] = MappingProxyType({"Intercept": 2.8, "time": 0.10, "alliance.within": 0.5})
SD_THERAPIST: Final[Mapping[str, float]] = MappingProxyType({"Intercept": 0.7, "time": 0.02, "alliance.within": 0.3})
# Exposure of one session raises the alliance of the same session (points of 1-5 per rating point).
A_PATH: Final = 0.10
A_PATH_SD_THERAPIST: Final = 0.04
# Therapists whose exposure builds more alliance also get more out of it: both effects point to improvement.
A_B_CORRELATION_THERAPIST: Final = -0.5

AnchorKind = Literal["correlation", "share", "standardised change"]


@dataclass(frozen=True, slots=True)
class Anchor:
    """One published figure and the figure of the study that stands for it.

    `target` is on the scale of `kind`; `measure` names the entry of :func:`psymech.simulation.study_anchors` to
    compare; `parameters` are the entries of the study's truth that were set to reach it.
    """

    evidence: str
    kind: AnchorKind
    published: str
    target: float
    measure: str
    parameters: tuple[str, ...]


def r_of_d(d: float) -> float:
    """Correlation that corresponds to a standardised difference between two equal groups: d / sqrt(d^2 + 4).

    >>> round(r_of_d(0.82), 3)
    0.379
    """
    return d / sqrt(d * d + 4)


def _from_d(evidence: str, d: float, measure: str, *parameters: str, metric: str = "d") -> Anchor:
    return Anchor(evidence, "correlation", f"{metric} = {d:.2f}", r_of_d(d), measure, parameters)


ANCHORS: Final[tuple[Anchor, ...]] = (
    Anchor(
        "alliance_adult_r", "correlation", "r = .278", 0.278, "alliance", ("alliance.patient", "alliance.therapist")
    ),
    _from_d("empathy", 0.58, "empathy", "empathy.patient", "empathy.therapist", metric="g"),
    _from_d("reactance_match", 0.82, "reactance_match", "directiveness:reactance"),
    _from_d("coping_match", 0.55, "coping_match", "insight:coping_style", "skills:coping_style"),
    _from_d("expectations", 0.24, "expectations", "expectations"),
    _from_d("stage_predicts", 0.46, "stage_of_change", "stage_of_change"),
    Anchor(
        "preferences_match",
        "standardised change",
        "d = 0.31; a third less likely to drop out",
        0.31,
        "preference_match",
        ("preference_match",),
    ),
    Anchor(
        "psychotherapy_vs_none",
        "standardised change",
        "d = 0.80 against no treatment, on top of 0.39 without treatment (control_pre_post)",
        1.19,
        "pre_post",
        ("time",),
    ),
)

# Rows that give a bound, or a second figure of the same effect: looked at, not tuned.
BOUNDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "therapist_effect_max": "upper bound of the therapists' share, set to the usual 5 to 8 percent",
        "treatment_method_min": "lower bound of the techniques' share of outcome variance",
        "treatment_method_max": "upper bound of the techniques' share of outcome variance",
        "control_pre_post": "part of the mean change of the study; see psychotherapy_vs_none",
        "alliance_individual": "same effect as alliance_adult_r: g = 0.57 is r = .274",
        "alliance_adult_2011": "same effect as alliance_adult_r, earlier meta-analysis",
        "alliance_cbt_depression": "same effect as alliance_adult_r in one treatment",
    }
)

_OTHER_POPULATION: Final = "another population or format than individual therapy of adults"
_NO_VARIABLE: Final = "the study has no such variable"
_BETWEEN_TREATMENTS: Final = "a comparison of treatments; every patient of the study gets the same mix"
UNMAPPED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "alliance_adolescent_r": _OTHER_POPULATION,
        "alliance_adolescent_g": _OTHER_POPULATION,
        "alliance_couple": _OTHER_POPULATION,
        "cohesion_group": _OTHER_POPULATION,
        "collaboration": "the tasks subscale is the nearest; it follows the alliance as a whole",
        "goal_consensus": "the goals subscale is the nearest; it follows the alliance as a whole",
        "feedback_low": _NO_VARIABLE,
        "feedback_high": _NO_VARIABLE,
        "countertransference": _NO_VARIABLE,
        "rupture_repair": "no ruptures are planted",
        "ndst_vs_specific": _BETWEEN_TREATMENTS,
        "ndst_vs_none": _BETWEEN_TREATMENTS,
        "share_common": "shares of mean improvement come from comparisons of treatments",
        "share_specific": "shares of mean improvement come from comparisons of treatments",
        "share_extra": "shares of mean improvement come from comparisons of treatments",
        "culture_adapted": _NO_VARIABLE,
        "religion_psychological": _NO_VARIABLE,
        "religion_spiritual": _NO_VARIABLE,
        "stage_processes_low": "how processes change over stages, not how they go with outcome",
        "stage_processes_high": "how processes change over stages, not how they go with outcome",
        "attachment_anxiety": _NO_VARIABLE,
        "attachment_avoidance": _NO_VARIABLE,
        "attachment_security": _NO_VARIABLE,
    }
)
