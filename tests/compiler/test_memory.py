"""The planner's plans pass the checker, the checker refuses broken ones, and arenas are small."""

from __future__ import annotations

from dataclasses import replace

import graphs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from npu_compiler import compiler, memory
from npu_compiler.emit import Emitter
from npu_compiler.emitted import Options
from npu_compiler.errors import CompileError
from npu_compiler.memory import Lifetime
from pipelines.zoo import efficientnet_lite, resnet
from torch_ir import extract_ir


@st.composite
def lifetimes(draw: st.DrawFn) -> dict[str, Lifetime]:
    found = {}
    for index in range(draw(st.integers(1, 24))):
        first = draw(st.integers(0, 20))
        found[f"b{index}"] = Lifetime(draw(st.integers(0, 5000)), first, first + draw(st.integers(0, 6)))
    return found


@given(lifetimes())
def test_plans_pass_the_checker(buffers: dict[str, Lifetime]) -> None:
    offsets, arena = memory.plan(buffers)
    memory.check(buffers, offsets, arena)
    assert arena >= memory.largest_live_set(list(buffers.values()))
    assert arena <= sum(memory.align(life.nbytes) for life in buffers.values())


@given(lifetimes(), st.data())
def test_the_checker_refuses_broken_plans(buffers: dict[str, Lifetime], data: st.DataObject) -> None:
    offsets, arena = memory.plan(buffers)
    name = data.draw(st.sampled_from(sorted(buffers)))
    life = buffers[name]
    if life.nbytes:
        with pytest.raises(CompileError, match="ends outside the arena"):
            memory.check(buffers, offsets, offsets[name] + life.nbytes - 1)
    with pytest.raises(CompileError, match=f"{name} has no aligned place"):
        memory.check(buffers, {**offsets, name: offsets[name] + 1}, arena + 1)
    with pytest.raises(CompileError, match=f"{name} has no aligned place"):
        memory.check(buffers, {k: v for k, v in offsets.items() if k != name}, arena)
    twin = {**buffers, "twin": replace(life)}
    if life.nbytes:
        with pytest.raises(CompileError, match="overlap at step"):
            memory.check(twin, {**offsets, "twin": offsets[name]}, arena)


@pytest.mark.parametrize(
    "make", [resnet.resnet18, resnet.resnet50, efficientnet_lite.efficientnet_lite0], ids=lambda f: f.__name__
)
def test_arenas_of_the_reference_models_are_small(make: object) -> None:
    with torch.device("meta"):
        model = make().eval()  # type: ignore[operator]
        example = torch.empty(1, 3, 224, 224)
    lowered = graphs.passed(extract_ir(model, example, model_name="model"))
    emitter = Emitter(lowered, graphs.CPU, Options())
    emitter.run()
    lives = compiler._lifetimes(lowered, emitter.result())
    _, arena = memory.plan(lives)
    assert arena <= 1.3 * memory.largest_live_set(list(lives.values()))
