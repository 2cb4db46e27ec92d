"""plot_paths(): the path diagram of a mediation model, one panel a level, with posterior means and intervals."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from psymech import names
from psymech.errors import SpecError
from psymech.plots import canvas as draw
from psymech.plots.path_layout import Diagram, Key, Size, arrange
from psymech.posterior.mediation import indirect_effects
from psymech.posterior.mediation_paths import PATH_LEVELS, MediationTree, PathLevel, read_mediation
from psymech.posterior.summaries import interval, interval_prob

if TYPE_CHECKING:
    from arviz_plots.plot_collection import PlotCollection

TITLE: Final = {"within": "within patients", "patient": "between patients", "therapist": "between therapists"}
NAME, LABEL, FOOT, HEAD = 10.0, 8.5, 9.0, 12.0  # sizes of letters, in points
LINE: Final = 1.45  # height of a line of text, in sizes of its letters
BOX_PAD: Final = (0.14, 0.1)  # inches between a name and the border of its box
LABEL_PAD: Final = 0.04
HEAD_LENGTH: Final = 0.11  # inches
HEAD_SPACE: Final = 0.11  # inches between the heads of arrows that end in one box
LONG_NAME: Final = 20  # letters; longer names take several lines
WIDEST_ROW: Final = 11.0  # inches: panels that are wider together stand below one another
BETWEEN: Final = 0.25  # inches between panels
SUBPIXELS: Final = 64  # in which a font measures


@dataclass(frozen=True, slots=True)
class _Panel:
    """What one level shows: the diagram, text and colour of each arrow's label, the lines below; sizes in inches."""

    title: str
    diagram: Diagram
    labels: Mapping[Key, tuple[str, str]]
    foot: tuple[str, ...]
    width: float
    height: float


def plot_paths(
    tree: xr.DataTree,
    *,
    level: str | Sequence[str] | None = None,
    ci_prob: float | None = None,
    backend: str | None = None,
) -> "PlotCollection":
    """Draw the path diagram of a mediation model with the posterior of every path.

    Parameters
    ----------
    tree
        A fit of :func:`psymech.mediation`.
    level
        ``"within"``, ``"patient"``, ``"therapist"``, or several; by default every level that has paths.
    ci_prob
        Probability of the intervals; ArviZ's setting (0.89) by default.
    backend : {"matplotlib", "plotly"}, optional
        ArviZ's setting by default.

    Returns
    -------
    PlotCollection
        One panel a level: side by side, or below one another where they are wide; not shown. Each arrow carries
        posterior mean and interval on a line of its own; blue arrows are positive, orange ones negative, and grey
        ones those whose interval holds zero. Below each panel stands the indirect effect (of all mediators together),
        within patients with the covariance of random a and b.

    Raises
    ------
    SpecError
        The tree is of another kind of model, or has no path at a level; an unknown backend.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.plot_paths(mediated, level="within").savefig("paths.png")
    """
    backend = draw.chosen_backend(backend)
    model = read_mediation(tree)
    known = tuple(one for one in PATH_LEVELS if any(key[0] == one for key in model.paths))
    asked = known if level is None else (level,) if isinstance(level, str) else tuple(level)
    for one in asked:
        if one not in known:
            raise SpecError(f"level: expected one of {', '.join(known)}, where this model has paths, found {one!r}.")
    wanted: list[PathLevel] = [one for one in PATH_LEVELS if one in asked]
    effects = indirect_effects(tree) if _has_routes(model) else None
    note = f"Mean and {100 * interval_prob(ci_prob):g}% interval; blue: above zero, orange: below, grey: it holds zero."
    panels = [_panel(model, one, effects, ci_prob, (note,) if one == wanted[-1] else ()) for one in wanted]
    beside = sum(panel.width for panel in panels) <= WIDEST_ROW
    width = sum(p.width for p in panels) + BETWEEN * (len(panels) - 1) if beside else max(p.width for p in panels)
    height = max(p.height for p in panels) if beside else sum(p.height for p in panels) + BETWEEN * (len(panels) - 1)
    collection = draw.canvas([p.title for p in panels], width=width, height=height, ratios=None, backend=backend)
    left = used = 0.0
    for panel in panels:
        across = left if beside else (width - panel.width) / 2
        draw.place_panel(
            collection,
            panel.title,
            (across, height - used - panel.height),
            (panel.width, panel.height),
            (width, height),
        )
        _draw(collection, panel)
        left += panel.width + BETWEEN
        used += 0.0 if beside else panel.height + BETWEEN
    return collection


def _has_routes(model: MediationTree) -> bool:
    return any(
        model.along(level, (x, *route, y)) is not None
        for level in PATH_LEVELS
        for x in model.treatments
        for y in model.outcomes
        for route in model.chains(x, y)
    )


def _panel(
    model: MediationTree,
    level: PathLevel,
    effects: xr.Dataset | None,
    ci_prob: float | None,
    note: tuple[str, ...],
) -> _Panel:
    paths = {key[1:]: path for key, path in model.paths.items() if key[0] == level}
    present = {name for key in paths for name in key}
    middle = [[m] for m in model.mediators] if model.serial else [list(model.mediators)]
    layers = [[n for n in layer if n in present] for layer in (model.treatments, *middle, model.outcomes)]
    layers = [layers[0], *(layer for layer in layers[1:-1] if layer), layers[-1]]
    labels = {key: _label(path.draws, ci_prob) for key, path in paths.items()}
    boxes = {name: _box(name, list(paths)) for name in present}
    sizes = {key: _padded(text, LABEL, LABEL_PAD, LABEL_PAD) for key, (text, _) in labels.items()}
    diagram = arrange(layers, list(paths), boxes, sizes)
    foot = note
    if effects is not None and level in effects["level"].values:
        foot = (*_indirect_lines(effects.sel(level=level), ci_prob, several=len(model.mediators) > 1), *note)
    width = max(diagram.width, *(_measured(line, FOOT)[0] + 2 * LABEL_PAD for line in (TITLE[level], *foot)))
    height = diagram.height + _line(HEAD) + _line(FOOT) * len(foot)
    return _Panel(TITLE[level], diagram, labels, foot, width, height)


def _box(name: str, arrows: Sequence[Key]) -> Size:
    """Size of a variable's box: room for its name, and for the heads of its arrows below one another."""
    width, height = _padded(_shown(name), NAME, *BOX_PAD)
    return width, max(height, HEAD_SPACE * (1 + max(sum(key[end] == name for key in arrows) for end in (0, 1))))


def _label(draws: np.ndarray, ci_prob: float | None) -> tuple[str, str]:
    """Text and colour of an arrow's label."""
    low, high = (float(v) for v in interval(xr.DataArray(draws, dims=names.SAMPLE_DIMS), ci_prob))
    colour = draw.GREY if low <= 0.0 <= high else draw.BLUE if low > 0.0 else draw.ORANGE
    return f"{draws.mean():.2f} [{low:.2f}, {high:.2f}]", colour


def _indirect_lines(effects: xr.Dataset, ci_prob: float | None, *, several: bool) -> tuple[str, ...]:
    percent = f"{100 * interval_prob(ci_prob):g}%"
    total = effects["total_indirect"]
    extra = [d for d in ("treatment", "outcome") if d in total.dims]
    stacked = total.stack(of=extra) if extra else total.expand_dims("of")
    word = "indirect effect of all mediators" if several else "indirect effect"
    lines = []
    for index in range(stacked.sizes["of"]):
        one = stacked.isel(of=index, drop=not extra)
        prefix = f"{' -> '.join(one['of'].item())}: " if extra else ""
        values = one.drop_vars([c for c in one.coords if c not in names.SAMPLE_DIMS]).transpose(*names.SAMPLE_DIMS)
        low, high = (float(v) for v in interval(values, ci_prob))
        lines.append(f"{prefix}{word} {float(values.mean()):.3f}, {percent} [{low:.3f}, {high:.3f}]")
    return tuple(lines)


def _shown(name: str) -> str:
    """Return a name on as many lines as it needs, broken behind underscores where it has them."""
    lines = [""]
    for part in name.replace("_", "_\n").split("\n"):
        for start in range(0, max(1, len(part)), LONG_NAME):
            piece = part[start : start + LONG_NAME]
            if len(lines[-1]) + len(piece) > LONG_NAME:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line for line in lines if line)


def _line(points: float) -> float:
    return LINE * points / draw.POINTS_PER_INCH


def _padded(text: str, points: float, across: float, above: float) -> Size:
    width, height = _measured(text, points)
    return width + 2 * across, height + 2 * above


def _measured(text: str, points: float) -> Size:
    """Width and height of text in inches, in the letters of matplotlib; those of plotly are no wider."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    font.set_size(points, draw.POINTS_PER_INCH)
    wide = 0.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        for line in text.split("\n"):
            font.set_text(line)
            wide = max(wide, font.get_width_height()[0] / SUBPIXELS)
    return wide / draw.POINTS_PER_INCH, _line(points) * (text.count("\n") + 1)


def _draw(collection: "PlotCollection", panel: _Panel) -> None:
    target = draw.panel(collection, panel.title)
    module = draw.drawing(collection)
    shift = (panel.width - panel.diagram.width) / 2, _line(FOOT) * len(panel.foot)
    _text(collection, target, panel.width / 2, panel.height - _line(HEAD) / 2, panel.title, HEAD, draw.BLACK)
    for key, route in panel.diagram.routes.items():
        points = np.array(route.points) + shift
        _, colour = panel.labels[key]
        module.line(*points.T, target, color=colour, width=1.6)
        _head(collection, target, points[-1], colour)
    for key, route in panel.diagram.routes.items():
        text, colour = panel.labels[key]
        x, y = route.label
        _text(collection, target, x + shift[0], y + shift[1], text, LABEL, colour, behind="white")
    for name, box in panel.diagram.boxes.items():
        x, y = box.x + shift[0], box.y + shift[1]
        _border(collection, target, x, y, box.width, box.height)
        _text(collection, target, x, y, _shown(name), NAME, draw.BLACK)
    for i, line in enumerate(reversed(panel.foot)):
        _text(collection, target, panel.width / 2, (i + 0.5) * _line(FOOT), line, FOOT, draw.BLACK)


def _text(
    collection: "PlotCollection",
    target: Any,
    x: float,
    y: float,
    text: str,
    points: float,
    colour: str,
    *,
    behind: str | None = None,
) -> None:
    """Write text around a point, as it is: neither mathematics nor markup."""
    if collection.backend == "matplotlib":
        box = None if behind is None else {"facecolor": behind, "edgecolor": "none", "pad": 72 * LABEL_PAD}
        target.text(
            x, y, text, ha="center", va="center", fontsize=points, color=colour, bbox=box, zorder=3, parse_math=False
        )
        return
    target.add_annotation(
        x=x,
        y=y,
        text=escape(text).replace("\n", "<br>"),
        showarrow=False,
        font={"size": draw.letters(collection, points), "color": colour},
        bgcolor=behind,
        borderpad=1,
    )


def _head(collection: "PlotCollection", target: Any, end: np.ndarray, colour: str) -> None:
    """Draw the head of an arrow that comes from the left."""
    if collection.backend == "matplotlib":
        style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "shrinkA": 0.0, "shrinkB": 0.0}
        target.annotate("", xy=end, xytext=(end[0] - HEAD_LENGTH, end[1]), arrowprops=style, zorder=2)
        return
    length = HEAD_LENGTH * draw.PIXELS_PER_INCH
    target.add_annotation(
        x=end[0], y=end[1], ax=-length, ay=0, text="", showarrow=True, arrowhead=2, arrowwidth=1.6, arrowcolor=colour
    )


def _border(collection: "PlotCollection", target: Any, x: float, y: float, width: float, height: float) -> None:
    left, low = x - width / 2, y - height / 2
    if collection.backend == "matplotlib":
        from matplotlib.patches import FancyBboxPatch

        style = "round,pad=0,rounding_size=0.06"
        target.add_patch(
            FancyBboxPatch(
                (left, low), width, height, boxstyle=style, facecolor="white", edgecolor=draw.BLACK, zorder=2
            )
        )
        return
    target.add_shape(
        type="rect", x0=left, y0=low, x1=left + width, y1=low + height,
        line={"color": draw.BLACK, "width": 1.2}, fillcolor="white", layer="above",
    )  # fmt: skip
