"""Basis functions of time, with everything that the data decided (origin, range, knots) kept as values."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from psymech.errors import DesignError
from psymech.spec.model import TimeKind, TimeShape


@dataclass(frozen=True, slots=True)
class TimeBasis:
    """A time shape made concrete by the times at hand.

    `origin` is the earliest time; `knots` are the piecewise knots, or all knots of the natural spline (boundaries
    included).
    """

    kind: TimeKind
    origin: float
    knots: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Plain values for storage."""
        return asdict(self)


def make_time_basis(shape: TimeShape, time: NDArray[np.float64]) -> TimeBasis:
    """Fix origin and knots from the times of the rows that the model uses."""
    low, high = float(time.min()), float(time.max())
    distinct = np.unique(time)
    needed = shape.n_columns + 1
    if distinct.size < needed:
        raise DesignError(
            f"shape={shape.kind!r} needs at least {needed} different times, found {distinct.size}. "
            "Use a simpler shape, or time=None."
        )
    match shape.kind:
        case "piecewise":
            outside = [k for k in shape.knots if not low < k < high]
            if outside:
                raise DesignError(
                    f"knots must lie between the first and last time ({low:g} and {high:g}), found {outside[0]:g}."
                )
            return TimeBasis("piecewise", low, shape.knots)
        case "spline":
            inner = np.quantile(distinct, np.linspace(0, 1, shape.df + 1))
            return TimeBasis("spline", low, tuple(float(k) for k in inner))
        case _:
            return TimeBasis(shape.kind, low)


def evaluate(basis: TimeBasis, time: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, k) basis columns.

    linear: t. log: log(1 + t - origin). quadratic: t, t^2. piecewise: t and max(t - knot, 0). spline: natural cubic
    spline in the truncated-power form of Hastie, Tibshirani & Friedman (2009, eq. 5.4-5.5) on time scaled to its
    range.
    """
    t = np.asarray(time, dtype=float)
    match basis.kind:
        case "linear":
            columns = [t]
        case "log":
            columns = [np.log1p(t - basis.origin)]
        case "quadratic":
            columns = [t, t**2]
        case "piecewise":
            columns = [t, *(np.maximum(t - knot, 0.0) for knot in basis.knots)]
        case "spline":
            low, high = basis.knots[0], basis.knots[-1]
            s = (t - low) / (high - low)
            knots = (np.asarray(basis.knots) - low) / (high - low)
            last, d_last = knots[-1], _truncated(s, knots[-2], knots[-1])
            columns = [s, *(_truncated(s, knot, last) - d_last for knot in knots[:-2])]
    return np.column_stack(columns)


def _truncated(s: NDArray[np.float64], knot: float, last: float) -> NDArray[np.float64]:
    return (np.maximum(s - knot, 0) ** 3 - np.maximum(s - last, 0) ** 3) / (last - knot)
