"""The worked examples of CONTRIBUTING.md, applied to a copy of the sources, do what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("npu", "pipelines", "templates", "configs", "tests", "dodo.py", "pyproject.toml")
#: A code block whose first line names a file: what opens it, the file, and the code behind that line.
BLOCK = re.compile(r"^```\w+\n(?:# |(\{#- ))(\w+/[\w/.]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: File that exists -> the line before which an example's lines go (None: the end).
PLACES = {
    "npu/npu_compiler/ops/elementwise.py": None,
    "npu/npu_compiler/pipeline.py": "    fold_pad,",
    "pipelines/stages.py": '    Stage(\n        "report",',
    "pipelines/job.py": '    "report":',
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with all examples in it."""
    root = tmp_path_factory.mktemp("contributing")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root)
    for path in (root / "configs" / "models").glob("*.yaml"):
        path.unlink()
    blocks = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    for opening, name, code in blocks:
        path = root / name
        if name in PLACES:
            text, place = path.read_text(encoding="utf-8"), PLACES[name]
            assert place is None or text.count(place) == 1
            path.write_text(f"{text}\n\n{code}" if place is None else text.replace(place, code + place))
        else:
            assert not path.exists(), f"{name} is there already: the example needs another one"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{opening}{code}")
    assert {name for _, name, _ in blocks} > PLACES.keys()
    pipeline = root / "npu" / "npu_compiler" / "pipeline.py"
    added = "from npu_compiler.passes.share_equal import share_equal\n"
    lines = pipeline.read_text().splitlines(keepends=True)
    imports = "from npu_compiler.passes."
    place = max(i for i, line in enumerate(lines) if line.startswith(imports) and line < added)
    pipeline.write_text("".join([*lines[: place + 1], added, *lines[place + 1 :]]))
    return root


def run(project: Path, *arguments: str) -> str:
    """``python -m ...`` in the copy; returns what it prints."""
    path = os.pathsep.join([str(project / "npu"), str(project)])
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ops_are_found_and_tested(project: Path) -> None:
    printed = run(project, "pytest", "tests/ops", "-k", "deg2rad or logcumsumexp", "-rA")
    assert re.search(r"\bPASSED\b.*deg2rad", printed)
    assert re.search(r"\bPASSED\b.*logcumsumexp", printed)


def test_the_style_holds(project: Path) -> None:
    run(project, "ruff", "check", "npu", "pipelines")


def test_model_target_pass_and_stage_are_found(project: Path) -> None:
    assert "1 configurations are valid: scorer" in run(project, "pipelines", "validate")
    built = run(project, "doit", "sizes:scorer@small_cpu")
    assert "done" in built
    sizes = json.loads((project / "artifacts" / "scorer" / "small_cpu" / "sizes.json").read_text())
    assert sizes["main"]["file"] > sizes["main"]["scratch"] > 0
    assert "done" not in run(project, "doit", "sizes:scorer@small_cpu")
    graph = "artifacts/scorer/main.ir.json"
    assert "share_equal" in run(project, "npu_compiler", "passes").splitlines()
    assert "output scores" in run(project, "npu_compiler", "compile", graph, "--to", "share_equal")


def test_the_pass_shares_what_is_equal(project: Path) -> None:
    graph = project / "twice.txt"
    graph.write_text(
        'ir twice {pytorch_version="", ir_version=1}\n'
        "input x : f32[3]\n"
        "a = aten.exp.default(x) : f32[3]\n"
        "b = aten.exp.default(x) : f32[3]\n"
        "c = aten.add.Tensor(a, b) : f32[3]\n"
        "output c = c\n"
    )
    after = run(project, "npu_compiler", "compile", "twice.txt", "--to", "share_equal")
    assert after.count("exp(") == 1
    assert re.search(r"c = add\((\w+), \1\)", after)
