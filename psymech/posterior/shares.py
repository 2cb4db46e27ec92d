"""Ingredient shares: how much of the outcome's variance goes with techniques, common factors, patients, therapists."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.errors import SpecError
from psymech.names import CHAIN, DRAW, LEVELS, RESPONSE, SAMPLE_DIMS, TERM, Level
from psymech.posterior import tree as read
from psymech.posterior.attribution import CONSTANT, attribution_forms, varying
from psymech.posterior.published import published_shares
from psymech.posterior.shared_rows import mean_moment, nested_in
from psymech.posterior.sources import RESIDUAL, SOURCES, sources_of_terms
from psymech.posterior.summaries import interval, interval_names
from psymech.posterior.variance import residual_variance

Floats = NDArray[np.float64]

WITHIN: Final = "within"
SHARES: Final = ("share", "share_by_level", "share_of_level", "share_explained", "share_predictors")
LATENT: Final = (
    "ingredient_shares() reads the columns of the model, and this fit stores none. Use observed means, not latent ones."
)

_IS: Final = (
    "The share of the differences in the outcome, between sessions, patients and therapists as they occurred in this "
    "study, "
    "that goes with differences in each source, for each draw of the posterior. It describes prediction in these data."
)
_IS_NOT: Final = (
    "It is not the share of the improvement that an ingredient brought about. A source that was the same for everyone "
    "has no "
    "share, however much it helped; unmeasured causes that go with a source are counted with it; and the shares depend "
    "on how "
    "much the sources varied here. Shares cannot be negative, so uncertain coefficients lift them: see "
    "share_if_unrelated. The published shares of improvement divide the mean change of patients by comparing "
    "treatment with control conditions, which is a different estimand: read them beside these numbers, not against "
    "them."
)
_ATTRIBUTION: Final = (
    "Variance that correlated sources predict together is divided between them by the average over all orders in which "
    "they may enter (Lindeman, Merenda & Gold 1980; Groemping 2007, doi:10.1198/000313007X188252), within each level."
)
_UNITS: Final = (
    "patient, therapist and clinic hold the random effects of those units, random slopes included, and the covariates "
    "that describe them."
)
_SINGLE: Final = (
    "There is one score for each {level}: lasting differences between {level}s and chance in the score cannot be told "
    "apart and are together the residual."
)
_CHANGING: Final = (
    "Patients changed {level}, so that {level}s are no level above them: differences between {level}s count within "
    "patients where a patient's {level} changed, else between patients."
)


def ingredient_shares(tree: xr.DataTree, *, response: str | None = None, first: Sequence[str] = ()) -> xr.Dataset:
    r"""Share of the outcome's variance that goes with techniques, common factors, patients, therapists, time, per draw.

    The linear predictor and the random terms are split into deviations within patients, of patients within therapists,
    and of therapists. At each level l the variance is

    .. math:: \beta' C_l\, \beta + \sum_m \mathrm{tr}(\Omega_m S_{ml}) + \sigma^2 [l = \text{lowest}]

    with :math:`C_l` the covariance of the columns' deviations and :math:`S_{ml}` the second moments of the random
    columns of level m. The fixed part is divided between the sources so that the parts are never negative and add up
    exactly: each source gets the average, over all orders of entry, of the variance that it adds to what the sources
    before it predict of :math:`x'\beta` (LMG, the Shapley value; see Notes). The random terms of a level belong to its
    unit: ``patient``, ``therapist``, ``clinic``.

    Parameters
    ----------
    tree : DataTree
        A fit of :func:`psymech.process`, :func:`psymech.outcomes`, :func:`psymech.growth`; also one read from a file.
    response : str, optional
        One response of several; all of them by default.
    first : sequence of str
        Sources that enter before the others, in this order, so that they take all that they share with them; e.g.
        ``first=("baseline",)`` for shares of the outcome beyond the score before.

    Returns
    -------
    Dataset
        Dims (chain, draw, source), with ``level`` (within, patient, therapist, clinic) in two of them, and with
        ``response`` where the model has several and none is chosen.

        ``share`` of the total variance, sums to one over the sources; ``share_by_level`` of the total, sums to one over
        level and source; ``share_of_level`` of each level's own variance, sums to one over the sources at each level;
        ``share_explained`` of everything but the residual, as patients' and therapists' effects explain it;
        ``share_predictors`` of what the fixed effects explain. ``share_if_unrelated`` (source): the mean share that a
        source would show although all its coefficients are zero, were they known no better than here. ``variance`` has
        the numerators by level, in squared outcome units (latent logistic units for binary and ordinal outcomes). A
        source that is no part of a denominator is NaN, and so is every share whose denominator holds Student residuals
        without a variance (draws with nu <= 2).

        Attributes say in words what the number is and is not, what belongs to which source, and list published shares
        with their sources (JSON) and why they are another estimand.

    Raises
    ------
    SpecError
        Patients partly without a therapist, whose levels do not divide the variance; an unknown source in `first`; a
        model without columns.

    Notes
    -----
    Sources: ``techniques``; ``common_factors``; ``interaction`` (technique x common factor); ``matching`` (either of
    them x another variable); ``time``; ``carry_over`` (the outcome's own last value); ``baseline`` (the score before,
    in :func:`psymech.outcomes`); ``covariates`` (that vary over sessions); ``patient``, ``therapist``, ``clinic``
    (random effects and covariates constant within the unit); ``residual``. With one score a patient, the patients'
    random effects are part of the residual. Sources that the model does not have are left out.

    Shares cannot be negative, so that uncertainty alone lifts them: the mean over draws of :math:`\beta' W \beta` is
    that of the mean coefficients plus :math:`\mathrm{tr}(W V)`, with V the posterior covariance. ``share_if_unrelated``
    is the latter over the mean total. A share that is not clearly above it says little.

    Patients who change therapist are no parts of one: the levels are then ``within`` and ``patient``, and the source
    ``therapist`` counts at both, for a patient's therapist changes within. With several therapists a row
    (``membership=``) their variance counts with the sum of squared weights, on average over the rows. Which therapist
    held a session is then not stored, and a therapist's trait is among ``covariates`` (or ``patient``, for outcomes of
    patients).

    A random slope of an ingredient, and a random slope of time, count for the unit between which they differ: they are
    differences between patients in how an ingredient goes with the outcome.

    References
    ----------
    Lindeman, Merenda & Gold (1980), Introduction to bivariate and multivariate analysis, Scott, Foresman.
    Groemping (2007), Estimators of relative importance in linear regression based on variance decomposition, The
    American Statistician 61, 139-147. https://doi.org/10.1198/000313007X188252
    Rights & Sterba (2019), Quantifying explained variance in multilevel models, Psychological Methods 24, 309-338.
    https://doi.org/10.1037/met0000184

    Examples
    --------
    >>> import psymech as psm
    >>> shares = psm.ingredient_shares(several)
    >>> bool((abs(shares["share"].sum("source") - 1) < 1e-9).all())
    True
    """
    if read.partially_nested(tree, "therapist"):
        raise SpecError(
            "ingredient_shares() divides the variance by level, but some patients have no therapist (therapist_in=). "
            "Fit the patients who have one without therapist_in= for shares among them."
        )
    if not isinstance(first, Iterable):
        raise SpecError(f"first: expected sources such as ['time'], found {first!r}.")
    unknown = [name for name in first if name not in SOURCES]
    if unknown:
        raise SpecError(f"first: expected sources among {', '.join(SOURCES)}, found {unknown[0]!r}.")
    known = read.responses_of(tree)
    chosen = known if response is None and len(known) > 1 else (read.one_response(tree, response),)
    parts = {name: _parts(tree, name, tuple(first)) for name in chosen}
    levels = [lv for lv in (WITHIN, *LEVELS) if any(lv in p.variance for p in parts.values())]
    sources = [s for s in SOURCES if any(s in by for p in parts.values() for by in p.variance.values())]
    each = [_dataset(tree, part, levels, sources) for part in parts.values()]
    result = xr.concat(each, dim=RESPONSE).assign_coords({RESPONSE: list(chosen)}) if len(chosen) > 1 else each[0]
    result = result.transpose(*SAMPLE_DIMS, ...)
    return result.assign_attrs(_words(parts, tuple(first)))


def summarize_shares(shares: xr.Dataset, *, kind: str = "share", ci_prob: float | None = None) -> pd.DataFrame:
    """Table of shares in percent.

    Parameters
    ----------
    shares : Dataset
        From :func:`ingredient_shares`.
    kind : str
        Which of its shares: ``share``, ``share_by_level``, ``share_of_level``, ``share_explained``,
        ``share_predictors``.
    ci_prob : float, optional
        Probability of the interval; ArviZ's setting (0.89) by default.

    Returns
    -------
    DataFrame
        One row a source (by response and level where `kind` has them); columns mean, sd and the interval, in percent,
        and for ``share`` what uncertainty alone would show (``if_unrelated``). Sources without a share there are left
        out.

    Examples
    --------
    >>> import psymech as psm
    >>> table = psm.summarize_shares(psm.ingredient_shares(several), kind="share_of_level")
    >>> table.index.names
    FrozenList(['response', 'level', 'source'])
    """
    if kind not in SHARES:
        raise SpecError(f"kind: expected one of {', '.join(SHARES)}, found {kind!r}.")
    values = 100.0 * shares[kind]
    low, high = interval(values, ci_prob)
    low_name, high_name = interval_names(ci_prob)
    columns = {"mean": values.mean(SAMPLE_DIMS), "sd": values.std(SAMPLE_DIMS, ddof=1), low_name: low, high_name: high}
    order = [dim for dim in (RESPONSE, "level", "source") if dim in values.dims]
    if kind == "share":
        columns["if_unrelated"] = 100.0 * shares["share_if_unrelated"]
    table = pd.DataFrame({name: column.transpose(*order).to_series() for name, column in columns.items()})
    return table.dropna(subset="mean")


@dataclass(frozen=True, slots=True)
class _Parts:
    """Variances (chain, draw) by level and source; the fixed effects' part; what uncertainty alone would show."""

    response: str
    scale: str
    variance: dict[str, dict[str, Floats]]
    fixed: dict[str, Floats]
    unrelated: dict[str, float]
    terms: dict[str, list[str]]
    single: str | None
    changing: tuple[Level, ...]


def _parts(tree: xr.DataTree, response: str, first: tuple[str, ...]) -> _Parts:
    rows = read.rows_of_response(tree, response)
    data = read.constants(tree)
    if names.DESIGN_X not in data:
        raise SpecError(LATENT)
    levels: tuple[Level, ...] = tuple(
        level for level in LEVELS if names.group_of_obs(level) in data and not read.is_shared(tree, level)
    )
    units: dict[Level, NDArray] = {level: read.unit_of_obs(tree, level)[rows] for level in levels}
    single = _single_score(tree, response, units)
    lowest = WITHIN if single is None else single
    above = _nested(units, single)
    variance: dict[str, dict[str, Floats]] = {level: {} for level in (lowest, *above)}

    def add(level: str, source: str, values: Floats) -> None:
        variance[level][source] = variance[level].get(source, 0.0) + values

    source_of = sources_of_terms(tree, response, levels)
    draws = read.posterior(tree)[names.BETA].transpose(*SAMPLE_DIMS, TERM)
    labels = read.labels_of(draws, TERM)
    index = [labels.index(label) for label in source_of]
    whole = data[names.DESIGN_X].transpose(names.OBS, TERM).values[rows][:, index].astype(float)
    beta = draws.values[..., index]
    fixed: dict[str, Floats] = {}
    unrelated: dict[str, float] = {}
    sizes = beta.shape[:2]
    draws_of_beta = beta.reshape(sizes[0] * sizes[1], len(index))
    spread = (draws_of_beta - draws_of_beta.mean(axis=0)).T @ (draws_of_beta - draws_of_beta.mean(axis=0))
    spread /= len(draws_of_beta)
    for level, deviations in _deviations(whole, units, above, lowest=lowest).items():
        deviations = np.where(varying(deviations, whole), deviations, 0.0)
        groups = _groups(list(source_of.values()), deviations)
        for source, form in attribution_forms(deviations, groups, first=first).items():
            values = np.einsum("cdi,ij,cdj->cd", beta, form, beta, optimize=True)
            add(level, source, values)
            fixed[source] = fixed.get(source, np.zeros(sizes)) + values
            unrelated[source] = unrelated.get(source, 0.0) + float((form * spread).sum())
    for unit in read.levels_of(tree):
        joined = single is not None and LEVELS.index(unit) <= LEVELS.index(single)
        own: tuple[Level, ...] = tuple(level for level in above if LEVELS.index(level) <= LEVELS.index(unit))
        omega = read.covariance(tree, unit)
        for level, moment in _moments(tree, unit, rows, {level: units[level] for level in own}, lowest=lowest).items():
            if (np.diag(moment) > 0.0).any():
                values = np.einsum("cdij,ij->cd", omega, moment)
                add(level, RESIDUAL if joined else unit, values)
    residual, scale = residual_variance(tree, response)
    add(lowest, RESIDUAL, residual)
    terms = {s: [t for t, of in source_of.items() if of == s] for s in SOURCES if s in source_of.values()}
    changing: tuple[Level, ...] = tuple(
        level
        for level in read.levels_of(tree)
        if level not in above and LEVELS.index(level) > LEVELS.index(single or "patient")
    )
    return _Parts(response, scale, variance, fixed, unrelated, terms, single, changing)


def _single_score(tree: xr.DataTree, response: str, units: dict[Level, NDArray]) -> Level | None:
    """Return the level at which the response has one value a unit; None for a response of sessions."""
    spec = next(r for r in read.json_attr(tree, names.ATTR_SPEC)["responses"] if str(r["column"]) == response)
    for level in LEVELS:
        if level == spec.get("level"):
            return level
    alone: list[Level] = [level for level, unit in units.items() if np.unique(unit).size == unit.size]
    return alone[-1] if alone else None


def _nested(units: Mapping[Level, NDArray], single: Level | None) -> tuple[Level, ...]:
    """Levels above the response's own, each of which the ones before are parts of."""
    found: list[Level] = []
    for level, unit in units.items():
        higher = single is None or LEVELS.index(level) > LEVELS.index(single)
        if higher and (not found or nested_in(units[found[-1]], unit)):
            found.append(level)
    return tuple(found)


def _deviations(
    values: Floats, units: Mapping[Level, NDArray], above: Sequence[Level], *, lowest: str
) -> dict[str, Floats]:
    """Split columns into deviations from the means of the units above; the top level's from the mean."""
    out: dict[str, Floats] = {}
    below, name = values, lowest
    for level in above:
        unit = units[level]
        n = np.maximum(np.bincount(unit), 1)
        sums = np.zeros((n.size, below.shape[1]))
        np.add.at(sums, unit, below)
        means = (sums / n[:, None])[unit]
        out[name] = below - means
        below, name = means, level
    out[name] = below - below.mean(axis=0)
    return out


def _moments(
    tree: xr.DataTree, unit: Level, rows: NDArray, groups: Mapping[Level, NDArray], *, lowest: str
) -> dict[str, Floats]:
    """Second moments (q, q) of a level's random columns: of deviations from group means, and of the top groups' means.

    Those of deviations are differences of moments; what of them is rounding is zero.
    """
    z = read.design_rows(tree, unit, rows)
    code, weight = (each[rows] for each in read.shares_of_obs(tree, unit))
    out: dict[str, Floats] = {}
    below, name = mean_moment(z, code, weight, np.arange(rows.size)), lowest
    for level, group in groups.items():
        means = mean_moment(z, code, weight, group)
        varies = np.diag(below - means) > CONSTANT * np.diag(below)
        out[name] = np.where(varies[:, None] & varies, below - means, 0.0)
        below, name = means, level
    out[name] = below
    return out


def _groups(sources: list[str], deviations: Floats) -> dict[str, list[int]]:
    varies = (deviations != 0.0).any(axis=0)
    found: dict[str, list[int]] = {}
    for i, source in enumerate(sources):
        if varies[i]:
            found.setdefault(source, []).append(i)
    return found


def _dataset(tree: xr.DataTree, part: _Parts, levels: list[str], sources: list[str]) -> xr.Dataset:
    draws = read.posterior(tree)
    sizes = (draws.sizes[CHAIN], draws.sizes[DRAW], len(levels), len(sources))
    variance = np.zeros(sizes)
    has = np.zeros(sizes[2:], dtype=bool)
    for level, by_source in part.variance.items():
        for source, values in by_source.items():
            place = levels.index(level), sources.index(source)
            variance[:, :, *place], has[place] = values, True
    predicted = np.zeros((*sizes[:2], len(sources)))
    for source, values in part.fixed.items():
        predicted[..., sources.index(source)] = values
    is_fixed = np.array([source in part.fixed for source in sources])
    summed, present = variance.sum(axis=2), has.any(axis=0)
    unrelated = np.array([part.unrelated.get(source, np.nan) for source in sources])
    by_level = (*SAMPLE_DIMS, "level", "source")
    flat = (*SAMPLE_DIMS, "source")
    return xr.Dataset(
        {
            "share": (flat, _ratio(summed, present, (-1,))),
            "share_by_level": (by_level, _ratio(variance, has, (-2, -1))),
            "share_of_level": (by_level, _ratio(variance, has, (-1,))),
            "share_explained": (flat, _ratio(summed, present & (np.array(sources) != RESIDUAL), (-1,))),
            "share_predictors": (flat, _ratio(predicted, is_fixed, (-1,))),
            "share_if_unrelated": (("source",), unrelated / _mean_of_known(summed[..., present].sum(axis=-1))),
            "variance": (by_level, np.where(has, variance, np.nan)),
        },
        coords={CHAIN: draws[CHAIN].values, DRAW: draws[DRAW].values, "level": levels, "source": sources},
    )


def _mean_of_known(total: Floats) -> float:
    known = total[np.isfinite(total)]
    return float(known.mean()) if known.size else np.nan


def _ratio(values: Floats, part: NDArray[np.bool_], axes: tuple[int, ...]) -> Floats:
    """Shares of the sum over those values that are `part` of it; NaN for others, and in draws without a variance."""
    total = np.where(part, values, 0.0).sum(axis=axes, keepdims=True)
    return np.divide(values, total, out=np.full_like(values, np.nan), where=part & (total > 0))


def _words(parts: dict[str, _Parts], first: tuple[str, ...]) -> dict[str, str]:
    any_part = next(iter(parts.values()))
    singles = dict.fromkeys(p.single for p in parts.values() if p.single is not None)
    units = dict.fromkeys(level for p in parts.values() for level in p.changing)
    changing = [_CHANGING.format(level=level) for level in units]
    attribution = _ATTRIBUTION + (f" Entered before the others: {', '.join(first)}." if first else "")
    return {
        "response": ", ".join(parts),
        "scale": "; ".join(dict.fromkeys(p.scale for p in parts.values())),
        "what_it_is": _IS,
        "what_it_is_not": _IS_NOT,
        "attribution": attribution,
        "units": " ".join([_UNITS, *(_SINGLE.format(level=level) for level in singles), *changing]),
        "terms": json.dumps({p.response: p.terms for p in parts.values()} if len(parts) > 1 else any_part.terms),
        "published": json.dumps([entry.as_dict() for entry in published_shares()]),
    }
