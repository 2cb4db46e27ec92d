"""Ranks of therapists with their uncertainty."""

from math import ceil

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from psymech.arguments import instance, is_number
from psymech.errors import SpecError
from psymech.names import CHAIN, DRAW, INTERCEPT
from psymech.posterior import tree as read

ROUNDING = 1e-9  # 0.1 * 30 is 3.0000000000000004 in floating point and must still mean three therapists


def rank_draws(effects: xr.DataArray, *, level: str, higher_is_better: bool = True) -> xr.DataArray:
    """Return the rank of each unit in each draw: K is best, 1 is worst, equal values share their mean rank."""
    instance(higher_is_better, bool, "higher_is_better", "True or False")
    values = effects.transpose(CHAIN, DRAW, level)
    return values.copy(data=_ranks(values.values if higher_is_better else -values.values)).rename("rank")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank along the last axis; only draws with equal or missing values take the slower way that shares ranks."""
    order = np.argsort(values, axis=-1)
    ordered = np.take_along_axis(values, order, axis=-1)
    plain = np.broadcast_to(np.arange(1.0, values.shape[-1] + 1.0), values.shape)
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, plain, axis=-1)
    shared = ~(np.diff(ordered, axis=-1) > 0.0).all(axis=-1)
    if shared.any():
        ranks[shared] = rankdata(values[shared], axis=-1)
    return ranks


def n_top(n_units: int, top: float) -> int:
    """Return how many units are the top share: the smallest number that makes at least the share."""
    if not (is_number(top) and 0.0 < top <= 1.0):
        raise SpecError(f"top: expected a share above 0 and at most 1, found {top!r}.")
    return max(1, ceil(top * n_units - ROUNDING))


def rank_therapists(
    tree: xr.DataTree,
    *,
    term: str = INTERCEPT,
    response: str | None = None,
    higher_is_better: bool = True,
    top: float = 0.1,
    level: str = "therapist",
) -> xr.Dataset:
    r"""Rank therapists (or patients, clinics) by a random term, in every draw.

    .. math:: R_k = \sum_j 1(\theta_j \le \theta_k), \qquad \text{percentile}_k = (E[R_k \mid y] - 0.5) / K

    with K therapists: rank K is the best and rank 1 the worst, where *best* is the highest value, or the lowest with
    ``higher_is_better=False`` (say so for symptom scores). Equal values share their mean rank. Where the model has
    clinics, therapists are ranked by their deviation from their own clinic.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    term : str
        The random term to rank by.
    response : str, optional
        Needed with several responses that share the term.
    higher_is_better : bool
        Whether a high value is a good one. It turns the ranks around.
    top : float
        The share that counts as the top; the smallest number of therapists that makes at least this share.
    level : {"therapist", "patient", "clinic"}

    Returns
    -------
    Dataset
        ``rank`` (chain, draw, level), and over the level: ``expected_rank``, ``percentile`` (0 to 1), ``p_top``,
        the posterior probability to be among the top. Attributes name the direction and the number of therapists
        in the top.

    Raises
    ------
    SpecError
        The model has no such level or term, or `top` is no share.

    References
    ----------
    Laird & Louis (1989), Empirical Bayes ranking methods, Journal of Educational Statistics 14, 29-46.
    Lin, Louis, Paddock & Ridgeway (2006), Loss function based ranking in two-stage, hierarchical models, Bayesian
    Analysis 1, 915-946. https://doi.org/10.1214/06-BA130

    Examples
    --------
    >>> import psymech as psm
    >>> ranks = psm.rank_therapists(tree, higher_is_better=False, top=0.2)
    >>> ranks["rank"].dims, ranks.attrs["n_top"]
    (('chain', 'draw', 'therapist'), 4)
    """
    effects = read.unit_effects(tree, level=level, term=term, response=response)
    ranks = rank_draws(effects, level=level, higher_is_better=higher_is_better)
    n_units = effects.sizes[level]
    best = n_top(n_units, top)
    expected = ranks.mean((CHAIN, DRAW))
    in_top = ranks.copy(data=np.where(np.isnan(ranks.values), np.nan, ranks.values > n_units - best))
    return xr.Dataset(
        {
            "rank": ranks,
            "expected_rank": expected,
            "percentile": (expected - 0.5) / n_units,
            "p_top": in_top.mean((CHAIN, DRAW)),
        },
        attrs={
            "term": term,
            "best": "highest value" if higher_is_better else "lowest value",
            "rank": f"{n_units} is the best, 1 the worst",
            "n_top": best,
        },
    )


def compare_therapists(
    tree: xr.DataTree, *, term: str = INTERCEPT, response: str | None = None, level: str = "therapist"
) -> xr.DataArray:
    r"""Give the posterior probability that one therapist's effect is larger than another's, for every pair.

    .. math:: P(\theta_j > \theta_k \mid y)

    The posterior of the difference, so that what two therapists share (the uncertainty of the mean) cancels.

    Returns
    -------
    DataArray
        Dims (level, other): row j, column k holds P(j above k); 0.5 where both are the same.

    References
    ----------
    Goldstein & Spiegelhalter (1996), League tables and their limitations, Journal of the Royal Statistical Society
    A 159, 385-443. https://doi.org/10.2307/2983325

    Examples
    --------
    >>> import psymech as psm
    >>> 0 < float(psm.compare_therapists(tree).sel(therapist="T01", other="T02")) < 1
    True
    """
    effects = read.unit_effects(tree, level=level, term=term, response=response)
    units = np.ascontiguousarray(effects.values.reshape(-1, effects.sizes[level]).T)
    n_units, n_draws = units.shape
    share = np.full((n_units, n_units), 0.5)
    # twice the rank within each draw orders as the values do, in numbers a quarter as wide
    places = np.ascontiguousarray(2 * _ranks(units.T).T, dtype=np.uint16 if n_units < 2**15 else np.uint32)
    tied = bool((places % 2).any() or (np.diff(np.sort(places, axis=0), axis=0) == 0).any())
    for k in range(n_units - 1):
        rest = places[k + 1 :]
        above = 2 * np.count_nonzero(places[k] > rest, axis=1)
        if tied:
            above += np.count_nonzero(places[k] == rest, axis=1)
        share[k, k + 1 :] = above / (2 * n_draws)
        share[k + 1 :, k] = 1.0 - share[k, k + 1 :]
    labels = effects[level].values
    return xr.DataArray(share, dims=(level, "other"), coords={level: labels, "other": labels}, name="p_above")
