"""The operators of :mod:`psymech.graph.ops` in JAX. Imported before a model is compiled for JAX."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from pytensor.link.jax.dispatch.basic import jax_funcify

from psymech.gaussian.blocks import LANES
from psymech.gaussian.cross import CrossProducts
from psymech.gaussian.kernels_jax import make_log_likelihood
from psymech.graph.ops import CollapsedLogp, PackResponse


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the JAX engine reads of cross-products: column indices and sizes."""

    z: tuple[np.ndarray, ...]
    x: np.ndarray
    n_columns: int
    sizes: tuple[int, ...]


def once(action: Callable[..., Any], *inputs: Any) -> Any:
    """Return the value of an action; of data it is computed when the function is compiled, and not at each call."""
    if any(isinstance(value, jax.core.Tracer) for value in inputs):
        return action(*inputs)
    with jax.ensure_compile_time_eval():
        return action(*(jnp.asarray(value) for value in inputs))


@jax_funcify.register(PackResponse)
def _jax_pack_response(op: PackResponse, **_: Any) -> Any:
    def pack_response(*inputs: Any) -> Any:
        return once(packed, *inputs)

    def packed(S: Any, weighted: Any, place: Any, pairs: Any, pair_weight: Any, y: Any) -> Any:
        last = jnp.arange(weighted.shape[-1]) == weighted.shape[-1] - 1
        times = jnp.where(last[None, None, :], (y**2)[:, None, None], y[:, None, None])
        out = S.at[place.ravel()].add((weighted * times).ravel())
        return out.at[pairs[:, 2]].add(2.0 * pair_weight * y[pairs[:, 0]] * y[pairs[:, 1]])

    return pack_response


@jax_funcify.register(CollapsedLogp)
def _jax_collapsed(op: CollapsedLogp, **_: Any) -> Any:
    order = np.concatenate([np.array(op.z[0]), np.setdiff1d(np.arange(op.m), op.z[0])]).astype(int)
    row, column = np.tril_indices(op.m)
    triangle = np.zeros((op.m, op.m), dtype=int)  # where each pair of columns stands in the packed lower triangle
    triangle[order[row], order[column]] = triangle[order[column], order[row]] = np.arange(row.size)

    def unpacked(S: Any) -> Any:
        blocks = jnp.reshape(S, (-1, op.n_coef, row.size, LANES))
        return jnp.moveaxis(blocks, 3, 1).reshape(-1, op.n_coef, row.size)[:, :, triangle]

    def collapsed(S: Any, coefs: Any, log_det: Any, center: Any, precision: Any, n_obs: Any, *rest: Any) -> Any:
        a = op.n_levels
        factors, parents = rest[:a], rest[a : 2 * a]
        units = once(unpacked, S)
        shape = _Shape(
            tuple(np.array(z) for z in op.z), np.array(op.x, dtype=int), op.m, tuple(int(p.shape[0]) for p in parents)
        )
        f = make_log_likelihood(cast(CrossProducts, shape), integrate=op.integrate)

        def value(coefs: Any, center: Any, factors: Any) -> Any:
            return f(units, parents, n_obs, coefs, factors, log_det, center, precision)

        v, (coef_bar, center_bar, bars) = jax.value_and_grad(value, argnums=(0, 1, 2))(coefs, center, factors)
        return (v, coef_bar, center_bar, *bars)

    return collapsed
