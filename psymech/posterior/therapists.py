"""Effects of therapists (patients, clinics): draws, and one table with all that a reader needs to judge them."""

import pandas as pd
import xarray as xr

from psymech.arguments import finite
from psymech.names import INTERCEPT, SAMPLE_DIMS
from psymech.posterior import tree as read
from psymech.posterior.caseload import caseload, raw_means
from psymech.posterior.ranks import rank_draws
from psymech.posterior.reliability import reliability
from psymech.posterior.summaries import interval, interval_names


def therapist_effects(
    tree: xr.DataTree, *, term: str = INTERCEPT, response: str | None = None, level: str = "therapist"
) -> xr.DataArray:
    r"""Draws of the therapists' (patients', clinics') deviations in one random term.

    The estimand is :math:`v_k` of :math:`y_{tik} = x'\beta + z_v' v_k + z_u' u_{ik} + e_{tik}`: how far therapist
    k's intercept or slope lies from the average therapist's, on the scale of the linear predictor (outcome units
    per unit of the column). Where the model has clinics it is the deviation from the average therapist of the same
    clinic, and a patient's deviation is always from the other patients of the therapist.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    term : str
        ``Intercept``, ``time``, ``alliance.within``, ...: a term that varies at the level.
    response : str, optional
        Needed with several responses that share the term.
    level : {"therapist", "patient", "clinic"}

    Returns
    -------
    DataArray
        Dims (chain, draw, level).

    Raises
    ------
    SpecError
        No random effects at the level, or no such term there; the message lists those that are.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.therapist_effects(tree, term="alliance.within").dims
    ('chain', 'draw', 'therapist')
    """
    label = read.random_label(tree, level, term, response)
    effects = read.unit_effects(tree, level=level, term=term, response=response)
    levels = read.levels_of(tree)
    above = levels[levels.index(read.require_level(tree, level)) + 1 :]
    average = f"the average {level}" + (f" of the same {above[0]}" if above else "")
    return effects.rename(f"{level}_effect").assign_attrs(
        term=label, estimand=f"deviation of the {level} from {average}"
    )


def summarize_therapists(
    tree: xr.DataTree,
    *,
    term: str = INTERCEPT,
    ci_prob: float | None = None,
    response: str | None = None,
    level: str = "therapist",
    threshold: float = 0.0,
    higher_is_better: bool = True,
) -> pd.DataFrame:
    r"""Table of the therapists' (patients', clinics') effects in one random term, one row each, in the tree's order.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    term, response, level
        As in :func:`therapist_effects`.
    ci_prob : float, optional
        Probability of the intervals; ArviZ's setting (0.89) by default.
    threshold : float
        ``p_above`` is the posterior probability of an effect above it.
    higher_is_better : bool
        Direction of the ranks, see :func:`rank_therapists`: rank K is best.

    Returns
    -------
    DataFrame
        Index: the units. Columns: ``mean``, ``sd``, the interval (``eti89_lb``, ``eti89_ub``, named as ArviZ names
        them), ``p_above``, ``expected_rank``, ``rank_low``, ``rank_high`` (the same interval of the rank),
        ``reliability`` (:func:`reliability`), ``n_patients``, ``n_sessions``, and ``raw_mean``, the mean deviation
        without shrinkage from what fixed effects and the levels above predict, each patient counting once (NaN where it
        is not defined: slopes, intercepts beside slopes of anything but within-patient parts, outcomes with a link).
        Patients have no ``n_patients``, clinics also ``n_therapists``.

    Raises
    ------
    SpecError
        No random effects at the level, no such term there, or `ci_prob` no probability.

    References
    ----------
    Goldstein & Spiegelhalter (1996), League tables and their limitations, Journal of the Royal Statistical Society
    A 159, 385-443. https://doi.org/10.2307/2983325

    Examples
    --------
    >>> import psymech as psm
    >>> psm.summarize_therapists(tree, ci_prob=0.95).columns.tolist()[:6]
    ['mean', 'sd', 'eti95_lb', 'eti95_ub', 'p_above', 'expected_rank']
    """
    finite(threshold, "threshold")
    effects = therapist_effects(tree, term=term, response=response, level=level)
    ranks = rank_draws(effects, level=level, higher_is_better=higher_is_better)
    low, high = interval(effects, ci_prob)
    rank_low, rank_high = interval(ranks, ci_prob)
    low_name, high_name = interval_names(ci_prob)
    label = str(effects.attrs["term"])
    table = pd.DataFrame(
        {
            "mean": effects.mean(SAMPLE_DIMS).values,
            "sd": effects.std(SAMPLE_DIMS, ddof=1).values,
            low_name: low.values,
            high_name: high.values,
            "p_above": (effects > threshold).mean(SAMPLE_DIMS).values,
            "expected_rank": ranks.mean(SAMPLE_DIMS).values,
            "rank_low": rank_low.values,
            "rank_high": rank_high.values,
            "reliability": reliability(tree, term=term, response=response, level=level).values,
        },
        index=pd.Index(effects[level].values.tolist(), name=level),
    )
    owner = _response_of_label(tree, label, response)
    table = table.join(caseload(tree, level=level, response=owner))
    table["raw_mean"] = raw_means(tree, level=level, label=label, response=owner)[read.units_with_rows(tree, level)]
    return table


def _response_of_label(tree: xr.DataTree, label: str, response: str | None) -> str:
    known = read.responses_of(tree)
    if response is not None or len(known) == 1:
        return read.one_response(tree, response)
    return next(each for each in known if label.startswith(read.response_label(each, "")))
