r"""Variance shares of binary and ordinal outcomes on the scale of the outcome itself.

For one row the random part of each level is one normal number with variance :math:`z' \Omega_l z`, so that the
variances of the expected outcome are integrals in as many dimensions as there are levels.
"""

from itertools import pairwise
from typing import Final

import numpy as np
import xarray as xr
from scipy.special import expit

from psymech import names
from psymech.names import SAMPLE_DIMS, TERM, Level
from psymech.posterior import tree as read

NODES: Final = 20  # per level: shares are exact to 1e-4 for SDs up to 3 on the logit scale, against 80 nodes
ROWS: Final = 40  # rows averaged over, other ones in each draw
GOLDEN: Final = 0.6180339887498949  # multiples of it, modulo one, fill the unit interval evenly
BINS: Final = 8  # of rows by their random part's variance, within which they are ordered by their fixed part
CHUNK: Final = 2_000_000  # numbers held at once


def response_scale_variances(tree: xr.DataTree, *, response: str) -> tuple[dict[Level, np.ndarray], np.ndarray]:
    r"""Return the variance of the outcome by level and its residual variance, each of shape (chain, draw).

    For a row with fixed part :math:`\mu` and effects :math:`a_l \sim N(0, z'\Omega_l z)`, top level first,

    .. math:: \mathrm{Var}(y) = \sum_l E\big[\mathrm{Var}\big(E[y \mid a_{\ge l}] \mid a_{>l}\big)\big]
              + E[\mathrm{Var}(y \mid a)]

    by Gauss-Hermite quadrature, averaged over rows. Binary outcomes: :math:`\mathrm{Var}(y \mid a) = p (1 - p)`;
    ordinal outcomes count with their categories' values. Where there are many rows each draw takes 40 of them, one from
    every fortieth of the rows ordered by fixed and random part, and over the draws all in turn: means over draws are
    those over all rows, and single draws hold a little noise.

    References
    ----------
    Goldstein, Browne & Rasbash (2002), Understanding Statistics 1, 223-231, whose method B simulates these integrals.
    https://doi.org/10.1207/S15328031US0104_02
    """
    draws = read.posterior(tree)
    rows = read.rows_of_response(tree, response)
    x = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, TERM).values[rows].astype(float)
    beta = draws[names.BETA].transpose(*SAMPLE_DIMS, TERM).values
    flat = beta.reshape(-1, beta.shape[-1])
    above = read.levels_of(tree)[::-1]  # top first
    levels: list[Level] = [level for level in above if read.design_rows(tree, level, rows).any()]
    z = {level: read.design_rows(tree, level, rows) for level in levels}
    share = {level: read.effective_share(tree, level, rows) for level in levels}
    omega = {level: read.covariance(tree, level).reshape(len(flat), z[level].shape[1], -1) for level in levels}
    average = [np.einsum("ij,ni,nj->n", omega[lv].mean(axis=0), z[lv], z[lv]) * share[lv] for lv in levels]
    chosen = _rows_by_draw(x @ flat.mean(axis=0), np.sum(average, axis=0), len(flat))
    mean = np.einsum("sp,snp->sn", flat, x[chosen]).ravel()  # (samples * rows)
    sds = []
    for level in levels:
        own = z[level][chosen]
        variance = np.einsum("sij,sni,snj->sn", omega[level], own, own, optimize=True) * share[level][chosen]
        sds.append(np.sqrt(np.maximum(variance, 0.0)).ravel())
    cut = _cutpoints(tree, response, chosen.shape[1])
    values = read.categories_of(tree, response) if cut is not None else np.array([0.0, 1.0])
    chunk = max(1, CHUNK // NODES ** len(levels))
    parts = [
        _integrals(
            mean[start : start + chunk],
            [sd[start : start + chunk] for sd in sds],
            None if cut is None else cut[start : start + chunk],
            values,
        )
        for start in range(0, mean.size, chunk)
    ]
    every = np.concatenate(parts, axis=1).reshape(len(levels) + 1, *beta.shape[:2], chosen.shape[1]).mean(axis=-1)
    return dict(zip(levels, every[:-1], strict=True)), every[-1]


def _rows_by_draw(fixed: np.ndarray, variance: np.ndarray, n_draws: int) -> np.ndarray:
    """Return the rows of each draw, (draws, rows): all where they are few, else one of each fortieth of the rows in an
    order in which neighbours are alike, further on by a fraction from draw to draw.
    """
    n = fixed.size
    if n <= ROWS:
        return np.broadcast_to(np.arange(n), (n_draws, n))
    differs = np.ptp(variance) > 1e-9 * variance.max(initial=0.0)
    place = np.argsort(np.argsort(variance, kind="stable")) if differs else np.zeros(n, dtype=np.int64)
    bins = place * BINS // n
    order = np.lexsort((np.where(bins % 2, -fixed, fixed), bins))
    offset = np.arange(1, n_draws + 1) * GOLDEN % 1.0
    return order[((np.arange(ROWS) + offset[:, None]) * n / ROWS).astype(np.int64)]


def _cutpoints(tree: xr.DataTree, response: str, n_rows: int) -> np.ndarray | None:
    if read.family_of(tree, response) != "ordinal":
        return None
    cut = read.posterior(tree)[names.CUTPOINTS].transpose(*SAMPLE_DIMS, names.THRESHOLD).values
    return np.repeat(cut.reshape(-1, cut.shape[-1]), n_rows, axis=0)


def _integrals(mean: np.ndarray, sds: list[np.ndarray], cut: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    """Return the variance at each level, top first, and the residual variance, shape (levels + 1, points)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    n = len(sds)
    eta = mean.reshape(-1, *(1,) * n)
    for position, sd in enumerate(sds):
        shape = [1] * (n + 1)
        shape[position + 1] = NODES
        eta = eta + sd.reshape(-1, *(1,) * n) * nodes.reshape(shape)
    expected, square = _moments(eta, cut, values)
    residual = square - expected**2
    for _ in range(n):
        residual = residual @ weights
    variances = []
    for _ in range(n):  # lowest level first: the last axis
        inner = expected @ weights
        spread = (expected**2) @ weights - inner**2
        for _ in range(spread.ndim - 1):
            spread = spread @ weights
        variances.append(spread)
        expected = inner
    return np.stack([*variances[::-1], residual])


def _moments(eta: np.ndarray, cut: np.ndarray | None, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return E[y] and E[y^2] given the linear predictor."""
    if cut is None:
        p = expit(eta)
        return p, p
    expected = np.full(eta.shape, values[0])
    square = np.full(eta.shape, values[0] ** 2)
    for j, (low, high) in enumerate(pairwise(values)):
        above = expit(eta - cut[:, j].reshape(-1, *(1,) * (eta.ndim - 1)))
        expected += (high - low) * above
        square += (high**2 - low**2) * above
    return expected, square
