"""Posterior predictive checks: what was observed beside what the model predicts, by level."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech.arguments import checked_seed
from psymech.errors import SpecError
from psymech.plots import canvas as draw
from psymech.posterior import tree as read
from psymech.posterior.discrepancies import unit_means
from psymech.posterior.replicates import Rows, chunks, draw_outcome, linear, lowest, rows_of
from psymech.posterior.summaries import interval_prob

if TYPE_CHECKING:
    from arviz_plots.plot_collection import PlotCollection

Floats = NDArray[np.float64]
SESSION: Final = "session"
MAX_POINTS: Final = 200  # more sorted values than this are thinned to quantiles
DISCRETE: Final = ("bernoulli", "ordinal")
MAX_BINS: Final = 40


def plot_ppc(
    tree: xr.DataTree,
    *,
    level: str | Sequence[str] | None = None,
    response: str | None = None,
    draws: int = 300,
    ci_prob: float | None = None,
    seed: int = 0,
    backend: str | None = None,
) -> "PlotCollection":
    """Outcomes of sessions, and sorted means of patients and therapists, on the band in which the model expects them.

    The session panel compares outcomes with replicates for the fitted patients and therapists. The patient panel
    compares patients' means with those of *new* patients of the same therapists, the therapist panel therapists'
    means with those of new therapists with new patients, at the observed design. Points outside the band, or a line
    that crosses it, show values that the model does not produce. Sessions are shown as the share of each score or bin.

    Parameters
    ----------
    tree : DataTree
        A fitted tree with its data.
    level : {"session", "patient", "therapist", "clinic"} or several, optional
        Panels; by default sessions and every level with random effects.
    response : str, optional
        Needed with several responses.
    draws : int
        Replicated data sets.
    ci_prob : float, optional
        Probability of the band at each place; ArviZ's setting (0.89) by default.
    seed : int
        Of the replicates.
    backend : {"matplotlib", "plotly"}, optional

    Returns
    -------
    PlotCollection
        One panel a level; not shown.

    Raises
    ------
    SpecError
        A level that the model does not have.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.plot_ppc(tree, level="patient").savefig("ppc.png")
    """
    chosen = read.one_response(tree, response)
    rows = rows_of(tree, chosen)
    panels = _panels(tree, level)
    observed, predicted = _values(tree, rows, panels, draws, np.random.default_rng(checked_seed(seed)))
    collection = draw.canvas(
        panels, width=1.2 + 4.0 * len(panels), height=4.4, ratios=None, backend=backend, share_y=False
    )
    module = draw.drawing(collection)
    prob = interval_prob(ci_prob)
    for panel in panels:
        target = draw.panel(collection, panel)
        model, data = predicted[panel], observed[panel]
        low, high = np.quantile(model, [0.5 - prob / 2, 0.5 + prob / 2], axis=0)
        if panel == SESSION:
            _shares(collection, target, tree, rows, data, low, high)
            continue
        at = (np.arange(data.size) + 0.5) / data.size
        band = module.fill_between_y(at, low, high, target, color=draw.BLUE, alpha=0.3)
        draw.keep(collection, f"band_{panel}", band)
        middle = module.line(at, np.median(model, axis=0), target, color=draw.BLUE, width=1.2)
        draw.keep(collection, f"median_{panel}", middle)
        size = 16.0 if data.size <= 60 else 7.0
        draw.keep(collection, f"observed_{panel}", module.scatter(at, data, target, color=draw.BLACK, size=size))
        module.ylabel(f"mean {chosen} of a {panel}", target)
        module.xlabel(f"share of the {np.unique(rows.unit[panel]).size:,} {panel}s below", target)
        inside = 100.0 * ((data >= low) & (data <= high)).mean()
        module.title(f"{panel}s: {inside:.0f}% inside", target, size=draw.letters(collection, 11))
    middles = "" if panels == (SESSION,) else "median and "
    draw.legend(
        collection,
        [
            ("observed", {"color": draw.BLACK, "width": 3.0}),
            (f"model: {middles}{100 * prob:g}% band", {"color": draw.BLUE, "width": 3.0}),
        ],
    )
    return collection


def _panels(tree: xr.DataTree, level: str | Sequence[str] | None) -> tuple[str, ...]:
    known = (SESSION, *read.levels_of(tree))
    asked = known if level is None else (level,) if isinstance(level, str) else tuple(level)
    for each in asked:
        if each not in known:
            raise SpecError(f"level: expected one of {', '.join(known)}, found {each!r}.")
    if not asked:
        raise SpecError(f"level: expected at least one of {', '.join(known)}, found none.")
    return asked


def _values(
    tree: xr.DataTree, rows: Rows, panels: Sequence[str], draws: int, rng: np.random.Generator
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Observed values of each panel, and those of the replicates, shape (draws, values)."""
    levels = read.levels_of(tree)
    observed = {panel: _shown(rows, panel, _scored(tree, rows, panel, rows.y[None]))[0] for panel in panels}
    predicted: dict[str, list[Floats]] = {panel: [] for panel in panels}
    for chunk in chunks(tree, rows, draws=draws, rng=rng):
        for panel in panels:
            new = () if panel == SESSION else tuple(levels[: levels.index(panel) + 1])
            drawn = draw_outcome(tree, rows, linear(chunk, anew=new), chunk.draw, rng)
            predicted[panel].append(_shown(rows, panel, _scored(tree, rows, panel, drawn)))
    return observed, {panel: np.concatenate(values) for panel, values in predicted.items()}


def _scored(tree: xr.DataTree, rows: Rows, panel: str, y: Floats) -> Floats:
    """Outcomes whose means are shown: of ordinal ones the values of the categories, not their codes."""
    if panel == SESSION or rows.family != "ordinal":
        return y
    return read.categories_of(tree, rows.response)[np.rint(y - lowest(rows)).astype(np.int64)]


def _shown(rows: Rows, panel: str, y: Floats) -> Floats:
    """Shares of sessions in each bin, or sorted means of units thinned to quantiles, of data sets (s, n)."""
    if panel == SESSION:
        edges = bins(rows)
        inside = np.searchsorted(edges, y, side="right") - 1
        inside = np.clip(inside, -1, edges.size - 1)
        counts = [np.bincount(each + 1, minlength=edges.size + 1)[1:-1] for each in inside]
        return np.array(counts) / y.shape[1]
    values = np.sort(unit_means(y, rows.unit[panel]), axis=1)
    if values.shape[1] <= MAX_POINTS:
        return values
    at = (np.arange(MAX_POINTS) + 0.5) / MAX_POINTS
    return np.quantile(values, at, axis=1).T


def bins(rows: Rows) -> Floats:
    """Edges of the bins of a session's outcome: one a category or whole score where there are few, equal ones
    otherwise.

    Outcomes that are not categories get room at both ends, where a model may predict what cannot be observed.
    """
    low, high = float(rows.y.min()), float(rows.y.max())
    if rows.family in DISCRETE:
        return np.arange(low, high + 2.0) - 0.5
    room = 0.15 * (high - low)
    if (rows.y == np.round(rows.y)).all():
        width = max(1.0, np.ceil((high - low + 2 * room) / MAX_BINS))
        return np.arange(low - width * np.ceil(room / width), high + room + width, width) - 0.5
    return np.linspace(low - room, high + room, MAX_BINS + 1)


def _shares(
    collection: "PlotCollection",
    target: object,
    tree: xr.DataTree,
    rows: Rows,
    data: Floats,
    low: Floats,
    high: Floats,
) -> None:
    module = draw.drawing(collection)
    edges = bins(rows)
    middle = (edges[:-1] + edges[1:]) / 2
    x = np.repeat(middle, 3)
    y = np.stack([low, high, np.full(low.size, np.nan)], axis=1).ravel()
    draw.keep(collection, "band_session", module.line(x, y, target, color=draw.BLUE, width=5.0, alpha=0.5))
    draw.keep(collection, "observed_session", module.scatter(middle, data, target, color=draw.BLACK, size=14.0))
    own = read.level_of_response(tree, rows.response)
    if rows.family in DISCRETE:
        values = read.categories_of(tree, rows.response)[: middle.size] if rows.family == "ordinal" else middle
        module.xticks(middle, [f"{each:g}" for each in values], target)
    module.xlabel(f"{rows.response} of a {own}", target)
    module.ylabel(f"share of {own}s", target)
    module.ylim((0.0, 1.1 * float(max(high.max(), data.max()))), target)
    inside = 100.0 * ((data >= low) & (data <= high)).mean()
    module.title(f"{rows.y.size:,} {own}s: {inside:.0f}% of bins inside", target, size=draw.letters(collection, 11))
