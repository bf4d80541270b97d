"""What operations on complex numbers are in real ones: a rule for each, over the real and imaginary parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from npu_compiler.complex_parts import Pair, Parts, Result, Rule, join, number, split
from npu_compiler.dtypes import REAL
from npu_compiler.fourier import times
from npu_compiler.lowering import unsupported
from npu_compiler.ops.creation import full
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.views import tensor_input
from torch_ir.functionalize import base_name, words

#: Attributes of real numbers that only the real part gets.
_SCALARS = ("other", "value", "self", "fill_value")


#: Which inputs are conditions or indices.
_SHARED: Mapping[str, tuple[int, ...]] = {
    "where": (0,),
    **dict.fromkeys(("masked_fill", "scatter", "scatter_add", "index_copy", "index_add"), (1,)),
}


def _each_part(b: Parts) -> list[Result]:
    """The same operation on each part; real inputs (indices, masks) are shared."""
    found = [
        None if value is None else b.parts(value) if b.is_complex(value) else (value, value)
        for value in b.node.inputs
    ]
    real, imaginary = (
        b.apply([None if pair is None else pair[part] for pair in found], b.node.attrs) for part in (0, 1)
    )
    if b.node.out.dtype not in REAL:  # only its shape is another's
        return list(real)
    return list(zip(real, imaginary, strict=True))


def _every_operand(b: Parts) -> list[Result]:
    """The same operation on each part; real operands have no imaginary part, conditions are shared."""
    last = len(b.node.inputs) - 1
    kept = range(1, last) if base_name(b.node.op) == "index_put" else _SHARED.get(base_name(b.node.op), ())
    found = [
        None if value is None else (value, value) if index in kept else b.parts(value)
        for index, value in enumerate(b.node.inputs)
    ]
    attrs = b.node.attrs
    numbers = {key: number(attrs[key]) for key in _SCALARS if key in attrs}
    made = [
        b.apply(
            [None if pair is None else pair[part] for pair in found],
            {**attrs, **{key: value[part] for key, value in numbers.items()}},
        )
        for part in (0, 1)
    ]
    return list(zip(*made, strict=True))


def _bilinear(b: Parts) -> Result:
    """An operation that is linear in each of its first two inputs; a third one is added."""
    x, y = b.operand(0), b.operand(1)
    rest = b.node.inputs[2:]

    def product(left: str, right: str) -> str:
        return b.apply((left, right, *(None for _ in rest)), b.node.attrs)[0]

    if base_name(b.node.op) == "vdot" and x[1] is not None:
        x = x[0], b.emit("neg", x[1])
    op_zero = x[1] is None and y[1] is None
    real = product(x[0], y[0])
    if x[1] is not None and y[1] is not None:
        real = b.emit("sub", real, product(x[1], y[1]))
    terms = [product(x[0], y[1])] if y[1] is not None else []
    terms += [product(x[1], y[0])] if x[1] is not None else []
    imaginary = b.emit("sub", real, real) if op_zero else terms[0]
    if len(terms) == 2:
        imaginary = b.emit("add", *terms)
    if rest and rest[0] is not None:
        bias = b.parts(rest[0])
        real, imaginary = b.emit("add", real, bias[0]), b.emit("add", imaginary, bias[1])
    return real, imaginary


def _multiplied(b: Parts) -> Result:
    if "other" not in b.node.attrs:
        return _broadcast(b, times(b, b.operand(0), b.operand(1)))
    real, imaginary = number(b.node.attrs["other"])
    x = b.operand(0)
    scaled = [None if part is None else b.emit("mul", part, None, scalar=real) for part in x]
    if not imaginary:
        return _filled(b, (str(scaled[0]), scaled[1]))
    turned = [None if part is None else b.emit("mul", part, None, scalar=imaginary) for part in x]
    first = scaled[0] if turned[1] is None else b.emit("sub", scaled[0], turned[1])
    second = turned[0] if scaled[1] is None else b.emit("add", scaled[1], turned[0])
    return str(first), str(second)


def _filled(b: Parts, x: tuple[str, str | None]) -> Pair:
    return x[0], x[1] if x[1] is not None else full(b, b.shape(x[0]), 0.0, b.real)


def _broadcast(b: Parts, pair: Pair) -> Pair:
    """Both parts in the shape of the result."""
    shape = b.node.out.shape
    first, second = (v if b.shape(v) == shape else b.emit("expand", v, shape=shape) for v in pair)
    return first, second


def inverse(b: Parts, x: Pair) -> Pair:
    """1 / x, scaled by the larger part so that squares stay within range."""
    size = b.emit("clamp_min", b.emit("abs", x[0]), b.emit("abs", x[1]))
    real, imaginary = b.emit("div", x[0], size), b.emit("div", x[1], size)
    square = b.emit("add", b.emit("mul", real, real), b.emit("mul", imaginary, imaginary))
    scale = b.emit("mul", square, size)
    return b.emit("div", real, scale), b.emit("neg", b.emit("div", imaginary, scale))


def _divided(b: Parts) -> Result:
    if b.node.attrs.get("rounding_mode") is not None:
        raise unsupported("a rounded quotient of complex numbers")
    x = b.operand(0)
    if "other" in b.node.attrs:
        real, imaginary = number(b.node.attrs["other"])
        if imaginary:
            factor = 1 / complex(real, imaginary)
            constants = tuple(full(b, (), part, b.real) for part in (factor.real, factor.imag))
            return _broadcast(b, times(b, x, (constants[0], constants[1])))
        return _filled(b, (b.emit("div", x[0], None, scalar=real),
                           None if x[1] is None else b.emit("div", x[1], None, scalar=real)))  # fmt: skip
    y = b.operand(1)
    if y[1] is None:
        made = b.emit("div", x[0], y[0]), None if x[1] is None else b.emit("div", x[1], y[0])
        return _broadcast(b, _filled(b, made))
    return _broadcast(b, times(b, x, inverse(b, (y[0], y[1]))))


def _power(b: Parts) -> Result:
    exponent = b.node.attrs.get("exponent")
    if not isinstance(exponent, (int, float)) or exponent != int(exponent) or not 1 <= abs(exponent) <= 16:
        raise unsupported(f"complex numbers to the power of {exponent}", "use exponents of -16 to 16")
    x = b.parts(tensor_input(b.node))
    result = x
    for _ in range(abs(int(exponent)) - 1):
        result = times(b, result, x)
    return inverse(b, result) if exponent < 0 else result


def _polar(b: Parts) -> Result:
    radius, angle = (cast(b, tensor_input(b.node, index), b.real) for index in (0, 1))
    return from_polar(b, radius, angle)


def from_polar(b: Parts, radius: str, angle: str) -> Pair:
    real, imaginary = (b.emit("mul", radius, b.emit(name, angle)) for name in ("cos", "sin"))
    return real, imaginary


def _made(b: Parts) -> Result:
    return _broadcast(b, (tensor_input(b.node), tensor_input(b.node, 1)))


def _whole_input(rule: Callable[[Parts, Pair], Result]) -> Rule:
    return lambda b: rule(b, b.parts(tensor_input(b.node)))


def _exponential(b: Parts, x: Pair) -> Result:
    return from_polar(b, b.emit("exp", x[0]), x[1])


def _size(b: Parts, x: Pair) -> str:
    return b.emit("hypot", *x)


def _root(b: Parts, x: Pair) -> Result:
    angle = b.emit("mul", b.emit("atan2", x[1], x[0]), None, scalar=0.5)
    return from_polar(b, b.emit("sqrt", _size(b, x)), angle)


def _direction(b: Parts, x: Pair) -> Result:
    size = _size(b, x)
    safe = b.emit("add", size, cast(b, b.emit("eq", size, None, scalar=0), b.real))
    return b.emit("div", x[0], safe), b.emit("div", x[1], safe)


def _sine(b: Parts, x: Pair) -> Result:
    real = b.emit("mul", b.emit("sin", x[0]), b.emit("cosh", x[1]))
    return real, b.emit("mul", b.emit("cos", x[0]), b.emit("sinh", x[1]))


def _cosine(b: Parts, x: Pair) -> Result:
    real = b.emit("mul", b.emit("cos", x[0]), b.emit("cosh", x[1]))
    return real, b.emit("neg", b.emit("mul", b.emit("sin", x[0]), b.emit("sinh", x[1])))


def _equal(b: Parts) -> Result:
    same, combine = ("eq", "logical_and") if "eq" in b.node.op else ("ne", "logical_or")
    x = b.parts(tensor_input(b.node))
    if "other" in b.node.attrs:
        numbers = number(b.node.attrs["other"])
        made = [b.emit(same, part, None, scalar=value) for part, value in zip(x, numbers, strict=True)]
    else:
        y = b.parts(tensor_input(b.node, 1))
        made = [b.emit(same, left, right) for left, right in zip(x, y, strict=True)]
    return b.emit(combine, *made)


def _either(op: str, combine: str) -> Rule:
    def rule(b: Parts) -> Result:
        x = b.parts(tensor_input(b.node))
        return b.emit(combine, *(b.apply((part,), {}, f"aten.{op}.default")[0] for part in x))

    return rule


def _converted(b: Parts) -> Result:
    x, dtype = b.operand(0), b.node.out.dtype
    if dtype in REAL:
        return _filled(b, (cast(b, x[0], REAL[dtype]), None if x[1] is None else cast(b, x[1], REAL[dtype])))
    return cast(b, b.parts(tensor_input(b.node))[0], dtype)


def _constant(b: Parts) -> Result:
    value = b.node.attrs.get("fill_value", float("ones" in b.node.op))
    if b.node.out.dtype not in REAL:
        return full(b, b.node.out.shape, number(value)[0], b.node.out.dtype)
    real, imaginary = (full(b, b.node.out.shape, part, b.real) for part in number(value))
    return real, imaginary


def _conjugate(b: Parts, x: Pair) -> Result:
    return x[0], b.emit("neg", x[1])


def _transposed(b: Parts, x: Pair) -> Result:
    rank = len(b.shape(x[0]))
    order = (*range(rank - 2), rank - 1, rank - 2) if rank > 1 else tuple(range(rank))
    real, imaginary = (b.emit("permute", part, dims=order) for part in x)
    return real, b.emit("neg", imaginary)


_EACH_PART = words("""
    view reshape _unsafe_view permute transpose t slice select narrow split split_with_sizes chunk unbind
    tensor_split unsafe_split unsafe_chunk expand expand_as squeeze unsqueeze flatten unflatten clone
    contiguous index index_select gather flip roll repeat sum mean cumsum tril triu diagonal movedim moveaxis
    swapaxes swapdims numpy_T unfold view_as reshape_as broadcast_to repeat_interleave take_along_dim
    lift_fresh_copy fft_fftshift fft_ifftshift detach alias diag_embed trace rot90 fliplr flipud resolve_neg
    neg positive mT tile resolve_conj diag diagflat ravel take masked_select im2col embedding dropout
    atleast_1d atleast_2d atleast_3d movedim squeeze_copy
""")
_EVERY_OPERAND = words("""
    add sub cat concat concatenate stack where masked_fill copy select_scatter slice_scatter diagonal_scatter
    index_put index_copy index_add hstack vstack dstack constant_pad_nd pad rsub scatter scatter_add
""")
_PRODUCTS = words("matmul mm bmm mv dot vdot outer linear einsum kron tensordot inner ger")

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(_EACH_PART, _each_part),
        **dict.fromkeys(_EVERY_OPERAND, _every_operand),
        **dict.fromkeys(_PRODUCTS, _bilinear),
        **dict.fromkeys(("mul", "multiply"), _multiplied),
        **dict.fromkeys(("div", "true_divide", "divide"), _divided),
        **dict.fromkeys(("conj", "_conj", "conj_physical"), _whole_input(_conjugate)),
        **dict.fromkeys(("mH", "adjoint", "matrix_H"), _whole_input(_transposed)),
        **dict.fromkeys(("abs", "absolute"), _whole_input(_size)),
        **dict.fromkeys(("to", "_to_copy", "type_as"), _converted),
        **dict.fromkeys(
            ("zeros", "ones", "full", "empty", "zeros_like", "ones_like", "full_like", "empty_like"),
            _constant,
        ),
        **dict.fromkeys(("eq", "ne"), _equal),
        "pow": _power,
        "square": _whole_input(lambda b, x: times(b, x, x)),
        "reciprocal": _whole_input(inverse),
        "real": _whole_input(lambda b, x: x[0]),
        "imag": _whole_input(lambda b, x: x[1]),
        "view_as_real": _whole_input(join),
        "view_as_complex": lambda b: split(b, tensor_input(b.node)),
        "complex": _made,
        "polar": _polar,
        "angle": _whole_input(lambda b, x: b.emit("atan2", x[1], x[0])),
        "exp": _whole_input(_exponential),
        "log": _whole_input(lambda b, x: (b.emit("log", _size(b, x)), b.emit("atan2", x[1], x[0]))),
        "sqrt": _whole_input(_root),
        "sgn": _whole_input(_direction),
        "sin": _whole_input(_sine),
        "cos": _whole_input(_cosine),
        "isnan": _either("isnan", "logical_or"),
        "isinf": _either("isinf", "logical_or"),
        "isfinite": _either("isfinite", "logical_and"),
        "isreal": _whole_input(lambda b, x: b.emit("eq", x[1], None, scalar=0)),
    }
)
