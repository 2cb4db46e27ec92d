"""process(): parts of variables, lags, interactions, random slopes, and every refusal with its words."""

import pytest

import psymech as psm
from psymech.errors import SpecError
from psymech.spec.model import Factor, RandomBlock


def terms(spec: psm.ModelSpec) -> dict:
    return {t.label: t for t in spec.responses[0].terms}


def test_every_predictor_is_split_into_three_parts() -> None:
    spec = psm.process("phq9", techniques=["exposure"], common_factors="alliance", covariates=["age"])
    assert list(terms(spec)) == [
        "Intercept",
        "time",
        "exposure.within",
        "exposure.patient",
        "exposure.therapist",
        "alliance.within",
        "alliance.patient",
        "alliance.therapist",
        "age",
    ]
    roles = [t.role for t in spec.responses[0].terms]
    assert roles == ["intercept", "time"] + ["technique"] * 3 + ["common_factor"] * 3 + ["covariate"]
    assert terms(spec)["alliance.patient"].factors == (Factor("alliance", "patient"),)


def test_raw_predictors_keep_their_names() -> None:
    spec = psm.process("phq9", techniques=["exposure"], decompose="none", lag=1, time=None)
    assert list(terms(spec)) == ["Intercept", "exposure"]
    assert terms(spec)["exposure"].factors == (Factor("exposure", "raw", 1),)
    assert spec.time is None


def test_only_the_within_part_is_lagged() -> None:
    spec = psm.process("phq9", techniques=["exposure"], common_factors=["alliance"], lag={"exposure": 2})
    shifts = {label: t.factors[0].lag for label, t in terms(spec).items() if t.factors}
    assert shifts["exposure.within"] == 2
    assert [label for label, shift in shifts.items() if shift] == ["exposure.within"]
    everything = psm.process("phq9", techniques=["exposure"], common_factors=["alliance"], lag=1)
    lagged = [label for label, t in terms(everything).items() if t.factors and t.factors[0].lag]
    assert lagged == ["exposure.within", "alliance.within"]


def test_autoregressive_outcome() -> None:
    spec = psm.process("phq9", autoregressive=True)
    term = terms(spec)["phq9.lag1"]
    assert term.factors == (Factor("phq9", "raw", 1),)
    assert term.role == "autoregressive"


@pytest.mark.parametrize(
    ("entry", "label"),
    [
        (("exposure", "alliance"), "exposure.within:alliance.within"),
        ("exposure:alliance", "exposure.within:alliance.within"),
        (("exposure.patient", "alliance"), "exposure.patient:alliance.within"),
        (("exposure.within", "reactance"), "exposure.within:reactance"),
        (("time", "exposure"), "time:exposure.within"),
        (("exposure", "alliance", "reactance"), "exposure.within:alliance.within:reactance"),
    ],
)
def test_interactions_are_labelled_by_their_factors(entry: object, label: str) -> None:
    spec = psm.process(
        "phq9",
        techniques=["exposure"],
        common_factors=["alliance"],
        interactions=[entry],  # pyright: ignore[reportArgumentType]
        lag={"exposure": 1},
    )
    term = spec.responses[0].terms[-1]
    assert term.label == label
    assert term.role == "interaction"
    within = {f.column: f.lag for f in term.factors if f.part == "within"}
    assert within.get("exposure", 1) == 1  # the product uses the column that the main effect uses
    assert within.get("alliance", 0) == 0


def test_slopes_may_name_a_variable_or_its_part() -> None:
    spec = psm.process(
        "phq9",
        techniques=["exposure"],
        common_factors=["alliance"],
        interactions=[("exposure", "alliance")],
        slopes={"therapist": ["alliance.within", "time", "exposure.within:alliance.within"], "patient": ["alliance"]},
    )
    assert spec.random == (
        RandomBlock("patient", ("Intercept", "alliance.within")),
        RandomBlock("therapist", ("Intercept", "alliance.within", "time", "exposure.within:alliance.within")),
    )


def test_no_slopes_leaves_every_level_its_intercept() -> None:
    assert psm.process("phq9", techniques=["exposure"]).random == ()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"techniques": ["phq9"]}, "'phq9' has two roles"),
        ({"techniques": ["a"], "common_factors": ["a"]}, "'a' has two roles"),
        ({"covariates": ["time"]}, "'time' has two roles"),
        ({"techniques": ["a", "a"]}, "techniques names 'a' more than once"),
        ({"techniques": ["a"], "lag": {"b": 1}}, "lag names 'b', which is neither a technique nor a common factor"),
        ({"techniques": ["a"], "lag": -1}, "lag of 'a': expected a whole number of sessions, zero or more, found -1"),
        ({"techniques": ["a"], "lag": {"a": 1.5}}, "lag of 'a': expected a whole number .* found 1.5"),
        ({"techniques": ["a"], "lag": {"a": True}}, "lag of 'a': expected a whole number .* found True"),
        ({"techniques": ["a"], "interactions": ["a"]}, r"interactions: expected pairs such as .* found 'a'"),
        ({"techniques": ["a"], "interactions": [("a", "a.within")]}, "names one variable twice"),
        (
            {"techniques": ["a"], "interactions": [("a", "phq9")]},
            "interactions: the outcome 'phq9' cannot predict itself",
        ),
        ({"decompose": "means"}, "decompose: expected one of 'observed', 'latent', 'none', found 'means'"),
        ({"time": "weekly"}, "shape: expected one of .* found 'weekly'"),
        (
            {"techniques": ["a"], "slopes": {"patient": ["b"]}},
            "random slope 'b' at level 'patient' .* Name one of: time, a.within",
        ),
        ({"slopes": {"session": ["time"]}}, "slopes: expected the levels patient, therapist, clinic, found 'session'"),
        ({"slopes": {"patient": None, "therapist": None}}, "slopes: at least one level must vary"),
        (
            {"time": None, "slopes": {"patient": ["time"]}},
            "random slope 'time' at level 'patient' .* Name one of: none",
        ),
    ],
)
def test_refusals_say_what_was_expected(keywords: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        psm.process("phq9", **keywords)


def test_latent_decomposition_is_said_to_be_missing() -> None:
    with pytest.raises(NotImplementedError, match="decompose='latent' is not available yet"):
        psm.process("phq9", techniques=["a"], decompose="latent")
