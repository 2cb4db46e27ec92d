"""Ingredient shares where patients change therapist."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import psymech as psm
from psymech import names
from psymech.design import Design, make_design
from psymech.posterior.shared_rows import mean_moment
from tests.models.golden.make_membership_study import membership_study
from tests.oracles import dense_weights
from tests.posterior.drawn_trees import drawn_tree

ROUNDING = 1e-10  # products and sums of a few hundred terms
STANDARD_ERRORS = 4.5  # of a Monte Carlo mean: missed once in 150,000
REPLICATES = 20_000
DRAW = (1, 7)


def study() -> tuple[pd.DataFrame, psm.SessionData]:
    frame = membership_study(therapists=5, patients=20, seed=3)
    frame["x"] = np.random.default_rng(2).normal(size=len(frame)) + frame["therapist"].str[1:].astype(float) / 3
    scores = ["score_pre", "score_post"]
    therapists = pd.DataFrame({"therapist": sorted(frame["therapist"].unique())})
    therapists["experience"] = np.arange(5.0)
    data = psm.SessionData.from_frame(
        frame.drop(columns=scores),
        patients=frame.groupby("patient", as_index=False)[scores].first(),
        therapists=therapists,
        patient_ids="crossed",
        ranges={"y": None},
    )
    return frame, data


def weights(design: Design) -> np.ndarray:
    level = design.level("therapist")
    assert level is not None
    return dense_weights(level)


def process(membership: str, covariates: tuple[str, ...] = ()) -> psm.ModelSpec:
    return psm.process(
        "y",
        techniques="x",
        covariates=covariates,
        slopes={"patient": [], "therapist": ["x"]},
        membership=membership,  # pyright: ignore[reportArgumentType]
    )


@pytest.mark.parametrize("membership", ["current", "to date"])
def test_therapists_count_within_and_between_patients_by_simulation(membership: str) -> None:
    _, data = study()
    spec = process(membership)
    tree, design = drawn_tree(spec, data), make_design(spec, data)
    shares = psm.ingredient_shares(tree)
    assert shares["level"].values.tolist() == ["within", "patient"]
    np.testing.assert_allclose(shares["share"].sum("source"), 1.0, rtol=ROUNDING)
    total = psm.r2(tree)["variance"].sum("source")
    np.testing.assert_allclose(shares["variance"].sum(("level", "source")), total, rtol=ROUNDING)
    assert "Patients changed therapist" in shares.attrs["units"]

    level = design.level("therapist")
    assert level is not None
    draws = tree[names.POSTERIOR].to_dataset()
    sd, corr = draws["sd_therapist"].values[DRAW], draws["corr_therapist"].values[DRAW]
    effects = np.random.default_rng(1).multivariate_normal(
        np.zeros(2), corr * np.outer(sd, sd), size=(REPLICATES, level.n_units)
    )
    parts = np.einsum("nk,nj,rkj->rn", weights(design), level.Z, effects, optimize=True)
    patient = np.eye(design.levels[0].n_units)[design.levels[0].code]
    lasting = (parts @ patient / patient.sum(axis=0)) @ patient.T
    for where, simulated in (("within", parts - lasting), ("patient", lasting)):
        found = float(shares["variance"].sel(level=where, source="therapist")[DRAW])
        values = (simulated**2).mean(axis=1)
        error = STANDARD_ERRORS * values.std() / np.sqrt(REPLICATES)
        assert abs(found - values.mean()) < error


def test_a_therapists_trait_is_the_therapists() -> None:
    _, data = study()
    held = psm.ingredient_shares(drawn_tree(process("current", ("experience",)), data))
    assert json_terms(held)["therapist"] == ["experience"]
    assert float(held["variance"].sel(level="within", source="therapist").min()) > 0
    shared = psm.ingredient_shares(drawn_tree(process("to date", ("experience",)), data))
    assert json_terms(shared)["covariates"] == ["experience"]  # who held a session is not stored


def json_terms(shares: xr.Dataset) -> dict[str, list[str]]:
    return json.loads(shares.attrs["terms"])


def test_scores_of_patients_who_changed() -> None:
    _, data = study()
    spec = psm.outcomes("score", predictors="y", decompose="observed", membership="multiple")
    tree = drawn_tree(spec, data)
    shares = psm.ingredient_shares(tree)
    assert shares["level"].values.tolist() == ["patient"]
    expected = psm.variance_partition(tree)["variance"].sel(level="therapist").values
    found = shares["variance"].sel(level="patient", source="therapist").values
    without = json_terms(shares).get("therapist", [])
    assert without == []
    np.testing.assert_allclose(found, expected, rtol=ROUNDING)


def test_moments_of_group_means_by_hand() -> None:
    z = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 6.0]])
    code, weight = np.array([[0, 0], [0, 1], [1, 0]]), np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    c = np.array([[1.5 / 3, (2 + 2) / 3], [1.5 / 3, (2 + 6) / 3]])  # one patient: means of w z by therapist
    np.testing.assert_allclose(mean_moment(z, code, weight, np.zeros(3, dtype=int)), c.T @ c, rtol=ROUNDING)
    expected = z.T @ np.diag([1.0, 0.5, 1.0]) @ z / 3  # rows of their own: sums of squared weights
    np.testing.assert_allclose(mean_moment(z, code, weight, np.arange(3)), expected, rtol=ROUNDING)
