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
        current = jnp.einsum("l,nlij->nij", jnp.asarray(coefs), jnp.asarray(S))
        log_det = 0.0
        for level, columns in enumerate(z):
            passed, step = eliminate(columns, current, jnp.asarray(factors[level]))
            log_det = log_det + step
            if level < len(z) - 1:
                current = jax.ops.segment_sum(
                    passed, jnp.asarray(parents[level]), num_segments=sizes[level + 1], indices_are_sorted=True
                )
            else:
                current = passed.sum(axis=0)
        H = current[keep[:, None], keep]
        top = _integrated(H, center, precision) if integrate else _known(H, center)
        return top - 0.5 * (n_obs * LOG_2PI + log_det_R + log_det)

    return log_likelihood


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def eliminate(z: tuple[int, ...], S: Any, factor: Any) -> tuple[Any, Any]:
    """Return ``S_up (n, m, m)`` and the summed ``log|M|`` of one level."""
    return _forward(z, S, factor)[0]


def _forward(z: tuple[int, ...], S: Any, factor: Any) -> tuple[tuple[Any, Any], tuple[Any, ...]]:
    columns = np.array(z)
    T = jnp.einsum("ba,nbm->nam", factor, S[:, columns, :])
    M = jnp.eye(len(z)) + T[:, :, columns] @ factor
    right = jnp.concatenate([T, jnp.broadcast_to(factor.T, (S.shape[0], *factor.shape))], axis=2)
    X, log_det = _solve(M, right)
    X, K = X[:, :, : S.shape[-1]], X[:, :, S.shape[-1] :]
    passed = S - jnp.einsum("nai,naj->nij", T, X)
    return (passed, log_det.sum()), (S, factor, T, X, K)


def _backward(z: tuple[int, ...], saved: tuple[Any, ...], bars: tuple[Any, Any]) -> tuple[Any, Any]:
    S, factor, T, X, K = saved
    G, log_det_bar = bars
    G = (G + jnp.swapaxes(G, 1, 2)) / 2
    columns = np.array(z)
    V = S[:, columns, :] - jnp.einsum("nba,nbm->nam", T[:, :, columns], X)
    factor_bar = -2 * jnp.einsum("nai,nij,nbj->ab", V, G, X) + 2 * log_det_bar * X[:, :, columns].sum(axis=0).T
    U = jnp.einsum("ab,nbm->nam", factor, X)
    P = jnp.broadcast_to(jnp.eye(S.shape[-1]), S.shape).at[:, columns, :].add(-U)
    S_bar = jnp.einsum("nia,nab,njb->nij", P, G, P)
    E = jnp.einsum("ab,nbc->nac", factor, K)
    return S_bar.at[:, columns[:, None], columns].add(log_det_bar * E), factor_bar


eliminate.defvjp(_forward, _backward)


def _solve(M: Any, right: Any) -> tuple[Any, Any]:
    """Return ``M^{-1} right`` and ``log|M|`` of every unit."""
    both, log_det = jnp.concatenate([M, right], axis=2), 0.0
    q = M.shape[1]
    for j in range(q):
        pivot = both[:, j, j]
        row = both[:, j, :] / pivot[:, None]
        rest = both[:, :, j].at[:, j].set(0.0)
        both = (both - rest[:, :, None] * row[:, None, :]).at[:, j, :].set(row)
        log_det = log_det + jnp.log(pivot)
    return both[:, :, q:], log_det


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
