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


@pytest.fixture(autouse=True)
def _without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's own rules, which hold where PyTorch is not installed as well."""
    monkeypatch.setattr("torch_ir.check_results.check_results", lambda ir: None)


def say_everywhere(file: dict[str, Any]) -> None:
    """Every use of a value says of it what its maker does, so that the makers are judged."""
    weights = {weight["name"]: weight for weight in file["weights"]}
    specs = {name: weights[key] for name, key in file["weight_name_mapping"].items() if key in weights}
    specs |= {value["name"]: value for value in file["graph_inputs"]}
    specs |= {output["name"]: output for node in file["nodes"] for output in node["outputs"]}
    for use in [*(item for node in file["nodes"] for item in node["inputs"]), *file["graph_outputs"]]:
        use |= {key: specs[use["name"]][key] for key in ("shape", "dtype") if use["name"] in specs}


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
    say_everywhere(file)
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
    say_everywhere(file)
    with pytest.raises(UnsupportedOpError, match=says):
        compile_ir(file)


def test_a_use_that_contradicts_the_value_is_refused() -> None:
    file = ir_to_dict(extract_ir(Plain().eval(), (torch.randn(3, 5),)))
    file["nodes"][1]["inputs"][0]["shape"] = [5, 3]
    with pytest.raises(IRError, match=r"layer_norm reads relu as float32\[5, 3\], which is float32\[3, 5\]"):
        compile_ir(file)


class Arguments(torch.nn.Module):
    """Operations whose results' shapes their arguments decide."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.nn.functional.max_pool2d(self.norm(x), 2)
        z = torch.nn.functional.interpolate(y, scale_factor=2.0)
        first, second = z.split([1, 3], 1)
        return first, second.sum(1), torch.nn.functional.adaptive_avg_pool2d(z, 3), torch.arange(3)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("max_pool2d", {"padding": 1}, r"makes float32\[1, 4, 4, 4\]"),
        ("max_pool2d", {"stride": [1, 0]}, "not positive"),
        ("upsample_nearest2d", {"scale_factors": [3.0, 2.0]}, r"makes float32\[1, 4, 9, 6\]"),
        ("upsample_nearest2d", {"scale_factors": [2.0, 0.0]}, "resized to"),
        ("upsample_nearest2d", {"output_size": [6, 6]}, "an output size and scale factors"),
        ("split_with_sizes", {"split_sizes": [2, 3]}, r"pieces of \(2, 3\) from 4"),
        ("split_with_sizes", {"split_sizes": [2, 2]}, r"makes float32\[1, 2, 6, 6\]"),
        ("split_with_sizes", {"split_sizes": [1, 1, 2]}, "make 3 results"),
        ("sum_1", {"dim": [1, -3]}, r"a dimension twice in \(1, -3\)"),
        ("sum_1", {"keepdim": True}, r"makes float32\[1, 1, 6, 6\]"),
        ("adaptive_avg_pool2d", {"output_size": [2, 3]}, r"makes float32\[1, 4, 2, 3\]"),
        ("arange", {"end": 4}, r"makes int64\[4\]"),
    ],
)
def test_arguments_that_contradict_a_shape_are_refused(name: str, change: Any, says: str) -> None:
    file = ir_to_dict(extract_ir(Arguments().eval(), (torch.randn(1, 4, 6, 6),)))
    next(node for node in file["nodes"] if node["name"] == name)["attrs"] |= change
    with pytest.raises(UnsupportedOpError, match=says):
        compile_ir(file)


@pytest.mark.parametrize("shape", [[], [1], [5]])
@pytest.mark.parametrize("name", ["norm.weight", "norm.running_var"])
def test_statistics_that_do_not_fit_are_refused(name: str, shape: list[int]) -> None:
    file = ir_to_dict(extract_ir(Arguments().eval(), (torch.randn(1, 4, 6, 6),)))
    next(weight for weight in file["weights"] if weight["name"] == name)["shape"] = shape
    say_everywhere(file)
    with pytest.raises(UnsupportedOpError, match="a normalisation of 4 channels"):
        compile_ir(file)


class Attention(torch.nn.Module):
    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, m)


@pytest.mark.parametrize(
    ("index", "shape", "says"),
    [
        (3, [3, 4], "an attention mask"),
        (3, [2, 5], "an attention mask"),
        (3, [3, 1, 3, 5], "shape"),
        (1, [1, 2, 4, 8], "attention of"),
        (1, [1, 2, 5, 7], "attention of"),
        (2, [1, 1, 4, 8], "attention of"),
    ],
)
def test_attention_of_operands_that_do_not_fit_is_refused(index: int, shape: list[int], says: str) -> None:
    sizes = ((1, 2, 3, 8), (1, 2, 5, 8), (1, 2, 5, 8), (3, 5))
    file = ir_to_dict(extract_ir(Attention(), tuple(torch.randn(size) for size in sizes)))
    file["graph_inputs"][index]["shape"] = shape
    say_everywhere(file)
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


class Volume(torch.nn.Module):
    def forward(self, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.grid_sample(x, grid, align_corners=False)


@pytest.mark.parametrize("change", [{"padding_mode": 9}, {"padding_mode": -2}, {"interpolation_mode": -1}])
def test_modes_that_do_not_exist_are_refused(change: dict[str, int]) -> None:
    file = ir_to_dict(extract_ir(Volume(), (torch.randn(1, 2, 3, 4, 5), torch.rand(1, 2, 2, 2, 3))))
    next(node for node in file["nodes"] if "grid_sampler" in node["name"])["attrs"] |= change
    with pytest.raises(UnsupportedOpError, match=" ".join(map(str, *change.items()))):
        compile_ir(file)
