"""IR <-> JSON file. The format is a superset of what the public ``pytorch-ir`` package writes and reads.

Ours adds ``ir_version``, ``symbols``, ``states``, and per entry ``output_name``, ``layout``, ``loc``,
``origin`` and ``none_mask``; a file without them is read too (see ``torch_ir.public_format``). In a file,
every use of one of several outputs of an operation goes through a ``getitem`` node; in memory there are none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from torch_ir import public_format
from torch_ir.consistent import check_uses
from torch_ir.constants import from_nested, nested_shape, to_nested
from torch_ir.errors import IRError
from torch_ir.expr import Dim, Expr, parse
from torch_ir.file_entries import (
    ConstantEntry,
    FileEntry,
    NodeEntry,
    StateEntry,
    TensorEntry,
    content_digest,
)
from torch_ir.ir import IR, IR_VERSION, ITEM_SIZE, Attr, Constant, Guard, Node, Output, State, TensorSpec
from torch_ir.json_file import read_json

GETITEM = "<built-in function getitem>"


def save_ir(ir: IR, path: str | Path) -> None:
    """Writes ``ir`` to ``path``, whole or not at all; the same graph gives the same bytes."""
    target = Path(path)
    text = json.dumps(ir_to_dict(ir), indent=1) + "\n"
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def load_ir(path: str | Path) -> IR:
    """Reads a file that ``save_ir`` or the public package wrote. Raises ``IRError``."""
    return ir_from_dict(read_json(Path(path)), str(path))


def ir_to_dict(ir: IR) -> dict[str, Any]:
    """The content of the file, as lists, dicts, texts and numbers."""
    return _Writer(ir).file()


def ir_from_dict(data: Any, place: str = "IR") -> IR:
    """The graph in the content of a file. Raises ``IRError`` that begins with ``place``."""
    try:
        if not isinstance(data, dict):
            raise IRError(f"expected a JSON object, got {type(data).__name__}")
        entry = msgspec.convert(data, FileEntry)
        if entry.ir_version is not None and not 1 <= entry.ir_version <= IR_VERSION:
            raise IRError(
                f"ir_version is {entry.ir_version} and this npubin reads up to {IR_VERSION}; update npubin"
            )
        reader = _Reader(entry)
        ir = reader.ir()
        ir.verify()
        check_uses(reader.uses(), ir.values())
        if entry.ir_version is None:
            ir = public_format.complete(ir)
            ir.verify()
        ir = replace(ir, vouched=data.get("digest") == content_digest(data))
    except (msgspec.ValidationError, ValueError, KeyError, OverflowError, RecursionError) as error:
        text = f"KeyError: {error}" if isinstance(error, KeyError) else str(error)
        raise IRError(f"{place}: not a valid IR file: {text}; extract the IR again") from None
    return ir


class _Writer:
    def __init__(self, ir: IR) -> None:
        self._ir = ir
        self._values = ir.values()
        self._producers: dict[str, tuple[str, int]] = {name: (name, 0) for name in ir.inputs}
        self._file_names: dict[str, str] = {}
        self._used = {*self._values, *(node.name for node in ir.nodes)}

    def file(self) -> dict[str, Any]:
        ir = self._ir
        nodes = self._nodes()
        persistent = {name: state.key for name, state in ir.states.items() if state.persistent}
        constants = {constant.key or name: constant for name, constant in ir.constants.items()}
        constant_keys = {name: constant.key or name for name, constant in ir.constants.items()}
        clash = ir.weights.keys() & constants.keys()
        if clash:
            raise IRError(
                f"{ir.name}: {', '.join(sorted(clash))} is a weight and a constant; rename the constant"
            )
        mapping = {**ir.weight_name_mapping, **persistent, **constant_keys}
        weights = {**ir.weights, **{key: constant.spec for key, constant in constants.items()}}
        outputs = [
            {
                **self._tensor(self._file_names.get(output.value, output.value), self._values[output.value]),
                "output_name": output.name,
            }
            for output in ir.outputs
        ]
        file: dict[str, Any] = {
            "model_name": ir.name,
            "pytorch_version": ir.pytorch_version,
            "graph_inputs": [self._tensor(name, spec) for name, spec in ir.inputs.items()],
            "graph_outputs": outputs,
            "weights": [self._tensor(name, spec) for name, spec in weights.items()],
            "weight_name_mapping": mapping,
            "nodes": nodes,
        }
        if ir.constants:
            file["constants"] = {
                key: {"data": to_nested(constant), "dtype": constant.spec.dtype}
                for key, constant in constants.items()
            }
        file["ir_version"] = ir.ir_version
        file["symbols"] = [
            {"name": name, "lower": low, "upper": high} for name, (low, high) in ir.symbols.items()
        ]
        if ir.guards:
            file["guards"] = [[_dim(g.left), g.relation, _dim(g.right)] for g in ir.guards]
        file["states"] = [self._state(name, state) for name, state in ir.states.items()]
        file["digest"] = content_digest(file)
        return file

    def _tensor(self, name: str, spec: TensorSpec) -> dict[str, Any]:
        entry = {"name": name, "shape": [_dim(dim) for dim in spec.shape], "dtype": spec.dtype}
        return entry if spec.layout == "row" else {**entry, "layout": spec.layout}

    def _state(self, name: str, state: State) -> dict[str, Any]:
        data = None if state.data is None else to_nested(Constant(state.spec, state.data))
        entry = self._tensor(name, state.spec)
        return {
            "name": name,
            "key": state.key,
            "shape": entry["shape"],
            "dtype": entry["dtype"],
            "update": state.update,
            "persistent": state.persistent,
            "data": data,
        }

    def _nodes(self) -> list[dict[str, Any]]:
        read = {value for node in self._ir.nodes for value in node.inputs}
        read |= self._ir.results()
        entries = []
        for node in self._ir.nodes:
            entries.append(self._node(node))
            self._producers.update((name, (node.name, at)) for at, name in enumerate(node.outputs))
            if node.outputs != (node.name,):
                entries.extend(
                    self._getitem(node, at) for at, name in enumerate(node.outputs) if name in read
                )
        return entries

    def _getitem(self, node: Node, index: int) -> dict[str, Any]:
        inputs = [self._input(name, direct=True) for name in node.outputs]
        name = self._fresh("getitem")
        self._file_names[node.outputs[index]] = name
        self._producers[name] = (name, 0)
        return {
            "name": name,
            "op_type": GETITEM,
            "inputs": inputs,
            "outputs": [self._tensor(name, node.outs[index])],
            "attrs": {"index": index},
        }

    def _fresh(self, name: str) -> str:
        candidate, count = name, 0
        while candidate in self._used:
            count += 1
            candidate = f"{name}_{count}"
        self._used.add(candidate)
        return candidate

    def _input(self, value: str, direct: bool = False) -> dict[str, Any]:
        name = value if direct else self._file_names.get(value, value)
        entry = self._tensor(name, self._values[value])
        if name in self._producers:
            producer, index = self._producers[name]
            entry.update(producer_node=producer, producer_output_idx=index)
        return entry

    def _node(self, node: Node) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "name": node.name,
            "op_type": node.op,
            "inputs": [self._input(value) for value in node.inputs if value is not None],
            "outputs": [self._tensor(name, spec) for name, spec in zip(node.outputs, node.outs, strict=True)],
            "attrs": {key: _attr_out(value) for key, value in node.attrs.items()},
        }
        public_format.write_lists(node, entry["attrs"])
        if node.loc:
            entry["loc"] = node.loc
        if node.origin:
            entry["origin"] = list(node.origin)
        if None in node.inputs:
            entry["none_mask"] = [value is None for value in node.inputs]
        return entry


class _Reader:
    def __init__(self, entry: FileEntry) -> None:
        self._entry = entry
        self._aliases: dict[str, str] = {}

    def ir(self) -> IR:
        entry = self._entry
        nodes = tuple(node for item in entry.nodes if (node := self._node(item)) is not None)
        weights = {item.name: _spec(item) for item in entry.weights}
        states = {item.name: self._state(item) for item in entry.states}
        constants: dict[str, Constant] = {}
        for name, key in entry.weight_name_mapping.items():
            if key in entry.constants and name not in states:
                constant = _constant(entry.constants[key], weights.get(key), name)
                constants[name] = replace(constant, key="" if key == name else key)
        mapping = {
            name: key
            for name, key in entry.weight_name_mapping.items()
            if name not in constants and name not in states
        }
        kept = {
            key: spec
            for key, spec in weights.items()
            if key not in entry.constants or key in mapping.values()
        }
        inputs = {item.name: _spec(item) for item in entry.graph_inputs}
        if len(inputs) < len(entry.graph_inputs):
            raise IRError("two graph inputs share a name")
        names: set[str] = set()
        last = entry.graph_outputs
        outputs = tuple(Output(self._output_name(item, names), self._value(item.name)) for item in last)
        return IR(
            entry.model_name,
            inputs,
            outputs,
            nodes,
            kept,
            mapping,
            constants,
            states,
            {item.name: (item.lower, item.upper) for item in entry.symbols},
            entry.pytorch_version,
            guards=tuple(Guard(parse(left), parse(right), by) for left, by, right in entry.guards),
        )

    def uses(self) -> Iterator[tuple[str, str, str, tuple[Dim, ...]]]:
        reads = [(item.name, tensor) for item in self._entry.nodes for tensor in item.inputs]
        for reader, item in [*reads, *(("the graph's output", item) for item in self._entry.graph_outputs)]:
            yield reader, self._value(item.name), item.dtype, _shape(item.shape)

    def _value(self, name: str) -> str:
        return self._aliases.get(name, name)

    def _output_name(self, item: TensorEntry, names: set[str]) -> str:
        if item.output_name is not None:
            return item.output_name
        name, count = item.name, 0
        while name in names:
            count += 1
            name = f"{item.name}_{count}"
        names.add(name)
        return name

    def _state(self, item: StateEntry) -> State:
        spec = TensorSpec(_shape(item.shape), _dtype(item.dtype, item.name))
        data = None if item.data is None else from_nested(item.data, spec, item.name).data
        update = None if item.update is None else self._value(item.update)
        return State(item.key, spec, update, item.persistent, data)

    def _node(self, item: NodeEntry) -> Node | None:
        if item.op_type == GETITEM:
            index = item.attrs.get("index")
            if not isinstance(index, int) or not 0 <= index < len(item.inputs) or len(item.outputs) != 1:
                raise IRError(f"{item.name}: getitem takes index {index!r} of {len(item.inputs)} values")
            self._aliases[item.outputs[0].name] = self._value(item.inputs[index].name)
            return None
        given: list[str | None] = [self._value(tensor.name) for tensor in item.inputs]
        attrs = {
            key: _attr_in(value, f"{item.name}.{key}")
            for key, value in item.attrs.items()
            if value is not None
        }
        lengths = attrs.get("_tensor_list_sizes", ())
        if not isinstance(lengths, tuple) or not all(type(n) is int and 0 <= n < 1 << 16 for n in lengths):
            raise IRError(f"{item.name}: tensor lists of lengths {lengths!r}")
        inputs = public_format.read_lists(item.name, item.op_type, given, item.none_mask, attrs)
        return Node(
            item.name,
            item.op_type,
            tuple(inputs),
            tuple(tensor.name for tensor in item.outputs),
            tuple(_spec(tensor) for tensor in item.outputs),
            attrs,
            item.loc,
            tuple(item.origin),
        )


def _dim(dim: Dim) -> int | str:
    return dim if isinstance(dim, int) else str(dim)


def _shape(shape: list[int | str]) -> tuple[Dim, ...]:
    return tuple(parse(dim) for dim in shape)


def _dtype(dtype: str, name: str) -> str:
    if dtype not in ITEM_SIZE:
        raise IRError(f"{name}: unknown dtype {dtype!r}; known: {', '.join(ITEM_SIZE)}")
    return dtype


def _spec(item: TensorEntry) -> TensorSpec:
    return TensorSpec(_shape(item.shape), _dtype(item.dtype, item.name), item.layout)


def _constant(item: ConstantEntry, spec: TensorSpec | None, name: str) -> Constant:
    dtype = _dtype(item.dtype, name)
    shape = spec.shape if spec is not None else nested_shape(item.data)
    return from_nested(item.data, TensorSpec(shape, dtype), name)


def _attr_out(value: Attr) -> Any:
    if isinstance(value, Expr):
        return {"expr": str(value)}
    return [_attr_out(item) for item in value] if isinstance(value, tuple) else value


def _attr_in(value: Any, place: str, depth: int = 8) -> Attr:
    if depth == 0:
        raise IRError(f"{place}: lists nested more than 8 levels deep")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise IRError(f"{place}: {value} is no whole number of 64 bits")
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    if isinstance(value, list):
        return tuple(_attr_in(item, place, depth - 1) for item in value)
    if isinstance(value, Mapping) and set(value) == {"expr"} and isinstance(value["expr"], str):
        return parse(value["expr"])
    raise IRError(
        f"{place}: {value!r} is no attribute; expected a number, a text, a list of them, or an expression"
    )
