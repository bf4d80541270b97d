"""Reads the graph of an ``ExportedProgram`` into nodes. Never imports PyTorch: it looks at what it gets."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch_ir.errors import IRError
from torch_ir.expr import Dim, Expr, maximum, minimum
from torch_ir.functionalize import IDENTITIES, NotSimpleError, base_name, is_in_place
from torch_ir.ir import ITEM_SIZE, Attr, Node, TensorSpec

#: Regions that only set a mode while they run; their content belongs to the graph around them.
_REGIONS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}


@dataclass
class ReadGraph:
    """Nodes as exported, in-place ones included, and the value of each graph output (None: no
    tensor, but text or a number that no input decides)."""

    nodes: list[Node]
    outputs: list[str | None]
    specs: dict[str, TensorSpec]


#: What a region of control flow can be instead.
_INSTEAD = {
    "cond": ": both branches, and torch.where",
    "while_loop": ": a Python loop of a fixed number of steps, and torch.where for those that do not count",
    "scan": ": a Python loop over the slices, whose number is fixed",
    "map_impl": ": of all slices at once, or a Python loop over them",
}
#: What a module may return beside tensors: it is the same in every run, and no part of a program.
_NUMBERS = (bool, int, float, complex)


def read_graph(
    program: Any, names: Mapping[str, str], symbols: Mapping[str, Dim], locate: Callable[[Any], str]
) -> ReadGraph:
    """The graph of ``program``.

    ``names`` gives the value name of each placeholder, ``symbols`` the size of each of PyTorch's symbols, and
    ``locate`` the source line of a graph node. Raises ``IRError`` and ``NotSimpleError``.
    """
    changing = any(
        _changes(node)
        for module in program.graph_module.modules()
        for node in (module.graph.nodes if hasattr(module, "graph") else ())
    )
    reader = _Reader(names, symbols, locate, changing)
    found = reader.graph(program.graph_module, None)
    outputs = [None if isinstance(value, _NUMBERS) else value for value in found]
    for value in outputs:
        if value is not None and not isinstance(value, str):
            shown = f"a number ({value.reason})" if isinstance(value, _Unknown) else f"{value}"
            raise IRError(
                f"the module returns {shown}, which is no tensor: return tensors only, "
                "and sizes and numbers in another way"
            )
    return ReadGraph(reader.nodes, outputs, reader.specs)


def spec_of(value: Any, symbols: Mapping[str, Dim], name: str) -> TensorSpec:
    """The spec of a (fake) tensor."""
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in ITEM_SIZE:
        raise IRError(f"{name} has dtype {dtype}, which a graph cannot hold; known: {', '.join(ITEM_SIZE)}")
    return TensorSpec(tuple(to_dim(size, symbols, name) for size in value.shape), dtype)


def to_dim(size: Any, symbols: Mapping[str, Dim], name: str) -> Dim:
    """A size of PyTorch (int or SymInt) as a Dim."""
    return int(size) if isinstance(size, int) else convert(size.node.expr, symbols, name)


def convert(sympy: Any, symbols: Mapping[str, Dim], name: str) -> Dim:
    """A size of sympy's as a Dim. Raises ``IRError`` for one outside the grammar, or of unknown symbols."""
    kind = type(sympy).__name__
    if sympy.is_Integer:
        return int(sympy)
    if sympy.is_Symbol:
        if sympy.name not in symbols:
            raise IRError(
                f"{name}: a size ({sympy}) depends on the values of a tensor (from nonzero, item(), a "
                "boolean mask or the like); only sizes that follow from input shapes can be compiled"
            )
        return symbols[sympy.name]
    args = [convert(arg, symbols, name) for arg in sympy.args] if kind != "Pow" else []
    if kind == "Add":
        return _fold(args, lambda a, b: a + b)
    if kind == "Mul":
        return _fold(args, lambda a, b: a * b)
    if kind == "Pow" and sympy.args[1].is_Integer and int(sympy.args[1]) > 0:
        return _fold([convert(sympy.args[0], symbols, name)] * int(sympy.args[1]), lambda a, b: a * b)
    if kind in ("FloorDiv", "CleanDiv"):
        return args[0] // args[1]
    if kind in ("Mod", "PythonMod"):
        return args[0] % args[1]
    if kind in ("Min", "Max"):
        return (minimum if kind == "Min" else maximum)(*args)
    if kind in ("Identity", "ToFloat"):
        return args[0]
    raise IRError(f"{name}: the size {sympy} is outside the grammar of sizes (+ - * // % min max)")


def _fold(args: Sequence[Dim], apply: Callable[[Dim, Dim], Dim]) -> Dim:
    total = args[0]
    for arg in args[1:]:
        total = apply(total, arg)
    return total


@dataclass(frozen=True)
class _Unknown:
    """A number that depends on the values of tensors. Harmless where only checks read it; where it is all
    that ``tensor`` holds, that tensor can stand for it; any other use raises ``reason``."""

    reason: str
    tensor: str | None = None


class _Reader:
    def __init__(
        self,
        names: Mapping[str, str],
        symbols: Mapping[str, Dim],
        locate: Callable[[Any], str],
        changing: bool,
    ) -> None:
        self.nodes: list[Node] = []
        self.specs: dict[str, TensorSpec] = {}
        self._names = names
        self._used = set(names.values())
        self._symbols = symbols
        self._locate = locate
        self._changing = changing
        """Whether any operation works in place."""

    def graph(self, module: Any, arguments: Sequence[Any] | None) -> list[Any]:
        """Reads one graph; a region's placeholders stand for ``arguments``. Returns its outputs."""
        values: dict[Any, Any] = {}
        given = iter(arguments or ())
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given) if arguments is not None else self._placeholder(node)
            elif node.op == "get_attr":
                values[node] = operator.attrgetter(node.target)(module)
            elif node.op == "call_function":
                values[node] = self._call(node, values)
            elif node.op == "output":
                found = node.args[0]
                returned = found if isinstance(found, (tuple, list)) else [found]
                return [None if isinstance(item, str) else _look_up(item, values) for item in returned]
        raise IRError("the exported graph has no output")

    def _placeholder(self, node: Any) -> Any:
        value = node.meta.get("val")
        if not _is_tensor(value):
            return self._scalar(value, node.name)
        name = self._names[node.name]
        layout = str(value.layout)
        if layout != "torch.strided":
            raise IRError(
                f"{name} is a tensor of layout {layout.removeprefix('torch.')}, and graphs hold dense ones; "
                "pass x.to_dense()"
            )
        self.specs[name] = spec_of(value, self._symbols, name)
        return name

    def _scalar(self, value: Any, name: str) -> Any:
        """A number of the graph: a size, a plain number, or what only checks may read."""
        kind = type(value).__name__
        if kind in ("SymBool", "SymFloat"):
            return _Unknown(f"{name} is {value}, which is decided by a size or by the values of a tensor")
        if kind != "SymInt":
            return value
        try:
            return to_dim(value, self._symbols, name)
        except IRError as error:
            return _Unknown(str(error))

    def _call(self, node: Any, values: Mapping[Any, Any]) -> Any:
        target = node.target
        if target is operator.getitem:
            return values[node.args[0]][node.args[1]]
        if not hasattr(target, "_schema"):
            region = getattr(target, "_name", "")
            if region in _REGIONS:
                return self._region(node, region, values)
            value = node.meta.get("val")
            if not _is_tensor(value) and not region:
                return self._scalar(value, node.name)
            if getattr(target, "__name__", "") == "_add_batch_dim":  # what vmap calls
                raise NotSimpleError(f"{node.name} maps over a dimension that operations do not see")
            if region.startswith("auto_functionalized"):
                region = f"{node.args[0]}, which changes its arguments and"
            raise IRError(
                f"{node.name} at {self._locate(node) or 'an unknown line'} calls "
                f"{region or getattr(target, '__name__', target)}, which has no place in a graph; "
                f"write it with plain tensor operations{_INSTEAD.get(region, '')}"
            )
        value = node.meta.get("val")
        tensors = [value] if _is_tensor(value) else list(value) if isinstance(value, (tuple, list)) else []
        if not all(map(_is_tensor, tensors)):
            raise IRError(
                f"{node.name} ({target}) at {self._locate(node) or 'an unknown line'} returns tensors in "
                "lists, which a graph cannot name; write it with other operations"
            )
        if not tensors:
            if _changes(node):
                raise NotSimpleError(f"{node.name} ({target}) changes its arguments")
            if base_name(str(target)) in ("item", "_local_scalar_dense"):
                return self._item(node, values[node.args[0]])
            return None if value is None else self._scalar(value, node.name)
        return self._operation(node, value, tensors, values)

    def _item(self, node: Any, tensor: str) -> _Unknown:
        """The number that a tensor of one element holds: it may stand for it unless that changes later."""
        reason = (
            f"{node.name} at {self._locate(node) or 'an unknown line'} is a Python number that depends on "
            "the values of a tensor (from item(), tolist() or the like)"
        )
        if self.specs[tensor].rank:
            self.nodes.append(self._scalar_of(tensor, node))
            tensor = self.nodes[-1].name
        return _Unknown(f"{reason}; keep it a tensor: write x.sum() and not x.sum().item()", tensor)

    def _scalar_of(self, tensor: str, node: Any) -> Node:
        """A tensor of one element without its dimensions."""
        name, spec = self._fresh(node.name), TensorSpec((), self.specs[tensor].dtype)
        self.specs[name] = spec
        loc = self._locate(node)
        return Node(name, "aten.reshape.default", (tensor,), (name,), (spec,), {"shape": ()}, loc)

    def _tensor(self, number: _Unknown, place: str) -> str:
        """The tensor that stands for a number."""
        if number.tensor is None:
            raise IRError(f"{place}: {number.reason}")
        if self._changing:
            raise NotSimpleError(f"{place}: {number.reason}")
        return number.tensor

    def _region(self, node: Any, region: str, values: Mapping[Any, Any]) -> list[Any]:
        at = _REGIONS[region]
        if region == "wrap_with_autocast" and node.args[2]:
            raise NotSimpleError("an autocast region is on: its casts are not in the graph yet")
        return self.graph(values[node.args[at]], [_look_up(arg, values) for arg in node.args[at + 1 :]])

    def _operation(self, node: Any, value: Any, tensors: list[Any], values: Mapping[Any, Any]) -> Any:
        op = str(node.target)
        if _changes(node) and not is_in_place(op):
            raise NotSimpleError(f"{node.name} ({node.target}) changes its arguments")
        name = self._fresh(node.name)
        outputs = (
            (name,)
            if _is_tensor(value)
            else tuple(self._fresh(f"{name}_{index}") for index in range(len(tensors)))
        )
        outs = tuple(spec_of(tensor, self._symbols, name) for tensor in tensors)
        inputs: list[str | None] = []
        attrs: dict[str, Attr] = {}
        sizes: list[int] = []
        for position, argument in enumerate(node.target._schema.arguments):
            given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            found = _look_up(given, values)
            kind = str(argument.type)
            if kind in ("List[Tensor]", "List[Optional[Tensor]]", "Optional[List[Tensor]]"):
                if found is not None:
                    sizes.append(len(found))
                    inputs.extend(found)
            elif kind in ("Tensor", "Optional[Tensor]") and (found is None or _is_value(given, found)):
                inputs.append(found)
            elif kind == "Tensor" and isinstance(found, _Unknown):
                inputs.append(self._tensor(found, f"{name} ({node.target}): {argument.name}"))
            elif op == "aten.select.int" and argument.name == "index" and isinstance(found, _Unknown):
                rank, dim = len(self.specs[str(inputs[0])].shape), int(str(attrs.pop("dim")))
                inputs += [None] * (dim % rank) + [self._tensor(found, f"{name} ({node.target}): index")]
                op, attrs["_tensor_list_sizes"] = "aten.index.Tensor", (dim % rank + 1,)
            elif found is not None and argument.name != "pin_memory":
                attrs[argument.name] = _attr(found, f"{name} ({node.target}): {argument.name}", self._symbols)
        if sizes:
            attrs["_tensor_list_sizes"] = tuple(sizes)
        self.nodes.append(Node(name, op, tuple(inputs), outputs, outs, attrs, self._locate(node)))
        self.specs.update(zip(outputs, outs, strict=True))
        return name if _is_tensor(value) else list(outputs)

    def _fresh(self, name: str) -> str:
        candidate, count = name, 0
        while candidate in self._used:
            count += 1
            candidate = f"{name}_{count}"
        self._used.add(candidate)
        return candidate


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "untyped_storage")


def _changes(node: Any) -> bool:
    """Whether an operation changes one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable and base_name(str(node.target)) not in IDENTITIES


def _is_value(given: Any, found: Any) -> bool:
    """Whether an argument is a tensor of the graph, not a number or a text."""
    return isinstance(found, str) and not isinstance(given, str)


def _look_up(given: Any, values: Mapping[Any, Any]) -> Any:
    """An argument with the graph nodes in it replaced by what they stand for."""
    if isinstance(given, (tuple, list)):
        return [_look_up(item, values) for item in given]
    return values[given] if hasattr(given, "all_input_nodes") else given


def _attr(value: Any, place: str, symbols: Mapping[str, Dim]) -> Attr:
    if isinstance(value, (bool, int, float, str, Expr)) or value is None:
        return value
    if isinstance(value, _Unknown):
        raise IRError(f"{place}: {value.reason}")
    if isinstance(value, complex):
        return str(value)
    if isinstance(value, (tuple, list)):
        return tuple(_attr(item, place, symbols) for item in value)
    kind = type(value).__name__
    if kind == "SymInt":
        return to_dim(value, symbols, place)
    if kind == "device":
        return "cpu"  # where the model was built is no part of its meaning
    if kind in ("dtype", "layout", "memory_format"):
        return str(value)
    raise IRError(
        f"{place} is {value!r} ({kind}), which depends on the values of a tensor or cannot be stored; "
        "use a plain number, or keep it a tensor"
    )
