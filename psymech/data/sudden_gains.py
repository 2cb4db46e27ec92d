"""Sudden gains and losses between two sessions, by the three criteria of Tang and DeRubeis."""

from typing import Final

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from psymech.arguments import is_number, positive
from psymech.data.courses import TIE, Course, courses, reaches, refuse_below_zero
from psymech.data.sessions import SessionData
from psymech.errors import SpecError

WINDOW: Final = 3  # sessions before and after that the third criterion compares
COLUMNS: Final = (
    "patient",
    "session",
    "before",
    "after",
    "change",
    "n_before",
    "n_after",
    "known_at",
    "provisional",
    "reversed_at",
)


def sudden_gains(
    data: SessionData,
    outcome: str,
    *,
    cutoff: float,
    percent: float = 25.0,
    alpha: float = 0.05,
    adjust: bool = True,
    losses: bool = False,
) -> pd.DataFrame:
    r"""Find sudden gains (drops in symptoms) from one session to the next.

    From session n to n + 1 of a patient, with scores x on which low is good, all of

    1. :math:`x_n - x_{n+1} \ge` `cutoff` (large in itself; the reliable change of the measure is a usual choice),
    2. :math:`x_n - x_{n+1} \ge` `percent` % of :math:`x_n`,
    3. the mean of sessions n-2, n-1, n exceeds that of n+1, n+2, n+3 by more than
       :math:`t \sqrt{((m-1) s_1^2 + (k-1) s_2^2) / (m + k - 2)}`, with m and k values observed (at least two each),
       and t the two-tailed critical value of `alpha` on m + k - 2 degrees of freedom (2.776, 3.182 or 4.303), or 2.776
       throughout with ``adjust=False``.

    The gain happened from `session` to the next, but criterion 3 reads two sessions more: it is *known* at the session
    `known_at`, the first recorded one from n + 3 on. Where the record ends before, the gain is `provisional`: one more
    session could undo it. Nothing before `known_at` depends on anything after it.

    Parameters
    ----------
    data : SessionData
    outcome : str
        A session variable on which low is good. Session numbers count; a session without a value is missing.
    cutoff : float
        Of criterion 1, in outcome units.
    percent : float
        Of criterion 2; 0 leaves it out.
    alpha, adjust
        Of criterion 3.
    losses : bool
        Find sudden losses (rises) instead: the same criteria on rises, criterion 2 relative to :math:`x_n` as well.

    Returns
    -------
    DataFrame
        One row a gain: ``patient``, ``session`` (n), ``before``, ``after`` (scores at n and n + 1), ``change`` (after
        - before), ``n_before``, ``n_after``, ``known_at``, ``provisional``, and ``reversed_at``, the first session
        after n + 1 at which more than half of the gain is lost (NaN: not so far).

    Raises
    ------
    DataError
        No such column, one that is not numeric, or scores below zero, of which there is no percentage.
    SpecError
        A cut-off, percentage or alpha that is none.

    References
    ----------
    Tang & DeRubeis (1999), Sudden gains and critical sessions in cognitive-behavioral therapy for depression,
    Journal of
    Consulting and Clinical Psychology 67, 894-904. https://doi.org/10.1037/0022-006X.67.6.894 The critical values with
    missing sessions are those of Lutz et al. (2013), as the R package suddengains states them.

    Examples
    --------
    >>> import pandas as pd
    >>> scores = [35, 37, 34, 23, 24, 21]
    >>> rows = pd.DataFrame({"patient": 1, "session": range(1, 7), "bdi": scores})
    >>> data = SessionData.from_frame(rows, therapist=None)
    >>> sudden_gains(data, "bdi", cutoff=7)[["patient", "session", "change", "known_at"]]
       patient  session  change  known_at
    0        1      3.0   -11.0       6.0
    """
    positive(cutoff, "cutoff")
    if not (is_number(alpha) and 0 < alpha < 1):
        raise SpecError(f"alpha: expected a probability between 0 and 1, found {alpha!r}.")
    if not (is_number(percent) and percent >= 0):
        raise SpecError(f"percent: expected zero or more, found {percent!r}.")
    if percent:
        refuse_below_zero(data, outcome)
    sign = -1.0 if losses else 1.0
    found = [
        row
        for course in courses(data, outcome)
        for row in _gains(course, sign, cutoff, percent / 100.0, alpha, adjust=adjust)
    ]
    return pd.DataFrame(found, columns=list(COLUMNS)).astype({"provisional": bool})


def _gains(course: Course, sign: float, cutoff: float, share: float, alpha: float, *, adjust: bool) -> list[tuple]:
    rows = []
    for n, before in zip(course.session, course.value, strict=True):
        after = course.at(n + 1)
        drop = sign * (before - after)
        if not (reaches(drop, cutoff) and reaches(drop, share * before)):
            continue
        first, second = course.around(n - WINDOW + 1, n), course.around(n + 1, n + WINDOW)
        if not _stable(first, second, sign, alpha, adjust=adjust):
            continue
        known_at = course.first_recorded_from(n + WINDOW)
        middle = (before + after) / 2.0
        lost = course.session[(course.session > n + 1) & (sign * (course.value - middle) > TIE * drop)]
        reversed_at = float(lost[0]) if lost.size else np.nan
        row = (course.patient, n, before, after, after - before, first.size, second.size)
        rows.append((*row, known_at, bool(np.isnan(known_at)), reversed_at))
    return rows


def _stable(first: np.ndarray, second: np.ndarray, sign: float, alpha: float, *, adjust: bool) -> bool:
    if min(first.size, second.size) < 2:
        return False
    df = first.size + second.size - 2
    pooled = np.sqrt(((first.size - 1) * first.var(ddof=1) + (second.size - 1) * second.var(ddof=1)) / df)
    critical = student_t.ppf(1.0 - alpha / 2.0, df if adjust else 2 * WINDOW - 2)
    return bool(sign * (first.mean() - second.mean()) > critical * pooled)
