"""Per-kernel times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from programs import saxpy_square

from npu_runtime.backend import Backend
from npu_runtime.executor import Executor
from npu_runtime.profiler import Profiler
from npu_runtime.weight_loader import load_weights


def test_rows_summary_and_trace(device: Backend, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = saxpy_square()
    profiler = Profiler(Executor(program, device))
    weights = load_weights(
        {"weight": np.ones(3, np.float32), "bias": np.ones(3, np.float32)}, program, device
    )
    assert profiler.rows() == []
    for n in (1, 10, 100):
        outputs = profiler.run(inputs={"x": np.ones((2, n), np.float32)}, weights=weights)
        assert outputs["y"].shape == (2, n)
    rows = {row.kernel: row for row in profiler.rows()}
    assert {name: row.calls for name, row in rows.items()} == {"saxpy": 6, "square": 3}
    assert sum(row.share for row in rows.values()) == pytest.approx(1)
    square = rows["square"]
    assert square.average == pytest.approx(square.total / 3)
    assert square.gflops == pytest.approx(2 * 111 / square.total / 1e9)
    assert square.gbytes == pytest.approx(16 * 111 / square.total / 1e9)
    assert [row.kernel for row in profiler.step_rows()] == ["saxpy", "saxpy", "square"]
    assert profiler.step_rows()[0].origin == ("mul", "add")
    assert profiler.step_rows()[1].gflops is None

    profiler.print_summary()
    printed = capsys.readouterr().out
    for part in (
        "total ms",
        "calls",
        "avg us",
        "share",
        "GFLOP/s",
        "GB/s",
        "saxpy",
        "square",
        "3 runs",
        device.name,
    ):
        assert part in printed

    profiler.save_trace(tmp_path / "trace.json")
    events = [
        event
        for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
        if event["ph"] == "X"
    ]
    assert [event["name"] for event in events] == ["saxpy", "saxpy", "square"] * 3
    assert [event["args"]["global_size"] for event in events[2::3]] == [[2], [20], [200]]
    assert all(event["dur"] > 0 and event["ts"] >= 0 for event in events)
    starts = [event["ts"] for event in events[:3]]
    assert starts == sorted(starts)

    profiler.reset()
    assert profiler.rows() == []
