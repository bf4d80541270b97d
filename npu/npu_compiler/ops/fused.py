"""Several elementwise ops as one node: what fusion leaves of chains and trees of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npu_compiler import pointwise
from npu_compiler.ctext import Operand, Step, unpack_body
from npu_compiler.ops import Attrs, Case, OpDef, Specs, op_def, register
from npu_compiler.shapes import broadcast
from torch_ir.ir import Attr, TensorSpec


def run_body(torch: Any, body: Attr, inputs: Sequence[Any]) -> Any:
    """The meaning of a packed body: its steps' references, in order. Without steps the first input."""
    values = {f"i{index}": value for index, value in enumerate(inputs)}
    result = inputs[0] if inputs else None
    for index, step in enumerate(unpack_body(body or ())):
        scalar = next((operand for operand in step.operands if not isinstance(operand, str)), None)
        operands = [values[operand] if isinstance(operand, str) else None for operand in step.operands]
        attrs = step.attrs if scalar is None else {**step.attrs, "scalar": scalar}
        result = values[f"t{index}"] = op_def(step.op).reference(torch, *operands, **attrs)
    return result


def _infer(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    shape = broadcast([spec.shape for spec in specs if spec is not None])
    return (TensorSpec(shape, unpack_body(attrs["body"])[-1].dtype),)


def _case(
    shapes: tuple[tuple[int, ...], ...],
    *steps: tuple[str, tuple[Operand, ...], str],
    layouts: tuple[str, ...] = ("row",),
) -> Case:
    body = tuple(
        Step(op, operands, {"dtype": f"torch.{dtype}"} if op == "cast" else {}, dtype).pack()
        for op, operands, dtype in steps
    )
    return Case(shapes, {"body": body}, layouts=layouts)


register(
    OpDef(
        "pointwise",
        _infer,
        reference=lambda torch, *inputs, body: run_body(torch, body, inputs),
        emit=pointwise.emit,
        cases=(
            _case(
                ((3, 7), (7,)),
                ("mul", ("i0", 0.5), "float32"),
                ("add", ("t0", "i1"), "float32"),
                ("sigmoid", ("t1",), "float32"),
                ("sub", (1.0, "t2"), "float32"),
            ),
            _case(
                ((2, 13, 5, 3), (2, 13, 5, 3), (13, 1, 1)),
                ("gt", ("i0", "i1"), "bool"),
                ("mul", ("i0", "i2"), "float32"),
                ("where", ("t0", "t1", "i1"), "float32"),
                layouts=("row", "nhwc8"),
            ),
            _case(
                ((29,),),
                ("mul", ("i0", 100.0), "float32"),
                ("cast", ("t0",), "int64"),
                ("add", ("t1", 1), "int64"),
                ("cast", ("t2",), "float32"),
                ("mul", ("t3", "i0"), "float32"),
            ),
        ),
    )
)
