"""outcomes(): which columns enter for which outcome, at which level, and every refusal with its words."""

import numpy as np
import pandas as pd
import pytest

import psymech as psm
from psymech.design import Design, make_design
from psymech.errors import DesignError, SpecError
from psymech.spec.model import Factor, RandomBlock, from_json

FIVE = ["psychopathology", "social_functioning", "resources", "coping", "quality_of_life"]
ROUNDING = 1e-10  # means of a few dozen ratings


@pytest.fixture(scope="module")
def data() -> psm.SessionData:
    return psm.load_example("process_study")


def column(design: Design, label: str) -> np.ndarray:
    index = design.terms.index(label)
    return design.X[design.response == design.term_response[index], index]


def test_an_outcome_after_treatment_has_patient_and_therapist_parts() -> None:
    spec = psm.outcomes(["coping"], techniques=["exposure"], common_factors=["alliance"], covariates=["age"])
    (response,) = spec.responses
    assert (response.column, response.level) == ("coping_post", "patient")
    assert response.labels == (
        "Intercept",
        "coping_pre",
        "exposure.patient",
        "exposure.therapist",
        "alliance.patient",
        "alliance.therapist",
        "age",
    )
    roles = [t.role for t in response.terms]
    assert roles == ["intercept", "covariate", "technique", "technique", "common_factor", "common_factor", "covariate"]
    assert spec.roles == (("coping_pre", "baseline"),)
    assert (spec.kind, spec.time) == ("outcomes", None)


def test_an_outcome_of_sessions_has_all_parts_and_time() -> None:
    spec = psm.outcomes(["phq9"], techniques=["exposure"], level="session", time="log")
    assert spec.responses[0].labels == (
        "Intercept",
        "time",
        "exposure.within",
        "exposure.patient",
        "exposure.therapist",
    )


def test_predictors_may_be_given_by_kind_or_listed() -> None:
    by_kind = psm.outcomes(["coping"], predictors={"techniques": ["exposure"], "common_factors": "alliance"})
    assert by_kind == psm.outcomes(["coping"], techniques=["exposure"], common_factors=["alliance"])
    listed = psm.outcomes(["coping"], predictors=["exposure", "alliance", "insight"], techniques=["exposure"])
    roles = {t.factors[0].column: t.role for t in listed.responses[0].terms if t.factors}
    assert roles == {
        "coping_pre": "covariate",
        "exposure": "technique",
        "alliance": "covariate",
        "insight": "covariate",
    }


def test_names_with_and_without_the_suffix_mean_the_same() -> None:
    assert psm.outcomes(["coping_post"], techniques=["exposure"]) == psm.outcomes(["coping"], techniques=["exposure"])
    plain = psm.outcomes(["score"], techniques=["exposure"], suffixes=None, baseline={"score": "intake"})
    assert plain.responses[0].labels[:2] == ("Intercept", "intake")
    assert plain.roles == (("intake", "baseline"),)
    without = psm.outcomes(["coping"], techniques=["exposure"], baseline=False)
    assert "coping_pre" not in without.responses[0].labels and without.roles == ()


def test_products_take_the_part_that_the_outcome_has() -> None:
    spec = psm.outcomes(
        ["coping", "phq9"],
        techniques=["exposure"],
        common_factors=["alliance"],
        level={"phq9": "session"},
        interactions=[("exposure", "alliance"), "exposure.patient:reactance", ("exposure.within", "reactance")],
    )
    coping, phq9 = spec.responses
    assert coping.labels[-2:] == ("exposure.patient:alliance.patient", "exposure.patient:reactance")
    assert phq9.labels[-3:] == (
        "exposure.within:alliance.within",
        "exposure.patient:reactance",
        "exposure.within:reactance",
    )
    assert coping.terms[-2].factors == (Factor("exposure", "patient"), Factor("alliance", "patient"))


def test_random_terms_are_found_in_every_outcome_that_has_them() -> None:
    spec = psm.outcomes(
        ["coping", "phq9"],
        techniques=["exposure"],
        level={"phq9": "session"},
        random={"patient": ["exposure", "time"], "therapist": ["exposure.patient", "phq9~time"]},
    )
    assert spec.random == (
        RandomBlock("patient", ("phq9~Intercept", "phq9~exposure.within", "phq9~time")),
        RandomBlock(
            "therapist",
            (
                "coping_post~Intercept",
                "phq9~Intercept",
                "coping_post~exposure.patient",
                "phq9~exposure.patient",
                "phq9~time",
            ),
        ),
    )
    alone = psm.outcomes(["coping"], techniques=["exposure"], random={"therapist": ["exposure"]})
    assert alone.random == (RandomBlock("therapist", ("Intercept", "exposure.patient")),)
    assert psm.outcomes(["coping"], techniques=["exposure"], random={"therapist": None}).without == ("therapist",)


def test_residuals_correlate_where_they_can() -> None:
    assert psm.outcomes(FIVE, techniques=["exposure"]).residual == "unstructured"
    assert psm.outcomes(FIVE, techniques=["exposure"], residual="iid").residual == "iid"
    assert psm.outcomes(["coping"], techniques=["exposure"]).residual == "iid"
    assert psm.outcomes(FIVE, techniques=["exposure"], family="student").residual == "iid"
    mixed = psm.outcomes(["coping", "phq9"], techniques=["exposure"], level={"phq9": "session"})
    assert mixed.residual == "iid"


def test_a_specification_survives_json() -> None:
    spec = psm.outcomes(FIVE, techniques=["exposure"], common_factors=["alliance"], interactions=["exposure:alliance"])
    assert from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"outcomes": []}, "at least one outcome"),
        ({"outcomes": ["coping", "coping"]}, "more than once"),
        ({"outcomes": ["coping", "coping_post"]}, "two names mean the column 'coping_post'"),
        ({"techniques": []}, "at least one technique or common factor"),
        ({"common_factors": ["exposure"]}, "as a technique and as a common factor"),
        ({"predictors": {"skills": ["insight"]}}, "one of 'techniques', 'common_factors', found 'skills'"),
        ({"level": "therapist"}, "one of 'session', 'patient', found 'therapist'"),
        ({"level": {"phq9": "session"}}, "level names 'phq9'"),
        ({"baseline": {"phq9": "severity_pre"}}, "baseline names 'phq9'"),
        ({"suffixes": None}, "baseline=True needs suffixes"),
        ({"covariates": ["exposure"]}, "'exposure' has two roles"),
        ({"covariates": ["coping_pre"]}, "'coping_pre' has two roles"),
        ({"techniques": ["coping_post"]}, "'coping_post' has two roles"),
        ({"interactions": ["exposure"]}, "expected pairs"),
        ({"interactions": [("exposure", "exposure.patient")]}, "names one variable twice"),
        ({"interactions": [("exposure.within", "reactance")]}, "changes within patients"),
        ({"random": {"patient": []}}, "one score a patient"),
        ({"random": {"therapist": ["insight"]}}, "'insight' is not a fixed effect of any outcome"),
        ({"random": {"group": []}}, "expected the levels"),
        ({"correlated": {"therapist": False}}, "in random as well"),
        ({"decompose": "latent"}, "one of 'observed', 'none'"),
        ({"residual": "unstructured"}, "expected one of 'iid', 'ar1'"),
    ],
)
def test_what_contradicts_itself_is_refused(keywords: dict, words: str) -> None:
    given = {"outcomes": ["coping"], "techniques": ["exposure"]} | keywords
    with pytest.raises(SpecError, match=words):
        psm.outcomes(given.pop("outcomes"), **given)


def test_the_columns_are_patients_means(data: psm.SessionData) -> None:
    spec = psm.outcomes(
        FIVE, techniques=["exposure"], common_factors=["alliance"], interactions=[("exposure", "alliance")]
    )
    design = make_design(spec, data)
    sessions, patients = data.sessions, data.units["patient"].set_axis(data.ids["patient"])
    of = sessions.groupby("patient")["therapist"].first()
    parts = {
        name: sessions.groupby("patient")[name].mean()
        - sessions.groupby("therapist")[name].mean().reindex(of).to_numpy()
        for name in ("exposure", "alliance")
    }
    for outcome in FIVE:
        known = patients.index[patients[f"{outcome}_post"].notna()]
        rows = design.response == design.responses.index(f"{outcome}_post")
        order = pd.Index(data.sessions["patient"].to_numpy()[design.row[rows]])
        assert set(order) == set(known) and rows.sum() == len(known)
        np.testing.assert_array_equal(design.y[rows], patients.loc[order, f"{outcome}_post"])
        np.testing.assert_array_equal(
            column(design, f"{outcome}_post~{outcome}_pre"), patients.loc[order, f"{outcome}_pre"]
        )
        for name, values in parts.items():
            found = column(design, f"{outcome}_post~{name}.patient")
            np.testing.assert_allclose(found, values.loc[order], atol=ROUNDING)
        product = column(design, f"{outcome}_post~exposure.patient:alliance.patient")
        np.testing.assert_allclose(product, (parts["exposure"] * parts["alliance"]).loc[order], atol=ROUNDING)


def test_therapists_effects_are_one_block_over_all_outcomes(data: psm.SessionData) -> None:
    spec = psm.outcomes(["coping", "phq9"], techniques=["exposure"], level={"phq9": "session"})
    design = make_design(spec, data)
    therapist, patient = design.level("therapist"), design.level("patient")
    assert therapist is not None and patient is not None
    assert therapist.terms == ("coping_post~Intercept", "phq9~Intercept") and therapist.correlated
    assert patient.terms == ("phq9~Intercept",)


def test_a_covariate_of_sessions_does_not_fit_one_score_a_patient(data: psm.SessionData) -> None:
    spec = psm.outcomes(["coping"], techniques=["exposure"], covariates=["empathy"])
    with pytest.raises(DesignError, match=r"'empathy' enters .* varies within"):
        make_design(spec, data)
