"""What importing costs, and what it must not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from programs import ROOT, environment

RUNTIME = sorted(path.stem for path in (ROOT / "npu" / "npu_runtime").glob("[a-z]*.py"))
FORBIDDEN = {"torch", "jinja2", "torch_ir", "npu_compiler", "pydantic", "yaml", "safetensors"}


def _loaded(code: str) -> set[str]:
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        text=True,
        check=True,
        capture_output=True,
        env=environment(),
    ).stdout
    return set(out.split())


def test_the_package_is_lazy() -> None:
    assert not _loaded("import npu_runtime") & (FORBIDDEN | {"numpy", "pyopencl", "msgspec", "ml_dtypes"})


def test_a_program_is_read_without_numpys_extensions_or_opencl() -> None:
    assert not _loaded("import npu_runtime.program") & (FORBIDDEN | {"numpy", "pyopencl"})


def test_running_needs_the_base_dependencies_alone() -> None:
    loaded = _loaded(
        "\n".join(f"import npu_runtime.{name}" for name in RUNTIME) + "\nimport npu_runtime\n"
        "[getattr(npu_runtime, name) for name in npu_runtime.__all__]\n"
        "npu_runtime.list_devices()"
    )
    assert "pyopencl" in loaded
    assert not loaded & FORBIDDEN


@pytest.mark.parametrize(
    "path", sorted((ROOT / "npu" / "npu_runtime").glob("*.py")), ids=lambda path: path.stem
)
def test_only_the_device_module_knows_pyopencl(path: Path) -> None:
    assert ("import pyopencl" in path.read_text()) == (path.stem == "device")
    assert len(path.read_text().splitlines()) < 400


def test_unknown_names_are_attribute_errors() -> None:
    import npu_runtime

    assert dir(npu_runtime) == sorted(npu_runtime.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        npu_runtime.nothing  # noqa: B018
