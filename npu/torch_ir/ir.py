"""The graph of a program: plain frozen values, without weights and without PyTorch.

In memory a value is known by its name alone. An operation with several outputs names each of them (the
``getitem`` nodes of the file format exist only in files). Values are produced by: program inputs, weight,
constant and state placeholders, and nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias, Union

from torch_ir.errors import IRError
from torch_ir.expr import Dim, Expr, evaluate, product, symbols_of

#: An argument of an operation that is not a tensor. dtypes are written "torch.float32", devices "cpu",
#: complex numbers "(1+2j)".
Attr: TypeAlias = Union[bool, int, float, str, Expr, tuple["Attr", ...], None]

IR_VERSION = 1

#: Bytes per element of every dtype that a value can have.
ITEM_SIZE: Mapping[str, int] = MappingProxyType(
    {
        "float16": 2,
        "bfloat16": 2,
        "float32": 4,
        "float64": 8,
        "complex64": 8,
        "complex128": 16,
        "int8": 1,
        "int16": 2,
        "int32": 4,
        "int64": 8,
        "uint8": 1,
        "uint16": 2,
        "uint32": 4,
        "uint64": 8,
        "bool": 1,
    }
)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape and dtype of a value.

    ``layout`` is "row" (dense, row-major) except where the compiler chose another.
    """

    shape: tuple[Dim, ...]
    dtype: str
    layout: str = "row"

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def numel(self) -> Dim:
        return product(self.shape)

    @property
    def nbytes(self) -> Dim:
        """Bytes of the dense form."""
        return self.numel * ITEM_SIZE[self.dtype]


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. ``inputs`` are value names, None for an optional tensor that is absent.

    ``op`` is an ATen overload ("aten.conv2d.default") in an extracted graph and the name of a compiler's op
    record in a lowered one. ``loc`` is "file:line" of the model's source; ``origin`` names the extracted
    nodes that it stands for.

    In an extracted graph ``inputs`` has one entry per Tensor argument of the op's schema, in schema order,
    absent ones at the end included. Tensor lists are flattened, and ``attrs["_tensor_list_sizes"]`` has the
    length of each, its None entries counted. A scalar given for a Tensor argument stays in ``attrs`` under
    the schema's name and has no entry in ``inputs``. ``attrs`` holds what was given, never a None at its top
    level: an argument that is absent has its schema's default.
    """

    name: str
    op: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    outs: tuple[TensorSpec, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    loc: str = ""
    origin: tuple[str, ...] = ()

    @property
    def out(self) -> TensorSpec:
        """The spec of the first output."""
        return self.outs[0]


@dataclass(frozen=True, slots=True)
class Output:
    """A program output: its public name, and the value that it is."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A small tensor that is part of the graph. ``data`` is little-endian and row-major.

    ``key`` is its name in the module ("" where it has none): that of a buffer which no state_dict holds, say.
    """

    spec: TensorSpec
    data: bytes = field(repr=False)
    key: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """A buffer that the program changes. ``key`` names it across the programs of a model.

    ``update`` is the value that it holds after a run (None: this program only reads it). It starts as the
    weight ``key`` of the state_dict where ``persistent``, else as ``data`` (None: zeros).
    """

    key: str
    spec: TensorSpec
    update: str | None = None
    persistent: bool = False
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Guard:
    """What must hold between sizes: ``left`` equals ``right``, or ("<=") is at most ``right``."""

    left: Dim
    right: Dim
    relation: str = "=="

    @property
    def text(self) -> str:
        return f"{self.left} {self.relation} {self.right}"

    @property
    def symbols(self) -> frozenset[str]:
        return symbols_of(self.left) | symbols_of(self.right)

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether it does for these values of the symbols. Raises ``KeyError`` where one lacks."""
        left, right = evaluate(self.left, values), evaluate(self.right, values)
        return left == right if self.relation == "==" else left <= right


@dataclass(frozen=True)
class IR:
    """A program's graph. Mappings keep their order, which is part of the value."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: tuple[Output, ...]
    nodes: tuple[Node, ...]
    weights: Mapping[str, TensorSpec] = field(default_factory=dict)
    """state_dict key -> spec, unused weights included."""
    weight_name_mapping: Mapping[str, str] = field(default_factory=dict)
    """placeholder -> state_dict key; tied weights are two placeholders."""
    constants: Mapping[str, Constant] = field(default_factory=dict)
    states: Mapping[str, State] = field(default_factory=dict)
    """placeholder -> state."""
    symbols: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """symbol -> smallest and largest value, inclusive."""
    pytorch_version: str = ""
    ir_version: int = IR_VERSION
    guards: tuple[Guard, ...] = ()
    """What must hold between the symbols."""
    vouched: bool = field(default=True, compare=False, repr=False)
    """False: read from a file that ``save`` did not write, or that was changed since."""

    def save(self, path: str | Path) -> None:
        """Writes the IR file (JSON), whole or not at all."""
        from torch_ir.serialize import save_ir

        save_ir(self, path)

    @classmethod
    def load(cls, path: str | Path) -> IR:
        """Reads an IR file. Raises ``IRError`` naming what is wrong with it."""
        from torch_ir.serialize import load_ir

        return load_ir(path)

    def decomposed(self, known: Collection[str], nodes: Collection[str]) -> IR:
        """The graph with these nodes (by name) replaced by simpler ones whose ops are all ``known``, as
        PyTorch's own tables say; a node for which they say nothing stays.

        What a node becomes has its line, and its name as origin. Raises ``ModuleNotFoundError`` where PyTorch
        is not installed.
        """
        from torch_ir.decompose import decomposed

        return decomposed(self, frozenset(known), frozenset(nodes))

    def checked(self) -> IR:
        """The graph, its results' shapes and dtypes held against PyTorch where nobody vouches for them.

        Raises ``IRError`` with the nodes of which the graph does not say what PyTorch does. Where PyTorch is
        not installed nothing is checked.
        """
        if self.vouched:
            return self
        from torch_ir.check_results import check_results

        check_results(self)
        return replace(self, vouched=True)

    def verify(self, after: str = "") -> None:
        """Raises ``IRError`` if the graph breaks a rule (see ``verify``)."""
        verify(self, after)

    def values(self) -> dict[str, TensorSpec]:
        """Every value of the program with its spec, in the order in which they come to be."""
        found = dict(self.inputs)
        found.update((name, self.weights[key]) for name, key in self.weight_name_mapping.items())
        found.update((name, constant.spec) for name, constant in self.constants.items())
        found.update((name, state.spec) for name, state in self.states.items())
        for node in self.nodes:
            found.update(zip(node.outputs, node.outs, strict=True))
        return found

    def users(self) -> dict[str, list[Node]]:
        """value -> the nodes that read it (once per node), for every value that a node reads."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                if value is not None:
                    readers.setdefault(value, []).append(node)
        return readers

    def results(self) -> frozenset[str]:
        """The values that outlive the nodes: outputs and state updates."""
        return frozenset(output.value for output in self.outputs) | frozenset(
            state.update for state in self.states.values() if state.update is not None
        )


def with_sizes(ir: IR, change: Callable[[Dim], Dim]) -> IR:
    """``ir`` with ``change`` applied to every size in it, those of weights and states aside."""

    def spec(old: TensorSpec) -> TensorSpec:
        return replace(old, shape=tuple(map(change, old.shape)))

    def attr(old: Attr) -> Attr:
        if isinstance(old, tuple):
            return tuple(map(attr, old))
        return change(old) if isinstance(old, Expr) else old

    nodes = tuple(
        replace(node, outs=tuple(map(spec, node.outs)), attrs={key: attr(v) for key, v in node.attrs.items()})
        for node in ir.nodes
    )
    guards = tuple(replace(one, left=change(one.left), right=change(one.right)) for one in ir.guards)
    inputs = {name: spec(old) for name, old in ir.inputs.items()}
    return replace(ir, nodes=nodes, inputs=inputs, guards=guards)


def verify(ir: IR, after: str = "") -> None:
    """Checks the rules of a legal graph; ``after`` names what made it, for the message.

    Every name is defined once and before its use; nodes have as many output names as specs; shapes are not
    negative and use declared symbols; dtypes are known; outputs and state updates exist, an update with its
    state's spec.

    Raises ``IRError``.
    """
    problems = list(_problems(ir))
    if problems:
        place = f" after {after}" if after else ""
        raise IRError(
            f"{ir.name}: the graph is not valid{place}: {'; '.join(problems[:5])}"
            + (f" (and {len(problems) - 5} more)" if len(problems) > 5 else "")
        )


def _symbols_in(attr: Attr) -> frozenset[str]:
    if isinstance(attr, tuple):
        return frozenset().union(*map(_symbols_in, attr))
    return symbols_of(attr) if isinstance(attr, Expr) else frozenset()


def _problems(ir: IR) -> Iterator[str]:
    known: dict[str, TensorSpec] = {}

    def define(name: str, spec: TensorSpec) -> Iterator[str]:
        if name in known:
            yield f"{name} is defined twice"
        known[name] = spec
        if spec.dtype not in ITEM_SIZE:
            yield f"{name}: unknown dtype {spec.dtype!r}"
        for dim in spec.shape:
            if isinstance(dim, int) and dim < 0:
                yield f"{name}: negative size {dim}"
            unknown = symbols_of(dim) - ir.symbols.keys()
            if unknown:
                yield f"{name}: undeclared symbol {', '.join(sorted(unknown))}"

    for name, (low, high) in ir.symbols.items():
        if not 0 <= low <= high:
            yield f"symbol {name}: bounds {low} to {high}"
    for guard in ir.guards:
        if guard.relation not in ("==", "<=") or not guard.symbols <= ir.symbols.keys():
            yield f"guard {guard.text}: unknown relation or undeclared symbol"
    for name, spec in ir.weights.items():
        if any(not isinstance(dim, int) or dim < 0 for dim in spec.shape):
            yield f"weight {name}: a symbolic or negative size in {spec.shape}"
    for name, spec in ir.inputs.items():
        yield from define(name, spec)
    for name, key in ir.weight_name_mapping.items():
        if key not in ir.weights:
            yield f"{name} maps to the unknown weight {key}"
        else:
            yield from define(name, ir.weights[key])
    for name, constant in ir.constants.items():
        yield from define(name, constant.spec)
    for name, state in ir.states.items():
        yield from define(name, state.spec)
    seen: set[str] = set()
    for node in ir.nodes:
        if node.name in seen:
            yield f"two nodes are named {node.name}"
        seen.add(node.name)
        for value in node.inputs:
            if value is not None and value not in known:
                yield f"{node.name} reads {value}, which nothing before it defines"
        for key, attr in node.attrs.items():
            if undeclared := _symbols_in(attr) - ir.symbols.keys():
                yield f"{node.name}.{key}: undeclared symbol {', '.join(sorted(undeclared))}"
        if len(node.outputs) != len(node.outs):
            yield f"{node.name} has {len(node.outputs)} output names and {len(node.outs)} specs"
        for name, spec in zip(node.outputs, node.outs, strict=False):
            yield from define(name, spec)
    for output in ir.outputs:
        if output.value not in known:
            yield f"output {output.name} is {output.value}, which does not exist"
    if len({output.name for output in ir.outputs}) != len(ir.outputs):
        yield "two outputs share a name"
    for name, state in ir.states.items():
        if state.update is not None:
            found = known.get(state.update)
            if found is None or (found.shape, found.dtype) != (state.spec.shape, state.spec.dtype):
                defect = "has another spec" if found else "is missing"
                yield f"state {name} is updated by {state.update}, which {defect}"
