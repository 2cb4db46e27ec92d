"""A variable split into its within-patient, between-patient and between-therapist parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import pandas as pd

from psymech.data.ids import factorized
from psymech.data.sessions import SessionData, refuse_other_data
from psymech.errors import SpecError
from psymech.names import Level, Part

Weights = Literal["sessions", "patients"]
WEIGHTS: Final[tuple[Weights, ...]] = get_args(Weights)


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of a variable, and the unit means that made them.

    Attributes
    ----------
    parts : mapping of part to float64 ndarray, shape (n_sessions,)
        "within", "patient" and, where the data have therapists, "therapist"; they sum to the variable.
    means : mapping of level to float64 ndarray, shape (n_units,)
        Means of patients, and of therapists; NaN for a unit without any value.
    """

    parts: Mapping[Part, np.ndarray]
    means: Mapping[Level, np.ndarray]


def split(
    values: np.ndarray, data: SessionData, *, weights: Weights = "sessions", stand_in: np.ndarray | None = None
) -> Split:
    r"""Return the parts of a variable given as values over the sessions.

    With :math:`\bar x_{ik}` the mean of patient :math:`i` and :math:`\bar x_k` that of therapist :math:`k`,

    .. math:: x_{tik} = (x_{tik} - \bar x_{ik}) + (\bar x_{ik} - \bar x_k) + \bar x_k .

    The therapist part includes the differences between clinics.  Without therapists the patient part is
    :math:`\bar x_i`.  Where patients are crossed with therapists, :math:`\bar x_i` is the mean of all sessions of the
    patient and :math:`\bar x_k` that of the session's therapist, so that a patient's patient part differs between
    therapists.  Missing values are left out of the means, and their within part is missing.

    Parameters
    ----------
    values : ndarray, shape (n_sessions,)
    data : SessionData
    weights : {"sessions", "patients"}
        A therapist's mean is that of all sessions, or that of the patients' means.
    stand_in : ndarray of int, shape (n_therapists,), optional
        For each therapist the one whose mean is taken; therapists with the same one have their sessions' mean together.

    Raises
    ------
    SpecError
        Values of another length, or unknown weights.

    References
    ----------
    Enders, C. K., & Tofighi, D. (2007). Centering predictor variables in cross-sectional multilevel models.
    Psychological Methods, 12, 121-138. https://doi.org/10.1037/1082-989X.12.2.121
    """
    if weights not in WEIGHTS:
        raise SpecError(f"weights expects one of {', '.join(WEIGHTS)}, but got {weights!r}.")
    if values.shape != (data.n_sessions,):
        raise SpecError(f"Expected {data.n_sessions} values, one a session, but got an array of shape {values.shape}.")
    patient = data.codes["patient"]
    patient_means = unit_means(values, patient, data.n_patients)
    patient_mean = patient_means[patient]
    within = values - patient_mean
    if "therapist" not in data.ids:
        return Split({"within": within, "patient": patient_mean}, {"patient": patient_means})
    own = data.codes["therapist"]
    therapist = own if stand_in is None else stand_in[own]
    if weights == "sessions":
        therapist_means = unit_means(values, therapist, data.n_therapists)
    else:
        pairs, pair = factorized(therapist * data.n_patients + patient)
        therapist_means = unit_means(unit_means(values, pair, len(pairs)), pairs // data.n_patients, data.n_therapists)
    if stand_in is not None:
        therapist_means = therapist_means[stand_in]
    therapist_mean = therapist_means[own]
    parts: dict[Part, np.ndarray] = {
        "within": within,
        "patient": patient_mean - therapist_mean,
        "therapist": therapist_mean,
    }
    return Split(parts, {"patient": patient_means, "therapist": therapist_means})


def unit_means(values: np.ndarray, codes: np.ndarray, n_units: int) -> np.ndarray:
    """Return the mean of each unit's values without the missing ones; NaN for a unit without any value.

    Deviations from a unit's first value are averaged, so that the mean of equal values is that value exactly.

    Parameters
    ----------
    values, codes : ndarray, shape (n_rows,)
    n_units : int

    Examples
    --------
    >>> unit_means(np.array([1.0, 3.0, np.nan, 5.0]), np.array([0, 0, 1, 2]), 3)
    array([ 2., nan,  5.])
    """
    known = np.flatnonzero(~np.isnan(values))
    counts = np.bincount(codes[known], minlength=n_units)
    start = np.full(n_units, np.nan)
    start[codes[known[::-1]]] = values[known[::-1]]
    sums = np.bincount(codes[known], weights=values[known] - start[codes[known]], minlength=n_units)
    return start + np.divide(sums, counts, out=np.zeros(n_units), where=counts > 0)


def decompose(data: SessionData, name: str, *, weights: Weights = "sessions") -> pd.DataFrame:
    """Return a variable's within-patient, between-patient and between-therapist parts, which sum to the variable.

    Parameters
    ----------
    data : SessionData
    name : str
        A numeric column of the sessions or of a unit table.
    weights : {"sessions", "patients"}
        A therapist's mean is that of all sessions (default), or that of the patients' means.

    Returns
    -------
    DataFrame
        One row a session in the order of ``data.sessions``; columns ``name.within``, ``name.patient`` and, where the
        data have therapists, ``name.therapist``.  `split` states the equation.

    Raises
    ------
    DataError
        No such column, or one that is not numeric.

    Examples
    --------
    >>> rows = {"therapist": ["T", "T", "T"], "patient": [1, 1, 2], "session": [1, 2, 1], "alliance": [3.0, 5.0, 1.0]}
    >>> decompose(SessionData.from_frame(pd.DataFrame(rows)), "alliance")
       alliance.within  alliance.patient  alliance.therapist
    0             -1.0               1.0                 3.0
    1              1.0               1.0                 3.0
    2              0.0              -2.0                 3.0
    """
    refuse_other_data(data)
    parts = split(data.values(name), data, weights=weights).parts
    return pd.DataFrame({f"{name}.{part}": values for part, values in parts.items()})
