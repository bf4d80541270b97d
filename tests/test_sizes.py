"""Modules stay small enough to be read at one sitting, and packages load their parts when asked for them.

The width of lines is ruff's to check.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    path for folder in ("npu", "pipelines", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")
)
MAX_LINES = 400
MAX_DODO = 40
LAZY = ("torch_ir", "npu_compiler", "npu_runtime")


def test_modules_are_short() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert len(lengths) > 50
    long = {str(path): lines for path, lines in lengths.items() if lines >= MAX_LINES}
    assert not long, f"split these into parts with one subject each: {long}"


def test_dodo_translates_and_does_not_decide() -> None:
    text = (ROOT / "dodo.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < MAX_DODO
    assert not any(isinstance(node, (ast.If, ast.Match)) for node in ast.walk(ast.parse(text)))


@pytest.mark.parametrize("package", LAZY)
def test_packages_are_lazy(package: str) -> None:
    tree = ast.parse((ROOT / "npu" / package / "__init__.py").read_text(encoding="utf-8"))
    eager = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    eager |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert eager <= {"__future__", "importlib", "typing", "types", "collections.abc"}
    assert any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)


def test_modules_of_tests_have_names_of_their_own() -> None:
    """Test folders are on the import path together, so a second module of one name would be the first."""
    files = [
        path for path in (ROOT / "tests").rglob("*.py") if path.name not in ("__main__.py", "conftest.py")
    ]
    names = Counter(path.stem for path in files if not path.stem.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []
