"""What the public ``pytorch-ir`` format leaves out, filled in from names. Never imports PyTorch.

The public format drops absent optional tensors without a trace, so later ones move up; keeps in-place
operations; and marks absent entries of tensor lists in attributes of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from torch_ir.errors import IRError
from torch_ir.functionalize import (
    IDENTITIES,
    NotSimpleError,
    base_name,
    functionalize,
    is_in_place,
    live_nodes,
)
from torch_ir.ir import IR, Attr, Node, Output, State
from torch_ir.write_through import write_through

_CONV = ("input", "weight", "bias?")
_AFFINE = ("input", "weight?", "bias?")
_BATCH_NORM = ("input", "weight?", "bias?", "running_mean?", "running_var?")

#: Tensor arguments in schema order of the operations that have optional ones (marked by "?").
TENSOR_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "conv1d",
            "conv2d",
            "conv3d",
            "convolution",
            "conv_transpose1d",
            "conv_transpose2d",
            "conv_transpose3d",
            "linear",
        ),
        _CONV,
    ),
    **dict.fromkeys(("layer_norm", "group_norm", "native_layer_norm", "native_group_norm"), _AFFINE),
    "rms_norm": ("input", "weight?"),
    "batch_norm": _BATCH_NORM,
    "instance_norm": _BATCH_NORM,
    "_native_batch_norm_legit_no_training": ("input", "weight?", "bias?", "running_mean", "running_var"),
    "scaled_dot_product_attention": ("query", "key", "value", "attn_mask?"),
}

_BY_OVERLOAD: Mapping[str, tuple[str, ...]] = dict.fromkeys(
    ("aten.clamp.Tensor", "aten.clamp_.Tensor", "aten.clip.Tensor", "aten.clip_.Tensor"),
    ("self", "min?", "max?"),
)

#: What else models call these parameters.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "weight": ("gamma", "scale", "gain", "g", "w"),
    "bias": ("beta", "shift", "offset", "b"),
    "running_mean": ("mean",),
    "running_var": ("var", "variance"),
}

#: Where the list of optional tensors starts among the inputs of the operations that take one.
_OPTIONAL_LIST_AT = {"index": 1, "_unsafe_index": 1, "index_put": 1, "index_put_": 1, "_index_put_impl_": 1}


def write_lists(node: Node, attrs: dict[str, object]) -> None:
    """Puts a node's tensor lists in the public form: sizes without the absent entries, and masks of those."""
    sizes = node.attrs.get("_tensor_list_sizes")
    if not isinstance(sizes, tuple) or None not in node.inputs:
        return
    at = _OPTIONAL_LIST_AT.get(base_name(node.op))
    if at is None or not isinstance(sizes[0], int):
        return
    mask = [value is None for value in node.inputs[at : at + sizes[0]]]
    attrs["_tensor_list_sizes"] = [sizes[0] - sum(mask), *sizes[1:]]
    if any(mask):
        attrs["_tensor_list_none_masks"] = [mask]


def read_lists(
    name: str, op: str, given: Sequence[str | None], none_mask: Sequence[bool] | None, attrs: dict[str, Attr]
) -> list[str | None]:
    """All inputs of a node from those that its file names; changes ``attrs`` to the form in memory."""
    masks = attrs.pop("_tensor_list_none_masks", None)
    sizes = attrs.get("_tensor_list_sizes")
    inputs = list(given)
    if isinstance(masks, tuple) and masks and isinstance(masks[0], tuple) and isinstance(sizes, tuple):
        mask = masks[0]
        attrs["_tensor_list_sizes"] = (len(mask), *sizes[1:])
        if none_mask is None:
            at = _OPTIONAL_LIST_AT.get(base_name(op), 1)
            listed = _expand(name, inputs[at : at + mask.count(False)], [bool(item) for item in mask])
            inputs[at : at + mask.count(False)] = listed
    return inputs if none_mask is None else _expand(name, inputs, none_mask)


def _expand(name: str, given: Sequence[str | None], mask: Sequence[bool]) -> list[str | None]:
    present = iter(given)
    if sum(not absent for absent in mask) != len(given):
        raise IRError(
            f"{name} has {len(given)} inputs, which do not fit its mask of absent ones {list(mask)}"
        )
    return [None if absent else next(present) for absent in mask]


def complete(ir: IR) -> IR:
    """A graph read from a public file with absent inputs marked, checks dropped and in-place operations
    replaced; those that may or may not change what others read stay, for the compiler to refuse."""
    nodes = [replace(node, inputs=_with_absent(node)) for node in ir.nodes if node.outputs]
    plain = replace(ir, nodes=tuple(nodes))
    if not any(is_in_place(node.op) for node in nodes):
        return plain
    for node in nodes:
        shares = is_in_place(node.op) or base_name(node.op) in IDENTITIES
        if shares and (not node.inputs or node.inputs[0] is None):
            raise IRError(f"{node.name} ({node.op}) is its first input, and has none")
    placeholders = [*ir.inputs, *ir.weight_name_mapping, *ir.constants]
    try:
        result = functionalize(nodes, ir.values(), placeholders, [output.value for output in ir.outputs])
    except NotSimpleError:
        try:
            result = write_through(nodes, ir.values(), placeholders)
        except NotSimpleError:
            return plain
    changed = {name: result.now(name) for name in placeholders if result.now(name) != name}
    if any(not name.startswith("b_") or name in ir.inputs for name in changed):
        return plain
    states = {
        name: State(key, ir.weights[key], changed[name], persistent=True)
        for name, key in ir.weight_name_mapping.items()
        if name in changed
    }
    for name, constant in ir.constants.items():
        if name in changed:
            states[name] = State(constant.key or name, constant.spec, changed[name], data=constant.data)
    outputs = tuple(Output(output.name, result.now(output.value)) for output in ir.outputs)
    return replace(
        ir,
        nodes=live_nodes(result.nodes, {*changed.values(), *(output.value for output in outputs)}),
        outputs=outputs,
        states=states,
        weight_name_mapping={k: v for k, v in ir.weight_name_mapping.items() if k not in changed},
        constants={k: v for k, v in ir.constants.items() if k not in changed},
    )


def _with_absent(node: Node) -> tuple[str | None, ...]:
    arguments = _BY_OVERLOAD.get(node.op) or TENSOR_ARGUMENTS.get(base_name(node.op))
    if arguments is None or len(node.inputs) >= len(arguments):
        return node.inputs
    optional = [at for at, name in enumerate(arguments) if name.endswith("?")]
    if node.attrs.get("training") is False or node.attrs.get("use_input_stats") is False:
        optional = [at for at in optional if not arguments[at].startswith("running_")]
    count = len(arguments) - len(node.inputs)
    if count > len(optional):
        raise IRError(
            f"{node.name} ({node.op}) has {len(node.inputs)} inputs; it takes {', '.join(arguments)}"
        )

    def named(absent: tuple[int, ...]) -> int:
        """How many inputs have names that tell which argument they are, if these are absent."""
        present = [name.rstrip("?") for at, name in enumerate(arguments) if at not in absent]
        return sum(_tells(value, name) for name, value in zip(present, node.inputs, strict=True))

    ways = sorted(combinations(optional, count), key=named, reverse=True)
    if len(ways) > 1 and named(ways[0]) == named(ways[1]):
        given = ", ".join(str(value) for value in node.inputs[1:])
        maybe = ", ".join(arguments[at].rstrip("?") for at in optional)
        raise IRError(
            f"{node.name} ({node.op}) has the inputs {given}, and the file does not say which of {maybe} "
            "they are; extract the model with torch_ir.extract_ir of npubin, whose files say it"
        )
    return tuple(_expand(node.name, node.inputs, [at in ways[0] for at in range(len(arguments))]))


def _tells(value: str | None, argument: str) -> bool:
    """Whether a placeholder is named like this argument."""
    if value is None or not value.startswith(("p_", "b_", "c_")):
        return False
    return any(value.endswith(f"_{name}") for name in (argument, *_NAMES.get(argument, ())))
