"""A vector of eight doubles for compiled kernels: one lane for each unit of a block.

Written out as a type, so that the compiler fills its widest registers without having to prove that loops may be
vectorised; on machines with shorter registers it splits each vector. Only usable inside functions compiled by numba.
"""

import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, extending, types
from numba.core.datamodel import models

LANES = 8
intrinsic: Any = extending.intrinsic  # its decorator changes the call signature, which type checkers cannot follow
_DOUBLE = ir.DoubleType()
_VECTOR = ir.VectorType(_DOUBLE, LANES)


class VectorType(types.Type):
    """Numba type of one vector."""

    def __init__(self) -> None:
        super().__init__(name=f"psymech_vector{LANES}")


vector_type = VectorType()


@extending.register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _pointer(context, builder, array_type, array, index):
    struct = context.make_array(array_type)(context, builder, array)
    return builder.bitcast(builder.gep(struct.data, [index]), ir.PointerType(_VECTOR))


@intrinsic
def load(typingctx, array, index):
    """Load eight doubles of a flat array from an element index."""

    def codegen(context, builder, signature, args):
        at = context.cast(builder, args[1], signature.args[1], types.intp)
        return builder.load(_pointer(context, builder, signature.args[0], args[0], at), align=8)

    return vector_type(array, index), codegen


@intrinsic
def store(typingctx, array, index, value):
    """Store eight doubles into a flat array at an element index."""

    def codegen(context, builder, signature, args):
        at = context.cast(builder, args[1], signature.args[1], types.intp)
        builder.store(args[2], _pointer(context, builder, signature.args[0], args[0], at), align=8)
        return context.get_dummy_value()

    return types.void(array, index, value), codegen


@intrinsic
def splat(typingctx, value):
    """Return a vector with one number in every lane."""

    def codegen(context, builder, signature, args):
        one = context.cast(builder, args[0], signature.args[0], types.float64)
        single = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), one, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(single, ir.Constant(_VECTOR, ir.Undefined), mask)

    return vector_type(value), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """Return ``a b + c``, fused where the machine can."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f64")
        return builder.call(function, args)

    return vector_type(a, b, c), codegen


@intrinsic
def fnma(typingctx, a, b, c):
    """Return ``c - a b``, fused where the machine can."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f64")
        return builder.call(function, [builder.fneg(args[0]), args[1], args[2]])

    return vector_type(a, b, c), codegen


def _binary(name):
    @intrinsic
    def operation(typingctx, a, b):
        def codegen(context, builder, signature, args):
            return getattr(builder, name)(args[0], args[1])

        return vector_type(a, b), codegen

    return operation


_add, _sub, _mul, _div = _binary("fadd"), _binary("fsub"), _binary("fmul"), _binary("fdiv")


def _register(symbol, operation) -> None:
    @extending.overload(symbol)
    def implementation(a, b):
        if isinstance(a, VectorType) and isinstance(b, VectorType):
            return lambda a, b: operation(a, b)
        return None


_register(operator.add, _add)
_register(operator.sub, _sub)
_register(operator.mul, _mul)
_register(operator.truediv, _div)


@intrinsic
def total(typingctx, a):
    """Return the sum of the eight lanes, pairwise."""

    def codegen(context, builder, signature, args):
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            kind = ir.VectorType(ir.IntType(32), width)
            low = builder.shuffle_vector(value, value, ir.Constant(kind, list(range(width))))
            high = builder.shuffle_vector(value, value, ir.Constant(kind, list(range(width, 2 * width))))
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float64(a), codegen


@intrinsic
def lane(typingctx, a, index):
    """Return one lane."""

    def codegen(context, builder, signature, args):
        at = context.cast(builder, args[1], signature.args[1], types.int32)
        return builder.extract_element(args[0], at)

    return types.float64(a, index), codegen
