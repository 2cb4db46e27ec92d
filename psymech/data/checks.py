"""Checks of the data by themselves, and of the levels of a design; each returns findings and raises nothing."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import numpy as np

from psymech.data.column_checks import check_collinear as check_collinear
from psymech.data.column_checks import check_column as check_column
from psymech.data.design_report import DesignReport as DesignReport
from psymech.data.findings import Finding
from psymech.data.sessions import SessionData
from psymech.errors import MAX_IDS_IN_MESSAGE, shown_id, shown_ids
from psymech.names import LEVELS, Level

MIN_ROWS: Final = 3
MIN_UNITS: Final = 3  # fewer units show no variance: the SD is its prior
FEW_UNITS: Final = 5  # fewer units leave the SD mostly to its prior
MAX_OUTLYING: Final = 2  # cells at one end that may lie apart
MIN_OTHERS: Final = 20  # fewer values do not show what is usual
MIN_RUNNING: Final = 2  # sessions a patient, from which numbers are expected to recur among patients
BIG_JUMP: Final = 30  # sessions left out in one step that suggest a typing error
JUMP_PER_ROW: Final = 5


def check_data(data: SessionData) -> tuple[Finding, ...]:
    """Return findings that need no model: too few rows, missing cells by column, doubtful session numbers and times.

    Parameters
    ----------
    data : SessionData

    Examples
    --------
    >>> import pandas as pd
    >>> rows = {"patient": [1, 1, 2, 2], "session": [1, 2, 1, 2], "mood": [3.0, None, 2.0, 4.0]}
    >>> data = SessionData.from_frame(pd.DataFrame(rows), therapist=None)
    >>> [finding.message for finding in check_data(data)]
    ['1 of 4 values of mood are missing (blank), in 1 patient: 1.']
    """
    found: list[Finding] = []
    if data.n_sessions < MIN_ROWS:
        rows = "row (observation)" if data.n_sessions == 1 else "rows (observations)"
        message = f"The table has only {data.n_sessions} {rows}: far too few for a model of change."
        found.append(Finding("error", "rows-few", "", (), message, "Give one row for each session of each patient."))
    for name in data.column_names:
        found += [*_missing_cells(data, name), *_outlying(data, name)]
    return (*found, *_jumps(data), *_running(data), *_disorder(data))


def data_report(data: SessionData) -> DesignReport:
    """Return what can be said without a model: notes of reading, `check_data`, and `check_levels` of all levels.

    Parameters
    ----------
    data : SessionData
    """
    levels = dict.fromkeys(data.levels, 1)
    return DesignReport((*data.notes, *check_data(data), *check_levels(levels, codes=data.codes, labels=data.ids)))


def _missing_cells(data: SessionData, name: str) -> list[Finding]:
    home = data.home(name)
    column = data.sessions[name] if home == "session" else data.units[home][name]
    missing = column.isna().to_numpy()
    if not missing.any():
        return []
    if missing.all():
        message = f"Column '{name}' is empty: all {missing.size} values are missing."
        return [Finding("warning", "column-empty", name, (), message, "Check the export, or leave the column out.")]
    level: Level = "patient" if home == "session" else home
    units = np.unique(data.codes[level][missing]) if home == "session" else np.flatnonzero(missing)
    labels = data.ids[level][units].tolist()
    where = f"{len(labels)} {level}{'' if len(labels) == 1 else 's'}: {shown_ids(labels)}"
    message = f"{int(missing.sum())} of {missing.size} values of {name} are missing (blank), in {where}."
    return [Finding("note", "cells-missing", name, _five(labels), message, "")]


def _outlying(data: SessionData, name: str) -> list[Finding]:
    home = data.home(name)
    column = data.sessions[name] if home == "session" else data.units[home][name]
    if column.dtype == object:
        return []
    values = column.to_numpy()
    known = np.sort(values[~np.isnan(values)])
    found: list[Finding] = []
    for sign in (1, -1):
        ordered = known if sign == 1 else -known[::-1]
        for count in range(1, MAX_OUTLYING + 1):
            others = ordered[:-count]
            if others.size < MIN_OTHERS or np.ptp(others) == 0:
                break
            if ordered[-count] - others[-1] > np.ptp(others):
                rows = np.flatnonzero(sign * values >= ordered[-count])
                level: Level = "patient" if home == "session" else home
                units = data.codes["patient"][rows] if home == "session" else rows
                labels = data.ids[level][units].tolist()
                shown = ", ".join(f"{value:g}" for value in values[rows])
                low, high = sorted((sign * float(others[0]), sign * float(others[-1])))
                message = (
                    f"Column '{name}' has values far outside all others, which lie between {low:g} and {high:g}: "
                    f"{shown} for {level} {shown_ids(labels)}."
                )
                found.append(
                    Finding("warning", "values-outlying", name, _five(labels), message, "Check for typing errors.")
                )
                break
    return found


def _jumps(data: SessionData) -> list[Finding]:
    order = np.lexsort((data.session, data.codes["patient"]))
    patient, session = data.codes["patient"][order], data.session[order]
    rows = np.bincount(patient)[patient]
    step = np.diff(session)
    bad = (np.diff(patient) == 0) & (step > BIG_JUMP) & (step > JUMP_PER_ROW * rows[1:])
    if not bad.any():
        return []
    after = np.flatnonzero(bad) + 1
    labels = data.ids["patient"][patient[after]].tolist()
    numbers = ", ".join(f"{number:g}" for number in session[after][:MAX_IDS_IN_MESSAGE])
    name = str(data.roles["session"])
    message = f"Session numbers jump by more than {BIG_JUMP} for patient {shown_ids(labels)} (to session {numbers})."
    return [Finding("warning", "session-jump", name, _five(labels), message, "Check for typing errors.")]


def _running(data: SessionData) -> list[Finding]:
    """Sessions numbered on over patients, in the whole table or within therapists, share no number."""
    patients = np.bincount(data.codes["patient"])
    if patients.size < MIN_UNITS or np.median(patients) < MIN_RUNNING:
        return []
    for level in (None, "therapist"):
        if level is not None and level not in data.codes:
            continue
        unit = np.zeros(data.n_sessions, dtype=np.int64) if level is None else data.codes[level]
        pairs = np.unique(np.column_stack([unit, data.codes["patient"]]), axis=0)
        several = np.flatnonzero(np.bincount(pairs[:, 0]) > 1)
        cells = np.column_stack([unit, data.session])[np.isin(unit, several)]
        if several.size < (1 if level is None else MIN_UNITS) or len(np.unique(cells, axis=0)) < len(cells):
            continue
        name = str(data.roles["session"])
        where = "the whole table" if level is None else f"each {level}"
        first = np.full(data.n_patients, np.inf)
        np.minimum.at(first, data.codes["patient"], data.session)
        message = (
            f"Session numbers (column '{name}') seem to run on over the patients of {where}: no two of them share a "
            f"number, and first sessions are numbered {first.min():g} to {first.max():g}."
        )
        remedy = "Number each patient's sessions 1, 2, 3, ... of their own."
        return [Finding("warning", "session-running", name, (), message, remedy)]
    return []


def _disorder(data: SessionData) -> list[Finding]:
    name = data.roles["time"]
    if name is None or name == data.roles["session"]:
        return []
    order = np.lexsort((data.session, data.codes["patient"]))
    patient = data.codes["patient"][order]
    back = (np.diff(patient) == 0) & (np.diff(data.time[order]) < 0)
    if not back.any():
        return []
    labels = data.ids["patient"][np.unique(patient[1:][back])].tolist()
    message = f"Time (column '{name}') runs backwards over the sessions of {len(labels)} patients: {shown_ids(labels)}."
    return [Finding("warning", "time-disorder", name, _five(labels), message, "Check times and session numbers.")]


def check_levels(
    levels: Mapping[Level, int], *, codes: Mapping[Level, np.ndarray], labels: Mapping[Level, np.ndarray]
) -> tuple[Finding, ...]:
    """Return findings on what the numbers of units can say about the variances of the levels.

    A variance of K units rests mostly on its prior where K is below 5 (a warning), and cannot be estimated where K is
    below 3 (an error).  Patients with one session say nothing on the variance of sessions, and where every patient has
    one, patient and residual variance are not identified; the same holds for therapists with one patient.

    Parameters
    ----------
    levels : mapping of level to number of random terms
        Levels with a variance; 0 where a level has none.
    codes : mapping of level to int64 ndarray, shape (n_rows,)
        Index of each row's unit.
    labels : mapping of level to ndarray, shape (n_units,)
    """
    present: list[Level] = [level for level in LEVELS if levels.get(level, 0) > 0]
    found: list[Finding] = []
    for level in present:
        found += _few_units(level, np.unique(codes[level]).size)
    if "patient" in present:
        found += _single("patient", "session", np.bincount(codes["patient"]), labels["patient"])
    for lower, upper in pairwise(present):
        pairs = np.unique(np.column_stack([codes[upper], codes[lower]]), axis=0)
        found += _single(upper, lower, np.bincount(pairs[:, 0]), labels[upper])
    return tuple(found)


def _few_units(level: Level, count: int) -> list[Finding]:
    if count >= FEW_UNITS:
        return []
    rest = f"few units, so the SD between {level}s rests mostly on its prior"
    message = f"There {'is' if count == 1 else 'are'} only {count} {level}{'' if count == 1 else 's'}: {rest}."
    if count < MIN_UNITS:
        remedy = f"A variance needs at least {MIN_UNITS} {level}s: leave the level out of the model."
        return [Finding("error", "too-few-units", level, (), message, remedy)]
    return [
        Finding("warning", "few-units", level, (), message, "State the prior and show how the answer depends on it.")
    ]


def _single(upper: str, lower: str, counts: np.ndarray, labels: np.ndarray) -> list[Finding]:
    single = np.flatnonzero(counts == 1)
    if not single.size:
        return []
    used = int((counts > 0).sum())
    lower_sd = "residual" if lower == "session" else lower
    shown = labels[single].tolist()
    if single.size == used:
        message = (
            f"Every {upper} has only one {lower}: the {upper} SD and the {lower_sd} SD are not identified, "
            "since no data separate them."
        )
        remedy = f"Leave the {upper} level out of the model, or add {lower}s."
        return [Finding("error", f"all-one-{lower}", upper, (), message, remedy)]
    message = f"{single.size} of {used} {upper}s have only one {lower}: {shown_ids(shown)}."
    remedy = f"They stay in the model, but say nothing on how {lower}s differ within a {upper}."
    return [Finding("warning", f"one-{lower}-{upper}s", upper, _five(shown), message, remedy)]


def _five(labels: list[object]) -> tuple[str, ...]:
    return tuple(shown_id(label) for label in labels[:MAX_IDS_IN_MESSAGE])
