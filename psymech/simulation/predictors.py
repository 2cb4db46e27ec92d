"""Predictors of a simulated table: how much they vary within patients, between patients, between therapists."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from psymech.data.sessions import SessionData
from psymech.errors import SpecError
from psymech.names import TIME
from psymech.spec.model import ModelSpec

Floats = NDArray[np.float64]
Home = Literal["session", "patient", "therapist"]


@dataclass(frozen=True, slots=True)
class Predictor:
    """A normal predictor: its mean, and its SD within patients, between patients of a therapist, between therapists.

    It lives in the table of the lowest level at which it varies: ``Predictor(within=0)`` is a patient's characteristic.
    """

    mean: float = 0.0
    within: float = 1.0
    patient: float = 0.7
    therapist: float = 0.4

    def __post_init__(self) -> None:
        for name in ("within", "patient", "therapist"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise SpecError(f"Predictor.{name}: expected a standard deviation of 0 or more, found {value!r}.")
        if not isfinite(self.mean):
            raise SpecError(f"Predictor.mean must be finite, found {self.mean!r}.")
        if self.within == self.patient == self.therapist == 0:
            raise SpecError("Predictor: at least one of within, patient and therapist must be above zero.")

    @property
    def home(self) -> Home:
        """The table it belongs to."""
        return "session" if self.within else "patient" if self.patient else "therapist"


OF_SESSIONS = Predictor()
OF_PATIENTS = Predictor(within=0.0, patient=1.0)


def needed_predictors(spec: ModelSpec) -> dict[str, Predictor]:
    """Return the predictors that a specification names, with their defaults, in the order in which it names them.

    Techniques, common factors and whatever is split or lagged vary over sessions; other columns belong to the patients.
    """
    outcomes = {response.column for response in spec.responses}
    found: dict[str, Predictor] = {}
    for term in (t for r in spec.responses for t in r.terms):
        for factor in term.factors:
            if factor.column == TIME or factor.column in outcomes:
                continue
            in_sessions = factor.part != "raw" or factor.lag > 0 or term.role in ("technique", "common_factor")
            if in_sessions:
                found[factor.column] = OF_SESSIONS
            else:
                found.setdefault(factor.column, OF_PATIENTS)
    return found


def chosen_predictors(spec: ModelSpec, given: Mapping[str, Predictor] | None) -> dict[str, Predictor]:
    """Return the defaults with the user's predictors in their place."""
    needed = needed_predictors(spec)
    for name, predictor in (given or {}).items():
        if name not in needed:
            names = ", ".join(needed) or "none"
            raise SpecError(f"predictors: {name!r} is no predictor of this model. It names: {names}.")
        needed[name] = predictor
    return needed


def draw_predictor(predictor: Predictor, data: SessionData, rng: np.random.Generator) -> Floats:
    """Return a predictor's values over all sessions, shape (n_sessions,); constant within its home's units.

    The same random numbers are used whatever the SDs, so that changing one SD leaves the other parts as they were.
    """
    parts = [predictor.within * rng.normal(size=data.n_sessions)]
    parts.append(predictor.patient * rng.normal(size=data.n_patients)[data.codes["patient"]])
    if "therapist" in data.levels:
        parts.append(predictor.therapist * rng.normal(size=data.n_therapists)[data.codes["therapist"]])
    return predictor.mean + np.sum(parts, axis=0)
