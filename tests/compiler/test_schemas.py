"""Nodes whose arguments are not what PyTorch takes are refused, each by name; what PyTorch takes is not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from npu_compiler import schemas
from npu_compiler.compiler import compile_ir
from npu_compiler.errors import UnsupportedOpError
from npu_compiler.ops import load_all
from pipelines.operators import schema_lines
from torch_ir import extract_ir
from torch_ir.calling import overload
from torch_ir.expr import symbol
from torch_ir.ir import IR, Attr, Node, Output, TensorSpec

FILE = Path(schemas.__file__).with_name("schemas.txt")
X = TensorSpec((2, 3, 5, 5), "float32")


NORM = {"training": False, "eps": 1e-5, "cudnn_enabled": False}


def node(op: str, count: int = 1, attrs: Mapping[str, Attr] | None = None) -> Node:
    return Node("y", f"aten.{op}", ("x",) * count, ("y",), (X,), attrs or {})


def test_the_file_is_pytorchs() -> None:
    assert FILE.read_text(encoding="utf-8") == schema_lines(), "run `python -m pipelines operators`"


def test_arguments_are_read_as_pytorch_has_them() -> None:
    lowered = [op for op in load_all()[1] if op.startswith("aten.") and schemas.arguments(op) is not None]
    assert len(lowered) > 500
    for op in lowered:
        found, wanted = schemas.arguments(op), overload(torch, op)._schema.arguments
        assert found is not None and [item.name for item in found] == [item.name for item in wanted], op
        for mine, theirs in zip(found, wanted, strict=True):
            assert mine.optional >= theirs.has_default_value(), (op, mine)
            assert mine.kind.startswith("Tensor") == ("Tensor" in str(theirs.type)), (op, mine)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (node("batch_norm.default", 5, {**NORM, "momentum": "0.1"}), "momentum = '0.1'"),
        (node("split_with_sizes.default"), "no split_sizes"),
        (node("to.dtype"), "no dtype"),
        (node("to.dtype", 1, {"dtype": "torch.strided"}), "dtype = 'torch.strided'"),
        (node("conv2d.default", 2, {"dilation": 1}), "dilation = 1"),
        (node("softmax.int", 1, {"dim": 1.0}), "dim = 1.0"),
        (node("softmax.int", 1, {"dim": (1,)}), "dim = (1,)"),
        (node("softmax.int", 1, {"dim": 1, "axis": 1}), "an attribute axis"),
        (node("sum.dim_IntList", 1, {"dim": (1, "2")}), "dim = (1, '2')"),
        (node("relu.default", 0), "no tensor self"),
        (node("cat.default", 2, {"_tensor_list_sizes": (3,)}), "fewer tensors than the 3"),
        (node("relu.default", 2), "1 more inputs"),
        (node("add.Tensor", 2, {"alpha": (1,)}), "alpha = (1,)"),
        (node("flip.default", 1, {"dims": True}), "dims = True"),
        (node("einsum.default", 2, {"equation": 3, "_tensor_list_sizes": (2,)}), "equation = 3"),
    ],
)  # fmt: skip
def test_what_pytorch_refuses_is_refused_with_its_name(given: Node, part: str) -> None:
    assert part in str(schemas.problem(given))
    with pytest.raises(UnsupportedOpError) as caught:
        compile_ir(IR("mistaken", {"x": X}, (Output("y", "y"),), (given,)))
    (refusal,) = caught.value.refusals
    assert refusal.node == "y" and part in refusal.reason and refusal.remedy


@pytest.mark.parametrize(
    "given",
    [
        node("max_pool2d.default", 1, {"kernel_size": 2}),
        node("conv2d.default", 2, {"stride": (2, 1)}),
        node("view.default", 1, {"size": (symbol("n"), -1)}),
        node("add.Tensor", 1, {"other": 1e-6}),
        node("mul.Tensor", 1, {"other": "(1+2j)"}),
        node("clamp.default", 1, {"min": float("inf")}),
        node("layer_norm.default", 1, {"normalized_shape": (5,), "eps": 1}),
        node("zeros.default", 0, {"size": (3,), "dtype": "torch.int64", "device": "meta"}),
        node("index.Tensor", 3, {"_tensor_list_sizes": (2,)}),
        node("cat.default", 3, {"_tensor_list_sizes": (3,), "dim": -1}),
        node("made_up.default", 5, {"what": "ever"}),
    ],
)
def test_what_pytorch_takes_is_not_refused(given: Node) -> None:
    assert schemas.problem(given) is None


def test_a_clamp_without_bounds_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match="neither a smallest nor a largest value"):
        compile_ir(IR("mistaken", {"x": X}, (Output("y", "y"),), (node("clamp.default"),)))


def test_extracted_graphs_fit() -> None:
    def calls(x: Any) -> Any:
        pooled = torch.nn.functional.max_pool2d(x, 2, ceil_mode=True).permute(0, 2, 3, 1)
        return torch.cat([pooled, pooled.to(torch.float64).float()], -1).sum((1, 2)).softmax(-1)

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return calls(x)

    ir = extract_ir(Net(), torch.randn(2, 3, 5, 5))
    assert [schemas.problem(item) for item in ir.nodes] == [None] * len(ir.nodes)
