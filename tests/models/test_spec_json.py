"""A specification is a value: equal, hashable, and the same after a trip through JSON."""

import json

import pytest

import psymech as psm
from psymech.errors import SpecError
from psymech.spec.model import from_json
from psymech.spec.priors import describe, from_dict, lookup, to_dict

SPECS = {
    "growth": psm.growth("phq9"),
    "log growth with everything": psm.growth(
        "phq9",
        shape="log",
        random={"patient": ["time"], "therapist": ["time"], "clinic": None},
        covariates=["Größe"],
        moderators=["severity"],
        residual="ar1",
        correlated={"therapist": False},
        centred={"patient": True},
        priors={
            "sd_therapist[Intercept]": psm.HalfStudentT(4, 2),
            "beta": psm.StudentT(3, 0, 5),
            "phi": psm.SymmetricBeta(3),
        },
    ),
    "piecewise": psm.growth("phq9", shape="piecewise", knots=[4, 8.5], random={"patient": ["time"]}),
    "spline": psm.growth("phq9", shape="spline", df=4),
    "ordinal": psm.growth("phq9", family="ordinal", priors={"cutpoints": psm.Normal(0, 2)}),
    "process": psm.process(
        "phq9",
        techniques=["exposure"],
        common_factors=["alliance"],
        interactions=[("exposure", "alliance")],
        slopes={"patient": ["alliance"]},
        lag={"exposure": 1},
        autoregressive=True,
        priors={"corr_patient": psm.LKJ(4), "sigma": psm.Exponential(2), "beta[time]": psm.Normal(0, 1)},
    ),
    "student": psm.process("phq9", techniques=["a"], time=None, family="student", priors={"nu": psm.Gamma(3, 0.2)}),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_json_round_trip_gives_an_equal_value(spec: psm.ModelSpec) -> None:
    text = spec.to_json()
    again = from_json(text)
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.to_json() == text
    assert json.loads(text)["outcome"] == "phq9"


def test_different_models_are_different_values() -> None:
    assert len(set(SPECS.values())) == len(SPECS)
    assert psm.growth("phq9") == psm.growth("phq9", shape="linear", random={"patient": ["time"]})


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": "growth"}', '{"responses": 3}'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="Not a psymech specification"):
        from_json(text)


def test_an_unknown_prior_family_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'Cauchy' is no prior family\. Expected one of Normal"):
        from_dict({"family": "Cauchy", "sd": 1})


def test_priors_are_described_and_stored_by_name() -> None:
    assert describe(psm.HalfStudentT(4, 2.5)) == "HalfStudentT(nu=4, sd=2.5)"
    assert to_dict(psm.Normal(1, 2)) == {"family": "Normal", "mean": 1, "sd": 2}


def test_the_more_exact_key_wins() -> None:
    table = (("beta", psm.Normal(0, 1)), ("beta[time]", psm.Normal(0, 9)))
    assert lookup(table, "beta", "time") == psm.Normal(0, 9)
    assert lookup(table, "beta", "age") == psm.Normal(0, 1)
    assert lookup(table, "sigma") is None
