"""Specifications that cannot be: each refusal of the value itself, with its words."""

from collections.abc import Callable
from dataclasses import replace

import pytest

import psymech as psm
from psymech.errors import SpecError
from psymech.spec.model import Factor, RandomBlock, Response, Term

INTERCEPT = Term("Intercept", (), "intercept")
GROWTH = psm.growth("y")
Y = GROWTH.responses[0]
PATIENTS = Response("w", (INTERCEPT,), level="patient")
TWO = replace(
    GROWTH,
    responses=(Y, PATIENTS),
    random=(
        RandomBlock("patient", ("y~Intercept", "y~time")),
        RandomBlock("therapist", ("y~Intercept", "w~Intercept")),
    ),
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Response("w", (INTERCEPT, Term("x", (Factor("x", part="within"),), "covariate")), level="patient"),
            r"'w' has one value a patient; its term 'x' changes within a patient\. Use parts of variables at the level "
            "of patients or therapists or clinics",
        ),
        (
            lambda: Response("w", (Term("time", (Factor("time", basis=0),), "time"),), level="therapist"),
            "'w' has one value a therapist; its term 'time' changes within a therapist",
        ),
        (
            lambda: Response("w", (Term("x.lag1", (Factor("x", lag=1),), "covariate"),), level="patient"),
            r"its term 'x\.lag1' changes within a patient",
        ),
        (
            lambda: replace(GROWTH, uncorrelated=(("time", "Intercept"),)),
            "level 'patient' cannot keep 'time' and 'Intercept' uncorrelated in this order",
        ),
        (lambda: replace(TWO, responses=(Y, Y)), "Each response is named once, found y, y"),
        (
            lambda: replace(TWO, responses=(Y, replace(PATIENTS, family="student"))),
            "All responses of a model are of one family, found gaussian, student",
        ),
        (
            lambda: replace(TWO, random=(RandomBlock("patient", ("y~Intercept", "w~Intercept")),)),
            r"'w~Intercept' cannot vary over patients: 'w' has one value a patient, so its residual is all that "
            r"differs there\. Name it at a level above",
        ),
        (lambda: replace(TWO, residual_by="arm"), "residual_by='arm' is for models of one outcome, found 2"),
        (
            lambda: replace(TWO, loadings=(("y", "y~Intercept"),)),
            "loadings: 'y~Intercept' cannot predict 'y': expected a random term and an outcome of patients",
        ),
        (lambda: replace(TWO, loadings=(("z", "y~Intercept"),)), "loadings: 'y~Intercept' cannot predict 'z'"),
        (lambda: replace(TWO, loadings=(("w", "slope"),)), "loadings: 'slope' cannot predict 'w'"),
        (
            lambda: replace(TWO, pooled=(("y", 2),)),
            "pooled: expected responses of the model with their signs, found 'y': 2",
        ),
        (lambda: replace(TWO, pooled=(("z", 1),)), "with their signs, found 'z': 1"),
        (
            lambda: replace(GROWTH, responses=(replace(Y, family="student"),), pooled=(("y", 1),)),
            "Pooled coefficients and slopes as predictors need family='gaussian', found 'student'",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make()


def test_what_the_refusals_start_from_is_accepted() -> None:
    assert replace(TWO, loadings=(("w", "y~time"),), pooled=(("y", -1),)).random_labels[-1] == "w~Intercept"
    assert replace(GROWTH, uncorrelated=(("Intercept", "time"),)).uncorrelated == (("Intercept", "time"),)
