"""Values of earlier sessions, which stop at a patient's first session and at gaps."""

from typing import Final

import numpy as np

from psymech.data.sessions import SessionData
from psymech.errors import SpecError

FIRST: Final = "before a patient's first session"
GAP: Final = "at a gap between session numbers"
MISSING: Final = "with a missing value in the earlier session"


def lag(values: np.ndarray, data: SessionData, lag: int = 1) -> np.ndarray:
    r"""Return each session's value of the session `lag` numbers earlier, :math:`x_{t-\ell,i}`.

    NaN where the same patient has no session with that number: at the first sessions, and where the number falls into a
    gap.  Sessions are matched by number, not by order of rows.

    Parameters
    ----------
    values : ndarray, shape (n_sessions,)
    data : SessionData
    lag : int
        0 or more.

    Returns
    -------
    ndarray of float64, shape (n_sessions,)

    Raises
    ------
    SpecError
        A lag that is not a whole number from 0 on, or values of another length.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame({"patient": [1, 1, 1], "session": [1, 2, 4], "mood": [5.0, 6.0, 7.0]})
    >>> data = SessionData.from_frame(rows, therapist=None)
    >>> lag(data.values("mood"), data)
    array([nan,  5., nan])
    """
    if values.shape != (data.n_sessions,):
        raise SpecError(f"Expected {data.n_sessions} values, one a session, but got an array of shape {values.shape}.")
    source = source_rows(data, lag)
    return np.where(source >= 0, values[source], np.nan)


def source_rows(data: SessionData, lag: int) -> np.ndarray:
    """Return the row of the same patient's session `lag` numbers earlier, -1 where none; int64 (n_sessions,)."""
    if isinstance(lag, bool) or not isinstance(lag, (int, np.integer)) or lag < 0:
        raise SpecError(f"lag expects a whole number of sessions, 0 or more, but got {lag!r}.")
    patient, session = data.codes["patient"], data.session.astype(np.int64)
    width = int(session.max(initial=0)) + 1
    key = patient * width + session
    order = np.argsort(key)
    wanted = key - lag
    place = np.minimum(np.searchsorted(key[order], wanted), len(key) - 1)
    found = order[place]
    return np.where((key[found] == wanted) & (session >= lag), found, -1).astype(np.int64)


def lag_reasons(data: SessionData, lag: int, rows: np.ndarray | None = None) -> dict[str, int]:
    """Return how many sessions have no earlier session to lag from, by reason.

    Parameters
    ----------
    data : SessionData
    lag : int
    rows : ndarray of bool, shape (n_sessions,), optional
        Count these sessions only.

    Returns
    -------
    dict of reason to count
        Before a patient's first session; at a gap; and sessions in `rows` whose earlier session exists, so that it is
        its value that is missing.
    """
    counted = np.ones(data.n_sessions, dtype=bool) if rows is None else rows
    source = source_rows(data, lag)
    first = np.full(data.n_patients, np.inf)
    np.minimum.at(first, data.codes["patient"], data.session)
    before = data.session - lag < first[data.codes["patient"]]
    none = source < 0
    reasons = {FIRST: int((counted & none & before).sum()), GAP: int((counted & none & ~before).sum())}
    return reasons if rows is None else {**reasons, MISSING: int((counted & ~none).sum())}


def lag_counts(values: np.ndarray, data: SessionData, lag: int = 1) -> dict[str, int]:
    """Return how many sessions have no lagged value, by reason: first session, gap, earlier value missing.

    Parameters
    ----------
    values : ndarray, shape (n_sessions,)
    data : SessionData
    lag : int
    """
    source = source_rows(data, lag)
    lost = (source < 0) | np.isnan(values[source])
    return lag_reasons(data, lag, lost)
