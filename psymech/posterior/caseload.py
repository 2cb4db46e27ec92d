"""How much each unit's estimate rests on: patients and sessions per therapist, and its mean without shrinkage."""

from typing import Final, cast

import numpy as np
import pandas as pd
import xarray as xr

from psymech import names
from psymech.errors import SpecError
from psymech.names import LEVELS, Level
from psymech.posterior import tree as read
from psymech.posterior.kept_counts import kept_caseload

ROW_OF_OBS: Final = "row_of_obs"
CHILDREN: dict[str, tuple[str, ...]] = {
    "patient": (),
    "therapist": ("patient",),
    "clinic": ("therapist", "patient"),
}


def rows_for(tree: xr.DataTree, response: str | None) -> np.ndarray:
    """Return the rows with an observed outcome: of one response, or of all."""
    known = read.responses_of(tree)
    rows = np.arange(constants_rows(tree)) if response is None and len(known) > 1 else None
    if rows is None:
        rows = read.rows_of_response(tree, read.one_response(tree, response))
    return rows[np.isfinite(read.outcome(tree)[rows])]


def constants_rows(tree: xr.DataTree) -> int:
    """Return the number of design rows."""
    return read.constants(tree, columns=False).sizes[names.OBS]


def patient_of_rows(tree: xr.DataTree) -> np.ndarray:
    """Patient of each row; a model without a patient level has one row a patient (and response)."""
    data = read.constants(tree, columns=False)
    if names.group_of_obs("patient") in data or ROW_OF_OBS not in data:
        return read.unit_of_obs(tree, "patient")
    return np.unique(data[ROW_OF_OBS].values, return_inverse=True)[1].astype(np.int64)


def _distinct(*indices: np.ndarray) -> np.ndarray:
    return np.unique(np.column_stack(indices), axis=0)


def rows_of_sessions(tree: xr.DataTree) -> np.ndarray:
    """Return the rows of the responses with one value a session, response by response."""
    found = [
        read.rows_of_response(tree, each)
        for each in read.responses_of(tree)
        if read.level_of_response(tree, each) == "session"
    ]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def caseload(tree: xr.DataTree, *, level: str = "therapist", response: str | None = None) -> pd.DataFrame:
    """Count what each unit of a level has: therapists (of a clinic), patients, and sessions with an observed outcome.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    level : {"patient", "therapist", "clinic"}
    response : str, optional
        Count one response's rows; by default a session counts once, however many responses it has.

    Returns
    -------
    DataFrame
        Index: the level's units, without the placeholders of untreated patients in partially nested designs; columns
        ``n_therapists`` (clinics), ``n_patients`` (therapists, clinics), ``n_sessions``. With multiple membership
        these count patients and sessions in which the unit has a share, and ``caseload`` is the sum over patients of
        the unit's share of the patient's latest row: one patient shared by two therapists counts as one in all. A fit
        that was saved with ``data=False`` has the counts of therapists and clinics; sessions of those with fewer than
        five patients are missing.

    Raises
    ------
    SpecError
        No such level.
    DataError
        The fit was saved without its rows and keeps no such count: those of patients, or of one response of several.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.caseload(tree).loc["T01"].to_dict()
    {'n_patients': 4, 'n_sessions': 62}
    """
    if level not in CHILDREN:
        raise SpecError(f"level: expected one of {', '.join(CHILDREN)}, found {level!r}.")
    read.require_level(tree, level)
    if read.saved_without_rows(tree):
        return kept_caseload(tree, level, response)
    rows = np.intersect1d(rows_for(tree, response), read.rows_at_risk(tree, level))
    labels = read.unit_labels(tree, level)
    data = read.constants(tree, columns=False)
    patient = patient_of_rows(tree)
    columns: dict[str, np.ndarray] = {}
    if "therapist" in CHILDREN[level] and names.group_of_obs("therapist") in data:
        columns["n_therapists"] = _therapists(tree, level, rows, len(labels))
    if "patient" in CHILDREN[level]:
        columns["n_patients"] = np.bincount(read.unit_pairs(tree, level, patient, rows)[:, 0], minlength=len(labels))
    session = np.unique(data[names.SESSION_OF_OBS].values, return_inverse=True)[1]
    held = read.unit_pairs(tree, level, patient * (session.max() + 1) + session, rows)
    columns["n_sessions"] = np.bincount(held[:, 0], minlength=len(labels))
    if read.is_shared(tree, level):
        columns["caseload"] = _latest_shares(tree, level, rows, patient, len(labels))
    table = pd.DataFrame(columns, index=pd.Index(labels, name=level))
    return table.iloc[read.units_with_rows(tree, level)]


def _therapists(tree: xr.DataTree, clinic: str, rows: np.ndarray, n_clinics: int) -> np.ndarray:
    """Therapists of each clinic; where they share rows, those that have their largest share in one of its rows."""
    clinics = read.shares_of_obs(tree, clinic)[0][rows, 0]
    therapists = read.shares_of_obs(tree, "therapist")[0][rows, 0]
    return np.bincount(_distinct(clinics, therapists)[:, 0], minlength=n_clinics)


def unshared_caseload(tree: xr.DataTree, *, response: str | None = None) -> np.ndarray:
    """Return how many patients of their own would tell at least as much about each therapist as the patients they have.

    Where therapists share patients, the sum over patients of the squared share in the patient's latest row: with the
    other therapists' effects known, what a shared row tells is that of w^2 rows. Else the number of patients.
    """
    if not read.is_shared(tree, "therapist"):
        return caseload(tree, level="therapist", response=response)["n_patients"].to_numpy()
    rows = np.intersect1d(rows_for(tree, response), read.rows_at_risk(tree, "therapist"))
    n_units = len(read.unit_labels(tree, "therapist"))
    squared = _latest_shares(tree, "therapist", rows, patient_of_rows(tree), n_units, power=2)
    return squared[read.units_with_rows(tree, "therapist")]


def _latest_shares(
    tree: xr.DataTree, level: str, rows: np.ndarray, patient: np.ndarray, n_units: int, *, power: int = 1
) -> np.ndarray:
    """Sum over patients of each unit's weight in the patient's latest row, to a power."""
    code, weight = read.shares_of_obs(tree, level)
    order = rows[np.lexsort((read.constants(tree, columns=False)[names.SESSION_OF_OBS].values[rows], patient[rows]))]
    last = order[np.flatnonzero(np.diff(patient[order], append=-1))]
    return np.bincount(code[last].ravel(), weights=weight[last].ravel() ** power, minlength=n_units)


def fixed_part(tree: xr.DataTree) -> np.ndarray:
    """Return the fixed part of the linear predictor at the posterior mean, one value a row."""
    beta = read.posterior(tree)[names.BETA].mean(names.SAMPLE_DIMS)
    data = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, names.TERM)
    return data.values.astype(float) @ beta.values


def raw_means(tree: xr.DataTree, *, level: str, label: str, response: str) -> np.ndarray:
    """Return each unit's mean deviation without shrinkage, each patient counting once; NaN where it is not defined.

    The mean over a unit's patients of the mean over their sessions with the unit of ``y - X beta - z v``, with beta and
    the effects v of the levels above at their posterior means. It estimates what a random intercept estimates, before
    shrinkage; so it is defined for an intercept whose level has no other random terms than within-patient parts (they
    average zero in each unit), for outcomes on the scale of the linear predictor, for units that share no rows, and
    where the fit kept its rows and the effects of the levels above.
    """
    n_units = len(read.unit_labels(tree, level))
    centred = {info.label for info in read.terms_of(tree) if info.part == "within"}
    others = [each for each in read.labels_of(read.posterior(tree), names.term_dim(level)) if each != label]
    is_intercept = label in (names.INTERCEPT, read.response_label(response, names.INTERCEPT))
    if not (is_intercept and centred.issuperset(others) and read.family_of(tree, response) in read.IDENTITY_LINK):
        return np.full(n_units, np.nan)
    if read.saved_without_rows(tree):
        return np.full(n_units, np.nan)
    above = [each for each in read.levels_of(tree) if LEVELS.index(each) > LEVELS.index(cast(Level, level))]
    if read.is_shared(tree, level) or any(names.effect(each) not in read.posterior(tree) for each in above):
        return np.full(n_units, np.nan)
    rows = np.intersect1d(rows_for(tree, response), read.rows_at_risk(tree, level))
    deviation = (read.outcome(tree) - fixed_part(tree))[rows]
    for each in above:
        deviation -= _mean_effect(tree, each, rows)
    patients, unit = patient_of_rows(tree)[rows], read.unit_of_obs(tree, level)[rows]
    pairs, inverse, counts = np.unique(
        np.column_stack([unit, patients]), axis=0, return_inverse=True, return_counts=True
    )
    patient_mean = np.bincount(inverse, weights=deviation) / counts
    n = np.bincount(pairs[:, 0], minlength=n_units)
    total = np.bincount(pairs[:, 0], weights=patient_mean, minlength=n_units)
    return np.divide(total, n, out=np.full(n_units, np.nan), where=n > 0)


def _mean_effect(tree: xr.DataTree, level: str, rows: np.ndarray) -> np.ndarray:
    """Return a level's part of the linear predictor of some rows, effects at their posterior means."""
    effects = read.level_effects(tree, level).mean(names.SAMPLE_DIMS).values
    code, weight = (each[rows] for each in read.shares_of_obs(tree, level))
    return np.einsum("nmq,nm,nq->n", effects[code], weight, read.design_rows(tree, level, rows))
