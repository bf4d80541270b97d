"""Imports point one way. They are read from the source, so that one inside a function counts as well; and
tried in a process of their own, so that nothing heavy is loaded by accident."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "torch_ir": ROOT / "npu" / "torch_ir",
    "npu_compiler": ROOT / "npu" / "npu_compiler",
    "npu_runtime": ROOT / "npu" / "npu_runtime",
    "pipelines": ROOT / "pipelines",
}
#: Package -> the modules of the other packages that it may name. ``pipelines`` may name all.
MAY_IMPORT: dict[str, set[str]] = {
    "torch_ir": set(),
    "npu_runtime": set(),
    "npu_compiler": {
        "torch_ir.ir",
        "torch_ir.expr",
        "torch_ir.errors",
        "torch_ir.calling",  # an extracted node's arguments, for the interpreter
        "torch_ir.functionalize",  # which operations work in place
        "torch_ir.serialize",
        "torch_ir.printer",
        "npu_runtime.program",
        "npu_runtime.npubin",
    },
}
#: Package -> the libraries that it may name, beside the standard library.
LIBRARIES = {
    "torch_ir": {"numpy", "msgspec", "torch"},
    "npu_runtime": {"numpy", "pyopencl", "safetensors", "ml_dtypes", "msgspec"},
    "npu_compiler": {"numpy", "ml_dtypes", "msgspec", "jinja2", "yaml", "torch"},
}
#: Library -> the only modules below npu/ that may name it.
ONLY_IN = {
    "torch": {
        "torch_ir.extract",
        "torch_ir.exporting",  # the part of extract that calls torch.export
        "torch_ir.eager",
        "torch_ir.tracing",
        "torch_ir.check_results",  # what PyTorch says of results, of files that nobody vouches for
        "torch_ir.decompose",  # PyTorch's own tables of simpler operations
        "npu_compiler.interpret",  # an op's meaning is a function of PyTorch; loaded when it is called
    },
    "jinja2": {"npu_compiler.render"},
    "yaml": {"npu_compiler.target"},
    "pyopencl": {"npu_runtime.device"},
}
#: What must stay unloaded after an import.
HEAVY = {"torch", "jinja2", "pydantic", "yaml"}


def module_files(package: str) -> Iterator[tuple[str, Path]]:
    """Dotted module name and file of every module of ``package``."""
    folder = PACKAGES[package]
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def imports(tree: ast.AST, module: str) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere in ``tree`` with its line, ``import_module("x")`` included."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, node.lineno) for alias in names)
            case ast.ImportFrom(module=name, level=0) if name is not None:
                yield name, node.lineno
            case ast.ImportFrom():
                yield module, node.lineno
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]) if ast.unparse(
                function
            ).endswith(("import_module", "__import__")):
                yield name, node.lineno


def found(package: str) -> list[tuple[str, str, str]]:
    """(module, what it imports, "file:line") of a whole package."""
    return [
        (module, name, f"{path.relative_to(ROOT)}:{line}")
        for module, path in module_files(package)
        for name, line in imports(ast.parse(path.read_text(encoding="utf-8")), module)
    ]


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_packages_name_only_what_they_may(package: str) -> None:
    wrong = [
        f"{place} imports {name}"
        for _, name, place in found(package)
        if name.partition(".")[0] in PACKAGES.keys() - {package} and name not in MAY_IMPORT[package]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", sorted(LIBRARIES))
def test_packages_name_only_their_libraries(package: str) -> None:
    known = {*sys.stdlib_module_names, *PACKAGES, *LIBRARIES[package]}
    wrong = [
        f"{place} imports {name}" for _, name, place in found(package) if name.partition(".")[0] not in known
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_has_few_homes(library: str) -> None:
    everywhere = [item for package in MAY_IMPORT for item in found(package)]
    users = {module: place for module, name, place in everywhere if name.partition(".")[0] == library}
    assert users, f"nothing imports {library}: take it off the table"
    wrong = {module: place for module, place in users.items() if module not in ONLY_IN[library]}
    assert not wrong, f"{library} is imported by {wrong}"


def test_only_the_doit_package_knows_doit() -> None:
    users = {module for module, name, _ in found("pipelines") if name.partition(".")[0] == "doit"}
    assert users
    assert all(module.startswith("pipelines.doit_ext") for module in users), users


@pytest.mark.parametrize(
    "source",
    [
        "import npu_runtime.device",
        "from npu_runtime.device import Device",
        "def f():\n    from npu_runtime import device",
        "if TYPE_CHECKING:\n    import npu_runtime.device as d",
        "x = importlib.import_module('npu_runtime.device')",
    ],
)
def test_the_reader_of_imports_sees_every_form(source: str) -> None:
    names = [name for name, _ in imports(ast.parse(source), "torch_ir.x")]
    assert any(name.startswith("npu_runtime") for name in names)


@pytest.mark.parametrize(
    "statement",
    [
        "import npu_runtime",
        "import npu_runtime.program",
        "import npu_compiler",
        "import npu_compiler.compiled_program",
        "import torch_ir",
        "from torch_ir import IR, IRError",
        "from torch_ir import extract_ir",
    ],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    paths = [str(ROOT / "npu"), str(ROOT)]
    code = f"import sys; sys.path[:0] = {paths!r}; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(run.stdout.split())
