"""Small results of verify and bench, as the stages would write them."""

from __future__ import annotations

from pipelines.peer_results import PeerRun, PeerTime
from pipelines.report import Facts
from pipelines.results import (
    BenchResult,
    Block,
    Environment,
    ErrorStats,
    FirstResult,
    Guess,
    HistoryLine,
    ImageCheck,
    KernelTime,
    Memory,
    Peaks,
    ProgramBench,
    TensorCheck,
    VerifyResult,
)

ENVIRONMENT = Environment(
    "Toy CPU", "7.1", "Toy Platform", 2, "Toy CPU, 2 cores", "Linux", "3.11", {"torch": "2.13.0"}
)

PROGRAM = ProgramBench(
    program="main",
    digest="d" * 64,
    symbols={},
    inputs={"x": (1, 3, 224, 224)},
    batch=1,
    warmup=5,
    samples_ms=(25.0, 26.0, 25.5, 40.0),
    median_ms=25.75,
    p10_ms=25.2,
    p90_ms=35.8,
    throughput=38.8,
    flops=3_640_000_000,
    kernels=(
        KernelTime("relu_f32", 2, 500.0, 1000, 4_000_000, ("relu",)),
        KernelTime("conv2d_f32", 1, 1500.0, 3_000_000_000, 8_000_000, ("conv1", "bn1")),
    ),
    steps=(KernelTime("conv2d_f32", 1, 1500.0, 3_000_000_000, 8_000_000, ("conv1", "bn1")),),
    memory=Memory(
        4096, 3072, 46_800_000, 0, 90_000_000, 2, (Block("t0", 0, 2048, 0, 1), Block("t1", 2048, 1024, 1, 1))
    ),
    first_result=FirstResult(0.2, 0.2, 0.1),
)


def line(when: str, median: float, digest: str = "d" * 64, device: str = "Toy CPU") -> HistoryLine:
    return HistoryLine(
        when, device, "7.1", 2, {"main": (median, median - 0.5, median + 0.5)}, {"main": digest}
    )


def image(file: str, label: int | None, expected: int, found: int) -> ImageCheck:
    return ImageCheck(
        file, label, (Guess(expected, 0.9),), (Guess(found, 0.8),), 1e-6, "data:image/jpeg;base64,AAAA"
    )


PEAKS = Peaks(4000.0, 16.0, 2.0)


def sitting(threads: int, digest: str, busy: float) -> PeerRun:
    """Ours in half the time of a peer."""
    times = (
        PeerTime("onnxruntime", "1.32", 50.0, 49.0, 52.0, 0.52, 0.5, 0.55),
        PeerTime("npubin", "pocl 7.1", 26.0, 25.0, 27.0, 1.0, 1.0, 1.0),
    )
    return PeerRun(threads, "2026-01-03 11:00 UTC", digest, ENVIRONMENT, busy, times)


def facts(
    *,
    kind: str = "random",
    images: tuple[ImageCheck, ...] = (),
    history: tuple[HistoryLine, ...] = (),
    passed: bool = True,
    peers: tuple[PeerRun, ...] = (),
) -> Facts:
    from pipelines.metrics import accuracy

    verify = VerifyResult(
        model="toy",
        target="cpu",
        passed=passed,
        tolerance={"max_relative_error": 1e-4},
        checks=(
            TensorCheck(
                "main",
                "logits",
                "output",
                "made-up inputs",
                {"batch": 3},
                (3, 1000),
                2,
                ErrorStats(2e-6, 1e-7, 4e-7, 112.3, 3000),
                1.0,
                1.0,
            ),
        ),
        environment=ENVIRONMENT,
        programs={"main": "d" * 64},
        dataset="2 images of pictures 1.0" if images else "",
        images=images,
        accuracy=accuracy(images) if images else None,
    )
    bench = BenchResult("toy", "cpu", "float32", "2026-01-03 10:00 UTC", (PROGRAM,), ENVIRONMENT, peaks=PEAKS)
    label = "random weights (seed 0)" if kind == "random" else "weights.pth of toys 1.0"
    return Facts(
        "toy",
        "A toy",
        "toys:make",
        {"kind": kind, "label": label},
        verify,
        bench,
        history,
        {"main.npubin": 12_345},
        peers,
    )
