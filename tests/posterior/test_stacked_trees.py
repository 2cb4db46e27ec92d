"""Trees of several responses, some with one value a patient: every estimate by hand algebra, or refused by name."""

import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech.errors import SpecError
from psymech.posterior import tree as read
from tests.posterior.mediation_trees import chosen_tree

EXACT = 1e-9
SAMPLES = ("chain", "draw")
SPECS = {
    "1-1-2": psm.mediation("coping_post", treatment="exposure", mediators="alliance", random={"patient": ("a",)}),
    "mixed": psm.outcomes(["coping", "phq9"], techniques=["exposure"], level={"phq9": "session"}),
    "patients": psm.outcomes(["coping", "resources"], techniques=["exposure"], random={"therapist": ["exposure"]}),
}


@pytest.fixture(scope="module")
def data() -> psm.SessionData:
    return psm.load_example("process_study")


@pytest.fixture(scope="module")
def trees(data: psm.SessionData) -> dict[str, xr.DataTree]:
    return {name: chosen_tree(spec, data, seed=3) for name, spec in SPECS.items()}


def rows_and_columns(tree: xr.DataTree, response: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of a response, its columns there, and their coefficients (chain, draw, term)."""
    data = tree["constant_data"].dataset
    at = list(read.responses_of(tree)).index(response)
    rows = np.flatnonzero(data["response_of_obs"].values == at)
    terms = [i for i, t in enumerate(data["term"].values) if str(t).startswith(f"{response}~")]
    return rows, data["X"].values[np.ix_(rows, terms)], tree["posterior"]["beta"].values[..., terms]


def therapist_variance(tree: xr.DataTree, rows: np.ndarray) -> np.ndarray:
    """Mean of z' Omega z over rows, row by row."""
    z = tree["constant_data"]["Z_therapist"].values[rows]
    sd, corr = tree["posterior"]["sd_therapist"].values, tree["posterior"]["corr_therapist"].values
    total = np.zeros(sd.shape[:2])
    for one in z:
        total += np.einsum("cdi,cdij,cdj->cd", sd * one, corr, sd * one)
    return total / len(z)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("per", ["session", "patient"])
def test_one_score_a_patient_has_one_denominator(trees: dict[str, xr.DataTree], name: str, per: str) -> None:
    tree = trees[name]
    rows, _, _ = rows_and_columns(tree, "coping_post")
    therapist = therapist_variance(tree, rows)
    residual = tree["posterior"]["sigma"].sel(response="coping_post").values ** 2
    found = psm.variance_partition(tree, response="coping_post", per=per)  # pyright: ignore[reportArgumentType]
    assert found["level"].values.tolist() == ["therapist", "residual"]
    np.testing.assert_allclose(found["share"].sel(level="therapist"), therapist / (therapist + residual), rtol=EXACT)
    assert found.attrs["per"] == "patient"
    assert found.attrs["denominator"] == "therapist + residual variance, of one outcome per patient"


def test_a_score_is_no_mean_of_sessions(trees: dict[str, xr.DataTree]) -> None:
    with pytest.raises(SpecError, match="'coping_post' has one value a patient, it is no mean of sessions"):
        psm.variance_partition(trees["mixed"], response="coping_post", per="patient", sessions=10)


def test_the_outcome_of_sessions_keeps_its_levels(trees: dict[str, xr.DataTree]) -> None:
    tree = trees["mixed"]
    draws = tree["posterior"].dataset
    parts = [
        draws["sd_patient"].sel(patient_term="phq9~Intercept").values ** 2,
        draws["sd_therapist"].sel(therapist_term="phq9~Intercept").values ** 2,
        draws["sigma"].sel(response="phq9").values ** 2,
    ]
    found = psm.variance_partition(tree, response="phq9")
    assert found["level"].values.tolist() == ["patient", "therapist", "residual"]
    np.testing.assert_allclose(found["share"].values, np.stack(parts, axis=-1) / sum(parts)[..., None], rtol=EXACT)


@pytest.mark.parametrize("name", SPECS)
def test_explained_variance_of_one_score_a_patient(trees: dict[str, xr.DataTree], name: str) -> None:
    tree = trees[name]
    rows, X, beta = rows_and_columns(tree, "coping_post")
    fixed = np.einsum("nt,cdt->cdn", X, beta)
    therapist = tree["constant_data"]["therapist_of_obs"].values[rows]
    means = np.stack([fixed[..., therapist == k].mean(-1) for k in range(therapist.max() + 1)], axis=-1)[..., therapist]
    patients, therapists = (fixed - means).var(axis=-1), means.var(axis=-1)
    random = therapist_variance(tree, rows)
    residual = tree["posterior"]["sigma"].sel(response="coping_post").values ** 2
    total = patients + therapists + random + residual
    found = psm.r2(tree, response="coping_post")
    sources = found["source"].values.tolist()
    assert sources == ["fixed.patient", "fixed.therapist", "slopes.therapist", "means.therapist", "residual"]
    np.testing.assert_allclose(found["total"].sel(source="fixed.patient"), patients / total, rtol=EXACT)
    np.testing.assert_allclose(found["total"].sel(source="fixed.therapist"), therapists / total, rtol=EXACT)
    own = found["total"].sel(source=["slopes.therapist", "means.therapist"]).sum("source")
    np.testing.assert_allclose(own, random / total, rtol=EXACT)
    assert found["within"].isnull().all()
    np.testing.assert_allclose(found["between"], found["total"], rtol=EXACT)


@pytest.mark.parametrize("name", ["mixed", "patients"])
def test_prediction_of_a_score_is_its_equation(trees: dict[str, xr.DataTree], data: psm.SessionData, name: str) -> None:
    tree = trees[name]
    rows, X, beta = rows_and_columns(tree, "coping_post")
    constants = tree["constant_data"].dataset
    therapist = constants["therapist_of_obs"].values[rows]
    v = tree["posterior"]["u_therapist"].values[:, :, therapist]
    wanted = np.einsum("nt,cdt->cdn", X, beta) + np.einsum("nq,cdnq->cdn", constants["Z_therapist"].values[rows], v)
    found = psm.predict(tree, data, response="coping_post", seed=1)
    place = {int(row): k for k, row in enumerate(found["obs"].values)}
    at = [place[int(data.source_row[row])] for row in constants["row_of_obs"].values[rows]]
    np.testing.assert_allclose(found.values[..., at], wanted, rtol=1e-7, atol=1e-9)


def test_prediction_without_the_score_before_names_the_column(
    trees: dict[str, xr.DataTree], data: psm.SessionData
) -> None:
    with pytest.raises(psm.DataError, match="no column 'coping_pre'"):
        psm.predict(trees["mixed"], data.sessions.head(4), response="coping_post", seed=1)


@pytest.mark.parametrize("name", SPECS)
def test_checks_of_the_model_cover_every_response(trees: dict[str, xr.DataTree], name: str) -> None:
    report = psm.check_model(trees[name], draws=10)
    text = str(report)
    for response in read.responses_of(trees[name]):
        assert response in text
