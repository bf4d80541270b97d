"""A few changed nodes of sample calls in every run; ``python -m tests.contradictions`` judges many."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from aten_cases import CALLS
from judged_nodes import judge, single_nodes

from npu_compiler import compile_ir, partition
from npu_compiler.__main__ import main
from npu_compiler.coverage import coverage
from torch_ir import IR, IRError, extract_ir
from torch_ir.serialize import ir_from_dict, ir_to_dict


def test_changed_nodes_are_refused_or_make_what_pytorch_makes() -> None:
    nodes = single_nodes(sorted(name for name in CALLS if not name.startswith("refused"))[::12])
    outcomes: Counter[str] = Counter()
    for seed in range(250):
        judged = judge(random.Random(seed).choice(nodes), seed)
        assert judged.outcome not in ("another result", "internal"), f"seed {seed}: {judged}"
        outcomes[judged.outcome] += 1
    assert min(outcomes["refused"], outcomes["as PyTorch"]) > 20


class Plain(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x.reshape(x.shape[0], -1) @ y, 1)


def _file() -> dict[str, Any]:
    rows = torch.export.Dim("rows", min=2, max=50)
    shapes = ({0: rows}, {})
    return ir_to_dict(extract_ir(Plain(), (torch.randn(5, 2, 3), torch.randn(6, 4)), dynamic_shapes=shapes))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("matmul", {"shape": ["s0", 5]}, r"matmul.* makes float32\[.*, 4\] and .* is float32\[.*, 5\]"),
        ("matmul", {"dtype": "float64"}, "matmul.* makes float32"),
        ("reshape", {"shape": [3, "s0*2"]}, "reshape.* makes"),
        ("softmax", {"shape": [4, "s0"]}, "softmax.* makes"),
    ],
)
def test_a_file_whose_results_are_not_pytorchs_is_refused(
    name: str, change: dict[str, Any], says: str
) -> None:
    file = _file()
    symbol = file["symbols"][0]["name"]
    for node in file["nodes"]:
        for entry in (*node["inputs"], *node["outputs"]):
            if entry["name"] == name:
                entry.update(change)
                entry["shape"] = [
                    size.replace("s0", symbol) if isinstance(size, str) else size for size in entry["shape"]
                ]
    for entry in file["graph_outputs"]:
        if entry["name"] == name:
            last = next(node for node in file["nodes"] if node["name"] == name)["outputs"][0]
            entry.update(shape=last["shape"], dtype=last["dtype"])
    with pytest.raises(IRError, match=says):
        ir_from_dict(file).checked()


def test_a_file_that_nobody_changed_is_not_checked() -> None:
    file = _file()
    assert ir_from_dict(file).vouched
    changed = ir_from_dict({**file, "model_name": "other"})
    assert not changed.vouched
    assert changed.checked().vouched


@pytest.mark.parametrize("use", [compile_ir, coverage, partition])
def test_whatever_reads_a_graph_checks_it(use: Callable[[IR], Any]) -> None:
    file = _file()
    file["nodes"][0]["attrs"]["shape"] = [1, 2, 3]
    with pytest.raises(IRError, match="contradict what the graph says"):
        use(ir_from_dict(file))


@pytest.mark.parametrize("command", [["coverage"], ["compile"], ["compile", "--to", "lower"]])
def test_the_command_checks_a_file(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _file()
    file["nodes"][0]["attrs"]["shape"] = [1, 2, 3]
    (tmp_path / "main.ir.json").write_text(json.dumps(file))
    assert main([command[0], str(tmp_path / "main.ir.json"), *command[1:]]) == 1
    assert "contradict what the graph says" in capsys.readouterr().err


def test_operands_of_several_dtypes_pass() -> None:
    """Published files have activations in float32 and weights in bfloat16."""
    file = _file()
    file["graph_inputs"][1]["dtype"] = "bfloat16"
    for node in file["nodes"]:
        for entry in node["inputs"]:
            if entry["name"] == file["graph_inputs"][1]["name"]:
                entry["dtype"] = "bfloat16"
    ir_from_dict(file).checked()


def test_without_pytorch_nothing_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    file = _file()
    file["model_name"] = "other"
    file["nodes"][0]["attrs"]["shape"] = [1, 2, 3]
    with pytest.raises(IRError):
        ir_from_dict(file).checked()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ir_from_dict(file).checked()
