"""Runs a graph with PyTorch by the op records' references: the executable meaning of a lowered graph.

Operations that have no record yet (of an extracted graph) run as PyTorch's own.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from npu_compiler.errors import CompileError
from npu_compiler.ops import load_all
from torch_ir.calling import arguments, converter, overload
from torch_ir.expr import Expr, evaluate
from torch_ir.ir import IR, Attr, Node, TensorSpec


@dataclass(frozen=True)
class Interpreted:
    """Tensors by name: outputs, and states by key as they are after the run."""

    outputs: Mapping[str, Any]
    states: Mapping[str, Any]


def interpret(
    ir: IR,
    inputs: Mapping[str, Any],
    weights: Mapping[str, Any] | None = None,
    states: Mapping[str, Any] | None = None,
) -> Interpreted:
    """Runs ``ir`` on the CPU.

    ``inputs`` by name, ``weights`` by state_dict key and ``states`` by key are NumPy arrays or tensors; a
    state that is not given starts as the graph says. Layouts do not matter here. Raises ``CompileError`` for
    a missing input or weight, one with another shape or dtype, and sizes that do not follow from the inputs.
    """
    torch = importlib.import_module("torch")
    with torch.no_grad():
        return _run(torch, ir, inputs, weights or {}, states or {})


def _run(
    torch: Any, ir: IR, inputs: Mapping[str, Any], weights: Mapping[str, Any], states: Mapping[str, Any]
) -> Interpreted:
    symbols = _symbols(ir, inputs)

    def take(kind: str, name: str, given: Mapping[str, Any], spec: TensorSpec) -> Any:
        if name not in given:
            raise CompileError(f"{ir.name}: {kind} {name} is missing; given are {', '.join(given) or 'none'}")
        tensor = torch.as_tensor(given[name])
        shape = tuple(evaluate(size, symbols) for size in spec.shape)
        if (tuple(tensor.shape), str(tensor.dtype)) != (shape, f"torch.{spec.dtype}"):
            raise CompileError(
                f"{ir.name}: {kind} {name} is {tensor.dtype}{list(tensor.shape)}; "
                f"expected {spec.dtype}{list(shape)}"
            )
        return tensor

    values = {name: take("input", name, inputs, spec) for name, spec in ir.inputs.items()}
    for name, key in ir.weight_name_mapping.items():
        values[name] = take("weight", key, weights, ir.weights[key])
    for name, constant in ir.constants.items():
        values[name] = _constant(torch, constant.data, constant.spec)
    for name, state in ir.states.items():
        if state.key in states or state.persistent:
            given = states if state.key in states else weights
            values[name] = take("state", state.key, given, state.spec)
        else:
            values[name] = _constant(torch, state.data, state.spec)
    ops, _ = load_all()
    for node in ir.nodes:
        operands = [None if value is None else values[value] for value in node.inputs]
        if node.op in ops:
            attrs = {name: _number(value, symbols) for name, value in node.attrs.items()}
            result = ops[node.op].reference(torch, *operands, **attrs)
        else:
            result = _aten(torch, node, operands, symbols)
        results = [result] if isinstance(result, torch.Tensor) else list(result)[: len(node.outputs)]
        values.update(zip(node.outputs, results, strict=True))
    return Interpreted(
        {output.name: values[output.value] for output in ir.outputs},
        {state.key: values[state.update or name] for name, state in ir.states.items()},
    )


def _symbols(ir: IR, inputs: Mapping[str, Any]) -> dict[str, int]:
    """The symbols' values, from the dimensions of inputs that are a symbol alone."""
    found: dict[str, int] = {}
    for name, spec in ir.inputs.items():
        for axis, dim in enumerate(spec.shape):
            if str(dim) in ir.symbols and name in inputs:
                found[str(dim)] = int(inputs[name].shape[axis])
    missing = ir.symbols.keys() - found.keys()
    if missing:
        raise CompileError(f"{ir.name}: no input has {', '.join(sorted(missing))} as a dimension")
    return found


def _constant(torch: Any, data: bytes | None, spec: TensorSpec) -> Any:
    shape = tuple(int(str(size)) for size in spec.shape)
    dtype = getattr(torch, spec.dtype)
    if data is None:
        return torch.zeros(shape, dtype=dtype)
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy()).view(dtype).reshape(shape)


def _number(attr: Attr, symbols: Mapping[str, int]) -> Any:
    """An attribute with its sizes evaluated."""
    if isinstance(attr, Expr):
        return evaluate(attr, symbols)
    return tuple(_number(item, symbols) for item in attr) if isinstance(attr, tuple) else attr


def _aten(torch: Any, node: Node, operands: list[Any], symbols: Mapping[str, int]) -> Any:
    """Calls the overload that an extracted node names."""
    operation = overload(torch, node.op)
    convert = converter(
        torch, lambda attr: _number(attr, symbols), lambda name: getattr(torch, name), torch.device("cpu")
    )
    args, kwargs = arguments(operation, operands, node.attrs, convert, torch.device("cpu"))
    return operation(*args, **kwargs)
