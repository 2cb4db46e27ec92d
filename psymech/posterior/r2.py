"""Explained variance: the parts of Rights and Sterba."""

from typing import cast

import numpy as np
import xarray as xr

from psymech import names
from psymech.errors import SpecError
from psymech.names import CHAIN, DRAW, LEVELS, SAMPLE_DIMS, TERM, Level
from psymech.posterior import tree as read
from psymech.posterior.variance import RESIDUAL, residual_variance


def r2(tree: xr.DataTree, *, response: str | None = None) -> xr.Dataset:
    r"""Parts of the outcome's variance by source, per draw (Rights and Sterba, for two to four levels).

    The fixed part :math:`x'\beta` is split into its deviations within patients, of patients within therapists, of
    therapists (within clinics) and of clinics, each with its variance over the rows. A level's random terms contribute
    :math:`\mathrm{tr}(\Omega\, \overline{zz'})`, split into slopes :math:`\mathrm{tr}(\Omega\, S_z)` and means
    :math:`\bar z'\Omega\,\bar z`, which is the intercept variance where the slopes' columns have mean zero.

    .. math:: 1 = (f_W + f_P + f_T + \textstyle\sum_l v_l + \sum_l m_l + \sigma^2) / \text{total}

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    response : str, optional
        Needed with several responses.

    Returns
    -------
    Dataset
        Dims (chain, draw, source); ``total`` sums to one over all sources, ``within`` is over the sources within
        patients (``fixed.within``, ``slopes.*``, ``residual``), ``between`` over the rest. A source that is no
        part of a denominator is NaN there. ``variance`` holds the variances. Binary and ordinal outcomes: latent
        logistic scale, named in the attributes.

    Notes
    -----
    ``within`` and ``between`` are clean partitions where predictors with random slopes are centred within
    patients, as in decomposed models; random slopes of other columns are counted as within. A response with one value a
    patient has no part within patients: ``within`` is NaN, and its residual lies between patients.

    References
    ----------
    Rights & Sterba (2019), Quantifying explained variance in multilevel models, Psychological Methods 24, 309-338.
    https://doi.org/10.1037/met0000184

    Examples
    --------
    >>> import psymech as psm
    >>> bool((abs(psm.r2(tree)["total"].sum("source") - 1) < 1e-9).all())
    True
    """
    chosen = read.one_response(tree, response)
    rows = read.rows_of_response(tree, chosen)
    own = read.level_of_response(tree, chosen)
    parts = {f"fixed.{part}": values for part, values in _fixed_parts(tree, rows, own).items()}
    for level in read.levels_of(tree):
        z = read.design_rows(tree, level, rows)
        if not z.any():
            continue
        omega = read.covariance(tree, level)
        mean = z.mean(axis=0)
        spread = (z - mean).T @ (z - mean) / len(z)
        parts[f"slopes.{level}"] = np.einsum("cdij,ij->cd", omega, spread)
        parts[f"means.{level}"] = np.einsum("cdij,i,j->cd", omega, mean, mean)
    parts[RESIDUAL], scale = residual_variance(tree, chosen)
    sources = list(parts)
    variance = np.stack(list(parts.values()), axis=-1)
    lowest = own == "session"
    is_within = np.array([lowest and (s in ("fixed.within", RESIDUAL) or s.startswith("slopes.")) for s in sources])
    draws = read.posterior(tree)
    coords = {CHAIN: draws[CHAIN].values, DRAW: draws[DRAW].values, "source": sources}
    dims = (*SAMPLE_DIMS, "source")
    everything = np.ones(len(sources), dtype=bool)
    shares = {"total": everything, "within": is_within, "between": ~is_within}
    return xr.Dataset(
        {"variance": (dims, variance)} | {name: (dims, _share(variance, part)) for name, part in shares.items()},
        coords=coords,
        attrs={"response": chosen, "scale": scale},
    )


def _share(variance: np.ndarray, part: np.ndarray) -> np.ndarray:
    total = variance[..., part].sum(axis=-1, keepdims=True)
    share = np.full_like(variance, np.nan)
    np.divide(variance, total, out=share, where=part & (total > 0))
    return share


def _fixed_parts(tree: xr.DataTree, rows: np.ndarray, own: str) -> dict[str, np.ndarray]:
    """Return the variance of the fixed part within patients and at each level the data name, shape (chain, draw)
    each; of a response with one value a unit of the level `own`, at that level and those above.
    """
    data = read.constants(tree)
    x = data[names.DESIGN_X].transpose(names.OBS, TERM).values[rows].astype(float)
    beta = read.posterior(tree)[names.BETA].transpose(*SAMPLE_DIMS, TERM).values
    above = LEVELS if own == "session" else LEVELS[LEVELS.index(cast(Level, own)) + 1 :]
    levels = [level for level in above if names.group_of_obs(level) in data]
    if not levels and own == "session":
        raise SpecError("the tree's constant_data names no grouping level, so the fixed part cannot be split.")
    parts: dict[str, np.ndarray] = {}
    below, name = x, "within" if own == "session" else own
    for level in levels:
        means = _unit_means(below, read.unit_of_obs(tree, level)[rows])
        parts[name] = _quadratic(beta, below - means)
        below, name = means, level
    parts[name] = _quadratic(beta, below - below.mean(axis=0))
    return parts


def _unit_means(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    n = np.maximum(np.bincount(units), 1)
    sums = np.stack([np.bincount(units, weights=column) for column in values.T], axis=1)
    return (sums / n[:, None])[units]


def _quadratic(beta: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    return np.einsum("cdi,ij,cdj->cd", beta, deviations.T @ deviations / len(deviations), beta, optimize=True)
