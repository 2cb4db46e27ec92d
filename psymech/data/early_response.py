"""Early response: whether a patient has changed enough by a stated session, judged by the sessions up to it."""

from typing import Final

import numpy as np
import pandas as pd

from psymech.arguments import positive
from psymech.data.courses import courses, reaches, refuse_below_zero
from psymech.data.sessions import SessionData, refuse_other_data
from psymech.errors import DataError, SpecError, shown_ids

COLUMNS: Final = ("baseline", "session", "value", "change", "percent_change", "responded")


def early_response(
    data: SessionData,
    outcome: str,
    *,
    by: float,
    threshold: float | None = None,
    percent: float | None = None,
    baseline: str | None = None,
    lower_is_better: bool = True,
) -> pd.DataFrame:
    r"""Tell for each patient whether the outcome had improved enough by a landmark session.

    With :math:`x_0` the baseline and :math:`x_s` the last value observed up to session `by`, a patient responded
    where the
    improvement (:math:`x_0 - x_s`, or :math:`x_s - x_0` with ``lower_is_better=False``) is at least `threshold`, at
    least `percent` % of the baseline, or both where both are given. Later sessions play no part, which is what makes
    the answer usable as a predictor of what comes after the landmark; do not use it with outcomes before the landmark.

    Parameters
    ----------
    data : SessionData
    outcome : str
    by : float
        Number of the landmark session.
    threshold : float, optional
        In outcome units, for instance the measure's reliable change (:func:`psymech.reliable_change`).
    percent : float, optional
        In per cent of the baseline.
    baseline : str, optional
        A column of the patients (a score before treatment); by default the patient's first observed session.
    lower_is_better : bool

    Returns
    -------
    DataFrame
        Index: every patient. Columns ``baseline``, ``session`` (of the value used), ``value``, ``change`` (value -
        baseline), ``percent_change`` and ``responded`` (True, False, or missing: no value up to the landmark besides
        the baseline, or a percentage of a baseline of zero).

    Raises
    ------
    DataError
        No such column, one that is not numeric, a baseline that differs between a patient's sessions, or scores below
        zero, of which there is no percentage.
    SpecError
        Neither threshold nor percentage, or one that is not above zero.

    References
    ----------
    Jacobson & Truax (1991) for the reliable change; a landmark analysis conditions on having reached the landmark
    (Anderson, Cain & Gelber 1983, https://doi.org/10.1200/JCO.1983.1.11.710).

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame({"patient": [1, 1, 1], "session": [1, 2, 3], "phq9": [20, 12, 4]})
    >>> data = SessionData.from_frame(rows, therapist=None)
    >>> early_response(data, "phq9", by=2, percent=30)["responded"].tolist()
    [True]
    """
    refuse_other_data(data)
    if threshold is None and percent is None:
        raise SpecError("early_response needs threshold=, percent=, or both.")
    wanted = positive(threshold, "threshold") if threshold is not None else -np.inf
    share = positive(percent, "percent") if percent is not None else None
    if share is not None:
        for name in [outcome] if baseline is None else [outcome, baseline]:
            refuse_below_zero(data, name)
    before = None if baseline is None else _baseline(data, baseline)
    codes = data.codes["patient"]
    table = pd.DataFrame(
        np.nan, index=pd.Index(data.ids["patient"], name="patient"), columns=list(COLUMNS[:-1]), dtype=float
    )
    responded = pd.Series(pd.NA, index=table.index, dtype="boolean")
    place = {label: position for position, label in enumerate(data.ids["patient"].tolist())}
    first_row = np.unique(codes, return_index=True)[1]
    for course in courses(data, outcome):
        row = place[course.patient]
        start = course.value[0] if before is None else float(before[first_row[row]])
        usable = (course.session <= by) & (
            np.isfinite(start) if before is not None else course.session > course.session[0]
        )
        last = np.flatnonzero(usable)
        if before is None and course.session[0] > by:
            continue
        table.iloc[row, 0] = start
        if not last.size:
            continue
        value = course.value[last[-1]]
        change = value - start
        relative = 100.0 * change / start if start != 0 else np.nan
        table.iloc[row, 1:] = [course.session[last[-1]], value, change, relative]
        if share is not None and start == 0:
            continue
        gain = float(-change if lower_is_better else change)
        responded.iloc[row] = reaches(gain, wanted) and (share is None or reaches(gain, share / 100.0 * start))
    return table.assign(responded=responded)


def _baseline(data: SessionData, name: str) -> np.ndarray:
    values, patient = data.values(name), data.codes["patient"]
    by_patient = pd.Series(values).groupby(patient)
    several = np.flatnonzero(by_patient.nunique(dropna=False).to_numpy() > 1)
    if several.size:
        raise DataError(
            f"baseline: expected one value a patient, but {name!r} differs between the sessions of {several.size} "
            f"patients: {shown_ids(data.ids['patient'][several].tolist())}. Leave baseline out to take the first "
            "observed session, or give the score before treatment as a column of the patients."
        )
    return values
