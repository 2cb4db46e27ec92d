"""R-hat and effective sample size of a variable's entries, by ArviZ; the suspicious ones only where there are many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr

from psymech.names import AUX, CHAIN, DRAW, SAMPLE_DIMS

EXAMINED: Final = 60  # entries examined in full by each of the two screens; a variable with twice as many is screened
CHUNK: Final = 500  # entries held in memory at a time while screening


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a variable with its diagnostics."""

    label: str
    rhat: float
    ess_bulk: float
    ess_tail: float


def structural(variable: xr.DataArray, draws: xr.Dataset) -> np.ndarray:
    """Return which entries are constant by construction, over the variable's dims but chain and draw, flattened.

    They are the diagonal of a correlation matrix, whose lower triangle repeats the upper one, and correlations that are
    zero in every draw (blocks that are not correlated).
    """
    dims = [dim for dim in variable.dims if dim not in SAMPLE_DIMS]
    shape = tuple(variable.sizes[dim] for dim in dims)
    if not (len(dims) == 2 and str(dims[1]) == f"{dims[0]}{AUX}" and shape[0] == shape[1]):
        return np.zeros(int(np.prod(shape)), dtype=bool)
    values = variable.transpose(*SAMPLE_DIMS, *dims).values
    return (np.tril(np.ones(shape, dtype=bool)) | (values == 0.0).all(axis=(0, 1))).ravel()


def selected(variable: xr.DataArray, leave_out: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the entries that vary, shape (chain, draw, entries), and the label of each: ``[T01, Intercept]``."""
    dims = [dim for dim in variable.dims if dim not in SAMPLE_DIMS]
    values = np.asarray(variable.transpose(*SAMPLE_DIMS, *dims).values, dtype=float)
    values = values.reshape(*values.shape[:2], -1)
    names = [[str(label) for label in variable[dim].values.tolist()] for dim in dims]
    shape = tuple(variable.sizes[dim] for dim in dims)
    keep = np.flatnonzero(~leave_out)
    labels = (
        [_label([axis[i] for axis, i in zip(names, np.unravel_index(k, shape), strict=True)]) for k in keep]
        if dims
        else [""]
    )
    return (values[..., keep] if leave_out.any() else values), labels


def _label(parts: Sequence[str]) -> str:
    return f"[{', '.join(parts)}]"


def diagnose(draws: xr.Dataset, name: str) -> tuple[list[Entry], int]:
    """Return the diagnostics of a variable's entries, all or those that a cheap screen suspects, and their number."""
    from arviz_stats.sampling_diagnostics import ess, rhat

    values, labels = selected(draws[name], structural(draws[name], draws))
    if values.shape[-1] == 0:
        return [], 0
    n_entries = values.shape[-1]
    if n_entries > 2 * EXAMINED:
        worst = screen(values)
        values, labels = values[..., worst], [labels[i] for i in worst]
    array = xr.DataArray(values, dims=(CHAIN, DRAW, "entry"), name=name)
    dims = list(SAMPLE_DIMS)
    figures = np.stack(
        [
            rhat(array, sample_dims=dims).values,
            ess(array, sample_dims=dims, method="bulk").values,
            ess(array, sample_dims=dims, method="tail").values,
        ],
        axis=1,
    )
    return [Entry(f"{name}{label}", *row) for label, row in zip(labels, figures.tolist(), strict=True)], n_entries


def screen(values: np.ndarray) -> np.ndarray:
    """Return the entries with the largest plain split R-hat and with the largest lag-one autocorrelation."""
    starts = range(0, values.shape[-1], CHUNK)
    figures = np.concatenate([_cheap(values[..., start : start + CHUNK]) for start in starts], axis=1)
    return np.unique(np.argsort(figures, axis=1)[:, -EXAMINED:])


def _cheap(values: np.ndarray) -> np.ndarray:
    n = values.shape[1] // 2
    halves = np.concatenate([values[:, :n], values[:, -n:]], axis=0)
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    between = halves.mean(axis=1).var(axis=0, ddof=1)
    centred = values - values.mean(axis=1, keepdims=True)
    lagged = (centred[:, 1:] * centred[:, :-1]).sum(axis=(0, 1))
    tiny = np.finfo(float).tiny
    return np.stack([between / np.maximum(within, tiny), lagged / np.maximum((centred**2).sum(axis=(0, 1)), tiny)])
