"""What a device must be able to do: the small interface between the executor and OpenCL (or its stand-in)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class Memory:
    """Device memory of ``nbytes``. ``handle`` belongs to the backend; ``parent`` is what a region is part
    of; ``host``: its bytes, where it is memory of the host that the device computes in."""

    nbytes: int
    handle: Any
    parent: Memory | None = None
    offset: int = 0
    host: Bytes | None = None


@dataclass(slots=True, eq=False)
class KernelHandle:
    """A kernel with arguments of its own. ``label`` says for messages which step it is."""

    label: str
    entry: str
    num_args: int
    handle: Any


@dataclass(frozen=True, slots=True)
class Launch:
    """One enqueue: sizes in work-items, all above 0; ``local_size`` None leaves it to the driver."""

    kernel: KernelHandle
    global_size: tuple[int, ...]
    local_size: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Capability:
    """What a device can do: 1, or a number of bytes; 0 where it cannot, and why."""

    value: int
    reason: str = ""


class Ticket(ABC):
    """Work that was enqueued. Keep it until ``wait``: the memory of the host that the work reads and writes
    is held by it."""

    @abstractmethod
    def wait(self) -> None:
        """Returns when the work is done, at once if it was waited for before. Raises ``DeviceError`` where
        the device failed."""


class Backend(ABC):
    """An opened device with one in-order queue. Everything on it is asynchronous until ``finish`` or
    ``read``."""

    name: str
    driver: str
    kind: Literal["cpu", "gpu"]
    vendor: str
    """"pocl", "intel", "nvidia", "amd", "null" or "other"."""
    threads: int
    """Compute units in use."""
    alignment: int
    """Regions of memory start at multiples of this many bytes."""
    largest: int
    """Bytes of the largest memory that can be allocated."""
    shares_arenas: bool
    """Whether kernels take regions of one memory as readily as memories of their own."""
    series_buffers: int = 0
    """Buffers that a kernel may take which runs several steps, one work-item waiting for another; 0 where a
    work-item that has begun may stop until others have ended."""
    domain: object
    """Backends of equal domain can use each other's memory."""

    def capability(self, name: str) -> Capability:  # noqa: ARG002
        """Whether the device can do what ``npu_runtime.probes`` calls ``name``."""
        return Capability(1)

    @abstractmethod
    def allocate(self, nbytes: int) -> Memory:
        """Memory of at least one byte; its content is undefined. Raises ``DeviceError`` when there is
        none."""

    @abstractmethod
    def upload(self, data: Bytes, *, share: bool = False) -> Memory:
        """Memory with the content of ``data``. With ``share`` it may be ``data`` itself, which then never
        changes and is only read."""

    @abstractmethod
    def region(self, memory: Memory, offset: int, nbytes: int) -> Memory:
        """A part of ``memory``; ``offset`` is a multiple of ``alignment``."""

    @abstractmethod
    def write(self, memory: Memory, data: Bytes) -> None:
        """Replaces the first bytes of ``memory``; ``data`` may change afterwards."""

    @abstractmethod
    def read(self, memory: Memory, out: Bytes) -> None:
        """Fills ``out`` from the start of ``memory`` once all that was enqueued is done."""

    @abstractmethod
    def zero(self, memory: Memory) -> None:
        """Sets every byte to 0."""

    @abstractmethod
    def build(self, sources: Sequence[tuple[str, str]], options: Sequence[str]) -> object:
        """One OpenCL program of all ``sources`` (file name, text) in order. Raises ``DeviceError`` with the
        log."""

    @abstractmethod
    def kernel(self, module: object, entry: str, label: str) -> KernelHandle:
        """A new kernel with no arguments set. Raises ``DeviceError`` if ``module`` has none of that name."""

    @abstractmethod
    def set_memory(self, kernel: KernelHandle, index: int, memory: Memory, access: str) -> None:
        """Binds argument ``index``, which the kernel reads ("r"), writes ("w") or both ("rw")."""

    @abstractmethod
    def set_scalar(self, kernel: KernelHandle, index: int, value: int, ctype: str) -> None:
        """Binds argument ``index`` to an OpenCL ``int`` or ``long``."""

    @abstractmethod
    def enqueue(
        self,
        launches: Sequence[Launch],
        writes: Sequence[tuple[Memory, Bytes]] = (),
        reads: Iterable[tuple[Memory, Bytes]] = (),
        *,
        alone: bool = False,
    ) -> Ticket:
        """Enqueues all in order, behind what was enqueued before, and does not wait. ``writes``: what to
        write before the first, as ``write`` does; ``reads``: what to read behind the last, as ``read`` does,
        asked for when all launches are enqueued: the arrays of both belong to the device until the ticket
        was waited for. ``alone``: the caller waits before anything else uses these memories, so that the host
        may copy what it can reach itself: a driver's copies take 20 us each. Raises ``DeviceError`` naming
        the launch that was refused."""

    def launch(
        self,
        launches: Sequence[Launch],
        writes: Sequence[tuple[Memory, Bytes]] = (),
        reads: Iterable[tuple[Memory, Bytes]] = (),
    ) -> None:
        """As ``enqueue``, and waits once, for the last."""
        self.enqueue(launches, writes, reads, alone=True).wait()

    @abstractmethod
    def launch_timed(self, launches: Sequence[Launch]) -> list[tuple[int, int]]:
        """As ``launch``; gives the device's own start and end of each, in nanoseconds."""

    @abstractmethod
    def finish(self) -> None:
        """Waits until all that was enqueued is done."""
