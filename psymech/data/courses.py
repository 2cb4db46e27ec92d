"""One patient's observed values in the order of sessions: what the detectors of events read."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from psymech.data.sessions import SessionData, refuse_other_data
from psymech.errors import DataError, shown_ids

TIE: Final = 1e-9  # relative: 5.1 - 4.1 is 0.9999999999999996 in floating point and must reach 1


@dataclass(frozen=True, slots=True)
class Course:
    """Observed values of one patient.

    Attributes
    ----------
    patient : id.
    session, value : float64 (n_observed,), session numbers in order and the values there.
    recorded : float64 (n_recorded,), numbers of all the patient's sessions, with or without a value.
    """

    patient: object
    session: np.ndarray
    value: np.ndarray
    recorded: np.ndarray

    def around(self, first: float, last: float) -> np.ndarray:
        """Return the values of the sessions numbered `first` to `last`."""
        return self.value[(self.session >= first) & (self.session <= last)]

    def at(self, number: float) -> float:
        """Return the value at a session number, NaN where none is observed."""
        found = self.value[self.session == number]
        return float(found[0]) if found.size else np.nan

    def first_recorded_from(self, number: float) -> float:
        """Return the first recorded session numbered `number` or more, NaN where the record ends before."""
        later = self.recorded[self.recorded >= number]
        return float(later[0]) if later.size else np.nan


def reaches(change: float, bound: float) -> bool:
    """Whether a change is at least a bound, ties between decimals included.

    >>> reaches(5.1 - 4.1, 1.0)
    True
    """
    return bool(change >= bound - TIE * abs(bound))


def refuse_below_zero(data: SessionData, name: str) -> None:
    """Raise DataError where scores lie below zero, of which no percentage can be taken."""
    refuse_other_data(data)
    values = data.values(name)
    below = np.flatnonzero(values < 0)
    if below.size:
        ids = data.ids["patient"][np.unique(data.codes["patient"][below])].tolist()
        raise DataError(
            f"percent: a percentage needs scores of zero or more, but {below.size} values of {name!r} lie below zero "
            f"(patients {shown_ids(ids)}), as on a standardised scale. Use the raw score, or the criterion in outcome "
            "units alone."
        )


def courses(data: SessionData, name: str) -> Iterator[Course]:
    """Yield each patient's course in one variable, in the order of ids; patients without a value are left out."""
    refuse_other_data(data)
    values = data.values(name)
    order = np.lexsort((data.session, data.codes["patient"]))
    ends = np.searchsorted(data.codes["patient"][order], np.arange(data.n_patients + 1))
    for code, (start, stop) in enumerate(pairwise(ends)):
        rows = order[start:stop]
        seen = rows[np.isfinite(values[rows])]
        if seen.size:
            yield Course(data.ids["patient"][code], data.session[seen], values[seen], data.session[rows])
