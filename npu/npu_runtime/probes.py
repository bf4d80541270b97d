"""What a device can do, found out by compiling and running a small kernel and checking what it gives.

A probe runs in a process of its own with a time limit, for a driver may crash or hang on it: the capability
is then absent, and the reason says so. The answer is kept in the folder for built kernels, by device, driver
and the probe's source; a damaged entry counts as none. Nothing is probed before somebody asks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npu_runtime import env, program_cache
from npu_runtime.backend import Backend, Capability, Launch
from npu_runtime.dtypes import Array
from npu_runtime.errors import DeviceError, InputError

if TYPE_CHECKING:
    from npu_runtime.device import Device

#: Seconds that a probe may take, its driver's first start included.
LIMIT = 60.0
_OPEN = "open"

_FP16 = """
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
__kernel void probe(__global float *out)
{
    const int i = get_global_id(0);
    const half x = (half)(i + 1), y = x * (half)1.5h;
    out[i] = (float)(y + (half)2049.0h);
}
"""

# As kernels of templates/lib/mma.cl.j2 have them: rows of a hold their number + 1, columns of b theirs.
_PTX = """
#define MMA(kind, c, a0, a1, b) \\
    asm("mma.sync.aligned.m16n8k16.row.col.f32." kind "." kind ".f32 " \\
        "{ %0, %1, %2, %3}, { %4, %5, %6, %7}, { %8, %9}, { %0, %1, %2, %3};" \\
        : "+f"((c)[0]), "+f"((c)[1]), "+f"((c)[2]), "+f"((c)[3]) \\
        : "r"(a0), "r"(a1), "r"(a0), "r"(a1), "r"(b), "r"(b))
#define PAIR(kind, to, v) asm("cvt.rn." kind "x2.f32 %0, %1, %2;" : "=r"(to) : "f"(v), "f"(v))
__kernel __attribute__((reqd_work_group_size(32, 1, 1)))
void probe(__global float *out, __global const uint4 *from)
{
    __local uint4 held[32];
    const int lane = get_local_id(0), g = lane / 4;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
        :: "r"((uint)(size_t)(&held[lane])), "l"(from + lane), "r"(16) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
    asm volatile("cp.async.wait_group %0;" :: "n"(0) : "memory");
    barrier(CLK_LOCAL_MEM_FENCE);
    const float add = (float)held[31 - lane].y;
    float c[4] = {0, 0, 0, 0}, d[4] = {0, 0, 0, 0};
    uint a0, a1, b;
    PAIR("f16", a0, (float)(g + 1)); PAIR("f16", a1, (float)(g + 9)); PAIR("f16", b, (float)(g + 1));
    MMA("f16", c, a0, a1, b);
    PAIR("bf16", a0, (float)(g + 1)); PAIR("bf16", a1, (float)(g + 9)); PAIR("bf16", b, (float)(g + 1));
    MMA("bf16", d, a0, a1, b);
    for (int i = 0; i < 4; ++i)
        out[lane * 4 + i] = c[i] + 8192 * d[i] + add;
}
"""

_LOCAL = """
__kernel __attribute__((reqd_work_group_size(64, 1, 1))) void probe(__global int *out)
{
    __local int held[WORDS];
    for (int i = get_local_id(0); i < WORDS; i += 64)
        held[i] = i * 3 + 1;
    barrier(CLK_LOCAL_MEM_FENCE);
    int sum = 0;
    for (int i = get_local_id(0); i < WORDS; i += 64)
        sum += held[WORDS - 1 - i] % 127;
    out[get_local_id(0)] = sum;
}
"""

_BUFFER = """
__kernel void probe(__global int *out, const long last)
{
    out[get_global_id(0) ? last : 0] = (int)get_global_id(0) + 5;
}
"""


def _ran(device: Backend, source: str, out: Array, groups: int, *more: Array) -> Array:
    """What the kernel ``probe`` of ``groups`` work-items writes."""
    kernel = device.kernel(device.build([("kernels/probe.cl", source)], ["-cl-std=CL1.2"]), "probe", "probe")
    memory = device.allocate(out.nbytes)
    held = [memory, *(device.upload(array.view(np.uint8).reshape(-1)) for array in more)]
    for index, given in enumerate(held):
        device.set_memory(kernel, index, given, "rw")
    device.launch([Launch(kernel, (groups,), (groups,))])
    device.read(memory, out.view(np.uint8).reshape(-1))
    return out


def _fp16(device: Backend, source: str) -> int:
    i = np.arange(1, 33, dtype=np.float16)
    wanted = (i * np.float16(1.5) + np.float16(2049)).astype(np.float32)
    return _equal(_ran(device, source, np.zeros(32, np.float32), 32), wanted)


def _ptx(device: Backend, source: str) -> int:
    lane, own = np.arange(32)[:, None], np.arange(4)
    row, column = lane // 4 + 8 * (own // 2) + 1, lane % 4 * 2 + own % 2 + 1
    table = np.arange(128, dtype=np.uint32)
    wanted = (8193.0 * 16 * row * column + (31 - lane) * 4 + 1).astype(np.float32)
    return _equal(_ran(device, source, np.zeros((32, 4), np.float32), 32, table), wanted)


def _equal(found: Array, wanted: Array) -> int:
    if not np.array_equal(found, wanted):
        at = tuple(np.argwhere(found != wanted)[0])
        raise DeviceError(f"it computes {found[at]} where {wanted[at]} is right")
    return 1


def _local(device: Backend, source: str) -> int:
    """The most bytes, of the sizes that kernels use, that a work-group can have."""
    for size in (65536, 49152, 32768, 16384):
        words = size // 4
        values = (np.arange(words, dtype=np.int64)[::-1] * 3 + 1) % 127
        try:
            _equal(
                _ran(device, source.replace("WORDS", str(words)), np.zeros(64, np.int32), 64),
                values.reshape(-1, 64).sum(0),
            )
            return size
        except DeviceError:
            if size == 16384:
                raise
    return 0


def _buffer(device: Backend, source: str) -> int:
    """The largest buffer that the driver promises, if both of its ends can be written."""
    kernel = device.kernel(device.build([("kernels/probe.cl", source)], ["-cl-std=CL1.2"]), "probe", "probe")
    size = device.largest // 8 * 8
    memory = device.allocate(size)
    device.set_memory(kernel, 0, memory, "rw")
    device.set_scalar(kernel, 1, size // 4 - 1, "long")
    device.launch([Launch(kernel, (2,), (1,))])
    first = np.zeros(1, np.int32)
    device.read(memory, first.view(np.uint8))
    _equal(first, np.full(1, 5, np.int32))
    return size


@dataclass(frozen=True)
class Probe:
    """``run(device, source)`` gives 1 or a number of bytes, or raises ``DeviceError`` with the reason."""

    source: str
    run: Callable[[Backend, str], int]


PROBES: Mapping[str, Probe] = {
    "fp16": Probe(_FP16, _fp16),
    "ptx": Probe(_PTX, _ptx),
    "local_memory": Probe(_LOCAL, _local),
    "largest_buffer": Probe(_BUFFER, _buffer),
}


def capability(device: Device, name: str, *, seconds: float | None = None, again: bool = False) -> Capability:
    """Whether ``device`` has the capability ``name`` of ``PROBES``, from the cache unless ``again``. Where no
    process can be started, or it cannot open the device, the driver is believed. Raises ``InputError`` for an
    unknown name."""
    if name not in PROBES:
        raise InputError(f"unknown capability {name!r}: known are {', '.join(PROBES)}")
    key = program_cache.cache_key(
        PROBES[name].source, ["probe", name], device.name, f"{device.info.platform} {device.driver}"
    )
    kept = None if again else program_cache.load(key)
    if kept is not None:
        return Capability(**json.loads(kept))
    found = _asked(device.info.selector, name, LIMIT if seconds is None else seconds)
    if found is None:
        return Capability(1, "not probed: a process of its own cannot open the device")
    program_cache.store(key, json.dumps({"value": found.value, "reason": found.reason}).encode())
    env.debug(env.STAGES, f"{device.name}: {name} {found.value} {found.reason}")
    return found


def _command(selector: str, name: str) -> list[str]:
    return [sys.executable, "-m", "npu_runtime.probes", selector, name]


def _asked(selector: str, name: str, seconds: float) -> Capability | None:
    """What a process of its own finds; None where it does not get as far as the probe."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "NPU_DEBUG": "0"}
    try:
        child = subprocess.Popen(
            _command(selector, name),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
    except OSError:
        return None
    with child:
        try:
            said, _ = child.communicate(timeout=seconds)
            ended = f"its driver ended the process that probed it (status {child.returncode})"
        except subprocess.TimeoutExpired:
            child.kill()
            said, _ = child.communicate()
            ended = f"the probe did not end within {seconds:g} seconds"
    lines = said.splitlines()
    if not lines or lines[0] != _OPEN:
        return None
    if len(lines) == 1 or child.returncode != 0:
        return Capability(0, ended)
    return Capability(**json.loads(lines[1]))


def main(selector: str, name: str) -> None:
    """The process of its own: prints that it has the device, then what the probe finds."""
    from npu_runtime.device import Device

    device, probe = Device(selector), PROBES[name]
    print(_OPEN, flush=True)
    try:
        found = Capability(probe.run(device, probe.source))
    except DeviceError as error:
        found = Capability(0, str(error)[:2000])
    print(json.dumps({"value": found.value, "reason": found.reason}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
