"""A compiled log posterior handed to nutpie as machine code, without a detour through a tensor graph.

nutpie calls a C function with the parameters and a pointer to the data. Here the pointer leads to a table of
addresses and shapes of the arrays that the compiled function takes. The machine code depends on sizes only and is
kept on disk.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, extending, njit, types  # pyright: ignore[reportPrivateImportUsage]
from numba.extending import overload
from numpy.typing import NDArray
from nutpie.compile_pymc import CompiledPyMCModel

from psymech.gaussian.compiled import own_cache
from psymech.gaussian.target import CODE_VERSION, Sizes, Target, log_posterior

POINT = "unconstrained"
_LOGP = types.int64(
    types.uint64,
    types.CPointer(types.double),
    types.CPointer(types.double),
    types.CPointer(types.double),
    types.voidptr,
)
_EXPAND = types.int64(
    types.uint64, types.uint64, types.CPointer(types.double), types.CPointer(types.double), types.voidptr
)
_OK, _FAILED, _GRADIENT_NOT_FINITE, _VALUE_NOT_FINITE = 0, 1, 3, 4
_WIDTH = 3  # address, rows, columns


def compile_target(target: Target, start: Callable[[int], NDArray[np.float64]]) -> CompiledPyMCModel:
    """Return a model that ``nutpie.sample`` takes; its draws are the variable ``unconstrained``.

    Parameters
    ----------
    target
        Log posterior with its data.
    start
        Starting point of a chain from a seed.
    """
    arrays = _leaves(target.arguments)
    table = np.array([[a.ctypes.data, a.shape[0] if a.ndim else 1, a.shape[1] if a.ndim > 1 else 1] for a in arrays])
    return CompiledPyMCModel(
        dims={},
        _coords={},
        _shapes={POINT: (target.n,)},
        compiled_logp_func=_logp(target.sizes, CODE_VERSION),
        compiled_expand_func=_expand(),
        initial_point_func=start,
        shared_data={str(i): a for i, a in enumerate(arrays)},  # keeps the arrays alive as long as the model
        shared_var_keys={},
        user_data=np.ascontiguousarray(table, dtype=np.int64),
        n_expanded=target.n,
        shape_info=([POINT], [slice(0, target.n)], [(target.n,)]),
        logp_func=None,
        expand_func=None,
        _n_dim=target.n,
    )


def _leaves(arguments: tuple[Any, ...]) -> list[NDArray]:
    flat: list[NDArray] = []
    for argument in arguments:
        for item in argument if isinstance(argument, tuple) else (argument,):
            flat.append(np.ascontiguousarray(item))
    return flat


intrinsic: Any = extending.intrinsic  # its decorator changes the call signature, which type checkers cannot follow


@intrinsic
def _pointer(typingctx, address):
    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), codegen


@njit(nogil=True)
def _floats(table, i):
    return carray(_pointer(table[i, 0]), (table[i, 1],), np.float64)


@njit(nogil=True)
def _ints(table, i):
    return carray(_pointer(table[i, 0]), (table[i, 1],), np.int64)


@njit(nogil=True)
def _matrix(table, i):
    return carray(_pointer(table[i, 0]), (table[i, 1], table[i, 2]), np.float64)


def _ints_of(levels_, table, i):
    """One integer array for each level, from place ``i`` on."""
    raise NotImplementedError


def _matrices_of(levels_, table, i):
    """One matrix for each level, from place ``i`` on."""
    raise NotImplementedError


@overload(_ints_of)
def _compiled_ints_of(levels_, table, i):
    if len(levels_) == 1:
        return lambda levels_, table, i: (_ints(table, i),)
    if len(levels_) == 2:
        return lambda levels_, table, i: (_ints(table, i), _ints(table, i + 1))
    return lambda levels_, table, i: (_ints(table, i), _ints(table, i + 1), _ints(table, i + 2))


@overload(_matrices_of)
def _compiled_matrices_of(levels_, table, i):
    if len(levels_) == 1:
        return lambda levels_, table, i: (_matrix(table, i),)
    if len(levels_) == 2:
        return lambda levels_, table, i: (_matrix(table, i), _matrix(table, i + 1))
    return lambda levels_, table, i: (_matrix(table, i), _matrix(table, i + 1), _matrix(table, i + 2))


@cache
def _logp(sizes: Sizes, version: str) -> Any:
    a = len(sizes[0])
    levels_, n_leaves = (0,) * a, 4 * a + 9

    def logp(n, x_, gradient_, value_, data_):
        _ = version  # part of the cache key
        table = carray(data_, (n_leaves, _WIDTH), np.int64)
        x, gradient, value = carray(x_, (n,)), carray(gradient_, (n,)), carray(value_, (1,))
        value[0] = log_posterior(
            sizes,
            x,
            gradient,
            _floats(table, 0),
            _ints_of(levels_, table, 1),
            _ints_of(levels_, table, 1 + a),
            _floats(table, 1 + 2 * a)[0],
            _floats(table, 2 + 2 * a),
            _matrix(table, 3 + 2 * a),
            _matrices_of(levels_, table, 4 + 2 * a),
            _matrices_of(levels_, table, 4 + 3 * a),
            _matrix(table, 4 + 4 * a),
            _floats(table, 5 + 4 * a),
            _floats(table, 6 + 4 * a),
            _floats(table, 7 + 4 * a),
            _floats(table, 8 + 4 * a),
        )
        if not np.all(np.isfinite(gradient)):
            return _GRADIENT_NOT_FINITE
        return _OK if np.isfinite(value[0]) else _VALUE_NOT_FINITE

    return cfunc(_LOGP, cache=True)(own_cache(logp, sizes, version))


@cache
def _expand() -> Any:
    @cfunc(_EXPAND, cache=True)
    def expand(n, n_expanded, x_, out_, data_):
        if n != n_expanded:
            return _FAILED
        x, out = carray(x_, (n,)), carray(out_, (n,))
        for i in range(n):
            out[i] = x[i]
        return _OK

    return expand
