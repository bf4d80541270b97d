"""Stage ``report``: one self-contained HTML page from the results of verify and bench, and a summary for
the terminal.

The page loads nothing: style, plots (SVG drawn by the templates) and thumbnails are part of it. What the
templates draw is computed here as plain numbers; they only place it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines import peer_results, roofline
from pipelines.job import Job, write_atomic
from pipelines.peer_results import PeerRun
from pipelines.results import (
    BenchResult,
    HistoryLine,
    KernelTime,
    Memory,
    Peaks,
    ProgramBench,
    TensorCheck,
    VerifyResult,
    read_history,
    read_result,
)

#: The slowest kernels, of which the report says what holds them back.
EXPLAINED = 5


@dataclass(frozen=True)
class Facts:
    """Everything that a report says. ``history`` is this target's, oldest first, the reported run last."""

    label: str
    description: str
    factory: str
    weights: Mapping[str, Any]
    verify: VerifyResult
    bench: BenchResult
    history: tuple[HistoryLine, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    peers: tuple[PeerRun, ...] = ()

    @property
    def random(self) -> bool:
        """Whether the weights are random, so that no answer of the model means anything."""
        return self.weights.get("kind") == "random"

    @property
    def judged(self) -> bool:
        """Whether the model's answers can be right: trained weights, and images with labels."""
        return not self.random and any(image.label is not None for image in self.verify.images)


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where it is, 0 to 1, and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """Maps values to 0..1 between two round numbers."""

    low: float
    high: float
    ticks: tuple[Tick, ...]

    def __call__(self, value: float) -> float:
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


def run(job: Job) -> None:
    """Reads the results of ``job``'s model on its target and device, writes the page and prints the
    summary."""
    facts = collect(job)
    write_atomic(job.report, render(facts))
    for line in summary(facts):
        job.say(line)
    job.say(str(replace(job, staged=frozenset()).report.relative_to(job.root)))


def collect(job: Job) -> Facts:
    """The facts of a job from its artifacts. Raises ``ValueError`` naming a result that cannot be read."""
    verify = read_result(job.verify_result, VerifyResult)
    bench = read_result(job.bench_result, BenchResult)
    mine = tuple(line for line in read_history(job.history) if line.comparable(bench))
    sizes = {
        path.name: path.stat().st_size
        for path in (job.source_weights, job.prepared_weights, *map(job.program_file, job.programs))
        if path.is_file()
    }
    return Facts(
        job.label,
        job.config.description,
        job.config.factory,
        json.loads(job.source_info.read_text()),
        verify,
        bench,
        mine,
        sizes,
        peer_results.read(job).runs,
    )


def render(facts: Facts) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from npu_compiler.resources import template_root

    folder = Path(str(template_root())) / "report"
    jinja = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    jinja.filters.update(ms=milliseconds, si=si, size=size, percent=percent, sci=scientific, shape=shape_text)
    return jinja.get_template("report.html.j2").render(
        facts=facts,
        verify=facts.verify,
        bench=facts.bench,
        random=facts.random,
        programs=[
            program_view(program, facts.history, facts.bench.peaks, facts.bench.environment.threads)
            for program in facts.bench.programs
        ],
        worst=worst_check(facts.verify),
        narrow=any(check.eager is not None for check in facts.verify.checks),
        judged=facts.judged,
    )


def program_view(
    program: ProgramBench, history: Sequence[HistoryLine], peaks: Peaks | None = None, threads: int = 1
) -> dict[str, Any]:
    """What the page draws of one program."""
    return {
        "bench": program,
        "latency": latency_plot(program),
        "kernels": kernel_rows(program.kernels, program.steps, peaks, threads),
        "bound": bound(program.steps, peaks),
        "kernel_ms": sum(kernel.total_us for kernel in program.kernels) / 1e3,
        "gflops": program.flops / program.median_ms / 1e6 if program.median_ms else 0.0,
        "memory": memory_plot(program.memory),
        "change": change(program, history),
        "history": history_plot(program.program, history),
    }


def worst_check(verify: VerifyResult) -> TensorCheck | None:
    """The comparison with the largest relative error."""
    return max(verify.checks, key=lambda check: check.errors.max_relative, default=None)


def latency_plot(program: ProgramBench, bins: int = 24) -> dict[str, Any]:
    """Every sample in its order, and their distribution. Samples far above the rest are drawn at the upper
    edge."""
    samples = program.samples_ms
    spread = max(program.p90_ms - program.p10_ms, program.median_ms * 0.02)
    scale = round_scale(min(samples), min(max(samples), program.p90_ms + 2 * spread))
    counts = [0] * bins
    for sample in samples:
        counts[min(int(scale(sample) * bins), bins - 1)] += 1
    return {
        "scale": scale,
        "counts": [count / max(counts) for count in counts],
        "numbers": counts,
        "points": [
            (index / max(len(samples) - 1, 1), scale(sample), sample) for index, sample in enumerate(samples)
        ],
        "median": scale(program.median_ms),
        "p10": scale(program.p10_ms),
        "p90": scale(program.p90_ms),
        "clipped": sum(sample > scale.high for sample in samples),
    }


def bound(steps: Sequence[KernelTime], peaks: Peaks | None) -> dict[str, Any] | None:
    """The least time of ``steps`` by the device's peaks: its share of the time that they took, and what most
    of it is. None without peaks or steps."""
    took = sum(step.total_us for step in steps)
    if peaks is None or not took:
        return None
    found = roofline.bound_of(steps, peaks)
    return {"share": found.least_us / took, "by": found.by, "ms": found.least_us / 1e3}


def kernel_rows(
    kernels: Sequence[KernelTime], steps: Sequence[KernelTime] = (), peaks: Peaks | None = None,
    threads: int = 1,
) -> list[dict[str, Any]]:
    """Kernels by total time, each with its share of all kernels' time, the width of its bar, its ``bound``,
    and for the slowest what they are ``held`` back by."""
    total = sum(kernel.total_us for kernel in kernels) or 1.0
    largest = max((kernel.total_us for kernel in kernels), default=1.0) or 1.0
    rows = []
    for place, kernel in enumerate(sorted(kernels, key=lambda kernel: -kernel.total_us)):
        own = [step for step in steps if step.kernel == kernel.kernel]
        explained = peaks is not None and place < EXPLAINED
        rows.append({
            "kernel": kernel, "share": kernel.total_us / total, "bar": kernel.total_us / largest,
            "bound": bound(own, peaks),
            "held": roofline.held_back(own, peaks, threads) if peaks is not None and explained else ()})
    return rows


def memory_plot(memory: Memory) -> dict[str, Any]:
    """The arena: time (steps) to the right, addresses upwards, a box per intermediate result."""
    steps = max(memory.steps, 1)
    top = max(memory.arena, 1)
    return {
        "boxes": [
            {
                "x": block.first / steps,
                "width": (block.last - block.first + 1) / steps,
                "y": block.offset / top,
                "height": block.nbytes / top,
                "block": block,
            }
            for block in memory.blocks
        ],
        "live": memory.largest_live / top,
        "ratio": memory.arena / memory.largest_live if memory.largest_live else 1.0,
    }


def change(program: ProgramBench, history: Sequence[HistoryLine]) -> dict[str, Any] | None:
    """The change of the median against the run before this one, on the same device with as many threads.

    It is called noise where either median lies between the other run's p10 and p90."""
    before = next((line for line in reversed(history[:-1]) if program.program in line.programs), None)
    if before is None:
        return None
    median, p10, p90 = before.programs[program.program]
    noise = p10 <= program.median_ms <= p90 or program.p10_ms <= median <= program.p90_ms
    return {
        "ratio": program.median_ms / median - 1.0,
        "median": median,
        "when": before.when,
        "noise": noise,
        "same": before.digests.get(program.program) == program.digest,
    }


def history_plot(program: str, history: Sequence[HistoryLine], last: int = 40) -> dict[str, Any] | None:
    """Median and p10 to p90 of the last runs; None where there is only one."""
    runs = [line for line in history if program in line.programs][-last:]
    if len(runs) < 2:
        return None
    scale = round_scale(
        min(line.programs[program][1] for line in runs), max(line.programs[program][2] for line in runs)
    )
    points = []
    for index, line in enumerate(runs):
        median, p10, p90 = line.programs[program]
        changed = index > 0 and line.digests.get(program) != runs[index - 1].digests.get(program)
        points.append(
            {
                "x": (index + 0.5) / len(runs),
                "y": scale(median),
                "low": scale(p10),
                "high": scale(p90),
                "median": median,
                "when": line.when,
                "changed": changed,
            }
        )
    return {"scale": scale, "points": points}


def round_scale(low: float, high: float, ticks: int = 4) -> Scale:
    """A scale from a round number at or below ``low`` to one at or above ``high``, with a tick at each
    step."""
    from math import ceil, floor, log10

    span = max(high - low, abs(high) * 0.02, 1e-9)
    magnitude = 10.0 ** floor(log10(span / ticks))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if span / (factor * magnitude) <= ticks)
    first, last = floor(low / step), max(ceil(high / step), floor(low / step) + 1)
    digits = max(0, -floor(log10(step)) + (1 if step / magnitude == 2.5 else 0))
    values = [index * step for index in range(first, last + 1)]
    bottom, top = values[0], values[-1]
    return Scale(
        bottom, top, tuple(Tick((value - bottom) / (top - bottom), f"{value:.{digits}f}") for value in values)
    )


def milliseconds(value: float) -> str:
    """Three significant digits: "25.5 ms", "412 µs"."""
    if value < 1:
        return f"{value * 1e3:.3g} µs"
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1e3:.3g} s"


def si(value: float) -> str:
    """ "3.64 G": three digits and a decimal prefix."""
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {prefix}"
    return f"{value:.3g}"


def size(nbytes: float) -> str:
    """ "12.3 MB", in powers of 1000."""
    return f"{si(nbytes)}B" if nbytes >= 1000 else f"{nbytes:.0f} B"


def percent(value: float, digits: int = 1) -> str:
    """ "12.5 %"."""
    return f"{value * 100:.{digits}f} %"


def scientific(value: float | None) -> str:
    """ "3.1e-07"; 0 as "0"."""
    return "-" if value is None else f"{value:.1e}" if value else "0"


def shape_text(sizes: Sequence[int]) -> str:
    """Sizes with a multiplication sign between; those of a scalar are "scalar"."""
    return "\N{MULTIPLICATION SIGN}".join(map(str, sizes)) or "scalar"


def summary(facts: Facts) -> list[str]:
    """The essentials as lines for the terminal."""
    from rich.console import Console
    from rich.table import Table

    verify = facts.verify
    weights = str(facts.weights.get("label", facts.weights.get("kind", "unknown")))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("device", f"{facts.bench.environment.device}, {facts.bench.environment.threads} threads")
    table.add_row("weights", weights)
    worst = worst_check(verify)
    if worst is not None:
        table.add_row(
            "accuracy",
            f"{'agrees with' if verify.passed else 'differs from'} PyTorch, "
            f"relative error {scientific(worst.errors.max_relative)}",
        )
    if verify.accuracy is not None and not facts.judged:
        found = verify.accuracy
        table.add_row("", f"the same class as PyTorch on {found.agree_top1} of {found.images} images")
    elif verify.accuracy is not None:
        found = verify.accuracy
        table.add_row(
            "",
            f"top-1 {found.top1}/{found.images}, top-5 {found.top5}/{found.images} "
            f"(PyTorch {found.reference_top1} and {found.reference_top5})",
        )
    if verify.continuations:
        equal = sum(check.equal == check.tokens for check in verify.continuations)
        table.add_row("", f"{equal} of {len(verify.continuations)} continuations are PyTorch's to the end")
    if verify.sentences:
        table.add_row("", f"cosines {', '.join(f'{pair.found:.3f}' for pair in verify.sentences)}")
    for program in facts.bench.programs:
        named = len(facts.bench.programs) > 1
        table.add_row(f"latency {program.program}" if named else "latency", _latency_text(program, facts))
    for row in facts.bench.generation.rows if facts.bench.generation else ():
        middle, slow, fast = row.speeds
        first = f", first token after {milliseconds(row.tokens / middle * 1e3)}" if row.reads else ""
        table.add_row(row.name, f"{middle:.1f} tokens/s ({slow:.1f} to {fast:.1f}){first}")
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _latency_text(program: ProgramBench, facts: Facts) -> str:
    text = (
        f"{milliseconds(program.median_ms)} (p10 {milliseconds(program.p10_ms)}, "
        f"p90 {milliseconds(program.p90_ms)}), {si(program.throughput)}/s"
    )
    found = change(program, facts.history)
    if found is None:
        return text
    noise = ", which is noise" if found["noise"] else ""
    return f"{text}; {found['ratio'] * 100:+.1f} % against the run before{noise}"
