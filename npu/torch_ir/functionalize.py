"""Removes in-place operations from a list of nodes, where that takes no more than renaming values.

A graph in memory is functional: no node changes a value that another one reads. ``relu_(x)`` becomes
``relu(x)``, and whoever reads ``x`` afterwards reads the result. What is not that simple (a live view of the
changed value, an unknown in-place operation) is refused with ``NotSimpleError``. Never imports PyTorch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch_ir.ir import Attr, Node, TensorSpec


def words(text: str) -> frozenset[str]:
    """The names in a text."""
    return frozenset(text.split())


#: Operations whose results may share memory with their first input.
VIEWS = words("""
    adjoint as_strided broadcast_to ccol_indices chunk coalesce col_indices conj contiguous crow_indices
    diagonal dsplit expand expand_as flatten hsplit imag indices linalg_diagonal mH mT matrix_H moveaxis
    movedim narrow numpy_T permute pin_memory positive ravel real reshape reshape_as resolve_conj resolve_neg
    row_indices select slice slice_inverse split split_with_sizes squeeze swapaxes swapdims t tensor_split to
    transpose unbind unflatten unfold unsqueeze values view view_as view_as_complex view_as_real vsplit
    type_as dropout feature_dropout alpha_dropout einsum atleast_1d atleast_2d atleast_3d broadcast_tensors
    meshgrid
""")

#: Operations that return their input, or a fresh copy of it: in a functional graph, the input.
IDENTITIES = words("alias detach detach_ lift_fresh lift_fresh_copy")

#: In-place operations ``name_`` that equal ``name``, in dtype too where all inputs have one dtype.
IN_PLACE = words("""
    abs add addcdiv addcmul addmm addbmm baddbmm ceil celu clamp clamp_max clamp_min copy cos cumsum div elu
    erf exp expm1 fill floor floor_divide fmod gelu hardsigmoid hardswish hardtanh index_add index_copy
    index_fill index_put leaky_relu lerp log log1p masked_fill masked_scatter mish mul multiply neg pow
    reciprocal relu relu6 remainder round rsqrt scatter scatter_add selu sigmoid sign silu sin sqrt square
    squeeze sub t tanh threshold transpose tril triu trunc unsqueeze zero
""")

#: Overloads that ``name`` calls otherwise than ``name_``.
_OTHER_OVERLOAD = {
    "aten.transpose.default": "aten.transpose.int",
    "aten.floor_divide.Tensor": "aten.floor_divide.default",
    "aten.pow.Tensor": "aten.pow.Tensor_Tensor",
    "aten.pow.Scalar": "aten.pow.Tensor_Scalar",
}

#: Those of IN_PLACE that take tensors of other dtypes (masks, indices) and still keep their first input's.
KEEP_DTYPE = words("""
    copy fill index_add index_copy index_fill index_put masked_fill masked_scatter scatter scatter_add zero
""")

_NEVER = 1 << 62


class NotSimpleError(Exception):
    """An in-place operation has effects that renaming cannot express; the text says which and why."""


@dataclass(frozen=True)
class Functional:
    """Nodes without in-place operations; ``now`` tells which value a name of the original graph ends as."""

    nodes: tuple[Node, ...]
    renamed: Mapping[str, str]

    def now(self, name: str) -> str:
        return self.renamed.get(name, name)


def base_name(op: str) -> str:
    """The op's name without namespace and overload: "relu_" of "aten.relu_.default"."""
    parts = op.split(".")
    return parts[1] if len(parts) > 1 else op


def is_in_place(op: str) -> bool:
    """Whether an ATen op changes its input, by its name."""
    base = base_name(op)
    if not op.startswith("aten.") or base in ("detach_",):
        return False
    dunder = base.startswith("__") and base.endswith("__")
    return (
        (base.endswith("_") and not dunder)
        or (dunder and base.startswith("__i") and base != "__invert__")
        or op.endswith((".out", "_out"))
    )


def functionalize(
    nodes: Sequence[Node],
    specs: Mapping[str, TensorSpec],
    placeholders: Collection[str],
    outputs: Iterable[str],
) -> Functional:
    """Removes in-place operations and identities.

    ``specs`` describes every value, ``placeholders`` are the values that outlive the run, ``outputs`` what
    the graph returns. Raises ``NotSimpleError``.
    """
    aliases = _Aliases(nodes, placeholders, outputs)
    now: dict[str, str] = {}
    made: list[Node] = []
    for index, node in enumerate(nodes):
        inputs = tuple(None if value is None else aliases.resolve(value, now) for value in node.inputs)
        base = base_name(node.op)
        if base in IDENTITIES and node.op.startswith("aten."):
            source, result = _only(inputs, node), _only(node.outputs, node)
            if base == "lift_fresh_copy":
                now[aliases.same(result)] = source
            continue
        node = replace(node, inputs=inputs)
        if is_in_place(node.op):
            target = aliases.check(nodes[index], index, specs)
            value = functional(node, specs, made)
            now[target] = value
        elif node.op in ("aten.copy.default", "aten.fill.Scalar", "aten.fill.Tensor", "aten.zero.default"):
            now[node.outputs[0]] = functional(node, specs, made)
        else:
            made.append(node)
    names = [*placeholders, *(name for node in nodes for name in node.outputs)]
    renamed = {name: value for name in names if (value := aliases.resolve(name, now)) != name}
    return Functional(tuple(made), renamed)


def live_nodes(nodes: Sequence[Node], results: Collection[str]) -> tuple[Node, ...]:
    """The nodes that ``results`` need."""
    needed = set(results)
    kept: list[Node] = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(value for value in node.inputs if value is not None)
    return tuple(reversed(kept))


class _Aliases:
    """Which values are one (results of in-place operations) and which may share memory (views)."""

    def __init__(self, nodes: Sequence[Node], placeholders: Collection[str], outputs: Iterable[str]) -> None:
        self._same: dict[str, str] = {}
        self._group: dict[str, list[str]] = {}
        self._defined: dict[str, int] = {}
        self._last_read: dict[str, int] = {}
        for index, node in enumerate(nodes):
            for value in node.inputs:
                if value is not None:
                    self._last_read[self.same(value)] = index
            base = base_name(node.op)
            first = node.inputs[0] if node.inputs else None
            for name in node.outputs:
                self._defined[name] = index
                if first is None:
                    continue
                if is_in_place(node.op) or (base in IDENTITIES and base != "lift_fresh_copy"):
                    self._same[name] = self.same(first)
                elif base in VIEWS:
                    self._join(self.same(first), name)
        for name in (*placeholders, *outputs):
            self._last_read[self.same(name)] = _NEVER

    def same(self, name: str) -> str:
        """The name that stands for ``name`` and all others of the same value."""
        return self._same.get(name, name)

    def resolve(self, name: str, now: Mapping[str, str]) -> str:
        same = self.same(name)
        return now.get(same, same)

    def _join(self, source: str, view: str) -> None:
        group = self._group.setdefault(source, [source])
        group.append(view)
        self._group[view] = group

    def check(self, node: Node, index: int, specs: Mapping[str, TensorSpec]) -> str:
        """The value that ``node`` changes in place. Raises ``NotSimpleError`` if others would notice."""
        written = base_name(node.op)
        base = written.removesuffix("_")
        plain = bool(node.inputs) and node.inputs[0] is not None and len(node.outputs) == 1
        if base == written or base not in IN_PLACE or not plain:
            raise NotSimpleError(f"{node.name} ({node.op}) works in place")
        others = {specs[value].dtype for value in node.inputs if value is not None} - {node.out.dtype}
        if others and base not in KEEP_DTYPE:
            raise NotSimpleError(f"{node.name} ({node.op}) works in place on mixed dtypes")
        target = self.same(str(node.inputs[0]))
        for member in self._group.get(target, ()):
            if (
                member != target
                and self._defined.get(member, -1) < index
                and self._last_read.get(member, -1) > index
            ):
                raise NotSimpleError(f"{node.name} ({node.op}) changes memory that {member} may share")
        return target


def _only(names: Sequence[str | None], node: Node) -> str:
    if len(names) != 1 or names[0] is None:
        raise NotSimpleError(
            f"{node.name} ({node.op}) has other inputs and outputs than such an operation has"
        )
    return names[0]


def functional(node: Node, specs: Mapping[str, TensorSpec], made: list[Node]) -> str:
    """Appends to ``made`` what computes the node's result, and returns the name of that value."""
    parts = node.op.split(".")
    base, spec = base_name(node.op).removesuffix("_"), node.out
    if base == "copy" or (base == "fill" and len(node.inputs) > 1):
        source = _only(node.inputs[1:], node)
        given = specs[source]
        if given.dtype != spec.dtype:
            name = node.name if given.shape == spec.shape else f"{node.name}_cast"
            attrs: dict[str, Attr] = {"dtype": f"torch.{spec.dtype}"}
            cast = replace(given, dtype=spec.dtype)
            made.append(
                replace(
                    node,
                    name=name,
                    op="aten.to.dtype",
                    inputs=(source,),
                    outputs=(name,),
                    outs=(cast,),
                    attrs=attrs,
                )
            )
            source, given = name, cast
        if given.shape != spec.shape:
            made.append(replace(node, op="aten.expand.default", inputs=(source,), attrs={"size": spec.shape}))
            source = node.outputs[0]
        return source
    if base in ("zero", "fill"):
        fill = node.attrs.get("value", 0)
        made.append(
            replace(node, op="aten.full_like.default", inputs=node.inputs[:1], attrs={"fill_value": fill})
        )
    elif is_in_place(node.op):
        op = ".".join([parts[0], base, *parts[2:]])
        made.append(replace(node, op=_OTHER_OVERLOAD.get(op, op)))
    else:
        made.append(node)
    return node.outputs[0]
