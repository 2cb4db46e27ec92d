"""The linear predictor that adds up shared columns once a unit, against the sum over rows of its definition."""

from dataclasses import replace

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import psymech as psm
from psymech.design import Design, make_design
from psymech.graph.explicit import coordinates
from psymech.graph.predictor import linear_predictor, places, unit_above
from psymech.spec.model import ModelSpec

ROUNDING = 1e-12


def specifications() -> dict[str, ModelSpec]:
    slopes = {"patient": ["exposure"], "therapist": ["exposure"]}
    return {
        "some columns shared": psm.process("phq9", techniques=["exposure"], slopes=slopes),
        "all columns shared": psm.process("phq9", techniques=["exposure"], slopes=slopes, time=None, decompose="none"),
        "columns above that are lacking below": psm.process(
            "phq9", techniques=["exposure"], slopes={"therapist": ["exposure"]}, time=None, decompose="none"
        ),
        "two responses": psm.outcomes(
            ["phq9", "alliance"], techniques=["exposure"], level="session", residual="iid", time=None, decompose="none"
        ),
    }


def evaluate(design: Design, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, pm.Model]:
    beta = rng.normal(size=len(design.terms))
    effects = [rng.normal(size=(level.n_units, len(level.terms))) for level in design.levels]
    with pm.Model(coords=coordinates(design)) as model:
        eta = linear_predictor(design, pt.constant(beta), [pt.constant(u) for u in effects])
    expected = design.X @ beta
    for level, u in zip(design.levels, effects, strict=True):
        expected += (level.Z * u[level.code]).sum(axis=1)
    return eta.eval(mode="FAST_COMPILE"), expected, model


@pytest.mark.parametrize("name", list(specifications()))
def test_equals_the_sum_over_rows(name: str) -> None:
    design = make_design(specifications()[name], psm.load_example("process_study"))
    found, expected, _ = evaluate(design, np.random.default_rng(1))
    np.testing.assert_allclose(found, expected, rtol=ROUNDING, atol=ROUNDING * np.abs(expected).max())


def test_only_columns_that_patients_lack_stay_by_rows() -> None:
    data = psm.load_example("process_study")
    shared = evaluate(make_design(specifications()["all columns shared"], data), np.random.default_rng(1))[2]
    assert set(shared.named_vars) == {"Z_patient", "patient_of_obs", "therapist_of_patient"}
    design = make_design(specifications()["some columns shared"], data)
    some = evaluate(design, np.random.default_rng(1))[2]
    lacking = [term for term in design.terms if term not in design.levels[0].terms]
    assert lacking and some["X_by_rows"].eval().shape == (design.n_obs, len(lacking))


def test_a_patient_of_two_therapists_has_no_unit_above_and_stays_by_rows() -> None:
    design = make_design(specifications()["all columns shared"], psm.load_example("process_study"))
    patient, therapist = design.levels
    assert unit_above(patient, therapist) is not None
    code = therapist.code.copy()
    code[0] = (code[0] + 1) % therapist.n_units  # the first patient's first row
    crossed = replace(design, levels=(patient, replace(therapist, code=code)), nested=False)
    assert unit_above(patient, crossed.levels[1]) is None
    found, expected, _ = evaluate(crossed, np.random.default_rng(2))
    np.testing.assert_allclose(found, expected, rtol=ROUNDING, atol=ROUNDING * np.abs(expected).max())


def test_places_takes_the_first_of_equal_columns_and_none_where_no_column_is_equal() -> None:
    among = np.array([[1.0, 2.0, 2.0], [1.0, 3.0, 3.0]])
    columns = np.array([[2.0, 5.0], [3.0, 5.0]])
    assert places(columns, among).tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
