"""plot_paths(): the path diagram of a mediation model, one panel a level, with posterior medians and intervals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from psymech import names
from psymech.errors import SpecError
from psymech.plots import canvas as draw
from psymech.posterior.mediation import indirect_effects
from psymech.posterior.mediation_paths import PATH_LEVELS, MediationTree, Path, PathLevel, read_mediation
from psymech.posterior.summaries import interval, interval_prob

if TYPE_CHECKING:
    from arviz_plots.plot_collection import PlotCollection

TITLE = {"within": "within patients", "patient": "between patients", "therapist": "between therapists"}
BOX = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": draw.BLACK, "linewidth": 1.0}
LABEL = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
WIDTH, WIDE, HEIGHT = 4.6, 5.6, 3.4
LEFT, MIDDLE, RIGHT = 0.12, 0.5, 0.88
SHRINK = 24.0  # points that an arrow stays away from the centres of its boxes


def plot_paths(
    tree: xr.DataTree, *, level: str | Sequence[str] | None = None, ci_prob: float | None = None
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

    Returns
    -------
    PlotCollection
        One panel a level, drawn with matplotlib. Arrows carry posterior median and interval; grey arrows are those
        whose interval holds zero. Below each panel stands the indirect effect, within patients with the covariance of
        random a and b.

    Raises
    ------
    SpecError
        The tree is of another kind of model, or has no path at a level.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.plot_paths(mediated, level="within").savefig("paths.png")
    """
    model = read_mediation(tree)
    known = tuple(one for one in PATH_LEVELS if any(key[0] == one for key in model.paths))
    asked = known if level is None else (level,) if isinstance(level, str) else tuple(level)
    for one in asked:
        if one not in known:
            raise SpecError(f"level: expected one of {', '.join(known)}, where this model has paths, found {one!r}.")
    wanted: list[PathLevel] = [one for one in PATH_LEVELS if one in asked]
    height = HEIGHT + 0.7 * max(0, len(model.mediators) - 1)
    panels = [TITLE[one] for one in wanted]
    width = WIDTH if len(model.mediators) == 1 else WIDE
    collection = draw.canvas(panels, width=width * len(wanted), height=height, ratios=None, backend="matplotlib")
    effects = indirect_effects(tree) if _has_routes(model) else None
    for one, panel in zip(wanted, panels, strict=True):
        _panel(draw.panel(collection, panel), model, one, effects, ci_prob)
    return collection


def _has_routes(model: MediationTree) -> bool:
    return any(
        model.along(level, (x, *route, y)) is not None
        for level in PATH_LEVELS
        for x in model.treatments
        for y in model.outcomes
        for route in model.chains(x, y)
    )


def _positions(model: MediationTree) -> dict[str, tuple[float, float]]:
    def column(labels: Sequence[str], x: float, low: float, high: float) -> dict[str, tuple[float, float]]:
        if len(labels) == 1:
            return {labels[0]: (x, (low + high) / 2)}
        return {label: (x, float(y)) for label, y in zip(labels, np.linspace(high, low, len(labels)), strict=True)}

    where = column(model.treatments, LEFT, 0.05, 0.30 if len(model.treatments) > 1 else 0.15)
    where |= column(model.outcomes, RIGHT, 0.05, 0.30 if len(model.outcomes) > 1 else 0.15)
    if model.serial:
        for x, label in zip(np.linspace(0.24, 0.76, len(model.mediators)), model.mediators, strict=True):
            where[label] = (float(x), 0.85)
        return where
    if _around(model):  # one above the direct path, one below
        where = {label: (x, y + 0.35) for label, (x, y) in where.items()}
        return where | column(model.mediators, MIDDLE, 0.0, 0.92)
    return where | column(model.mediators, MIDDLE, 0.85 if len(model.mediators) == 1 else 0.42, 0.95)


def _around(model: MediationTree) -> bool:
    return len(model.mediators) == 2 and not model.serial


def _panel(
    axes: Any, model: MediationTree, level: PathLevel, effects: xr.Dataset | None, ci_prob: float | None
) -> None:
    where = _positions(model)
    axes.set(xlim=(-0.08, 1.08), ylim=(-0.22, 1.05), title=TITLE[level])
    axes.set_axis_off()
    present = {name for (at, a, b) in model.paths if at == level for name in (a, b)}
    for path in model.paths.values():
        if path.level == level:
            _arrow(
                axes,
                path.draws,
                where[path.source],
                where[path.target],
                ci_prob,
                straight=path.letter != "d",
                at=_label_place(model, path),
            )
    for name in present:
        axes.text(*where[name], name, ha="center", va="center", bbox=BOX, zorder=4, fontsize=10)
    if effects is not None and level in effects["level"].values:
        axes.text(0.5, -0.17, _indirect_line(effects.sel(level=level), ci_prob), ha="center", va="center", fontsize=9)


def _label_place(model: MediationTree, path: Path) -> float:
    """Where on its arrow a label stands: staggered where arrows would cross it."""
    if path.letter in ("c", "d"):
        return 0.5
    if not model.serial:
        nested = len(model.mediators) > 2  # nearer to the mediator, where the arrows are apart
        return 0.5 if not nested else 0.6 if path.letter == "a" else 0.4
    place = model.mediators.index(path.target if path.letter == "a" else path.source) / (len(model.mediators) - 1)
    return 0.72 - 0.42 * place


def _arrow(
    axes: Any,
    draws: np.ndarray,
    start: tuple[float, float],
    end: tuple[float, float],
    ci_prob: float | None,
    *,
    straight: bool,
    at: float,
) -> None:
    low, high = (float(v) for v in interval(xr.DataArray(draws, dims=names.SAMPLE_DIMS), ci_prob))
    colour = draw.GREY if low <= 0.0 <= high else draw.BLUE if low > 0.0 else draw.ORANGE
    style = "arc3" if straight else "arc3,rad=-0.25"
    axes.annotate(
        "",
        xy=end,
        xytext=start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": colour,
            "linewidth": 1.6,
            "shrinkA": SHRINK,
            "shrinkB": SHRINK,
            "connectionstyle": style,
        },
        zorder=2,
    )
    text = f"{np.median(draws):.2f} [{low:.2f}, {high:.2f}]"
    middle = (start[0] + at * (end[0] - start[0]), start[1] + at * (end[1] - start[1]) + (0.0 if straight else 0.1))
    axes.text(*middle, text, ha="center", va="center", fontsize=8.5, color=colour, bbox=LABEL, zorder=3)


def _indirect_line(effects: xr.Dataset, ci_prob: float | None) -> str:
    percent = f"{100 * interval_prob(ci_prob):g}%"
    total = effects["total_indirect"]
    lines = []
    extra = [d for d in ("treatment", "outcome") if d in total.dims]
    stacked = total.stack(of=extra) if extra else total.expand_dims("of")
    for index in range(stacked.sizes["of"]):
        one = stacked.isel(of=index, drop=not extra)
        prefix = f"{' -> '.join(one['of'].item())}: " if extra else ""
        values = one.drop_vars([c for c in one.coords if c not in names.SAMPLE_DIMS]).transpose(*names.SAMPLE_DIMS)
        low, high = (float(v) for v in interval(values, ci_prob))
        lines.append(f"{prefix}indirect {float(values.median()):.3f}, {percent} [{low:.3f}, {high:.3f}]")
    return "\n".join(lines)
