"""What the figures share: panels on an arviz_plots PlotCollection, colours, one artist for many segments."""

from collections.abc import Sequence
from importlib import import_module
from textwrap import fill
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import xarray as xr

from psymech.errors import SpecError
from psymech.posterior import tree as read

if TYPE_CHECKING:
    from arviz_plots.plot_collection import PlotCollection

Backend = Literal["matplotlib", "plotly"]

# Okabe and Ito's colours, told apart with any kind of colour vision
BLUE: Final = "#0072B2"
ORANGE: Final = "#D55E00"
GREEN: Final = "#009E73"
PURPLE: Final = "#CC79A7"
GREY: Final = "#777777"
LIGHT: Final = "#B8B8B8"
BLACK: Final = "#222222"
COLOUR_OF_LEVEL: Final = {"residual": GREY, "patient": BLUE, "therapist": ORANGE, "clinic": GREEN}

PIXELS_PER_INCH: Final = 100
POINTS_PER_INCH: Final = 72
TOOLBAR: Final = 35  # pixels that plotly's buttons take, above the title
LEGEND: Final = 35  # pixels of plotly's legend, below the labels of the axes
CHARACTERS_PER_INCH: Final = 130  # of one point: how many letters of a size go on an inch


def chosen_backend(backend: str | None) -> Backend:
    """Return the backend asked for, ArviZ's setting by default; SpecError where it is neither matplotlib nor plotly."""
    from arviz_base import rcParams

    name = str(rcParams["plot.backend"]) if backend is None else backend
    if name not in get_args(Backend):
        raise SpecError(f"backend: expected one of {', '.join(get_args(Backend))}, found {name!r}.")
    return name  # type: ignore[return-value]


def canvas(
    panels: Sequence[str],
    *,
    width: float,
    height: float,
    ratios: Sequence[float] | None,
    backend: str | None,
    share_y: bool = True,
) -> "PlotCollection":
    """Return an empty figure of panels side by side, by default with one y axis; sizes in inches at 100 dots."""
    from arviz_plots.plot_collection import PlotCollection

    name = chosen_backend(backend)
    options: dict[str, Any] = {"figsize": (width * PIXELS_PER_INCH, height * PIXELS_PER_INCH), "figsize_units": "dots"}
    if len(panels) > 1:
        options |= {"sharey": share_y, "width_ratios": list(ratios or [1.0] * len(panels))}
    if name == "matplotlib":
        options |= {"layout": "constrained", "dpi": PIXELS_PER_INCH}
        options["figsize"], options["figsize_units"] = (width, height), "inches"
    data = xr.Dataset({panel: xr.DataArray(0.0) for panel in panels})
    collection = PlotCollection.grid(data, cols=["__variable__"], backend=name, figure_kwargs=options)
    if name == "plotly":
        collection.viz["figure"].item().update_layout(
            template="plotly_white",
            margin={"t": 45 + TOOLBAR, "r": 20, "b": 70, "l": 80},
            height=height * PIXELS_PER_INCH + TOOLBAR,
        )
    return collection


def letters(collection: "PlotCollection", points: float) -> float:
    """Return a size of letters as the backend takes it: in points, or in plotly's pixels."""
    return points if collection.backend == "matplotlib" else round(points * PIXELS_PER_INCH / POINTS_PER_INCH)


def title(collection: "PlotCollection", text: str, *, size: float = 12) -> None:
    """Set the figure's title, on two lines or more where one is too short."""
    figure = collection.viz["figure"].item()
    if collection.backend == "matplotlib":
        wide = float(figure.get_size_inches()[0])
        collection.add_title(fill(text, int(wide * CHARACTERS_PER_INCH / size)), size=size)
        return
    lines = fill(text, int(figure.layout.width / PIXELS_PER_INCH * CHARACTERS_PER_INCH / size))
    place = {"yref": "container", "yanchor": "top", "y": 1 - TOOLBAR / figure.layout.height}
    collection.add_title(lines.replace("\n", "<br>"), size=letters(collection, size), **place)


def whole_ticks(low: int, high: int, most: int = 6) -> np.ndarray:
    """Return whole numbers to mark on an axis, evenly apart, and `low`.

    >>> whole_ticks(0, 5).tolist(), whole_ticks(1, 500).tolist()
    ([0, 1, 2, 3, 4, 5], [1, 100, 200, 300, 400, 500])
    """
    steps = (base * 10**power for power in range(12) for base in (1, 2, 5))
    step = next(each for each in steps if (high - low) // each < most)
    return np.unique(np.append(np.arange(-(-low // step) * step, high + 1, step), low))


def drawing(collection: "PlotCollection") -> ModuleType:
    """Return arviz_plots' module of drawing functions for the figure's backend."""
    return import_module(f"arviz_plots.backend.{collection.backend}")


def panel(collection: "PlotCollection", name: str) -> Any:
    """Return the panel to draw on."""
    return collection.get_target(name, {})


def place_panel(
    collection: "PlotCollection",
    name: str,
    corner: tuple[float, float],
    size: tuple[float, float],
    figure: tuple[float, float],
) -> None:
    """Give a panel without axes its place in a figure; one unit of its coordinates is an inch.

    `corner` is the lower left one, from that of the figure; `size` of the panel and of the `figure`, all in inches.
    """
    edges = [(corner[i] / figure[i], (corner[i] + size[i]) / figure[i]) for i in (0, 1)]
    spans = [(max(0.0, low), min(1.0, high)) for low, high in edges]  # sums of inches may be off by rounding
    target = panel(collection, name)
    whole = collection.viz["figure"].item()
    if collection.backend == "matplotlib":
        whole.set_layout_engine("none")
        target.set_axis_off()
        target.set_position([spans[0][0], spans[1][0], size[0] / figure[0], size[1] / figure[1]])
        target.set(xlim=(0.0, size[0]), ylim=(0.0, size[1]))
        return
    whole.update_layout(margin={"t": TOOLBAR, "r": 0, "b": 0, "l": 0})
    axes = whole.get_subplot(target.row, target.col)
    for axis, span, length in zip((axes.xaxis, axes.yaxis), spans, size, strict=True):
        axis.update(domain=span, range=(0.0, length), visible=False, matches=None)


def keep(collection: "PlotCollection", name: str, artist: Any) -> None:
    """Store an artist in the collection's viz tree, as arviz_plots does."""
    box = np.empty((), dtype=object)
    box[()] = artist
    collection.viz[name] = xr.DataTree(xr.Dataset({"artist": xr.DataArray(box)}))


def segments(starts: np.ndarray, ends: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of one line that draws a horizontal segment for each entry, broken by NaN."""
    gap = np.full(len(at), np.nan)
    return np.stack([starts, ends, gap], axis=1).ravel(), np.stack([at, at, gap], axis=1).ravel()


def broken_lines(x: np.ndarray, y: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of one line that draws a polyline for each group of `of`, broken by NaN; rows are sorted by x
    within.
    """
    order = np.lexsort((x, of))
    x, y, of = x[order].astype(float), y[order].astype(float), of[order]
    ends = np.flatnonzero(np.diff(of)) + 1
    return np.insert(x, ends, np.nan), np.insert(y, ends, np.nan)


def unit_of(tree: xr.DataTree, *, label: str, response: str) -> str:
    """Return the unit of a random term's effect in words."""
    base = (
        f"{response} units"
        if read.family_of(tree, response) in read.IDENTITY_LINK
        else f"{read.UNIT_OF_LATENT} of {response}"
    )
    is_intercept = label in ("Intercept", read.response_label(response, "Intercept"))
    return base if is_intercept else f"{base} per unit of {label}"


def legend(collection: "PlotCollection", entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Add a legend of lines: label and line properties of each entry."""
    if collection.backend == "matplotlib":
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=p["color"], linewidth=p["width"]) for _, p in entries]
        figure = collection.viz["figure"].item()
        figure.legend(
            handles, [label for label, _ in entries], loc="outside lower center", ncols=len(entries), frameon=False
        )
        return
    import plotly.graph_objects as go

    figure = collection.viz["figure"].item()
    for label, p in entries:
        line = {"color": p["color"], "width": p["width"]}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", name=label, line=line, showlegend=True))
    below = {"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0.5, "xanchor": "center"}
    figure.update_layout(
        legend=below | {"traceorder": "normal"},
        height=figure.layout.height + LEGEND,
        margin_b=figure.layout.margin.b + LEGEND,
    )
