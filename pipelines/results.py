"""What verify, bench and report hand to each other, as frozen values that are JSON files between them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from pipelines.job import write_atomic

if TYPE_CHECKING:
    from npu_runtime.device import Device


class Record(msgspec.Struct, frozen=True):
    """Base of all results. Unknown keys are ignored, so that a newer file can be read."""


class Environment(Record, frozen=True):
    """Where a measurement was taken. ``versions`` maps package names to versions."""

    device: str
    driver: str
    platform: str
    threads: int
    cpu: str
    system: str
    python: str
    versions: dict[str, str]


class ErrorStats(Record, frozen=True):
    """How far a tensor is from its reference.

    ``max_relative`` is ``max_abs`` over the largest magnitude of the reference; ``snr_db`` is the
    reference's energy over the error's (None: no error at all); ``mismatched`` counts values that are
    finite on one side only.
    """

    max_abs: float
    mean_abs: float
    max_relative: float
    snr_db: float | None
    elements: int
    mismatched: int = 0


class TensorCheck(Record, frozen=True):
    """An output or a state of ``program``, compared at the given ``symbols`` over all runs of one case.

    ``top1`` and ``top5`` are the shares of rows whose best class and whose five best classes (as sets) are
    PyTorch's; None where rows are not class scores. ``eager`` are the errors of PyTorch in the model's own
    16-bit floats; None for a model in float32."""

    program: str
    name: str
    kind: str
    case: str
    symbols: dict[str, int]
    shape: tuple[int, ...]
    runs: int
    errors: ErrorStats
    top1: float | None = None
    top5: float | None = None
    eager: ErrorStats | None = None


class Guess(Record, frozen=True):
    """A class with its softmax probability."""

    index: int
    probability: float


class ImageCheck(Record, frozen=True):
    """One image of a labelled set: its five best classes by PyTorch and by the compiled program, best
    first."""

    file: str
    label: int | None
    expected: tuple[Guess, ...]
    found: tuple[Guess, ...]
    max_abs: float
    thumbnail: str = ""

    @property
    def agrees(self) -> bool:
        """Whether both put the same class first."""
        return self.expected[0].index == self.found[0].index


class SentenceCheck(Record, frozen=True):
    """Two sentences and the cosine of their vectors: as it is known, by PyTorch, by the compiled program."""

    first: str
    second: str
    known: float
    expected: float
    found: float


class ContinuationCheck(Record, frozen=True):
    """The first ``equal`` of ``tokens`` that the compiled programs write behind a prompt are PyTorch's. Where
    the next is another, ``margin`` is how far its logit lies below the best by PyTorch, and ``error`` what
    the precision allows there. ``text`` is what was written, where there is a tokenizer."""

    prompt: str
    prompt_tokens: int
    tokens: int
    equal: int
    margin: float | None = None
    error: float | None = None
    text: str = ""


class Accuracy(Record, frozen=True):
    """Counts of images whose label is the best class, or among the five best."""

    images: int
    top1: int
    top5: int
    reference_top1: int
    reference_top5: int
    agree_top1: int
    agree_top5: int


class VerifyResult(Record, frozen=True):
    """A compiled model against PyTorch in float32."""

    model: str
    target: str
    passed: bool
    tolerance: dict[str, float | None]
    checks: tuple[TensorCheck, ...]
    environment: Environment
    programs: dict[str, str]
    dataset: str = ""
    images: tuple[ImageCheck, ...] = ()
    accuracy: Accuracy | None = None
    sentences: tuple[SentenceCheck, ...] = ()
    continuations: tuple[ContinuationCheck, ...] = ()


class KernelTime(Record, frozen=True):
    """All calls of one kernel, or one step, in one run; microseconds are means over the profiled runs."""

    kernel: str
    calls: int
    total_us: float
    flops: int
    bytes_moved: int
    origin: tuple[str, ...] = ()
    groups: int = 0
    """Work-groups of all calls; 0 where the driver chooses their size."""

    @property
    def gflops(self) -> float:
        """10^9 arithmetic operations per second."""
        return self.flops / self.total_us / 1e3 if self.total_us else 0.0

    @property
    def gbytes(self) -> float:
        """10^9 bytes per second that the kernel must move at least."""
        return self.bytes_moved / self.total_us / 1e3 if self.total_us else 0.0


class Block(Record, frozen=True):
    """A piece of the arena, alive from step ``first`` to step ``last``."""

    name: str
    offset: int
    nbytes: int
    first: int
    last: int


class Memory(Record, frozen=True):
    """Bytes: the arena of intermediate results, the largest set of them alive at once, weights and states."""

    arena: int
    largest_live: int
    weights: int
    states: int
    peak_process: int
    steps: int
    blocks: tuple[Block, ...] = ()


class FirstResult(Record, frozen=True):
    """Seconds in a fresh process with warm caches, from importing the runtime to the first outputs in
    memory."""

    imports: float
    load: float
    run: float

    @property
    def total(self) -> float:
        return self.imports + self.load + self.run


class ProgramBench(Record, frozen=True):
    """The measurements of one program at the given ``symbols``; latencies in milliseconds."""

    program: str
    digest: str
    symbols: dict[str, int]
    inputs: dict[str, tuple[int, ...]]
    batch: int
    warmup: int
    samples_ms: tuple[float, ...]
    median_ms: float
    p10_ms: float
    p90_ms: float
    throughput: float
    flops: int
    kernels: tuple[KernelTime, ...]
    steps: tuple[KernelTime, ...]
    memory: Memory
    first_result: FirstResult


class GenerationRow(Record, frozen=True):
    """One row of the table of a language model, named as llama-bench does: ``tokens`` of a prompt that are
    read in ``seconds`` ("pp128"; until the first token is chosen), or that are written behind ``depth``
    others ("tg64 @ d512")."""

    name: str
    tokens: int
    depth: int
    seconds: tuple[float, ...]

    @property
    def speeds(self) -> tuple[float, float, float]:
        """Tokens per second: the median, the slowest and the fastest run."""
        ordered = sorted(self.tokens / second for second in self.seconds)
        return ordered[len(ordered) // 2], ordered[0], ordered[-1]

    @property
    def reads(self) -> bool:
        """Whether it reads a prompt."""
        return self.name.startswith("pp")


class Generation(Record, frozen=True):
    """How fast a language model reads and writes, measured in a process of its own, and the bytes that it
    takes: ``peak_process`` of host memory, and on the device weights, states and working memory."""

    rows: tuple[GenerationRow, ...]
    peak_process: int
    weights: int
    states: int
    arenas: int

    @property
    def device_bytes(self) -> int:
        return self.weights + self.states + self.arenas


class Peaks(Record, frozen=True):
    """What a device was measured to do at most: 10^9 float32 operations and bytes read per second (operations
    None: not measured), and the microseconds that a kernel without work takes."""

    gflops: float | None
    gbytes: float
    start_us: float


class BenchResult(Record, frozen=True):
    """One benchmark of a model on a device."""

    model: str
    target: str
    precision: str
    when: str
    programs: tuple[ProgramBench, ...]
    environment: Environment
    generation: Generation | None = None
    peaks: Peaks | None = None


class HistoryLine(Record, frozen=True):
    """What is kept of every benchmark: program -> median, p10 and p90 in milliseconds, and its digest."""

    when: str
    device: str
    driver: str
    threads: int
    programs: dict[str, tuple[float, float, float]]
    digests: dict[str, str]

    def comparable(self, bench: BenchResult) -> bool:
        """Whether it was taken on the device and with the number of threads of ``bench``."""
        return (self.device, self.threads) == (bench.environment.device, bench.environment.threads)


Result = TypeVar("Result", bound=Record)


def write_result(path: Path, result: Record) -> None:
    """Writes ``result`` as indented JSON, whole or not at all."""
    write_atomic(path, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read_result(path: Path, kind: type[Result]) -> Result:
    """Reads what ``write_result`` wrote. Raises ``ValueError`` naming the file and what is wrong with it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path.name} is not a {kind.__name__}: {error}; build its stage again") from None


def read_history(path: Path) -> tuple[HistoryLine, ...]:
    """The benchmarks ever run, oldest first; a line cut off by a crash is passed over."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(msgspec.json.decode(text, type=HistoryLine))
        except msgspec.DecodeError:
            continue
    return tuple(lines)


def file_digest(path: Path) -> str:
    """sha256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment_of(device: Device, packages: tuple[str, ...]) -> Environment:
    """This machine with an opened device, and the versions of ``packages`` and of npubin where installed."""
    versions = {}
    for package in ("npubin", *packages):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return Environment(
        device=device.name,
        driver=device.driver,
        platform=device.info.platform,
        threads=device.threads,
        cpu=_processor(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=versions,
    )


def _processor() -> str:
    """The processor's name and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        names = [
            line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")
        ]
        name = names[0] if names else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{name}, {cores} cores"
