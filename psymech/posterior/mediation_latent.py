"""Paths read from the covariances of a multivariate model: slopes of latent means at each level."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from psymech import names
from psymech.posterior import tree as read
from psymech.posterior.mediation_paths import Path, PathLevel
from psymech.spec.model import response_label

Floats = NDArray[np.float64]


def residual_covariance(tree: xr.DataTree) -> Floats:
    """Return the residual covariance across responses, (chain, draw, R, R)."""
    draws = read.posterior(tree)
    sd = draws[names.SIGMA].transpose(*names.SAMPLE_DIMS, names.RESPONSE).values
    aux = names.RESPONSE + names.AUX
    corr = draws[names.RESIDUAL_CORR].transpose(*names.SAMPLE_DIMS, names.RESPONSE, aux).values
    return corr * sd[..., :, None] * sd[..., None, :]


def level_covariances(tree: xr.DataTree) -> dict[PathLevel, tuple[tuple[str, ...], Floats]]:
    """Return for each level the responses that vary there and their covariance (chain, draw, q, q)."""
    responses = read.responses_of(tree)
    out: dict[PathLevel, tuple[tuple[str, ...], Floats]] = {"within": (responses, residual_covariance(tree))}
    intercepts = {response_label(r, names.INTERCEPT): r for r in responses}
    for level in read.levels_of(tree):
        if level == "clinic":
            continue
        labels = read.labels_of(read.posterior(tree), names.term_dim(level))
        out[level] = (tuple(intercepts[label] for label in labels), read.covariance(tree, level))
    return out


def latent_paths(
    tree: xr.DataTree,
    treatments: Sequence[str],
    mediators: Sequence[str],
    outcomes: Sequence[str],
    *,
    serial: bool,
) -> dict[tuple[PathLevel, str, str], Path]:
    r"""Return the paths of each level of a multivariate model.

    With S the covariance at a level (residuals within patients; latent means of patients; of therapists), the equation
    of a variable y with predictors p has the paths

    .. math:: \beta = S_{pp}^{-1} S_{py}

    (Preacher, Zyphur & Zhang 2010, doi:10.1037/a0020141). A treatment that is a trait predicts with fixed effects
    :math:`\Pi`; given it, the paths of the mediators are those of S, and its direct path is
    :math:`\Pi_y - \beta_m' \Pi_m`.
    """
    observed = _trait_effects(tree, treatments)
    responses = read.responses_of(tree)
    as_response = tuple(x for x in treatments if x in responses)
    traits = tuple(x for x in treatments if x not in responses)
    out: dict[tuple[PathLevel, str, str], Path] = {}
    for level, (labels, S) in level_covariances(tree).items():
        for target in (*mediators, *outcomes):
            if target not in labels:
                continue
            before = mediators[: mediators.index(target)] if target in mediators else mediators
            middle = tuple(before) if serial or target in outcomes else ()
            if any(p not in labels for p in (*as_response, *middle)):
                continue
            predictors = (*as_response, *middle)
            slopes = _slopes(S, [labels.index(p) for p in predictors], labels.index(target))
            for index, source in enumerate(predictors):
                out[level, source, target] = Path(
                    source, target, _letter(source, target, treatments, mediators), level, slopes[..., index]
                )
            for x in traits:
                effect = observed.get((level, x, target))
                if effect is None:
                    continue
                through = [slopes[..., predictors.index(m)] * observed[level, x, m] for m in middle]
                out[level, x, target] = Path(
                    x, target, _letter(x, target, treatments, mediators), level, effect - np.sum(through, axis=0)
                )
    return out


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
