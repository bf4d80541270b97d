"""The kernels of the targets ``gpu`` and ``nvidia``: on every device, as far as it runs them.

What is compiled for ``gpu`` runs on any OpenCL device, a processor too. Inline PTX needs NVIDIA's driver;
without it, programs for ``nvidia`` are compiled and their calls checked on the null device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import graphs
import ml_dtypes
import numpy as np
import pytest
import torch
from op_graphs import Sample, samples
from test_registry import magnitude

from npu_compiler.ops import Case, load_all
from npu_compiler.target import load_target
from npu_runtime.device import list_devices
from npu_runtime.executor import Executor
from npu_runtime.null_device import NullDevice
from npu_runtime.program import CompiledProgram
from npu_runtime.weight_loader import load_weights

TARGETS = {name: load_target(name) for name in ("gpu", "nvidia")}
#: The targets whose programs some device here runs.
RUNNING = [name for name in TARGETS if name == "gpu" or any(info.vendor == name for info in list_devices())]
HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
#: Ops that have kernels of their own for work-groups; the long tier has the others too.
GROUPED = (
    *("attention", "conv", "linear", "gated", "norm", "softmax", "reduce", "max_pool", "avg_pool"),
    *("gather_rows", "rotary", "cache_rows", "seen_end"),
)


@dataclass(frozen=True)
class HalfSample(Sample):
    """A product of a model that computes in 16 bits. All its numbers are of that dtype, so that no rounding
    of operands shows."""

    def arrays(self) -> dict[int, np.ndarray[Any, Any]]:
        half: Any = HALVES[str(self.case.attrs["half"])]
        return {at: array.astype(half).astype(array.dtype) for at, array in super().arrays().items()}


def _linear(rows: int, out: int, inner: int, half: str, **more: Any) -> Case:
    return Case(((rows, inner), (out, inner), (out,)), {"half": half, **more}, constant=(1, 2))


def half_samples() -> Iterator[Sample]:
    """The products of the registry in both dtypes, and sizes that choose each tile of tensor cores."""
    ops = load_all()[0]
    for half in HALVES:
        cases = [(op, case) for op in ("gated", "linear", "conv") for case in ops[op].cases]
        sizes = ((1, 40, 64), (3, 13, 104), (29, 72, 72), (113, 520, 96), (70, 8, 2080), (1025, 1032, 64))
        cases += [("linear", _linear(*size, half)) for size in sizes]
        gates = ops["gated"].cases[0].attrs
        sizes = ((1, 48, 64), (3, 16, 104), (113, 80, 96), (1025, 1040, 32))
        cases += [
            ("gated", Case((size[::2], size[1:]), {"half": half, **gates}, constant=(1,))) for size in sizes
        ]
        for index, (name, case) in enumerate(cases):
            if case.dtypes == ("float32",) and 1 in case.constant:
                case = replace(case, attrs={**case.attrs, "half": half})
                yield HalfSample(ops[name], case, "float32", half, index)


SAMPLES = {sample.id: sample for sample in (*samples(), *half_samples())}


def _is_short(sample: Sample) -> bool:
    if isinstance(sample, HalfSample):
        return sample.index % 6 == 0 or sample.case not in sample.op.cases
    first = (sample.dtype, sample.layout) == (sample.case.dtypes[0], sample.case.layouts[0])
    return sample.op.name.startswith(GROUPED) and first


def _parameters() -> list[Any]:
    return [
        pytest.param(sample, id=name, marks=[] if _is_short(sample) else [pytest.mark.full])
        for name, sample in SAMPLES.items()
    ]


def program_of(chosen: Mapping[str, Sample], target: str) -> CompiledProgram:
    return graphs.emit(
        graphs.merge({key: sample.graph() for key, sample in chosen.items()}), target=TARGETS[target]
    )


@pytest.fixture(scope="session", params=RUNNING)
def ran(request: pytest.FixtureRequest, guarded: graphs.GuardedDevice) -> graphs.Ran:
    """What all samples of this session give."""
    if request.param == "nvidia" and guarded.vendor != "nvidia":
        pytest.skip(f"inline PTX cannot run on {guarded.name}")
    chosen = {
        item.callspec.params["sample"].id: item.callspec.params["sample"]  # type: ignore[attr-defined]
        for item in request.session.items
        if graphs.is_for(item, "sample", guarded) and item.module.__name__ == __name__  # type: ignore[attr-defined]
    }
    inputs: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for key, sample in chosen.items():
        for position, array in sample.arrays().items():
            (weights if position in sample.case.constant else inputs)[f"{key}.x{position}"] = array
    return graphs.run(program_of(chosen, request.param), guarded, inputs, weights, guarded=True)


@pytest.mark.filterwarnings("ignore:merged main was compiled for")
@pytest.mark.parametrize("sample", _parameters())
def test_an_op_gives_what_its_reference_gives(sample: Sample, ran: graphs.Ran) -> None:
    for index, expected in enumerate(sample.reference(torch, sample.arrays())):
        got = ran.outputs[f"{sample.id}.y{index}"]
        np.testing.assert_allclose(
            got.astype(np.float64),
            expected.astype(np.float64),
            rtol=sample.op.rtol,
            atol=sample.op.atol * max(1.0, magnitude(expected)),
        )


def test_nothing_is_written_outside_its_memory(ran: graphs.Ran) -> None:
    assert ran.damage == []


def test_programs_for_nvidia_make_sound_calls() -> None:
    """Every argument, size and order is checked; the kernels are not built."""
    chosen = {name: sample for name, sample in SAMPLES.items() if _is_short(sample)}
    program = program_of(chosen, "nvidia")
    variants = {step.kernel.split("__")[0] for step in program.steps}
    assert {"linear_f32_mma", "linear_f32_split", "linear_f32_rows", "conv2d_f32_split"} <= variants
    assert any("mma.sync" in source for source in program.kernel_sources.values())
    device = NullDevice()
    inputs: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for key, sample in chosen.items():
        for position, array in sample.arrays().items():
            (weights if position in sample.case.constant else inputs)[f"{key}.x{position}"] = array
    outputs = Executor(program, device).run(inputs, load_weights(weights, program, device))
    assert len(outputs) == len(program.output_specs)
