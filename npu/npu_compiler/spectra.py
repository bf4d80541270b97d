"""Rules for Fourier transforms, over the parts of complex numbers (``complex_parts``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from npu_compiler import fourier
from npu_compiler.complex_parts import Pair, Parts, Result, Rule
from npu_compiler.lowering import as_int, as_ints, unsupported, wrap_dim
from npu_compiler.ops.views import slice_dim
from torch_ir.expr import Dim
from torch_ir.functionalize import base_name
from torch_ir.ir import Attr

#: What a transform divides by: nothing, the root of the number of elements, or that number.
_NONE, _ROOT, _ALL = 0, 1, 2


def _along(b: Parts, x: fourier.Parts, dims: Sequence[int], forward: bool) -> fourier.Parts:
    for dim in dims:
        x = fourier.transform(b, b.constant, x, dim, forward)
    return x


def _scaled(b: Parts, x: fourier.Parts, kind: int, dims: Sequence[int], shape: Sequence[Dim]) -> Pair:
    sizes = [as_int(shape[dim]) for dim in dims]
    real = fourier.scaled(b, x[0], kind, sizes)
    assert x[1] is not None
    return real, fourier.scaled(b, x[1], kind, sizes)


def _to_complex(b: Parts, x: fourier.Parts, dims: Sequence[int], kind: int, forward: bool) -> Result:
    shape = b.shape(x[0])
    made = _along(b, x, dims, forward)
    if made[1] is None:
        raise unsupported("a Fourier transform over no dimension")
    return _scaled(b, made, kind, dims, shape)


def _half(b: Parts, x: str, dims: Sequence[int], kind: int) -> Pair:
    """Of a real tensor, the first half along the last of ``dims``; the rest mirrors it."""
    shape, last = b.shape(x), dims[-1]
    real, imaginary = fourier.transform(b, b.constant, (x, None), last, True)
    count = as_int(shape[last]) // 2 + 1
    made = _along(
        b,
        (slice_dim(b, real, last, 0, count), slice_dim(b, imaginary, last, 0, count)),
        dims[:-1],
        True,
    )
    return _scaled(b, made, kind, dims, shape)


def _to_real(b: Parts, x: tuple[str, str], dims: Sequence[int], kind: int, size: int) -> str:
    """The real tensor, ``size`` long in the last of ``dims``, of which ``x`` is half the spectrum."""
    first, second = _along(b, x, dims[:-1], False)
    assert second is not None
    full = fourier.complete(b, (first, second), dims[-1], size)
    real, _ = fourier.transform(b, b.constant, full, dims[-1], False)
    return fourier.scaled(b, real, kind, [as_int(b.shape(real)[dim]) for dim in dims])


def _pair(b: Parts) -> tuple[str, str]:
    real, imaginary = b.operand(0)
    return real, imaginary if imaginary is not None else b.parts(str(b.node.inputs[0]))[1]


def _core(b: Parts) -> Result:
    """The operations that the others are made of: dimensions and sizes are given."""
    attrs, x = b.node.attrs, b.operand(0)
    rank = len(b.shape(x[0]))
    dims = [wrap_dim(dim, rank) for dim in as_ints(attrs["dim"])]
    kind = as_int(attrs["normalization"])
    base = base_name(b.node.op)
    if base == "_fft_c2r":
        return _to_real(b, _pair(b), dims, kind, as_int(attrs["last_dim_size"]))
    if base == "_fft_r2c" and attrs["onesided"]:
        return _half(b, x[0], dims, kind)
    return _to_complex(b, x, dims, kind, base == "_fft_r2c" or bool(attrs["forward"]))


def _named(b: Parts) -> Result:
    """``torch.fft``: sizes and dimensions with defaults, padded or cut."""
    attrs, x = b.node.attrs, b.operand(0)
    kind, rank = base_name(b.node.op).removeprefix("fft_"), len(b.shape(x[0]))
    way, _, many = kind.partition("fft")
    given = attrs.get("n" if not many else "s")
    sizes = None if given is None else list(as_ints(given))
    dims = _dimensions(attrs.get("dim"), many, rank, sizes)
    sizes = sizes or [-1] * len(dims)
    if len(sizes) != len(dims) or len(set(dims)) != len(dims) or not dims:
        raise unsupported(f"{kind} of sizes {sizes} along the dimensions {dims}")
    forward, halves, to_real = not way.startswith("i"), way[-1:] in ("r", "h"), way in ("ir", "h")
    out = sizes[-1] if sizes[-1] != -1 else 2 * (as_int(b.shape(x[0])[dims[-1]]) - 1)
    if to_real:
        sizes[-1] = out // 2 + 1
    x = _resized(b, x[0], dims, sizes), None if x[1] is None else _resized(b, x[1], dims, sizes)
    scale = _scale(attrs.get("norm"), forward)
    if to_real:
        if out < 1:
            raise unsupported(f"{kind} of {out} elements")
        imaginary = x[1] if x[1] is not None else b.emit("sub", x[0], x[0])
        if way == "h":  # as the backward transform of the conjugate
            imaginary = b.emit("neg", imaginary)
        return _to_real(b, (x[0], imaginary), dims, scale, out)
    if halves:
        half = _half(b, x[0], dims, scale)
        return (half[0], b.emit("neg", half[1])) if way == "ih" else half
    return _to_complex(b, x, dims, scale, forward)


def _dimensions(attr: Attr, many: str, rank: int, sizes: list[int] | None) -> list[int]:
    if attr is not None:
        return [wrap_dim(dim, rank) for dim in as_ints(attr)]
    count = {"": 1, "2": 2}.get(many, rank if sizes is None else len(sizes))
    return [wrap_dim(dim, rank) for dim in range(-count, 0)]


def _scale(norm: Attr, forward: bool) -> int:
    if norm == "ortho":
        return _ROOT
    if norm not in (None, "backward", "forward"):
        raise unsupported(f"a Fourier transform with norm {norm!r}")
    return _ALL if forward == (norm == "forward") else _NONE


def _resized(b: Parts, x: str, dims: Sequence[int], sizes: Sequence[int]) -> str:
    """Cut, or padded with zeros at the end; -1 leaves a size."""
    for dim, size in zip(dims, sizes, strict=True):
        old = b.shape(x)[dim]
        if size == -1 or old == size:
            continue
        old = as_int(old)
        if size < old:
            x = slice_dim(b, x, dim, 0, size)
        else:
            pads = [0] * (2 * len(b.shape(x)))
            pads[2 * dim + 1] = size - old
            x = b.emit("pad", x, pads=tuple(pads), value=0.0)
    return x


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(("_fft_r2c", "_fft_c2c", "_fft_c2r"), _core),
        **dict.fromkeys(
            (
                *(f"fft_{way}fft{many}" for way in ("", "i", "r", "ir") for many in ("", "2", "n")),
                *(f"fft_{way}hfft{many}" for way in ("", "i") for many in ("", "2", "n")),
            ),
            _named,
        ),
    }
)
