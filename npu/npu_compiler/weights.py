"""Values that are known before a run: weights, constants and what is computed from them alone."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from npu_compiler.dtypes import HALF
from npu_compiler.ops import op_def
from npu_runtime.program import StateSpec, Transform, WeightExpr
from torch_ir.ir import IR, Node, State, TensorSpec


def constant_exprs(ir: IR) -> dict[str, WeightExpr]:
    """value -> how it is computed when weights are loaded, for every value where that is possible."""
    found: dict[str, WeightExpr] = {}
    for name, key in ir.weight_name_mapping.items():
        found[name] = ["tensor", key]
    for name, constant in ir.constants.items():
        data = const_expr(constant.data, constant.spec.dtype, _static(constant.spec.shape))
        found[name] = ["buffer", constant.key, data] if constant.key else data
    for node in ir.nodes:
        expr = _node_expr(node, found)
        if expr is not None:
            found[node.outputs[0]] = expr
    return found


def const_expr(data: bytes, dtype: str, shape: tuple[int, ...]) -> WeightExpr:
    """Little-endian row-major bytes as an expression."""
    return ["const", dtype, list(shape), base64.b64encode(data).decode()]


def scalar_expr(value: float) -> WeightExpr:
    """A number as an expression."""
    return const_expr(np.float64(value).tobytes(), "float64", ())


def state_spec(state: State) -> StateSpec:
    """A state as programs describe it."""
    shape = _static(state.spec.shape)
    init = None
    if state.persistent:
        init = ["tensor", state.key]
    elif state.data is not None:
        init = const_expr(state.data, state.spec.dtype, shape)
    return StateSpec(state.key, shape, state.spec.dtype, init)


def _static(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(int(str(size)) for size in shape)


def _node_expr(node: Node, known: dict[str, WeightExpr]) -> WeightExpr | None:
    if len(node.outputs) != 1 or any(value is not None and value not in known for value in node.inputs):
        return None
    if any(not isinstance(size, int) for out in node.outs for size in out.shape):
        return None
    try:
        make = op_def(node.op).weight_expr
    except KeyError:
        return None
    if make is None:
        return None
    scalar = scalar_expr(_number(node.attrs.get("scalar", 0)))  # of an absent operand, if it is a number
    return make(node, [scalar if value is None else known[value] for value in node.inputs])


def _number(attr: object) -> float:
    assert isinstance(attr, (int, float))
    return attr


#: Functions of transforms that put elements elsewhere and change none.
_ARRANGING = ("permute", "reshape", "slice", "pad", "broadcast")


def as_stored(expr: WeightExpr, ir: IR) -> tuple[WeightExpr, str] | None:
    """A weight that is only widened to float32, and perhaps rearranged, as the same rearrangement of its 16
    bits; and their dtype. None for others."""
    if expr[0] == "cast" and expr[2] == "float32":
        dtype = _dtype(expr[1], ir)
        return (expr[1], dtype) if dtype in HALF else None
    if expr[0] == "concat":
        parts = [as_stored(part, ir) for part in expr[1]]
        dtypes = {part[1] for part in parts if part is not None}
        if None in parts or len(dtypes) != 1:
            return None
        return ["concat", [part[0] for part in parts if part is not None], expr[2]], dtypes.pop()
    if expr[0] not in _ARRANGING:
        return None
    inner = as_stored(expr[1], ir)
    return None if inner is None else (_tidy([expr[0], inner[0], *expr[2:]]), inner[1])


def stored_bytes(expr: WeightExpr, spec: TensorSpec, ir: IR) -> int:
    """The bytes that a constant value takes on a device."""
    stored = as_stored(expr, ir)
    return int(str((replace(spec, dtype=stored[1]) if stored else spec).nbytes))


def _dtype(expr: WeightExpr, ir: IR) -> str:
    if expr[0] == "tensor":
        return ir.weights[expr[1]].dtype
    if expr[0] in ("const", "cast"):
        return str(expr[1] if expr[0] == "const" else expr[2])
    return _dtype(expr[1], ir) if expr[0] in _ARRANGING else ""


def _tidy(expr: WeightExpr) -> WeightExpr:
    """Two permutations as one, so that equal tensors have equal expressions."""
    if expr[0] == "permute" and expr[1][0] == "permute":
        dims = [expr[1][2][i] for i in expr[2]]
        return expr[1][1] if dims == sorted(dims) else ["permute", expr[1][1], dims]
    return expr


class Transforms:
    """The weight tensors that a program asks for, each named after its first source and a digest of its
    expression."""

    def __init__(self) -> None:
        self.made: dict[str, Transform] = {}

    def add(self, expr: WeightExpr, shape: tuple[int, ...], dtype: str) -> str:
        """The name of the tensor that ``expr`` gives, cast to ``dtype``; asking twice gives the same name."""
        full = expr if expr[0] == "cast" and expr[2] == dtype else ["cast", expr, dtype]
        digest = hashlib.sha256(json.dumps([full, list(shape)]).encode()).hexdigest()[:12]
        name = f"{first_key(expr)}@{digest}"
        self.made.setdefault(name, Transform(name, shape, dtype, full))
        return name


def first_key(expr: WeightExpr) -> str:
    """The first weight or buffer that an expression reads; "constant" where it reads none."""
    return next(keys_of(expr), "constant")


def keys_of(expr: Any) -> Iterator[str]:
    """The weights and buffers that an expression reads, in its order, each as often as it stands there."""
    if isinstance(expr, list):
        if expr and expr[0] in ("tensor", "buffer"):
            yield str(expr[1])
        else:
            for part in expr:
                yield from keys_of(part)


#: Gives a weight's packed form from its plain one.
Pack = Callable[[WeightExpr], WeightExpr]
