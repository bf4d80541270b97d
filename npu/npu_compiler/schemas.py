"""The arguments of ATen operations: what a node of an extracted graph must have, and of which kind.

``schemas.txt`` has PyTorch's schemas of the operations that have a lowering, a line each, as PyTorch writes
them; ``python -m pipelines operators`` writes it, and a test compares. Compiling needs no PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice

from npu_compiler.dtypes import REAL, SHORT
from torch_ir.expr import Expr
from torch_ir.ir import Attr, Node

_ARGUMENT = re.compile(r"(?P<kind>[\w?]+(?:\([^)]*\))?(?:\[\d*\])?\??) (?P<name>\w+)(?P<default>=.*)?")
_TENSORS = ("Tensor", "Tensor?")
_TENSOR_LISTS = ("Tensor[]", "Tensor?[]", "Tensor[]?")
#: What a text may be, for the kinds that are written as texts.
_WORDS = {
    "ScalarType": frozenset(f"torch.{name}" for name in (*SHORT, *REAL)),
    "MemoryFormat": frozenset(
        f"torch.{name}_format" for name in ("contiguous", "preserve")
    ) | {"torch.channels_last", "torch.channels_last_3d"},
}  # fmt: skip


@dataclass(frozen=True)
class Argument:
    """``kind`` as in PyTorch's schemas: "Tensor", "SymInt[2]", "bool", "Scalar?"..."""

    name: str
    kind: str
    optional: bool
    """Whether it may be left out."""


@cache
def arguments(op: str) -> tuple[Argument, ...] | None:
    """The arguments of an overload ("aten.relu.default"), in order; None where its schema is not known."""
    line = _lines().get(op)
    return None if line is None else tuple(_parsed(line))


@cache
def _lines() -> Mapping[str, str]:
    text = (files("npu_compiler") / "schemas.txt").read_text("utf-8")
    return dict(line.split(" ", 1) for line in text.splitlines())


def line_of(op: str, schema: object) -> str:
    """The line of ``schemas.txt`` for an overload and its schema in PyTorch."""
    return f"{op} {str(schema).split('(', 1)[1].rsplit(') ->', 1)[0]}"


def _parsed(line: str) -> Iterator[Argument]:
    for text in re.split(r", (?![^\[]*\])", line):
        match = _ARGUMENT.fullmatch(text)
        if match is None:
            continue  # "*", after which arguments are keywords
        kind = re.sub(r"\(.*\)", "", match["kind"])
        yield Argument(match["name"], kind, match["default"] is not None or kind.endswith("?"))


def problem(node: Node) -> str | None:
    """What is wrong with the node's inputs and attributes; None where they are what its operation takes."""
    known = arguments(node.op)
    if known is None:
        return None
    names = {argument.name for argument in known}
    for name in node.attrs:
        if name not in names and not name.startswith("_"):
            return f"an attribute {name}, which {node.op} does not have; its arguments are {', '.join(names)}"
    for argument in known:
        if argument.name in node.attrs:
            value = node.attrs[argument.name]
            if not _fits(value, argument.kind):
                return f"{argument.name} = {value!r}, where {node.op} takes {argument.kind}"
        elif not argument.optional and argument.kind not in (*_TENSORS, *_TENSOR_LISTS):
            return f"no {argument.name}, which {node.op} needs ({argument.kind})"
    return _inputs_problem(node, known)


def _inputs_problem(node: Node, known: tuple[Argument, ...]) -> str | None:
    """NOTE: optional tensors at the end may be left out in files of others."""
    sizes = node.attrs.get("_tensor_list_sizes", ())
    lengths = iter(sizes if isinstance(sizes, tuple) else ())
    rest = iter(node.inputs)
    for argument in known:
        if argument.name in node.attrs:
            continue
        if argument.kind in _TENSOR_LISTS:
            length = next(lengths, 0)
            wanted = max(length, 0) if isinstance(length, int) else 0
            if len(list(islice(rest, wanted))) < wanted:
                return f"fewer tensors than the {wanted} of {argument.name}"
        elif argument.kind in _TENSORS and next(rest, None) is None and not argument.optional:
            return f"no tensor {argument.name}, which {node.op} needs"
    left = len(list(rest))
    return f"{left} more inputs than {node.op} takes" if left else None


def _fits(value: Attr, kind: str) -> bool:
    """Whether an attribute is of a kind, as PyTorch takes it. A number may stand for a tensor."""
    kind = kind.removesuffix("?")
    match = re.fullmatch(r"(\w+\??)\[(\d*)\]", kind)
    if match is not None:
        inner, count = match.groups()
        if not isinstance(value, tuple):  # one number for all, where their count is known
            return inner in ("int", "float", "bool") and count != "" and _fits(value, inner)
        return all(
            item is None if inner.endswith("?") and item is None else _fits(item, inner) for item in value
        )
    if isinstance(value, str):
        allowed = _WORDS.get(kind)
        if kind in ("Scalar", "Tensor"):  # a complex number
            return value.endswith(("j", "j)"))
        return value in allowed if allowed is not None else kind in ("str", "Layout", "Device", "Generator")
    if kind in ("int", "SymInt"):
        return isinstance(value, (int, Expr))
    if kind in ("float", "Scalar", "Tensor"):
        return isinstance(value, (int, float, Expr))
    return kind == "bool" and isinstance(value, int)
