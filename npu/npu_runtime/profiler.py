"""Profiler: where the time of a program goes, by the device's own clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npu_runtime.buffer import NPUBuffer
from npu_runtime.dag_executor import DAGExecutor
from npu_runtime.executor import Executor, StepTime
from npu_runtime.files import atomic_file
from npu_runtime.program import CompiledProgram
from npu_runtime.symbols import evaluate
from npu_runtime.weight_loader import Weights


@dataclass(frozen=True)
class Row:
    """A kernel over all profiled runs: seconds, calls, part of the whole, and its rates by the program's own
    counts of operations and of bytes that must move (None where it counts none)."""

    kernel: str
    total: float
    calls: int
    average: float
    share: float
    gflops: float | None
    gbytes: float | None
    origin: tuple[str, ...]
    """What the kernel's first step computes, in the model's own names."""


class Profiler:
    """Runs an executor's program and keeps the time of every step. Timing costs a few microseconds a
    launch."""

    def __init__(self, executor: Executor | DAGExecutor) -> None:
        self.executor = executor
        self._runs: list[list[StepTime]] = []

    def run(self, inputs: Mapping[str, object], weights: Weights) -> dict[str, NPUBuffer]:
        """As ``Executor.run``; adds its times to those of the runs before."""
        outputs, times = self.executor.run_timed(inputs, weights)
        self._runs.append(times)
        return outputs

    def reset(self) -> None:
        """Forgets all runs, as after warming up."""
        self._runs.clear()

    @property
    def runs(self) -> tuple[tuple[StepTime, ...], ...]:
        """The times of each run's steps, in the order of their launch."""
        return tuple(map(tuple, self._runs))

    def rows(self) -> list[Row]:
        """One row per kernel, the slowest first."""
        return _rows(self.executor.program, [time for run in self._runs for time in run])

    def step_rows(self) -> list[Row]:
        """One row per step of the program, in its order; ``kernel`` is the kernel's name."""
        steps: dict[int, list[StepTime]] = {}
        for time in (time for run in self._runs for time in run):
            steps.setdefault(time.step, []).append(time)
        whole = sum(time.end - time.start for times in steps.values() for time in times) or 1
        return [_row(self.executor.program, times, whole) for _, times in sorted(steps.items())]

    def summary(self) -> str:
        """The table that ``print_summary`` prints."""
        rows = self.rows()
        width = max([len("kernel"), *(len(row.kernel) for row in rows)])
        lines = [
            f"{'kernel':<{width}} {'total ms':>10} {'calls':>6} {'avg us':>10} {'share':>7} "
            f"{'GFLOP/s':>9} {'GB/s':>7}"
        ]
        lines += [
            f"{row.kernel:<{width}} {row.total * 1e3:>10.3f} {row.calls:>6} {row.average * 1e6:>10.1f} "
            f"{row.share:>7.1%} {_rate(row.gflops):>9} {_rate(row.gbytes):>7}"
            for row in rows
        ]
        total, device = sum(row.total for row in rows), self.executor.device
        lines.append(
            f"{len(self._runs)} runs, {total * 1e3:.3f} ms in kernels, on {device.name} ({device.driver})"
        )
        return "\n".join(lines)

    def print_summary(self) -> None:
        """Prints per kernel: total time, calls, average, share, GFLOP/s and GB/s."""
        print(self.summary())

    def save_trace(self, path: str | Path) -> None:
        """Writes the runs as Chrome trace events (JSON, for chrome://tracing or Perfetto)."""
        program = self.executor.program
        starts = [time.start for run in self._runs for time in run]
        origin = min(starts, default=0)
        events: list[dict[str, Any]] = [
            {
                "ph": "M",
                "name": "process_name",
                "pid": 0,
                "tid": 0,
                "args": {"name": f"{program.model} {program.program}"},
            }
        ]
        for number, run in enumerate(self._runs):
            for time in run:
                step = program.steps[time.step]
                events.append(
                    {
                        "ph": "X",
                        "name": step.kernel,
                        "cat": "kernel",
                        "pid": 0,
                        "tid": 0,
                        "ts": (time.start - origin) / 1e3,
                        "dur": (time.end - time.start) / 1e3,
                        "args": {
                            "run": number,
                            "step": time.step,
                            "origin": ", ".join(step.origin),
                            "global_size": [evaluate(size, time.values) for size in step.global_size],
                            "flops": evaluate(step.cost.flops, time.values),
                        },
                    }
                )
        with atomic_file(path) as file:
            file.write(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode())


def step_lines(program: CompiledProgram, times: Iterable[StepTime]) -> list[str]:
    """A line for each step that ran: kernel, time and rates."""
    lines = []
    for time in times:
        row = _row(program, [time], 1)
        lines.append(
            f"{row.kernel}: {row.total * 1e6:.1f} us, {_rate(row.gflops)} GFLOP/s, {_rate(row.gbytes)} GB/s"
        )
    return lines


def _rows(program: CompiledProgram, times: Iterable[StepTime]) -> list[Row]:
    kernels: dict[str, list[StepTime]] = {}
    for time in times:
        kernels.setdefault(program.steps[time.step].kernel, []).append(time)
    whole = sum(time.end - time.start for group in kernels.values() for time in group) or 1
    return sorted((_row(program, group, whole) for group in kernels.values()), key=lambda row: -row.total)


def _row(program: CompiledProgram, times: list[StepTime], whole: int) -> Row:
    """``times`` of one kernel; ``whole`` is all kernels' time in nanoseconds."""
    step = program.steps[times[0].step]
    spent = sum(time.end - time.start for time in times)
    flops = moved = 0
    for time in times:
        cost = program.steps[time.step].cost
        flops += evaluate(cost.flops, time.values)
        moved += evaluate(cost.bytes_read, time.values) + evaluate(cost.bytes_written, time.values)
    return Row(
        step.kernel,
        spent / 1e9,
        len(times),
        spent / 1e9 / len(times),
        spent / whole,
        flops / spent if flops and spent else None,
        moved / spent if moved and spent else None,
        step.origin,
    )


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
