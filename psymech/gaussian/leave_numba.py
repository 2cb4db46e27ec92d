"""Leaving units or rows out at many draws, compiled: what `leave_out` and `leave_row` do, draw by draw.

Formulas as in `psymech.gaussian.eliminate`; with ``W = chol(M)^{-1} L' S[z, :]``, ``S_up = S - W'W``. A draw needs the
matrices of its units only, so that memory does not grow with the number of draws.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from psymech.errors import SpecError
from psymech.gaussian.cross import CrossProducts, FloatArray, IntArray, RowTerm
from psymech.gaussian.eliminate import sum_by_parent
from psymech.gaussian.leave_row import weighted_rows
from psymech.gaussian.loglik import LOG_2PI, Prior, prior_arrays
from psymech.gaussian.threads import over_draws

NO_PARENT = -1

type Nest = tuple[IntArray, IntArray, tuple[IntArray, ...]]


def leave_units_out(
    cross: CrossProducts,
    coefs: ArrayLike,
    factors: Sequence[ArrayLike],
    log_det_R: ArrayLike,
    *,
    level: int,
    beta: ArrayLike | None = None,
    prior: Prior | None = None,
) -> FloatArray:
    """Return what `psymech.gaussian.leave_out.leave_out` returns for ``(D, n_coef)`` coefficients, to rounding."""
    if not 0 <= level < cross.n_levels:
        raise SpecError(f"Expected a level from 0 to {cross.n_levels - 1}, found {level}.")
    nest, weights, roots, center, precision, log_det_prior = _arguments(cross, coefs, factors, beta, prior)
    log_det = np.broadcast_to(np.asarray(log_det_R, dtype=np.float64), (weights.shape[0], cross.sizes[0]))
    n_left = cross.n_obs_by_unit.astype(np.float64)
    for parent in cross.parents[:level]:
        log_det, n_left = sum_by_parent(log_det, parent, axis=-1), sum_by_parent(n_left, parent, axis=-1)
    out = np.empty((weights.shape[0], cross.sizes[level]))
    integrate, x = beta is None, np.asarray(cross.x)

    def some(draws: slice) -> None:
        own = weights[draws], tuple(root[draws] for root in roots), center[draws]
        _leave_units(cross.S, *nest, *own, precision, log_det_prior, integrate, x, level, out[draws])

    over_draws(some, weights.shape[0])
    return out - 0.5 * (n_left * LOG_2PI + log_det)


def leave_rows_out(
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
    rows: ArrayLike | None = None,
) -> FloatArray:
    """Return what `psymech.gaussian.leave_row.leave_row_out` returns, to rounding; of some `rows` only, (D, rows)."""
    nest, weights, roots, center, precision, log_det_prior = _arguments(cross, coefs, factors, beta, prior)
    if len(terms) != weights.shape[1]:
        raise SpecError(f"Expected coefs (D, {len(terms)}), one for each residual term, found {weights.shape}.")
    table = np.column_stack([np.asarray(columns, dtype=np.float64), np.asarray(y, dtype=np.float64)])
    unit = np.asarray(unit_of_row, dtype=np.int64)
    weighted, diagonal = weighted_rows(table, terms)
    chosen = np.arange(unit.size) if rows is None else np.asarray(rows, dtype=np.int64)
    place = np.argsort(unit[chosen], kind="stable")
    order = chosen[place]
    out = np.empty((weights.shape[0], chosen.size))
    integrate, x = beta is None, np.asarray(cross.x)
    rows_of = np.ascontiguousarray(weighted[order]), np.ascontiguousarray(diagonal[order]), unit[order], place

    def some(draws: slice) -> None:
        own = weights[draws], tuple(root[draws] for root in roots), center[draws]
        _leave_rows(cross.S, *nest, *own, precision, log_det_prior, integrate, x, *rows_of, out[draws])

    over_draws(some, weights.shape[0])
    return out


def _arguments(
    cross: CrossProducts,
    coefs: ArrayLike,
    factors: Sequence[ArrayLike],
    beta: ArrayLike | None,
    prior: Prior | None,
) -> tuple[Nest, FloatArray, tuple[FloatArray, ...], FloatArray, FloatArray, float]:
    """Units of all levels one behind the other, and the arguments as the kernels take them."""
    weights = np.ascontiguousarray(coefs, dtype=np.float64)
    roots = tuple(np.ascontiguousarray(factor, dtype=np.float64) for factor in factors)
    shapes = [(weights.shape[0], z.size, z.size) for z in cross.z]
    if weights.ndim != 2 or [root.shape for root in roots] != shapes:
        raise SpecError(
            f"Expected coefs (D, n_coef) and factors {shapes}, found {weights.shape}, {[r.shape for r in roots]}."
        )
    if (beta is None) == (prior is None):
        raise SpecError("Give exactly one of beta (fixed effects known) and prior (fixed effects integrated out).")
    offsets = np.concatenate([[0], np.cumsum(cross.sizes)]).astype(np.int64)
    above = [parent + offset for parent, offset in zip(cross.parents, offsets[1:], strict=False)]
    parent = np.concatenate([*above, np.full(cross.sizes[-1], NO_PARENT)]).astype(np.int64)
    z: tuple[IntArray, ...] = tuple(np.asarray(each, dtype=np.int64) for each in cross.z)
    shape = (weights.shape[0], cross.x.size)
    if prior is None:
        center = np.ascontiguousarray(np.broadcast_to(np.asarray(beta, dtype=np.float64), shape))
        return (offsets, parent, z), weights, roots, center, np.empty((0, 0)), 0.0
    mean, precision = prior_arrays(prior, shape[1])
    center = np.ascontiguousarray(np.broadcast_to(mean, shape))
    log_det = float(np.linalg.slogdet(precision)[1])
    return (offsets, parent, z), weights, roots, center, np.ascontiguousarray(precision), log_det


@njit(nogil=True, error_model="numpy", cache=True)
def eliminate_unit(S, z, L, W, chol, up):
    """Fill ``up`` with S - W'W, and W (q, m) and the Cholesky factor of M (q, q); return log|M|."""
    q, m = z.size, S.shape[0]
    for a in range(q):
        for c in range(m):
            s = 0.0
            for b in range(q):
                s += L[b, a] * S[z[b], c]
            W[a, c] = s
    log_det = 0.0
    for i in range(q):
        for j in range(i + 1):
            s = 1.0 if i == j else 0.0
            for b in range(q):
                s += W[i, z[b]] * L[b, j]
            for b in range(j):
                s -= chol[i, b] * chol[j, b]
            chol[i, j] = s / chol[j, j] if i > j else np.sqrt(s)
        log_det += 2.0 * np.log(chol[i, i])
    for a in range(q):
        for c in range(m):
            s = W[a, c]
            for b in range(a):
                s -= chol[a, b] * W[b, c]
            W[a, c] = s / chol[a, a]
    for c in range(m):
        for e in range(c + 1):
            s = S[c, e]
            for a in range(q):
                s -= W[a, c] * W[a, e]
            up[c, e] = s
            up[e, c] = s
    return log_det


@njit(nogil=True, error_model="numpy", cache=True)
def forward_units(S, offsets, parent, z, coefs, roots, draw, W, chol, own, up, log_det, H):
    """Eliminate all levels at one draw: ``own`` and ``up`` (n_all, m, m), ``log_det`` (n_all,), and ``H`` (m, m)."""
    m = S.shape[2]
    own[offsets[1] :] = 0.0
    H[:] = 0.0
    for u in range(S.shape[0]):
        for c in range(m):
            for e in range(m):
                s = 0.0
                for k in range(coefs.shape[1]):
                    s += coefs[draw, k] * S[u, k, c, e]
                own[u, c, e] = s
    for level in range(len(z)):
        for u in range(offsets[level], offsets[level + 1]):
            log_det[u] = eliminate_unit(own[u], z[level], roots[level][draw], W, chol, up[u])
            target = H if parent[u] == NO_PARENT else own[parent[u]]
            for c in range(m):
                for e in range(m):
                    target[c, e] += up[u, c, e]


@njit(nogil=True, error_model="numpy", cache=True)
def _top(H, x, integrate, center, precision, log_det_prior, chol, half):
    """Log density of the fixed effects' step, but for constants of the data; fills the factor of the precision."""
    p, y = x.size, H.shape[0] - 1
    quad = H[y, y]
    for i in range(p):
        s = H[x[i], y]
        for j in range(p):
            s -= H[x[i], x[j]] * center[j]
        half[i] = s
        quad -= center[i] * (H[x[i], y] + s)
    value = -0.5 * quad
    if not integrate:
        return value
    value += 0.5 * log_det_prior
    for i in range(p):
        for j in range(i + 1):
            s = precision[i, j] + H[x[i], x[j]]
            for b in range(j):
                s -= chol[i, b] * chol[j, b]
            chol[i, j] = s / chol[j, j] if i > j else np.sqrt(s)
        s = half[i]
        for b in range(i):
            s -= chol[i, b] * half[b]
        half[i] = s / chol[i, i]
        value += 0.5 * half[i] * half[i] - np.log(chol[i, i])
    return value


@njit(nogil=True, error_model="numpy", cache=True)
def _leave_units(S, offsets, parent, z, coefs, roots, center, precision, log_det_prior, integrate, x, level, out):
    m, n_all, p = S.shape[2], parent.size, x.size
    q = max([each.size for each in z])
    W, chol = np.empty((q, m)), np.empty((q, q))
    own, up, log_det, below = np.empty((n_all, m, m)), np.empty((n_all, m, m)), np.empty(n_all), np.empty(n_all)
    H, changed, reduced, delta = np.empty((m, m)), np.empty((m, m)), np.empty((m, m)), np.empty((m, m))
    top_chol, half = np.empty((p, p)), np.empty(p)
    for d in range(coefs.shape[0]):
        forward_units(S, offsets, parent, z, coefs, roots, d, W, chol, own, up, log_det, H)
        every = _top(H, x, integrate, center[d], precision, log_det_prior, top_chol, half)
        below[:] = log_det
        for u in range(offsets[level]):
            below[parent[u]] += below[u]
        for k in range(out.shape[1]):
            u = offsets[level] + k
            change = -below[u]
            for c in range(m):
                for e in range(m):
                    delta[c, e] = -up[u, c, e]
            for above in range(level + 1, len(z)):
                u = parent[u]
                for c in range(m):
                    for e in range(m):
                        changed[c, e] = own[u, c, e] + delta[c, e]
                change += eliminate_unit(changed, z[above], roots[above][d], W, chol, reduced) - log_det[u]
                for c in range(m):
                    for e in range(m):
                        delta[c, e] = reduced[c, e] - up[u, c, e]
            for c in range(m):
                for e in range(m):
                    changed[c, e] = H[c, e] + delta[c, e]
            others = _top(changed, x, integrate, center[d], precision, log_det_prior, top_chol, half)
            out[d, k] = every - others + 0.5 * change


@njit(nogil=True, error_model="numpy", cache=True)
def _down_unit(S, z, L, W, chol, up, root, P, mean_above, spread_above, half, mean, spread):
    """Moments of the combination of columns that one unit leaves to explain, from those above it."""
    q, m = z.size, S.shape[0]
    eliminate_unit(S, z, L, W, chol, up)
    for a in range(q):  # root = R^{-1} L'
        for c in range(q):
            s = L[c, a]
            for b in range(a):
                s -= chol[a, b] * root[b, c]
            root[a, c] = s / chol[a, a]
    for c in range(m):
        for e in range(m):
            P[c, e] = 1.0 if c == e else 0.0
    for a in range(q):
        for c in range(m):
            s = 0.0
            for b in range(q):
                s += root[b, a] * W[b, c]
            P[z[a], c] -= s
    for c in range(m):
        s = 0.0
        for e in range(m):
            s += P[c, e] * mean_above[e]
            t = 0.0
            for f in range(m):
                t += P[c, f] * spread_above[f, e]
            half[c, e] = t
        mean[c] = s
    for c in range(m):
        for e in range(c + 1):
            s = 0.0
            for f in range(m):
                s += half[c, f] * P[e, f]
            spread[c, e] = s
            spread[e, c] = s
    for a in range(q):
        for c in range(q):
            for b in range(q):
                spread[z[a], z[c]] += root[b, a] * root[b, c]


@njit(nogil=True, error_model="numpy", cache=True)
def _top_moments(p, x, integrate, center, top_chol, half, inverse, mean, spread):
    """Fill mean and covariance of the combination of columns that the fixed effects leave to explain."""
    m = mean.size
    mean[:] = 0.0
    spread[:] = 0.0
    mean[m - 1] = 1.0
    for i in range(p):
        mean[x[i]] = -center[i]
    if not integrate:
        return
    for i in range(p):
        for c in range(p):
            s = 1.0 if i == c else 0.0
            for b in range(i):
                s -= top_chol[i, b] * inverse[b, c]
            inverse[i, c] = s / top_chol[i, i]
    for i in range(p):
        for b in range(p):
            mean[x[i]] -= inverse[b, i] * half[b]
        for j in range(p):
            for b in range(p):
                spread[x[i], x[j]] += inverse[b, i] * inverse[b, j]


@njit(nogil=True, error_model="numpy", cache=True)
def _leave_rows(
    S,
    offsets,
    parent,
    z,
    coefs,
    roots,
    center,
    precision,
    log_det_prior,
    integrate,
    x,
    weighted,
    diagonal,
    unit,
    place,
    out,
):
    m, n_all, p, n_coef = S.shape[2], parent.size, x.size, coefs.shape[1]
    q = max([each.size for each in z])
    W, chol, root = np.empty((q, m)), np.empty((q, q)), np.empty((q, q))
    own, up, log_det, H = np.empty((n_all, m, m)), np.empty((n_all, m, m)), np.empty(n_all), np.empty((m, m))
    mean, spread = np.empty((n_all + 1, m)), np.empty((n_all + 1, m, m))
    top_chol, half, inverse = np.empty((p, p)), np.empty(p), np.empty((p, p))
    P, product, seen = np.empty((m, m)), np.empty((m, m)), np.empty(m)
    for d in range(coefs.shape[0]):
        forward_units(S, offsets, parent, z, coefs, roots, d, W, chol, own, up, log_det, H)
        _top(H, x, integrate, center[d], precision, log_det_prior, top_chol, half)
        _top_moments(p, x, integrate, center[d], top_chol, half, inverse, mean[n_all], spread[n_all])
        for i in range(len(z)):
            level = len(z) - 1 - i
            for u in range(offsets[level], offsets[level + 1]):
                v = n_all if parent[u] == NO_PARENT else parent[u]
                _down_unit(
                    own[u], z[level], roots[level][d], W, chol, up[u], root, P, mean[v], spread[v], product, mean[u],
                    spread[u],
                )  # fmt: skip
        for row in range(unit.size):
            u = unit[row]
            r, weight = 0.0, 0.0
            for k in range(n_coef):
                weight += coefs[d, k] * diagonal[row, k]
            for c in range(m):
                s = 0.0
                for k in range(n_coef):
                    s += coefs[d, k] * weighted[row, k, c]
                seen[c] = s
                r += s * mean[u, c]
            for c in range(m):
                s = 0.5 * spread[u, c, c] * seen[c]
                for e in range(c):
                    s += spread[u, c, e] * seen[e]
                weight -= 2.0 * s * seen[c]
            out[d, place[row]] = 0.5 * (np.log(weight) - LOG_2PI - r * r / weight)
