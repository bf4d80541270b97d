"""float16 and bfloat16: stored in 16 bits, rounded to nearest even, computed in float32."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from typing import Any

import graphs
import numpy as np
import pytest
import torch
from aten_cases import CALLS, Calling
from test_aten import REFUSED, flat

from npu_compiler.compiler import compile_ir
from npu_runtime.buffer import to_array
from torch_ir import extract_ir
from torch_ir.ir import IR

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
#: Half of the distance between 1 and the next number: the relative error of one rounding.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


class Conversions(torch.nn.Module):
    """Every way into and out of 16 bits."""

    def forward(self, half: Any, brain: Any, single: Any) -> tuple[Any, ...]:
        return (
            *(half.float(), brain.float(), single.half(), single.bfloat16(), half.bfloat16(), brain.half()),
            *(half + 0, brain * 1, single.half().float() * 1, single.bfloat16().float() * 1),
            *(half.double(), brain.double(), half.flip(0), brain.reshape(256, 256).t().contiguous()),
            *(single.double().half(), half != half, brain.bool(), torch.cat([half, half[:7]])),
        )


def every_number(dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)


def singles() -> torch.Tensor:
    """float32 numbers: random bits, all ties between two numbers of 16 bits, and their neighbours."""
    random = torch.randint(-(1 << 31), 1 << 31, (100_000,), generator=torch.Generator().manual_seed(1))
    ties = torch.arange(1 << 16) * 65536 + 0x8000
    half = every_number(torch.float16).float()
    between = (half[:-1] + half[1:]) / 2
    near = [torch.nextafter(between, torch.tensor(end)) for end in (9e9, -9e9)]
    bits = torch.cat([random, ties]).to(torch.int32).view(torch.float32)
    return torch.cat([bits, between, *near, half])


def results(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], device: graphs.GuardedDevice
) -> Iterator[tuple[str, np.ndarray[Any, Any], torch.Tensor]]:
    """Each result's name, value and what PyTorch gives, of the same dtype; nothing else was written."""
    program = compile_ir(extract_ir(module, inputs, model_name="module"))
    arrays = {spec.name: to_array(x) for spec, x in zip(program.input_specs, inputs, strict=True)}
    ran = graphs.run(program, device, arrays, guarded=True)
    assert ran.damage == []
    for spec, expected in zip(program.output_specs, module(*inputs), strict=True):
        got = ran.outputs[spec.name]
        assert str(expected.dtype) == f"torch.{got.dtype}", spec.name
        yield spec.name, got.astype(np.float64), expected


def test_every_number_is_converted_as_pytorch_does(guarded: graphs.GuardedDevice) -> None:
    inputs = (every_number(torch.float16), every_number(torch.bfloat16), singles())
    for name, got, expected in results(Conversions(), inputs, guarded):
        np.testing.assert_array_equal(got, expected.double().numpy(), err_msg=name)


class Compared(torch.nn.Module):
    """Operands that are not of 16 bits: PyTorch rounds them to those of the others before it computes."""

    def forward(self, x: Any, whole: Any, one: Any) -> tuple[Any, ...]:
        return (
            *(x == 0.1, x < 0.1, x >= 1e20, x == 65535, x != one, torch.eq(one, x), x == whole, whole < x),
            *(
                x + whole,
                whole * x,
                x / whole,
                x**whole,
                torch.maximum(x, whole),
                torch.where(x > 0, x, whole),
            ),
            *(torch.remainder(x, 0.3), torch.fmod(x, 1e-3), x**3.7, whole[0] / x, x + whole.to(torch.uint8)),
        )


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("whole", [torch.int64, torch.int32, torch.int16])
def test_operands_are_rounded_before_they_are_computed_with(
    dtype: str, whole: torch.dtype, guarded: graphs.GuardedDevice
) -> None:
    numbers = [0.1, 0.3, 1.0, 65504.0, math.inf, -math.inf, math.nan, 3.0, 100.0, -7.5, 0.0, 1e-3]
    places = [65535, 1, 1, 65504, 65520, -65535, 3, 2049, 100, -257, 1, 32767]
    inputs = (torch.tensor(numbers, dtype=HALVES[dtype]), torch.tensor(places).to(whole), torch.tensor(0.1))
    for name, got, expected in results(Compared(), inputs, guarded):
        rtol = 2 * ROUNDING[dtype] if expected.dtype.is_floating_point else 0
        np.testing.assert_allclose(got, expected.double().numpy(), rtol, 1e-7, err_msg=name)


class Tied(torch.nn.Module):
    """An embedding whose table is the last layer's weight too, around a convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(29, 24))
        self.conv = torch.nn.Conv2d(5, 16, 3, padding=1)
        self.linear = torch.nn.Linear(16, 24, bias=False)

    def forward(self, tokens: Any, image: Any) -> Any:
        hidden = self.linear(self.conv(image).mean((2, 3))) + torch.nn.functional.embedding(
            tokens, self.table
        )
        return hidden @ self.table.t()


@pytest.mark.parametrize("dtype", HALVES)
def test_weights_of_products_lie_on_the_device_once_and_in_16_bits(
    dtype: str, guarded: graphs.GuardedDevice
) -> None:
    torch.manual_seed(2)
    module = Tied().eval().to(HALVES[dtype])
    inputs = (torch.tensor([3, 28, 0]), torch.randn(3, 5, 7, 9).to(HALVES[dtype]))
    program = compile_ir(extract_ir(module, inputs, model_name="tied"))
    weights = [(t.name.split("@")[0], t.dtype, t.shape) for t in program.transforms if "bias" not in t.name]
    tables = graphs.copies_of_a_table(program)
    assert sorted(name for name, *_ in weights) == ["conv.weight", "linear.weight", *["table"] * tables]
    assert {kind for _, kind, _ in weights} == {dtype}
    arrays = {spec.name: to_array(x) for spec, x in zip(program.input_specs, inputs, strict=True)}
    loaded = {key: to_array(x) for key, x in module.state_dict().items()}
    ran = graphs.run(program, guarded, arrays, loaded, guarded=True)
    with torch.no_grad():
        expected = module.float()(inputs[0], inputs[1].float()).numpy()
    (got,) = (array.astype(np.float32) for array in ran.outputs.values())
    rounded = 1 if program.target == "cpu" else 3  # what the model has in 16 bits, GPUs keep so
    np.testing.assert_allclose(got, expected, 2 * rounded * ROUNDING[dtype], rounded * ROUNDING[dtype])
    assert ran.damage == []


#: What PyTorch does not take in 16 bits, and what is refused: the neighbours of such numbers. Complex numbers
#: and bits have no dtype of 16 bits; numbers beyond float16 would be infinite, which no whole number is.
NOT_IN_HALF = {
    "edges-quantile",
    "edges-nextafter",
    "edges-cast_beyond",
    "special-fake_quantize_channels",
    *(n for n in CALLS if n.startswith("complex-")),
}


def _has_floats(name: str) -> bool:
    return name not in NOT_IN_HALF and any(x.dtype == torch.float32 for x in CALLS[name][1])


def narrowed(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype) if value.dtype == torch.float32 else value


def call_in_half(name: str, dtype: str) -> tuple[IR, Any, tuple[torch.Tensor, ...], list[torch.Tensor]]:
    """The call with its tensors in ``dtype``; and what float32 makes of the same rounded values, rounded.

    The numbers that replace infinity belong to a dtype, so there PyTorch computes in 16 bits."""
    function, inputs = CALLS[name]
    module = copy.deepcopy(Calling(function)).eval().to(HALVES[dtype])
    rounded = tuple(narrowed(x, HALVES[dtype]) for x in inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ir = extract_ir(module, rounded, model_name=name)
    narrow = "nan_to_num" in name
    wide = module if narrow else copy.deepcopy(module).float()
    given = [x if narrow or x.dtype != HALVES[dtype] else x.float() for x in rounded]
    with torch.no_grad():
        results = flat(wide(*given))
        expected = [
            x.to(getattr(torch, ir.values()[output.value].dtype))
            for x, output in zip(results, ir.outputs, strict=True)
        ]
    return ir, module, rounded, expected


#: Programs that the calls are put into: one of all of them takes some drivers minutes.
PROGRAMS = 12


@pytest.mark.full
@pytest.mark.parametrize("part", range(PROGRAMS))
@pytest.mark.parametrize("dtype", HALVES)
def test_calls_in_half_are_float32_rounded_once(dtype: str, part: int, guarded: graphs.GuardedDevice) -> None:
    names = [n for n in sorted(CALLS.keys() - REFUSED.keys()) if _has_floats(n)][part::PROGRAMS]
    irs, arrays, weights, expected = {}, {}, {}, {}
    for name in names:
        ir, module, inputs, expected[name] = call_in_half(name, dtype)
        irs[name] = ir
        arrays.update({f"{name}.{key}": to_array(x) for key, x in zip(ir.inputs, inputs, strict=True)})
        weights.update({f"{name}.{key}": to_array(x) for key, x in module.state_dict().items()})
    program = compile_ir(graphs.merge(irs))
    ran = graphs.run(program, guarded, arrays, weights, guarded=True)
    wrong = []
    for name, ir in irs.items():
        for output, wide in zip(ir.outputs, expected[name], strict=True):
            got, exact = ran.outputs[f"{name}.{output.name}"].astype(np.float64), wide.double().numpy()
            tolerance = 4 * ROUNDING[dtype]
            largest = np.max(np.abs(exact), where=np.isfinite(exact), initial=1)
            # what the model has in 16 bits, GPUs keep so between kernels: as large as the largest result
            atol = tolerance * (1 if program.target == "cpu" else largest)
            if not np.allclose(got, exact, tolerance, atol, equal_nan=True):
                wrong.append(f"{name} {output.name}: {np.nanmax(np.abs(got - exact))}")
    assert not wrong
    assert ran.damage == []
