"""Which ingredient goes with which outcome: standardised coefficients and their differences."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from psymech import names
from psymech.errors import SpecError, shown_ids
from psymech.names import CHAIN, DRAW, RESPONSE, SAMPLE_DIMS, TERM, Level
from psymech.posterior import tree as read
from psymech.posterior.pooling import pool_effects
from psymech.posterior.sources import COMMON_FACTORS, INTERACTION, MATCHING, TECHNIQUES, sources_of_terms
from psymech.posterior.summaries import interval, interval_names
from psymech.spec.model import one_of, response_label

Across = Literal["outcomes", "ingredients", "both"]
INGREDIENT: Final = "ingredient"
_CONTRASTED: Final = (TECHNIQUES, COMMON_FACTORS, INTERACTION, MATCHING)


def standardized_effects(
    tree: xr.DataTree,
    *,
    ingredients: Sequence[str] | None = None,
    responses: Sequence[str] | None = None,
    higher_is_better: bool | Mapping[str, bool] = True,
    pool: bool = False,
    seed: int = 0,
) -> xr.DataArray:
    r"""Coefficients in SD of the outcome per SD of the ingredient, positive where the patient is better off.

    .. math:: b_{rj} = \pm\beta_{rj}\, \mathrm{SD}(x_j) / \mathrm{SD}(y_r)

    with the SDs of the column and of the outcome over the rows of response r.

    Parameters
    ----------
    tree : DataTree
        A fit of :func:`psymech.outcomes` (or of one outcome).
    ingredients : sequence of str, optional
        Term labels without the response; by default all terms of techniques and common factors and their products that
        every response has.
    responses : sequence of str, optional
        Responses; all by default.
    higher_is_better : bool or mapping of response to bool
        Where False, the sign is turned round. Responses that a mapping leaves out count as True.
    pool : bool
        Pool each ingredient's coefficients partially over the outcomes, see :mod:`psymech.posterior.pooling`.
        Needs two responses or more, fitted with ``residual="unstructured"``.
    seed : int
        Seed of the pooled draws.

    Returns
    -------
    DataArray
        Dims (chain, draw, response, ingredient).

    Raises
    ------
    SpecError
        An ingredient or response that the model does not have; outcomes that are not Gaussian or Student.

    Examples
    --------
    >>> import psymech as psm
    >>> psm.standardized_effects(several).mean(("chain", "draw")).sizes
    Frozen({'response': 2, 'ingredient': 4})
    """
    chosen = _responses(tree, responses)
    for response in chosen:
        family = read.family_of(tree, response)
        if family not in read.IDENTITY_LINK:
            raise SpecError(
                f"standardized_effects() needs Gaussian or Student outcomes, found family {family!r} of {response!r}: "
                "its outcome has no SD on the scale of the coefficients."
            )
    better = _signs(higher_is_better, chosen, read.responses_of(tree))
    labels = _ingredients(tree, chosen, ingredients)
    beta = read.posterior(tree)[names.BETA].transpose(*SAMPLE_DIMS, TERM)
    terms = read.labels_of(beta, TERM)
    x = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, TERM).values
    y = read.outcome(tree)
    several = len(read.responses_of(tree)) > 1
    out = np.empty((*beta.shape[:2], len(chosen), len(labels)))
    for r, response in enumerate(chosen):
        rows = read.rows_of_response(tree, response)
        for j, label in enumerate(labels):
            at = terms.index(response_label(response, label) if several else label)
            out[..., r, j] = better[response] * beta.values[..., at] * x[rows, at].std() / np.nanstd(y[rows])
    if pool:
        _refuse_pooling(tree, chosen)
        out = pool_effects(out.reshape(-1, *out.shape[2:]), seed=seed).effects.reshape(out.shape)
    return xr.DataArray(
        out,
        dims=(*SAMPLE_DIMS, RESPONSE, INGREDIENT),
        coords={CHAIN: beta[CHAIN].values, DRAW: beta[DRAW].values, RESPONSE: list(chosen), INGREDIENT: list(labels)},
        name="effect",
        attrs={"unit": "SD of the outcome per SD of the ingredient, positive: better", "pooled": int(pool)},
    )


def contrasts(
    tree: xr.DataTree,
    *,
    across: Across = "outcomes",
    ingredients: Sequence[str] | None = None,
    responses: Sequence[str] | None = None,
    higher_is_better: bool | Mapping[str, bool] = True,
    pool: bool = False,
    seed: int = 0,
    ci_prob: float | None = None,
) -> pd.DataFrame:
    r"""Compare standardised coefficients: a table that says which ingredient goes with which outcome.

    ``across="outcomes"``: does an ingredient go with one outcome more than with another, :math:`b_{rj} - b_{sj}`.
    ``across="ingredients"``: does an outcome go with one ingredient more than with another, :math:`b_{rj} - b_{rl}`.
    ``across="both"``: is the match specific, :math:`(b_{rj} - b_{sj}) - (b_{rl} - b_{sl})`; it is not zero only where
    the difference between two ingredients is another one for the two outcomes.

    Parameters
    ----------
    tree : DataTree
        A fit of :func:`psymech.outcomes`.
    across : {"outcomes", "ingredients", "both"}
    ingredients, responses, higher_is_better, pool, seed
        As in :func:`standardized_effects`.
    ci_prob : float, optional
        Probability of the interval; ArviZ's setting (0.89) by default.

    Returns
    -------
    DataFrame
        One row a pair: ``ingredient``, ``versus_ingredient``, ``response``, ``versus_response`` (the columns that
        apply), ``mean``, ``sd``, the interval and ``p_above_zero``, the probability that the first is the larger.

    Notes
    -----
    Two coefficients of which one is clearly above zero and the other is not need not differ: only the contrast says
    whether they do. With many pairs some intervals leave zero out by chance; ``pool=True`` draws the coefficients of an
    ingredient together where the outcomes give no reason to tell them apart.

    References
    ----------
    Gelman, Hill & Yajima (2012), Why we (usually) don't have to worry about multiple comparisons, Journal of Research
    on Educational Effectiveness 5, 189-211. https://doi.org/10.1080/19345747.2011.618213

    Examples
    --------
    >>> import psymech as psm
    >>> len(psm.contrasts(several, across="ingredients"))
    12
    """
    one_of(across, get_args(Across), "across")
    effect = standardized_effects(
        tree, ingredients=ingredients, responses=responses, higher_is_better=higher_is_better, pool=pool, seed=seed
    )
    outcome_pairs = list(combinations(read.labels_of(effect, RESPONSE), 2))
    ingredient_pairs = list(combinations(read.labels_of(effect, INGREDIENT), 2))
    if across != "ingredients" and not outcome_pairs:
        raise SpecError(f"across={across!r} compares outcomes, and there is one. Use across='ingredients'.")
    if across != "outcomes" and not ingredient_pairs:
        raise SpecError(f"across={across!r} compares ingredients, and there is one. Use across='outcomes'.")
    rows: list[dict[str, str]] = []
    values: list[xr.DataArray] = []

    def at(response: str, ingredient: str) -> xr.DataArray:
        return effect.sel({RESPONSE: response, INGREDIENT: ingredient}, drop=True)

    if across == "outcomes":
        for label in read.labels_of(effect, INGREDIENT):
            for a, b in outcome_pairs:
                rows.append({"ingredient": label, "response": a, "versus_response": b})
                values.append(at(a, label) - at(b, label))
    elif across == "ingredients":
        for response in read.labels_of(effect, RESPONSE):
            for a, b in ingredient_pairs:
                rows.append({"response": response, "ingredient": a, "versus_ingredient": b})
                values.append(at(response, a) - at(response, b))
    else:
        for j, k in ingredient_pairs:
            for a, b in outcome_pairs:
                rows.append({"ingredient": j, "versus_ingredient": k, "response": a, "versus_response": b})
                values.append(at(a, j) - at(b, j) - at(a, k) + at(b, k))
    draws = xr.concat(values, dim="pair")
    low, high = interval(draws, ci_prob)
    low_name, high_name = interval_names(ci_prob)
    table = pd.DataFrame(rows)
    table["mean"] = draws.mean(SAMPLE_DIMS).values
    table["sd"] = draws.std(SAMPLE_DIMS, ddof=1).values
    table[low_name], table[high_name] = low.values, high.values
    table["p_above_zero"] = (draws > 0.0).mean(SAMPLE_DIMS).values
    return table


def _refuse_pooling(tree: xr.DataTree, chosen: Sequence[str]) -> None:
    if len(chosen) < 2:
        raise SpecError("pool=True pools over outcomes, and there is one. Give several, or pool=False.")
    if read.json_attr(tree, names.ATTR_SPEC).get("pooled"):
        raise SpecError("pool=True pools a fit in a second stage, but this fit pools already. Leave pool out.")
    residual = read.json_attr(tree, names.ATTR_SPEC).get("residual", "iid")
    if residual != "unstructured":
        raise SpecError(
            f"pool=True needs residuals that correlate over outcomes, found residual={residual!r}: scores of one "
            f"patient would count "
            "as independent evidence, and the pooled intervals would be too narrow. Fit outcomes(..., "
            "residual='unstructured')."
        )


def _responses(tree: xr.DataTree, responses: Sequence[str] | None) -> tuple[str, ...]:
    if responses is None:
        return read.responses_of(tree)
    if isinstance(responses, str):
        raise SpecError(
            f"responses: expected a sequence of names, found {responses!r}. Write responses=[{responses!r}]."
        )
    return tuple(read.one_response(tree, response) for response in responses)


def _signs(
    higher_is_better: bool | Mapping[str, bool], chosen: Sequence[str], known: Sequence[str]
) -> dict[str, float]:
    if isinstance(higher_is_better, Mapping):
        for name in higher_is_better:
            if name not in known:
                raise SpecError(f"higher_is_better names {name!r}; the model's responses: {shown_ids(known)}.")
        return {name: 1.0 if higher_is_better.get(name, True) else -1.0 for name in chosen}
    return dict.fromkeys(chosen, 1.0 if higher_is_better else -1.0)


def _ingredients(tree: xr.DataTree, chosen: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return labels without the response that every chosen response has."""
    several = len(read.responses_of(tree)) > 1
    data = read.constants(tree)
    levels: tuple[Level, ...] = tuple(
        level for level in names.LEVELS if names.group_of_obs(level) in data and not read.is_shared(tree, level)
    )
    shared: dict[str, str] | None = None
    for response in chosen:
        cut = len(response_label(response, "")) if several else 0
        own = {label[cut:]: source for label, source in sources_of_terms(tree, response, levels).items()}
        shared = own if shared is None else {label: source for label, source in shared.items() if label in own}
    known = shared or {}
    if wanted is None:
        found = tuple(label for label, source in known.items() if source in _CONTRASTED)
        if not found:
            raise SpecError(
                "The responses share no technique or common factor. Name the terms to compare with ingredients=..."
            )
        return found
    if isinstance(wanted, str):
        raise SpecError(
            f"ingredients: expected a sequence of labels, found {wanted!r}. Write ingredients=[{wanted!r}]."
        )
    for label in wanted:
        if label not in known:
            raise SpecError(f"ingredients: {label!r} is not a term of every response; those are: {', '.join(known)}.")
    return tuple(wanted)
