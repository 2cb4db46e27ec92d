"""mediation(): what the keywords turn into, with the levels that the data show."""

import numpy as np
import pandas as pd
import pytest

import psymech as psm
from psymech.columns import settle_levels
from psymech.design import Design, make_design
from psymech.spec.model import from_json


@pytest.fixture(scope="module")
def study() -> psm.SessionData:
    return psm.load_example("process_study")


def labels(design: Design, response: str) -> list[str]:
    return [t.split("~")[1] for t in design.terms if t.startswith(f"{response}~")]


def random_terms(design: Design, level: str) -> tuple[str, ...]:
    found = design.level(level)
    assert found is not None
    return found.terms


def test_1_1_1_with_lag(study: psm.SessionData) -> None:
    spec = psm.mediation("phq9", treatment="exposure", mediators="alliance", lag=1, time=None)
    design = make_design(spec, study)
    parts = ["within", "patient", "therapist"]
    assert labels(design, "alliance") == ["Intercept", *(f"exposure.{p}" for p in parts)]
    assert labels(design, "phq9") == [
        "Intercept", *(f"exposure.{p}" for p in parts), *(f"alliance.{p}" for p in parts)
    ]  # fmt: skip
    assert random_terms(design, "patient") == (
        "alliance~Intercept",
        "phq9~Intercept",
        "alliance~exposure.within",
        "phq9~alliance.within",
        "phq9~exposure.within",
    )
    assert random_terms(design, "therapist") == ("alliance~Intercept", "phq9~Intercept")
    for level in design.levels:
        assert level.zero is not None
        assert np.argwhere(level.zero).tolist() == [[1, 0]]
    rows = np.bincount(design.response)
    assert rows[0] == study.n_sessions
    assert rows[1] < rows[0]  # first sessions and gaps have no predecessor


def test_lagged_column_is_the_last_sessions_value(study: psm.SessionData) -> None:
    spec = psm.mediation("phq9", treatment="exposure", mediators="alliance", lag={"b": 1}, time=None)
    design = make_design(spec, study)
    rows = np.flatnonzero(design.response == 1)
    parts = psm.decompose(study, "alliance")["alliance.within"].to_numpy()
    at = {(p, s): v for p, s, v in zip(study.codes["patient"], study.session, parts, strict=True)}
    wanted = [at[study.codes["patient"][design.row[i]], study.session[design.row[i]] - 1] for i in rows]
    np.testing.assert_array_equal(design.X[rows, design.terms.index("phq9~alliance.within")], wanted)


def test_trait_has_no_within_part(study: psm.SessionData) -> None:
    patients = make_design(psm.mediation("phq9", treatment="reactance", mediators="alliance", time=None), study)
    assert labels(patients, "alliance") == ["Intercept", "reactance.patient", "reactance.therapist"]
    assert random_terms(patients, "patient") == ("alliance~Intercept", "phq9~Intercept", "phq9~alliance.within")
    therapists = make_design(
        psm.mediation("phq9", treatment="experience_years", mediators="alliance", time=None), study
    )
    assert labels(therapists, "alliance") == ["Intercept", "experience_years.therapist"]


def test_score_after_treatment_has_one_row_a_patient(study: psm.SessionData) -> None:
    spec = psm.mediation("coping_post", treatment="exposure", mediators="alliance", covariates="coping_pre")
    design = make_design(spec, study)
    rows = np.flatnonzero(design.response == 1)
    patient = study.codes["patient"][design.row[rows]]
    assert np.unique(patient).size == rows.size == np.isfinite(study.units["patient"]["coping_post"]).sum()
    np.testing.assert_array_equal(design.y[rows], study.units["patient"]["coping_post"].to_numpy()[patient])
    means = psm.decompose(study, "alliance")["alliance.patient"].to_numpy()
    column = design.X[rows, design.terms.index("coping_post~alliance.patient")]
    np.testing.assert_allclose(column, means[design.row[rows]])
    assert "time" not in labels(design, "coping_post")
    assert "alliance.within" not in labels(design, "coping_post")
    assert random_terms(design, "patient") == ("alliance~Intercept", "alliance~exposure.within")
    assert random_terms(design, "therapist") == ("alliance~Intercept", "coping_post~Intercept")


def test_mediators_in_series_predict_each_other(study: psm.SessionData) -> None:
    spec = psm.mediation(
        "phq9", treatment="exposure", mediators=["alliance", "empathy"], serial=True, random={"patient": ["d"]}
    )
    design = make_design(spec, study)
    assert "alliance.within" in labels(design, "empathy")
    assert "empathy.within" not in labels(design, "alliance")
    assert "empathy~alliance.within" in random_terms(design, "patient")
    patient = design.level("patient")
    assert patient is not None
    assert patient.zero is not None
    assert np.argwhere(patient.zero).tolist() == [[1, 0], [2, 0], [2, 1]]


def test_moderator_enters_the_equation_of_its_path_at_the_lowest_part(study: psm.SessionData) -> None:
    spec = psm.mediation("phq9", treatment="exposure", mediators="alliance", moderators={"a": "reactance"}, time=None)
    design = make_design(spec, study)
    assert labels(design, "alliance")[-2:] == ["reactance", "exposure.within:reactance"]
    assert "reactance" not in labels(design, "phq9")
    product = design.X[:, design.terms.index("alliance~exposure.within:reactance")]
    x = design.X[:, design.terms.index("alliance~exposure.within")]
    np.testing.assert_allclose(product, x * design.X[:, design.terms.index("alliance~reactance")])


def test_latent_makes_all_variables_responses(study: psm.SessionData) -> None:
    spec = psm.mediation("phq9", treatment="exposure", mediators="alliance", decompose="latent", time=None)
    design = make_design(spec, study)
    assert design.responses == ("exposure", "alliance", "phq9")
    assert design.residual == "unstructured"
    trait = make_design(
        psm.mediation("phq9", treatment="reactance", mediators="alliance", decompose="latent", time=None), study
    )
    assert trait.responses == ("alliance", "phq9")
    assert labels(trait, "phq9") == ["Intercept", "reactance.patient", "reactance.therapist"]


@pytest.mark.parametrize("decompose", ["observed", "latent"])
def test_json_round_trip(decompose, study: psm.SessionData) -> None:
    spec = psm.mediation("phq9", treatment="exposure", mediators="alliance", decompose=decompose)
    assert from_json(spec.to_json()) == spec
    settled = settle_levels(spec, study)
    assert from_json(settled.to_json()) == settled
    assert settle_levels(settled, study) == settled
    assert spec.outcome == "phq9"


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"mediators": "exposure"}, "two roles"),
        ({"mediators": ()}, "at least one column"),
        ({"serial": True}, "at least two mediators"),
        ({"lag": -1}, "whole number of sessions"),
        ({"lag": {"e": 1}}, "expected the paths a, b, c, d"),
        ({"random": {"patient": ["d"]}}, "no path 'd'"),
        ({"random": {"ward": ["a"]}}, "expected the levels"),
        ({"random": {"patient": ["warmth"]}}, "expected the paths"),
        ({"moderators": {"z": "age"}}, "moderators: expected the paths"),
    ],
)
def test_refusals(keywords: dict, message: str) -> None:
    with pytest.raises(psm.SpecError, match=message):
        psm.mediation("phq9", **{"treatment": "exposure", "mediators": "alliance", **keywords})


@pytest.mark.parametrize("name", ["time", "phq9~time"])
def test_latent_means_have_no_random_trends(name: str) -> None:
    with pytest.raises(NotImplementedError, match="no random trends"):
        psm.mediation(
            "phq9", treatment="exposure", mediators="alliance", decompose="latent", random={"patient": [name]}
        )


def small(n_therapists: int) -> psm.SessionData:
    rng = np.random.default_rng(1)
    therapist, patient, session = np.meshgrid(range(n_therapists), range(4), range(1, 5), indexing="ij")
    frame = pd.DataFrame({"therapist": therapist.ravel(), "session": session.ravel()})
    frame["patient"] = 10 * frame["therapist"] + patient.ravel()
    return psm.SessionData.from_frame(frame.assign(**{name: rng.normal(size=len(frame)) for name in "xmy"}))


def test_two_therapists_carry_no_therapist_variance() -> None:
    spec = psm.mediation("y", treatment="x", mediators="m", time=None)
    with pytest.raises(psm.DesignError, match="only 2 therapists"):
        psm.build_model(spec, small(2))


def test_missing_mediator_is_imputed_where_it_predicts_and_kept_out_where_it_is_a_response() -> None:
    data = small(4)
    sessions = data.sessions.copy()
    sessions.loc[3, "m"] = np.nan
    holed = psm.SessionData.from_frame(sessions)
    observed = make_design(psm.mediation("y", treatment="x", mediators="m", time=None), holed)
    assert observed.imputation is not None
    assert observed.imputation.n == 1
    assert np.bincount(observed.response).tolist() == [63, 64]
    latent = make_design(psm.mediation("y", treatment="x", mediators="m", time=None, decompose="latent"), holed)
    assert np.bincount(latent.response).tolist() == [64, 63, 64]
