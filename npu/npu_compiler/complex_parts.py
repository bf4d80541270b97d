"""Complex numbers as pairs of real ones: what rules for operations on them are written with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, Union

from npu_compiler.dtypes import REAL, attr_dtype
from npu_compiler.fourier import Array
from npu_compiler.lowering import Builder, as_number
from npu_compiler.ops.creation import full
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.views import reshape, slice_dim, tensor_input
from torch_ir.ir import Attr, Node, TensorSpec

#: The real and the imaginary part of a value.
Pair: TypeAlias = tuple[str, str]
#: What stands for an output: a pair for a complex one, else a value.
Result: TypeAlias = Union[str, Pair]


class Parts(Builder):
    """A builder that knows the parts of complex values, and emits extracted operations too."""

    def __init__(
        self,
        node: Node,
        specs: Mapping[str, TensorSpec],
        taken: set[str],
        symbols: Mapping[str, tuple[int, int]],
        pairs: Mapping[str, Pair],
        constant: Callable[[str, Array, str], str],
    ) -> None:
        super().__init__(node, specs, taken, symbols)
        self._pairs = dict(pairs)
        self._constant = constant

    @property
    def real(self) -> str:
        """The dtype of the parts of what the node makes or takes."""
        specs = [*self.node.outs, *(self.spec(v) for v in self.node.inputs if v is not None)]
        return next((REAL[spec.dtype] for spec in specs if spec.dtype in REAL), specs[0].dtype)

    def constant(self, kind: str, values: Array) -> str:
        """A table of numbers."""
        name = self._constant(kind, values, self.real)
        self._specs[name] = TensorSpec(values.shape, self.real)
        return name

    def is_complex(self, value: str | None) -> bool:
        return value is not None and self.spec(value).dtype in REAL

    def parts(self, value: str) -> Pair:
        """The parts of a complex value; a real one, in the parts' dtype, and zeros."""
        if not self.is_complex(value):
            return cast(self, value, self.real), full(self, self.shape(value), 0.0, self.real)
        if value not in self._pairs:
            shape, dtype = self.shape(value), REAL[self.spec(value).dtype]
            flat = self.emit("reinterpret", reshape(self, value, (*shape, 1)), dtype=f"torch.{dtype}")
            self._pairs[value] = split(self, flat)
        return self._pairs[value]

    def operand(self, index: int) -> tuple[str, str | None]:
        """The parts of an input, in the dtype of the result's; None where it is real."""
        value = tensor_input(self.node, index)
        if not self.is_complex(value):
            return cast(self, value, self.real), None
        real, imaginary = self.parts(value)
        return cast(self, real, self.real), cast(self, imaginary, self.real)

    def apply(self, inputs: Sequence[str | None], attrs: Mapping[str, Attr], op: str = "") -> list[str]:
        """The node's own operation on parts."""
        node = self.node
        outs = tuple(replace(out, dtype=REAL.get(out.dtype, out.dtype)) for out in node.outs)
        outputs = tuple(self._fresh(f"{name}.part") for name in node.outputs)
        self._specs.update(zip(outputs, outs, strict=True))
        attrs = {
            key: f"torch.{REAL[attr_dtype(v)]}" if isinstance(v, str) and attr_dtype(v) in REAL else v
            for key, v in attrs.items()
        }
        origin = node.origin or (node.name,)
        self.nodes.append(
            Node(outputs[0], op or node.op, tuple(inputs), outputs, outs, attrs, node.loc, origin)
        )
        return list(outputs)


#: What stands for the outputs of a node on complex numbers.
Rule: TypeAlias = Callable[[Parts], "Result | list[Result]"]


def split(b: Builder, pairs: str) -> Pair:
    """The two elements of the last dimension."""
    *shape, _ = b.shape(pairs)
    last = len(shape)
    first, second = (reshape(b, slice_dim(b, pairs, last, i, 1), tuple(shape)) for i in (0, 1))
    return first, second


def join(b: Builder, pair: Pair) -> str:
    """The parts in a last dimension of 2."""
    shape = b.shape(pair[0])
    return b.emit("concat", *(reshape(b, part, (*shape, 1)) for part in pair), dim=len(shape))


def whole(b: Builder, pair: Pair) -> str:
    """The complex value of these parts."""
    shape = b.shape(pair[0])
    dtype = next(dtype for dtype, part in REAL.items() if part == b.spec(pair[0]).dtype)
    return reshape(b, b.emit("reinterpret", join(b, pair), dtype=f"torch.{dtype}"), shape)


def number(attr: Attr) -> tuple[float, float]:
    """A number's parts; a complex one is a text in a graph."""
    if isinstance(attr, str):
        value = complex(attr)
        return value.real, value.imag
    return as_number(attr), 0.0
