"""Ruptures of the alliance and their repair, read off session ratings as they come in."""

from typing import Final, Literal, get_args

import numpy as np
import pandas as pd

from psymech.arguments import positive
from psymech.data.courses import TIE, Course, courses, reaches
from psymech.data.sessions import SessionData
from psymech.errors import SpecError

Reference = Literal["previous", "mean"]
COLUMNS: Final = ("patient", "session", "before", "value", "drop", "threshold", "repaired_at", "length")


def ruptures(
    data: SessionData,
    alliance: str,
    *,
    size: float = 1.0,
    reference: Reference = "previous",
    sd: float | None = None,
    min_sessions: int = 3,
) -> pd.DataFrame:
    r"""Find ruptures (drops in the alliance) and repairs, each from the sessions up to it and nothing later.

    At session t a patient has a rupture where the rating lies at least

    .. math:: c_t = \text{size} \cdot \max(s_{i,<t}, s_{<t})

    below the reference: the patient's last rating, or the mean of the ratings so far. :math:`s_{i,<t}` is the SD of the
    patient's own earlier ratings and :math:`s_{<t}` that of all patients' ratings at earlier session numbers; the
    larger one, hence the stricter criterion, is taken; where both are zero, nothing is called a rupture. The rupture is
    repaired at the first later session whose rating is back inside the band, above reference - c_t; until then no new
    rupture is counted.

    Parameters
    ----------
    data : SessionData
    alliance : str
        A session variable on which high is good.
    size : float
        1 and 2 are the sizes in use.
    reference : {"previous", "mean"}
    sd : float, optional
        A fixed SD (a norm) in the place of both.
    min_sessions : int
        Earlier ratings a patient needs before a rupture can be told from noise.

    Returns
    -------
    DataFrame
        One row a rupture: ``patient``, ``session``, ``before`` (the reference), ``value``, ``drop``, ``threshold``,
        ``repaired_at`` (session number, NaN: not so far) and ``length`` (ratings from the rupture to the repair).

    Raises
    ------
    DataError
        No such column, or one that is not numeric.
    SpecError
        An option out of range.

    Notes
    -----
    Published criteria take the SDs over whole courses, later sessions included, which an ongoing therapy does not have;
    here they grow with the sessions, so that early thresholds rest on few ratings. Numbers of ruptures depend
    strongly on the criterion: report it.

    References
    ----------
    Gumz, Brähler, Geyer & Erices (2012), Crisis-repair sequences - considerations on the classification and assessment
    of breaches in the therapeutic relationship, BMC Medical Research Methodology 12:10,
    https://doi.org/10.1186/1471-2288-12-10, which compares the criteria of Stiles et al. (2004) and Strauss et al.
    (2006) and proposes the stricter of intra- and interindividual variability at one and at two SDs.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame({"patient": 1, "session": range(1, 8), "wai": [5.0, 5.2, 4.9, 5.1, 3.0, 3.4, 5.0]})
    >>> data = SessionData.from_frame(rows, therapist=None)
    >>> ruptures(data, "wai")[["session", "before", "value", "repaired_at"]]
       session  before  value  repaired_at
    0      5.0     5.1    3.0          7.0
    """
    positive(size, "size")
    if sd is not None:
        positive(sd, "sd")
    if reference not in get_args(Reference):
        raise SpecError(f"reference: expected one of {', '.join(get_args(Reference))}, found {reference!r}.")
    if isinstance(min_sessions, bool) or not isinstance(min_sessions, int) or min_sessions < 2:
        raise SpecError(f"min_sessions: expected a whole number from 2 on, found {min_sessions!r}.")
    every = list(courses(data, alliance))
    between = _sd_before(every)
    found = [row for course in every for row in _ruptures(course, between, size, reference, sd, min_sessions)]
    return pd.DataFrame(found, columns=list(COLUMNS))


def _sd_before(every: list[Course]) -> dict[float, float]:
    """SD of all patients' ratings at session numbers below each number; NaN below two ratings."""
    if not every:
        return {}
    session = np.concatenate([course.session for course in every])
    value = np.concatenate([course.value for course in every])
    order = np.argsort(session, kind="stable")
    session, value = session[order], value[order] - value.mean()  # centred: sums of squares keep their digits
    n = np.arange(1, value.size + 1)
    total, square = np.cumsum(value), np.cumsum(value**2)
    out: dict[float, float] = {}
    for number in np.unique(session):
        k = int(np.searchsorted(session, number))
        variance = (square[k - 1] - total[k - 1] ** 2 / n[k - 1]) / (k - 1) if k > 1 else np.nan
        out[float(number)] = float(np.sqrt(max(variance, 0.0))) if k > 1 else np.nan
    return out


def _ruptures(
    course: Course,
    between: dict[float, float],
    size: float,
    reference: Reference,
    sd: float | None,
    min_sessions: int,
) -> list[tuple]:
    rows: list[tuple] = []
    t = min_sessions
    while t < course.value.size:
        earlier = course.value[:t]
        spread = sd if sd is not None else np.fmax(earlier.std(ddof=1), between[float(course.session[t])])
        threshold = size * spread
        before = earlier[-1] if reference == "previous" else earlier.mean()
        drop = before - course.value[t]
        if not (threshold > TIE * abs(before) and reaches(drop, threshold)):
            t += 1
            continue
        back = np.flatnonzero(course.value[t + 1 :] > before - threshold + TIE * threshold)
        repaired_at = float(course.session[t + 1 + back[0]]) if back.size else np.nan
        length = float(back[0] + 1) if back.size else np.nan
        rows.append((course.patient, course.session[t], before, course.value[t], drop, threshold, repaired_at, length))
        t = t + 2 + back[0] if back.size else course.value.size
    return rows
