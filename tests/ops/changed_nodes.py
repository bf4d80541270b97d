"""Nodes of the sample calls, alone in a graph each, and one change in each that a file could have."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch_ir.expr import Expr
from torch_ir.ir import IR, Output, TensorSpec

DTYPES = ("float32", "float64", "float16", "int64", "int32", "uint8", "bool")


def alone(ir: IR) -> Iterator[IR]:
    """Every node that computes something, its operands as inputs but for those that are constants."""
    specs = ir.values()
    for node in ir.nodes:
        if node.outs and "." in node.op:
            read = [value for value in node.inputs if value is not None]
            yield IR(
                node.name,
                {value: specs[value] for value in read if value not in ir.constants},
                tuple(Output(f"result{index}", value) for index, value in enumerate(node.outputs)),
                (replace(node, origin=()),),
                constants={value: ir.constants[value] for value in read if value in ir.constants},
                symbols=ir.symbols,
            )


def changed(ir: IR, rng: random.Random) -> IR:
    """The graph with another shape or dtype of a result or an operand, or another argument."""
    (node,) = ir.nodes
    kind = rng.choice(("result", "result", "operand", "argument", "argument"))
    if kind == "argument" and node.attrs:
        name = rng.choice(sorted(node.attrs))
        value = _argument(rng, node.attrs[name])
        attrs = {key: item for key, item in node.attrs.items() if key != name}
        return replace(
            ir, nodes=(replace(node, attrs=attrs if value is None else {**node.attrs, name: value}),)
        )
    if kind == "operand" and ir.inputs:
        name = rng.choice(sorted(ir.inputs))
        return replace(ir, inputs={**ir.inputs, name: _spec(rng, ir.inputs[name])})
    outs = list(node.outs)
    at = rng.randrange(len(outs))
    outs[at] = _spec(rng, outs[at])
    return replace(ir, nodes=(replace(node, outs=tuple(outs)),))


def _spec(rng: random.Random, spec: TensorSpec) -> TensorSpec:
    if rng.random() < 0.25:
        return replace(spec, dtype=rng.choice(DTYPES))
    shape = list(spec.shape)
    at = rng.randrange(len(shape) + 1)
    change = rng.randrange(8)
    if change == 0 or not shape:
        shape.insert(at, rng.choice((1, 1, 2)))
    elif change == 1:
        del shape[min(at, len(shape) - 1)]
    elif change == 2:
        shape.reverse()
    elif change == 3 and len(shape) > 1:
        other = rng.randrange(len(shape))
        at = min(at, len(shape) - 1)
        shape[at], shape[other] = shape[other], shape[at]
    elif change == 4 and len(shape) > 1:  # two dimensions as one
        at = min(at, len(shape) - 2)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    else:
        at = min(at, len(shape) - 1)
        size = shape[at]
        shape[at] = max(size + rng.choice((1, -1)), 0) if isinstance(size, int) else size + 1
        if isinstance(size, int) and rng.random() < 0.3:
            shape[at] = rng.choice((0, 1, 2 * size))
    return replace(spec, shape=tuple(shape))


def _argument(rng: random.Random, value: Any) -> Any:
    """Another value; None: the argument goes."""
    if rng.random() < 0.1:
        return None
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((1, -1, 2, -3, -value, -2 * value, 7))
    if isinstance(value, float):
        return rng.choice((value * 2, -value, 0.0, value + 1, int(value) if abs(value) < 1e9 else 0))
    if isinstance(value, tuple):
        items = list(value)
        at = rng.randrange(len(items) + 1)
        change = rng.randrange(4)
        if change == 0 or not items:
            items.insert(at, rng.choice(items) if items else 0)
        elif change == 1:
            del items[min(at, len(items) - 1)]
        elif change == 2:
            items.reverse()
        else:
            at = min(at, len(items) - 1)
            item = _argument(rng, items[at])
            items[at] = items[at] if item is None else item
        return tuple(items)
    if isinstance(value, str) and value.startswith("torch."):
        return f"torch.{rng.choice(DTYPES)}"
    if isinstance(value, Expr):
        return value + rng.choice((1, -1))
    return rng.choice((None, 0, 1, "x"))
