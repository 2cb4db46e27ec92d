"""How likely units pass a stated threshold, and how much of what a ranking shows is real."""

from typing import Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from psymech.arguments import finite
from psymech.errors import SpecError
from psymech.names import INTERCEPT, SAMPLE_DIMS
from psymech.posterior import tree as read
from psymech.posterior.reliability import Method, caseload_for, reliability, share_within_clinics
from psymech.posterior.summaries import interval, interval_names

Direction = Literal["above", "below"]


def exceedance(
    tree: xr.DataTree,
    *,
    threshold: float,
    direction: Direction = "above",
    term: str = INTERCEPT,
    response: str | None = None,
    level: str = "therapist",
) -> xr.DataArray:
    r"""Give the posterior probability that each therapist's effect lies beyond a threshold.

    .. math:: P(v_k > c \mid y) \quad\text{or}\quad P(v_k < c \mid y)

    The threshold is a difference from the average therapist that matters, in outcome units per unit of the column; zero
    asks for above or below average.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    threshold : float
    direction : {"above", "below"}
    term, response, level
        As in :func:`therapist_effects`.

    Returns
    -------
    DataArray
        Dims (level).

    Raises
    ------
    SpecError
        No such level or term, or a threshold that is no number.

    References
    ----------
    Lin, Louis, Paddock & Ridgeway (2006), https://doi.org/10.1214/06-BA130

    Examples
    --------
    >>> import psymech as psm
    >>> late = psm.exceedance(tree, threshold=-1.0, direction="below")
    >>> late.dims, bool((late < 0.5).all())
    (('therapist',), True)
    """
    if direction not in get_args(Direction):
        raise SpecError(f"direction: expected one of {', '.join(get_args(Direction))}, found {direction!r}.")
    finite(threshold, "threshold")
    effects = read.unit_effects(tree, level=level, term=term, response=response)
    beyond = effects > threshold if direction == "above" else effects < threshold
    label = read.random_label(tree, level, term, response)
    return (
        beyond.mean(SAMPLE_DIMS)
        .rename("exceedance")
        .assign_attrs(term=label, threshold=float(threshold), direction=direction)
    )


def rankability(
    tree: xr.DataTree,
    *,
    term: str = INTERCEPT,
    response: str | None = None,
    level: str = "therapist",
    method: Method = "posterior",
) -> xr.DataArray:
    r"""Share of the differences between therapists' own estimates that is real: how far a ranking can be trusted.

    .. math:: \rho = \frac{\sigma_v^2}{\sigma_v^2 + \mathrm{median}_k\, s_k^2}

    with :math:`s_k^2` the sampling variance of therapist k's own estimate. It is taken from the reliability
    (:func:`reliability`, same `method`) by :math:`s_k^2 = \sigma_v^2 (1 - \lambda_k) / \lambda_k`, so that rho is the
    reliability of the typical therapist.

    Returns
    -------
    DataArray
        A scalar for "posterior", dims (chain, draw) for "formula".

    References
    ----------
    Lingsma, Steyerberg, Eijkemans et al. (2010), Comparing and ranking hospitals based on outcome: results from The
    Netherlands Stroke Survey, QJM 103, 99-108. https://doi.org/10.1093/qjmed/hcp169

    Examples
    --------
    >>> import psymech as psm
    >>> 0 < float(psm.rankability(tree)) < 0.5
    True
    """
    share = reliability(tree, term=term, response=response, level=level, method=method).clip(0.0, 1.0)
    noise = xr.where(share > 0, (1.0 - share) / share.where(share > 0, 1.0), np.inf)
    return (1.0 / (1.0 + noise.median(level))).rename("rankability")


def caseload_table(
    tree: xr.DataTree,
    *,
    reliabilities: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9),
    response: str | None = None,
    sessions: float | None = None,
    ci_prob: float | None = None,
) -> pd.DataFrame:
    """Table of the patients that a therapist needs for several reliabilities, beside what therapists have.

    Parameters
    ----------
    tree : DataTree
        A fitted tree with a therapist level.
    reliabilities : tuple of float
        Each between 0 and 1.
    response, sessions
        As in :func:`variance_partition`, ``per="patient"``.
    ci_prob : float, optional
        Probability of the interval; ArviZ's setting (0.89) by default.

    Returns
    -------
    DataFrame
        Index ``reliability``; columns ``median``, the interval (patients, not rounded, see :func:`minimum_caseload`)
        and ``share_reached``, the share of this study's therapists with at least the median number of patients; where
        therapists share patients (``membership=``) each patient counts as the square of the therapist's share.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.caseload_table(tree, reliabilities=(0.7, 0.8)).columns.tolist()
    ['median', 'eti89_lb', 'eti89_ub', 'share_reached']
    """
    from psymech.posterior.caseload import unshared_caseload

    share = share_within_clinics(tree, response=response, sessions=sessions)
    has = unshared_caseload(tree, response=response)
    low_name, high_name = interval_names(ci_prob)
    rows = []
    for wanted in reliabilities:
        needed = caseload_for(share, reliability=wanted)
        low, high = interval(needed, ci_prob)
        middle = float(needed.median())
        rows.append((middle, float(low), float(high), float((has >= middle).mean())))
    index = pd.Index(reliabilities, name="reliability")
    return pd.DataFrame(rows, index=index, columns=["median", low_name, high_name, "share_reached"])
