"""Path diagrams: no text covers another, no arrow runs through a label or a box of others, on both backends."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

import psymech as psm
from psymech.plots.canvas import PIXELS_PER_INCH
from psymech.plots.path_layout import Diagram, Key, arrange
from psymech.plots.paths import _measured, _shown
from psymech.posterior.mediation_paths import read_mediation
from tests.models.test_mediation_missing import SPECS, frame_of
from tests.plots.test_figures import BACKENDS
from tests.posterior.mediation_trees import chosen_tree

TREATMENTS = ("exposure", "homework", "role_play")
MEDIATORS = ("alliance", "insight", "self_efficacy", "empathy_of_the_therapist_as_rated", "hope")
OUTCOMES = ("distress", "worry", "functioning")
SLACK = 1e-9

type Rectangle = tuple[float, float, float, float]  # left, low, right, high


def overlaps(a: Rectangle, b: Rectangle) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > SLACK and min(a[3], b[3]) - max(a[1], b[1]) > SLACK


def around(x: float, y: float, width: float, height: float) -> Rectangle:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def crossed(points: Sequence[tuple[float, float]], rectangles: Sequence[Rectangle]) -> np.ndarray:
    """Which rectangles a line runs through: where the spans of a segment within both pairs of sides meet."""
    line, sides = np.array(points), np.array(rectangles).reshape(-1, 1, 2, 2)
    start, step = line[:-1], np.diff(line, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = (sides - start[:, None]) / step[:, None]  # (rectangle, segment, low or high, x or y)
    between = (start > sides[:, :, 0] + SLACK) & (start < sides[:, :, 1] - SLACK)
    first = np.where(step == 0, np.where(between, -np.inf, np.inf), ends.min(axis=2))
    last = np.where(step == 0, np.where(between, np.inf, -np.inf), ends.max(axis=2))
    inside = np.minimum(last.min(axis=2), 1.0) - np.maximum(first.max(axis=2), 0.0)
    return (inside > SLACK).any(axis=1)


def arrows_of(layers: Sequence[Sequence[str]], *, serial: bool) -> list[Key]:
    before = [(a, b) for first, later in combinations(layers, 2) for a, b in product(first, later)]
    return before if serial or len(layers) == 3 else []


def layers_of(treatments: int, mediators: int, outcomes: int, *, serial: bool) -> list[list[str]]:
    middle = [[m] for m in MEDIATORS[:mediators]] if serial else [list(MEDIATORS[:mediators])]
    return [list(TREATMENTS[:treatments]), *middle, list(OUTCOMES[:outcomes])]


def laid_out(layers: Sequence[Sequence[str]], *, serial: bool) -> tuple[Diagram, Mapping[Key, tuple[float, float]]]:
    arrows = arrows_of(layers, serial=serial)
    labels = dict.fromkeys(arrows, (1.3, 0.25))
    boxes = {name: (0.3 + 0.08 * len(name), 0.4) for names in layers for name in names}
    return arrange(layers, arrows, boxes, labels), labels


@pytest.mark.parametrize("serial", [False, True], ids=["parallel", "serial"])
def test_labels_and_boxes_stand_apart_and_arrows_run_between_them(serial: bool) -> None:
    for sizes in product(range(1, 4), range(1, 6), range(1, 4)):
        diagram, labels = laid_out(layers_of(*sizes, serial=serial), serial=serial)
        boxes = {name: around(b.x, b.y, b.width, b.height) for name, b in diagram.boxes.items()}
        texts = {key: around(*diagram.routes[key].label, *labels[key]) for key in labels}
        every = [*boxes.values(), *texts.values()]
        assert not any(overlaps(a, b) for a, b in combinations(every, 2)), sizes
        assert all(r[0] >= 0 and r[1] >= 0 and r[2] <= diagram.width and r[3] <= diagram.height for r in every), sizes
        for key, route in diagram.routes.items():
            others = [text for other, text in texts.items() if other != key]
            others += [box for name, box in boxes.items() if name not in key]
            assert not crossed(route.points, others).any(), (sizes, key)
            assert crossed(route.points, [texts[key]]).all(), (sizes, key)  # its own label stands on it
            source, target = (diagram.boxes[name] for name in key)
            assert route.points[0][0] == pytest.approx(source.x + source.width / 2)
            assert route.points[-1][0] == pytest.approx(target.x - target.width / 2)


@pytest.fixture(scope="module")
def data() -> psm.SessionData:
    rng = np.random.default_rng(4)
    rows = [(f"T{t}", f"T{t}P{p}", s) for t in range(3) for p in range(3) for s in (1, 2, 3)]
    frame = pd.DataFrame(rows, columns=pd.Index(["therapist", "patient", "session"]))
    return psm.SessionData.from_frame(
        frame.assign(**{name: rng.uniform(1, 5, len(frame)).round(1) for name in (*TREATMENTS, *MEDIATORS, *OUTCOMES)})
    )


@pytest.fixture(scope="module", params=[((1, 3, 1), False), ((2, 4, 2), True)], ids=["parallel", "serial"])
def made(data: psm.SessionData, request: pytest.FixtureRequest) -> tuple[xr.DataTree, int]:
    """A tree, and how many indirect effects a panel has."""
    (treatments, mediators, outcomes), serial = request.param
    spec = psm.mediation(
        OUTCOMES[:outcomes],
        treatment=TREATMENTS[:treatments],
        mediators=MEDIATORS[:mediators],
        serial=serial,
        time=None,
        random={"patient": ()},
    )
    return chosen_tree(spec, data), treatments * outcomes


def rectangle(extents: np.ndarray) -> Rectangle:
    left, low, right, high = extents.tolist()
    return left, low, right, high


def drawn_rectangles(figure: Figure) -> Iterator[tuple[str, Rectangle]]:
    """Texts and boxes as the renderer draws them, in pixels."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for axes in figure.axes:
        names: list[Rectangle] = []
        for patch in axes.patches:
            if isinstance(patch, FancyBboxPatch):
                names.append(rectangle(patch.get_window_extent(renderer).extents))
                yield "box", names[-1]
        for text in axes.texts:
            if text.get_text():
                extent = rectangle(text.get_window_extent(renderer).extents)
                holder = [box for box in names if overlaps(extent, box)]
                if len(holder) == 1 and "[" not in text.get_text():
                    assert holder[0][0] <= extent[0] and extent[2] <= holder[0][2]  # the name within its box
                    assert holder[0][1] <= extent[1] and extent[3] <= holder[0][3]
                else:
                    yield text.get_text(), extent


def annotated_rectangles(figure) -> Iterator[tuple[str, Rectangle]]:
    """Texts of a plotly figure, measured in matplotlib's letters, which are as wide as its widest."""
    for note in figure.layout.annotations:
        if not (note.text or "").strip() or note.showarrow:
            continue
        axes = [getattr(figure.layout, f"{axis[0]}axis{axis[1:]}") for axis in (note.xref, note.yref)]
        size = figure.layout.width, figure.layout.height - figure.layout.margin.t
        low = [axis.domain[0] * n for axis, n in zip(axes, size, strict=True)]
        unit = [(axis.domain[1] - axis.domain[0]) * n / axis.range[1] for axis, n in zip(axes, size, strict=True)]
        assert unit == pytest.approx([PIXELS_PER_INCH, PIXELS_PER_INCH])
        points = note.font.size * 72 / PIXELS_PER_INCH
        width, height = (PIXELS_PER_INCH * n for n in _measured(note.text.replace("<br>", "\n"), points))
        yield note.text, around(low[0] + note.x * unit[0], low[1] + note.y * unit[1], width, height)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_text_covers_another_where_it_is_drawn(made: tuple[xr.DataTree, int], backend: str) -> None:
    tree, indirect = made
    levels = ["within", "patient"]
    figure = psm.plot_paths(tree, level=levels, backend=backend).viz["figure"].item()
    if backend == "matplotlib":
        figure.canvas.draw()
        width, height = figure.canvas.get_width_height()
        found = list(drawn_rectangles(figure))
    else:
        width, height = figure.layout.width, figure.layout.height
        found = list(annotated_rectangles(figure))
    labels = [text for text, _ in found if "[" in text]
    paths = sum(key[0] in levels for key in read_mediation(tree).paths)
    assert len(labels) == paths + len(levels) * indirect
    for (one, a), (other, b) in combinations(found, 2):
        assert not overlaps(a, b), (one, other)
    for text, (left, low, right, high) in found:
        assert left >= 0 and low >= 0 and right <= width and high <= height, text


def test_names_are_drawn_as_they_are() -> None:
    assert _shown("alliance") == "alliance"
    assert _shown("empathy_of_the_therapist_as_rated") == "empathy_of_the_\ntherapist_as_rated"
    assert _shown("x" * 45) == f"{'x' * 20}\n{'x' * 20}\n{'x' * 5}"
    assert _shown("_") == "_"


def test_paths_carry_the_means_of_the_table() -> None:
    tree = chosen_tree(SPECS["1-1-1"], psm.SessionData.from_frame(frame_of()))
    table = psm.mediation_table(tree)
    figure = psm.plot_paths(tree, level="within", backend="matplotlib").viz["figure"].item()
    texts = " ".join(text.get_text() for axes in figure.axes for text in axes.texts)
    paths = table[(table["level"] == "within") & table["effect"].str.startswith("path ")]
    assert len(paths) == 3 and all(f"{mean:.2f} [" in texts for mean in paths["mean"])
    indirect = table[(table["level"] == "within") & (table["effect"] == "indirect")]["mean"].item()
    assert f"indirect effect {indirect:.3f}," in texts
