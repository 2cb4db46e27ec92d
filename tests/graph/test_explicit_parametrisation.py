"""Centred or non-centred: chosen from the data, overridden by level."""

import numpy as np
import pandas as pd
import pytest

import psymech as psm
from psymech.design import make_design
from psymech.graph.explicit import parametrisation


def study(sessions: int, *, binary: bool = False) -> psm.SessionData:
    rng = np.random.default_rng(1)
    rows = [(k, f"{k}-{i}", t) for k in range(6) for i in range(3) for t in range(1, sessions + 1)]
    frame = pd.DataFrame(rows, columns=["therapist", "patient", "session"])
    y = rng.normal(size=len(frame))
    return psm.SessionData.from_frame(frame.assign(y=(y > 0).astype(float) if binary else y))


@pytest.mark.parametrize(("sessions", "expected"), [(4, "non-centred"), (200, "centred")])
def test_rich_data_are_centred_and_sparse_data_are_not(sessions: int, expected: str) -> None:
    design = make_design(psm.growth("y", random={"patient": []}), study(sessions))
    assert parametrisation(design, design.levels[0]) == expected


def test_therapists_are_informed_by_patients_not_by_sessions() -> None:
    design = make_design(psm.growth("y", random={"patient": []}), study(200))
    assert parametrisation(design, design.levels[1]) == "non-centred"


def test_discrete_outcomes_are_not_centred_by_default() -> None:
    design = make_design(psm.growth("y", random={"patient": []}, family="bernoulli"), study(200, binary=True))
    assert parametrisation(design, design.levels[0]) == "non-centred"


@pytest.mark.parametrize("centred", [True, False])
def test_the_choice_can_be_overridden(centred: bool) -> None:
    spec = psm.growth("y", random={"patient": [], "therapist": []}, centred={"patient": centred})
    built = psm.build_model(spec, study(4), engine="explicit")
    free = {rv.name for rv in built.model.free_RVs}
    assert ("u_patient" in free) is centred
    assert ("z_patient" in free) is not centred
    assert "z_therapist" in free
