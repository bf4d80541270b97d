"""Devices that this machine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from npu_runtime.backend import Backend
from npu_runtime.device import Device, list_devices
from npu_runtime.null_device import NullDevice


def selectors() -> list[str]:
    """Every real device once; the null device where there is none."""
    return [info.selector for info in list_devices()] or ["null"]


@pytest.fixture(scope="session", autouse=True)
def _no_trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Built kernels go to a temporary folder."""
    patch = pytest.MonkeyPatch()
    patch.setenv("NPU_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session", params=selectors())
def device(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each OpenCL device in turn."""
    yield NullDevice() if request.param == "null" else Device(request.param)


@pytest.fixture(scope="session")
def first_device() -> Backend:
    """The default device, for what does not depend on the driver."""
    return Device() if list_devices() else NullDevice()
