"""The engine in JAX: a pure function, batched over units, for accelerators and for samplers written in JAX.

Formulas as in `psymech.gaussian.eliminate`. ``M^{-1}`` is applied by Gauss-Jordan steps over its few rows, all units
at once: ``M`` is the identity plus a positive semi-definite matrix, so every pivot is at least one and no exchange
of rows is needed. The gradient of a level is the analytic one; nothing divides by a factor, so it is finite at zero
and singular factors.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psymech.errors import SpecError
from psymech.gaussian.cross import CrossProducts

LOG_2PI = float(np.log(2 * np.pi))


def make_log_likelihood(cross: CrossProducts, *, integrate: bool) -> Callable[..., Any]:
    """Return the log likelihood of a design as a function that JAX can differentiate, compile and map.

    Only sizes and column indices are taken from ``cross``; its numbers are arguments. The function's arguments are
    ``(S, parents, n_obs, coefs, factors, log_det_R, center, precision)`` with ``S``, ``parents`` as in
    `CrossProducts`; ``factors`` a sequence of ``(q, q)`` arrays, any square matrices; ``center`` beta ``(p,)`` or,
    with ``integrate``, the prior mean, and ``precision (p, p)`` (``None`` otherwise). It returns the value of
    `psymech.gaussian.loglik.log_likelihood`. Double precision must be on.

    Examples
    --------
    >>> import jax
    >>> from psymech.gaussian.cross import cross_products
    >>> cross = cross_products([[1.0], [1.0]], [0.0, 0.0], [0, 0], parents=[], z=[[0]], x=[0])
    >>> with jax.enable_x64(True):
    ...     f = make_log_likelihood(cross, integrate=False)
    ...     value = f(cross.S, cross.parents, 2, np.ones(1), [np.zeros((1, 1))], 0.0, np.zeros(1), None)
    >>> round(float(value), 4)
    -1.8379
    """
    z = tuple(tuple(int(column) for column in columns) for columns in cross.z)
    keep = np.append(cross.x, cross.n_columns - 1)
    sizes = cross.sizes

    def log_likelihood(
        S: Any,
        parents: Sequence[Any],
        n_obs: Any,
        coefs: Any,
        factors: Sequence[Any],
        log_det_R: Any,
        center: Any,
        precision: Any = None,
    ) -> Any:
        if not jax.config.jax_enable_x64:
            raise SpecError(
                "The likelihood needs double precision; call jax.config.update('jax_enable_x64', True) first."
            )
        current = jnp.moveaxis(jnp.einsum("l,nlij->nij", jnp.asarray(coefs), jnp.asarray(S)), 0, -1)
        log_det = 0.0
        for level, columns in enumerate(z):
            passed, step = eliminate(columns, current, jnp.asarray(factors[level]))
            log_det = log_det + step
            if level < len(z) - 1:
                summed = jax.ops.segment_sum(
                    jnp.moveaxis(passed, -1, 0),
                    jnp.asarray(parents[level]),
                    num_segments=sizes[level + 1],
                    indices_are_sorted=True,
                )
                current = jnp.moveaxis(summed, 0, -1)
            else:
                current = passed.sum(axis=-1)
        H = current[keep[:, None], keep]
        top = _integrated(H, center, precision) if integrate else _known(H, center)
        return top - 0.5 * (n_obs * LOG_2PI + log_det_R + log_det)

    return log_likelihood


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def eliminate(z: tuple[int, ...], S: Any, factor: Any) -> tuple[Any, Any]:
    """Return ``S_up (m, m, n)`` and the summed ``log|M|`` of one level, from ``S (m, m, n)``, units last."""
    return _forward(z, S, factor)[0]


def _forward(z: tuple[int, ...], S: Any, factor: Any) -> tuple[tuple[Any, Any], tuple[Any, ...]]:
    columns, n = np.array(z), S.shape[-1]
    L = factor[:, :, None]
    T = product("ba,bm->am", L, S[columns])
    M = jnp.eye(len(z))[:, :, None] + product("ab,bc->ac", T[:, columns], L)
    right = jnp.concatenate([T, jnp.broadcast_to(factor.T[:, :, None], (*factor.shape, n))], axis=1)
    X, log_det = _solve(M, right)
    X, K = X[:, : S.shape[1]], X[:, S.shape[1] :]
    passed = S - product("ai,aj->ij", T, X)
    return (passed, log_det.sum()), (S, factor, T, X, K)


def _backward(z: tuple[int, ...], saved: tuple[Any, ...], bars: tuple[Any, Any]) -> tuple[Any, Any]:
    S, factor, T, X, K = saved
    G, log_det_bar = bars
    G = (G + jnp.swapaxes(G, 0, 1)) / 2
    columns, L = np.array(z), factor[:, :, None]
    V = S[columns] - product("ba,bm->am", T[:, columns], X)
    through = product("ai,bi->ab", V, product("ij,bj->bi", G, X)).sum(axis=-1)
    factor_bar = -2 * through + 2 * log_det_bar * X[:, columns].sum(axis=-1).T
    U = product("ab,bm->am", L, X)  # P is the identity less U in the rows of the random columns
    PG = G.at[columns].add(-product("am,mj->aj", U, G))
    PGP = PG.at[:, columns].add(-product("im,am->ia", PG, U))
    E = product("ab,bc->ac", L, K)
    return PGP.at[columns[:, None], columns].add(log_det_bar * E), factor_bar


eliminate.defvjp(_forward, _backward)


def product(subscripts: str, a: Any, b: Any) -> Any:
    """Return the product of a handful by a handful of entries for each unit, units last, as a written-out sum.

    Subscripts are those of ``einsum`` without the units, one letter summed. The compiler makes one vectorised loop over
    units of this, and a call for each unit of a batched matrix product.
    """
    left, right, out = subscripts.replace("->", ",").split(",")
    (letter,) = (set(left) & set(right)) - set(out)
    rows, cols = left.index(letter), right.index(letter)
    first = out[0] in left
    total: Any = 0.0
    for k in range(a.shape[rows]):
        u, v = jnp.take(a, k, axis=rows), jnp.take(b, k, axis=cols)
        total = total + (u[:, None] * v[None] if first else v[:, None] * u[None])
    return total


def _solve(M: Any, right: Any) -> tuple[Any, Any]:
    """Return ``M^{-1} right`` and ``log|M|`` of every unit, units last."""
    both, log_det = jnp.concatenate([M, right], axis=1), 0.0
    q = M.shape[0]
    index = np.arange(q)[:, None, None]
    for j in range(q):
        pivot = both[j, j]
        row = both[j] / pivot
        both = jnp.where(index == j, row[None], both - both[:, j][:, None] * row[None])
        log_det = log_det + jnp.log(pivot)
    return both[:, q:], log_det


def _known(H: Any, beta: Any) -> Any:
    a = jnp.append(-jnp.asarray(beta), 1.0)
    return -0.5 * (a @ H @ a)


def _integrated(H: Any, mean: Any, precision: Any) -> Any:
    p = H.shape[0] - 1
    a = jnp.append(-jnp.asarray(mean), 1.0)
    d = H[:p] @ a
    chol = jnp.linalg.cholesky(H[:p, :p] + precision)
    half = jax.scipy.linalg.solve_triangular(chol, d, lower=True)
    log_det = 2 * jnp.log(jnp.diagonal(chol)).sum() - jnp.linalg.slogdet(precision)[1]
    return -0.5 * (log_det + a @ H @ a - half @ half)
