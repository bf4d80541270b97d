"""Graph files that contradict themselves: refused, whatever broadcasting would make of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from npu_compiler import compile_ir
from npu_compiler.errors import UnsupportedOpError
from torch_ir import IR, extract_ir
from torch_ir.errors import IRError
from torch_ir.serialize import ir_to_dict


class Plain(torch.nn.Module):
    """Three operations, one with an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(torch.relu(x)).softmax(1)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (
            lambda n, f: n["relu"]["outputs"][0].update(shape=[3, 6]),
            r"float32\[3, 6\], .* makes float32\[3, 5\]",
        ),
        (lambda n, f: n["relu"]["outputs"][0].update(dtype="float64"), r"says that relu is float64\[3, 5\]"),
        (lambda n, f: f["graph_inputs"][0].update(shape=[7, 5]), r"makes float32\[7, 5\]"),
        (lambda n, f: n["softmax"]["attrs"].update(dim=7), "dimension 7"),
        (lambda n, f: n["softmax"]["attrs"].pop("dim"), "dim"),
        (lambda n, f: n["softmax"]["attrs"].update(dim=-(1 << 63) - 1), "64 bits"),
        (lambda n, f: n["softmax"]["attrs"].update(dim=[[[[[[[[[1]]]]]]]]]), "8 levels"),
        (lambda n, f: f["weights"].append({"name": "u", "shape": [-3], "dtype": "float32"}), "negative size"),
        (lambda n, f: f["weights"][0].update(shape=[]), r"shape of \(\)"),
        (lambda n, f: f["weights"][1].update(shape=[1]), r"shape of \(1,\)"),
        (lambda n, f: n["layer_norm"]["attrs"].update(normalized_shape=[6]), r"shape of \(6,\)"),
    ],
)
def test_a_graph_that_contradicts_itself_is_refused(edit: Any, says: str) -> None:
    file = ir_to_dict(extract_ir(Plain().eval(), (torch.randn(3, 5),)))
    edit({node["name"]: node for node in file["nodes"]}, file)
    with pytest.raises((UnsupportedOpError, IRError), match=says):
        compile_ir(file)


class Masked(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.masked_fill(x > 0, 0.0)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (
            lambda n, f: n["masked_fill"]["outputs"][0].update(shape=[0, 5]),
            r"\[0, 5\].*makes float32\[3, 5\]",
        ),
        (lambda n, f: n["masked_fill"]["inputs"].reverse(), "its mask is float32"),
    ],
)
def test_a_mask_that_contradicts_is_refused(edit: Any, says: str) -> None:
    file = ir_to_dict(extract_ir(Masked().eval(), (torch.randn(3, 5),)))
    edit({node["name"]: node for node in file["nodes"]}, file)
    with pytest.raises(UnsupportedOpError, match=says):
        compile_ir(file)


def test_a_key_that_appears_twice_is_refused(tmp_path: Path) -> None:
    text = json.dumps(ir_to_dict(extract_ir(Plain().eval(), (torch.randn(3, 5),))))
    path = tmp_path / "main.ir.json"
    path.write_text(text.replace('"dim": 1', '"dim": 1, "dim": 0'))
    with pytest.raises(IRError, match="appears twice"):
        IR.load(path)


def test_a_text_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    text = json.dumps(ir_to_dict(extract_ir(Plain().eval(), (torch.randn(3, 5),))))
    path = tmp_path / "main.ir.json"
    path.write_text(text.replace('"model_name": "Plain"', '"model_name": "\\ud800"'))
    with pytest.raises(IRError, match="surrogates"):
        IR.load(path)
