"""A convolution and the depthwise convolution behind it as one node: in an inverted bottleneck the tensor
between them is the largest there is, and a processor need not write it to memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from npu_compiler.lowering import as_ints
from npu_compiler.ops.expanded_depthwise import FIRST, SECOND
from npu_compiler.products import LANES
from npu_compiler.target import Target
from npu_compiler.weights import constant_exprs
from torch_ir.ir import IR, Node, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

#: Largest window of the depthwise kernels.
MOST = 9


def fuse_depthwise(ir: IR, target: Target) -> IR:
    """``conv(relu6(conv(x, w)), d, groups=channels)`` becomes ``expanded_depthwise(x, w, d)`` where nothing
    else reads what the first one makes: a 1x1 convolution without padding, or one of few channels. How the
    node runs, as one kernel or as two, is decided when it is emitted. Only for targets whose work-items work
    alone."""
    if target.group > 1:
        return ir
    constants, users, results = constant_exprs(ir), ir.users(), ir.results()
    specs = ir.values()
    firsts = {
        node.outputs[0]: node
        for node in ir.nodes
        if _expands(node, specs, constants)
        and node.outputs[0] not in results
        and len(users.get(node.outputs[0], ())) == 1
    }
    fused: dict[str, Node] = {}
    dropped: set[str] = set()
    for node in ir.nodes:
        first = firsts.get(str(node.inputs[0])) if node.inputs else None
        if first is not None and _is_window(node, first, specs, constants):
            fused[node.name] = _joined(first, node)
            dropped.add(first.name)
    return replace(
        ir, nodes=tuple(fused.get(node.name, node) for node in ir.nodes if node.name not in dropped)
    )


def _is_plain(node: Node, constants: Container[str]) -> bool:
    """A convolution over float32 images of known size with constant weights, without dilation or another
    tensor in its epilogue."""
    return (
        node.op == "conv"
        and node.out.dtype == "float32"
        and all(isinstance(size, int) and size > 0 for size in node.out.shape[1:])
        and all(value is None or value in constants for value in node.inputs[1:3])
        and not any(node.inputs[3:])
        and "half" not in node.attrs
        and as_ints(node.attrs["dilation"]) == (1, 1)
    )


def _expands(node: Node, specs: Mapping[str, TensorSpec], constants: Container[str]) -> bool:
    if not _is_plain(node, constants) or node.attrs["groups"] != 1:
        return False
    x, (_, inner, *kernel) = specs[str(node.inputs[0])], specs[str(node.inputs[1])].shape
    if not all(isinstance(size, int) and size > 0 for size in x.shape[1:]):
        return False
    point = kernel == [1, 1] and not any(as_ints(node.attrs["padding"]))
    return point or (kernel[1] != 1 and int(str(inner)) < LANES)


def _is_window(node: Node, first: Node, specs: Mapping[str, TensorSpec], constants: Container[str]) -> bool:
    if not _is_plain(node, constants):
        return False
    channels, window = first.out.shape[1], specs[str(node.inputs[1])].shape[2:]
    return (
        node.attrs["groups"] == node.out.shape[1] == channels
        and channels != 1
        and all(isinstance(size, int) and size <= MOST for size in window)
    )


def _joined(first: Node, node: Node) -> Node:
    """Both as one node, in the place of the second."""
    attrs = {
        name: part.attrs[own]
        for part, names in ((first, FIRST), (node, SECOND))
        for name, own in names.items()
        if own in part.attrs
    }
    biases = [part.inputs[2] if len(part.inputs) > 2 else None for part in (first, node)]
    inputs = (*first.inputs[:2], biases[0], node.inputs[1], biases[1])
    origin = (*first.origin, *node.origin)
    return replace(node, op="expanded_depthwise", inputs=inputs, attrs=attrs, origin=origin)
