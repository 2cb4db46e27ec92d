"""From a design to the cross-products of the collapsed engine, and its fixed-effect prior as a normal distribution."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from psymech.design import Design
from psymech.gaussian.cross import CrossProducts, cross_products
from psymech.gaussian.nesting import sort_units
from psymech.gaussian.patterns import ByPattern, by_pattern
from psymech.gaussian.residual import AR1, ByGroup, Residual, ar1
from psymech.priors import ChosenPriors, uncentring
from psymech.spec.priors import Normal


@dataclass(frozen=True, slots=True, eq=False)
class Crossing:
    """What the collapsed engine needs of a design.

    Attributes
    ----------
    columns : (n, m - 1) distinct columns of the fixed and random effects.
    cross : cross-products; its units are sorted so that those of one parent stand together.
    residual : structure of the residual precision.
    order : for each level, lowest first, the design's unit at each of the engine's places.
    unit : (n,) place of each row's lowest unit.
    beta_prior : mean and precision of the fixed effects, or None where a prior is not normal.
    """

    columns: NDArray[np.float64]
    cross: CrossProducts
    residual: Residual
    order: tuple[NDArray[np.int64], ...]
    unit: NDArray[np.int64]
    beta_prior: tuple[NDArray[np.float64], NDArray[np.float64]] | None


def make_crossing(design: Design, priors: ChosenPriors) -> Crossing:
    """Return the cross-products of a design with nested levels and Gaussian responses."""
    by_label = dict(zip(design.terms, design.X.T, strict=True))
    for level in design.levels:
        for label, column in zip(level.terms, level.Z.T, strict=True):
            by_label.setdefault(label, column)
    labels = list(by_label)
    columns = np.column_stack([by_label[label] for label in labels])
    position = {label: index for index, label in enumerate(labels)}
    order, places, parents = sort_units([level.code for level in design.levels])
    residual = residual_structure(design)
    unit = places[0][design.levels[0].code]
    cross = cross_products(
        columns,
        design.y,
        unit,
        parents,
        [np.array([position[t] for t in level.terms]) for level in design.levels],
        np.array([position[t] for t in design.terms], dtype=np.int64),
        residual.terms(),
    )
    return Crossing(columns, cross, residual, order, unit, _beta_prior(design, priors))


def residual_structure(design: Design) -> ByGroup | ByPattern | AR1:
    """Return the residual structure: one SD a response or group of rows, a covariance across the responses of a
    session, or a first-order autoregression within patients.
    """
    if design.residual == "unstructured":
        return by_pattern(design.row, design.response)
    if design.residual == "ar1":
        return ar1(design.session, _series(design))
    return ByGroup(design.sd_code)


def _series(design: Design) -> NDArray[np.int64]:
    """Number the runs of rows that follow one another (one patient, one response)."""
    series = np.zeros(design.n_obs, dtype=np.int64)
    starts = design.previous < 0
    series[starts] = np.arange(int(starts.sum()))
    for row in np.flatnonzero(~starts):
        series[row] = series[design.previous[row]]
    return series


def _beta_prior(design: Design, priors: ChosenPriors) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    if not all(isinstance(p, Normal) for p in priors.beta):
        return None
    to_zero = uncentring(design, priors)
    centred = 2 * np.eye(len(design.terms)) - to_zero  # the inverse: each intercept's row adds back what was taken
    mean = np.array([p.mean for p in priors.beta])
    precision = np.diag([p.sd**-2.0 for p in priors.beta])
    return to_zero @ mean, centred.T @ precision @ centred
