"""Operands of arithmetic in 16 bits, as PyTorch has them before it computes.

Kernels compute in float32, where more numbers differ than in float16: in that, 65535 equals infinity, and 0.1
the float16 number next to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import ml_dtypes
import numpy as np

from npu_compiler.dtypes import HALF, category, is_float, promote
from npu_compiler.lowering import Builder
from torch_ir.functionalize import base_name, words
from torch_ir.ir import ITEM_SIZE, Attr, Node, TensorSpec

#: Arithmetic whose operands have one dtype in PyTorch.
_ARITHMETIC = words("add sub rsub mul div true_divide floor_divide where")
#: That where single numbers (Python's, and tensors of rank 0) are rounded to it as well.
_ROUNDING = words("""
    eq ne lt le gt ge fmod remainder pow maximum minimum fmax fmin atan2 hypot copysign xlogy logaddexp
    logaddexp2
""")
_NUMPY = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def common_dtype(specs: Sequence[TensorSpec]) -> str:
    """PyTorch's promotion: a tensor of rank 0 counts only where its category is higher."""
    ranked = [spec.dtype for spec in specs if spec.rank] or [spec.dtype for spec in specs]
    result = promote(ranked)
    scalars = [spec.dtype for spec in specs if not spec.rank and category(spec.dtype) > category(result)]
    return promote(scalars) if scalars else result


def rounded_operands(builder: Builder, node: Node) -> Node:
    """The node with its operands rounded to the 16 bits that it computes in, those of another dtype."""
    base = base_name(node.op)
    tensors = [value for value in node.inputs if value is not None]
    if base not in _ARITHMETIC | _ROUNDING or not tensors:
        return node
    half = common_dtype([builder.spec(value) for value in tensors[base == "where" :]])
    if half not in HALF:
        return node

    def rounded(value: str | None) -> str | None:
        if value is None:
            return None
        spec = builder.spec(value)
        exact = spec.dtype == half or (not is_float(spec.dtype) and ITEM_SIZE[spec.dtype] == 1)
        single = not spec.rank and base not in _ROUNDING
        if exact or (single and not ("div" in base and value == node.inputs[0])):
            return value
        near = builder.emit("cast", value, dtype=f"torch.{half}")
        return builder.emit("cast", near, dtype="torch.float32")

    def near(number: Attr) -> Attr:
        if base not in _ROUNDING or isinstance(number, bool) or not isinstance(number, (int, float)):
            return number
        with np.errstate(over="ignore"):
            return float(np.asarray(float(number)).astype(_NUMPY[half]))

    attrs = {name: near(value) for name, value in node.attrs.items()}
    return replace(node, inputs=tuple(map(rounded, node.inputs)), attrs=attrs)
