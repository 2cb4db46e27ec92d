"""Where the boxes and arrows of a path diagram stand so that no text covers another: geometry in inches, no drawing.

Boxes stand in columns from left to right: treatments, mediators (one column each where they act in series), outcomes.
Each arrow leaves its box, runs along a lane of its own, where its label stands, and ends in the next box. No two lanes
share a height where they meet, so labels need no search for a free place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

LANE: Final = 0.27  # height of a lane: a line of label and its margin
BOX_GAP: Final = 0.18  # between boxes above one another
MARGIN: Final = 0.12
FAN: Final = (0.4, 0.75)  # shortest and longest width in which arrows bend between a box and their lanes
BEND: Final = 0.2  # of the height that arrows climb: the width in which they do
RUN_IN: Final = 0.16  # the last of an arrow, level, so that its head is
CLEAR: Final = 0.1  # of straight line on either side of a label
STEPS: Final = 24  # points of a bend
PORTS: Final = 0.7  # share of a box's height over which its arrows are spread

type Key = tuple[str, str]
type Size = tuple[float, float]
type Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """Centre and size of a variable's box."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Route:
    """An arrow as a line of points, its head at the last one, and the centre of its label."""

    points: tuple[Point, ...]
    label: Point


@dataclass(frozen=True, slots=True)
class Diagram:
    """Size of the diagram, boxes by name and routes by (source, target)."""

    width: float
    height: float
    boxes: Mapping[str, Box]
    routes: Mapping[Key, Route]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Heights, upwards from zero at the top: of boxes, and of each arrow's lane."""

    boxes: dict[str, float]
    lanes: dict[Key, float]


def arrange(
    layers: Sequence[Sequence[str]], arrows: Sequence[Key], boxes: Mapping[str, Size], labels: Mapping[Key, Size]
) -> Diagram:
    """Return the diagram of variables in layers.

    Parameters
    ----------
    layers
        Names from left to right; an arrow points to a layer further right.
    arrows
        (source, target) of each.
    boxes, labels
        Width and height of each variable's box and each arrow's label.
    """
    layer = {name: i for i, names in enumerate(layers) for name in names}
    order = {name: i for i, name in enumerate(name for names in layers for name in names)}
    arrows = sorted(arrows, key=lambda key: (order[key[0]], order[key[1]]))
    rows = _parallel(layers, arrows, boxes) if len(layers) == 3 else _in_series(layers, layer, arrows, boxes)
    climb = max((abs(rows.boxes[end] - y) for key, y in rows.lanes.items() for end in key), default=0.0)
    fan = min(max(FAN[0], BEND * climb), FAN[1])
    columns, gaps = _columns(layers, layer, arrows, boxes, labels, fan)
    placed = {
        name: Box(sum(columns[layer[name]]) / 2, rows.boxes[name], *boxes[name]) for names in layers for name in names
    }
    ports = _ports(arrows, rows, placed)
    routes = {}
    for source, target in arrows:
        first, last = layer[source], layer[target]
        y = rows.lanes[source, target]
        points = _bend(
            (placed[source].x + placed[source].width / 2, ports[source, target][0]),
            columns[first][1],
            (gaps[first][0], y),
        )
        end = _bend(
            (placed[target].x - placed[target].width / 2, ports[source, target][1]),
            columns[last][0] - RUN_IN,
            (gaps[last - 1][1], y),
        )
        left, right = gaps[first] if last == first + 1 else columns[(first + last) // 2]
        routes[source, target] = Route((*points, *reversed(end)), ((left + right) / 2, y))
    return _framed(placed, routes, labels)


def _parallel(layers: Sequence[Sequence[str]], arrows: Sequence[Key], boxes: Mapping[str, Size]) -> _Rows:
    """Mediators in one column; direct paths below one, and half way down several."""
    treatments, mediators, outcomes = layers
    direct = [key for key in arrows if key[0] in treatments and key[1] in outcomes]
    half = (len(mediators) + 1) // 2
    y: dict[str, float] = {}
    lanes: dict[Key, float] = {}
    top = 0.0
    for name in [*mediators[:half], None, *mediators[half:]]:
        sides = [direct] if name is None else [[key for key in arrows if key[end] == name] for end in (1, 0)]
        height = max([LANE * len(side) for side in sides] + [0.0 if name is None else boxes[name][1]])
        if name is not None:
            y[name] = top - height / 2
        for side in sides:
            lanes |= _stacked(side, top - height / 2)
        top -= height + (BOX_GAP if height else 0.0)
    centre = sum(lanes[key] for key in direct) / len(direct) if direct else (top + BOX_GAP) / 2
    return _Rows(y | _spread(treatments, centre, boxes) | _spread(outcomes, centre, boxes), lanes)


def _in_series(
    layers: Sequence[Sequence[str]], layer: Mapping[str, int], arrows: Sequence[Key], boxes: Mapping[str, Size]
) -> _Rows:
    """Mediators in one row; arrows that pass one of them on lanes below, direct paths at the bottom."""
    last = len(layers) - 1
    near: dict[int, list[Key]] = {}
    far: list[Key] = []
    for key in arrows:
        first, until = layer[key[0]], layer[key[1]]
        if until == first + 1:
            near.setdefault(first, []).append(key)
        else:
            far.append(key)
    lanes: dict[Key, float] = {}
    for keys in near.values():
        lanes |= _stacked(keys, 0.0)
    row = {name: 0.0 for names in layers[1:-1] for name in names}
    height = max([LANE * len(keys) for keys in near.values()] + [boxes[name][1] for name in row] + [0.0])
    free: list[int] = []  # of each lane, the layer in which its last arrow ends
    far.sort(key=lambda key: (layer[key[0]] == 0 and layer[key[1]] == last, layer[key[1]], -layer[key[0]]))
    for key in far:
        first, until = layer[key[0]], layer[key[1]]
        lane = next((i for i, end in enumerate(free) if end <= first), len(free))
        free[lane : lane + 1] = [until]
        lanes[key] = -height / 2 - BOX_GAP - LANE * (lane + 0.5)
    direct = [lanes[key] for key in far if layer[key[0]] == 0 and layer[key[1]] == last]
    centre = sum(direct) / len(direct) if direct else min(lanes.values(), default=0.0)
    return _Rows(row | _spread(layers[0], centre, boxes) | _spread(layers[-1], centre, boxes), lanes)


def _stacked(keys: Sequence[Key], middle: float) -> dict[Key, float]:
    """Lanes below one another around a height."""
    return {key: middle + LANE * ((len(keys) - 1) / 2 - i) for i, key in enumerate(keys)}


def _spread(names: Sequence[str], centre: float, boxes: Mapping[str, Size]) -> dict[str, float]:
    """Boxes below one another around a height, far enough apart that their arrows are told apart."""
    heights = [boxes[name][1] for name in names]
    top = centre + (sum(heights) + 2 * BOX_GAP * (len(names) - 1)) / 2
    found = {}
    for name, height in zip(names, heights, strict=True):
        found[name] = top - height / 2
        top -= height + 2 * BOX_GAP
    return found


def _columns(
    layers: Sequence[Sequence[str]],
    layer: Mapping[str, int],
    arrows: Sequence[Key],
    boxes: Mapping[str, Size],
    labels: Mapping[Key, Size],
    fan: float,
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Left and right end of each layer's column, and of the straight part of lanes between two of them."""
    wide = [max([boxes[name][0] for name in names] + [0.0]) for names in layers]
    between = [0.0] * (len(layers) - 1)
    for key in arrows:
        first, until = layer[key[0]], layer[key[1]]
        if until == first + 1:
            between[first] = max(between[first], labels[key][0] + 2 * CLEAR)
        else:
            middle = (first + until) // 2
            wide[middle] = max(wide[middle], labels[key][0])
    columns, gaps, x = [], [], 0.0
    for i, width in enumerate(wide):
        columns.append((x, x + width))
        x += width
        if i < len(between):
            gaps.append((x + fan, x + fan + between[i]))
            x += 2 * fan + between[i] + RUN_IN
    return columns, gaps


def _ports(arrows: Sequence[Key], rows: _Rows, boxes: Mapping[str, Box]) -> dict[Key, tuple[float, float]]:
    """Heights at which each arrow leaves and enters a box, in the order of their lanes."""
    found: dict[Key, list[float]] = {key: [0.0, 0.0] for key in arrows}
    for side in (0, 1):
        for name, box in boxes.items():
            mine = sorted((key for key in arrows if key[side] == name), key=lambda key: -rows.lanes[key])
            step = min(LANE, PORTS * box.height / max(1, len(mine) - 1))
            for i, key in enumerate(mine):
                found[key][side] = box.y + step * ((len(mine) - 1) / 2 - i)
    return {key: (leaves, enters) for key, (leaves, enters) in found.items()}


def _bend(start: Point, edge: float, lane: Point) -> list[Point]:
    """From a box straight to the edge of its column, then in an S to the lane; level at both ends."""
    points = [start]
    for i in range(STEPS + 1):
        t = i / STEPS
        points.append((edge + t * (lane[0] - edge), start[1] + t * t * (3 - 2 * t) * (lane[1] - start[1])))
    return points


def _framed(boxes: Mapping[str, Box], routes: Mapping[Key, Route], labels: Mapping[Key, Size]) -> Diagram:
    """Move everything so that the lower left corner of what is drawn stands a margin from the origin."""
    tops = [b.y + b.height / 2 for b in boxes.values()] + [r.label[1] + labels[k][1] / 2 for k, r in routes.items()]
    lows = [b.y - b.height / 2 for b in boxes.values()] + [r.label[1] - labels[k][1] / 2 for k, r in routes.items()]
    left, right = (
        min(b.x - b.width / 2 for b in boxes.values()) - MARGIN,
        max(b.x + b.width / 2 for b in boxes.values()) + MARGIN,
    )
    low = min(lows) - MARGIN

    def moved(point: Point) -> Point:
        return point[0] - left, point[1] - low

    return Diagram(
        right - left,
        max(tops) + MARGIN - low,
        {name: Box(*moved((b.x, b.y)), b.width, b.height) for name, b in boxes.items()},
        {key: Route(tuple(moved(p) for p in r.points), moved(r.label)) for key, r in routes.items()},
    )
