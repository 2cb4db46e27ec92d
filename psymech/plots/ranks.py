"""Ranks of therapists with all their uncertainty, and who is probably high or low."""

from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from psymech.names import INTERCEPT, SAMPLE_DIMS
from psymech.plots import canvas as draw
from psymech.posterior import tree as read
from psymech.posterior.ranks import n_top, rank_draws
from psymech.posterior.summaries import interval, interval_prob

if TYPE_CHECKING:
    from arviz_plots.plot_collection import PlotCollection

MAX_LABELS: Final = 60
INNER: Final = 0.5


def plot_ranks(
    tree: xr.DataTree,
    *,
    term: str = INTERCEPT,
    response: str | None = None,
    level: str = "therapist",
    top: float = 0.2,
    ci_prob: float | None = None,
    higher_is_better: bool = True,
    labels: bool | None = None,
    backend: str | None = None,
) -> "PlotCollection":
    """Draw each therapist's rank (expected, 50 % and outer interval), and the probability of a high or a low one.

    Rank K of K is the best, as in :func:`psymech.rank_therapists`. Wide intervals are the message: where they span
    most of the ranks, the data do not order the therapists.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    term, response, level, higher_is_better
        As in :func:`psymech.rank_therapists`.
    top : float
        Share of the therapists that counts as high, and as low.
    ci_prob : float, optional
        Probability of the outer interval; ArviZ's setting (0.89) by default.
    labels : bool, optional
        Write each unit's id; by default up to 60 units.
    backend : {"matplotlib", "plotly"}, optional

    Returns
    -------
    PlotCollection
        Panels ``rank`` and ``extreme``; not shown.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.plot_ranks(tree, higher_is_better=False).savefig("ranks.png")
    """
    effects = read.unit_effects(tree, level=level, term=term, response=response)
    ranks = rank_draws(effects, level=level, higher_is_better=higher_is_better)
    order = np.argsort(ranks.mean(SAMPLE_DIMS).values, kind="stable")
    ranks = ranks.isel({level: order})
    n = ranks.sizes[level]
    best = n_top(n, top)
    at = np.arange(n)
    show = n <= MAX_LABELS if labels is None else labels
    height = max(2.8, 1.6 + 0.24 * n) if show else 8.0
    collection = draw.canvas(("rank", "extreme"), width=9.0, height=height, ratios=(3.0, 2.0), backend=backend)
    module = draw.drawing(collection)
    left, right = draw.panel(collection, "rank"), draw.panel(collection, "extreme")
    thin, thick, size = (1.6, 4.0, 26.0) if n <= MAX_LABELS else (0.6, 1.2, 4.0)
    for name, prob, colour, width in (("outer", ci_prob, draw.LIGHT, thin), ("inner", INNER, draw.GREY, thick)):
        low, high = interval(ranks, prob)
        x, y = draw.segments(low.values, high.values, at)
        draw.keep(collection, name, module.line(x, y, left, color=colour, width=width))
    module.scatter(ranks.mean(SAMPLE_DIMS).values, at, left, color=draw.BLACK, size=size)
    module.xlim((0.0, n + 1.0), left)
    places = draw.whole_ticks(1, n)
    module.xticks(places, [str(place) for place in places], left)
    first = (ranks > n - best).mean(SAMPLE_DIMS).values
    last = (ranks <= best).mean(SAMPLE_DIMS).values
    draw.keep(collection, "first", module.scatter(first, at, right, color=draw.BLUE, size=size))
    draw.keep(collection, "last", module.scatter(last, at, right, color=draw.ORANGE, size=size))
    module.xlim((-0.03, 1.03), right)
    percent = f"{100 * interval_prob(ci_prob):g}%"
    most, least = (f"the {best} {end} ranks" if best > 1 else f"the {end} rank" for end in ("highest", "lowest"))
    direction = "highest" if higher_is_better else "lowest"
    module.xlabel(f"rank ({n} = {direction} value)\nmean, 50% and {percent} interval", left)
    module.xlabel(
        f"probability to have one of\n{most} or {least}" if best > 1 else f"probability to have\n{most} or {least}",
        right,
    )
    if show:
        module.yticks(
            at,
            [str(each) for each in ranks[level].values.tolist()],
            left,
            size=draw.letters(collection, 10 if n <= 30 else 8),
        )
        module.ylabel(level, left)
    else:
        module.yticks([], [], left)
        module.ylabel(f"{n} {level}s, sorted by expected rank", left)
    module.ylim((-0.8, n - 0.2), left)
    draw.legend(
        collection,
        [
            (most, {"color": draw.BLUE, "width": 4.0}),
            (least, {"color": draw.ORANGE, "width": 4.0}),
        ],
    )
    label = read.random_label(tree, level, term, response)
    low, high = interval(ranks, ci_prob)
    spans = f"spans {float((high - low).mean()):.0f} of {n} places"
    draw.title(collection, f"{label}: the average {percent} interval of a rank {spans}")
    return collection
