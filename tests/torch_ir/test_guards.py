"""What a module assumes of its sizes is checked before a run: the message names the inputs and the sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from npu_compiler import compile_ir, partition
from npu_runtime.device import Device
from npu_runtime.errors import InputError
from npu_runtime.executor import Executor
from npu_runtime.program import CompiledProgram
from npu_runtime.weight_loader import load_weights
from torch_ir import extract_ir
from torch_ir.errors import IRError
from torch_ir.ir import IR, Guard
from torch_ir.printer import from_text, to_text


class Module(nn.Module):
    """A function of one or two tensors."""

    def __init__(self, function: Callable[..., Tensor], inputs: int) -> None:
        super().__init__()
        self._function = function
        if inputs == 1:
            self.forward = lambda x: function(x)
        else:
            self.forward = lambda x, y: function(x, y)


def rows_of_eight(x: Tensor) -> Tensor:
    return x.reshape(-1, 8).sum(1)


def quarters(x: Tensor) -> Tensor:
    return x.view(x.shape[0] // 4, 4) * 2


def even(x: Tensor) -> Tensor:
    return x * 2 if x.shape[0] % 2 == 0 else x * 3


def said(x: Tensor) -> Tensor:
    torch._check(x.shape[0] % 3 == 1)
    return x * 2


def at_most(x: Tensor, y: Tensor) -> Tensor:
    return y * 2 if y.shape[0] <= 2 * x.shape[0] else y * 3


def more(x: Tensor, y: Tensor) -> Tensor:
    return y * 2 if y.shape[0] > x.shape[0] else y * 3


def other(x: Tensor, y: Tensor) -> Tensor:
    return y * 2 if y.shape[0] != x.shape[0] else y * 3


def halves(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x, y]).reshape(2, -1)


N, M = "n = {} from input 'x' dim 0", "m = {} from input 'y' dim 0"
CASES: tuple[tuple[Callable[..., Tensor], Any, Any, Any], ...] = (
    # function, example sizes, sizes that it works for, one that it does not
    (rows_of_eight, (16,), ((8,), (64,)), (12,)),
    (quarters, (16,), ((4,), (44,)), (10,)),
    (even, (16,), ((2,), (64,)), (7,)),
    (said, (16,), ((1,), (4,), (64,)), (15,)),
    (at_most, (16, 13), ((1, 2), (5, 10), (64, 1)), (5, 11)),
    (other, (13, 16), ((1, 2), (64, 5)), (9, 9)),
    (halves, (16, 12), ((1, 3), (64, 2)), (4, 5)),
)


def extracted(function: Callable[..., Tensor], sizes: tuple[int, ...]) -> tuple[nn.Module, IR]:
    module = Module(function, len(sizes)).eval()
    example = {name: torch.zeros(size) for name, size in zip("xy", sizes, strict=False)}
    dynamic = {name: {0: (symbol, 1, 64)} for name, symbol in zip(example, "nm", strict=False)}
    return module, extract_ir(module, example, dynamic_shapes=dynamic)


@pytest.mark.parametrize(("function", "example", "right", "wrong"), CASES, ids=[c[0].__name__ for c in CASES])
def test_sizes_that_do_not_fit_are_refused(
    function: Callable[..., Tensor], example: Any, right: Any, wrong: Any, tmp_path: Path
) -> None:
    module, ir = extracted(function, example)
    assert ir.guards
    ir.save(tmp_path / "ir.json")
    assert IR.load(tmp_path / "ir.json").guards == ir.guards == from_text(to_text(ir)).guards
    compile_ir(ir).save(tmp_path / "program.npubin")
    program, device = CompiledProgram.load(tmp_path / "program.npubin"), Device()
    executor, weights = Executor(program, device), load_weights({}, program, device)

    def inputs(sizes: tuple[int, ...]) -> dict[str, Any]:
        return {name: np.arange(size, dtype=np.float32) + 1 for name, size in zip("xy", sizes, strict=False)}

    for sizes in right:
        given = inputs(sizes)
        found = next(iter(executor.run(given, weights).values())).to_numpy()
        expected = module(*map(torch.tensor, given.values())).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(InputError, match="do not fit this program") as raised:
        executor.run(inputs(wrong), weights)
    for text in (item.format(size) for item, size in zip((N, M), wrong, strict=False)):
        assert text in str(raised.value)


def test_parts_of_a_graph_check_its_guards() -> None:
    _, ir = extracted(at_most, (16, 13))
    parts = partition(ir, lambda node: True)
    assert all(part.ir.guards == ir.guards and {"n", "m"} <= part.ir.symbols.keys() for part in parts)


def test_what_the_bounds_say_is_no_guard() -> None:
    _, ir = extracted(lambda x, y: y * 2 if y.shape[0] <= 64 * x.shape[0] else y, (16, 13))
    assert ir.guards == ()


def test_what_no_sizes_fulfil_and_unknown_symbols_are_refused() -> None:
    with pytest.raises(IRError, match="does not work for all sizes"):
        extracted(lambda x: x * 2 if x.shape[0] > 10 else x * 3, (16,))
    for function, sizes in ((lambda x, y: x + y, (16, 16)), (more, (13, 16))):
        with pytest.raises(IRError, match="does not work for all sizes"):
            extracted(function, sizes)
    _, ir = extracted(even, (16,))
    from torch_ir.expr import symbol
    for guard in (Guard(symbol("k"), 3), Guard(symbol("n"), 3, "<")):
        with pytest.raises(IRError, match="unknown relation or undeclared symbol"):
            replace(ir, guards=(guard,)).verify()
