"""Programs that were extracted and compiled one by one share what one of them changes, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torch_ir
import torch_ir.eager
from npu_compiler import compile_ir, partition
from npu_runtime import DAGExecutor
from npu_runtime.device import Device
from npu_runtime.errors import WeightsMismatchError
from npu_runtime.executor import Executor
from npu_runtime.weight_loader import load_weights, prepare_file


class Memory(nn.Module):
    """``forward`` is given, so that several programs have one set of buffers."""

    memory: Tensor

    def __init__(self, persistent: bool, forward: Callable[[Memory, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear = nn.Linear(7, 7)
        self.register_buffer("memory", torch.arange(7.0) + 1, persistent=persistent)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def write(model: Memory, x: Tensor) -> Tensor:
    model.memory.copy_(model.linear(x).sum(0) + model.memory)
    return x + 1


READERS = {
    "plainly": lambda model, x: model.linear(x) * model.memory,
    "reshaped": lambda model, x: x + model.memory.reshape(7, 1).expand(7, 3).mean(1),
    "folded": lambda model, x: nn.functional.linear(x, model.linear.weight * model.memory),
}
X = np.random.default_rng(5).standard_normal((3, 7)).astype(np.float32)


def graph_of(model: nn.Module) -> torch_ir.IR:
    return torch_ir.extract_ir(model.eval(), {"x": torch.from_numpy(X)}, model_name="memory")


@pytest.mark.parametrize("how", ["alone", "shared", "in parts"])
@pytest.mark.parametrize("persistent", [True, False], ids=["persistent", "not persistent"])
@pytest.mark.parametrize("reader", READERS)
def test_what_one_program_writes_the_other_reads(reader: str, persistent: bool, how: str) -> None:
    models = {"write": Memory(persistent, write), "read": Memory(persistent, READERS[reader])}
    models["read"].memory = models["write"].memory
    graphs = {name: graph_of(model) for name, model in models.items()}
    if how == "shared":
        graphs = torch_ir.share_states(graphs)
    device = Device()
    executors: dict[str, Any] = {name: Executor(compile_ir(graph), device) for name, graph in graphs.items()}
    if how == "in parts":
        parts = partition(graphs["read"], supports=lambda node: False)
        executors["read"] = DAGExecutor(parts, device, cpu_runner=torch_ir.eager.run)
    arrays = {key: value.numpy().copy() for key, value in models["read"].state_dict().items()}
    weights = load_weights(arrays, executors["read"].program, device)
    other = weights.new_state()
    start = models["write"].memory.clone()

    def check(name: str, given: Any = weights) -> None:
        (found,) = executors[name].run({"x": X}, given).values()
        with torch.no_grad():
            expected = models[name](torch.from_numpy(X)).numpy()
        np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-5, atol=1e-5)

    for name in ("read", "write", "read", "write", "write", "read", "read"):
        check(name)
    models["write"].memory.copy_(start)
    check("read", other)  # an independent sequence has seen none of it
    weights.reset()
    for name in ("read", "write", "read"):
        check(name)


def test_weights_that_were_prepared_from_a_state_are_refused_after_it_changed(tmp_path: Any) -> None:
    models = {"write": Memory(True, write), "read": Memory(True, READERS["folded"])}
    programs = {name: compile_ir(graph_of(model)) for name, model in models.items()}
    arrays = {key: value.numpy() for key, value in models["read"].state_dict().items()}
    transforms = {item.name: item for program in programs.values() for item in program.transforms}
    prepare_file(
        arrays,
        [
            *transforms.values(),
            *(
                type(item)("memory", (7,), "float32", ["tensor", "memory"])
                for item in list(transforms.values())[:1]
            ),
        ],
        tmp_path / "prepared.safetensors",
    )
    device = Device()
    weights = load_weights(tmp_path / "prepared.safetensors", programs["read"], device)
    Executor(programs["read"], device).run({"x": X}, weights)
    Executor(programs["write"], device).run({"x": X}, weights)
    with pytest.raises(WeightsMismatchError, match=r"memory.*original weights.*share_states"):
        Executor(programs["read"], device).run({"x": X}, weights)
