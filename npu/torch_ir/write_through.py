"""Removes in-place operations that change views, by writing the change into what they are views of.

A value is a root (the result of an operation that is no view, or a placeholder) seen through a chain of
views. A write to it becomes a new content of the root: the changed view is scattered into what it is a view
of, and so on up the chain. Who reads the root or a view of it afterwards reads the new content. Never imports
PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch_ir.expr import Dim
from torch_ir.functionalize import (
    IDENTITIES,
    IN_PLACE,
    KEEP_DTYPE,
    VIEWS,
    Functional,
    NotSimpleError,
    base_name,
    functional,
    is_in_place,
    words,
)
from torch_ir.ir import Attr, Node, TensorSpec

#: Views whose change can be written back, by giving the changed value its parent's shape or order.
_SHAPES = words("view reshape flatten unflatten unsqueeze squeeze view_as reshape_as contiguous")
_PARTS = words("split split_with_sizes chunk unbind tensor_split")
#: Of these, those that are views only where their input is dense.
_COPY_IF_STRIDED = words("reshape flatten reshape_as contiguous")
_DENSE = words("view reshape flatten unflatten unsqueeze squeeze view_as reshape_as contiguous")


#: Operations whose results are dense whatever their inputs' strides are.
_MAKES_DENSE = words(
    "zeros ones full empty arange linspace new_zeros new_ones new_full new_empty scalar_tensor eye"
)


@dataclass(frozen=True)
class _Step:
    """One view: the node, and which of its results."""

    node: Node
    index: int


@dataclass(frozen=True)
class _Place:
    """A value: what it is a view of, through which views (each by the name of its result, the value's own
    last), and whether it is dense for certain."""

    root: str
    chain: tuple[str, ...] = ()
    dense: bool = True


def write_through(
    nodes: Sequence[Node], specs: Mapping[str, TensorSpec], placeholders: Collection[str]
) -> Functional:
    """The nodes without in-place operations. ``specs`` describes every value, ``placeholders`` are the
    values that outlive the run. Raises ``NotSimpleError`` where a value may or may not share memory."""
    return _Writer(specs, placeholders).run(nodes)


class _Writer:
    def __init__(self, specs: Mapping[str, TensorSpec], placeholders: Collection[str]) -> None:
        self._specs = dict(specs)
        self._made: list[Node] = []
        self._places = {name: _Place(name) for name in placeholders}
        self._content = {name: name for name in placeholders}
        self._version: dict[str, int] = {}
        self._steps: dict[str, _Step] = {}
        self._known: dict[str, tuple[int, str]] = {}
        self._unsure: dict[str, list[str]] = {}
        self._lost: set[str] = set()

    def run(self, nodes: Sequence[Node]) -> Functional:
        for node in nodes:
            base = base_name(node.op)
            if is_in_place(node.op):
                self._write(node)
            elif base in IDENTITIES and node.op.startswith("aten.") and base != "lift_fresh_copy":
                self._places[node.outputs[0]] = self._places[str(node.inputs[0])]
            elif base in VIEWS and node.inputs and node.inputs[0] in self._places:
                self._view(node, base)
            else:
                self._plain(node)
        now = {name: self._read(name) for name in self._places if name not in self._lost}
        return Functional(tuple(self._made), {name: value for name, value in now.items() if value != name})

    def _plain(self, node: Node) -> None:
        self._made.append(replace(node, inputs=self._inputs(node)))
        for name in node.outputs:
            dense = base_name(node.op) in _MAKES_DENSE
            self._places[name], self._content[name] = _Place(name, dense=dense), name

    def _inputs(self, node: Node) -> tuple[str | None, ...]:
        return tuple(None if value is None else self._read(value) for value in node.inputs)

    def _view(self, node: Node, base: str) -> None:
        source = self._places[str(node.inputs[0])]
        kept = base == "to" and node.out.dtype != self._specs[str(node.inputs[0])].dtype
        invertible = base in _SHAPES | _PARTS or base in _INVERSE
        copies = base in _COPY_IF_STRIDED and not source.dense
        if kept:
            self._plain(node)
            return
        if not invertible or copies:  # it may share the root's memory, and then would change with it
            self._plain(node)
            self._unsure.setdefault(source.root, []).extend(node.outputs)
            for name in node.outputs:
                self._unsure.setdefault(name, []).append(name)
            return
        self._made.append(replace(node, inputs=self._inputs(node)))
        for index, name in enumerate(node.outputs):
            self._steps[name] = _Step(node, index)
            dense = source.dense and base in _DENSE
            self._places[name] = _Place(source.root, (*source.chain, name), dense)
            self._known[name] = (self._version.get(source.root, 0), name)

    def _read(self, value: str) -> str:
        """The name of what ``value`` holds now."""
        if value in self._lost:
            raise NotSimpleError(f"{value} is read after a change of memory that it may share")
        place = self._places[value]
        return self._through(place.root, place.chain)

    def _through(self, root: str, chain: tuple[str, ...]) -> str:
        if not chain:
            return self._content[root]
        version, known = self._known[chain[-1]]
        if version != self._version.get(root, 0):
            step, source = self._steps[chain[-1]], self._through(root, chain[:-1])
            names = tuple(self._fresh(name, self._specs[name]) for name in step.node.outputs)
            others = tuple(None if v is None else self._read(v) for v in step.node.inputs[1:])
            self._made.append(replace(step.node, name=names[0], inputs=(source, *others), outputs=names))
            known = names[step.index]
            self._known[chain[-1]] = (self._version.get(root, 0), known)
        return known

    def _fresh(self, name: str, spec: TensorSpec) -> str:
        count = 1
        while f"{name}.{count}" in self._specs:
            count += 1
        self._specs[f"{name}.{count}"] = spec
        return f"{name}.{count}"

    def _write(self, node: Node) -> None:
        base = base_name(node.op).removesuffix("_")
        if base == base_name(node.op) or base not in IN_PLACE or node.inputs[:1] in ((), (None,)):
            raise NotSimpleError(f"{node.name} ({node.op}) works in place")
        target = str(node.inputs[0])
        place, spec = self._places[target], self._specs[target]
        others = {self._specs[value].dtype for value in node.inputs if value is not None} - {spec.dtype}
        if (others and base not in KEEP_DTYPE) or node.out.shape != spec.shape or len(node.outputs) != 1:
            raise NotSimpleError(f"{node.name} ({node.op}) works in place on mixed dtypes or shapes")
        if target in self._unsure.get(target, ()):
            raise NotSimpleError(f"{node.name} ({node.op}) changes {target}, which may be a view or a copy")
        node = replace(node, inputs=self._inputs(node))
        value = functional(node, self._specs, self._made)
        chain = place.chain
        written = value
        while chain:
            step, chain = self._steps[chain[-1]], chain[:-1]
            value = self._back(step, self._through(place.root, chain), value)
        self._content[place.root] = value
        self._version[place.root] = self._version.get(place.root, 0) + 1
        if place.chain:
            self._known[place.chain[-1]] = (self._version[place.root], written)
        self._lost.update(self._unsure.get(place.root, ()))
        self._places[node.outputs[0]] = place

    def _back(self, step: _Step, parent: str, value: str) -> str:
        """The parent of a view with the view's new content; returns the value's name."""
        node, spec = step.node, self._specs[parent]
        base = base_name(node.op)
        if base in _PARTS:
            op, inputs, attrs = _part_back(node, step.index, parent, value, spec)
        elif base in _SHAPES:
            op, inputs, attrs = "aten.reshape.default", (value,), {"shape": spec.shape}
        else:
            op, inputs, attrs = _INVERSE[base](node, parent, value)
        name = self._fresh(f"{node.name}_back", spec)
        self._made.append(Node(name, op, inputs, (name,), (spec,), attrs, node.loc, node.origin))
        return name


_Back = tuple[str, tuple[str, ...], dict[str, Attr]]


def _part_back(node: Node, index: int, parent: str, value: str, spec: TensorSpec) -> _Back:
    dim = int(str(node.attrs.get("dim", 0)))
    if base_name(node.op) == "unbind":
        return "aten.select_scatter.default", (parent, value), {"dim": dim, "index": index}
    start: Dim = 0
    for out in node.outs[:index]:
        start = start + out.shape[dim]
    attrs: dict[str, Attr] = {"dim": dim, "start": start, "end": start + node.outs[index].shape[dim]}
    return "aten.slice_scatter.default", (parent, value), attrs


def _given(node: Node, **defaults: Attr) -> dict[str, Attr]:
    return {name: node.attrs.get(name, default) for name, default in defaults.items()}


def _select_back(node: Node, parent: str, value: str) -> _Back:
    return "aten.select_scatter.default", (parent, value), _given(node, dim=0, index=0)


def _slice_back(node: Node, parent: str, value: str) -> _Back:
    keys = ("dim", "start", "end", "step")
    attrs: dict[str, Attr] = {key: node.attrs[key] for key in keys if node.attrs.get(key) is not None}
    return "aten.slice_scatter.default", (parent, value), attrs


def _narrow_back(node: Node, parent: str, value: str) -> _Back:
    dim = int(str(node.attrs["dim"]))
    start = node.attrs["start"]
    if not isinstance(start, int) or start < 0:
        raise NotSimpleError(f"{node.name} ({node.op}) starts at {start}")
    attrs: dict[str, Attr] = {"dim": dim, "start": start, "end": start + node.out.shape[dim]}
    return "aten.slice_scatter.default", (parent, value), attrs


def _transpose_back(node: Node, parent: str, value: str) -> _Back:
    return "aten.transpose.int", (value,), _given(node, dim0=0, dim1=1)


def _t_back(node: Node, parent: str, value: str) -> _Back:
    return "aten.t.default", (value,), {}


def _permute_back(node: Node, parent: str, value: str) -> _Back:
    dims = node.attrs["dims"]
    assert isinstance(dims, tuple)
    order = [int(str(dim)) % len(dims) for dim in dims]
    return "aten.permute.default", (value,), {"dims": tuple(order.index(axis) for axis in range(len(order)))}


_INVERSE: Mapping[str, Callable[[Node, str, str], _Back]] = {
    "select": _select_back,
    "slice": _slice_back,
    "narrow": _narrow_back,
    "transpose": _transpose_back,
    "t": _t_back,
    "permute": _permute_back,
}
