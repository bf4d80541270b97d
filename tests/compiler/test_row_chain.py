"""Products and normalisations of the same rows: as one kernel where there are many, and how rows are shared
among a device's threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from npu_compiler.compiler import compile_ir, compile_with_report
from npu_compiler.ops import row_chain
from npu_compiler.ops.row_chain import rows_of
from npu_compiler.tuned import Tuning
from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.program import THREADS
from npu_runtime.symbols import evaluate, evaluate_shape
from npu_runtime.weight_loader import load_weights
from torch_ir import extract_ir
from torch_ir.expr import symbol


class _Layer(torch.nn.Module):
    """The second half of an encoder's layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.narrow = torch.nn.Linear(32, 48), torch.nn.Linear(48, 32)
        self.norm = torch.nn.LayerNorm(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [1, rows, 32], as the result."""
        x = self.norm(x)
        return self.norm(x + self.narrow(F.gelu(self.wide(x))))


@pytest.mark.parametrize("spread", [0, 1 << 20])
@pytest.mark.parametrize("knobs", [{}, {"mr": 5}, {"most": 24}, {"least": 1, "most": 7}], ids=str)
def test_many_rows_are_one_kernel_and_few_are_not(
    knobs: dict[str, int], spread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_chain, "SPREAD", spread)
    layer, device = _Layer().eval(), Device()
    x = torch.randn(1, 24 * device.threads + 29, 32)
    ir = extract_ir(layer, (x,), dynamic_shapes={"x": {1: ("rows", 1, 4096)}})
    (answer,) = [found for found in compile_with_report(ir).answers if found.space == "row_chain"]
    tuning = Tuning(forced=((answer.key, {**answer.choice, **knobs}),))
    program = compile_with_report(ir, tuning=tuning).program
    executor = Executor(program, device)
    weights = load_weights(
        {key: value.detach().numpy() for key, value in layer.state_dict().items()}, program, device
    )
    for count in (1, 5, 24 * device.threads - 1, 24 * device.threads, x.shape[1]):
        rows = x[:, :count]
        got = executor.run({"x": rows.numpy()}, weights)[program.output_specs[0].name].to_numpy()
        np.testing.assert_allclose(got, layer(rows).detach().numpy(), 2e-5, 2e-5)
        values = {"rows": count, THREADS: device.threads}
        launched = [step.kernel for step in program.steps if all(evaluate_shape(step.global_size, values))]
        many = count >= 24 * device.threads or (knobs.get("least") == 1 and count >= device.threads)
        assert [name.startswith("row_chain") for name in launched] == ([True] if many else [False] * 4)


class _Heads(_Layer):
    """Rows that only a copy brings together, and that are read once more behind."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [1, 4, rows, 8]; the result is [1, rows, 32]."""
        rows = x.transpose(1, 2).reshape(1, -1, 32)
        return super().forward(rows) + rows.sin()


@pytest.mark.parametrize("threads_each", [1, 24, 50])
def test_rows_are_copied_whichever_form_reads_them(threads_each: int) -> None:
    layer, device = _Heads().eval(), Device()
    x = torch.randn(1, 4, threads_each * device.threads + 1, 8)
    for dynamic in (None, {"x": {2: ("rows", 1, 4096)}}):
        program = compile_ir(extract_ir(layer, (x,), dynamic_shapes=dynamic))
        weights = load_weights(
            {key: value.detach().numpy() for key, value in layer.state_dict().items()}, program, device
        )
        ran = Executor(program, device).run({"x": x.numpy()}, weights)
        got = ran[program.output_specs[0].name].to_numpy()
        np.testing.assert_allclose(got, layer(x).detach().numpy(), 2e-5, 2e-5)


@pytest.mark.parametrize(
    ("count", "threads", "rows"),
    [
        (128, 2, 64),
        (128, 1, 64),
        (128, 8, 16),
        (130, 2, 33),
        (256, 3, 43),
        (2048, 2, 64),
        (5, 2, 3),
        (2, 16, 1),
        (1, 2, 1),
        (0, 2, 1),
    ],
)
def test_threads_have_as_many_rows_each(count: int, threads: int, rows: int) -> None:
    values = {"n": count, THREADS: threads}
    found = evaluate(str(rows_of(symbol("n"), 64)), values)
    assert found == rows <= 64
    assert evaluate(str(rows_of(count, 64)), values) == rows
