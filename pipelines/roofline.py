"""What a device can do at most, measured on it, and how near the kernels of a program come to that.

The bound of a step is the roofline model's (Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009),
with the time that starting a kernel takes as a third roof: max(operations / peak, bytes / bandwidth, start).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from npu_compiler.resources import template_root
from npu_runtime.backend import Backend, Launch, Memory
from pipelines.results import KernelTime, Peaks

#: Bytes that are read to measure the bandwidth: more than caches hold.
_READ = 1 << 28
_VECTOR = 32
#: Of the loop in ``multiply_adds``: ten vectors of eight, two operations each.
_OPERATIONS = 160
_ROUNDS = 200_000
_REPEATS = 7
#: Work-items per compute unit, and in a work-group.
_ITEMS = {"cpu": (8, 1), "gpu": (2048, 128)}


def measure(device: Backend) -> Peaks:
    """The best of a few runs of each of three small kernels, by the device's clock; well below a second
    on two cores. The peak is of float32 without matrix units, so it is left out for GPUs."""
    source = (template_root() / "probes" / "peaks.cl").read_text()
    module = device.build([("peaks.cl", source)], ["-cl-std=CL1.2", "-cl-mad-enable"])
    per_unit, group = _ITEMS[device.kind]
    items = max(device.threads * per_unit, 1)
    out = device.allocate(4 * items)
    start = _best(device, _launch(device, module, "nothing", 1, 1, [out]))
    gflops = None
    if device.kind == "cpu":
        took = _best(device, _launch(device, module, "multiply_adds", items, group, [out], [_ROUNDS]))
        gflops = items * _ROUNDS * _OPERATIONS / took
    nbytes = min(_READ, device.largest)
    count = nbytes // _VECTOR // items // 4 * 4
    data = device.allocate(nbytes)
    device.zero(data)
    first, step = (count, 1) if device.kind == "cpu" else (1, items)
    took = _best(device, _launch(device, module, "read_once", items, group, [data, out],
                                 [first, step, count]))
    return Peaks(gflops, items * count * _VECTOR / took, start / 1e3)


def _launch(
    device: Backend, module: object, entry: str, items: int, group: int,
    memories: Sequence[Memory], scalars: Sequence[int] = (),
) -> Launch:
    kernel = device.kernel(module, entry, entry)
    for index, memory in enumerate(memories):
        device.set_memory(kernel, index, memory, "rw")
    for index, value in enumerate(scalars, len(memories)):
        device.set_scalar(kernel, index, value, "int")
    return Launch(kernel, (items,), (group,))


def _best(device: Backend, launch: Launch) -> float:
    """Nanoseconds of the fastest of a few launches."""
    times = device.launch_timed([launch] * (_REPEATS + 1))[1:]
    return float(max(min(end - start for start, end in times), 1))


@dataclass(frozen=True)
class Bound:
    """The least time of some steps in microseconds, and which roof most of it is: "compute", "memory" or
    "start"."""

    least_us: float
    by: str


def bound_of(steps: Sequence[KernelTime], peaks: Peaks) -> Bound:
    """The bound of all calls of ``steps`` together."""
    parts = {"compute": 0.0, "memory": 0.0, "start": 0.0}
    for step in steps:
        times = {
            "compute": 0.0 if peaks.gflops is None else step.flops / peaks.gflops / 1e3,
            "memory": step.bytes_moved / peaks.gbytes / 1e3,
            "start": step.calls * peaks.start_us,
        }
        roof = max(times, key=lambda name: times[name])
        parts[roof] += times[roof]
    return Bound(sum(parts.values()), max(parts, key=lambda name: parts[name]))


#: A share of its bound from which a kernel counts as at it; shares of a kernel's time below which a cause is
#: not worth a word.
_NEAR, _SEEN = 0.85, 0.03


def held_back(steps: Sequence[KernelTime], peaks: Peaks, threads: int) -> tuple[str, ...]:
    """What keeps ``steps``, all calls of one kernel one by one, from the device's peaks, in words: how near
    they come to the roof that applies, then the causes that follow from sizes and times. ``threads`` are
    those that share a launch's work-groups."""
    took = sum(step.total_us for step in steps)
    if not took:
        return ()
    if peaks.gflops is None:  # a GPU holds many work-groups per unit
        threads = 1
    bound = bound_of(steps, peaks)
    share = bound.least_us / took
    at = {
        "compute": f"bound by operations, of whose peak it reaches {share:.0%}",
        "memory": f"bound by bytes, of whose bandwidth it reaches {share:.0%}",
        "start": f"bound by its start, which is {share:.0%} of its time",
    }[bound.by]
    said = [at if share < 1 else f"at its bound by {_ROOFS[bound.by]}: caches hold what it reads"]
    idle = sum(step.total_us * idle_share(step.groups, threads) for step in steps) / took
    few = min((step.groups for step in steps if step.groups), default=0)
    if idle >= _SEEN:
        said.append(f"{few} work-groups for {threads} threads leave these idle for {idle:.0%} of the time")
    start = sum(step.calls for step in steps) * peaks.start_us / took
    if bound.by != "start" and start >= _SEEN:
        said.append(f"starting takes {start:.0%}")
    moved = sum(step.bytes_moved for step in steps) / peaks.gbytes / 1e3 / took
    if bound.by == "compute" and moved >= share / 2:
        said.append(f"its bytes alone take {moved:.0%}")
    if share < _NEAR and len(said) == 1:
        said.append("sizes and starts do not explain the rest: caches, or other instructions")
    return tuple(said)


_ROOFS = {"compute": "operations", "memory": "bytes", "start": "its start"}


def idle_share(groups: int, threads: int) -> float:
    """The share of all threads' time that is lost because equal work-groups do not divide among them:
    1 - groups / (threads * ceil(groups / threads)). 0 for unknown (0) groups."""
    if not groups:
        return 0.0
    return 1 - groups / (threads * -(-groups // threads))
