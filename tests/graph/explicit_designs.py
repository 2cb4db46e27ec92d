"""Drawn designs for the explicit graph: ragged studies of one to three levels with gaps, priors of every family."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pymc as pm
from hypothesis import strategies as st
from numpy.typing import NDArray

import psymech as psm
from psymech.design import Design, make_design
from psymech.graph.explicit import explicit_model, parametrisation
from psymech.priors import ChosenPriors, choose_priors

MODE = "FAST_COMPILE"  # evaluated by Python itself: nothing is compiled, a model takes half a second
SLOPES = ("time", "x", "w")
LEVELS = ("patient", "therapist", "clinic")


@dataclass(frozen=True, slots=True)
class Case:
    """A model with the design and priors that it was made from, and one point of its unconstrained space."""

    model: pm.Model
    design: Design
    priors: ChosenPriors
    centred: dict[str, bool]
    point: dict[str, NDArray]


def ragged_study(rng: np.random.Generator, n_levels: int) -> pd.DataFrame:
    """Draw a small study; patients have 1 to 5 sessions, some sessions are left out."""
    rows = []
    patient = 0
    for clinic in range(3 if n_levels == 3 else 1):
        n_therapists = {1: 1, 2: int(rng.integers(3, 5)), 3: 2 if clinic == 0 else 1}[n_levels]
        for therapist in range(n_therapists):
            for _ in range(5 if n_levels == 1 else 2 if therapist == 0 else int(rng.integers(1, 3))):
                patient += 1
                n_sessions = int(rng.integers(1, 6)) if patient > 1 else 3
                for t in np.sort(rng.choice(np.arange(1, 8), size=n_sessions, replace=False)):
                    rows.append((f"C{clinic}", f"T{clinic}{therapist}", f"P{patient}", t, *rng.normal(size=3)))
    columns = ["clinic", "therapist", "patient", "session", "x", "w", "y"]
    frame = pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=int(rng.integers(1000)))
    return frame.assign(y=lambda f: 4 + 2 * f["y"])


def session_data(frame: pd.DataFrame, n_levels: int) -> psm.SessionData:
    return psm.SessionData.from_frame(
        frame,
        therapist="therapist" if n_levels > 1 else None,
        clinic="clinic" if n_levels > 2 else None,
        ranges={"y": None, "x": None, "w": None},
    )


def make_case(spec: psm.ModelSpec, data: psm.SessionData, rng: np.random.Generator) -> Case:
    """Build the model past the checks that refuse tiny designs, and draw a point."""
    design = make_design(spec, data)
    priors = choose_priors(spec, design)
    model = explicit_model(design, priors)
    centred = {level.level: parametrisation(design, level) == "centred" for level in design.levels}
    return Case(model, design, priors, centred, draw_point(model, rng))


def draw_point(model: pm.Model, rng: np.random.Generator) -> dict[str, NDArray]:
    """Draw a point around the initial one; scales take both signs, and stay away from zero."""
    point = {}
    for name, start in model.initial_point().items():
        value = start + 0.5 * rng.normal(size=np.shape(start))
        if name.startswith("scale_") and not name.endswith("log__"):
            value = np.where(rng.random(np.shape(start)) < 0.5, -1, 1) * (
                0.3 + np.abs(start) * rng.uniform(0.5, 2, np.shape(start))
            )
        elif name == "cutpoints_ordered__":
            value = start + 0.1 * rng.normal(size=np.shape(start))
        point[name] = np.asarray(value)
    return point


SCALE_PRIORS = st.sampled_from([None, psm.HalfNormal(1.5), psm.HalfStudentT(4.0, 2.0), psm.Exponential(1.2)])
FIXED_PRIORS = st.sampled_from([None, psm.Normal(0.5, 2.0), psm.StudentT(4.0, -0.3, 1.5)])


@st.composite
def gaussian_cases(draw: st.DrawFn) -> Case:
    """Gaussian models of one to three levels, 1 to 4 random terms a level, each choice of the builder drawn."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_levels = draw(st.integers(1, 3))
    levels = LEVELS[:n_levels]
    sizes = {level: draw(st.integers(0, 3)) for level in levels}
    overrides = {
        "sd_patient": draw(SCALE_PRIORS),
        "sd_patient[Intercept]": draw(SCALE_PRIORS),
        "sigma": draw(SCALE_PRIORS),
        "beta[x]": draw(FIXED_PRIORS),
        "beta[Intercept]": draw(FIXED_PRIORS),
        "corr_patient": draw(st.sampled_from([None, psm.LKJ(1.0), psm.LKJ(3.5)])),
        "phi": draw(st.sampled_from([None, psm.SymmetricBeta(1.0)])),
    }
    spec = psm.process(
        "y",
        covariates=["x", "w"],
        decompose="none",
        slopes={level: SLOPES[: sizes[level]] for level in levels},
        correlated={level: draw(st.booleans()) for level in levels},
        centred={level: draw(st.booleans()) for level in levels},
        residual=draw(st.sampled_from(["iid", "ar1"])),
        priors={key: prior for key, prior in overrides.items() if prior is not None},
    )
    return make_case(spec, session_data(ragged_study(rng, n_levels), n_levels), rng)
