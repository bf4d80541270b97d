"""Indices out of range, computed and given: an error that names the node, as often as PyTorch raises one, and
never an access outside a buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphs
import numpy as np
import pytest
import torch
from torch import Tensor

from npu_compiler import compile_ir
from npu_runtime.errors import InputError
from npu_runtime.executor import Executor
from npu_runtime.program import CompiledProgram
from npu_runtime.weight_loader import load_weights
from torch_ir import extract_ir

TABLE = torch.arange(35.0).reshape(5, 7)


class Indexing(torch.nn.Module):
    """``function(table, i, j)``, of the indices as they are or of the same ones computed in the graph."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor], computed: bool) -> None:
        super().__init__()
        self.function, self.computed = function, computed

    def forward(self, table: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return self.function(table, i * 2 - i, j * 2 - j) if self.computed else self.function(table, i, j)


CASES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "embedding": lambda x, i, j: torch.nn.functional.embedding(i, x),
    "index_select": lambda x, i, j: torch.index_select(x, 1, j),
    "index": lambda x, i, j: x[i],
    "index_behind": lambda x, i, j: x[:, j],
    "index_both": lambda x, i, j: x[i, j],
    "gather": lambda x, i, j: torch.gather(x, 1, j[:, None].expand(3, 2)),
    "index_put": lambda x, i, j: torch.index_put(x, (i,), x[:3] + 1),
    "index_put_both": lambda x, i, j: torch.index_put(x, (i, j), x[0, :3] + 100),
    "index_copy": lambda x, i, j: torch.index_copy(x, 0, i, x[:3] + 1),
    "scatter": lambda x, i, j: torch.scatter(x, 1, j[:, None], x[:3, :1] + 100),
}
PAIRS = [
    ([0, 1, 4], [6, 0, 3]),
    ([0, -1, -5], [6, -7, 3]),
    ([0, 5, 1], [0, 1, 2]),
    ([0, -6, 1], [0, 1, 2]),
    ([0, 1, 2], [0, 7, 1]),
    ([0, 1, 2], [0, -8, 1]),
    ([0, 1, 2], [-1, 2, 3]),
    ([3, 1 << 40, 0], [1 << 62, 0, 0]),
    ([2, 1, 0], [3, 5, -(1 << 63)]),
]


def _program(name: str, computed: bool, **options: Any) -> CompiledProgram:
    module = Indexing(CASES[name], computed).eval()
    example = (TABLE, torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    return compile_ir(extract_ir(module, example), **options)


def _expected(name: str, i: Tensor, j: Tensor) -> np.ndarray[Any, Any] | None:
    try:
        return CASES[name](TABLE, i, j).numpy()
    except (IndexError, RuntimeError):
        return None


@pytest.mark.parametrize(
    "computed", [True, pytest.param(False, marks=pytest.mark.full)], ids=["computed", "given"]
)
@pytest.mark.parametrize("name", CASES)
def test_indices_out_of_range_are_refused_as_by_pytorch(
    name: str, computed: bool, guarded: graphs.GuardedDevice
) -> None:
    program = _program(name, computed)
    guarded.forget()
    executor, weights = Executor(program, guarded), load_weights({}, program, guarded)
    used = [spec.name for spec in program.input_specs]
    refused = 0
    for pair in (*PAIRS, PAIRS[0]):
        i, j = (torch.tensor(values) for values in pair)
        expected = _expected(name, i, j)
        given = {"table": TABLE.numpy(), "i": i.numpy(), "j": j.numpy()}
        inputs = {key: given[key] for key in used}
        if expected is None:
            refused += 1
            with pytest.raises(InputError, match="dimension that it indexes" if computed else "from|index"):
                executor.run(inputs, weights)
        else:
            (output,) = executor.run(inputs, weights).values()
            np.testing.assert_array_equal(output.to_numpy(), expected)
    assert 2 <= refused < len(PAIRS)
    assert guarded.damage() == []


def test_a_fault_names_step_and_node(guarded: graphs.GuardedDevice) -> None:
    program = _program("index_both", computed=True)
    inputs = {"table": TABLE.numpy(), "i": np.array([0, 9, 1]), "j": np.array([0, 1, 2])}
    with pytest.raises(InputError, match=r"step \d+ \(gather_rows_\w+\), which computes index:"):
        graphs.run(program, guarded, inputs)


def test_a_fault_of_a_run_that_was_enqueued_is_met_when_it_is_waited_for(
    guarded: graphs.GuardedDevice,
) -> None:
    program = _program("index_both", computed=True)
    guarded.forget()
    executor, weights = Executor(program, guarded), load_weights({}, program, guarded)
    i = np.array([0, 9, 1])
    inputs = {"table": TABLE.numpy(), "i": i, "j": np.array([0, 1, 2])}
    running = [executor.start(inputs, weights)]
    i[1] = 1  # the run has its own copy
    running.append(executor.start(inputs, weights))
    for run in running:  # the second is behind the first, which has left what nobody has asked for yet
        with pytest.raises(InputError, match="computes index:"):
            run.wait()
    later = executor.start(inputs, weights)
    later.wait()
    (output,) = later.outputs.values()
    np.testing.assert_array_equal(output.to_numpy(), TABLE[[0, 1, 1], [0, 1, 2]].numpy())


def test_large_inputs_are_checked_on_the_device(guarded: graphs.GuardedDevice) -> None:
    class Lookup(torch.nn.Module):
        def forward(self, x: Tensor, i: Tensor) -> Tensor:
            return torch.nn.functional.embedding(i, x)

    ids = np.arange(20000) % 5
    program = compile_ir(extract_ir(Lookup().eval(), (TABLE, torch.from_numpy(ids))))
    got = graphs.run(program, guarded, {"x": TABLE.numpy(), "i": ids}).outputs
    np.testing.assert_array_equal(next(iter(got.values())), TABLE.numpy()[ids])
    with pytest.raises(InputError, match="computes embedding"):
        graphs.run(program, guarded, {"x": TABLE.numpy(), "i": np.where(ids == 3, 5, ids)})


@pytest.mark.parametrize("count", [7, 1 << 14, (1 << 14) + 1])
def test_small_inputs_are_checked_before_a_run_alone(count: int) -> None:
    """Reading what kernels found takes longer than looking at a few numbers."""
    module = torch.nn.Embedding(5, 3)
    program = compile_ir(extract_ir(module, torch.zeros(count, dtype=torch.int64)))
    assert program.input_specs[0].upper == 4
    assert any(buffer.kind == "fault" for buffer in program.buffers) == (count > 1 << 14)


@pytest.mark.parametrize("name", ["index_both", "index_put_both"])
def test_unchecked_programs_read_zeros_and_write_nothing(name: str, guarded: graphs.GuardedDevice) -> None:
    program = _program(name, computed=True, check_indices=False)
    assert all(buffer.kind != "fault" for buffer in program.buffers)
    inputs = {"table": TABLE.numpy(), "i": np.array([0, 9, 1]), "j": np.array([0, 1, 2])}
    ran = graphs.run(program, guarded, inputs, guarded=True)
    (got,) = ran.outputs.values()
    kept = torch.tensor([0, 1]), torch.tensor([0, 2])
    expected = TABLE.clone().index_put(kept, TABLE[0, [0, 2]] + 100) if "put" in name else None
    np.testing.assert_array_equal(got, [0.0, 0.0, 9.0] if expected is None else expected.numpy())
    assert ran.damage == []
