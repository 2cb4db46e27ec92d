r"""Exact predictive density of one row given all others, at fixed variance parameters.

With ``V`` the covariance of all rows and ``r = V^{-1} (y - E y)``,

    y_j | y_-j, theta  ~  N(y_j - r_j / V^{-1}_jj,  1 / V^{-1}_jj)

and, with ``e`` what remains of ``y`` after fixed and random effects, ``r = R^{-1} E[e | y]`` and
``V^{-1} = R^{-1} - R^{-1} cov(e | y) R^{-1}``: the posterior moments of each row's effects suffice.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from psymech.errors import SpecError
from psymech.gaussian.conditional import chunks
from psymech.gaussian.cross import CrossProducts, FloatArray, RowTerm
from psymech.gaussian.eliminate import covariance, projection
from psymech.gaussian.loglik import LOG_2PI, Prior, run_forward, select_top, solve_top


def leave_row_out(
    cross: CrossProducts,
    columns: ArrayLike,
    y: ArrayLike,
    unit_of_row: ArrayLike,
    terms: Sequence[RowTerm],
    coefs: ArrayLike,
    factors: Sequence[ArrayLike],
    *,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
) -> FloatArray:
    """Return ``log p(y_j | y_-j, theta)`` for every row ``j`` and draw, ``(D, n)``.

    Parameters
    ----------
    cross, columns, y, unit_of_row, terms
        Cross-products, and the rows and residual terms that made them.
    coefs, factors
        ``(D, n_coef)`` and, for each level, lowest first, ``(D, q, q)``.
    beta, prior
        ``(D, p)`` fixed effects, or the normal prior under which they are integrated out. Exactly one.

    Notes
    -----
    The effects of the row's own units are updated by their other rows. See Bürkner, Gabry & Vehtari (2021),
    doi:10.1007/s00180-020-01045-4.

    Examples
    --------
    >>> from psymech.gaussian.cross import cross_products
    >>> from psymech.gaussian.residual import iid
    >>> columns, y, terms = np.ones((2, 1)), np.zeros(2), iid(2).terms()
    >>> cross = cross_products(columns, y, [0, 1], parents=[], z=[[0]], x=[0])
    >>> leave_row_out(cross, columns, y, [0, 1], terms, [[1.0]], [np.zeros((1, 1, 1))], beta=[[0.0]]).round(4)
    array([[-0.9189, -0.9189]])
    """
    weights = np.asarray(coefs, dtype=np.float64)
    roots = [np.asarray(factor, dtype=np.float64) for factor in factors]
    if weights.ndim != 2 or len(terms) != weights.shape[1]:
        raise SpecError(f"Expected coefs (D, {len(terms)}), one for each residual term, found {weights.shape}.")
    table = np.column_stack([np.asarray(columns, dtype=np.float64), np.asarray(y, dtype=np.float64)])
    unit = np.asarray(unit_of_row, dtype=np.int64)
    weighted, diagonal = weighted_rows(table, terms)
    known = None if beta is None else np.broadcast_to(np.asarray(beta, dtype=np.float64), (len(weights), cross.x.size))
    parts = []
    for chunk in chunks(cross, len(weights)):
        given = None if known is None else known[chunk]
        mean, spread = _left_over(cross, weights[chunk], [root[chunk] for root in roots], given, prior)
        seen = np.einsum("dc,ncm->dnm", weights[chunk], weighted)
        r = np.einsum("dnm,dnm->dn", seen, mean[:, unit])
        explained = np.einsum("dni,dnij,dnj->dn", seen, spread[:, unit], seen, optimize=True)
        precision = weights[chunk] @ diagonal.T - explained
        parts.append(0.5 * (np.log(precision) - LOG_2PI - r**2 / precision))
    return np.concatenate(parts)


def weighted_rows(table: FloatArray, terms: Sequence[RowTerm]) -> tuple[FloatArray, FloatArray]:
    """Residual matrices times the rows, (n, n_coef, m), and their diagonals, (n, n_coef)."""
    n, m = table.shape
    weighted, diagonal = np.zeros((n, len(terms), m)), np.zeros((n, len(terms)))
    for c, term in enumerate(terms):
        if term.weight is not None:
            weighted[:, c] += term.weight[:, None] * table
            diagonal[:, c] = term.weight
        if term.first is not None and term.second is not None and term.pair_weight is not None:
            np.add.at(weighted[:, c], term.first, term.pair_weight[:, None] * table[term.second])
            np.add.at(weighted[:, c], term.second, term.pair_weight[:, None] * table[term.first])
    return weighted, diagonal


def _left_over(
    cross: CrossProducts,
    coefs: FloatArray,
    roots: list[FloatArray],
    beta: FloatArray | None,
    prior: Prior | None,
) -> tuple[FloatArray, FloatArray]:
    """Posterior mean ``(D, n_units, m)`` and covariance of the combination of columns and response that is residual.

    Units are the lowest level's; the combination is 1 for the response and minus all effects for the columns.
    """
    done = run_forward(cross, coefs, roots)
    top = solve_top(select_top(cross, done.H), beta=beta, prior=prior)
    n_draws, m = coefs.shape[0], cross.n_columns
    mean = np.zeros((n_draws, 1, m))
    mean[..., -1] = 1.0
    mean[:, 0, cross.x] = -top.mean
    spread = np.zeros((n_draws, 1, m, m))
    if top.precision is not None:
        spread[:, 0, cross.x[:, None], cross.x] = np.linalg.inv(top.precision)
    for level in reversed(range(cross.n_levels)):
        if level < cross.n_levels - 1:
            mean, spread = mean[:, cross.parents[level]], spread[:, cross.parents[level]]
        z = cross.z[level]
        P = projection(z, roots[level], done.levels[level])
        mean = np.einsum("dnij,dnj->dni", P, np.broadcast_to(mean, (*P.shape[:2], m)))
        spread = P @ spread @ np.swapaxes(P, -1, -2)
        spread[..., z[:, None], z] += covariance(roots[level], done.levels[level])
    return mean, spread
