"""Products and normalisations of the same rows, one after the other, as one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from npu_compiler.ctext import Operand, Step, unpack_body
from npu_compiler.dtypes import SHORT, literal
from npu_compiler.errors import Unsupported
from npu_compiler.lowering import as_number
from npu_compiler.ops import Attrs, Case, Cost, OpDef, Specs, op_def, register
from npu_compiler.pointwise import index_type
from npu_compiler.products import LANES, TAILS, epilogue_lines, pack_bias, pack_panels
from npu_compiler.select import BufferUse, ScalarUse
from npu_compiler.spaces import Choice
from npu_compiler.tuning import CHAIN, panel_width
from npu_compiler.views import View, reshape
from npu_runtime.program import THREADS
from torch_ir.expr import Dim, ceil_div, maximum, minimum, product, symbol
from torch_ir.ir import Attr, Node, TensorSpec

if TYPE_CHECKING:
    from npu_compiler.emit import Emitter

#: Inputs of a stage that are rows, as its result is; the others are weights.
ROWS = {"linear": (0, 3), "norm": (0,)}
#: Bytes of a product's weights, at most, for work-items that begin at different panels: cores then seldom ask
#: for the same lines at once. More would not stay in the cache that they share, and each would read memory.
SPREAD = 4 << 20


def _specs(stages: Attr, given: Specs) -> dict[str, TensorSpec]:
    """What every value of a chain is: "i0", "i1", ... its inputs, "t0", "t1", ... what its stages make."""
    found = {f"i{index}": spec for index, spec in enumerate(given) if spec is not None}
    for index, step in enumerate(unpack_body(stages)):
        operands = [found[str(name)] if name else None for name in step.operands]
        (found[f"t{index}"],) = op_def(step.op).infer(operands, step.attrs)
    return found


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    found = _specs(attrs["stages"], specs)
    return tuple(found[name] for name in _results(attrs["results"]))


def _results(results: Attr) -> tuple[str, ...]:
    assert isinstance(results, tuple)
    return tuple(str(name) for name in results)


def _reference(torch: Any, *inputs: Any, stages: Attr, results: Attr) -> Any:
    """The references of the stages, in order; ``results`` names those that are outputs."""
    values = {f"i{index}": value for index, value in enumerate(inputs)}
    for index, step in enumerate(unpack_body(stages)):
        operands = [values[str(name)] if name else None for name in step.operands]
        values[f"t{index}"] = op_def(step.op).reference(torch, *operands, **step.attrs)
    made = tuple(values[name] for name in _results(results))
    return made[0] if len(made) == 1 else made


class _Chain:
    """The kernel's parameters as they are collected."""

    def __init__(self, e: Emitter, node: Node, choice: Choice) -> None:
        self.e, self.node, self.tile = e, node, int(choice["mr"])
        self.uses: dict[str, BufferUse] = {}
        self.elements: dict[str, str] = {}
        self.matrices: dict[str, View] = {}

    def buffer(self, view: View, access: str) -> int:
        """The number of the argument that is the view's buffer."""
        known = self.uses.get(view.buffer)
        self.uses[view.buffer] = BufferUse(view.buffer, access if known is None else known.access)
        self.elements[view.buffer] = "float" if view.dtype == "float32" else "ushort"
        return list(self.uses).index(view.buffer)

    def place(self, view: View, access: str = "r") -> dict[str, int]:
        """Where rows lie, for the kernel."""
        number = self.buffer(view, access)
        return {"buffer": number, "offset": int(str(view.offset)), "row": int(str(view.strides[0]))}

    def rows(self, name: str) -> View:
        """A value as rows whose numbers lie one after the other, each row at a vector's alignment."""
        if name not in self.matrices:
            value = str(self.node.inputs[int(name[1:])])
            view = self.e.view(value)
            self.matrices[name] = self._matrix(view) or self._required(self.e.dense(view, self.node, name))
        return self.matrices[name]

    def _matrix(self, view: View) -> View | None:
        found = reshape(view, (product(view.shape[:-1]), view.shape[-1]))
        if found is None or view.dtype != "float32" or found.strides[1] != 1:
            return None
        places = (found.strides[0], found.offset)
        return found if all(isinstance(p, int) and p % LANES == 0 for p in places) else None

    def _required(self, view: View) -> View:
        found = self._matrix(view)
        if found is None:
            raise Unsupported(f"rows of {view.dtype} {view.shape}", f"they must be float32, of {LANES}s")
        return found

    def made(self, index: int, spec: TensorSpec) -> View:
        """Memory for what a stage makes."""
        name, results = f"t{index}", _results(self.node.attrs["results"])
        if name in results:
            view = self.e.output(self.node, results.index(name))
        else:
            view = self.e.scratch(_value(self.node, name), spec)
        self.matrices[name] = self._required(view)
        return self.matrices[name]

    def vector(self, operand: Operand) -> int | None:
        """The argument that is a constant vector; None where it is absent."""
        if not operand:
            return None
        value = str(self.node.inputs[int(str(operand)[1:])])
        return self.buffer(self.e.weight(value, (int(str(self.e.spec(value).shape[0])),)), "r")

    def stage(self, step: Step, index: int, spec: TensorSpec) -> dict[str, Any]:
        """A stage's parameters."""
        x = self.place(self.rows(str(step.operands[0])))
        if step.op == "linear":
            return {"product": True, "x": x, **self._product(step, index, spec)}
        weight, bias = (self.vector(operand) for operand in (*step.operands[1:], "", "")[:2])
        return {
            "product": False,
            "x": x,
            "y": self.place(self.made(index, spec), "rw"),
            "length": int(str(spec.shape[-1])),
            "weight": weight,
            "bias": bias,
            "eps": literal(float(as_number(step.attrs["eps"])), "float32"),
            "centred": bool(step.attrs["centred"]),
        }

    def _product(self, step: Step, index: int, spec: TensorSpec) -> dict[str, Any]:
        _, weight, bias, residual = (*step.operands, "", "")[:4]
        name = str(self.node.inputs[int(str(weight)[1:])])
        out, inner = (int(str(size)) for size in self.e.spec(name).shape)
        wide = panel_width(out)
        if out % wide:
            raise Unsupported(f"a chained product of {out} columns", f"they must be a multiple of {wide}")
        _, stored = self.e.constant(name)
        _, count, pack = pack_panels(1, out, inner, (1, 1), wide, stored)
        spread = int(str(TensorSpec((count,), stored).nbytes)) <= SPREAD
        packed = self.buffer(self.e.weight(name, (count,), pack, stored=True), "r")
        places = None
        if bias:
            length, pack_b = pack_bias(1, out, wide)
            value = str(self.node.inputs[int(str(bias)[1:])])
            places = self.buffer(self.e.weight(value, (length,), pack_b), "r")
        return {
            "w": packed,
            "next": None,
            "begin": f"item * {out // wide} / items" if spread else "0",
            "bias": places,
            "r": self.place(self.rows(str(residual))) if residual else None,
            "y": self.place(self.made(index, spec), "rw"),
            "inner": inner,
            "out": out,
            "mr": self.tile,
            "tail": TAILS[self.tile],
            "nv": wide // LANES,
            "unroll": next(number for number in (4, 3, 2, 1) if inner % number == 0),
            "weight": SHORT[stored],
            "epilogue": epilogue_lines(step.attrs.get("epilogue", ())),
        }


def _value(node: Node, name: str) -> str:
    """The value that "i0", "t0" and so on are of the chain ``node``."""
    if name[0] == "i":
        return str(node.inputs[int(name[1:])])
    results = _results(node.attrs["results"])
    return node.outputs[results.index(name)] if name in results else f"{node.name}:{name}"


def _emit(e: Emitter, node: Node) -> None:
    specs = _specs(node.attrs["stages"], [e.spec(value) if value else None for value in node.inputs])
    steps = unpack_body(node.attrs["stages"])
    _, stored = e.constant(str(node.inputs[int(str(_first_product(steps).operands[1])[1:])]))
    count = product(node.out.shape[:-1])
    widths = ",".join(
        f"{step.op}:{specs[str(step.operands[0])].shape[-1]}x{specs[f't{index}'].shape[-1]}"
        for index, step in enumerate(steps)
    )
    choice = e.choose(CHAIN, {"rows": e.bounds(count)[1], "stages": widths, "weight": SHORT[stored]})
    many = minimum(1, count // (symbol(THREADS) * int(choice["least"])))
    e.emit_where(1 - many, _apart(node, steps, specs))
    chain = _Chain(e, node, choice)
    stages = [chain.stage(step, index, specs[f"t{index}"]) for index, step in enumerate(steps)]
    for stage, following in pairwise([stage for stage in stages if stage["product"]]):
        stage["next"] = following
    if index_type(e, list(chain.matrices.values())) != "int":
        raise Unsupported("rows of more than 2**31 elements", "lower the bounds of the dynamic dimensions")
    rows = rows_of(count, int(choice["most"]))
    e.call(
        "row_chain",
        "",
        "ops/row_chain.cl.j2",
        {
            "buffers": [(chain.elements[name], use.access != "r") for name, use in chain.uses.items()],
            "stages": stages,
        },
        node=node,
        shown={"n": len(stages)},
        args=[*chain.uses.values(), ScalarUse(count), ScalarUse(rows)],
        global_size=(ceil_div(count, rows) * many,),
        local_size=(1,),
        cost=_cost(e, node, steps, specs).times(many),
    )


def _first_product(steps: Sequence[Step]) -> Step:
    return next(step for step in steps if step.op == "linear")


def _apart(node: Node, steps: Sequence[Step], specs: dict[str, TensorSpec]) -> list[Node]:
    """The stages as nodes of their own, which write the same memory."""
    return [
        replace(
            node,
            name=f"{node.name}:{index}",
            op=step.op,
            inputs=tuple(_value(node, str(name)) if name else None for name in step.operands),
            outputs=(_value(node, f"t{index}"),),
            outs=(specs[f"t{index}"],),
            attrs=step.attrs,
            origin=node.origin or (node.name,),
        )
        for index, step in enumerate(steps)
    ]


def rows_of(count: Dim, most: int) -> Dim:
    """How many of ``count`` rows a work-item takes: ``most``, which its cache is meant for, or fewer, so that
    every thread of the device has work, and all of them as much."""
    threads = symbol(THREADS)
    rounds = maximum(1, ceil_div(count, threads * most))
    return maximum(1, ceil_div(count, threads * rounds))


def _cost(e: Emitter, node: Node, steps: Sequence[Step], specs: dict[str, TensorSpec]) -> Cost:
    """Operations of the stages; inputs and outputs once."""
    flops: Dim = 0
    for index, step in enumerate(steps):
        made = specs[f"t{index}"].numel
        inner = specs[str(step.operands[0])].shape[-1]
        flops = flops + (2 * made * inner if step.op == "linear" else 8 * made)
    read = sum((e.spec(value).nbytes for value in node.inputs if value), 0)
    return Cost(flops, read, sum((spec.nbytes for spec in node.outs), 0))


def _case(
    shapes: tuple[tuple[int, ...], ...],
    *stages: Step,
    results: tuple[str, ...],
    constant: tuple[int, ...],
) -> Case:
    attrs = {"stages": tuple(step.pack() for step in stages), "results": results}
    return Case(shapes, attrs, constant=constant)


_ADD = {"epilogue": (Step("add", ("i0", "i1"), {}, "float32").pack(),)}
_GELU = {"epilogue": (Step("gelu_erf", ("i0",), {}, "float32").pack(),)}
_LAYER = {"count": 1, "eps": 1e-5, "centred": True}
_RMS = {"count": 1, "eps": 1e-6, "centred": False}

register(
    OpDef(
        "row_chain",
        _infer,
        _reference,
        emit=_emit,
        rtol=2e-5,
        atol=2e-5,
        cases=(
            _case(
                ((2, 61, 24), (32, 24), (32,), (2, 61, 32), (32,), (32,), (48, 32), (48,), (32, 48)),
                Step("linear", ("i0", "i1", "i2", "i3"), _ADD, "float32"),
                Step("norm", ("t0", "i4", "i5"), _LAYER, "float32"),
                Step("linear", ("t1", "i6", "i7"), _GELU, "float32"),
                Step("linear", ("t2", "i8", "", "t1"), _ADD, "float32"),
                results=("t3",),
                constant=(1, 2, 4, 5, 6, 7, 8),
            ),
            _case(
                ((5, 8), (8,), (16, 8)),
                Step("norm", ("i0", "i1", ""), _RMS, "float32"),
                Step("linear", ("t0", "i2", ""), {}, "float32"),
                results=("t0", "t1"),
                constant=(1, 2),
            ),
            _case(
                ((113, 40), (8, 40), (8,)),
                Step("linear", ("i0", "i1", ""), {}, "float32"),
                Step("norm", ("t0", "", "i2"), _LAYER, "float32"),
                results=("t1",),
                constant=(1, 2),
            ),
        ),
    )
)
