"""What the compiler refuses: every node at once, with reason, line and remedy, and its share of the work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from torch import nn

from npu_compiler import UnsupportedOpError, compile_ir, compiler
from npu_compiler.__main__ import main
from npu_compiler.coverage import coverage, flops
from npu_compiler.errors import CompileError
from torch_ir import extract_ir
from torch_ir.expr import evaluate
from torch_ir.ir import IR, Node, Output, TensorSpec


class Refused(nn.Module):
    """Nodes that nothing lowers, that a lowering refuses and that only emission refuses, among good ones."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.weight = nn.Parameter(torch.ones(8, 8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.conv(x))
        spectrum = torch.fft.fft(y).tanh().abs()
        wide = functional.conv2d(y.repeat(1, 1, 2048, 4096), self.weight)
        bent = torch.special.bessel_j1(wide[:, :, :8, :8] + spectrum)
        return functional.conv2d(bent, self.weight)


@pytest.fixture(scope="module")
def refused() -> IR:
    return extract_ir(Refused().eval(), torch.randn(1, 3, 8, 8), model_name="refused")


EXPECTED = [
    ("aten.tanh.default", "values of dtype complex64"),
    ("aten.conv2d.default", "conv2d over more than 2**31 elements"),
    (
        "aten.special_bessel_j1.default",
        "no lowering knows this operation: a special function without a kernel",
    ),
]


def test_every_refusal_is_listed_in_the_order_of_the_graph(refused: IR) -> None:
    found = coverage(refused)
    assert [(item.op, item.reason) for item in found.uncovered] == EXPECTED
    assert all(
        item.loc.split(":")[0].endswith("test_coverage.py") and item.remedy for item in found.uncovered
    )
    assert len({item.loc for item in found.uncovered}) == 3
    assert found.nodes == len(refused.nodes) and not found.complete


def test_the_compiler_raises_one_error_with_all_of_them(refused: IR) -> None:
    with pytest.raises(UnsupportedOpError) as caught:
        compile_ir(refused)
    assert [(item.op, item.reason) for item in caught.value.refusals] == EXPECTED
    text = str(caught.value)
    assert text.startswith("refused: 3 nodes cannot be compiled:")
    assert all(part in text for item in caught.value.refusals for part in (item.node, item.loc, item.remedy))


def test_what_compiles_is_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ir = extract_ir(nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval(), torch.randn(2, 3))
    monkeypatch.setattr(compiler, "refusals", lambda *_: pytest.fail("compiled a second time"))
    assert compile_ir(ir).steps


def test_shares_sum_up(refused: IR) -> None:
    found = coverage(refused)
    specs = refused.values()
    counts = {node.name: flops(node, specs) for node in refused.nodes}
    assert found.flops == sum(counts.values())
    assert [item.flops for item in found.uncovered] == [counts[item.node] for item in found.uncovered]
    assert found.share + sum(item.share for item in found.uncovered) == pytest.approx(1.0)
    assert sum(item.flops for item in found.uncovered) / found.flops == pytest.approx(1.0 - found.share)
    assert max(found.uncovered, key=lambda item: item.share).op == "aten.conv2d.default"


def test_a_refusal_in_a_fused_kernel_names_the_node_that_is_at_fault() -> None:
    spec, half = TensorSpec((5, 7), "float32"), TensorSpec((5, 7), "complex64")
    nodes = (
        Node("relu", "aten.relu.default", ("x",), ("relu",), (spec,)),
        Node("to", "aten.tanh.default", ("relu",), ("to",), (half,)),
        Node("neg", "aten.neg.default", ("relu",), ("neg",), (spec,)),
    )
    found = coverage(IR("fused", {"x": spec}, (Output("a", "to"), Output("b", "neg")), nodes))
    assert [item.node for item in found.uncovered] == ["to"]


def only(op: str, ir: IR) -> int:
    """The estimate for the one node of ``ir`` whose operation starts with ``op``, symbols at 4."""
    (node,) = [node for node in ir.nodes if node.op.split(".")[1].startswith(op)]
    return evaluate(flops(node, ir.values()), dict.fromkeys(ir.symbols, 4))


class Call(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


@pytest.mark.parametrize(
    ("op", "module", "shapes", "expected"),
    [
        ("conv2d", nn.Conv2d(6, 4, (3, 2), groups=2), [(2, 6, 5, 7)], 2 * (2 * 4 * 3 * 6) * 3 * 3 * 2),
        ("conv1d", nn.Conv1d(3, 5, 3), [(1, 3, 9)], 2 * 5 * 7 * 3 * 3),
        ("conv_transpose2d", nn.ConvTranspose2d(3, 5, 2), [(1, 3, 4, 6)], 2 * (3 * 4 * 6) * 5 * 4),
        ("linear", nn.Linear(7, 11), [(3, 5, 7)], 2 * 3 * 5 * 11 * 7),
        ("matmul", Call(torch.matmul), [(2, 3, 5), (5, 7)], 2 * 2 * 3 * 7 * 5),
        ("addmm", Call(torch.addmm), [(3,), (2, 5), (5, 3)], 2 * 2 * 3 * 5),
        ("bmm", Call(torch.bmm), [(4, 2, 5), (4, 5, 3)], 2 * 4 * 2 * 3 * 5),
        (
            "scaled_dot_product_attention",
            Call(functional.scaled_dot_product_attention),
            [(1, 2, 5, 8), (1, 2, 7, 8), (1, 2, 7, 3)],
            2 * 2 * 5 * 7 * (8 + 3),
        ),
        ("relu", nn.ReLU(), [(3, 7)], 21),
        ("sum", Call(lambda x: x.sum(1)), [(3, 7)], 21),
    ],
)
def test_operations_are_counted(
    op: str, module: nn.Module, shapes: list[tuple[int, ...]], expected: int
) -> None:
    inputs = tuple(torch.randn(*shape) for shape in shapes)
    assert only(op, extract_ir(module.eval(), inputs)) == expected


def test_operations_of_a_dynamic_size_are_those_of_its_largest() -> None:
    dynamic = {"input": {0: torch.export.Dim("n", min=1, max=16)}}
    ir = extract_ir(nn.Linear(3, 5).eval(), torch.randn(2, 3), dynamic_shapes=dynamic)
    assert only("linear", ir) == 2 * 4 * 5 * 3
    assert coverage(ir).flops == 2 * 16 * 5 * 3


def test_command(refused: IR, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused.save(tmp_path / "refused.ir.json")
    assert main(["coverage", str(tmp_path / "refused.ir.json")]) == 1
    table = capsys.readouterr().out
    for item in coverage(refused).uncovered:
        (line,) = [line for line in table.splitlines() if line.startswith(f"{item.node} ")]
        assert all(
            text in line for text in (item.op, item.reason, item.loc, f"{item.share:.1%}", item.remedy)
        )
    assert main(["coverage", str(tmp_path / "refused.ir.json"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == coverage(refused).to_dict() | {
        "uncovered": [vars(item) for item in coverage(refused).uncovered]
    }
    extract_ir(nn.ReLU(), torch.randn(2, 3)).save(tmp_path / "good.ir.json")
    assert main(["coverage", str(tmp_path / "good.ir.json"), "--target", "cpu"]) == 0
    assert "1 of 1 nodes are covered, 100.0%" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (["missing.json"], "cannot be read"), (["good.ir.json", "--target", "cup"], "did you mean 'cpu'"),
])  # fmt: skip
def test_command_errors(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract_ir(nn.ReLU(), torch.randn(2, 3)).save(tmp_path / "good.ir.json")
    assert main(["coverage", str(tmp_path / arguments[0]), *arguments[1:]]) == 1
    assert message in capsys.readouterr().err


def test_unknown_target(refused: IR) -> None:
    with pytest.raises(CompileError, match="did you mean 'cpu'"):
        coverage(refused, "cup")


def test_needs_no_pytorch(refused: IR, tmp_path: Path) -> None:
    refused.save(tmp_path / "refused.ir.json")
    text = (
        "import sys; sys.modules['torch'] = None; from npu_compiler.__main__ import main; "
        "main(['coverage', sys.argv[1]]); print(bool(sys.modules['torch']), 'pyopencl' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, str(tmp_path / "refused.ir.json")],
        env={"PYTHONPATH": "npu"}, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "False False"
