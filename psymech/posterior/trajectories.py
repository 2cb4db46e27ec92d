"""Expected course of the outcome over time: the average therapist's, and each therapist's."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import xarray as xr

from psymech import names
from psymech.errors import DataError
from psymech.names import CHAIN, DRAW, SAMPLE_DIMS, TERM
from psymech.posterior import tree as read
from psymech.spec.model import THERAPIST

GRID_POINTS: Final = 40  # where time is continuous
DISTINCT_TIMES: Final = 60  # more distinct times than this count as continuous
DRAWS_OF_UNITS: Final = 200  # thinned draws for units' lines through a link function


def expected_trajectories(tree: xr.DataTree, *, response: str | None = None, level: str = "therapist") -> xr.Dataset:
    r"""Expected outcome over time, of the average unit with its draws and of each unit of a level at its posterior
    mean.

    .. math:: E[y(t)] = g^{-1}(x(t)'\beta), \qquad E[y_k(t)] = g^{-1}(x(t)'\beta + z(t)'v_k)

    Columns of time take their values at t; every other column is held at its mean over the observed rows; products with
    time are the product of both. Random effects of other levels are zero, so for binary and ordinal outcomes the
    curves are those of a typical patient, not averages over patients. Where only some patients have a therapist
    (``therapist_in=``), courses of therapists and their average are those of these patients.

    Parameters
    ----------
    tree : DataTree
        A fitted tree.
    response : str, optional
        Needed with several responses.
    level : {"therapist", "patient", "clinic"}

    Returns
    -------
    Dataset
        ``mean`` (chain, draw, time) and, where the level has random effects, ``unit`` (level, time), NaN outside
        the unit's observed times. Outcome units; probability for binary outcomes, expected category for ordinal ones.

    Examples
    --------
    >>> import psymech as psm
    >>> expected = psm.expected_trajectories(course)["mean"].mean(("chain", "draw"))
    >>> bool(expected[-1] < expected[0])
    True
    """
    chosen = read.one_response(tree, response)
    rows = np.intersect1d(read.rows_of_response(tree, chosen), read.rows_at_risk(tree, level))
    whose = " of patients who have a therapist" if level == THERAPIST and read.partially_nested(tree, level) else ""
    time = read.constants(tree)[names.TIME_OF_OBS].values[rows].astype(float)
    distinct = np.unique(time)
    if not np.isfinite(distinct).all() or distinct.size == 0:
        raise DataError(
            f"expected finite times in {names.TIME_OF_OBS!r}, found {distinct.size} with NaN or infinite values."
        )
    grid = distinct if distinct.size <= DISTINCT_TIMES else np.linspace(distinct[0], distinct[-1], GRID_POINTS)
    columns = columns_at(tree, rows, time, grid)
    draws = read.posterior(tree)
    labels = read.labels_of(draws, TERM)
    x = np.stack([columns[label] for label in labels], axis=1)
    beta = draws[names.BETA].transpose(*SAMPLE_DIMS, TERM).values
    linear = np.einsum("cdp,tp->cdt", beta, x, optimize=True)
    result = xr.Dataset(
        {"mean": ((CHAIN, DRAW, "time"), inverse_link(tree, chosen, linear))},
        coords={CHAIN: draws[CHAIN].values, DRAW: draws[DRAW].values, "time": grid},
        attrs={"response": chosen, "held_at": f"other columns at their mean over the observed rows{whose}"},
    )
    if level not in read.levels_of(tree):
        return result
    lines = _unit_lines(tree, level, columns, linear, chosen, rows)
    code, weight = (each[rows] for each in read.shares_of_obs(tree, level))
    row, member = np.nonzero(weight > 0)
    first, last = (op(lines.shape[0], code[row, member], time[row]) for op in (_minimum, _maximum))
    lines = np.where((grid >= first[:, None]) & (grid <= last[:, None]), lines, np.nan)
    return result.assign(unit=((level, "time"), lines)).assign_coords({level: draws[level].values})


def _minimum(n: int, units: np.ndarray, values: np.ndarray) -> np.ndarray:
    out = np.full(n, np.inf)
    np.minimum.at(out, units, values)
    return out


def _maximum(n: int, units: np.ndarray, values: np.ndarray) -> np.ndarray:
    return -_minimum(n, units, -values)


def columns_at(tree: xr.DataTree, rows: np.ndarray, time: np.ndarray, grid: np.ndarray) -> dict[str, np.ndarray]:
    """Return each fixed-effect column's value on the time grid, all else at its mean over the rows."""
    data = read.constants(tree)[names.DESIGN_X].transpose(names.OBS, TERM)
    x = dict(zip(read.labels_of(data, TERM), data.values[rows].astype(float).T, strict=True))
    infos = {info.label: info for info in read.terms_of(tree)}
    moving = {label for label, info in infos.items() if info.role == "time"}
    alone = {info.factors[0]: label for label, info in infos.items() if len(info.factors) == 1 and label in x}
    values: dict[str, np.ndarray] = {}
    for label, column in x.items():
        values[label] = _over_time(time, column, grid) if label in moving else np.full(grid.size, column.mean())
    for label, info in infos.items():
        parts = [alone.get(key) for key in info.factors]
        if len(parts) < 2 or label not in x or not moving & set(parts):
            continue
        known = [part for part in parts if part is not None]
        if len(known) == len(parts) and np.allclose(np.prod([x[part] for part in known], axis=0), x[label]):
            values[label] = np.prod([values[part] for part in known], axis=0)
        else:
            values[label] = _over_time(time, x[label], grid)
    return values


def _over_time(time: np.ndarray, column: np.ndarray, grid: np.ndarray) -> np.ndarray:
    distinct, which = np.unique(time, return_inverse=True)
    means = np.bincount(which, weights=column) / np.bincount(which)
    return np.interp(grid, distinct, means)


def _unit_lines(
    tree: xr.DataTree,
    level: str,
    columns: Mapping[str, np.ndarray],
    linear: np.ndarray,
    response: str,
    rows: np.ndarray,
) -> np.ndarray:
    draws = read.posterior(tree)
    labels = read.labels_of(draws, names.term_dim(level))
    held = read.design_rows(tree, level, rows).mean(axis=0)
    z = np.stack([columns.get(label, np.full(linear.shape[-1], held[i])) for i, label in enumerate(labels)], axis=1)
    effects = read.level_effects(tree, level).values
    if read.family_of(tree, response) in read.IDENTITY_LINK:
        return linear.mean(axis=(0, 1)) + effects.mean(axis=(0, 1)) @ z.T
    step = max(1, linear.shape[0] * linear.shape[1] // DRAWS_OF_UNITS)
    flat = effects.reshape(-1, *effects.shape[2:])[::step]
    thinned = linear.reshape(-1, linear.shape[-1])[::step]
    lines = thinned[:, None, :] + np.einsum("skq,tq->skt", flat, z, optimize=True)
    return inverse_link(tree, response, lines, step=step).mean(axis=0)


def inverse_link(tree: xr.DataTree, response: str, linear: np.ndarray, *, step: int | None = None) -> np.ndarray:
    """Return the expected outcome of a linear predictor whose leading axes are chain and draw (thinned: one axis,
    `step`).
    """
    from scipy.special import expit

    family = read.family_of(tree, response)
    if family == "bernoulli":
        return expit(linear)
    if family != "ordinal":
        return linear
    cut = read.posterior(tree)[names.CUTPOINTS].transpose(*SAMPLE_DIMS, names.THRESHOLD).values
    cut = cut if step is None else cut.reshape(-1, cut.shape[-1])[::step]
    lead = 2 if step is None else 1
    values = read.categories_of(tree, response)
    shape = (*cut.shape[:lead], *(1,) * (linear.ndim - lead))
    steps = np.diff(values)
    above = sum(step * expit(linear - cut[..., j].reshape(shape)) for j, step in enumerate(steps))
    return values[0] + np.asarray(above)
