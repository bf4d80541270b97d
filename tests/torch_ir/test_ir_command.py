"""The command line, and what importing the package loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_ir_file import PUBLIC, sample

import torch_ir
from torch_ir.__main__ import main

HEAVY = "torch sympy jinja2 pyopencl yaml pydantic"


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample().save(tmp_path / "ir.json")
    assert main(["info", str(tmp_path / "ir.json")]) == 0
    text = capsys.readouterr().out
    for part in (
        "x: float32[n, 4]",
        "logits: float32[n, 1]",
        "n: 1 to 9",
        "count: int32[2], changed",
        "seed: float64[1], read",
        "operations: 4",
        "1  aten.topk.default",
        "weights: 3 tensors, 16 parameters",
    ):
        assert part in text


def test_visualize(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["visualize", str(PUBLIC / "multi.json")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("flowchart TD\n") and "aten.cat.default" in text and "-.->" in text
    assert main(["visualize", str(PUBLIC / "multi.json"), "-o", str(tmp_path / "graph.mmd")]) == 0
    assert (tmp_path / "graph.mmd").read_text() == text and not capsys.readouterr().out


def test_errors_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "nowhere.json"]) == 1
    assert "error: nowhere.json: cannot be read" in capsys.readouterr().err


def test_importing_and_the_command_load_no_pytorch() -> None:
    code = (
        "import sys, torch_ir, torch_ir.eager, torch_ir.extract, torch_ir.printer, torch_ir.__main__ as m; "
        f"m.main(['info', {str(PUBLIC / 'conv.json')!r}]); "
        f"print('loaded', [name for name in {HEAVY.split()!r} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(torch_ir.__file__).parents[1])},
        timeout=60,
    )
    assert found.stdout.endswith("loaded []\n"), found.stdout


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = torch_ir.nothing
