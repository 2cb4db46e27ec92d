"""Paths read from the covariances of a multivariate model: slopes of latent means at each level."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.posterior import tree as read
from psymech.posterior.mediation_paths import Path, PathLevel, of_covariances
from psymech.spec.model import response_label

Floats = NDArray[np.float64]
PathMap = dict[tuple[PathLevel, str, str], Path]


def residual_covariance(tree: xr.DataTree) -> Floats:
    """Return the residual covariance across responses, (chain, draw, R, R)."""
    draws = read.posterior(tree)
    sd = draws[names.SIGMA].transpose(*names.SAMPLE_DIMS, names.RESPONSE).values
    aux = names.RESPONSE + names.AUX
    corr = draws[names.RESIDUAL_CORR].transpose(*names.SAMPLE_DIMS, names.RESPONSE, aux).values
    return corr * sd[..., :, None] * sd[..., None, :]


def level_covariances(tree: xr.DataTree) -> dict[PathLevel, tuple[tuple[str, ...], Floats]]:
    """Return for each level the responses that vary there and the covariance (chain, draw, q, q) of their latent means;
    within patients that of their residuals, where the model leaves the paths to it.
    """
    responses = read.responses_of(tree)
    out: dict[PathLevel, tuple[tuple[str, ...], Floats]] = {}
    if of_covariances(tree):
        out["within"] = (responses, residual_covariance(tree))
    intercepts = {response_label(r, names.INTERCEPT): r for r in responses}
    for level in read.levels_of(tree):
        if level == "clinic":
            continue
        labels = read.labels_of(read.posterior(tree), names.term_dim(level))
        held = [index for index, label in enumerate(labels) if label in intercepts]
        S = read.covariance(tree, level)[..., held, :][..., :, held]
        out[level] = (tuple(intercepts[labels[index]] for index in held), S)
    return out


def latent_paths(
    tree: xr.DataTree,
    treatments: Sequence[str],
    mediators: Sequence[str],
    outcomes: Sequence[str],
    *,
    serial: bool,
    own: PathMap,
) -> PathMap:
    r"""Return the paths that a model with latent means leaves to covariances.

    With S the covariance at a level (residuals within patients; latent means of patients; of therapists), the equation
    of a variable y with predictors p has the paths

    .. math:: \beta = S_{pp}^{-1} S_{py}

    (Preacher, Zyphur & Zhang 2010, doi:10.1037/a0020141). Paths that are terms of the model come in `own`: those within
    patients where they vary, are lagged or moderated, and those to an outcome with one value a unit. A treatment that
    is a trait predicts with fixed effects :math:`\Pi`; given it, the paths of the mediators are those of S or `own`,
    and its direct path is :math:`\Pi_y - \beta_m' \Pi_m`.
    """
    observed = _trait_effects(tree, treatments)
    responses = read.responses_of(tree)
    as_response = tuple(x for x in treatments if x in responses)
    traits = tuple(x for x in treatments if x not in responses)
    out: PathMap = {}
    for level, (labels, S) in level_covariances(tree).items():
        for target in (*mediators, *outcomes):
            before = mediators[: mediators.index(target)] if target in mediators else mediators
            middle = tuple(before) if serial or target in outcomes else ()
            predictors = (*as_response, *middle)
            if target in labels and all(p in labels for p in predictors):
                values = _slopes(S, [labels.index(p) for p in predictors], labels.index(target))
                slopes = {p: values[..., index] for index, p in enumerate(predictors)}
                for source, draws in slopes.items():
                    letter = _letter(source, target, treatments, mediators)
                    out[level, source, target] = Path(source, target, letter, level, draws)
            elif all((level, p, target) in own for p in predictors):
                slopes = {p: own[level, p, target].draws for p in predictors}
            else:
                continue
            for x in traits:
                effect = observed.get((level, x, target))
                if effect is None:
                    continue
                through = [slopes[m] * observed[level, x, m] for m in middle]
                out[level, x, target] = Path(
                    x, target, _letter(x, target, treatments, mediators), level, effect - np.sum(through, axis=0)
                )
    return out


def residual_sds(tree: xr.DataTree) -> dict[str, Floats]:
    r"""Return each response's residual SD (chain, draw) given its predictors: where residuals of one session share a
    covariance, written as a regression of the later one on the earlier, what that explains counts as residual.

    With :math:`e = \Delta e + \varepsilon` the covariance is :math:`(I - \Delta)^{-1} D (I - \Delta)^{-T}`.
    """
    responses = read.responses_of(tree)
    beta = read.posterior(tree)[names.BETA].transpose(*names.SAMPLE_DIMS, names.TERM)
    labels = read.labels_of(beta, names.TERM)
    shape = beta.shape[:2]
    delta = np.zeros((*shape, len(responses), len(responses)))
    for info in read.terms_of(tree):
        if info.role == "residual" and info.response is not None:
            i, j = responses.index(info.response), responses.index(info.column)
            delta[..., i, j] = beta.values[..., labels.index(info.label)]
    root = np.linalg.inv(np.eye(len(responses)) - delta)
    sigma = np.stack([read.residual_sd(tree, r).values for r in responses], axis=-1)
    variance = np.einsum("...ij,...j->...i", root**2, sigma**2)
    return {r: np.sqrt(variance[..., i]) for i, r in enumerate(responses)}


def _slopes(S: Floats, predictors: list[int], target: int) -> Floats:
    if not predictors:
        return np.zeros((*S.shape[:2], 0))
    inner = S[..., predictors, :][..., :, predictors]
    return np.linalg.solve(inner, S[..., predictors, target][..., None])[..., 0]


def _letter(source: str, target: str, treatments: Sequence[str], mediators: Sequence[str]) -> str:
    if source in treatments:
        return "a" if target in mediators else "c"
    return "d" if target in mediators else "b"


def _trait_effects(tree: xr.DataTree, treatments: Sequence[str]) -> Mapping[tuple[str, str, str], Floats]:
    """Fixed effects of treatments that are traits, by level, treatment and response."""
    beta = read.posterior(tree)[names.BETA].transpose(*names.SAMPLE_DIMS, names.TERM)
    labels = read.labels_of(beta, names.TERM)
    return {
        (info.part, info.column, info.response): beta.values[..., labels.index(info.label)]
        for info in read.terms_of(tree)
        if info.column in treatments and info.role == "technique" and info.response is not None
    }
