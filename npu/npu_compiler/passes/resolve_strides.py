"""``as_strided`` of a view -> ``as_strided`` of the tensor whose memory that view is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from npu_compiler.errors import Unsupported
from npu_compiler.lowering import Builder
from npu_compiler.ops import load_all, op_def
from npu_compiler.ops.reinterpret import AS_STRIDED, OF_STORAGE
from npu_compiler.target import Target
from npu_compiler.views import View, place, row_strides
from torch_ir.expr import Dim
from torch_ir.functionalize import IDENTITIES, VIEWS, base_name, words
from torch_ir.ir import IR, Node, TensorSpec

#: Operations whose results PyTorch always lays out row-major...
_MAKES_DENSE = words("""
    linear mm bmm addmm embedding repeat zeros ones full arange linspace eye new_zeros new_ones new_full
""")
#: ... and those whose results are row-major where all their inputs are.
_KEEPS_DENSE = words("""
    add sub mul div neg abs exp log sqrt rsqrt pow relu gelu silu tanh sigmoid where masked_fill softmax
    _softmax layer_norm native_layer_norm rms_norm cat stack constant_pad_nd pad index_select roll flip cumsum
    conv1d conv2d batch_norm dropout clone clamp zeros_like ones_like full_like
""")


def resolve_strides(ir: IR, target: Target) -> IR:
    """Marks those ``as_strided`` whose memory is known: of a tensor that PyTorch lays out row-major, or of
    views of one, as PyTorch's own rules make them. The others stay, and are refused."""
    if not any(node.op in AS_STRIDED for node in ir.nodes):
        return ir
    specs = ir.values()
    known: dict[str, View] = {name: place(name, spec) for name, spec in specs.items()}
    for node in ir.nodes:
        for name in node.outputs:
            del known[name]
    nodes = []
    for node in ir.nodes:
        source = known.get(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
        if node.op in AS_STRIDED and source is not None and OF_STORAGE not in node.attrs:
            attrs = {"storage_offset": source.offset, **node.attrs, OF_STORAGE: True}
            node = replace(node, inputs=(source.buffer,), attrs=attrs)
        else:
            known.update(_memory(node, source, known, specs, ir))
        nodes.append(node)
    return replace(ir, nodes=tuple(nodes))


def _memory(
    node: Node, source: View | None, known: Mapping[str, View], specs: Mapping[str, TensorSpec], ir: IR
) -> dict[str, View]:
    """Where the node's outputs lie, for those of which that is known."""
    base = base_name(node.op)
    own = {name: place(name, spec) for name, spec in zip(node.outputs, node.outs, strict=True)}
    if base in _MAKES_DENSE or (base == "matmul" and _rank(node, 0, specs) >= _rank(node, 1, specs)):
        return own
    if base in VIEWS | IDENTITIES:
        return _views(node, source, specs, ir) if source is not None else {}
    if base in _KEEPS_DENSE and node.attrs.get("memory_format") in (None, "torch.contiguous_format"):
        views = [known.get(value) for value in node.inputs if value is not None]
        if all(view is not None and view.is_dense() for view in views):
            return own
    return {}


def _rank(node: Node, index: int, specs: Mapping[str, TensorSpec]) -> int:
    return specs[str(node.inputs[index])].rank


def _views(node: Node, source: View, specs: Mapping[str, TensorSpec], ir: IR) -> dict[str, View]:
    """The outputs of a view's node, by what it lowers to. Where that takes a copy, the copy is row-major."""
    builder = Builder(node, specs, set(specs), ir.symbols)
    lowering = load_all()[1].get(node.op)
    if node.op == "aten.contiguous.default" and not source.is_dense():
        return {node.outputs[0]: place(node.outputs[0], node.out)}
    try:
        results = lowering(builder, node) if lowering is not None else ()
    except Unsupported:
        return {}
    found: dict[str, View | None] = {str(node.inputs[0]): source}
    for made in builder.nodes:
        alias, view = op_def(made.op).alias, found.get(str(made.inputs[0])) if made.inputs else None
        found[made.outputs[0]] = None if alias is None or view is None else alias(view, made)
    names = [results] if isinstance(results, str) else list(results)
    views = {}
    for name, result, spec in zip(node.outputs, names, node.outs, strict=False):
        view = found.get(result)
        if view is not None:
            views[name] = replace(view, strides=_plain(view))
        elif result in found and base_name(node.op) in ("reshape", "flatten", "reshape_as"):
            views[name] = place(name, spec)
    return views


def _plain(view: View) -> tuple[Dim, ...]:
    """The view's strides, in dimensions of size 1 those of a row-major tensor."""
    return tuple(
        row if size == 1 else stride
        for size, stride, row in zip(view.shape, view.strides, row_strides(view.shape), strict=True)
    )
