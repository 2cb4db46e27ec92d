"""The tree's contract: variables, dims, coordinates and attributes of every kind of model.

The draws come from the prior: the tree does not ask where draws come from, and no sampler has to be compiled.
"""

import json

import numpy as np
import pymc as pm
import pytest
import xarray as xr

import psymech as psm
from psymech.graph.build import BuiltModel
from psymech.inference.tree import assemble_tree, variable_dims
from psymech.spec.model import Family, from_json
from tests.graph.explicit_designs import MODE
from tests.inference.studies import FREE, small_data, small_frame

CHAINS, DRAWS = 2, 3


def tree_of(built: BuiltModel) -> xr.DataTree:
    names = [name for name in variable_dims(built.design) if name in built.model.named_vars]
    drawn = pm.draw([built.model[name] for name in names], draws=CHAINS * DRAWS, random_seed=1, mode=MODE)
    values = {n: np.reshape(d, (CHAINS, DRAWS, *d.shape[1:])) for n, d in zip(names, drawn, strict=True)}
    stats = {"diverging": np.zeros((CHAINS, DRAWS), dtype=bool), "depth": np.ones((CHAINS, DRAWS), dtype=int)}
    return assemble_tree(values, stats, spec=built.spec, design=built.design, attrs={"seed": 1})


def built_model(family: Family = "gaussian", *, therapist: bool = True, **keywords: object) -> BuiltModel:
    spec = psm.growth("y", family=family, **keywords)  # pyright: ignore[reportArgumentType]
    return psm.build_model(spec, small_data(1, family=family, therapist=therapist), engine="explicit")


CASES: dict[str, tuple[dict, dict]] = {
    "gaussian": ({}, {"sigma": ("chain", "draw")}),
    "two levels": ({"therapist": False}, {"sigma": ("chain", "draw")}),
    "AR(1)": ({"residual": "ar1"}, {"sigma": ("chain", "draw"), "phi": ("chain", "draw")}),
    "student": ({"family": "student"}, {"sigma": ("chain", "draw"), "nu": ("chain", "draw")}),
    "bernoulli": ({"family": "bernoulli"}, {}),
    "ordinal": ({"family": "ordinal"}, {"cutpoints": ("chain", "draw", "threshold")}),
}


@pytest.mark.parametrize("name", CASES)
def test_variables_dims_and_coordinates(name: str) -> None:
    keywords, others = CASES[name]
    built = built_model(**keywords)
    tree = tree_of(built)
    levels = ("patient",) if name == "two levels" else ("patient", "therapist")
    expected: dict[str, tuple[str, ...]] = {"beta": ("chain", "draw", "term"), **others}
    for level in levels:
        expected[f"sd_{level}"] = ("chain", "draw", f"{level}_term")
        expected[f"corr_{level}"] = ("chain", "draw", f"{level}_term", f"{level}_term_aux")
        expected[f"u_{level}"] = ("chain", "draw", level, f"{level}_term")
    posterior = tree["posterior"].dataset
    assert {str(n): v.dims for n, v in posterior.data_vars.items()} == expected
    assert list(posterior["term"].values) == list(built.design.terms)
    assert list(posterior["patient_term"].values) == ["Intercept", "time"]
    assert len(posterior["patient"]) == 24
    assert ("therapist" in posterior.coords) == (name != "two levels")
    if name == "ordinal":
        assert list(posterior["threshold"].values) == ["1|2", "2|3", "3|4"]
    assert set(tree.children) >= {"posterior", "sample_stats", "observed_data", "constant_data"}


def test_constant_data_rebuilds_the_linear_predictor() -> None:
    built = built_model(random={"patient": ["time"], "therapist": ["time"]})
    tree = tree_of(built)
    data = tree["constant_data"].dataset
    y = built.model["y"]
    mean = y.owner.op.dist_params(y.owner)[0]
    variables = [mean, *(built.model[name] for name in ("beta", "u_patient", "u_therapist"))]
    expected, beta, *effects = pm.draw(variables, random_seed=2, mode=MODE)
    rows = data["X"].values @ beta
    for level, u in zip(("patient", "therapist"), effects, strict=True):
        rows += (data[f"Z_{level}"].values * u[data[f"{level}_of_obs"].values]).sum(axis=1)
    np.testing.assert_allclose(rows, expected, rtol=1e-12)


def test_rows_and_units_find_their_way_back_to_the_table() -> None:
    tree = tree_of(built_model())
    data, posterior, table = tree["constant_data"].dataset, tree["posterior"].dataset, small_frame(1)
    for level in ("patient", "therapist"):
        labels = posterior[level].values[data[f"{level}_of_obs"].values]
        np.testing.assert_array_equal(labels, table[level])
    np.testing.assert_array_equal(data["session_of_obs"], table["session"])
    np.testing.assert_array_equal(tree["observed_data"]["y"], table["y"])
    therapists = posterior["therapist"].values[data["therapist_of_patient"].values]
    np.testing.assert_array_equal(therapists, [p[:2] for p in posterior["patient"].values])


def test_uncorrelated_terms_have_correlation_zero() -> None:
    posterior = tree_of(built_model(correlated=False))["posterior"].dataset
    np.testing.assert_array_equal(posterior["corr_patient"].values, np.broadcast_to(np.eye(2), (CHAINS, DRAWS, 2, 2)))


def test_sd_and_corr_are_those_of_the_effects() -> None:
    built = built_model(random={"patient": ["time"]})
    z, u, sd, corr = (built.model[n] for n in ("z_patient", "u_patient", "sd_patient", "corr_patient"))
    drawn_z, drawn_u, drawn_sd, drawn_corr = pm.draw([z, u, sd, corr], random_seed=4, mode=MODE)
    factor = np.linalg.lstsq(drawn_z, drawn_u, rcond=None)[0].T
    covariance = np.outer(drawn_sd, drawn_sd) * drawn_corr
    np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-9)


def test_attributes_tell_what_was_fitted() -> None:
    built = built_model(covariates=["x"])
    attrs = tree_of(built).attrs
    assert attrs["psymech_version"] == psm.__version__
    assert from_json(attrs["psymech_spec"]) == built.spec
    assert [t["label"] for t in json.loads(attrs["psymech_terms"])] == list(built.design.terms)
    assert all(isinstance(value, str | int | float) for value in attrs.values())  # what netCDF and zarr can store


def test_statistics_have_one_spelling() -> None:
    stats = tree_of(built_model())["sample_stats"].dataset
    assert set(stats.data_vars) == {"diverging", "tree_depth"}
    assert all(v.dims == ("chain", "draw") for v in stats.data_vars.values())


def test_crossed_patients_name_no_parent() -> None:
    frame = small_frame(4)
    frame["therapist"] = [f"T{k}" for k in np.random.default_rng(4).integers(0, 6, size=len(frame))]
    data = psm.SessionData.from_frame(frame, patient_ids="crossed", ranges=FREE)
    tree = tree_of(psm.build_model(psm.growth("y"), data, engine="explicit"))
    assert "therapist_of_patient" not in tree["constant_data"].dataset
    assert json.loads(tree.attrs["psymech_design"])["nested"] is False
