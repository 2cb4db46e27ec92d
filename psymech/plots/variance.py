"""Variance shares of the levels, at one value or over a covariate."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from psymech.errors import SpecError
from psymech.names import SAMPLE_DIMS
from psymech.plots import canvas as draw
from psymech.posterior.summaries import interval, interval_prob
from psymech.posterior.variance import Per, variance_partition

if TYPE_CHECKING:
    from arviz_plots.plot_collection import PlotCollection


def plot_variance_partition(
    tree: xr.DataTree,
    *,
    at: Mapping[str, Sequence[float]] | None = None,
    per: Per = "session",
    response: str | None = None,
    sessions: float | None = None,
    ci_prob: float | None = None,
    backend: str | None = None,
) -> "PlotCollection":
    """Draw the share of the variance at each level with its interval; with `at`, over the values of a covariate.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    at, per, response, sessions
        As in :func:`variance_partition`; `at` with two or more values of its first name is drawn as curves over it.
    ci_prob : float, optional
        Probability of the intervals; ArviZ's setting (0.89) by default.
    backend : {"matplotlib", "plotly"}, optional

    Returns
    -------
    PlotCollection
        One panel, ``share``; not shown. Its title states the denominator.

    Raises
    ------
    SpecError
        As :func:`variance_partition`, and where `at` has a single value.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.plot_variance_partition(course, at={"time": range(16)}).savefig("shares.png")
    """
    result = variance_partition(tree, at=at, per=per, response=response, sessions=sessions)
    share = 100.0 * result["share"]
    low, high = interval(share, ci_prob)
    mean = share.mean(SAMPLE_DIMS)
    percent = f"{100 * interval_prob(ci_prob):g}%"
    levels = [str(level) for level in result["level"].values]
    height = 5.0 if at else 1.7 + 0.5 * len(levels)
    collection = draw.canvas(("share",), width=8.0, height=height, ratios=None, backend=backend)
    module, target = draw.drawing(collection), draw.panel(collection, "share")
    axis = f"share of the variance of one outcome per {result.attrs['per']} [%]"
    if at is None:
        for i, level in enumerate(reversed(levels)):
            colour = draw.COLOUR_OF_LEVEL[level]
            ends = np.array([low.sel(level=level).item(), high.sel(level=level).item()])
            draw.keep(
                collection, f"interval_{level}", module.line(ends, np.array([i, i]), target, color=colour, width=3.0)
            )
            module.scatter(mean.sel(level=level).values.reshape(1), np.array([i]), target, color=colour, size=60.0)
        module.yticks(np.arange(len(levels)), levels[::-1], target)
        module.ylim((-0.6, len(levels) - 0.4), target)
        module.xlim((0.0, 100.0), target)
        module.xlabel(f"{axis}, mean and {percent} interval", target)
    else:
        name = next(iter(at))
        x = np.asarray(list(at[name]), dtype=float)
        if x.size < 2:
            raise SpecError(f"at: expected two or more values of {name!r} to draw a curve, found {x.size}.")
        order = np.argsort(x, kind="stable")
        for level in levels:
            colour = draw.COLOUR_OF_LEVEL[level]
            lower, upper, middle = (each.sel(level=level).values[order] for each in (low, high, mean))
            module.fill_between_y(x[order], lower, upper, target, color=colour, alpha=0.2)
            draw.keep(collection, f"line_{level}", module.line(x[order], middle, target, color=colour, width=2.2))
        module.ylim((0.0, 100.0), target)
        module.xlabel(f"{name} (units of the design column)", target)
        module.ylabel(f"{axis}\nmean and {percent} interval", target)
        draw.legend(collection, [(level, {"color": draw.COLOUR_OF_LEVEL[level], "width": 2.2}) for level in levels])
    denominator = result.attrs["denominator"].partition(",")[0]
    draw.title(collection, f"{result.attrs['response']}: {denominator}; scale: {_scale(result)}", size=11)
    return collection


def _scale(result: xr.Dataset) -> str:
    return str(result.attrs["scale"]).partition(" ")[0]
