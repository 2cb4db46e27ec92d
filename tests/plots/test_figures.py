"""Figures show the numbers that the estimates give; both backends; nothing is shown, everything is returned."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from arviz_plots.plot_collection import PlotCollection

from psymech.errors import SpecError
from psymech.plots.canvas import broken_lines, segments
from psymech.plots.therapists import plot_therapists
from psymech.plots.trajectories import plot_trajectories
from psymech.plots.variance import plot_variance_partition
from psymech.posterior.therapists import summarize_therapists
from psymech.posterior.trajectories import expected_trajectories
from psymech.posterior.variance import variance_partition
from tests.posterior.fitted_trees import make_tree

BACKENDS = ("matplotlib", "plotly")


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    return make_tree(n_therapists=12)


def artist(collection: PlotCollection, name: str):
    return collection.viz[name]["artist"].item()


def points(of, backend: str) -> tuple[np.ndarray, np.ndarray]:
    if backend == "matplotlib":
        return np.asarray(of.get_xdata(), dtype=float), np.asarray(of.get_ydata(), dtype=float)
    return np.asarray(of.x, dtype=float), np.asarray(of.y, dtype=float)


@pytest.mark.parametrize("backend", BACKENDS)
def test_caterpillar_draws_the_table(tree: xr.DataTree, backend: str) -> None:
    collection = plot_therapists(tree, backend=backend)
    table = summarize_therapists(tree).sort_values("mean")
    drawn = {}
    for side in range(3):
        if f"interval_{side}" in collection.viz.children:
            x, y = points(artist(collection, f"interval_{side}"), backend)
            for left, right, at in zip(x[::3], x[1::3], y[::3], strict=True):
                drawn[round(at)] = (left, right, side)
    assert len(drawn) == 12
    for at, (left, right, side) in drawn.items():
        row = table.iloc[at]
        assert (left, right) == (row["eti89_lb"], row["eti89_ub"])
        assert side == (2 if left > 0 else 0 if right < 0 else 1)


def test_caterpillar_labels_state_estimand_and_unit(tree: xr.DataTree) -> None:
    collection = plot_therapists(tree, term="time", higher_is_better=False, ci_prob=0.5, backend="matplotlib")
    left, rank, caseload = collection.viz["figure"].item().axes
    assert "time: deviation from the average therapist\n[phq9 units per unit of time]" in left.get_xlabel()
    assert "50% interval" in left.get_xlabel()
    assert "12 = lowest value" in rank.get_xlabel()
    assert "patients" in caseload.get_xlabel()
    ids = [label.get_text() for label in left.get_yticklabels()]
    assert ids == summarize_therapists(tree, term="time").sort_values("mean").index.tolist()


def test_many_therapists_lose_their_labels_not_their_lines() -> None:
    tree = make_tree(n_therapists=80, patients_each=2, sessions_each=3, draws=50)
    collection = plot_therapists(tree, backend="matplotlib")
    left = collection.viz["figure"].item().axes[0]
    assert left.get_yticklabels() == []
    assert "80 therapists" in left.get_ylabel()
    x, _ = points(artist(collection, "rank_interval"), "matplotlib")
    assert np.isfinite(x).sum() == 160


@pytest.mark.parametrize("backend", BACKENDS)
def test_trajectories_draw_the_expected_course(tree: xr.DataTree, backend: str) -> None:
    collection = plot_trajectories(tree, max_patients=10, backend=backend)
    x, y = points(artist(collection, "mean_line"), backend)
    expected = expected_trajectories(tree)["mean"].mean(("chain", "draw"))
    np.testing.assert_array_equal(x, expected["time"])
    np.testing.assert_array_equal(y, expected)
    _, seen = points(artist(collection, "observed"), backend)
    assert np.isnan(seen).sum() == 9  # ten patients, a gap between each two
    assert "unit_lines" in collection.viz.children


def test_trajectories_without_therapists_and_for_binary_outcomes() -> None:
    two_level = plot_trajectories(make_tree(levels=("patient",)), backend="matplotlib")
    assert "unit_lines" not in two_level.viz.children
    binary = plot_trajectories(make_tree(family="bernoulli"), backend="matplotlib")
    assert binary.viz["figure"].item().axes[0].get_ylabel() == "probability of phq9"


@pytest.mark.parametrize("backend", BACKENDS)
def test_variance_shares_are_drawn(tree: xr.DataTree, backend: str) -> None:
    collection = plot_variance_partition(tree, backend=backend)
    share = 100 * variance_partition(tree)["share"].sel(level="therapist")
    x, _ = points(artist(collection, "interval_therapist"), backend)
    np.testing.assert_allclose(x, np.quantile(share, [0.055, 0.945]), rtol=1e-12)
    curves = plot_variance_partition(tree, at={"time": [6, 0, 3]}, per="patient", backend=backend)
    x, y = points(artist(curves, "line_therapist"), backend)
    np.testing.assert_array_equal(x, [0, 3, 6])
    expected = variance_partition(tree, at={"time": [0, 3, 6]}, per="patient")["share"].sel(level="therapist")
    np.testing.assert_allclose(y, 100 * expected.mean(("chain", "draw")), rtol=1e-12)
    assert "line_residual" not in curves.viz.children


def test_nothing_is_shown_and_unknown_backends_are_named(tree: xr.DataTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", lambda *_a, **_k: pytest.fail("show was called"))
    assert isinstance(plot_variance_partition(tree, backend="matplotlib"), PlotCollection)
    with pytest.raises(SpecError, match="matplotlib, plotly, found 'bokeh'"):
        plot_therapists(tree, backend="bokeh")
    with pytest.raises(SpecError, match="two or more values of 'time'"):
        plot_variance_partition(tree, at={"time": [1]}, backend="matplotlib")


@pytest.mark.parametrize("name", ["fit.png", "fit.html"])
def test_figures_can_be_saved(tree: xr.DataTree, name: str, tmp_path) -> None:
    plot_therapists(tree, backend="plotly" if name.endswith("html") else "matplotlib").savefig(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 10_000


def test_segments_and_broken_lines() -> None:
    x, y = segments(np.array([1.0, 3.0]), np.array([2.0, 4.0]), np.array([0, 1]))
    np.testing.assert_array_equal(x, [1, 2, np.nan, 3, 4, np.nan])
    np.testing.assert_array_equal(y, [0, 0, np.nan, 1, 1, np.nan])
    x, y = broken_lines(np.array([2, 1, 5]), np.array([20, 10, 50]), np.array([0, 0, 1]))
    np.testing.assert_array_equal(x, [1, 2, np.nan, 5])
    np.testing.assert_array_equal(y, [10, 20, np.nan, 50])
