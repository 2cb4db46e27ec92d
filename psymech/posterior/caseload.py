"""How much each unit's estimate rests on: patients and sessions per therapist, and its mean without shrinkage."""

import numpy as np
import pandas as pd
import xarray as xr

from psymech import names
from psymech.errors import SpecError
from psymech.posterior import tree as read

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
    return read.constants(tree).sizes[names.OBS]


def _distinct(*indices: np.ndarray) -> np.ndarray:
    return np.unique(np.column_stack(indices), axis=0)


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
        Index: the level's units; columns ``n_therapists`` (clinics), ``n_patients`` (therapists, clinics),
        ``n_sessions``.
    """
    if level not in CHILDREN:
        raise SpecError(f"level: expected one of {', '.join(CHILDREN)}, found {level!r}.")
    rows = rows_for(tree, response)
    units = read.unit_of_obs(tree, level)[rows]
    labels = read.unit_labels(tree, level)
    columns: dict[str, np.ndarray] = {}
    for child in CHILDREN[level]:
        if names.group_of_obs(child) not in read.constants(tree):
            continue
        pairs = _distinct(units, read.unit_of_obs(tree, child)[rows])
        columns[f"n_{child}s"] = np.bincount(pairs[:, 0], minlength=len(labels))
    sessions = read.constants(tree)[names.SESSION_OF_OBS].values[rows]
    order = np.unique(sessions, return_inverse=True)[1]
    keys = _distinct(units, read.unit_of_obs(tree, "patient")[rows], order)
    columns["n_sessions"] = np.bincount(keys[:, 0], minlength=len(labels))
    return pd.DataFrame(columns, index=pd.Index(labels, name=level))


def fixed_part(tree: xr.DataTree) -> np.ndarray:
    """Return the fixed part of the linear predictor at the posterior mean, one value a row."""
    beta = read.posterior(tree)[names.BETA].mean(names.SAMPLE_DIMS)
    data = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, names.TERM)
    return data.values.astype(float) @ beta.values


def raw_means(tree: xr.DataTree, *, level: str, label: str, response: str) -> np.ndarray:
    """Return each unit's mean deviation without shrinkage, each patient counting once; NaN where it is not defined.

    The mean over a unit's patients of the mean over their sessions of ``y - X beta``, beta at its posterior mean.
    It estimates what a random intercept estimates, before shrinkage; so it is defined for an intercept whose level has
    no other random terms than within-patient parts (they average zero in each unit), and for outcomes on the scale of
    the linear predictor.
    """
    n_units = len(read.unit_labels(tree, level))
    centred = {info.label for info in read.terms_of(tree) if info.part == "within"}
    others = [each for each in read.labels_of(read.posterior(tree), names.term_dim(level)) if each != label]
    is_intercept = label in (names.INTERCEPT, read.response_label(response, names.INTERCEPT))
    if not (is_intercept and centred.issuperset(others) and read.family_of(tree, response) in read.IDENTITY_LINK):
        return np.full(n_units, np.nan)
    rows = rows_for(tree, response)
    deviation = (read.outcome(tree) - fixed_part(tree))[rows]
    patients = read.unit_of_obs(tree, "patient")[rows]
    seen, inverse, counts = np.unique(patients, return_inverse=True, return_counts=True)
    patient_mean = np.bincount(inverse, weights=deviation) / counts
    unit_of_patient = np.zeros(seen.size, dtype=np.int64)
    unit_of_patient[inverse] = read.unit_of_obs(tree, level)[rows]
    n = np.bincount(unit_of_patient, minlength=n_units)
    total = np.bincount(unit_of_patient, weights=patient_mean, minlength=n_units)
    return np.divide(total, n, out=np.full(n_units, np.nan), where=n > 0)
