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


def every_other(x: Tensor, y: Tensor) -> Tensor:
    return x[::2] + y


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
    (more, (13, 16), ((1, 2), (63, 64)), (64, 64)),
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


@pytest.mark.parametrize(("function", "sizes", "bounds", "wrong", "message"), [
    (lambda x, y: x + y, (16, 16), {"n": (1, 64)}, (5, 4), "'y' dim 0 is 4: expected 5 "),
    (lambda x, y: torch.cat([x, x]) + y, (8, 16), {"n": (1, 32)}, (5, 9), "'y' dim 0 is 9: expected 10 "),
    (lambda x, y: x[1:] + y, (16, 15), {"m": (1, 63)}, (5, 5), "'y' dim 0 is 5: expected 4 "),
    (every_other, (15, 8), {"n": (1, 64)}, (5, 2), r"'y' dim 0 is 2: expected 3 .*n = 5"),
])
def test_dimensions_that_hang_together_are_one(
    function: Callable[..., Tensor], sizes: Any, bounds: Any, wrong: Any, message: str
) -> None:
    module, ir = extracted(function, sizes)
    assert ir.symbols == bounds and not ir.guards
    program, device = compile_ir(ir), Device()
    executor, weights = Executor(program, device), load_weights({}, program, device)

    def inputs(sizes: tuple[int, ...]) -> dict[str, Any]:
        return {name: np.arange(size, dtype=np.float32) + 1 for name, size in zip("xy", sizes, strict=True)}

    found = executor.run(inputs(sizes), weights)["output"].to_numpy()
    expected = module(*map(torch.tensor, inputs(sizes).values())).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(InputError, match=message):
        executor.run(inputs(wrong), weights)


def test_two_sizes_that_must_be_equal_have_the_bounds_of_both() -> None:
    dynamic = {"x": {0: ("n", 1, 64)}, "y": {0: ("m", 4, 32)}}
    example = {"x": torch.zeros(16), "y": torch.zeros(16)}
    ir = extract_ir(Module(lambda x, y: x + y, 2).eval(), example, dynamic_shapes=dynamic)
    assert ir.symbols == {"n": (4, 32)}
    at_bounds = {"x": torch.zeros(64), "y": torch.zeros(32)}
    assert extract_ir(Module(lambda x, y: x + y, 2).eval(), at_bounds, dynamic_shapes=dynamic).symbols == {
        "n": (4, 32)}
    dynamic = {"x": {0: ("n", 1, 64)}, "y": {0: ("m", 1, 24)}}
    ir = extract_ir(Module(every_other, 2).eval(), {"x": torch.zeros(16), "y": torch.zeros(8)},
                    dynamic_shapes=dynamic)
    assert ir.symbols == {"n": (1, 64)}
    assert [guard.text for guard in ir.guards] == ["((n + 1) // 2) <= 24"]


def asks_for_nothing(x: Tensor) -> Tensor:
    return x * 2 if x.shape[0] != 1 else x.mul(2)


def one_is_whole(x: Tensor) -> Tensor:
    return x[: x.shape[0]].reshape(-1) + 1 if x.shape[0] > 1 else x + 1


def attends(x: Tensor) -> Tensor:
    x = x[None, :, None].expand(1, -1, 4)
    return nn.functional.scaled_dot_product_attention(x, x, x, is_causal=bool(x.shape[1] > 1))


def asks_for_two_values(x: Tensor) -> Tensor:
    return x * 2 if x.shape[0] != 1 and x.shape[0] != 5 else x + x


def differs_at_one(x: Tensor) -> Tensor:
    return x * 2 if x.shape[0] != 1 else x * 3


@pytest.mark.parametrize(("function", "guards"), [
    (asks_for_nothing, 0), (one_is_whole, 0), (attends, 0), (differs_at_one, 1), (asks_for_two_values, 2)])
def test_a_size_that_gives_the_same_graph_is_not_excluded(
    function: Callable[..., Tensor], guards: int
) -> None:
    module, ir = extracted(function, (13,))
    assert len(ir.guards) == guards
    program, device = compile_ir(ir), Device()
    executor, weights = Executor(program, device), load_weights({}, program, device)
    one = np.array([3.0], np.float32)
    if guards:
        with pytest.raises(InputError, match=r"n = 1 from input 'x' dim 0.*do not fit this program"):
            executor.run({"x": one}, weights)
    else:
        found = executor.run({"x": one}, weights)["output"].to_numpy()
        np.testing.assert_allclose(found, module(torch.tensor(one)).numpy(), rtol=1e-6)


def test_a_decoder_by_transformers_own_attention_takes_one_token() -> None:
    from transformers import Qwen2Config, Qwen2Model

    settings = Qwen2Config(vocab_size=99, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                           num_attention_heads=4, num_key_value_heads=2, use_cache=False)
    model = Qwen2Model._from_config(settings, attn_implementation="sdpa").eval()
    ids = {"input_ids": torch.ones(1, 16, dtype=torch.long)}
    ir = extract_ir(model, ids, dynamic_shapes={"input_ids": {1: ("length", 1, 64)}})
    assert ir.guards == ()


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
    with pytest.raises(IRError, match=r"dimension 0 of input x \(n\).*does not work for all sizes.*16"):
        extracted(lambda x: x + torch.arange(16), (16,))
    _, ir = extracted(even, (16,))
    from torch_ir.expr import symbol
    for guard in (Guard(symbol("k"), 3), Guard(symbol("n"), 3, "<")):
        with pytest.raises(IRError, match="unknown relation or undeclared symbol"):
            replace(ir, guards=(guard,)).verify()
