"""What the closest existing system gets wrong without a word, each as a test with PyTorch's answer.

The comparisons are in ``mistake_cases``; all of them run as one program between guard bytes, so that what
writes past a dense buffer fails too.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import graphs
import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from half_mistake_cases import HALF
from mistake_cases import ATTENTION, IDS, Calls, Mistake, n, random_numbers
from mistake_cases import MISTAKES as SINGLE
from torch import Tensor, nn

from npu_compiler.compiler import compile_ir
from npu_runtime import InputError
from npu_runtime.backend import Memory
from npu_runtime.buffer import NPUBuffer
from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.program import CompiledProgram
from npu_runtime.symbols import evaluate
from npu_runtime.weight_loader import load_weights
from torch_ir import extract_ir
from torch_ir.ir import IR

MISTAKES = {**SINGLE, **HALF}
Array = np.ndarray[Any, Any]
RTOL, ATOL = 2e-5, 1e-5
#: Two roundings of each dtype.
HALF_RTOL = {"bfloat16": 2**-7, "float16": 2**-10}


def agree(got: Array, right: Array, slack: float = 1.0) -> bool:
    """Whether shape, dtype and values are the same: whole numbers exactly, others to ``slack`` tolerances."""
    if (got.shape, got.dtype) != (right.shape, right.dtype):
        return False
    if right.dtype.kind in "iub":
        return bool(np.array_equal(got, right))
    if right.dtype.name in HALF_RTOL:
        rtol = min(slack, 4.0) * HALF_RTOL[right.dtype.name]
        return np.allclose(got.astype(np.float32), right.astype(np.float32), rtol=rtol, atol=rtol)
    return np.allclose(got, right, rtol=slack * RTOL, atol=slack * ATOL, equal_nan=True)


def eager(mistake: Mistake) -> list[Array]:
    with torch.no_grad():
        result = mistake.module(*mistake.inputs)
    return [graphs.array(t) for t in ([result] if isinstance(result, Tensor) else result)]


@dataclass
class Together:
    """All cases of a session, run as one program."""

    got: dict[str, list[Array]]
    damage: list[str]


@pytest.fixture(scope="module")
def together(request: pytest.FixtureRequest, guarded: graphs.GuardedDevice) -> Together:
    chosen = {
        item.callspec.params["name"]  # type: ignore[attr-defined]
        for item in request.session.items
        if graphs.is_for(item, "name", guarded) and item.callspec.params["name"] in MISTAKES  # type: ignore[attr-defined]
    }
    irs: dict[str, IR] = {}
    arrays: dict[str, Array] = {}
    weights: dict[str, Array] = {}
    for name in sorted(chosen):
        mistake = MISTAKES[name]
        irs[name] = ir = extract_ir(mistake.module, mistake.inputs, model_name=name)
        arrays.update(
            {f"{name}.{k}": graphs.array(t) for k, t in zip(ir.inputs, mistake.inputs, strict=True)}
        )
        weights.update({f"{name}.{k}": graphs.array(t) for k, t in mistake.module.state_dict().items()})
    ran = graphs.run(compile_ir(graphs.merge(irs)), guarded, arrays, weights, guarded=True)
    got = {name: [ran.outputs[f"{name}.{o.name}"] for o in ir.outputs] for name, ir in irs.items()}
    return Together(got, ran.damage)


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_a_known_mistake_is_not_made(name: str, together: Together) -> None:
    for got, right in zip(together.got[name], eager(MISTAKES[name]), strict=True):
        assert agree(got, right), f"{got} instead of {right}"


@pytest.mark.parametrize("case", sorted(MISTAKES))
def test_the_mistake_would_be_noticed(case: str) -> None:
    mistake = MISTAKES[case]
    with torch.no_grad():
        wrong = graphs.array(mistake.mistaken(mistake.module, *mistake.inputs))
    assert not agree(wrong, eager(mistake)[0], slack=100)


def test_rows_that_see_nothing_give_zero_in_pytorch_too() -> None:
    for name in ("attention_rows_that_see_nothing", "attention_rows_that_see_nothing_by_infinities"):
        assert (eager(ATTENTION[name])[0][0, :, 0] == 0).all()


def test_nothing_is_written_past_dense_buffers(together: Together) -> None:
    assert together.damage == []


@dataclass
class Loaded:
    """A module that is compiled and ready to run."""

    program: CompiledProgram
    executor: Executor
    weights: Any
    ir: IR


def loaded(module: nn.Module, inputs: Any, device: Device, **options: Any) -> Loaded:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ir = extract_ir(module.eval(), inputs, **options)
    program = compile_ir(ir)
    state = {name: graphs.array(tensor) for name, tensor in module.state_dict().items()}
    return Loaded(program, Executor(program, device), load_weights(state, program, device), ir)


@pytest.mark.parametrize("bad", [5000, -5001, 2**40])
def test_token_ids_out_of_range_are_refused(bad: int, guarded: graphs.GuardedDevice) -> None:
    embedding = random_numbers(Calls(lambda m, ids: m.embedding(ids), embedding=nn.Embedding(5000, 6)))
    model = loaded(embedding, IDS, guarded)
    with pytest.raises(InputError, match=str(bad)):
        model.executor.run({next(iter(model.ir.inputs)): np.where(IDS == 4999, bad, IDS)}, model.weights)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_float32_arrays_are_rounded_to_the_dtype_of_a_program_of_16_bits(
    dtype: str, guarded: graphs.GuardedDevice
) -> None:
    """Ties go to even; what float16 cannot hold, bfloat16 does; NaN and infinities stay."""
    x = np.array([[1.0, 1.00390625, 1.01171875, -3e-30, 7e4, 1e38, np.inf, -np.inf, np.nan, 1.00048828125]])
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float32).astype(kind)
    half = getattr(torch, dtype)
    model = loaded(Calls(lambda m, t: (t, t.float())), torch.zeros(1, 10, dtype=half), guarded)
    spec = model.program.input_specs[0]
    buffer = NPUBuffer.from_numpy(x.astype(np.float32), guarded, spec=spec)
    same, wide = model.executor.run({spec.name: buffer}, model.weights).values()
    np.testing.assert_array_equal(
        same.to_numpy().view(np.uint16) | 0x1FF * np.isnan(x), wanted.view(np.uint16) | 0x1FF * np.isnan(x)
    )
    np.testing.assert_array_equal(wide.to_numpy(), wanted.astype(np.float32))


def test_outputs_stay_when_the_program_runs_again(guarded: graphs.GuardedDevice) -> None:
    def both(m: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return m.a(x), x, F.relu(m.a(x) - 1)

    model = loaded(random_numbers(Calls(both, a=nn.Linear(7, 5))), n(3, 7), guarded)
    name = next(iter(model.ir.inputs))
    first = model.executor.run({name: n(3, 7).numpy()}, model.weights)
    before = {key: buffer.to_numpy().copy() for key, buffer in first.items()}
    for seed in range(1, 4):
        last = model.executor.run({name: n(3, 7, seed=seed).numpy()}, model.weights)
    for key, array in before.items():
        np.testing.assert_array_equal(first[key].to_numpy(), array)
        assert not np.array_equal(last[key].to_numpy(), array)


def test_an_input_stays_when_the_output_that_it_is_changes(guarded: graphs.GuardedDevice) -> None:
    model = loaded(Calls(lambda m, x: (x, x + 1)).eval(), n(3, 5), guarded)
    given = NPUBuffer.from_numpy(n(3, 5).numpy(), guarded)
    outputs = model.executor.run({next(iter(model.ir.inputs)): given}, model.weights)
    guarded.write(given.memory, np.zeros((3, 5), np.float32).view(np.uint8).reshape(-1))
    same = outputs[model.ir.outputs[0].name].to_numpy()
    np.testing.assert_array_equal(same, n(3, 5).numpy())


class Language(nn.Module):
    """An embedding, a layer, and logits by the embedding's own weight for the last position."""

    def __init__(self, early: bool, tokens: int = 61, width: int = 16) -> None:
        super().__init__()
        self.early = early
        self.embedding, self.layer = nn.Embedding(tokens, width), nn.Linear(width, width)
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        hidden = torch.tanh(self.layer(self.embedding(ids)))
        return self.head(hidden[:, -1:]) if self.early else self.head(hidden)[:, -1:]


class Uploads(Device):
    """A device that knows what was uploaded to it."""

    def __init__(self, selector: str | None) -> None:
        super().__init__(selector)
        self.uploaded: list[int] = []

    def upload(self, data: Array, share: bool = False) -> Memory:
        self.uploaded.append(data.nbytes)
        return super().upload(data, share=share)


def test_weights_of_several_programs_lie_on_the_device_once(guarded: graphs.GuardedDevice) -> None:
    device = Uploads(guarded.info.selector)
    module = random_numbers(Language(early=True))
    ids = torch.tensor([[3, 60, 7, 12]])
    prefill = loaded(module, ids, device, dynamic_shapes={"ids": {1: ("length", 1, 64)}})
    prefill.executor.run({"ids": ids.numpy()}, prefill.weights)
    before = list(device.uploaded)
    assert before
    decode = compile_ir(extract_ir(module, ids[:, -1:]), program="decode")
    got = Executor(decode, device).run({"ids": ids[:, -1:].numpy()}, prefill.weights)
    assert device.uploaded == before
    with torch.no_grad():
        expected = module(ids[:, -1:]).numpy()
    assert agree(got[decode.output_specs[0].name].to_numpy(), expected)


def test_tied_weights_lie_on_the_device_once(guarded: graphs.GuardedDevice) -> None:
    device = Uploads(guarded.info.selector)
    module = random_numbers(Language(early=True))
    ids = torch.tensor([[3, 60, 7, 12]])
    model = loaded(module, ids, device)
    got = model.executor.run({"ids": ids.numpy()}, model.weights)["output"].to_numpy()
    held = sum(nbytes >= 61 * 16 * 4 for nbytes in device.uploaded)
    assert held == graphs.copies_of_a_table(model.program)
    with torch.no_grad():
        assert agree(got, module(ids).numpy())


def operations(program: CompiledProgram, **symbols: int) -> int:
    """Arithmetic operations of one run."""
    return sum(int(evaluate(step.cost.flops, symbols)) for step in program.steps)


@pytest.mark.parametrize("early", [True, False])
def test_logits_are_computed_for_the_last_position_alone(early: bool, guarded: graphs.GuardedDevice) -> None:
    module, ids = random_numbers(Language(early)), torch.tensor([[3, 60, 7, 12]])
    model = loaded(module, ids, guarded, dynamic_shapes={"ids": {1: ("length", 1, 64)}})
    layer, head = 2 * 16 * 16 + 4 * 16, 2 * 16 * 61
    assert 40 * 2 * 16 * 16 < operations(model.program, length=40) < 40 * layer + 2 * head
    got = model.executor.run({"ids": ids.numpy()}, model.weights)["output"].to_numpy()
    with torch.no_grad():
        assert agree(got, module(ids).numpy())


class Decoder(nn.Module):
    """One step of attention over the used part of a cache."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values = torch.cat([keys, self.k(x)], 1), torch.cat([values, self.v(x)], 1)
        return F.scaled_dot_product_attention(self.q(x), keys, values), keys, values


def test_decoding_costs_what_is_used_of_the_cache(guarded: graphs.GuardedDevice) -> None:
    module = random_numbers(Calls(lambda m, *xs: m.step(*xs), step=Decoder()))
    example = (n(1, 1, 16), n(1, 30, 16, seed=1), n(1, 30, 16, seed=2))
    past = {1: ("past", 1, 4000)}
    model = loaded(module, example, guarded, dynamic_shapes=({}, past, past))
    few, many = (operations(model.program, past=size) for size in (30, 3000))
    assert many > 50 * (few - operations(model.program, past=1)) > 0
    for size in (30, 1, 3000):
        inputs = (n(1, 1, 16), n(1, size, 16, seed=1), n(1, size, 16, seed=2))
        given = {name: x.numpy() for name, x in zip(model.ir.inputs, inputs, strict=True)}
        got = model.executor.run(given, model.weights)
        with torch.no_grad():
            for buffer, right in zip(got.values(), module(*inputs), strict=True):
                assert agree(buffer.to_numpy(), right.numpy())
