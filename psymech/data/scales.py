"""Values that a scale cannot take: known ranges by column name, stated ranges, and codes for missing values."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import numpy as np

from psymech.data.findings import Finding
from psymech.data.roles import absent_message
from psymech.data.table import Table
from psymech.errors import MAX_IDS_IN_MESSAGE, DataError, shown_id, shown_ids

Range = tuple[float, float]

SCALES: Final[Mapping[str, Range]] = {
    "phq2": (0, 6),
    "phq8": (0, 24),
    "phq9": (0, 27),
    "phq15": (0, 30),
    "gad2": (0, 6),
    "gad7": (0, 21),
    "bdi": (0, 63),
    "bdi2": (0, 63),
    "bdiii": (0, 63),
    "bai": (0, 63),
    "bhs": (0, 20),
    "madrs": (0, 60),
    "hamd17": (0, 52),
    "hdrs17": (0, 52),
    "hama": (0, 56),
    "qids16": (0, 27),
    "cesd": (0, 60),
    "epds": (0, 30),
    "psqi": (0, 21),
    "ybocs": (0, 40),
    "lsas": (0, 144),
    "pdss": (0, 28),
    "pcl5": (0, 80),
    "wsas": (0, 40),
    "oq45": (0, 180),
    "ors": (0, 40),
    "core10": (0, 40),
    "k10": (0, 50),
    "audit": (0, 40),
    "auditc": (0, 12),
}
"""Lowest and highest total score of well-known questionnaires, by name in lower case without punctuation.

Names with several scorings in use (WAI, CORE-OM, SRS, HSCL, RSES, DASS) are left out on purpose.
"""

_OCCASIONS = (
    "pre post baseline bl intake admission start end followup fu follow up before after total score sum session"
)
OCCASIONS: Final = frozenset(_OCCASIONS.split())
CODES: Final = (-9, -99, -999, -9999, -77, -88, -777, -888, 77, 88, 99, 777, 888, 999, 7777, 8888, 9999)
FAR: Final = 3.0  # widths of the other values beyond them, from which on a code cannot be a real value
MISSING_CODES: Final = "missing-codes"
MIN_RATINGS: Final = 3  # -1 and 1 alone are a contrast
MIN_OTHERS: Final = 8  # fewer values do not show what is usual


def known_range(name: str) -> Range | None:
    """Return the range of a well-known scale by its column name, None where the name is not known.

    >>> known_range("PHQ-9"), known_range("bdi_pre"), known_range("mood")
    ((0, 27), (0, 63), None)
    """
    words = [word for word in re.split(r"[\W_]+", name.casefold()) if word]
    core = [word for word in words if word not in OCCASIONS and not re.fullmatch(r"t\d+", word)]
    return SCALES.get("".join(words)) or SCALES.get("".join(core))


def check_ranges(ranges: Mapping[str, Range | None], names: Iterable[str], *, roles: Collection[str] = ()) -> None:
    """Raise DataError unless each range names a column without a role and is (lowest, highest), lowest below highest.

    Parameters
    ----------
    ranges : mapping of column to (lowest, highest) or None
    names : iterable of str
        The columns.
    roles : collection of str
        Columns that play a role.
    """
    if not isinstance(ranges, Mapping):
        raise DataError(f"ranges expects a mapping such as {{'phq9': (0, 27)}}, but got {type(ranges).__name__}.")
    columns = list(names)
    for name, limits in ranges.items():
        if name not in columns:
            raise DataError(f"ranges: {absent_message(name, columns)}")
        if name in roles:
            raise DataError(f"ranges are for measurements, but column '{name}' has a role. Leave it out of ranges.")
        if limits is not None and not is_range(limits):
            raise DataError(f"ranges['{name}'] expects two numbers (lowest, highest), or None, but got {limits!r}.")


def is_range(limits: object) -> bool:
    """Whether limits are two numbers, the lower first."""
    if not (isinstance(limits, (tuple, list)) and len(limits) == 2):
        return False
    if not all(isinstance(end, (int, float, np.number)) and not isinstance(end, bool) for end in limits):
        return False
    return bool(limits[0] < limits[1])


def refuse_outside(
    name: str, values: np.ndarray, *, ranges: Mapping[str, Range | None], table: Table, owner: str, labels: np.ndarray
) -> None:
    """Raise DataError where a value lies outside the range of its scale.

    Parameters
    ----------
    name : str
        The column.
    values : ndarray, shape (n_rows,)
        float64, NaN where missing.
    ranges : mapping of column to (lowest, highest) or None
        What the user stated; a column named here is not looked up.
    table : Table
    owner : str
        Level of the ids in `labels`, for the message.
    labels : ndarray, shape (n_rows,)
    """
    limits = ranges[name] if name in ranges else known_range(name)
    if limits is None:
        return
    rows = np.flatnonzero((values < limits[0]) | (values > limits[1]))
    if rows.size:
        why = "stated in ranges" if name in ranges else "a well-known scale"
        raise DataError(
            f"Column '{name}' must lie in the range {limits[0]:g} to {limits[1]:g} ({why}), but "
            f"{_found(values, rows, table, owner, labels)}. Correct the cells, or leave them blank if missing; for "
            f"another scoring pass ranges={{'{name}': (lowest, highest)}}, or None in its place for no check."
        )


def note_codes(
    name: str, values: np.ndarray, *, ranges: Mapping[str, Range | None], table: Table, owner: str, labels: np.ndarray
) -> tuple[Finding, ...]:
    """Return a note where a column holds codes for missing values; `SessionData.values` then refuses the column.

    A column named in `ranges` is taken as it is.  Parameters as in `refuse_outside`.
    """
    rows = code_rows(values) if name not in ranges else np.array([], dtype=np.int64)
    if not rows.size:
        return ()
    message = (
        f"Column '{name}' must hold measurements to be used, but seems to hold codes for missing values: "
        f"{_found(values, rows, table, owner, labels)}."
    )
    remedy = f"Leave missing cells blank, or pass ranges={{'{name}': None}} if these are real values."
    ids = tuple(shown_id(label) for label in list(dict.fromkeys(labels[rows].tolist()))[:MAX_IDS_IN_MESSAGE])
    return (Finding("note", MISSING_CODES, name, ids, message, remedy),)


def _found(values: np.ndarray, rows: np.ndarray, table: Table, owner: str, labels: np.ndarray) -> str:
    found = ", ".join(f"{value:g}" for value in list(dict.fromkeys(values[rows].tolist()))[:MAX_IDS_IN_MESSAGE])
    whose = shown_ids(dict.fromkeys(labels[rows].tolist()))
    return f"{rows.size} of {values.size} values are {found} at {table.where(rows)}, {owner} {whose}"


def code_rows(values: np.ndarray) -> np.ndarray:
    """Return the rows that hold a usual code for missing values (-99, 999, ...) far from every other value.

    A negative code counts where no other value is negative; a positive one where it lies three times the spread of the
    other values above the largest of them; -1 where the others are ratings from 1 on.
    """
    single = _minus_one(values)
    if single.any():
        return np.flatnonzero(single)
    coded = np.isin(values, CODES)
    others = values[~coded & ~np.isnan(values)]
    if not coded.any() or others.size < MIN_OTHERS:
        return np.array([], dtype=np.int64)
    width = max(float(np.ptp(others)), 1.0)
    far_above = values > others.max() + FAR * width
    below = (values < 0) & (others.min() >= 0)
    return np.flatnonzero(coded & (far_above | below))


def _minus_one(values: np.ndarray) -> np.ndarray:
    """Whether a value is -1 in a column whose other values are ratings from 1 on, three different ones at least."""
    others = values[(values != -1) & ~np.isnan(values)]
    ratings = others.size >= MIN_OTHERS and others.min() >= 1 and np.unique(others).size >= MIN_RATINGS
    return (values == -1) if ratings else np.zeros(values.shape, dtype=bool)
