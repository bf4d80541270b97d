"""OpenCL devices: finding, opening and driving them. The only module that imports pyopencl."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np

from npu_runtime import env
from npu_runtime.backend import Backend, Bytes, Capability, KernelHandle, Launch, Memory, Ticket
from npu_runtime.building import build_program
from npu_runtime.drivers import visible_drivers
from npu_runtime.errors import DeviceError, InputError, NoDeviceError

INSTALL = (
    'install one that needs no administrator: pip install "npubin[pocl]" (any CPU) or '
    'pip install "npubin[intel]", or your GPU\'s driver'
)

_ORDER = ("pocl", "intel")  # the default device, before any GPU
_SCALARS: dict[str, Callable[[int], Any]] = {"int": np.int32, "long": np.int64}
#: Host memory becomes device memory without a copy only if aligned so (the widest OpenCL vector).
_HOST_ALIGNMENT = 128
_SELECTOR = re.compile(r"([a-z]+)(?::(\d{1,3}))?")


@dataclass(frozen=True)
class DeviceInfo:
    """An OpenCL device that can be opened: ``Device(selector)`` opens it."""

    selector: str
    name: str
    platform: str
    driver: str
    kind: Literal["cpu", "gpu"]
    vendor: str
    threads: int
    memory: int
    """Bytes of global memory."""
    handle: Any = field(repr=False, compare=False)


@cache
def _pyopencl() -> Any:
    with visible_drivers():
        import pyopencl

        with suppress(pyopencl.Error):  # the loader found no driver at all; list_devices says so
            pyopencl.get_platforms()
    return pyopencl


@cache
def list_devices() -> tuple[DeviceInfo, ...]:
    """Every OpenCL CPU and GPU of this machine, the default one first. Drivers are looked for once per
    process."""
    cl = _pyopencl()
    found: list[DeviceInfo] = []
    seen: set[int] = set()
    try:
        platforms = cl.get_platforms()
    except cl.Error:
        return ()
    for platform in platforms:
        try:
            devices = platform.get_devices()
        except cl.Error:
            continue
        for device in devices:
            if device.int_ptr not in seen and device.type & (cl.device_type.CPU | cl.device_type.GPU):
                seen.add(device.int_ptr)
                found.append(_info(cl, platform, device))
    found.sort(
        key=lambda info: (
            _ORDER.index(info.vendor) if info.vendor in _ORDER else len(_ORDER),
            info.kind == "cpu",
        )
    )
    counts: dict[str, int] = {}
    named = []
    for info in found:
        number = counts[info.vendor] = counts.get(info.vendor, -1) + 1
        named.append(DeviceInfo(**{**vars(info), "selector": f"{info.vendor}:{number}"}))
    return tuple(named)


def _info(cl: Any, platform: Any, device: Any) -> DeviceInfo:
    kind: Literal["cpu", "gpu"] = "gpu" if device.type & cl.device_type.GPU else "cpu"
    title = f"{platform.name} {platform.vendor}".lower()
    known = {"portable computing": "pocl", "nvidia": "nvidia", "advanced micro": "amd", "intel": "intel"}
    vendor = next((vendor for word, vendor in known.items() if word in title), "other")
    if vendor == "intel" and kind == "gpu":
        vendor = "intelgpu"
    return DeviceInfo(
        "",
        device.name.strip(),
        platform.name.strip(),
        device.driver_version.strip(),
        kind,
        vendor,
        device.max_compute_units,
        device.global_mem_size,
        device,
    )


def find_device(selector: str | None = None) -> DeviceInfo:
    """The device that ``Device(selector)`` opens. Raises ``NoDeviceError`` or, for a malformed one,
    ``InputError``."""
    wanted = selector or env.device_selector()
    devices = list_devices()
    if wanted is None:
        if not devices:
            raise NoDeviceError(f"no OpenCL device was found: {INSTALL}")
        return devices[0]
    match = _SELECTOR.fullmatch(wanted.strip().lower())
    if match is None:
        raise InputError(
            f"{wanted!r} does not select a device: use pocl, intel, nvidia, gpu or cpu, "
            "with :N for the Nth of several"
        )
    word, number = match[1], int(match[2] or 0)
    fitting = [info for info in devices if word in (info.vendor, info.kind)]
    if number >= len(fitting):
        present = ", ".join(f"{info.selector} ({info.name})" for info in devices) or "none"
        raise NoDeviceError(f"no device {wanted!r}; present: {present}. {_remedy(word)}")
    return fitting[number]


def _remedy(word: str) -> str:
    if word in ("pocl", "intel"):
        return f'Install it: pip install "npubin[{word}]"'
    return "Install its driver" if word in ("nvidia", "amd", "gpu") else f"{INSTALL[0].upper()}{INSTALL[1:]}"


@cache
def _open(info: DeviceInfo, threads: int | None) -> tuple[Any, Any, Any]:
    """Device (a part of it if fewer threads are wanted), context and queue: one each per process, so that
    memory of one ``Device`` serves another of the same selector."""
    cl = _pyopencl()
    device = info.handle
    if threads is not None and threads != info.threads:
        by_counts = cl.device_partition_property.BY_COUNTS
        if not 1 <= threads < info.threads or by_counts not in device.partition_properties:
            raise InputError(
                f"threads={threads}: {info.name} ({info.selector}) can use "
                + (
                    f"1 to {info.threads}"
                    if by_counts in device.partition_properties
                    else f"{info.threads} only"
                )
            )
        device, *_ = device.create_sub_devices([by_counts, threads, 0])
    context = cl.Context([device])
    return device, context, cl.CommandQueue(context)


#: Drivers whose work-items of one run on a thread each, one after the other, from start to end; and that
#: compute in memory which the host gives them.
_THREADED = ("pocl", "intel")


class Device(Backend):
    """An OpenCL device.

    ``selector``: "pocl", "intel", "nvidia", "amd", "gpu" or "cpu", with ":N" for the Nth of several; by
    default ``NPU_DEVICE``, else the first of PoCL, Intel's CPU runtime, a GPU. ``threads``: compute units to
    use, by default all; on a CPU these are threads, and the others stay free for other work. The limit holds
    for this object alone.

    Raises ``NoDeviceError`` (which says what to install) and ``InputError``.
    """

    def __init__(self, selector: str | None = None, *, threads: int | None = None) -> None:
        info = find_device(selector)
        self.info = info
        self._cl = _pyopencl()
        self._device, self._context, self._queue = _open(info, threads)
        self._timed_queue: Any = None
        self.name, self.driver, self.kind, self.vendor = info.name, info.driver, info.kind, info.vendor
        self.threads = threads or info.threads
        self.alignment = max(1, self._device.mem_base_addr_align // 8)
        self.largest = int(self._device.max_mem_alloc_size)
        # NVIDIA's driver takes 20 us more to launch a kernel that has regions among its arguments
        self.shares_arenas = self.vendor != "nvidia"
        self._in_host_memory = self.kind == "cpu" and self.vendor in _THREADED
        if self._in_host_memory:
            self.series_buffers = max(0, int(self._device.max_parameter_size) // 8 - 3)
        self._lock = threading.Lock()
        self._last: _Enqueued | None = None
        self.domain = self._context
        env.debug(env.STAGES, f"device {info.selector}: {info.name}, {info.platform} {info.driver}")

    def __repr__(self) -> str:
        return f"Device({self.info.selector!r}, threads={self.threads})"

    def capability(self, name: str) -> Capability:
        from npu_runtime import probes

        return probes.capability(self, name)

    def _buffer(self, flags: int, nbytes: int, data: Bytes | None = None) -> Memory:
        if nbytes > self.largest:
            raise DeviceError(
                f"{self.name} cannot allocate {nbytes} bytes: its largest buffer has {self.largest}. Lower "
                "the bounds of the dynamic dimensions, or use a device with more memory"
            )
        try:
            handle = self._cl.Buffer(self._context, flags, 0 if data is not None else nbytes, hostbuf=data)
        except (self._cl.Error, ValueError) as error:
            raise DeviceError(
                f"{self.name} cannot allocate {nbytes} bytes (its largest buffer has {self.largest}): {error}"
            ) from None
        return Memory(nbytes, handle)

    def allocate(self, nbytes: int) -> Memory:
        size, flags = max(1, nbytes), self._cl.mem_flags
        if not self._in_host_memory:
            return self._buffer(flags.READ_WRITE, size)
        try:
            host = np.empty(size + _HOST_ALIGNMENT, np.uint8)
        except MemoryError as error:
            raise DeviceError(f"{self.name} cannot allocate {size} bytes: {error}") from None
        start = -host.ctypes.data % _HOST_ALIGNMENT
        memory = self._buffer(flags.READ_WRITE | flags.USE_HOST_PTR, size, host[start : start + size])
        memory.host = host[start : start + size]
        return memory

    def upload(self, data: Bytes, *, share: bool = False) -> Memory:
        flags = self._cl.mem_flags
        if data.size == 0:
            return self.allocate(1)
        if share and self.kind == "cpu" and data.ctypes.data % _HOST_ALIGNMENT == 0:
            return self._buffer(flags.READ_ONLY | flags.USE_HOST_PTR, data.size, data)
        return self._buffer(flags.READ_WRITE | flags.COPY_HOST_PTR, data.size, data)

    def region(self, memory: Memory, offset: int, nbytes: int) -> Memory:
        size = max(1, nbytes)
        try:
            handle = memory.handle.get_sub_region(offset, size)
        except self._cl.Error as error:
            raise DeviceError(f"{self.name} refuses a region of {size} bytes at {offset}: {error}") from None
        host = None if memory.host is None else memory.host[offset : offset + size]
        return Memory(size, handle, memory, offset, host)

    def write(self, memory: Memory, data: Bytes) -> None:
        if data.size:
            self._cl.enqueue_copy(self._queue, memory.handle, data, is_blocking=True)

    def read(self, memory: Memory, out: Bytes) -> None:
        if memory.host is not None:
            self.finish()
            out[:] = memory.host[: out.size]
        elif out.size:
            self._cl.enqueue_copy(self._queue, out, memory.handle, is_blocking=True)

    def zero(self, memory: Memory) -> None:
        self._cl.enqueue_fill_buffer(self._queue, memory.handle, np.uint8(0), 0, memory.nbytes)
        self.finish()

    def build(self, sources: Sequence[tuple[str, str]], options: Sequence[str]) -> object:
        return build_program(self._cl, self._context, self._device, self.info, sources, options)

    def kernel(self, module: object, entry: str, label: str) -> KernelHandle:
        try:
            handle = self._cl.Kernel(module, entry)
            return KernelHandle(label, entry, handle.num_args, handle)
        except self._cl.Error:
            raise DeviceError(f"{label}: the built program has no kernel {entry!r}") from None

    def set_memory(self, kernel: KernelHandle, index: int, memory: Memory, access: str) -> None:  # noqa: ARG002
        self._set(kernel, index, memory.handle, "memory")

    def set_scalar(self, kernel: KernelHandle, index: int, value: int, ctype: str) -> None:
        self._set(kernel, index, _SCALARS[ctype](value), ctype)

    def _set(self, kernel: KernelHandle, index: int, value: Any, what: str) -> None:
        try:
            kernel.handle.set_arg(index, value)
        except self._cl.Error as error:
            raise DeviceError(
                f"{kernel.label}: argument {index} of {kernel.entry} cannot be {what}: {error}"
            ) from None

    def enqueue(
        self,
        launches: Sequence[Launch],
        writes: Sequence[tuple[Memory, Bytes]] = (),
        reads: Iterable[tuple[Memory, Bytes]] = (),
        *,
        alone: bool = False,
    ) -> Ticket:
        later: list[tuple[Bytes, Bytes]] = []

        def asked() -> Iterator[tuple[Memory, Bytes]]:
            for memory, out in reads:
                if alone and memory.host is not None:
                    later.append((memory.host, out))
                else:
                    yield memory, out

        with self._lock:
            if alone and (self._last is None or self._last.done):
                for memory, data in writes:
                    if memory.host is not None:
                        memory.host[: data.size] = data
                writes = [write for write in writes if write[0].host is None]
            events = self._enqueue(launches, self._queue, writes, asked())
            self._queue.flush()
            self._last = _Enqueued(self, events, later)
            return self._last

    def _enqueue(
        self,
        launches: Sequence[Launch],
        queue: Any,
        writes: Sequence[tuple[Memory, Bytes]] = (),
        reads: Iterable[tuple[Memory, Bytes]] = (),
    ) -> list[Any]:
        enqueue, copy = self._cl.enqueue_nd_range_kernel, self._cl.enqueue_copy
        events = []  # a copy's event lives as long as the list: dropping it would wait for the copy
        current = None
        try:
            for memory, data in writes:
                if data.size:
                    events.append(copy(queue, memory.handle, data, is_blocking=False))
            for current in launches:
                events.append(enqueue(queue, current.kernel.handle, current.global_size, current.local_size))
            for memory, out in reads:
                if out.size:
                    events.append(copy(queue, out, memory.handle, is_blocking=False))
        except self._cl.Error as error:
            where = (
                f"{current.kernel.label}, global size {current.global_size}, local size {current.local_size}"
                if current
                else "copies"
            )
            raise DeviceError(f"{self.name} refuses to run {where}: {error}") from None
        return events

    def wait_for(self, events: list[Any]) -> None:
        """Returns when the last of ``events``, and so all before it, is done."""
        try:
            events[-1].wait()
        except self._cl.Error as error:
            raise DeviceError(f"{self.name} failed while it ran what was enqueued: {error}") from None

    def launch_timed(self, launches: Sequence[Launch]) -> list[tuple[int, int]]:
        if self._timed_queue is None:
            self._timed_queue = self._cl.CommandQueue(
                self._context, properties=self._cl.command_queue_properties.PROFILING_ENABLE
            )
        self.finish()
        events = self._enqueue(launches, self._timed_queue)
        self._timed_queue.finish()
        return [(event.profile.start, event.profile.end) for event in events]

    def finish(self) -> None:
        self._queue.finish()


@dataclass(slots=True, eq=False)
class _Enqueued(Ticket):
    """The events of what was enqueued in order."""

    device: Device
    events: list[Any]
    later: list[tuple[Bytes, Bytes]]
    """What the host reads itself, and where to."""
    done: bool = False

    def wait(self) -> None:
        if not self.done:
            if self.events:
                self.device.wait_for(self.events)
            for memory, out in self.later:
                out[:] = memory[: out.size]
            self.events, self.later, self.done = [], [], True
