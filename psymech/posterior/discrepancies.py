"""Statistics of data and random effects that a posterior predictive check compares, each (draws, ...) -> (draws,)."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from psymech.posterior.replicates import Rows

Floats = NDArray[np.float64]
MIN_ROWS_FOR_SPREAD: Final = 4  # sessions of a patient from which the size of the patient's residuals is judged


def unit_means(values: Floats, unit: NDArray[np.int64]) -> Floats:
    """Mean of the rows (s, n) of each unit that has rows, shape (s, units)."""
    if (np.diff(unit) < 0).any():
        order = np.argsort(unit, kind="stable")
        values, unit = values[:, order], unit[order]
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    counts = np.diff(np.append(starts, unit.size))
    return np.add.reduceat(values, starts, axis=1) / counts


def sd_of_means(values: Floats, unit: NDArray[np.int64]) -> Floats:
    """SD over units of their means."""
    return unit_means(values, unit).std(axis=1, ddof=1)


def successive(rows: Rows) -> NDArray[np.int64]:
    """Rows whose patient has a row exactly one session (the usual step) before."""
    known = rows.gap[np.isfinite(rows.gap)]
    if known.size == 0:
        return np.zeros(0, dtype=np.int64)
    steps, counts = np.unique(known, return_counts=True)
    return np.flatnonzero(rows.gap == steps[counts.argmax()])


def lag_one(residuals: Floats, at: NDArray[np.int64]) -> Floats:
    """Correlation of residuals (mean zero under the model) of rows with the row before each."""
    now, before = np.take(residuals, at, axis=1), np.take(residuals, at - 1, axis=1)
    scale = np.sqrt(np.einsum("sn,sn->s", now, now) * np.einsum("sn,sn->s", before, before))
    return np.divide(np.einsum("sn,sn->s", now, before), scale, out=np.zeros(len(scale)), where=scale > 0)


def kurtosis(residuals: Floats) -> Floats:
    """Fourth moment over squared second moment: 3 for normal residuals, more with heavy tails."""
    squares = residuals**2
    second = squares.mean(axis=1)
    return np.divide(
        np.einsum("sn,sn->s", squares, squares) / squares.shape[1],
        second**2,
        out=np.zeros(len(second)),
        where=second > 0,
    )


def spread_over_patients(residuals: Floats, rows: Rows) -> Floats:
    """SD over patients of the logarithm of their mean squared residual; patients with four rows or more."""
    patient = rows.unit["patient"]
    counts = np.bincount(patient)
    enough = np.flatnonzero(counts[patient] >= MIN_ROWS_FOR_SPREAD)
    some = residuals if enough.size == patient.size else np.take(residuals, enough, axis=1)
    squares = unit_means(some**2, patient[enough])
    return np.log(np.maximum(squares, np.finfo(float).tiny)).std(axis=1, ddof=1)


def departure_from_normal(effects: Floats) -> Floats:
    """One minus the correlation of sorted effects (s, units) with normal scores (Shapiro & Francia 1972)."""
    n = effects.shape[1]
    scores = ndtri((np.arange(1, n + 1) - 0.375) / (n + 0.25))
    ordered = np.sort(effects, axis=1)
    centred = ordered - ordered.mean(axis=1, keepdims=True)
    scale = np.sqrt((centred**2).sum(axis=1) * (scores**2).sum())
    return 1.0 - np.divide(centred @ scores, scale, out=np.ones(len(scale)), where=scale > 0)
