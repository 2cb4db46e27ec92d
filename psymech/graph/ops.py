"""The engine as PyTensor operators: log likelihood with its gradient, and the packing of a response into
cross-products.

Both run compiled by numba, which is also what PyTensor's Python mode calls, and in JAX. Data are inputs: compiled
code depends on sizes only and has a cache key, and a response can be replaced without rebuilding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt
from numba import njit
from numpy.typing import NDArray
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import register_funcify_and_cache_key

from psymech.gaussian.blocks import KernelShape, Layout, make_layout, pack
from psymech.gaussian.cross import CrossProducts, RowTerm
from psymech.gaussian.kernels_numba import VERSION, make_kernel


class PackResponse(Op):
    """Add the products of a response to packed cross-products of the columns.

    Inputs: ``S`` packed with a response of zero; ``weighted (n, n_coef, m)``: the residual matrices times the
    columns, and, last, their diagonals; ``place (n, n_coef, m)``: where each product goes; ``pairs (n_pairs, 3)``:
    two rows and the place of their product; ``pair_weight (n_pairs,)``; ``y (n,)``. Output: ``S`` with the response.
    """

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        """Return the node of these inputs."""
        tensors = [pt.as_tensor_variable(i) for i in inputs]
        return Apply(self, tensors, [pt.dvector()])

    def perform(self, node: Apply, inputs: Sequence[NDArray], outputs: Any) -> None:
        """Evaluate in Python mode."""
        outputs[0][0] = _pack_response(*inputs)

    def infer_shape(self, node: Apply, shapes: Sequence[Any]) -> list[Any]:
        """The output has the length of the first input."""
        return [shapes[0]]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """No gradient: responses are data."""
        return [disconnected_type() for _ in inputs]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Nothing is differentiable."""
        return [[False] for _ in node.inputs]


@njit(nogil=True)
def _pack_response(S, weighted, place, pairs, pair_weight, y):
    out = S.copy()
    n, n_coef, m = weighted.shape
    for i in range(n):
        for c in range(n_coef):
            for j in range(m - 1):
                out[place[i, c, j]] += weighted[i, c, j] * y[i]
            out[place[i, c, m - 1]] += weighted[i, c, m - 1] * y[i] * y[i]
    for k in range(pairs.shape[0]):
        out[pairs[k, 2]] += 2.0 * pair_weight[k] * y[pairs[k, 0]] * y[pairs[k, 1]]
    return out


@register_funcify_and_cache_key(PackResponse)
def _numba_pack_response(op: PackResponse, node: Any = None, **_: Any) -> tuple[Any, str]:
    return _pack_response, f"psymech-pack-response-{VERSION}"


@dataclass(frozen=True, slots=True, eq=False)
class PackedData:
    """Inputs of the operators for one design: see :class:`PackResponse` and :class:`CollapsedLogp`."""

    S: NDArray[np.float64]
    weighted: NDArray[np.float64]
    place: NDArray[np.int64]
    pairs: NDArray[np.int64]
    pair_weight: NDArray[np.float64]
    layout: Layout
    shape: KernelShape


def packed_data(
    cross: CrossProducts,
    columns: NDArray[np.float64],
    unit: NDArray[np.int64],
    terms: Sequence[RowTerm],
    *,
    integrate: bool,
) -> PackedData:
    """Return the operators' inputs; `cross` is of the same rows with any response."""
    layout, shape = make_layout(cross), KernelShape.of(cross, integrate=integrate)
    n, m, n_coef = columns.shape[0], cross.n_columns, cross.n_coef
    n_tri = m * (m + 1) // 2
    block, lane = np.divmod(layout.slot[0][unit], 8)
    order = layout.order[0]
    rank = np.argsort(order)
    high, low = np.maximum(rank, rank[m - 1]), np.minimum(rank, rank[m - 1])
    triangle = high * (high + 1) // 2 + low  # where the product of each column with the response stands

    def where(c: int, rows: NDArray[np.int64] | slice) -> NDArray[np.int64]:
        return (((block[rows] * n_coef + c) * n_tri)[:, None] + triangle[None, :]) * 8 + lane[rows][:, None]

    weighted, place = np.zeros((n, n_coef, m)), np.zeros((n, n_coef, m), dtype=np.int64)
    pairs: list[NDArray[np.int64]] = [np.zeros((0, 3), dtype=np.int64)]
    pair_weight: list[NDArray[np.float64]] = [np.zeros(0)]
    for c, term in enumerate(terms):
        place[:, c] = where(c, slice(None))
        if term.weight is not None:
            weighted[:, c, :-1] += term.weight[:, None] * columns
            weighted[:, c, -1] = term.weight
        if term.first is not None and term.second is not None and term.pair_weight is not None:
            np.add.at(weighted[:, c, :-1], term.first, term.pair_weight[:, None] * columns[term.second])
            np.add.at(weighted[:, c, :-1], term.second, term.pair_weight[:, None] * columns[term.first])
            pairs.append(np.column_stack([term.first, term.second, where(c, term.first)[:, -1]]))
            pair_weight.append(term.pair_weight)
    S = pack(cross, layout).copy()
    S[place.ravel()] = 0.0
    return PackedData(S, weighted, place, np.concatenate(pairs), np.concatenate(pair_weight), layout, shape)


class CollapsedLogp(Op):
    """Log likelihood with random effects, and perhaps fixed effects, integrated out.

    Inputs: ``S`` (packed), ``coefs``, ``log_det_R``, ``center``, ``precision``, ``n_obs``, one factor a level, then one
    ``parent_slot`` and one ``up`` a level. Outputs: the value, and its derivatives by ``coefs``, ``center`` and the
    factors. The gradient of the value is read from the other outputs, so that value and gradient are one evaluation.
    """

    __props__ = ("z", "x", "m", "n_coef", "integrate")

    def __init__(
        self, z: tuple[tuple[int, ...], ...], x: tuple[int, ...], m: int, n_coef: int, *, integrate: bool
    ) -> None:
        self.z, self.x, self.m, self.n_coef, self.integrate = z, x, m, n_coef, integrate

    @property
    def q(self) -> tuple[int, ...]:
        """Number of random columns of each level."""
        return tuple(len(columns) for columns in self.z)

    @property
    def n_levels(self) -> int:
        """Number of levels."""
        return len(self.z)

    def make_node(self, *inputs: Any) -> Apply:
        """Return the node of these inputs."""
        tensors = [pt.as_tensor_variable(i) for i in inputs]
        return Apply(self, tensors, [pt.dscalar(), pt.dvector(), pt.dvector(), *(pt.dmatrix() for _ in self.q)])

    def perform(self, node: Apply, inputs: Sequence[NDArray], outputs: Any) -> None:
        """Evaluate in Python mode."""
        a = self.n_levels
        S, coefs, log_det, center, precision, n_obs = inputs[:6]
        factors = tuple(np.ascontiguousarray(f) for f in inputs[6 : 6 + a])
        parents, maps = tuple(inputs[6 + a : 6 + 2 * a]), tuple(inputs[6 + 2 * a :])
        kernel = make_kernel(KernelShape(self.q, self.m, 0, self.n_coef, self.integrate))
        value, coef_bar, bars, center_bar = kernel(
            S, parents, maps, float(n_obs), np.ascontiguousarray(coefs), factors, float(log_det), center, precision
        )
        for storage, result in zip(outputs, (np.asarray(value), coef_bar, center_bar, *bars), strict=True):
            storage[0] = result

    def infer_shape(self, node: Apply, shapes: Sequence[Any]) -> list[Any]:
        """Derivatives have the shapes of what they belong to."""
        return [(), shapes[1], shapes[3], *shapes[6 : 6 + self.n_levels]]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Only the value is differentiable, and not by the data."""
        live = {1, 2, 3, *range(6, 6 + self.n_levels)}
        return [[i in live] + [False] * (len(node.outputs) - 1) for i in range(len(node.inputs))]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """Read the gradient of the value from the other outputs."""
        g = cotangents[0]
        if isinstance(g.type, DisconnectedType):
            return [disconnected_type() for _ in inputs]
        a = self.n_levels
        found: list[Any] = [disconnected_type() for _ in inputs]
        found[1], found[2], found[3] = g * outputs[1], -0.5 * g, g * outputs[2]
        found[6 : 6 + a] = [g * bar for bar in outputs[3:]]
        return found


@register_funcify_and_cache_key(CollapsedLogp)
def _numba_collapsed(op: CollapsedLogp, node: Any = None, **_: Any) -> tuple[Any, str]:
    kernel = make_kernel(KernelShape(op.q, op.m, 0, op.n_coef, op.integrate))
    key = f"psymech-collapsed-{op.q}-{op.m}-{op.n_coef}-{op.integrate}-{VERSION}"
    dense = np.ascontiguousarray  # numba's arrays may come as views of another layout

    if op.n_levels == 1:

        @njit
        def one(S, coefs, log_det, center, precision, n_obs, L0, parent0, up0):
            factors = (dense(L0),)
            value, c, bars, b = kernel(
                S,
                (parent0,),
                (up0,),
                n_obs.item(),
                dense(coefs),
                factors,
                log_det.item(),
                dense(center),
                dense(precision),
            )
            return np.asarray(value), c, b, bars[0]

        return one, key

    if op.n_levels == 2:

        @njit
        def two(S, coefs, log_det, center, precision, n_obs, L0, L1, parent0, parent1, up0, up1):
            factors = (dense(L0), dense(L1))
            value, c, bars, b = kernel(
                S,
                (parent0, parent1),
                (up0, up1),
                n_obs.item(),
                dense(coefs),
                factors,
                log_det.item(),
                dense(center),
                dense(precision),
            )
            return np.asarray(value), c, b, bars[0], bars[1]

        return two, key

    @njit
    def three(S, coefs, log_det, center, precision, n_obs, L0, L1, L2, parent0, parent1, parent2, up0, up1, up2):
        factors = (dense(L0), dense(L1), dense(L2))
        value, c, bars, b = kernel(
            S,
            (parent0, parent1, parent2),
            (up0, up1, up2),
            n_obs.item(),
            dense(coefs),
            factors,
            log_det.item(),
            dense(center),
            dense(precision),
        )
        return np.asarray(value), c, b, bars[0], bars[1], bars[2]

    return three, key
