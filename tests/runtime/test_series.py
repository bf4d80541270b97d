"""Series of steps as one kernel each: the same numbers as steps that are launched alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from graphs import replaced
from programs import make, read, write

from npu_runtime import executor as executor_module
from npu_runtime import series
from npu_runtime.device import Device, list_devices
from npu_runtime.executor import Executor
from npu_runtime.program import Buffer, CompiledProgram, IOSpec, ScalarArg, StateSpec, Step, Symbol, Transform
from npu_runtime.series import ARENA, Series, find_series
from npu_runtime.weight_loader import load_weights

PROCESSORS = [info.selector for info in list_devices() if info.kind == "cpu"]
#: Over an image of 3 rows: mixes each number with the one that other work-items made of its mirror image.
MIRROR = """\
float mixed(float a, float b) { return 0.5f * a + b; }
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void mirror(__global const float *restrict x, __global const float *w, __global float *restrict y, int n,
            long row)
{
    const int i = get_global_id(0), r = get_group_id(1), s = get_global_id(2);
    const long at = r * row + s * n + i;
    y[at] = mixed(x[(2 - r) * row + (1 - s) * n + n - 1 - i], w[r]);
}
"""
#: Needs a work-group.
GROUP = """\
__kernel void group(__global const float *x, __global float *y) {
    const int i = get_global_id(0);
    barrier(CLK_GLOBAL_MEM_FENCE);
    y[i] = x[i] + (float)get_local_id(0);
}
"""
#: Its group's number is its own only where groups have one work-item.
NUMBER = """\
__kernel void number(__global const float *x, __global float *y) {
    const int i = get_global_id(0);
    y[i] = x[i] + (float)(get_group_id(0) < 0);
}
"""
COUNT = """\
__kernel void count(__global float *state, __global const float *x, __global float *y) {
    const int i = get_global_id(0);
    if (i < 3) state[i] += 1.0f;
    y[i] = x[i] * 2.0f;
}
"""


def program(kinds: str) -> CompiledProgram:
    """A step per letter over float32[3, 2, n], 1 <= n <= 50: m "mirror", g "group", c "count", n "number" in
    groups of one, d "number" in groups that the driver chooses. Each one's result is a scratch buffer, in one
    of two places of the arena."""
    last = len(kinds) - 1
    steps = []
    for index, kind in enumerate(kinds):
        x = "x" if index == 0 else f"h{index - 1}"
        y = "y" if index == last else f"h{index}"
        steps.append(
            {
                "m": Step(
                    "mirror",
                    (read(x), read("w"), write(y), ScalarArg("n"), ScalarArg("2*n", "long")),
                    ("n", 3, 2),
                    (1, 1, 1),
                ),
                "g": Step("group", (read(x), write(y)), ("6*n",), (1,)),
                "n": Step("number", (read(x), write(y)), ("6*n",), (1,)),
                "d": Step("number", (read(x), write(y)), ("6*n",)),
                "c": Step("count", (write("s"), read(x), write(y)), ("6*n",)),
            }[kind]
        )
    hidden = [
        Buffer(f"h{index}", "scratch", 1200, offset=index % 2 * 1280, first=index, last=index + 1)
        for index in range(last)
    ]
    return make(
        {"mirror": MIRROR, "group": GROUP, "number": NUMBER, "count": COUNT},
        device_type="cpu",
        symbols=(Symbol("n", 1, 50),),
        input_specs=(IOSpec("x", (3, 2, "n"), "float32"),),
        output_specs=(IOSpec("y", (3, 2, "n"), "float32"),),
        transforms=(Transform("w3", (3,), "float32", ["tensor", "weight"]),),
        states=(StateSpec("s", (3,), "float32"),),
        arena_bytes=1280 + 1200,
        buffers=(
            Buffer("x", "input", "24*n", "x"),
            Buffer("w", "weight", 12, "w3"),
            Buffer("s", "state", 12, "s"),
            Buffer("y", "output", "24*n", "y"),
            *hidden,
        ),
        steps=tuple(steps),
    )


@pytest.mark.parametrize(
    ("kinds", "most", "found"),
    [
        ("mmmmm", 9, [(0, 5, ("x", "w", ARENA, "y"))]),
        ("mmm", 9, []),
        ("mmmmgmmmmm", 9, [(0, 4, ("x", "w", ARENA)), (5, 10, (ARENA, "w", "y"))]),
        ("gmmmmgg", 9, [(1, 5, (ARENA, "w"))]),
        ("mmmmmccccc", 3, [(0, 5, ("x", "w", ARENA)), (5, 10, ("s", ARENA, "y"))]),
        ("mmmmmccccc", 2, [(1, 5, (ARENA, "w")), (5, 9, ("s", ARENA))]),
        ("mmmmmmm", 0, []),
        ("mnmnmdmmmm", 9, [(0, 5, ("x", "w", ARENA)), (6, 10, (ARENA, "w", "y"))]),
    ],
)
def test_series_end_where_a_step_needs_groups_or_buffers_are_too_many(
    kinds: str, most: int, found: list[tuple[int, int, tuple[str, ...]]]
) -> None:
    assert find_series(program(kinds), most) == [Series(*item) for item in found]


def test_series_are_of_processors_programs_and_of_few_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = program("mmmmcccc")
    assert find_series(replaced(ours, device_type="gpu"), 9) == []
    monkeypatch.setattr(series, "MOST_KINDS", 1)
    assert find_series(ours, 9) == [Series(0, 4, ("x", "w", ARENA)), Series(4, 8, ("s", ARENA, "y"))]


def expected(kinds: str, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What ``program(kinds)`` makes of ``x``."""
    for kind in kinds:
        x = {
            "m": lambda a: np.float32(0.5) * a[::-1, ::-1, ::-1] + weight[:, None, None],
            "g": lambda a: a,
            "n": lambda a: a,
            "c": lambda a: a * np.float32(2),
        }[kind](x)
    return x


@pytest.mark.skipif(not PROCESSORS, reason="needs an OpenCL driver for processors")
@pytest.mark.parametrize("threads", [1, None])
@pytest.mark.parametrize("kinds", ["mmmmm", "mcmcmngmnccm", "cccc" * 20], ids=["one", "mixed", "long"])
@pytest.mark.parametrize("selector", PROCESSORS)
def test_series_give_what_their_steps_give(
    selector: str, kinds: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(selector, threads=threads)
    device.series_buffers = device.series_buffers or 9
    ours, weight = program(kinds), np.array([1, -2, 3], np.float32)
    weights, executor = load_weights({"weight": weight}, ours, device), Executor(ours, device)
    rng = np.random.default_rng(0)
    runs = 0
    for n in (1, 50, 7, 7, 13, *rng.integers(1, 50, 30)):
        x = rng.standard_normal((3, 2, n)).astype(np.float32)
        together = executor.run({"x": x}, weights)["y"].to_numpy()
        np.testing.assert_allclose(together, expected(kinds, x, weight), rtol=1e-5, atol=1e-5)
        for clocked in (True, False):  # together too, or every step alone
            monkeypatch.setattr(executor_module, "CLOCKED", clocked)
            outputs, times = executor.run_timed({"x": x}, weights)
            np.testing.assert_array_equal(outputs["y"].to_numpy(), together)
            assert [time.step for time in times] == list(range(len(kinds)))
            assert all(time.start <= time.end for time in times) and times[0].start < times[-1].end
            assert all(after.start >= before.end for before, after in pairwise(times))
        runs += 3
    counted = weights.read_state(ours.states[0])
    np.testing.assert_array_equal(counted, np.full(3, runs * kinds.count("c"), np.float32))


def test_a_step_of_very_many_work_items_is_launched_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = program("mmmmm")
    (found,) = find_series(ours, 9)
    places = {buffer.name: buffer.offset for buffer in ours.buffers if buffer.kind == "scratch"}
    table = series.table_of(ours, found, places, {"n": 50})
    assert table is not None
    assert table[1].tolist() == [0, 300, 50, 3, 2, 0, 1, 0, 2, 1280, 50, 100]
    monkeypatch.setattr(series, "MOST_ITEMS", 299)
    assert series.table_of(ours, found, places, {"n": 50}) is None
    assert series.table_of(ours, found, places, {"n": 49}) is not None
