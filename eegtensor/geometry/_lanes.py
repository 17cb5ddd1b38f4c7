"""A vector of lanes for numba: the same entry of 8 or 16 matrices at once.

Loops over many small matrices are slow one matrix at a time and fast when each
instruction works on the same entry of several. Code written with `Lanes` reads
like code for one matrix and compiles to vector instructions for as many as fit
64 bytes. LLVM splits them where the machine's registers are narrower.

Importing this module needs numba (the extra ``fast``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from eegtensor._optional import need

numba = need("numba", "the compiled eigendecomposition", extra="fast")
extending = need("numba.extending", "the compiled eigendecomposition", extra="fast")
cgutils = need("numba.core.cgutils", "the compiled eigendecomposition", extra="fast")
ir = need("llvmlite.ir", "the compiled eigendecomposition", extra="fast")
types = numba.types

BYTES = 64
# Steps that wait for a root and a division run on two vectors at once, so that
# one computes while the other waits.
DOUBLE = 2


class Lanes(types.Type):  # type: ignore[name-defined]
    """Type of a vector of `count` scalars, or of as many truth values."""

    def __init__(self, scalar: Any, count: int) -> None:
        self.scalar, self.count = scalar, count
        super().__init__(name=f"Lanes({scalar}, {count})")

    @property
    def llvm(self) -> Any:
        """LLVM's type of the vector."""
        element = {
            types.float32: ir.FloatType(),
            types.float64: ir.DoubleType(),
            types.boolean: ir.IntType(1),
        }[self.scalar]
        return ir.VectorType(element, self.count)


@extending.register_model(Lanes)
class _LanesModel(extending.models.PrimitiveModel):  # type: ignore[name-defined]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.llvm)


def _vector_of(kinds: Any) -> Any:
    for kind in kinds:
        if isinstance(kind, Lanes) and kind.scalar is not types.boolean:
            return kind
    return None


def _spread(context: Any, builder: Any, value: Any, kind: Any, wanted: Any) -> Any:
    """Return a scalar as a vector that repeats it; a vector as it is."""
    if isinstance(kind, Lanes):
        return value
    scalar = context.cast(builder, value, kind, wanted.scalar)
    index = ir.IntType(32)
    one = builder.insert_element(ir.Constant(wanted.llvm, None), scalar, index(0))
    zeros = ir.Constant(ir.VectorType(index, wanted.count), [0] * wanted.count)
    return builder.shuffle_vector(one, one, zeros)


def _operator(function: Any, emit: Callable[..., Any], *, mask: bool = False) -> None:
    """Teach numba an operator between vectors, or a vector and a number."""

    @extending.type_callable(function)
    def typing(context: Any) -> Any:
        def result(x: Any, y: Any) -> Any:
            kind = _vector_of((x, y))
            scalars = (types.Float, types.Integer)
            if kind is None or not all(
                k == kind or isinstance(k, scalars) for k in (x, y)
            ):
                return None
            return Lanes(types.boolean, kind.count) if mask else kind

        return result

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = _vector_of(signature.args)
        pairs = zip(args, signature.args, strict=True)
        return emit(builder, *(_spread(context, builder, a, k, kind) for a, k in pairs))

    for other in (Lanes, types.Float, types.Integer):
        extending.lower_builtin(function, Lanes, other)(lower)
        if other is not Lanes:
            extending.lower_builtin(function, other, Lanes)(lower)


# "contract" lets a product and a sum become one instruction with one rounding.
_FLAGS = ("contract",)
for _name, _emit in {
    "add": lambda b, x, y: b.fadd(x, y, flags=_FLAGS),
    "sub": lambda b, x, y: b.fsub(x, y, flags=_FLAGS),
    "mul": lambda b, x, y: b.fmul(x, y, flags=_FLAGS),
    "truediv": lambda b, x, y: b.fdiv(x, y),
}.items():
    _operator(getattr(operator, _name), _emit)
    _operator(getattr(operator, "i" + _name), _emit)
_operator(operator.gt, lambda b, x, y: b.fcmp_ordered(">", x, y), mask=True)
_operator(operator.eq, lambda b, x, y: b.fcmp_ordered("==", x, y), mask=True)


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


def _loader(vectors: int) -> Any:
    @extending.intrinsic
    def load(typing: Any, array: Any, index: Any) -> Any:
        bits = array.dtype.bitwidth
        kind = Lanes(array.dtype, vectors * BYTES * 8 // bits)

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = _address(context, builder, signature.args[0], *args)
            place = builder.bitcast(place, kind.llvm.as_pointer())
            return builder.load(place, align=bits // 8)

        return kind(array, types.intp), emit

    return load


def _zeros(vectors: int) -> Any:
    @extending.intrinsic
    def zeros(typing: Any, array: Any) -> Any:
        kind = Lanes(array.dtype, vectors * BYTES * 8 // array.dtype.bitwidth)
        return kind(array), lambda *_: ir.Constant(kind.llvm, None)

    return zeros


zeros = _zeros(1)  # zeros(array): a vector of what the array holds
zeros_double = _zeros(DOUBLE)
load = _loader(1)  # load(array, index): one vector from a flat array
load_double = _loader(DOUBLE)


@extending.intrinsic
def store(typing: Any, array: Any, index: Any, x: Any) -> Any:
    """Write a vector, of either width, to a flat array at an index."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], *args[:2])
        place = builder.bitcast(place, x.llvm.as_pointer())
        builder.store(args[2], place, align=x.scalar.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, x), emit


@extending.intrinsic
def peek(typing: Any, array: Any, index: Any) -> Any:
    """Read one entry: indexing without numba's care for negative indices."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *args))

    return array.dtype(array, types.intp), emit


@extending.intrinsic
def poke(typing: Any, array: Any, index: Any, x: Any) -> Any:
    """Write one entry: indexing without numba's care for negative indices."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = context.cast(builder, args[2], x, array.dtype)
        place = _address(context, builder, signature.args[0], *args[:2])
        builder.store(value, place)
        return context.get_dummy_value()

    return types.void(array, types.intp, x), emit


@extending.intrinsic
def select(typing: Any, mask: Any, x: Any, y: Any) -> Any:
    """Return x in the lanes where the mask is true, else y."""
    kind = _vector_of((x, y))

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pairs = zip(args[1:], signature.args[1:], strict=True)
        chosen = (_spread(context, builder, a, k, kind) for a, k in pairs)
        return builder.select(args[0], *chosen)

    return kind(mask, x, y), emit


@extending.intrinsic
def any_lane(typing: Any, mask: Any) -> Any:
    """Return whether the mask is true in any lane."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = ir.IntType(mask.count)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], bits), bits(0))

    return types.boolean(mask), emit


def _call(name: str) -> Callable[..., Any]:
    """Return what emits a call of one of LLVM's own functions."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        shape = ir.FunctionType(kind.llvm, [kind.llvm] * len(args))
        full = f"llvm.{name}.v{kind.count}f{kind.scalar.bitwidth}"
        function = cgutils.get_or_insert_function(builder.module, shape, full)
        return builder.call(function, args)

    return emit


@extending.intrinsic
def root(typing: Any, x: Any) -> Any:
    """Return the square root."""
    return x(x), _call("sqrt")


@extending.intrinsic
def absolute(typing: Any, x: Any) -> Any:
    """Return the absolute value."""
    return x(x), _call("fabs")


@extending.intrinsic
def larger(typing: Any, x: Any, y: Any) -> Any:
    """Return the larger value in each lane, the number where the other is NaN."""
    return x(x, y), _call("maxnum")


@extending.intrinsic
def with_sign(typing: Any, x: Any, y: Any) -> Any:
    """Return the size of x with the sign of y."""
    return x(x, y), _call("copysign")
