"""Series of steps as one kernel each, for processors.

A driver needs some 20 us from one kernel to the next (PoCL on two cores: an eighth of EfficientNet-Lite0's
time): a thread sleeps when it finds no more work-groups, and is woken for the next kernel's. Here the steps'
own kernels become functions, and a kernel with a work-item per thread goes through the steps.

Of each step, which is divided into as many parts as there are threads, a work-item takes its own part first,
always half of what is left of it; then it helps the others in the same way; then it waits until what others
took is done. So a thread mostly reads what it wrote in the step before, and finds it in its own caches: on
two cores without a cache in common ResNet-50 takes 0.94 of the time that it takes where any takes any part.

Only work-items that have begun are waited for, and only for what these have taken: one that begins late, or
after all others have ended, finds nothing left. So this ends on every device where a work-item that has begun
goes on whatever others do, also where fewer run at a time than there are.

Whoever completes a step notes the processor's clock, by which a launch's time is divided among its steps.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from npu_runtime.backend import Backend, Bytes, KernelHandle, Launch, Memory
from npu_runtime.dtypes import ITEM_SIZE, Array
from npu_runtime.npubin import source_order
from npu_runtime.program import BufferArg, CompiledProgram, Step
from npu_runtime.symbols import evaluate, evaluate_shape

#: The name of the memory that all scratch buffers are regions of.
ARENA = "arena"
#: A series' kernel.
ENTRY = "npu_series"
#: Steps that a series has at least, and different kernels at most: a driver compiles them as one function.
FEWEST, MOST_KINDS = 4, 40
#: Work-items that a step may have: each costs a call here, where drivers compute several at a time.
MOST_ITEMS = 1 << 16
#: Numbers of a step's row in the table that stand before its arguments.
_HEAD = 4
#: Counters lie so many numbers apart, each in a cache line of its own, with a clock's value behind it.
_LINE = 16
_CLOCK = 8
#: Whether this is a processor whose clock ``npu_clock`` reads.
CLOCKED = platform.machine() in ("x86_64", "AMD64", "aarch64", "arm64")
#: Looks at a counter before the thread leaves its core to others that could run.
_SPINS = 1000
#: What a kernel does not do whose work-items have no group.
_GROUPED = re.compile(r"\b(barrier|__local|local|get_(?!global_id\b|group_id\b)\w+)\b")

#: Where a work-item stands.
_PLACE = re.compile(r"\bget_g\w+_id\b")

_PRELUDE = """\
#define get_global_id(d) ((d) == 0 ? npu_id0 : (d) == 1 ? npu_id1 : npu_id2)
#define get_group_id(d) get_global_id(d) /* groups of one work-item */
#define NPU_EACH(call) \\
    for (int left = end - at; left > 0; --left) { \\
        call; \\
        if (++id0 == g0) { id0 = 0; if (++id1 == g1) { id1 = 0; ++id2; } } \\
    } \\
    break;
#if defined(__x86_64__)
#define NPU_PAUSE() __builtin_ia32_pause()
#else
#define NPU_PAUSE()
#endif
#if defined(__x86_64__) && defined(__linux__)
/* sched_yield: drivers link no functions of the system */
#define NPU_YIELD() { long code = 24; __asm__ volatile("syscall" : "+a"(code) : : "rcx", "r11", "memory"); }
#else
#define NPU_YIELD()
#endif
static inline long npu_clock(void)
{
#if defined(__x86_64__) || NPU_INTEL
    return __builtin_readcyclecounter();
#elif defined(__aarch64__)
    long now;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(now));
    return now;
#else
    return 0;
#endif
}
"""

_KERNEL = """\
#undef get_global_id
#undef get_group_id
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void %(entry)s(%(parameters)s, __global const long *table, __global volatile int *counters, const int threads)
{
    __global char *const p[] = {%(pointers)s};
    const int me = get_global_id(0), line = %(line)d, left = %(steps)d * line * (threads + 1);
    *(__global volatile long *)(counters + me * line + %(clock)d) = npu_clock(); /* it begins */
    for (int step = 0; step < %(steps)d; ++step) {
        __global const long *t = table + step * %(width)d;
        __global volatile int *taken = counters + step * line * (threads + 1); /* of each part */
        __global volatile int *done = taken + line * threads;
        const int items = t[1], g0 = t[2], g1 = t[3];
        int computed = 0;
        for (int k = 0, who = me; k < threads; ++k, who = who + 1 < threads ? who + 1 : 0) {
            const int first = (long)items * who / threads, size = (long)items * (who + 1) / threads - first;
            for (int at = taken[who * line]; at < size;) {
                const int end = at + (size - at + 1) / 2, seen = atomic_cmpxchg(taken + who * line, at, end);
                if (seen != at) { at = seen; continue; }
                const int place = first + at;
                int id0 = place %% g0, id1 = place / g0 %% g1, id2 = place / g0 / g1;
                switch ((int)t[0]) {
%(cases)s
                }
                computed += end - at;
                at = taken[who * line];
            }
        }
        __sync_synchronize();
        if (computed) {
            const long now = npu_clock(); /* before others can see it done, and end the next step */
            const int before = atomic_add(done, computed);
            if (before + computed == items) *(__global volatile long *)(done + %(clock)d) = now;
        }
        for (int spins = 0; *done < items; ++spins) {
            NPU_PAUSE();
            if (spins > %(spins)d) NPU_YIELD();
        }
        __sync_synchronize();
    }
    if (atomic_inc(counters + left) == threads - 1) { /* all others have left */
        for (int i = 0; i <= left; i += line) counters[i] = 0;
    }
}
"""


@dataclass(frozen=True, slots=True)
class Series:
    """Steps ``first`` to ``last`` (exclusive) of a program; ``buffers``: what their kernel takes."""

    first: int
    last: int
    buffers: tuple[str, ...]


def find_series(program: CompiledProgram, most_buffers: int) -> list[Series]:
    """The series of ``program`` whose kernels take at most ``most_buffers`` buffers."""
    if program.device_type != "cpu" or most_buffers < 1:
        return []
    sources = {kernel.entry: program.kernel_sources[kernel.file] for kernel in program.kernels}
    alone = {entry for entry, source in sources.items() if _as_function(entry, source) is not None}
    numbered = {entry for entry in alone if "get_group_id" in sources[entry]}
    scratch = {buffer.name for buffer in program.buffers if buffer.kind == "scratch"}
    found: list[Series] = []
    first, names, kinds = 0, dict[str, None](), set[str]()

    def end(last: int) -> None:
        if last - first >= FEWEST:
            found.append(Series(first, last, tuple(names)))

    for index, step in enumerate(program.steps):
        local = step.local_size or (0,) * (step.kernel in numbered)  # the driver's choice of a group
        fits = step.kernel in alone and all(size == 1 for size in local)
        used = _buffers(step, scratch) if fits else []
        if not fits or len({*names, *used}) > most_buffers or len({*kinds, step.kernel}) > MOST_KINDS:
            end(index)
            first, names, kinds = index, {}, set()
        if not fits or len(set(used)) > most_buffers:
            first = index + 1
            continue
        names |= dict.fromkeys(used)
        kinds.add(step.kernel)
    end(len(program.steps))
    return found


def _buffers(step: Step, scratch: set[str]) -> list[str]:
    names = [arg.buffer for arg in step.args if isinstance(arg, BufferArg)]
    return [ARENA if name in scratch else name for name in names]


def _as_function(entry: str, source: str) -> str | None:
    """``source`` with the kernel ``entry`` as a function that takes the work-item's place; None for a kernel
    whose work-items have more than that."""
    alone = r"__attribute__\(\(reqd_work_group_size\(1, 1, 1\)(?:, vec_type_hint\(\w+\))?\)\)"
    head = rf"__kernel\s+(?:{alone}\s*)?void\s+{re.escape(entry)}\s*\("
    heads = list(re.finditer(head, source))
    if len(heads) != 1 or _GROUPED.search(source) or _PLACE.search(source[: heads[0].start()]):
        return None
    ids = ", ".join(f"const size_t npu_id{axis}" for axis in range(3))
    return re.sub(head, f"static void {entry}({ids}, ", source)


def source_of(program: CompiledProgram, series: Series) -> str:
    """OpenCL C of the kernel that goes through ``series``."""
    files = {kernel.entry: kernel.file for kernel in program.kernels}
    kinds = _kinds(program, series)
    texts = [_PRELUDE]
    texts += [program.kernel_sources[file] for file in source_order(program) if file not in files.values()]
    texts += [_as_function(kind, program.kernel_sources[files[kind]]) or "" for kind in kinds]
    steps = {step.kernel: step for step in program.steps[series.first : series.last]}
    cases = [f"            case {number}: NPU_EACH({_call(steps[kind])})" for kind, number in kinds.items()]
    names = [f"b{index}" for index in range(len(series.buffers))]
    count = series.last - series.first
    kernel = _KERNEL % {
        "entry": ENTRY,
        "steps": count,
        "line": _LINE,
        "clock": _CLOCK,
        "spins": _SPINS,
        "parameters": ", ".join(f"__global char *{name}" for name in names),
        "pointers": ", ".join(names),
        "cases": "\n".join(cases),
        "width": _width(program, series),
    }
    return "\n".join((*texts, kernel))


def _kinds(program: CompiledProgram, series: Series) -> dict[str, int]:
    entries = dict.fromkeys(step.kernel for step in program.steps[series.first : series.last])
    return {entry: number for number, entry in enumerate(entries)}


def _width(program: CompiledProgram, series: Series) -> int:
    steps = program.steps[series.first : series.last]
    return _HEAD + max(sum(1 + isinstance(arg, BufferArg) for arg in step.args) for step in steps)


def _call(step: Step) -> str:
    """The call of a step's kernel with what its row ``t`` of the table holds."""
    texts, at = ["id0", "id1", "id2"], _HEAD
    for arg in step.args:
        if isinstance(arg, BufferArg):
            texts.append(f"(__global void *)(p[t[{at}]] + t[{at + 1}])")
            at += 2
        else:
            texts.append(f"({arg.ctype})t[{at}]")
            at += 1
    return f"{step.kernel}({', '.join(texts)})"


def table_of(
    program: CompiledProgram, series: Series, places: Mapping[str, int], values: Mapping[str, int]
) -> Array | None:
    """A row per step: its kernel's number, its work-items and the first two sizes of their grid, its
    arguments. A buffer is its number among the kernel's and where it starts there, in bytes: ``places`` of
    scratch buffers in the arena. None where a step has too many work-items."""
    kinds, numbers = _kinds(program, series), {name: index for index, name in enumerate(series.buffers)}
    table = np.zeros((series.last - series.first, _width(program, series)), np.int64)
    for row, step in zip(table, program.steps[series.first : series.last], strict=True):
        sizes = evaluate_shape(step.global_size, values)
        items = prod(sizes)
        if items > MOST_ITEMS:
            return None
        cells = [kinds[step.kernel], items, sizes[0], sizes[1] if len(sizes) > 1 else 1]
        for arg in step.args:
            if not isinstance(arg, BufferArg):
                cells.append(evaluate(arg.value, values))
            elif arg.buffer in places:
                cells += [numbers[ARENA], places[arg.buffer]]
            else:
                cells += [numbers[arg.buffer], 0]
        row[: len(cells)] = cells
    return table


class SeriesKernels:
    """The series of ``program`` on ``device``; scratch buffers lie at ``places`` of its arena."""

    def __init__(
        self, program: CompiledProgram, device: Backend, options: Sequence[str], places: Mapping[str, int]
    ) -> None:
        self._program, self._device, self._places = program, device, places
        self._kernels: list[tuple[Series, KernelHandle, Memory]] = []
        self._counters: list[Memory] = []
        modules: dict[str, object] = {}  # layers that are alike are one kernel
        for series in find_series(program, device.series_buffers):
            source = source_of(program, series)
            if source not in modules:
                modules[source] = device.build([(f"kernels/{ENTRY}.cl", source)], options)
            kernel = device.kernel(modules[source], ENTRY, f"steps {series.first} to {series.last - 1}")
            count = series.last - series.first
            table = device.allocate(count * _width(program, series) * ITEM_SIZE["int64"])
            counters = device.allocate((count * _LINE * (device.threads + 1) + _LINE) * ITEM_SIZE["int32"])
            device.zero(counters)
            for index, memory in enumerate((table, counters), start=len(series.buffers)):
                device.set_memory(kernel, index, memory, "rw")
            device.set_scalar(kernel, len(series.buffers) + 2, device.threads, "int")
            self._kernels.append((series, kernel, table))
            self._counters.append(counters)

    def spans(self, steps: Sequence[int], whole: tuple[int, int]) -> list[tuple[int, int]]:
        """When each of ``steps``, a launch's, ran: first and last nanosecond of the ``whole``, which is done,
        divided by the clock for a series. Only where ``CLOCKED``."""
        if len(steps) == 1:
            return [whole]
        number = next(n for n, (series, *_) in enumerate(self._kernels) if steps[0] < series.last)
        threads, found = self._device.threads, np.empty(self._counters[number].nbytes, np.uint8)
        self._device.read(self._counters[number], found)
        clocks = found.view(np.int64).reshape(-1, _LINE // 2)[:, _CLOCK // 2]
        ends = clocks[threads :: threads + 1][np.array(steps) - self._kernels[number][0].first]
        ends = np.minimum.accumulate(ends[::-1])[::-1] - clocks[:threads].min()  # clocks of cores may differ
        passed = np.clip(ends / max(1, int(ends[-1])), 0, 1)
        times = [whole[0], *(whole[0] + int(share * (whole[1] - whole[0])) for share in passed)]
        return list(pairwise(times))

    def slots(self) -> Iterator[tuple[str, KernelHandle, int]]:
        """Every buffer that a kernel takes, with the kernel and the argument's number."""
        for series, kernel, _ in self._kernels:
            for index, name in enumerate(series.buffers):
                yield name, kernel, index

    def shorten(
        self, launches: Sequence[Launch], steps: Sequence[int], values: Mapping[str, int]
    ) -> tuple[tuple[Launch, ...], tuple[tuple[int, ...], ...], tuple[tuple[Memory, Bytes], ...]]:
        """``launches`` of the ``steps`` with one in the place of each series; the steps of each of these;
        what the series' tables must hold."""
        tables = []
        joined: dict[int, tuple[Launch, tuple[int, ...]]]
        joined = {step: (launch, (step,)) for step, launch in zip(steps, launches, strict=True)}
        for series, kernel, memory in self._kernels:
            table = table_of(self._program, series, self._places, values)
            if table is not None:
                tables.append((memory, table.reshape(-1).view(np.uint8)))
                inside = tuple(step for step in steps if series.first <= step < series.last)
                for step in inside:
                    del joined[step]
                if inside:
                    joined[inside[0]] = (Launch(kernel, (self._device.threads,), (1,)), inside)
        ordered = [joined[step] for step in sorted(joined)]
        return tuple(launch for launch, _ in ordered), tuple(own for _, own in ordered), tuple(tables)
