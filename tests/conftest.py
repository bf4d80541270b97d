"""Options and devices that several test folders share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from graphs import GuardedDevice

from npu_runtime.device import list_devices

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden instead of comparing")


@pytest.fixture(scope="session", autouse=True)
def _built_kernels_leave_no_trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("NPU_CACHE_DIR", str(tmp_path_factory.mktemp("built")))
    yield
    patch.undo()


def guarded_devices() -> list[object]:
    """Every OpenCL device, those after the first in the long tier; None where there is none."""
    selectors: list[str | None] = [info.selector for info in list_devices()] or [None]
    first, *others = selectors
    return [first, *(pytest.param(other, marks=pytest.mark.full) for other in others)]


@pytest.fixture(scope="session", params=guarded_devices(), ids=str)
def guarded(request: pytest.FixtureRequest) -> GuardedDevice:
    """A device that tells what is written outside the memory that was asked for."""
    if request.param is None:
        pytest.skip("no OpenCL device: results cannot be compared")
    return GuardedDevice(request.param)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: the text must be that of the file ``tests/golden/<name>``."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing: run pytest --update-golden and read what it wrote"
        assert text == path.read_text(encoding="utf-8"), f"{name} changed; pytest --update-golden if meant"

    return compare
