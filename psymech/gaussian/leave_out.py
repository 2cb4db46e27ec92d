r"""Exact predictive density of a unit given all others, at fixed variance parameters.

    log p(y_k | y_-k, theta) = log p(y | theta) - log p(y_-k | theta)

A unit's data enter through one term of a sum, so the likelihood without it needs only the eliminations above it to
be done again.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from psymech.errors import SpecError
from psymech.gaussian.conditional import chunks
from psymech.gaussian.cross import CrossProducts, FloatArray
from psymech.gaussian.eliminate import forward, sum_by_parent
from psymech.gaussian.loglik import LOG_2PI, Prior, run_forward, select_top, solve_top


def leave_out(
    cross: CrossProducts,
    coefs: ArrayLike,
    factors: Sequence[ArrayLike],
    log_det_R: ArrayLike,
    *,
    level: int,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
) -> FloatArray:
    """Return ``log p(y_k | y_-k, theta)`` for every unit ``k`` of a level, ``(..., n_units)``.

    Parameters
    ----------
    cross
        Cross-products of the data.
    coefs, factors
        As in `psymech.gaussian.loglik`; both may have the same leading axes of draws.
    log_det_R
        ``(..., n_units of the lowest level)``: ``log|R_i|`` of each lowest-level unit, from ``log_det_by_unit`` of
        the residual structure.
    level
        Which units are left out: 0 the lowest level (patients), 1 the next (therapists), and so on.
    beta, prior
        Fixed effects, known or integrated out under a normal prior given all other units' data. Exactly one.

    Notes
    -----
    Random effects of the left-out unit are integrated out, those above it are updated by the other units' data.

    Examples
    --------
    >>> from psymech.gaussian.cross import cross_products
    >>> cross = cross_products([[1.0], [1.0]], [0.0, 0.0], [0, 1], parents=[], z=[[0]], x=[0])
    >>> leave_out(cross, [1.0], [[[0.0]]], [0.0, 0.0], level=0, beta=[0.0]).round(4)
    array([-0.9189, -0.9189])
    """
    if not 0 <= level < cross.n_levels:
        raise SpecError(f"Expected a level from 0 to {cross.n_levels - 1}, found {level}.")
    log_det_by_unit = np.asarray(log_det_R, dtype=np.float64)
    if log_det_by_unit.shape[-1] != cross.sizes[0]:
        raise SpecError(
            f"Expected log|R| for each of {cross.sizes[0]} lowest-level units, found {log_det_by_unit.shape}."
        )
    weights = np.asarray(coefs, dtype=np.float64)
    roots = [np.asarray(factor, dtype=np.float64) for factor in factors]
    known = None if beta is None else np.asarray(beta, dtype=np.float64)
    if weights.ndim != 2:
        return _leave_out(cross, weights, roots, log_det_by_unit, level, known, prior)
    n_draws = weights.shape[0]
    log_det_by_unit = np.broadcast_to(log_det_by_unit, (n_draws, cross.sizes[0]))
    known = None if known is None else np.broadcast_to(known, (n_draws, cross.x.size))
    parts = [
        _leave_out(
            cross,
            weights[chunk],
            [root[chunk] for root in roots],
            log_det_by_unit[chunk],
            level,
            None if known is None else known[chunk],
            prior,
        )
        for chunk in chunks(cross, n_draws)
    ]
    return np.concatenate(parts)


def _leave_out(
    cross: CrossProducts,
    coefs: FloatArray,
    roots: list[FloatArray],
    log_det_by_unit: FloatArray,
    level: int,
    known: FloatArray | None,
    prior: Prior | None,
) -> FloatArray:
    done = run_forward(cross, coefs, roots)
    unit = np.arange(cross.sizes[level])
    without = -done.levels[level].S_up
    below = done.levels[0].log_det
    for lower in range(level):
        below = sum_by_parent(below, cross.parents[lower], axis=-1) + done.levels[lower + 1].log_det
    log_det_change = -below
    for above in range(level + 1, cross.n_levels):
        unit = cross.parents[above - 1][unit]
        reduced = forward(done.S[above][..., unit, :, :] + without, cross.z[above], roots[above])
        without = reduced.S_up - done.levels[above].S_up[..., unit, :, :]
        log_det_change = log_det_change + reduced.log_det - done.levels[above].log_det[..., unit]
    H = select_top(cross, done.H)
    H_without = select_top(cross, done.H[..., None, :, :] + without)
    every = solve_top(H, beta=known, prior=prior).value
    others = solve_top(H_without, beta=None if known is None else known[..., None, :], prior=prior).value
    n_left = _sum(cross, cross.n_obs_by_unit.astype(np.float64), level=level)
    log_det_left = _sum(cross, log_det_by_unit, level=level)
    return every[..., None] - others - 0.5 * (n_left * LOG_2PI + log_det_left - log_det_change)


def _sum(cross: CrossProducts, values: FloatArray, *, level: int) -> FloatArray:
    for parent in cross.parents[:level]:
        values = sum_by_parent(values, parent, axis=-1)
    return values
