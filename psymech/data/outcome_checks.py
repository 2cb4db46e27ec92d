"""Checks of an outcome against its family and its predictors."""

from collections.abc import Mapping
from itertools import chain, islice, pairwise
from typing import Final

import numpy as np

from psymech.data.findings import Finding

MAX_SHOWN: Final = 5
TRIED: Final = 20  # rows a column looked at before all are
SAME: Final = 1e-10  # 1 - |r| of a predictor that is the outcome itself, up to rounding


def check_outcome(
    outcome: str, y: np.ndarray, family: str, predictors: Mapping[str, np.ndarray]
) -> tuple[Finding, ...]:
    """Return findings on an outcome: of another family than asked for, or settled by one of its predictors.

    Parameters
    ----------
    outcome : str
        Its column.
    y : ndarray, shape (n_rows,)
        As the model uses it.
    family : {"gaussian", "student", "bernoulli", "ordinal"}
    predictors : mapping of column to ndarray, shape (n_rows,)
        Values of each variable in the same rows.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> print(check_outcome("better", (x > 3) * 1.0, "bernoulli", {"dose": x})[0].message)
    Column dose separates the two values of better completely: 0 up to 3, 1 from 4 on.
    """
    values = np.unique(y)
    if values.size < 2:
        return ()
    found: list[Finding] = []
    if family in ("gaussian", "student") and values.size == 2:
        message = f"Outcome {outcome} has only two values, {values[0]:g} and {values[1]:g}, but family={family!r}."
        remedy = "Code it as 0 and 1 and use family='bernoulli'."
        found.append(Finding("warning", "outcome-binary", outcome, (), message, remedy))
    for name, x in predictors.items():
        if not np.isfinite(x).all() or np.ptp(x) == 0:
            continue
        if family != "bernoulli" and _same(x, y):
            message = f"Column {name} is the outcome {outcome} itself (an exact linear function of it)."
            found.append(Finding("error", "predictor-is-outcome", name, (), message, "Leave it out."))
        if family == "bernoulli":
            found += _separating(outcome, y, name, x)
    return tuple(found)


def check_determined(outcome: str, y: np.ndarray, columns: np.ndarray) -> tuple[Finding, ...]:
    """Return an error where an outcome is an exact linear combination of the columns of its model.

    Parameters
    ----------
    outcome : str
        Its column.
    y : ndarray, shape (n_rows,)
    columns : ndarray, shape (n_rows, n_columns)
        As the model uses them; a constant is added.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(12.0)
    >>> print(check_determined("score", 2 * x + 1, x[:, None])[0].message)
    Outcome score is an exact linear combination of the predictors: nothing is left for the residual SD.
    """
    X = np.column_stack([np.ones(y.size), columns])
    some = np.unique(np.linspace(0, y.size - 1, min(y.size, TRIED * X.shape[1])).astype(int))
    for rows in (some, slice(None)):
        Z, target = X[rows], y[rows]
        if target.size < 2 * X.shape[1] or np.ptp(target) == 0:
            return ()
        scale = np.abs(Z).max(axis=0)
        weights = np.linalg.lstsq(Z / np.where(scale > 0, scale, 1.0), target, rcond=None)[0]
        left = target - (Z / np.where(scale > 0, scale, 1.0)) @ weights
        if np.abs(left).max() > SAME * np.ptp(target):
            return ()
    message = (
        f"Outcome {outcome} is an exact linear combination of the predictors: nothing is left for the residual SD."
    )
    remedy = "Is it computed from them? Leave out what it is made of."
    return (Finding("error", "outcome-determined", outcome, (), message, remedy),)


def _same(x: np.ndarray, y: np.ndarray) -> bool:
    a, b = (x - x.mean()) / np.ptp(x), (y - y.mean()) / np.ptp(y)
    return bool(1 - abs(a @ b) / np.sqrt((a @ a) * (b @ b)) < SAME)


def _separating(outcome: str, y: np.ndarray, name: str, x: np.ndarray) -> list[Finding]:
    no, yes = x[y == 0], x[y == 1]
    if no.size and yes.size and no.max() < yes.min():
        where = f"0 up to {no.max():.6g}, 1 from {yes.min():.6g} on"
    elif no.size and yes.size and yes.max() < no.min():
        where = f"1 up to {yes.max():.6g}, 0 from {no.min():.6g} on"
    else:
        return []
    message = f"Column {name} separates the two values of {outcome} completely: {where}."
    remedy = "The data set no limit to its coefficient, which rests on its prior: is it another form of the outcome?"
    return [Finding("warning", "outcome-separated", name, (), message, remedy)]


def check_categories(outcome: str, categories: tuple[float, ...]) -> tuple[Finding, ...]:
    """Return a note where whole-number categories of an ordinal outcome leave some out.

    Examples
    --------
    >>> print(check_categories("rating", (0.0, 1.0, 4.0))[0].message)
    No value of rating is 2, 3: the model has the 3 categories 0, 1, 4 only, and predicts no other.
    """
    numbers = [int(value) for value in categories]
    if list(categories) != numbers:
        return ()
    gaps = [(low + 1, high) for low, high in pairwise(numbers) if high - low > 1]
    n_absent = sum(high - low for low, high in gaps)
    if not n_absent:
        return ()
    first = islice(chain.from_iterable(range(low, high) for low, high in gaps), MAX_SHOWN)
    shown = ", ".join(map(str, first)) + (f" and {n_absent - MAX_SHOWN} more" if n_absent > MAX_SHOWN else "")
    message = (
        f"No value of {outcome} is {shown}: the model has the {len(numbers)} categories "
        f"{', '.join(map(str, numbers[:10]))}{', ...' if len(numbers) > 10 else ''} only, and predicts no other."
    )
    return (Finding("note", "categories-absent", outcome, (), message, ""),)
