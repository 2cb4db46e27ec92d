import json

import numpy as np
import pytest
import xarray as xr
from scipy.special import expit

from psymech import names
from psymech.posterior.trajectories import GRID_POINTS, columns_at, expected_trajectories
from tests.posterior.fitted_trees import make_tree


def changed(tree: xr.DataTree, **variables: tuple[tuple[str, ...], np.ndarray]) -> xr.DataTree:
    new = tree.copy()
    new["constant_data"] = xr.DataTree(tree["constant_data"].to_dataset().assign(variables))
    return new


def test_mean_and_units_by_hand(tree: xr.DataTree) -> None:
    found = expected_trajectories(tree)
    x = tree["constant_data"]["X"].values
    beta = tree["posterior"]["beta"].values
    held = x[:, 2:].mean(axis=0)
    t = found["time"].values
    expected = beta[1, 3, 0] + beta[1, 3, 1] * t + held @ beta[1, 3, 2:]
    np.testing.assert_allclose(found["mean"].values[1, 3], expected, rtol=1e-10)
    v = tree["posterior"]["u_therapist"].values.mean(axis=(0, 1))[2]
    line = found["unit"].isel(therapist=2).values
    np.testing.assert_allclose(
        line - found["mean"].mean(("chain", "draw")), np.where(np.isnan(line), np.nan, v[0] + v[1] * t), rtol=1e-8
    )


def test_units_end_where_they_were_last_seen(made: xr.DataTree) -> None:
    found = expected_trajectories(made)["unit"].isel(therapist=0)
    data = made["constant_data"]
    last = data["time_of_obs"].values[data["therapist_of_obs"].values == 0].max()
    assert float(found["time"][np.isfinite(found.values)].max()) == last


def test_probabilities() -> None:
    tree = make_tree(family="bernoulli")
    found = expected_trajectories(tree)
    x = columns_at(
        tree,
        np.arange(tree["constant_data"].sizes["obs"]),
        tree["constant_data"]["time_of_obs"].values,
        found["time"].values,
    )
    beta = tree["posterior"]["beta"].values[0, 0]
    np.testing.assert_allclose(found["mean"].values[0, 0], expit(np.stack(list(x.values()), 1) @ beta), rtol=1e-10)
    unit = found["unit"].values
    assert np.nanmin(unit) > 0
    assert np.nanmax(unit) < 1


def test_expected_category() -> None:
    tree = make_tree(family="bernoulli")
    data = (
        tree["posterior"]
        .to_dataset()
        .assign({names.CUTPOINTS: (("chain", "draw", names.THRESHOLD), np.broadcast_to([-1.0, 0.5, 2.0], (4, 250, 3)))})
    )
    ordinal = tree.copy()
    ordinal["posterior"] = xr.DataTree(data)
    ordinal.attrs = {**tree.attrs, names.ATTR_SPEC: tree.attrs[names.ATTR_SPEC].replace("bernoulli", "ordinal")}
    probability = expected_trajectories(tree)["mean"].values
    linear = np.log(probability / (1 - probability))
    expected = expit(linear + 1) + expit(linear - 0.5) + expit(linear - 2)  # categories 0 to 3
    np.testing.assert_allclose(expected_trajectories(ordinal)["mean"], expected, rtol=1e-9)


def test_products_with_time_follow_both_factors(made: xr.DataTree) -> None:
    data = made["constant_data"]
    x = data["X"].values
    product = x[:, 1] * x[:, 3]
    terms = json.loads(made.attrs["psymech_terms"])
    factors = [terms[1]["factors"][0], terms[3]["factors"][0]]
    new = changed(made, X=(("obs", "term"), np.concatenate([x[:, :4], product[:, None]], axis=1)))
    new.attrs = {
        **made.attrs,
        "psymech_terms": json.dumps(
            [*terms[:4], {**terms[4], "role": "interaction", "part": "raw", "factors": factors}]
        ),
    }
    times = data["time_of_obs"].values
    grid = np.unique(times)
    values = columns_at(new, np.arange(times.size), times, grid)
    np.testing.assert_allclose(values["alliance.therapist"], grid * x[:, 3].mean(), atol=1e-12)


def test_continuous_time_gets_a_grid(made: xr.DataTree) -> None:
    n = made["constant_data"].sizes["obs"]
    time = np.random.default_rng(0).uniform(0, 7, n)
    x = made["constant_data"]["X"].values.copy()
    x[:, 1] = time**2
    found = expected_trajectories(changed(made, X=(("obs", "term"), x), time_of_obs=(("obs",), time)))
    assert found.sizes["time"] == GRID_POINTS
    slope = made["posterior"]["beta"].values[0, 0, 1]
    curve = found["mean"].values[0, 0]
    midway = found["time"].values[20]
    expected = curve[0] + slope * (midway**2 - found["time"].values[0] ** 2)
    assert curve[20] == pytest.approx(expected, abs=0.01)  # linear between neighbours about 0.04 apart
