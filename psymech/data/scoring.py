"""Items of a questionnaire to its score, and how reliable the score is within and between patients."""

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
import pandas as pd

from psymech.data.frames import NOTES
from psymech.data.numbers import as_numbers, not_numeric_message, text_rows
from psymech.data.readers import read_table
from psymech.data.reshape import read_long
from psymech.data.roles import absent_message
from psymech.data.scales import is_range
from psymech.data.table import Table
from psymech.errors import DataError

Rule = Literal["sum", "mean"]
MIN_ROWS: Final = 10  # complete rows below which the sign of an item's correlation with the rest says nothing


def score_scale(
    source: object,
    *,
    name: str,
    items: Sequence[str],
    limits: tuple[float, float],
    reversed: Sequence[str] = (),
    score: Rule = "sum",
    max_missing: int = 0,
    ids: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the table with the score of a questionnaire as a new column.

    With items :math:`x_1 ... x_K`, each in `limits` (low, high), a reversed item enters as low + high - x.  Where at
    most `max_missing` items lack an answer, the score is the mean of the answered ones (times K for a sum): prorating,
    or person-mean substitution.  Where more are missing the score is missing.

    Parameters
    ----------
    source : path or table
        As for `read_long`; one row an occasion.
    name : str
        The new column.
    items : sequence of str
    limits : (low, high)
        Lowest and highest answer that an item can take.
    reversed : sequence of str
        Items that are keyed the other way.
    score : {"sum", "mean"}
    max_missing : int
        Most items that may be missing; take it from the questionnaire's manual.
    ids : sequence of str
        Columns to keep as ids.

    Returns
    -------
    DataFrame
        The table and the new column, float64.  Notes say how many scores were prorated, how many are missing, and
        which items go against the rest; `check_design` repeats them once the frame has become `SessionData`.

    Raises
    ------
    DataError
        An item is absent, named twice or not numeric, an answer lies outside the limits, or `name` is taken.

    Notes
    -----
    Prorating assumes that a missing item would have been answered as the person's others; with several missing items
    it biases scores whose items differ in difficulty.

    Examples
    --------
    >>> import pandas as pd
    >>> answers = pd.DataFrame({"a": [0, 3, 1], "b": [1, 3, None], "calm": [3, 0, 2]})
    >>> scored = score_scale(
    ...     answers, name="worry", items=["a", "b", "calm"], limits=(0, 3), reversed=["calm"], max_missing=1
    ... )
    >>> scored["worry"].tolist()
    [1.0, 9.0, 3.0]
    """
    table = read_table(source)
    if score not in get_args(Rule):
        raise DataError(f"score expects 'sum' or 'mean', but got {score!r}.")
    if name in table.columns:
        raise DataError(f"The new column '{name}' is in the table already. Give the score another name.")
    if not 0 <= max_missing < max(len(items), 1):
        raise DataError(
            f"max_missing must lie from 0 to {len(items) - 1} with {len(items)} items, but is {max_missing}."
        )
    answers = _answers(table, items, limits, reversed)
    missing = np.isnan(answers).sum(axis=1)
    scored = missing <= max_missing
    means = np.full(len(answers), np.nan)
    means[scored] = np.nanmean(answers[scored], axis=1)
    frame = read_long(table, ids=ids)
    before = frame.attrs[NOTES]
    frame[name] = means * (len(items) if score == "sum" else 1)
    frame.attrs[NOTES] = [*before, *_notes(name, items, answers, missing, max_missing)]
    return frame


def scale_reliability(
    source: object,
    *,
    items: Sequence[str],
    limits: tuple[float, float],
    reversed: Sequence[str] = (),
    patient: str | None = None,
) -> pd.DataFrame:
    r"""Return Cronbach's alpha of a scale: over all rows, of differences within patients, and between patients.

    .. math:: \alpha = \frac{K}{K - 1} \left(1 - \frac{\operatorname{tr} S}{1' S 1}\right)

    S is the items' covariance matrix: over all rows; pooled within patients (does the scale tell a patient's sessions
    apart?); and between patients, (S_b - S_w) / n with the mean squares S_b and S_w of an analysis of variance and the
    usual n of unequal numbers of sessions.  The first mixes the other two, so it says nothing about change.

    Parameters
    ----------
    source : path or table
    items, limits, reversed
        As for `score_scale`.
    patient : str, optional
        Column with the patients' ids; without it only the first row is there.

    Returns
    -------
    DataFrame
        One row a part ("all rows", "within patients", "between patients"); columns alpha, n_rows (with all items
        answered) and n_patients.  NaN where the sum of S is not positive.

    Raises
    ------
    DataError
        As for `score_scale`; fewer than two items; fewer than two complete rows.

    References
    ----------
    Cronbach, L. J. (1951). Coefficient alpha and the internal structure of tests. Psychometrika, 16, 297-334.
    doi:10.1007/BF02310555

    Geldhof, G. J., Preacher, K. J., & Zyphur, M. J. (2014). Reliability estimation in a multilevel confirmatory factor
    analysis framework. Psychological Methods, 19, 72-91. doi:10.1037/a0032138

    Examples
    --------
    >>> import pandas as pd
    >>> answers = pd.DataFrame({"a": [0, 3, 1, 2], "b": [1, 3, 1, 2]})
    >>> float(scale_reliability(answers, items=["a", "b"], limits=(0, 3)).loc["all rows", "alpha"].round(3))
    0.949
    """
    table = read_table(source)
    if len(items) < 2:
        raise DataError(f"Alpha needs at least two items, but got {len(items)}.")
    answers = _answers(table, items, limits, reversed)
    complete = ~np.isnan(answers).any(axis=1)
    if complete.sum() < 2:
        raise DataError(f"Alpha needs at least two rows with every item answered, but there are {complete.sum()}.")
    answers = answers[complete]
    rows = {"all rows": (_alpha(np.cov(answers, rowvar=False)), len(answers), np.nan)}
    if patient is not None:
        if patient not in table.columns:
            raise DataError(absent_message(patient, table.columns))
        cells = table.columns[patient].cells[complete]
        codes = pd.factorize(pd.Series(cells).mask(table.columns[patient].missing[complete]))[0]
        if (codes < 0).any():
            raise DataError(f"Column '{patient}' has {int((codes < 0).sum())} missing ids. Fill them in.")
        within, between = _covariances(answers, codes)
        n_patients = int(codes.max()) + 1
        rows["all rows"] = (rows["all rows"][0], len(answers), n_patients)
        rows["within patients"] = (_alpha(within), len(answers), n_patients)
        rows["between patients"] = (_alpha(between), len(answers), n_patients)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["alpha", "n_rows", "n_patients"])


def _answers(table: Table, items: Sequence[str], limits: tuple[float, float], turned: Sequence[str]) -> np.ndarray:
    """Return float64 (n_rows, n_items), reversed items turned, NaN where missing."""
    if isinstance(items, str) or not items:
        raise DataError(f"items expects the names of columns, but got {items!r}.")
    if len(set(items)) != len(items):
        raise DataError(
            f"items must be distinct, but '{next(i for i in items if list(items).count(i) > 1)}' is repeated."
        )
    for name in [*items, *turned]:
        if name not in table.columns:
            raise DataError(absent_message(name, table.columns))
    stray = [name for name in turned if name not in items]
    if stray:
        raise DataError(f"reversed names '{stray[0]}', which is not among the items.")
    if not is_range(limits):
        raise DataError(f"limits expects (lowest, highest), but got {limits!r}.")
    low, high = limits
    columns = []
    for name in items:
        column = table.columns[name]
        values = as_numbers(column)
        if values is None:
            bad = text_rows(column)
            shown = [column.shown(int(row)) for row in bad]
            raise DataError(not_numeric_message(f"'{name}'", shown, table.where(bad), bad.size, table.n_rows))
        outside = np.flatnonzero((values < low) | (values > high))
        if outside.size:
            raise DataError(
                f"Item '{name}' must lie from {low:g} to {high:g}, but {outside.size} of {values.size} answers do not: "
                f"{', '.join(f'{value:g}' for value in np.unique(values[outside])[:5])} at {table.where(outside)}. "
                "Correct the cells, leave them blank if missing, or pass other limits."
            )
        columns.append(low + high - values if name in turned else values)
    return np.column_stack(columns)


def _notes(
    name: str, items: Sequence[str], answers: np.ndarray, missing: np.ndarray, max_missing: int
) -> list[list[str]]:
    notes: list[list[str]] = []
    prorated = int(((missing > 0) & (missing <= max_missing)).sum())
    if prorated:
        notes.append(
            [
                "scores-prorated",
                name,
                f"{prorated} of {missing.size} scores '{name}' were prorated from the answered items.",
            ]
        )
    absent = int((missing > max_missing).sum())
    if absent:
        notes.append(
            ["scores-missing", name, f"{absent} of {missing.size} scores '{name}' are missing: too few items answered."]
        )
    against = _against_the_rest(items, answers)
    if against:
        message = f"Items {', '.join(against)} of '{name}' correlate negatively with the rest: are they to be reversed?"
        notes.append(["items-against", name, message])
    return notes


def _against_the_rest(items: Sequence[str], answers: np.ndarray) -> list[str]:
    complete = answers[~np.isnan(answers).any(axis=1)]
    if len(complete) < MIN_ROWS or len(items) < 3:
        return []
    total = complete.sum(axis=1)
    against = []
    for place, item in enumerate(items):
        own = complete[:, place]
        covariance = np.cov(own, total - own)[0, 1]
        if covariance < 0:
            against.append(item)
    return against


def _alpha(covariance: np.ndarray) -> float:
    n = len(covariance)
    total = float(covariance.sum())
    return n / (n - 1) * (1 - float(np.trace(covariance)) / total) if total > 0 else float("nan")


def _covariances(answers: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pooled covariance within patients and the one between them, each (n_items, n_items)."""
    n_rows, n_items = answers.shape
    counts = np.bincount(codes)
    n_patients = len(counts)
    nowhere = np.full((n_items, n_items), np.nan)
    if n_patients < 2 or n_rows == n_patients:
        return nowhere, nowhere
    means = (
        np.stack([np.bincount(codes, weights=answers[:, item]) for item in range(n_items)], axis=1) / counts[:, None]
    )
    deviations = answers - means[codes]
    within = deviations.T @ deviations / (n_rows - n_patients)
    around = means - answers.mean(axis=0)
    mean_square = (around * counts[:, None]).T @ around / (n_patients - 1)
    size = (n_rows - (counts**2).sum() / n_rows) / (n_patients - 1)
    return within, (mean_square - within) / size
