"""Checks of the columns of a design: whether they vary where they are asked to act, and apart from each other."""

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Final

import numpy as np

from psymech.data.findings import Finding
from psymech.data.sessions import varies_within
from psymech.errors import MAX_IDS_IN_MESSAGE, shown_id, shown_ids
from psymech.names import Level, Part

FLAT: Final = 1e-10  # rounding left by subtracting means of values of order one to a thousand
EXACT: Final = 1e-10  # smallest eigenvalue of a correlation matrix, and 1 - |r|, of exactly dependent columns
NEAR_R: Final = 0.98
NEAR_CONDITION: Final = 30.0  # Belsley, Kuh & Welsch (1980): strong dependence from 30 on
LOADING: Final = 0.1  # entries of a null vector of unit length that matter
BASELINE: Final = re.compile(r"(^|_)(pre|baseline|bl|intake|admission|t0)(_|$)", re.IGNORECASE)
RARE_VARIATION: Final = 0.2  # share of patients within whom a baseline may seem to vary before it is a session variable
MIN_VARYING: Final = 3  # units within which a slope's column has to vary
ACTS: Final[Mapping[Part, str]] = {
    "raw": "",
    "within": " within patients",
    "patient": " between patients",
    "therapist": " between therapists",
}


def check_column(
    name: str,
    values: np.ndarray,
    codes: Mapping[Level, np.ndarray],
    part: Part,
    *,
    labels: Mapping[Level, np.ndarray],
) -> tuple[Finding, ...]:
    """Return findings on one column of a design.

    An error where it is constant, because the design is then singular; a warning where it differs from its usual
    value in one row, one patient or one therapist only, because its coefficient then rests on that unit; for a column
    taken as given, a finding where it varies within a few patients only, as a baseline with a typing error does.

    Parameters
    ----------
    name : str
        Label of the column.
    values : ndarray, shape (n_rows,)
        The column as the model uses it.
    codes : mapping of level to int64 ndarray, shape (n_rows,)
    part : {"raw", "within", "patient", "therapist"}
        The part of a variable that the column holds.
    labels : mapping of level to ndarray, shape (n_units,)
    """
    if not values.size or not np.isfinite(values).all():
        return ()
    if np.ptp(values) <= FLAT:
        message = f"Column {name} is constant: it does not vary{ACTS[part]}, so its effect cannot be estimated."
        return (Finding("error", "column-constant", name, (), message, "Leave it out, or use another part of it."),)
    found = list(check_rare(name, values, codes, labels=labels))
    if part == "raw" and "patient" in codes and not found:
        found = _unsteady_baseline(name, values, codes["patient"], labels["patient"])
    return tuple(found)


def check_slope(
    name: str, values: np.ndarray, codes: np.ndarray, level: Level, *, labels: np.ndarray
) -> tuple[Finding, ...]:
    """Return a warning where the column of a random slope varies within no unit of its level, or within few.

    Parameters
    ----------
    name : str
        Label of the slope.
    values : ndarray, shape (n_rows,)
        Its column.
    codes : ndarray, shape (n_rows,)
        Index of each row's unit.
    level : {"patient", "therapist", "clinic"}
    labels : ndarray, shape (n_units,)
    """
    n_varying = varies_within(values, codes, len(labels), tolerance=FLAT).size
    if n_varying >= MIN_VARYING:
        return ()
    message = (
        f"The random slope of {name} over {level}s rests on its prior: {name} varies within {n_varying or 'none'} of "
        f"{len(labels)} {level}s."
    )
    remedy = f"Leave the slope out, or name a column that changes within a {level}."
    return (Finding("warning", "slope-without-variation", name, (), message, remedy),)


def check_rare(
    name: str,
    values: np.ndarray,
    codes: Mapping[Level, np.ndarray],
    *,
    labels: Mapping[Level, np.ndarray],
    remedy: str = "Its coefficient rests on that alone: leave it out or treat it with caution.",
) -> tuple[Finding, ...]:
    """Return a warning where a column differs from its usual value in one row or one unit only.

    Parameters as in `check_column`, and the advice.
    """
    distinct, counts = np.unique(np.round(values / FLAT) * FLAT, return_counts=True)
    usual = distinct[np.argmax(counts)]
    different = np.flatnonzero(np.abs(values - usual) > FLAT)
    if different.size == 1:
        whose = _whose(different, codes, labels)
        message = (
            f"Column {name} is nearly constant: 1 of {values.size} rows (one row, {whose}) differs from {usual:.6g}."
        )
        return (Finding("warning", "column-rare", name, (), message, remedy),)
    for level in codes:
        units = np.unique(codes[level][different])
        if units.size == 1 and np.unique(codes[level]).size > 1:
            label = labels[level][units[0]]
            message = (
                f"Column {name} is nearly constant: it differs from {usual:.6g} only in one {level} (1 {level}), "
                f"{shown_id(label)}, in {different.size} of {values.size} rows."
            )
            return (Finding("warning", "column-rare", name, (shown_id(label),), message, remedy),)
    return ()


def _whose(rows: np.ndarray, codes: Mapping[Level, np.ndarray], labels: Mapping[Level, np.ndarray]) -> str:
    level = next(iter(codes))
    return f"{level} {shown_id(labels[level][codes[level][rows[0]]])}"


def _unsteady_baseline(name: str, values: np.ndarray, patient: np.ndarray, labels: np.ndarray) -> list[Finding]:
    n_units = len(labels)
    low, high = np.full(n_units, np.inf), np.full(n_units, -np.inf)
    np.minimum.at(low, patient, values)
    np.maximum.at(high, patient, values)
    several = np.bincount(patient, minlength=n_units) > 1
    varying = np.flatnonzero(several & (high - low > FLAT))
    if not varying.size or varying.size > RARE_VARIATION * several.sum():
        return []
    ids = labels[varying].tolist()
    message = (
        f"Column {name} is constant within most patients, as a baseline is, but varies (changes over sessions) within "
        f"{varying.size} of {int(several.sum())}: {shown_ids(ids)}."
    )
    severity = "error" if BASELINE.search(name) else "warning"
    shown = tuple(shown_id(label) for label in ids[:MAX_IDS_IN_MESSAGE])
    remedy = "Correct it, or give it in a table with one row a patient (patients=)."
    return [Finding(severity, "baseline-varies", name, shown, message, remedy)]


def check_collinear(columns: Mapping[str, np.ndarray]) -> tuple[Finding, ...]:
    """Return findings on columns that cannot, or can hardly, be told apart.

    With the columns centred and scaled, an error where one is a linear combination of others (their correlation matrix
    has an eigenvalue of zero), a warning where two correlate beyond 0.98 or the condition number, the root of the ratio
    of the largest to the smallest eigenvalue, exceeds 30.

    Parameters
    ----------
    columns : mapping of label to ndarray, shape (n_rows,)
        Constant columns are passed over; `check_column` reports them.
    """
    names = [name for name, values in columns.items() if np.isfinite(values).all() and np.ptp(values) > FLAT]
    if len(names) < 2:
        return ()
    standard = np.column_stack([(columns[name] - columns[name].mean()) for name in names])
    standard /= np.linalg.norm(standard, axis=0)
    r = np.clip(standard.T @ standard, -1.0, 1.0)
    pairs = [(i, j) for i, j in combinations(range(len(names)), 2) if 1 - abs(r[i, j]) < EXACT]
    if pairs:
        return tuple(_identical(names[i], names[j], columns[names[i]], columns[names[j]]) for i, j in pairs)
    weights, vectors = np.linalg.eigh(r)
    if weights[0] < EXACT:
        message = (
            f"Columns {_loaded(names, vectors[:, 0])} are collinear: one is a linear combination of the others (the "
            "design has "
            f"rank {int((weights >= EXACT).sum())} for {len(names)} columns)."
        )
        remedy = "Leave one of them out; K units tell apart at most K - 1 columns that differ between units only."
        return (Finding("error", "columns-dependent", names[0], (), message, remedy),)
    near = [(i, j) for i, j in combinations(range(len(names)), 2) if abs(r[i, j]) > NEAR_R]
    if near:
        return tuple(_near(names[i], names[j], r[i, j]) for i, j in near)
    condition = float(np.sqrt(weights[-1] / weights[0]))
    if condition > NEAR_CONDITION:
        message = f"Columns {_loaded(names, vectors[:, 0])} are nearly collinear (condition number {condition:.0f})."
        return (Finding("warning", "columns-near-dependent", names[0], (), message, _NEAR_REMEDY),)
    return ()


_NEAR_REMEDY: Final = "Their separate effects are hardly estimable: combine them or leave one out."


def _identical(first: str, second: str, a: np.ndarray, b: np.ndarray) -> Finding:
    same = "are identical" if np.array_equal(a, b) else "are exact linear functions of each other"
    message = f"Columns {first} and {second} {same} (collinear), so that their effects cannot be told apart."
    return Finding("error", "columns-identical", second, (), message, "Leave one of them out.")


def _near(first: str, second: str, r: float) -> Finding:
    message = f"Columns {first} and {second} are nearly collinear: they correlate {r:.3f}."
    return Finding("warning", "columns-near-dependent", second, (), message, _NEAR_REMEDY)


def _loaded(names: list[str], vector: np.ndarray) -> str:
    return ", ".join(name for name, weight in zip(names, vector, strict=True) if abs(weight) > LOADING)
