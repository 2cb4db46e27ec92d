"""Effects, ranks, design and predictive checks show the numbers they claim to show, on both backends."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import psymech as psm
from psymech.errors import SpecError
from psymech.plots.design import _bars, plot_design, without_small
from psymech.plots.effects import plot_effects
from psymech.plots.ppc import bins, plot_ppc
from psymech.plots.ranks import plot_ranks
from psymech.plots.trajectories import plot_trajectories
from psymech.posterior.effects import effects
from psymech.posterior.ranks import rank_therapists
from psymech.posterior.replicates import rows_of
from tests.plots.test_figures import BACKENDS, artist, points
from tests.posterior.fitted_trees import make_tree


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    return make_tree(n_therapists=12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_effects_are_those_of_the_table_per_sd(tree: xr.DataTree, backend: str) -> None:
    collection = plot_effects(tree, terms=["time"], backend=backend)
    x, _ = points(artist(collection, "interval_777777"), backend)
    row = effects(tree).loc["time"]
    spread = tree["constant_data"].dataset["X"].sel(term="time").values.std()
    np.testing.assert_allclose(x[:2], [row["eti89_lb"] * spread, row["eti89_ub"] * spread], rtol=1e-12)
    raw = plot_effects(tree, scale="raw", terms=["alliance.patient - alliance.within"], backend=backend)
    x, _ = points(artist(raw, "interval_777777"), backend)
    row = effects(tree).loc["alliance.patient - alliance.within"]
    np.testing.assert_allclose(x[:2], [row["eti89_lb"], row["eti89_ub"]], rtol=1e-12)


def test_effects_leave_out_the_intercept_and_name_the_unit(tree: xr.DataTree) -> None:
    axes = plot_effects(tree, backend="matplotlib").viz["figure"].item().axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == ["alliance.therapist", "alliance.patient", "alliance.within", "time"]
    assert axes.get_xlabel().startswith("change for one SD of the column [phq9 units]")
    with pytest.raises(SpecError, match="no effect mood"):
        plot_effects(tree, terms=["mood"])
    with pytest.raises(SpecError, match="sd, raw"):
        plot_effects(tree, scale="z")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("backend", BACKENDS)
def test_ranks_draw_the_probabilities_of_high_ranks(tree: xr.DataTree, backend: str) -> None:
    collection = plot_ranks(tree, top=0.25, backend=backend)
    table = rank_therapists(tree, top=0.25)
    order = np.argsort(table["expected_rank"].values, kind="stable")
    drawn = artist(collection, "first")
    x = np.asarray(drawn.get_offsets())[:, 0] if backend == "matplotlib" else np.asarray(drawn.x)
    np.testing.assert_allclose(x, table["p_top"].values[order])


@pytest.mark.parametrize("n", [5, 500])
def test_ranks_are_drawn_for_few_and_for_many(n: int) -> None:
    made = make_tree(n_therapists=n, patients_each=2, sessions_each=3, draws=25, chains=2)
    axes = plot_ranks(made, backend="matplotlib").viz["figure"].item().axes[0]
    assert (len(axes.get_yticklabels()) == n) == (n == 5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_predictive_check_shows_the_observed_means(tree: xr.DataTree, backend: str) -> None:
    collection = plot_ppc(tree, level="therapist", draws=40, backend=backend)
    drawn = artist(collection, "observed_therapist")
    y = np.asarray(drawn.get_offsets())[:, 1] if backend == "matplotlib" else np.asarray(drawn.y)
    code = tree["constant_data"].dataset["therapist_of_obs"].values
    outcome = tree["observed_data"].dataset["y"].values
    means = np.bincount(code, outcome) / np.bincount(code)
    np.testing.assert_allclose(y, np.sort(means))


def test_predictive_check_has_a_panel_a_level_and_refuses_others(tree: xr.DataTree) -> None:
    collection = plot_ppc(tree, draws=20, backend="matplotlib")
    assert len(collection.viz["figure"].item().axes) == 3
    with pytest.raises(SpecError, match="session, patient, therapist, found 'clinic'"):
        plot_ppc(tree, level="clinic")


def test_predictive_check_of_a_binary_outcome_shows_shares() -> None:
    made = make_tree(family="bernoulli")
    collection = plot_ppc(made, level="session", draws=40, backend="matplotlib")
    drawn = np.asarray(artist(collection, "observed_session").get_offsets())
    y = made["observed_data"].dataset["y"].values
    np.testing.assert_allclose(drawn, [[0.0, 1 - y.mean()], [1.0, y.mean()]])


def test_bins_leave_room_where_a_model_may_predict_the_impossible(tree: xr.DataTree) -> None:
    rows = rows_of(tree, "phq9")
    edges = bins(rows)
    assert edges[0] < rows.y.min() and edges[-1] > rows.y.max()
    assert np.allclose(np.diff(edges), np.diff(edges)[0])


def test_design_counts_sessions_of_patients(tree: xr.DataTree) -> None:
    session = tree["constant_data"].dataset["session_of_obs"].values
    counts = np.unique(session, return_counts=True)[1]
    assert list(artist(plot_design(tree, backend="plotly"), "bars_presence").y) == counts.tolist()
    area = artist(plot_design(tree, backend="matplotlib"), "bars_presence")
    assert area.get_paths()[0].vertices[:, 1].max() == counts.max()


def test_design_of_a_table_with_small_groups_left_out() -> None:
    data = psm.load_example("process_study")
    heights = list(artist(plot_design(data, smallest=5, backend="plotly"), "bars_caseload").y)
    load = [n for n in heights if n > 0]
    assert min(load) >= 5 and len(heights) - len(load) != 1
    two_level = plot_design(make_tree(levels=("patient",)), backend="matplotlib")
    assert "bars_presence" in two_level.viz.children
    with pytest.raises(SpecError, match="1 or more"):
        plot_design(data, smallest=0)


@pytest.mark.parametrize(
    ("counts", "kept"),
    [([9, 3, 6], [9, 0, 0]), ([9, 3, 2], [9, 0, 0]), ([9, 6], [9, 6]), ([3], [0]), ([9, 0, 6], [9, 0, 6])],
)
def test_a_single_small_count_takes_another_with_it(counts: list[int], kept: list[int]) -> None:
    assert without_small(np.array(counts), 5).tolist() == kept


def test_nothing_is_shown(tree: xr.DataTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", lambda *_a, **_k: pytest.fail("show was called"))
    plot_effects(tree, backend="matplotlib")
    plot_ranks(tree, backend="matplotlib")


def test_bars_do_not_reach_over_counts_that_are_left_out(tree: xr.DataTree) -> None:
    collection = plot_design(tree, backend="matplotlib")
    _bars(collection, "presence", np.array([0.5, 3.5]), np.array([9, 6]), 1.0, "#000000")  # sessions 1 and 4
    corners = artist(collection, "bars_presence").get_paths()[0].vertices
    assert set(corners[:, 1]) == {0.0, 6.0, 9.0}
    high = corners[corners[:, 1] == 9.0, 0]
    assert high.min() > 0.5 and high.max() < 1.5


def test_shares_of_few_patients_are_not_drawn_where_asked() -> None:
    made = make_tree(family="bernoulli")
    data = made["constant_data"].dataset
    pairs = pd.DataFrame({"time": data["time_of_obs"].values, "patient": data["patient_of_obs"].values})
    behind = pairs.groupby("time")["patient"].nunique()
    smallest = int(behind.max())
    enough = behind.index[behind >= smallest].tolist()
    some, every = (
        np.asarray(artist(plot_trajectories(made, smallest=n, backend="matplotlib"), "observed").get_offsets())[:, 0]
        for n in (smallest, 1)
    )
    assert some.tolist() == enough and every.tolist() == behind.index.tolist() and len(enough) < len(behind)
    with pytest.raises(SpecError, match="smallest: expected 1 or more, found 0"):
        plot_trajectories(made, smallest=0)
