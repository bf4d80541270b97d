"""Options and devices that several test folders share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from graphs import GuardedDevice

from npu_compiler.compiler import compile_ir
from npu_runtime.device import DeviceInfo, find_device, list_devices

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden instead of comparing")
    parser.addoption("--target", default="cpu", help="what tests that name no target compile for")
    parser.addoption("--shard", metavar="K/N", help="every Nth test from the Kth; tests/shards.py runs all")


@pytest.fixture(scope="session", autouse=True)
def _built_kernels_leave_no_trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("NPU_CACHE_DIR", str(tmp_path_factory.mktemp("built")))
    yield
    patch.undo()


_RAN = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RAN] = Counter()
    compile_ir.__kwdefaults__["target"] = config.getoption("--target")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the tests of one shard: those about all that a session ran together are in each."""
    shard = config.getoption("--shard")
    if shard:
        first, every = map(int, shard.split("/"))
        kept = {id(item) for item in items[first - 1 :: every]}
        kept |= {id(item) for item in items if item.get_closest_marker("every_shard")}
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
        items[:] = [item for item in items if id(item) in kept]


def pytest_runtest_call(item: pytest.Item) -> None:
    """Notes on which device a test runs: its own, where it has one; else whatever is the default."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    chosen = next((params[name] for name in ("guarded", "device", "selector") if params.get(name)), "")
    item.config.stash[_RAN][str(chosen)] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Which devices the tests covered, and which are here and were left out."""
    ran, devices = config.stash[_RAN], _devices()
    terminalreporter.section("devices", "-")
    for info in devices:
        others = f", and what else needs a device of {ran['']} others" if info == devices[0] else ""
        terminalreporter.write_line(
            f"{info.selector}: {ran[info.selector]} tests of this device{others} "
            f"({info.name}, {info.platform} {info.driver})"
        )
    if not devices:
        terminalreporter.write_line("no OpenCL device: what computes was not tested")
    if not any(info.vendor == "nvidia" for info in devices):
        terminalreporter.write_line("nvidia: programs for it compile, their calls fit (null device)")


def _devices() -> list[DeviceInfo]:
    """Every OpenCL device, the default one (which ``NPU_DEVICE`` may choose) first."""
    found = list_devices()
    default = find_device().selector if found else ""
    return sorted(found, key=lambda info: info.selector != default)


def guarded_devices() -> list[object]:
    """The selectors of the devices, those after the first in the long tier; None where there is none."""
    selectors: list[str | None] = [info.selector for info in _devices()] or [None]
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
