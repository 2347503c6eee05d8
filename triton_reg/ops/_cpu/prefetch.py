"""Ask for memory ahead, where samples read too many places for the processor to foresee."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_WORD = ir.IntType(32)
_READ, _KEEP, _DATA = 0, 3, 1  # what llvm.prefetch is told: into all caches


@intrinsic
def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    del typing_context

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        of_type = signature.args[0]
        data = context.make_array(of_type)(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        taken = [address.type, _WORD, _WORD, _WORD]
        kind = ir.FunctionType(ir.VoidType(), taken)
        call = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(call, [address, *(_WORD(one) for one in (_READ, _KEEP, _DATA))])
        return context.get_dummy_value()

    return types.void(array, index), generate


# prefetch(array, index): start to load an element of a flat array; the index may lie outside
prefetch: Any = _prefetch
