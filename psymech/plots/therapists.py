"""Caterpillar of therapists' effects, with ranks and caseload."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import xarray as xr

from psymech.errors import SpecError, shown_ids
from psymech.names import INTERCEPT
from psymech.plots import canvas as draw
from psymech.posterior import tree as read
from psymech.posterior.summaries import interval_names, interval_prob
from psymech.posterior.therapists import summarize_therapists

if TYPE_CHECKING:
    from arviz_plots.plot_collection import PlotCollection

MARGIN: Final = 0.04  # of the range, left free at either end
MAX_LABELS: Final = 60  # more ids than this cannot be read one below the other


def plot_therapists(
    tree: xr.DataTree,
    *,
    term: str = INTERCEPT,
    response: str | None = None,
    level: str = "therapist",
    ci_prob: float | None = None,
    higher_is_better: bool = True,
    labels: bool | None = None,
    units: Sequence[object] | None = None,
    backend: str | None = None,
) -> "PlotCollection":
    """Caterpillar: each therapist's effect with its interval, sorted; beside it the rank with its interval, and
    the caseload.

    Intervals that exclude zero, the average therapist, are coloured (above: blue, below: orange). The rank panel
    shows how little a position in the list may mean: rank K is best, see :func:`rank_therapists`.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    term, response, level, ci_prob, higher_is_better
        As in :func:`summarize_therapists`.
    labels : bool, optional
        Write each unit's id; by default up to 60 units.
    units : sequence, optional
        Draw these units only; ranks stay those among all.
    backend : {"matplotlib", "plotly"}, optional
        ArviZ's setting by default.

    Returns
    -------
    PlotCollection
        Panels ``effect``, ``rank`` and ``caseload``; not shown.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.plot_therapists(tree, higher_is_better=False).savefig("therapists.png")
    """
    table = summarize_therapists(
        tree, term=term, ci_prob=ci_prob, response=response, level=level, higher_is_better=higher_is_better
    ).sort_values("mean", kind="stable")
    n_all = len(table)  # ranks run over all of them
    if units is not None:
        known = set(table.index)
        absent = [unit for unit in units if unit not in known]
        if isinstance(units, str) or absent or not len(units):
            raise SpecError(
                f"units: expected a list of the {len(known)} {level}s' ids, found {shown_ids(absent) or units!r}."
            )
        table = table.loc[[label for label in table.index if label in set(units)]]
    n = len(table)
    show = n <= MAX_LABELS if labels is None else labels
    size = max(2.6, 1.5 + 0.24 * n) if show else 8.0
    collection = draw.canvas(
        ("effect", "rank", "caseload"), width=10.0, height=size, ratios=(3.0, 2.0, 1.0), backend=backend
    )
    percent = f"{100 * interval_prob(ci_prob):g}%"
    _effects(collection, table, ci_prob)
    _ranks(collection, table, n_all)
    count = "n_patients" if "n_patients" in table else "n_sessions"
    _caseload(collection, table, count)

    module = draw.drawing(collection)
    label = read.random_label(tree, level, term, response)
    owner = response or next((r for r in read.responses_of(tree) if label.startswith(read.response_label(r, ""))), None)
    unit = draw.unit_of(tree, label=label, response=read.one_response(tree, owner))
    best = "highest" if higher_is_better else "lowest"
    module.xlabel(
        f"{_spoken(label)}: deviation from the average {level}\n[{unit}], mean and {percent} interval",
        _panel(collection, "effect"),
    )
    module.xlabel(f"rank ({n_all} = {best} value)\nmean and {percent} interval", _panel(collection, "rank"))
    module.xlabel(f"{count[2:]}\n(number)", _panel(collection, "caseload"))
    left = _panel(collection, "effect")
    if show:
        size = draw.letters(collection, 10 if n <= 30 else 8)
        module.yticks(np.arange(n), [str(each) for each in table.index], left, size=size)
        module.ylabel(level if n < 10 else f"{level}, sorted by mean", left)
    else:
        module.yticks([], [], left)
        module.ylabel(f"{n} {level}s, sorted by mean", left)
    module.ylim((-0.8, n - 0.2), left)
    away = int((_side(table, ci_prob) != 0).sum())
    draw.title(collection, f"{away} of {n} {level}s: the {percent} interval excludes the average {level}")
    return collection


def _panel(collection: "PlotCollection", name: str) -> object:
    return draw.panel(collection, name)


def _side(table: pd.DataFrame, ci_prob: float | None) -> np.ndarray:
    low, high = (table[name].to_numpy() for name in interval_names(ci_prob))
    return np.where(low > 0, 1, np.where(high < 0, -1, 0))


def _sizes(n: int) -> tuple[float, float]:
    """Width of an interval's line and area of a point, so that neighbours do not merge."""
    return (2.0, 28.0) if n <= MAX_LABELS else (0.8, 5.0)


def _effects(collection: "PlotCollection", table: pd.DataFrame, ci_prob: float | None) -> None:
    module, target = draw.drawing(collection), _panel(collection, "effect")
    width, size = _sizes(len(table))
    at = np.arange(len(table))
    fade = 1.0 if len(table) <= MAX_LABELS else 0.6
    low, high = (table[name].to_numpy() for name in interval_names(ci_prob))
    dashes = module.get_default_aes("linestyle", 2)[1]
    edges = np.array([-0.8, len(table) - 0.2])
    draw.keep(
        collection, "average", module.line(np.zeros(2), edges, target, color=draw.BLACK, width=1.0, linestyle=dashes)
    )
    span = max(high.max(), 0.0) - min(low.min(), 0.0)
    module.xlim((min(low.min(), 0.0) - MARGIN * span, max(high.max(), 0.0) + MARGIN * span), target)
    for side, colour in ((0, draw.GREY), (1, draw.BLUE), (-1, draw.ORANGE)):
        mine = _side(table, ci_prob) == side
        if mine.any():
            x, y = draw.segments(low[mine], high[mine], at[mine])
            draw.keep(
                collection, f"interval_{side + 1}", module.line(x, y, target, color=colour, width=width, alpha=fade)
            )
            dot = colour if fade == 1.0 else draw.BLACK
            module.scatter(table["mean"].to_numpy()[mine], at[mine], target, color=dot, size=size)


def _ranks(collection: "PlotCollection", table: pd.DataFrame, n_all: int) -> None:
    module, target = draw.drawing(collection), _panel(collection, "rank")
    width, size = _sizes(len(table))
    at = np.arange(len(table))
    x, y = draw.segments(table["rank_low"].to_numpy(), table["rank_high"].to_numpy(), at)
    draw.keep(collection, "rank_interval", module.line(x, y, target, color=draw.LIGHT, width=width))
    module.scatter(table["expected_rank"].to_numpy(), at, target, color=draw.BLACK, size=size)
    module.xlim((0.0, n_all + 1.0), target)
    places = draw.whole_ticks(1, n_all)
    module.xticks(places, [str(place) for place in places], target)


def _spoken(label: str) -> str:
    """Return a random term's label with the outcome that it belongs to behind it."""
    outcome, mark, own = label.partition("~")
    return f"{own} of {outcome}" if mark else label


def _caseload(collection: "PlotCollection", table: pd.DataFrame, count: str) -> None:
    module, target = draw.drawing(collection), _panel(collection, "caseload")
    width, size = _sizes(len(table))
    at, values = np.arange(len(table)), table[count].to_numpy()
    x, y = draw.segments(np.zeros(len(table)), values, at)
    draw.keep(collection, "caseload_bar", module.line(x, y, target, color=draw.LIGHT, width=width))
    module.scatter(values, at, target, color=draw.GREY, size=size)
    module.xlim((0.0, 1.1 * max(1, int(values.max()))), target)
    marks = draw.whole_ticks(0, max(1, int(values.max())), 4)
    module.xticks(marks, [str(mark) for mark in marks], target)
