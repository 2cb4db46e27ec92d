"""Forest plot of the fixed effects."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from psymech import names
from psymech.errors import SpecError, shown_ids
from psymech.plots import canvas as draw
from psymech.posterior import tree as read
from psymech.posterior.effects import effects
from psymech.posterior.summaries import interval_names, interval_prob

if TYPE_CHECKING:
    from arviz_plots.plot_collection import PlotCollection

Scale = Literal["sd", "raw"]
WITHIN: Final = draw.GREEN
COLOURS: Final = {"within": WITHIN, "patient": draw.BLUE, "therapist": draw.ORANGE}
WORDS: Final = {"within": "within patients", "patient": "between patients", "therapist": "between therapists"}


def plot_effects(
    tree: xr.DataTree,
    *,
    terms: Sequence[str] | None = None,
    scale: Scale = "sd",
    response: str | None = None,
    ci_prob: float | None = None,
    backend: str | None = None,
) -> "PlotCollection":
    """Fixed effects with their intervals, one line each, coloured by the level they belong to.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    terms : sequence of str, optional
        Terms to draw, from :func:`psymech.effects` (contextual effects only with ``scale="raw"``); by default all
        but the intercept.
    scale : {"sd", "raw"}
        ``"sd"``: change of the outcome for one SD of the column over the rows, so that lines can be compared;
        ``"raw"``: for one unit of the column.
    response : str, optional
        Needed with several responses.
    ci_prob : float, optional
        Probability of the interval; ArviZ's setting (0.89) by default.
    backend : {"matplotlib", "plotly"}, optional

    Returns
    -------
    PlotCollection
        One panel, ``effect``; not shown.

    Raises
    ------
    SpecError
        An unknown term or scale, or several responses and none chosen.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.plot_effects(tree).savefig("effects.png")
    """
    if scale not in get_args(Scale):
        raise SpecError(f"scale: expected one of {', '.join(get_args(Scale))}, found {scale!r}.")
    chosen = read.one_response(tree, response)
    low, high = interval_names(ci_prob)
    table = effects(tree, ci_prob=ci_prob).reindex(columns=["mean", low, high])
    if scale == "sd":
        spread = _spread(tree, chosen)
        table = table.reindex([label for label in table.index if label in spread])
        table = table.mul(np.array([spread[str(label)] for label in table.index]), axis=0)
    table = _chosen(table, terms, tree, chosen)[::-1]
    n = len(table)
    labels = [str(label) for label in table.index]
    middle, lower, upper = (np.asarray(table[name], dtype=float) for name in ("mean", low, high))
    height = max(2.2, 1.5 + 0.32 * n)
    collection = draw.canvas(("effect",), width=8.0, height=height, ratios=None, backend=backend)
    module, target = draw.drawing(collection), draw.panel(collection, "effect")
    dashes = module.get_default_aes("linestyle", 2)[1]
    edges = np.array([-0.7, n - 0.3])
    draw.keep(
        collection, "zero", module.line(np.zeros(2), edges, target, color=draw.BLACK, width=1.0, linestyle=dashes)
    )
    part = {info.label: info.part for info in read.terms_of(tree)}
    colours = np.array([COLOURS.get(part.get(label, ""), draw.GREY) for label in labels])
    at = np.arange(n)
    for colour in dict.fromkeys(colours.tolist()):
        mine = colours == colour
        x, y = draw.segments(lower[mine], upper[mine], at[mine])
        draw.keep(collection, f"interval_{colour[1:]}", module.line(x, y, target, color=colour, width=2.4))
        module.scatter(middle[mine], at[mine], target, color=colour, size=36.0)
    module.yticks(
        at,
        [_shown(label, chosen, tree) for label in labels],
        target,
        size=draw.letters(collection, 10 if n <= 30 else 8),
    )
    module.ylim((-0.7, n - 0.3), target)
    identity = read.family_of(tree, chosen) in read.IDENTITY_LINK
    unit = f"{chosen} units" if identity else f"{read.UNIT_OF_LATENT} of {chosen}"
    per = "one SD" if scale == "sd" else "one unit"
    percent = f"{100 * interval_prob(ci_prob):g}%"
    module.xlabel(f"change for {per} of the column [{unit}], mean and {percent} interval", target)
    used = [key for key, colour in COLOURS.items() if colour in colours]
    entries = [(WORDS[key], {"color": COLOURS[key], "width": 2.4}) for key in used]
    if draw.GREY in colours:
        entries.append(("other", {"color": draw.GREY, "width": 2.4}))
    if len(entries) > 1:
        draw.legend(collection, entries)
    draw.title(collection, f"Fixed effects on {chosen}")
    return collection


def _spread(tree: xr.DataTree, response: str) -> dict[str, float]:
    """SD of each of the response's columns that varies, over its rows."""
    rows = read.rows_of_response(tree, response)
    data = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, names.TERM)
    spread = data.values[rows].astype(float).std(axis=0)
    labels = read.labels_of(data, names.TERM)
    return {label: float(value) for label, value in zip(labels, spread, strict=True) if value > 0}


def _chosen(table: pd.DataFrame, terms: Sequence[str] | None, tree: xr.DataTree, response: str) -> pd.DataFrame:
    if terms is not None:
        unknown = [term for term in terms if term not in table.index]
        if unknown:
            raise SpecError(f"terms: no effect {shown_ids(unknown)}; the effects are {', '.join(table.index)}.")
        return table.reindex(list(terms))
    others = [each for each in read.responses_of(tree) if each != response]
    keep = [
        label
        for label in table.index
        if names.INTERCEPT not in (label, label.rpartition("~")[2])
        and not any(label.startswith(read.response_label(other, "")) for other in others)
    ]
    if not keep:
        raise SpecError("The model has no fixed effect but its intercept; there is nothing to draw.")
    return table.reindex(keep)


def _shown(label: str, response: str, tree: xr.DataTree) -> str:
    several = len(read.responses_of(tree)) > 1
    return label.replace(read.response_label(response, ""), "") if several else label
