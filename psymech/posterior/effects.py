"""Fixed effects and contextual effects, one table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import pandas as pd
import xarray as xr

from psymech import names
from psymech.errors import SpecError
from psymech.names import SAMPLE_DIMS, TERM
from psymech.posterior import tree as read
from psymech.posterior.standardize import Standardize, standard_factors
from psymech.posterior.summaries import interval, interval_names

DECOMPOSED = ("within", "patient", "therapist")
NOT_DECOMPOSED = frozenset({"intercept", "time", "interaction", "autoregressive"})


def contextual_pairs(tree: xr.DataTree) -> tuple[tuple[str, str], ...]:
    """Return the pairs (upper, lower) of terms whose difference is a contextual effect: parts of one variable,
    level by level.

    A part whose slope depends on a column that is no deviation (severity, a trait, time, without therapists the means
    of patients) has none: its coefficient is the slope where that column is zero, which may be nobody's value, and so
    would be the difference.
    """
    terms = read.terms_of(tree)
    with_therapists = any(info.part == "therapist" for info in terms)
    around_zero = ("within", "patient") if with_therapists else ("within",)
    moderated = {
        (info.response, factor)
        for info in terms
        if len(info.factors) > 1
        for factor in _moderated(info.factors, around_zero)
    }
    infos = [
        info
        for info in terms
        if info.part in DECOMPOSED
        and info.role not in NOT_DECOMPOSED
        and not any((info.response, factor) in moderated for factor in info.factors)
    ]

    def variable(info: read.TermInfo) -> tuple[str, str]:
        return (info.response or "", info.column)

    def pairs() -> Iterator[tuple[str, str]]:
        order = list(dict.fromkeys(variable(info) for info in infos))
        ordered = sorted(infos, key=lambda info: (order.index(variable(info)), DECOMPOSED.index(info.part)))
        for _, members in groupby(ordered, key=variable):
            parts = list(members)
            for upper in parts:
                for lower in parts:
                    if DECOMPOSED.index(lower.part) < DECOMPOSED.index(upper.part):
                        yield upper.label, lower.label

    return tuple(pairs())


def _moderated(factors: tuple[str, ...], around_zero: Sequence[str]) -> Iterator[str]:
    """Yield the factors of a product that another factor, of which zero is not the average, moderates."""
    parts = {factor: json.loads(factor)["part"] if factor.startswith("{") else "raw" for factor in factors}
    raw = [factor for factor in factors if parts[factor] not in around_zero]
    return (factor for factor in factors if any(other != factor for other in raw))


def effect_draws(
    tree: xr.DataTree,
    *,
    standardize: Standardize = "none",
    contrasts: Mapping[str, Mapping[str, float]] | None = None,
) -> xr.DataArray:
    """Return the draws of the fixed effects and, behind them, of the contextual effects and contrasts.

    Dims (chain, draw, term). Standardised draws have no intercepts and no contextual effects: differences of
    coefficients in different units mean nothing.
    """
    beta = read.posterior(tree)[names.BETA].transpose(*SAMPLE_DIMS, TERM)
    beta = beta.assign_coords({TERM: list(read.labels_of(beta, TERM))})
    if standardize != "none":
        factors = xr.concat(
            [standard_factors(tree, how=standardize, response=each) for each in read.responses_of(tree)], dim=TERM
        )
        scaled = (beta * factors).transpose(*SAMPLE_DIMS, TERM)
        defined = scaled.notnull().any(SAMPLE_DIMS).values
        if not defined.any():
            raise SpecError(f"standardize={standardize!r}: no fixed effect of this model lives at a single level.")
        return _with_contrasts(scaled.isel({TERM: defined}), contrasts)
    extra = [
        (read.take(beta, TERM, upper) - read.take(beta, TERM, lower)).expand_dims({TERM: [f"{upper} - {lower}"]})
        for upper, lower in contextual_pairs(tree)
    ]
    draws = read.posterior(tree)
    if names.LOADING in draws:
        slopes = draws[names.LOADING].transpose(*SAMPLE_DIMS, names.LOADING_TERM)
        labels = list(read.labels_of(slopes, names.LOADING_TERM))
        extra.insert(0, slopes.rename({names.LOADING_TERM: TERM}).assign_coords({TERM: labels}))
    every = xr.concat([beta, *extra], dim=TERM).transpose(*SAMPLE_DIMS, TERM) if extra else beta
    return _with_contrasts(every, contrasts)


def _with_contrasts(draws: xr.DataArray, contrasts: Mapping[str, Mapping[str, float]] | None) -> xr.DataArray:
    known = read.labels_of(draws, TERM)
    extra = []
    for name, weights in (contrasts or {}).items():
        absent = [label for label in weights if label not in known]
        if absent or not weights or name in known:
            problem = f"no term {absent[0]!r}" if absent else "no weights" if not weights else "the name of a term"
            raise SpecError(f"contrasts[{name!r}]: found {problem}; the terms are {', '.join(known)}.")
        total = sum(float(weight) * read.take(draws, TERM, label) for label, weight in weights.items())
        extra.append(xr.DataArray(total).expand_dims({TERM: [name]}))
    return xr.concat([draws, *extra], dim=TERM).transpose(*SAMPLE_DIMS, TERM) if extra else draws


def effects(
    tree: xr.DataTree,
    *,
    ci_prob: float | None = None,
    standardize: Standardize = "none",
    contrasts: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:
    r"""Table of the fixed effects, with the contextual effects behind them.

    Where a variable enters as :math:`x = (x - \bar x_{ik}) + (\bar x_{ik} - \bar x_k) + \bar x_k` with slopes
    :math:`b_W, b_P, b_T`, the contextual effects are :math:`b_P - b_W` (what it makes for a patient to be higher
    throughout, at the same momentary value), :math:`b_T - b_P` and :math:`b_T - b_W`. Rows are named
    ``alliance.patient - alliance.within``. There is none for a part in a product with a column that is no deviation
    (``directiveness.patient:reactance``; without therapists in the data also a patient's mean): its coefficient is the
    slope where that column is zero. Patients' slopes
    that predict outcomes (``outcomes(..., process=...)``) stand behind the fixed effects as
    ``coping_post~[alliance~exposure.within]``, outcome units per unit of the slope.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    ci_prob : float, optional
        Probability of the interval; ArviZ's setting (0.89) by default.
    standardize : {"none", "x", "total", "level"}
        Outcome units per SD of the column (``"x"``); SDs of the outcome per SD of the column, with the outcome's
        total SD (``"total"``) or its SD at the level at which the column lives (``"level"``: within patients, between
        patients, between therapists). The outcome's SD is the model's, per draw. Intercepts and contextual effects, and
        with ``"level"`` columns that live at no single level, are left out.
    contrasts : mapping, optional
        Weighted sums of terms to put behind the table, such as ``{"technique - alliance": {"exposure.within": 1,
        "alliance.within": -1}}``; of the standardised effects where `standardize` says so.

    Returns
    -------
    DataFrame
        Index ``term``; columns ``mean``, ``sd``, the interval (``eti89_lb``, ``eti89_ub``), ``p_above_zero``,
        ``ess_bulk``, ``ess_tail``, ``r_hat``. Values are in outcome units (log odds for binary and ordinal
        outcomes) per unit of the column, or standardised.

    Raises
    ------
    SpecError
        A contrast that names no term of the model, or an unknown `standardize`.

    References
    ----------
    Mundlak (1978), On the pooling of time series and cross section data, Econometrica 46, 69-85.
    https://doi.org/10.2307/1913646
    Enders & Tofighi (2007), Centering predictor variables in cross-sectional multilevel models, Psychological Methods
    12, 121-138. https://doi.org/10.1037/1082-989X.12.2.121

    Examples
    --------
    >>> import psymech as psm
    >>> psm.effects(tree, ci_prob=0.95).index.tolist()[-1]
    'alliance.therapist - alliance.patient'
    """
    from arviz_stats.sampling_diagnostics import ess, rhat

    draws = effect_draws(tree, standardize=standardize, contrasts=contrasts).rename("effect")
    low, high = interval(draws, ci_prob)
    low_name, high_name = interval_names(ci_prob)
    dims = list(SAMPLE_DIMS)
    return pd.DataFrame(
        {
            "mean": draws.mean(SAMPLE_DIMS).values,
            "sd": draws.std(SAMPLE_DIMS, ddof=1).values,
            low_name: low.values,
            high_name: high.values,
            "p_above_zero": (draws > 0.0).mean(SAMPLE_DIMS).values,
            "ess_bulk": ess(draws, sample_dims=dims, method="bulk").values,
            "ess_tail": ess(draws, sample_dims=dims, method="tail").values,
            "r_hat": rhat(draws, sample_dims=dims).values,
        },
        index=pd.Index(read.labels_of(draws, TERM), name=TERM),
    )
