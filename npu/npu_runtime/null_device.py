"""A device that computes nothing: it checks every call and leaves zeros in what kernels would write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

import numpy as np

from npu_runtime.backend import Backend, Bytes, KernelHandle, Launch, Memory, Ticket
from npu_runtime.errors import DeviceError

_HEAD = re.compile(r"\b_?_?kernel\b((?:\s+__attribute__\s*\(\(.*?\)\)\)?)*)\s+void\s+(\w+)\s*\(", re.DOTALL)
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_MAX_WORK_GROUP = 1024


@dataclass(eq=False)
class _Store:
    """The bytes of a whole allocation, and the parts of it that regions have made."""

    data: Bytes
    regions: WeakSet[_Area] = field(default_factory=WeakSet)


@dataclass(eq=False)
class _Area:
    """A part of a store. ``ready``: whether anything has written it since another area last overwrote it."""

    store: _Store
    start: int
    stop: int
    ready: bool = False
    read_only: bool = False

    @property
    def data(self) -> Bytes:
        return self.store.data[self.start : self.stop]


@dataclass(frozen=True)
class _Parameter:
    """A kernel's parameter: "memory" (``constant``: it may not be written), "int", "long" or "other"."""

    kind: str
    constant: bool = False


@dataclass(eq=False)
class _Bound:
    """A kernel's parameters and what they are set to."""

    parameters: list[_Parameter]
    areas: dict[int, tuple[_Area, str]] = field(default_factory=dict)
    scalars: dict[int, int] = field(default_factory=dict)


class _Done(Ticket):
    """Nothing is left to do."""

    def wait(self) -> None:
        return


class NullDevice(Backend):
    """Accepts what a real device would, refuses the rest with ``DeviceError``, and computes nothing.

    Checked: that kernels exist and their arguments fit in number, kind and type, that all are set before a
    launch, sizes of launches and work-groups, accesses outside memory, writes to read-only memory, and reads
    of memory that nothing has written. Outputs are zeros. ``launched`` lists the labels of all kernels
    launched so far.
    """

    def __init__(self, *, alignment: int = 128, kind: str = "cpu", largest: int = 1 << 62) -> None:
        self.name, self.driver, self.vendor = "null", "1", "null"
        self.kind = "gpu" if kind == "gpu" else "cpu"
        self.threads = 1
        self.alignment = alignment
        self.largest, self.shares_arenas = largest, kind != "gpu"
        self.domain = self
        self.launched: list[str] = []

    def __repr__(self) -> str:
        return "NullDevice()"

    def allocate(self, nbytes: int) -> Memory:
        if nbytes < 0:
            raise DeviceError(f"cannot allocate {nbytes} bytes")
        if nbytes > self.largest:
            raise DeviceError(f"null cannot allocate {nbytes} bytes: its largest buffer has {self.largest}")
        size = max(1, nbytes)
        return Memory(size, _area(_Store(np.zeros(size, np.uint8)), 0, size))

    def upload(self, data: Bytes, *, share: bool = False) -> Memory:
        memory = self.allocate(data.size)
        memory.handle.data[: data.size] = data
        memory.handle.ready, memory.handle.read_only = True, share
        return memory

    def region(self, memory: Memory, offset: int, nbytes: int) -> Memory:
        size = max(1, nbytes)
        if offset % self.alignment:
            raise DeviceError(f"a region at {offset} is not aligned to {self.alignment} bytes")
        if offset < 0 or offset + size > memory.nbytes:
            raise DeviceError(f"a region of {size} bytes at {offset} lies outside memory of {memory.nbytes}")
        start = memory.handle.start + offset
        return Memory(size, _area(memory.handle.store, start, start + size), memory, offset)

    def write(self, memory: Memory, data: Bytes) -> None:
        if data.size > memory.nbytes:
            raise DeviceError(f"cannot write {data.size} bytes to memory of {memory.nbytes}")
        memory.handle.data[: data.size] = data
        _written(memory.handle)

    def read(self, memory: Memory, out: Bytes) -> None:
        if out.size > memory.nbytes:
            raise DeviceError(f"cannot read {out.size} bytes from memory of {memory.nbytes}")
        if not memory.handle.ready and out.size:
            raise DeviceError("reads memory that nothing has written")
        out[:] = memory.handle.data[: out.size]

    def zero(self, memory: Memory) -> None:
        memory.handle.data[:] = 0
        _written(memory.handle)

    def build(self, sources: Sequence[tuple[str, str]], options: Sequence[str]) -> object:  # noqa: ARG002
        found: dict[str, list[_Parameter]] = {}
        for name, source in sources:
            text = _COMMENT.sub(" ", source)
            for head in _HEAD.finditer(text):
                if head[2] in found:
                    raise DeviceError(f"{name}: a second kernel {head[2]!r}")
                found[head[2]] = [_parameter(part) for part in _split(text, head.end())]
        return found

    def kernel(self, module: object, entry: str, label: str) -> KernelHandle:
        if not isinstance(module, dict) or entry not in module:
            raise DeviceError(f"{label}: the sources have no kernel {entry!r}")
        return KernelHandle(label, entry, len(module[entry]), _Bound(module[entry]))

    def set_memory(self, kernel: KernelHandle, index: int, memory: Memory, access: str) -> None:
        parameter = self._parameter(kernel, index)
        if parameter.kind != "memory":
            raise DeviceError(f"{kernel.label}: argument {index} is {parameter.kind}, not memory")
        if access != "r" and (parameter.constant or memory.handle.read_only):
            raise DeviceError(
                f"{kernel.label}: argument {index} is written ({access!r}), but it is read-only"
            )
        kernel.handle.areas[index] = (memory.handle, access)

    def set_scalar(self, kernel: KernelHandle, index: int, value: int, ctype: str) -> None:
        parameter = self._parameter(kernel, index)
        if parameter.kind != ctype:
            raise DeviceError(f"{kernel.label}: argument {index} is {parameter.kind}, not {ctype}")
        kernel.handle.scalars[index] = value

    def _parameter(self, kernel: KernelHandle, index: int) -> _Parameter:
        if not 0 <= index < kernel.num_args:
            raise DeviceError(
                f"{kernel.label}: there is no argument {index}; the kernel takes {kernel.num_args}"
            )
        parameter: _Parameter = kernel.handle.parameters[index]
        return parameter

    def enqueue(
        self,
        launches: Sequence[Launch],
        writes: Sequence[tuple[Memory, Bytes]] = (),
        reads: Iterable[tuple[Memory, Bytes]] = (),
        *,
        alone: bool = False,  # noqa: ARG002
    ) -> Ticket:
        for memory, data in writes:
            self.write(memory, data)
        for launch in launches:
            self._launch(launch)
        for memory, out in reads:
            self.read(memory, out)
        return _Done()

    def _launch(self, launch: Launch) -> None:
        kernel, local = launch.kernel, launch.local_size
        bound: _Bound = kernel.handle
        unset = [
            index
            for index in range(kernel.num_args)
            if index not in bound.areas.keys() | bound.scalars.keys()
        ]
        if unset:
            raise DeviceError(f"{kernel.label}: arguments {unset} are not set")
        if not 1 <= len(launch.global_size) <= 3 or min(launch.global_size) < 1:
            raise DeviceError(f"{kernel.label}: global size {launch.global_size}")
        if local is not None and (
            len(local) != len(launch.global_size)
            or np.prod(local) > _MAX_WORK_GROUP
            or any(size % part for size, part in zip(launch.global_size, local, strict=True))
        ):
            raise DeviceError(
                f"{kernel.label}: local size {local} does not fit global size {launch.global_size}"
            )
        for index, (area, access) in bound.areas.items():
            if access != "w" and not area.ready:
                raise DeviceError(
                    f"{kernel.label}: argument {index} reads memory that nothing has written, or that "
                    "other memory has overwritten"
                )
        for area, access in bound.areas.values():
            if access != "r":
                area.data[:] = 0
                _written(area)
        self.launched.append(kernel.label)

    def launch_timed(self, launches: Sequence[Launch]) -> list[tuple[int, int]]:
        self.launch(launches)
        return [(index * 1000, index * 1000 + 1000) for index in range(len(launches))]

    def finish(self) -> None:
        return


def _area(store: _Store, start: int, stop: int) -> _Area:
    area = _Area(store, start, stop)
    store.regions.add(area)
    return area


def _written(area: _Area) -> None:
    """``area`` holds something now; what other areas held where it overlaps them is lost."""
    for other in area.store.regions:
        if other is not area and other.start < area.stop and area.start < other.stop:
            other.ready = False
    area.ready = True


def _split(text: str, start: int) -> list[str]:
    """The parameters between the parenthesis before ``start`` and its partner."""
    depth, parts, part = 1, [], ""
    for character in text[start:]:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            break
        if character == "," and depth == 1:
            parts.append(part)
            part = ""
        else:
            part += character
    return [*parts, part] if part.strip() not in ("", "void") or parts else []


def _parameter(text: str) -> _Parameter:
    words = re.findall(r"\w+|\*", text)
    if "*" in words:
        constant = "const" in words[: words.index("*")] or "__constant" in words or "constant" in words
        return _Parameter("memory", constant)
    kinds = [word for word in words[:-1] if word in ("int", "long", "uint", "ulong")]
    return _Parameter({"uint": "int", "ulong": "long"}.get(kinds[0], kinds[0]) if kinds else "other")
