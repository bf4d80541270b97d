"""What bench works out from programs and times; the measuring itself is not judged here."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from results_by_hand import facts

from benchmarks.opening import PEERS, PeerError, Work
from benchmarks.peers import check_results, main
from npu_runtime.executor import StepTime
from npu_runtime.program import CompiledProgram, Step, StepCost
from pipelines.bench import append_history, largest_live, profile
from pipelines.results import Block, read_history


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([], 0),
        ([(10, 0, 0), (20, 1, 1)], 20),
        ([(10, 0, 1), (20, 1, 2), (5, 2, 3)], 30),
        ([(10, 0, 3), (20, 1, 1), (25, 3, 3)], 35),
    ],
)
def test_largest_live_set(blocks: list[tuple[int, int, int]], expected: int) -> None:
    assert largest_live([Block(f"b{index}", 0, *block) for index, block in enumerate(blocks)]) == expected


def program(*steps: Step) -> CompiledProgram:
    return CompiledProgram(
        1, "m", "main", "cpu", "p", "cpu", (), (), (), (), (), (), (), "", 0, (), (), steps
    )


def test_profile_by_kernel_and_by_step() -> None:
    toy = program(
        Step("conv", (), (1,), origin=("a", "b"), cost=StepCost("n*100", 8, 4)),
        Step("relu", (), (1,), origin=("c",)),
        Step("conv", (), (1,), origin=("d",), cost=StepCost(50, 2, 1)),
    )
    runs = [
        [
            StepTime(0, 0, 1000, {"n": 2}),
            StepTime(1, 1000, 1500, {"n": 2}),
            StepTime(2, 2000, 4000, {"n": 2}),
        ],
        [
            StepTime(0, 0, 3000, {"n": 2}),
            StepTime(1, 3000, 3500, {"n": 2}),
            StepTime(2, 4000, 6000, {"n": 2}),
        ],
    ]
    conv, relu = profile(toy, runs, "kernel")
    assert (conv.kernel, conv.calls, conv.total_us, conv.flops, conv.bytes_moved) == ("conv", 2, 4.0, 250, 15)
    assert conv.origin == ("a", "b", "d")
    assert (relu.calls, relu.total_us, relu.gflops) == (1, 0.5, 0.0)
    assert [(step.kernel, step.total_us) for step in profile(toy, runs, "step")] == [
        ("conv", 2.0),
        ("relu", 0.5),
        ("conv", 2.0),
    ]
    assert profile(toy, [], "kernel") == ()


def test_history_is_only_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "cpu" / "history.jsonl"
    bench = facts().bench
    append_history(path, bench)
    first = path.read_bytes()
    append_history(path, msgspec.structs.replace(bench, when="later"))
    assert path.read_bytes().startswith(first)
    assert [line.when for line in read_history(path)] == [bench.when, "later"]
    assert all(line.comparable(bench) for line in read_history(path))


class Opened:
    """Stands for a peer's process that has saved its first result."""

    def __init__(self, name: str, folder: Path, values: list[float]) -> None:
        self.name, self.check = name, folder / f"{name}.npy"
        np.save(self.check, np.array(values))


@pytest.mark.parametrize(
    ("values", "right"),
    [([1.0, -4.0], True), ([1.0, -4.001], True), ([1.0, -4.1], False), ([1.0, float("nan")], False)],
)
def test_peers_must_compute_the_same(tmp_path: Path, values: list[float], right: bool) -> None:
    opened = [
        Opened("pytorch", tmp_path, [1.0, -4.0]),
        Opened("npubin", tmp_path, [1.0, -4.0]),
        Opened("openvino", tmp_path, values),
    ]
    work = Work("toy", "cpu", None, 2)
    if right:
        check_results(work, opened)  # type: ignore[arg-type]
    else:
        with pytest.raises(PeerError, match="openvino computes something else for toy"):
            check_results(work, opened)  # type: ignore[arg-type]


def test_unknown_peers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["resnet18", "--peers", "tensorflow"])
    said = capsys.readouterr().err
    assert all(name in said for name in PEERS)
