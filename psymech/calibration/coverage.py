"""coverage(): how often intervals hold the true value, and how far posterior means are off."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from psymech import names
from psymech.calibration.checks import ranked
from psymech.calibration.run import MEAN, PRIOR_SBC, SD, TRUTH
from psymech.errors import SpecError


def coverage(result: xr.DataTree, *, probs: Sequence[float] = (0.5, 0.9), by_entry: bool = True) -> pd.DataFrame:
    r"""Return how often central intervals hold the true value, and z-scores and contraction of posterior means.

    .. math:: z = (\bar\theta - \tilde\theta) / s, \qquad c = 1 - s^2 / \mathrm{Var}(\tilde\theta)

    with posterior mean and SD of each fit and the variance of the true values over the simulations. With truths drawn
    from the prior, coverage is nominal on average where a model is calibrated, z has mean 0, and c says how much the
    data teach (Schad, Betancourt & Vasishth 2021, doi:10.1037/met0000275). At a fixed truth
    (``calibrate(truth=...)``) coverage is that of repeated studies, for which no prior makes a promise.

    An interval is central in probability: it never holds a standard deviation that is truly zero. ``below_upper`` is
    the share of true values below the upper end of the last of `probs`.

    Parameters
    ----------
    result
        From :func:`psymech.calibrate`.
    probs
        Probabilities of the intervals.
    by_entry
        One row an entry (``u_therapist[T01, Intercept]``); False pools all units of a random effect's term.

    Returns
    -------
    DataFrame
        Columns quantity, n, one ``coverage_<prob>`` with its Monte Carlo standard error ``se_<prob>`` each,
        ``below_upper``, ``mean_error`` (posterior mean minus truth), ``z_mean``, ``z_sd``, ``contraction`` (missing
        where the truth is fixed). The standard error of pooled rows takes simulations as independent, not units.

    Raises
    ------
    SpecError
        `probs` are no probabilities.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.coverage(result, probs=(0.5, 0.9))  # doctest: +SKIP
    """
    for prob in probs:
        if not 0 < prob < 1:
            raise SpecError(f"probs: expected numbers between 0 and 1, found {prob!r}.")
    entries, pit = ranked(result)
    (_, truth), (_, mean), (_, sd) = (ranked(result, group) for group in (TRUTH, MEAN, SD))
    names_of_rows = entries if by_entry else [_pooled(result, entry) for entry in entries]
    rows = []
    for name in dict.fromkeys(names_of_rows):
        columns = [k for k, each in enumerate(names_of_rows) if each == name]
        rows.append(
            {"quantity": name, **_row(pit[:, columns], truth[:, columns], mean[:, columns], sd[:, columns], probs)}
        )
    return pd.DataFrame(rows)


def _row(
    pit: np.ndarray, truth: np.ndarray, mean: np.ndarray, sd: np.ndarray, probs: Sequence[float]
) -> dict[str, float]:
    n = len(pit)
    row: dict[str, float] = {"n": n}
    for prob in probs:
        held = (np.abs(pit - 0.5) < prob / 2).mean(axis=1)
        row[f"coverage_{prob:g}"] = float(held.mean())
        row[f"se_{prob:g}"] = float(held.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    row["below_upper"] = float((pit < 0.5 + probs[-1] / 2).mean())
    row["mean_error"] = float((mean - truth).mean())
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (mean - truth) / sd
        varies = np.ptp(truth, axis=0) > 0
        contraction = np.where(varies, 1 - (sd**2).mean(axis=0) / truth.var(axis=0, ddof=min(1, n - 1)), np.nan)
    row["z_mean"], row["z_sd"] = float(z.mean()), float(z.std(ddof=1)) if z.size > 1 else float("nan")
    row["contraction"] = float(np.nan if np.isnan(contraction).all() else np.nanmean(contraction))
    return row


def _pooled(result: xr.DataTree, entry: str) -> str:
    """Name of the row that an entry is pooled into: units of a random effect together, others by themselves."""
    variable, _, rest = entry.partition("[")
    unit = next((level for level in names.LEVELS if names.effect(level) == variable), None)
    if unit is None:
        return entry
    labels = sorted((str(x) for x in result[PRIOR_SBC].dataset[unit].values.tolist()), key=len, reverse=True)
    own = next(label for label in labels if rest.startswith(f"{label}, "))
    return f"{variable}[{rest[len(own) + 2 :]}"
