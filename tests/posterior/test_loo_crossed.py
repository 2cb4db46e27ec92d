"""Sessions and patients left out where patients change therapist, against dense normal densities."""

import json

import numpy as np
import pytest
import xarray as xr

import psymech as psm
from psymech import names
from psymech.design import Design, make_design
from psymech.errors import SpecError
from psymech.inference.prior_table import prior_table
from psymech.level_design import LevelDesign
from psymech.posterior.loo import unit_log_density
from psymech.priors import choose_priors
from psymech.spec.priors import StudentT
from tests.models.golden.make_membership_study import membership_study
from tests.oracles import dense_log_density, dense_weights
from tests.posterior.drawn_trees import drawn_tree

TOLERANCE = 1e-8  # relative to 1 + |log p|: the oracle takes the difference of two dense densities
DRAWS = ((0, 3), (1, 7))


def study(**columns: object) -> psm.SessionData:
    frame = membership_study(therapists=5, patients=14, seed=3).assign(**columns)
    scores = ["score_pre", "score_post"]
    return psm.SessionData.from_frame(
        frame.drop(columns=scores),
        patients=frame.groupby("patient", as_index=False)[scores].first(),
        patient_ids="crossed",
        ranges={"y": None},
    )


def tree_of(spec: psm.ModelSpec, data: psm.SessionData) -> tuple[xr.DataTree, Design]:
    tree, design = drawn_tree(spec, data), make_design(spec, data)
    tree.attrs[names.ATTR_PRIORS] = prior_table(design, choose_priors(spec, design))
    return tree, design


def columns_of(level: LevelDesign) -> np.ndarray:
    """Rows by units times terms."""
    W = dense_weights(level)
    return (W[:, :, None] * level.Z[:, None, :]).reshape(len(W), -1)


def dense(tree: xr.DataTree, design: Design, draw: tuple[int, int], *, known: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all rows at one draw, written with matrices as wide as the study."""
    posterior = tree[names.POSTERIOR].to_dataset()
    sigma = np.atleast_1d(posterior[names.SIGMA].values[draw])
    V = np.diag(sigma[design.sd_code] ** 2)
    for level in design.levels:
        sd = posterior[names.sd(level.level)].values[draw]
        name = names.corr(level.level)
        corr = posterior[name].values[draw] if name in posterior else np.eye(len(sd))
        columns = columns_of(level)
        V += columns @ np.kron(np.eye(level.n_units), corr * np.outer(sd, sd)) @ columns.T
    if known:
        return design.X @ posterior[names.BETA].values[draw], V
    priors = json.loads(tree.attrs[names.ATTR_PRIORS])
    mean = np.array([priors[f"beta[{label}]"]["mean"] for label in design.terms])
    sd = np.array([priors[f"beta[{label}]"]["sd"] for label in design.terms])
    centred = design.X.copy()
    centred[:, 1:] -= design.X[:, 1:].mean(axis=0)  # the intercept's prior is that of the average row
    return centred @ mean, V + centred @ np.diag(sd**2) @ centred.T


SPECS = {
    "current": psm.growth("y", random={"patient": []}),
    "to date, slopes": psm.growth("y", random={"patient": ["time"], "therapist": ["time"]}, membership="to date"),
    "by group": psm.growth("y", covariates="early", random={"patient": []}, residual_by="early", membership="to date"),
    "beta known": psm.growth("y", membership="to date", priors={"beta[time]": StudentT(4.0, 0.0, 1.0)}),
}


@pytest.mark.parametrize("which", SPECS)
def test_units_left_out_equal_dense_conditionals(which: str) -> None:
    data = study()
    if which == "by group":
        data = study(early=lambda f: (f["session"] < 4).astype(float))
    tree, design = tree_of(SPECS[which], data)
    sessions, patients = unit_log_density(tree, unit="session"), unit_log_density(tree, unit="patient")
    labels = patients["patient"].values.tolist()
    rows = {labels[p]: np.flatnonzero(design.levels[0].code == p) for p in (0, 5, 13)}
    for draw in DRAWS:
        mean, V = dense(tree, design, draw, known=which == "beta known")
        whole = dense_log_density(design.y, mean, V)

        def expected(left: np.ndarray, mean: np.ndarray = mean, V: np.ndarray = V, whole: float = whole) -> float:
            kept = np.setdiff1d(np.arange(design.n_obs), left)
            return whole - dense_log_density(design.y[kept], mean[kept], V[np.ix_(kept, kept)])

        for row in (0, 17, design.n_obs - 1):
            found, wanted = float(sessions[(*draw, row)]), expected(np.array([row]))
            assert abs(found - wanted) < TOLERANCE * (1 + abs(wanted))
        for label, left in rows.items():
            found, wanted = float(patients.sel(patient=label)[draw]), expected(left)
            assert abs(found - wanted) < TOLERANCE * (1 + abs(wanted))


def test_scores_of_patients_and_several_outcomes() -> None:
    """One row a patient and no patients' effects; two outcomes, each with its residual SD."""
    spec = psm.outcomes("score", predictors="y", decompose="observed", membership="multiple")
    tree, design = tree_of(spec, study())
    mean, V = dense(tree, design, DRAWS[0], known=False)
    found = unit_log_density(tree, unit="session")
    assert found.sizes["obs"] == design.n_obs == 14
    kept = np.arange(1, 14)
    expected = dense_log_density(design.y, mean, V) - dense_log_density(
        design.y[kept], mean[kept], V[np.ix_(kept, kept)]
    )
    assert abs(float(found[(*DRAWS[0], 0)]) - expected) < TOLERANCE * (1 + abs(expected))


@pytest.mark.filterwarnings("ignore:Pareto k is greater")  # the draws have no meaning
def test_elpd_and_what_is_refused() -> None:
    data = study()
    tree, design = tree_of(SPECS["to date, slopes"], data)
    assert psm.loo(tree, unit="patient").n_data_points == 14
    assert psm.loo(tree).n_data_points == design.n_obs
    with pytest.raises(SpecError, match="they are crossed"):
        psm.loo(tree, unit="therapist")
    with pytest.raises(SpecError, match="the residuals are 'ar1'"):
        psm.loo(tree_of(psm.growth("y", residual="ar1"), data)[0])
    by_therapist = drawn_tree(psm.growth("y", random={"patient": []}, residual_by="therapist"), data)
    with pytest.raises(SpecError, match="residual_by='therapist'"):
        psm.loo(by_therapist, unit="patient")
