"""Observed courses of patients, expected courses of therapists, and the mean."""

from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from psymech import names
from psymech.errors import SpecError
from psymech.plots import canvas as draw
from psymech.posterior import tree as read
from psymech.posterior.summaries import interval, interval_prob
from psymech.posterior.trajectories import expected_trajectories

if TYPE_CHECKING:
    from arviz_plots.plot_collection import PlotCollection

FEW_UNITS: Final = 30  # lines of more units than this are drawn thinner, and the fainter the more there are
FAINTEST: Final = 0.06


def plot_trajectories(
    tree: xr.DataTree,
    *,
    response: str | None = None,
    level: str = "therapist",
    max_patients: int = 80,
    smallest: int = 1,
    ci_prob: float | None = None,
    backend: str | None = None,
) -> "PlotCollection":
    """Outcome over time: observed courses of patients, expected course of each therapist, and the mean with its
    interval.

    The band is the interval of the expected outcome of the average therapist's average patient, not of single
    outcomes. For binary outcomes the observed share at each time stands in place of patients' courses. See
    :func:`psymech.posterior.trajectories.expected_trajectories` for what is held at its mean.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    response : str, optional
        Needed with several responses.
    level : {"therapist", "patient", "clinic"}
        Whose expected courses are drawn; left out where the model has no random effects there.
    max_patients : int
        Patients whose observed course is drawn, evenly spaced in the tree's order; the title says how many of how many.
    smallest : int
        The smallest number of patients behind a share of a binary outcome that is drawn; for reports.
    ci_prob : float, optional
        Probability of the band; ArviZ's setting (0.89) by default.
    backend : {"matplotlib", "plotly"}, optional

    Returns
    -------
    PlotCollection
        One panel, ``outcome``; not shown.

    Raises
    ------
    SpecError
        `smallest` below 1, or a response that the fit does not have.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.plot_trajectories(course).savefig("course.png")
    """
    if smallest < 1:
        raise SpecError(f"smallest: expected 1 or more, found {smallest!r}.")
    chosen = read.one_response(tree, response)
    lines = expected_trajectories(tree, response=chosen, level=level)
    collection = draw.canvas(("outcome",), width=8.5, height=5.5, ratios=None, backend=backend)
    module, target = draw.drawing(collection), draw.panel(collection, "outcome")
    observed, entries = _observed(collection, tree, chosen, max_patients, smallest)
    if "unit" in lines:
        n = lines.sizes[level]
        width, alpha = (1.0, 0.6) if n <= FEW_UNITS else (0.7, max(FAINTEST, 0.75 * FEW_UNITS / n))
        values = lines["unit"].transpose("time", level).values
        artist = module.multiple_lines(lines["time"].values, values, target, color=draw.BLUE, width=width, alpha=alpha)
        draw.keep(collection, "unit_lines", artist)
        entries.append((f"expected, {n} {level}s", {"color": draw.BLUE, "width": 1.4}))
    low, high = interval(lines["mean"], ci_prob)
    time = lines["time"].values
    draw.keep(
        collection, "band", module.fill_between_y(time, low.values, high.values, target, color=draw.ORANGE, alpha=0.35)
    )
    edges = np.stack([low.values, high.values], axis=1)
    draw.keep(collection, "band_edges", module.multiple_lines(time, edges, target, color=draw.ORANGE, width=0.8))
    mean = lines["mean"].mean(names.SAMPLE_DIMS).values
    draw.keep(collection, "mean_line", module.line(time, mean, target, color=draw.ORANGE, width=2.5))
    who = "mean" if read.family_of(tree, chosen) in read.IDENTITY_LINK else "typical patient of the average therapist"
    entries.append((f"{who}, {100 * interval_prob(ci_prob):g}% interval", {"color": draw.ORANGE, "width": 2.5}))
    module.xlabel("time (as given in the data)", target)
    module.ylabel(_axis(tree, chosen), target)
    draw.legend(collection, entries)
    draw.title(collection, f"Course of {chosen}: {observed}")
    return collection


def _axis(tree: xr.DataTree, response: str) -> str:
    family = read.family_of(tree, response)
    if family == "bernoulli":
        return f"probability of {response}"
    return f"{response} (expected category)" if family == "ordinal" else f"{response} (outcome units)"


def _observed(
    collection: "PlotCollection", tree: xr.DataTree, response: str, max_patients: int, smallest: int
) -> tuple[str, list[tuple[str, dict]]]:
    """Draw what was observed; return it in words and its legend entry."""
    module, target = draw.drawing(collection), draw.panel(collection, "outcome")
    rows = read.rows_of_response(tree, response)
    y = read.outcome(tree)[rows]
    rows, y = rows[np.isfinite(y)], y[np.isfinite(y)]
    time = read.constants(tree)[names.TIME_OF_OBS].values[rows].astype(float)
    if read.family_of(tree, response) == "bernoulli":
        distinct, which, counts = np.unique(time, return_inverse=True, return_counts=True)
        share = np.bincount(which, weights=y) / counts
        pairs = np.unique(np.stack([which, read.unit_of_obs(tree, "patient")[rows]]), axis=1)
        enough = np.bincount(pairs[0], minlength=distinct.size) >= smallest
        artist = module.scatter(distinct[enough], share[enough], target, color=draw.GREY, size=30.0)
        draw.keep(collection, "observed", artist)
        return "observed share at each time", [("observed share", {"color": draw.GREY, "width": 4.0})]
    if max_patients < 1:
        return "expected", []
    patients = read.unit_of_obs(tree, "patient")[rows]
    everyone = np.unique(patients)
    shown = everyone[np.unique(np.linspace(0, everyone.size - 1, min(max_patients, everyone.size)).astype(int))]
    mine = np.isin(patients, shown)
    line_x, line_y = draw.broken_lines(time[mine], y[mine], patients[mine])
    draw.keep(collection, "observed", module.line(line_x, line_y, target, color=draw.GREY, width=0.7, alpha=0.35))
    words = (
        f"{shown.size} of {everyone.size} patients shown" if shown.size < everyone.size else f"{everyone.size} patients"
    )
    return words, [("observed, patients", {"color": draw.GREY, "width": 0.7})]
