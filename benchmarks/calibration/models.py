"""The models that are calibrated, each with a small table whose predictors, nesting and gaps every simulation keeps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psymech as psm
from psymech.simulation.mediation import simulate_mediation

SEED = 20260  # of the tables


@dataclass(frozen=True, slots=True)
class Case:
    """A model and its table; `truth` makes it a study of coverage at these true values."""

    spec: psm.ModelSpec
    data: psm.SessionData
    truth: Mapping[str, float] | None = None
    effects: Mapping[str, int] = field(default_factory=lambda: {"patient": 2, "therapist": 2})


def growth(therapists: int, engine: str) -> Case:
    """Linear change, intercepts and slopes of patients and therapists; caseloads and courses of unequal length."""
    spec = psm.growth("y", random={"patient": ["time"], "therapist": ["time"]})
    sizes = psm.Sizes(therapists=therapists, patients=5, sessions=7, patients_spread=2, sessions_spread=2)
    return Case(spec, psm.simulate(spec, sizes=sizes, seed=SEED).data())


def intercepts(therapists: int, engine: str) -> Case:
    """Linear change, intercepts of patients and therapists vary: the quickest explicit graph."""
    spec = psm.growth("y", random={"patient": []})
    sizes = psm.Sizes(therapists=therapists, patients=5, sessions=7, patients_spread=2, sessions_spread=2)
    return Case(spec, psm.simulate(spec, sizes=sizes, seed=SEED).data())


def process(therapists: int, engine: str) -> Case:
    """A technique and a common factor one session earlier, random slopes of the common factor, gaps and dropout."""
    spec = psm.process(
        "y",
        techniques=["exposure"],
        common_factors=["alliance"],
        slopes={"patient": ["alliance"], "therapist": ["alliance"]},
        lag=1,
    )
    sizes = psm.Sizes(therapists=therapists, patients=5, sessions=8, patients_spread=2, gaps=0.1, dropout=0.03)
    return Case(spec, psm.simulate(spec, sizes=sizes, seed=SEED).data())


def mediation(therapists: int, engine: str) -> Case:
    """1-1-1 mediation; a, b and c vary over patients, a and b over therapists."""
    spec = psm.mediation(
        "y",
        treatment="x",
        mediators="m",
        random={"patient": ("a", "b", "c"), "therapist": ("a", "b")},
        time=None,
    )
    return Case(spec, simulate_mediation(therapists=therapists, patients=5, sessions=8, seed=SEED).data)


def outcomes(therapists: int, engine: str) -> Case:
    """Two scores after treatment; their residuals correlate (on the explicit engine they do not)."""
    from psymech.simulation import process_study

    data = process_study(seed=SEED, therapists=therapists).data()
    residual = "iid" if engine == "explicit" else None
    spec = psm.outcomes(
        ["coping", "resources"], techniques=["exposure"], common_factors=["alliance"], residual=residual
    )
    return Case(spec, data)


GROWTH_TRUTH = {
    "beta[Intercept]": 20.0,
    "beta[time]": -0.5,
    "sd_patient[Intercept]": 2.0,
    "sd_patient[time]": 0.3,
    "corr_patient": 0.2,
    "sigma": 2.0,
}


def _growth_at(sd_therapist: float) -> Callable[[int, str], Case]:
    def case(therapists: int, engine: str) -> Case:
        spec = psm.growth("y", random={"patient": ["time"]})
        sizes = psm.Sizes(therapists=therapists, patients=6, sessions=8)
        data = psm.simulate(spec, sizes=sizes, seed=SEED).data()
        truth = GROWTH_TRUTH | {"sd_therapist": sd_therapist}
        return Case(spec, data, truth, {"therapist": therapists, "patient": 0})

    return case


MEDIATION_TRUTH = {
    "beta": 0.3,
    "beta[m~Intercept]": 4.0,
    "beta[y~Intercept]": 10.0,
    "sd_patient": 0.25,
    "sd_patient[m~Intercept]": 0.5,
    "sd_patient[y~Intercept]": 0.6,
    "corr_patient": 0.3,
    "sd_therapist": 0.15,
    "sd_therapist[m~Intercept]": 0.25,
    "sd_therapist[y~Intercept]": 0.3,
    "corr_therapist": 0.3,
    "sigma": 0.9,
}


def _mediation_at(*, therapists_differ: bool) -> Callable[[int, str], Case]:
    def case(therapists: int, engine: str) -> Case:
        same = mediation(therapists, engine)
        truth = MEDIATION_TRUTH
        if not therapists_differ:
            truth = {k: (0.0 if k.startswith("sd_therapist") else v) for k, v in truth.items()}
        return Case(same.spec, same.data, truth, {"therapist": 0, "patient": 0})

    return case


MODELS: dict[str, Callable[[int, str], Case]] = {
    "growth": growth,
    "intercepts": intercepts,
    "process": process,
    "mediation": mediation,
    "outcomes": outcomes,
    # Coverage at fixed true values. Residual SD 2, SD of patients 2: therapists' shares of one session 0, 3 and 11%.
    "growth-sd-0": _growth_at(0.0),
    "growth-sd-0.5": _growth_at(0.5),
    "growth-sd-1": _growth_at(1.0),
    "mediation-truth": _mediation_at(therapists_differ=True),
    "mediation-sd-0": _mediation_at(therapists_differ=False),
}
