"""Attention and products given by an equation, as matrix products and softmax."""

from __future__ import annotations

import math

from npu_compiler.dtypes import is_float
from npu_compiler.lowering import Builder, as_int, as_number, unsupported
from npu_compiler.ops import lowers
from npu_compiler.ops.arithmetic import choose
from npu_compiler.ops.creation import positions
from npu_compiler.ops.elementwise import cast
from npu_compiler.ops.fused_attention import fits
from npu_compiler.ops.norm import optional_input
from npu_compiler.ops.views import permute, reshape, tensor_input
from npu_compiler.shapes import may_equal, may_expand, require
from torch_ir.expr import Dim, product
from torch_ir.ir import Node


@lowers("aten.scaled_dot_product_attention.default")
def lower_attention(b: Builder, node: Node) -> str:
    """``softmax(q @ k' * scale + mask) @ v``; rows that see nothing give 0."""
    q, k, v = (tensor_input(node, index) for index in range(3))
    mask = optional_input(node, 3)
    if node.attrs.get("dropout_p"):
        raise unsupported("attention with dropout", "call .eval() on the model before extraction")
    _check_operands(b, node, q, k, v, mask)
    fused = _fused(b, node, q, k, v, mask)
    if fused is not None:
        return fused
    *lead, rows, width = b.shape(q)
    columns = b.shape(k)[-2]
    shared = node.attrs.get("enable_gqa") and lead[-1] != b.shape(k)[-3]
    if shared:
        heads = as_int(b.shape(k)[-3])
        times = as_int(lead[-1]) // heads
        q = reshape(b, q, (*lead[:-1], heads, times, rows, width))
        k, v = (reshape(b, x, (*b.shape(x)[:-2], 1, *b.shape(x)[-2:])) for x in (k, v))
    given = node.attrs.get("scale")
    if given is None and not isinstance(width, int):
        raise unsupported("attention over a dynamic width without a scale")
    scale = 1 / math.sqrt(as_int(width)) if given is None else float(as_number(given))
    rank = len(b.shape(k))
    turned = permute(b, k, (*range(rank - 2), rank - 1, rank - 2))
    scores = b.emit("mul", b.emit("matmul", q, turned), None, scalar=scale)
    dtype = b.spec(scores).dtype
    if node.attrs.get("is_causal"):
        seen = b.emit("ge", positions(b, (rows, columns), 0), positions(b, (rows, columns), 1))
        scores = choose(b, seen, scores, -math.inf, dtype)
    if mask is not None:
        if shared and len(b.shape(mask)) > 2:
            if b.shape(mask)[-3] not in (1, lead[-1]):
                raise unsupported("an attention mask of another number of heads")
            split = (1, 1) if b.shape(mask)[-3] == 1 else (heads, times)
            mask = reshape(b, mask, (*b.shape(mask)[:-3], *split, *b.shape(mask)[-2:]))
        if b.spec(mask).dtype == "bool":
            scores = choose(b, mask, scores, -math.inf, dtype)
        else:
            scores = b.emit("add", scores, cast(b, mask, dtype))
    weights = b.emit("safe_softmax", scores, dim=len(b.shape(scores)) - 1)
    return reshape(b, b.emit("matmul", weights, v), node.out.shape)


def _check_operands(b: Builder, node: Node, q: str, k: str, v: str, mask: str | None) -> None:
    """Refuses shapes that PyTorch refuses: a kernel would read beyond them."""
    shapes = [b.shape(x) for x in (q, k, v)]
    (*_, rows, width), (*_, columns, height), (*_, values, _) = shapes
    require(may_equal(width, height) and may_equal(columns, values), f"attention of {shapes}")
    if not node.attrs.get("enable_gqa"):
        heads = [shape[-3] for shape in shapes if len(shape) > 2]
        fit = all(may_expand(count, heads[0]) for count in heads[1:])
        require(fit or heads[0] == 1, f"attention of {shapes} without enable_gqa")
    if mask is not None:
        pairs = zip(reversed(b.shape(mask)), (columns, rows), strict=False)
        fit = all(may_expand(size, wanted) for size, wanted in pairs)
        require(fit, f"an attention mask of {b.shape(mask)} for {rows} queries and {columns} keys")


def _fused(b: Builder, node: Node, q: str, k: str, v: str, mask: str | None) -> str | None:
    """One node for what the attention kernel takes; None for the rest."""
    if len(b.shape(q)) == 3 and len(b.shape(k)) == 3 and len(b.shape(v)) == 3:
        q, k, v = (reshape(b, x, (b.shape(x)[0], 1, *b.shape(x)[1:])) for x in (q, k, v))
        if mask is not None and len(b.shape(mask)) == 3:
            mask = reshape(b, mask, (b.shape(mask)[0], 1, *b.shape(mask)[1:]))
    if mask is not None and is_float(b.spec(mask).dtype):
        mask = cast(b, mask, b.spec(q).dtype)
    if not fits(b.spec(q), b.spec(k), b.spec(v), None if mask is None else b.spec(mask)):
        return None
    if mask is not None:  # one that is larger than the queries makes more results than there are queries
        pairs = zip(b.shape(mask)[-3::-1], b.shape(q)[-3::-1], strict=False)
        if not all(may_expand(size, wanted) for size, wanted in pairs):
            return None
    given = node.attrs.get("scale")
    scale = 1 / math.sqrt(as_int(b.shape(q)[-1])) if given is None else float(as_number(given))
    causal = bool(node.attrs.get("is_causal"))
    return reshape(b, b.emit("attention", q, k, v, mask, scale=scale, causal=causal), node.out.shape)


@lowers("aten.einsum.default")
def lower_einsum(b: Builder, node: Node) -> str:
    equation = str(node.attrs["equation"]).replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    values = [cast(b, str(value), node.out.dtype) for value in node.inputs]
    if not arrow:
        letters = sorted(set(left) - {","})
        result = "".join(letter for letter in letters if left.count(letter) == 1)
    if "." in equation or any(len(set(term)) != len(term) for term in (*terms, result)):
        raise unsupported(f"the equation {equation!r}", "write it without ... and without repeated letters")
    if len(terms) > 2:
        raise unsupported(f"the equation {equation!r} of {len(terms)} operands", "use two at a time")
    sizes: dict[str, Dim] = {}
    for term, value in zip(terms, values, strict=True):
        for letter, size in zip(term, b.shape(value), strict=True):
            sizes[letter] = size if sizes.get(letter, 1) == 1 else sizes[letter]
    kept = [set(result).union(*terms[:i], *terms[i + 1 :]) for i in range(len(terms))]
    for i, term in enumerate(terms):  # what only one operand has and the result has not, is summed first
        dims = tuple(d for d, letter in enumerate(term) if letter not in kept[i])
        if dims:
            terms[i] = "".join(letter for letter in term if letter in kept[i])
            values[i] = reshape(
                b, b.emit("reduce_sum", values[i], dims=dims), tuple(sizes[letter] for letter in terms[i])
            )
    if len(terms) == 1:
        return permute(b, values[0], tuple(terms[0].index(letter) for letter in result))
    x, y = terms
    batch = [letter for letter in x if letter in y and letter in result]
    inner = [letter for letter in x if letter in y and letter not in result]
    rows = [letter for letter in x if letter not in y]
    columns = [letter for letter in y if letter not in x]

    def matrix(value: str, term: str, first: list[str], second: list[str]) -> str:
        order = [*batch, *first, *second]
        moved = permute(b, value, tuple(term.index(letter) for letter in order))
        wide = tuple(sizes[letter] for letter in order)
        moved = moved if b.shape(moved) == wide else b.emit("expand", moved, shape=wide)
        lead = tuple(sizes[letter] for letter in batch)
        return reshape(b, moved, (*lead, product(sizes[s] for s in first), product(sizes[s] for s in second)))

    made = b.emit("matmul", matrix(values[0], x, rows, inner), matrix(values[1], y, inner, columns))
    order = [*batch, *rows, *columns]
    made = reshape(b, made, tuple(sizes[letter] for letter in order))
    return permute(b, made, tuple(order.index(letter) for letter in result))


@lowers("aten.outer.default")
def lower_outer(b: Builder, node: Node) -> str:
    x, y = (cast(b, tensor_input(node, index), node.out.dtype) for index in range(2))
    return b.emit("mul", reshape(b, x, (b.shape(x)[0], 1)), y)
