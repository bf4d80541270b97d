"""The kernels of the targets ``gpu`` and ``nvidia``: on every device, as far as it runs them.

What is compiled for ``gpu`` runs on any OpenCL device, a processor too. Inline PTX needs NVIDIA's driver;
without it, programs for ``nvidia`` are compiled and their calls checked on the null device.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import graphs
import numpy as np
import pytest
import torch
from gpu_samples import HALVES, SAMPLES, Block, HalfSample, Short, attention, is_short, linear
from op_graphs import Sample, operands
from test_registry import magnitude

from npu_compiler.compiler import compile_ir
from npu_compiler.ops import Case, load_all
from npu_compiler.target import load_target
from npu_runtime.device import list_devices
from npu_runtime.errors import DeviceError
from npu_runtime.executor import Executor
from npu_runtime.npubin import source_order
from npu_runtime.null_device import NullDevice
from npu_runtime.program import CompiledProgram
from npu_runtime.weight_loader import load_weights
from torch_ir import extract_ir

TARGETS = {name: load_target(name) for name in ("gpu", "nvidia")}
#: The targets whose programs some device here runs.
RUNNING = [name for name in TARGETS if name == "gpu" or any(info.vendor == name for info in list_devices())]
def _parameters() -> list[Any]:
    return [
        pytest.param(sample, id=name, marks=[] if is_short(sample) else [pytest.mark.full])
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
    inputs, weights = operands(chosen)
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


@pytest.mark.every_shard
def test_nothing_is_written_outside_its_memory(ran: graphs.Ran) -> None:
    assert ran.damage == []


@pytest.mark.filterwarnings("ignore:block main was compiled for")
@pytest.mark.parametrize("target", RUNNING)
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("model", [Block, Short])
def test_a_model_of_16_bits_is_rounded_where_the_model_rounds(
    model: type[torch.nn.Module], half: str, target: str, guarded: graphs.GuardedDevice
) -> None:
    if target == "nvidia" and guarded.vendor != "nvidia":
        pytest.skip(f"inline PTX cannot run on {guarded.name}")
    torch.manual_seed(3)
    module, x = model().eval().to(getattr(torch, half)), torch.randn(5, 3, 7, 8).to(getattr(torch, half))
    program = compile_ir(extract_ir(module, (x,), model_name="block"), target=target)
    loads = [text for text in program.kernel_sources.values() if "__global const ushort *restrict x" in text]
    assert len(loads) >= 4, "nothing lies in 16 bits"
    state = {key: graphs.array(value) for key, value in module.state_dict().items()}
    ran = graphs.run(program, guarded, {program.input_specs[0].name: graphs.array(x)}, state, guarded=True)
    with torch.no_grad():
        expected = module.float()(x.float()).numpy()
    (got,) = (array.astype(np.float32) for array in ran.outputs.values())
    assert np.linalg.norm(got - expected) < (4e-3 if half == "float16" else 3e-2) * np.linalg.norm(expected)
    assert ran.damage == []


def test_programs_for_nvidia_make_sound_calls() -> None:
    """Every argument, size and order is checked; the kernels are not built."""
    chosen = {name: sample for name, sample in SAMPLES.items() if is_short(sample)}
    program = program_of(chosen, "nvidia")
    variants = {step.kernel.split("__")[0] for step in program.steps}
    for kind in ("f16", "bf16"):
        names = (f"{op}_{kind}_{variant}" for op in ("linear", "conv2d") for variant in ("mma", "split"))
        assert {*names} - {f"conv2d_{kind}_mma"} <= variants
    assert {"linear_bf16_rows", "linear_f32_rows", "linear_f32_tile"} <= variants
    assert any("cp.async" in source for source in program.kernel_sources.values())
    assert any("mma.sync" in source for source in program.kernel_sources.values())
    device = NullDevice()
    inputs, weights = operands(chosen)
    outputs = Executor(program, device).run(inputs, load_weights(weights, program, device))
    assert len(outputs) == len(program.output_specs)


def _sources(program: CompiledProgram) -> str:
    """The steps of a program, and the sources of those of its kernels that have inline PTX."""
    steps = [f"{step.kernel} {step.global_size} {step.local_size}" for step in program.steps]
    texts = [program.kernel_sources[kernel.file] for kernel in program.kernels]
    return "\n\n".join(["\n".join(steps), *(text for text in texts if "asm" in text)])


def _of(name: str, *shapes: tuple[int, ...]) -> Case:
    """The first of a record's cases whose shapes begin so."""
    return next(case for case in load_all()[0][name].cases if case.shapes[: len(shapes)] == shapes)


#: A program for each kind of kernel with inline PTX: a product of many rows, of few whose sums are split, and
#: of one (a matrix times a vector); a convolution; a prompt's attention; a decoder's step.
SOURCES: dict[str, tuple[str, Case, str]] = {
    "product_f16": ("linear", linear(130, 136, 2080, "float16"), "linear_f16_mma"),
    "product_bf16_split": ("linear", linear(29, 72, 72, "bfloat16"), "linear_bf16_split"),
    "product_bf16_row": ("linear", linear(1, 40, 64, "bfloat16"), "linear_bf16_rows"),
    "convolution_bf16": ("conv", _of("conv", (3, 8, 9, 9), (29, 8, 1, 1)), "conv2d_bf16_split"),
    "attention_f16": ("attention", next(attention(130, 66, 32)), "attention_f32_mma"),
    "decode_step": ("attention_step", _of("attention_step", (1, 1, 300, 64)), "attention_f32_step"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources_with_inline_ptx(name: str, golden: Callable[[str, str], None]) -> None:
    op, case, kernel = SOURCES[name]
    half = "bfloat16" if "bf16" in name else "float16"
    case = replace(case, attrs={**case.attrs, "half": half})
    sample = HalfSample(load_all()[0][op], case, "float32", half, 0)
    program = program_of({"a": sample}, "nvidia")
    assert any(step.kernel.startswith(kernel) for step in program.steps)
    golden(f"nvidia/{name}.cl", _sources(program))


def test_programs_for_nvidia_are_opencl_c_but_for_their_ptx(guarded: graphs.GuardedDevice) -> None:
    """Compiled, not run, where no NVIDIA device is: with nothing in place of the instructions, and as that
    vendor's macro has it."""
    if guarded.vendor == "nvidia":
        pytest.skip("it compiles the instructions themselves, and no macro of any number of arguments")
    program = program_of({name: sample for name, sample in SAMPLES.items() if is_short(sample)}, "nvidia")
    module = _without_ptx(program, guarded)
    kernels = [guarded.kernel(module, step.kernel, step.kernel) for step in program.steps]
    assert [kernel.num_args for kernel in kernels] == [len(step.args) for step in program.steps]
    broken = next(kernel for kernel in program.kernels if kernel.entry.startswith("linear_f16_mma"))
    text = program.kernel_sources[broken.file].replace("NPU_COPIED()", "NPU_COPIES()", 1)
    with pytest.raises(DeviceError, match=broken.entry):
        _without_ptx(graphs.replaced(program, kernels=(broken,), kernel_sources={broken.file: text}), guarded)


def _without_ptx(program: CompiledProgram, device: graphs.GuardedDevice) -> object:
    nothing = ("kernels/nothing.cl", "#define NPU_ASM(...)\n")
    texts = [
        (name, re.sub(r"\basm\b(\s+volatile\b)?", "NPU_ASM", program.kernel_sources[name]))
        for name in source_order(program)
    ]
    return device.build([nothing, *texts], ["-cl-std=CL1.2", "-DNPU_NVIDIA=1", *program.options])
