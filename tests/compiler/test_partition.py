"""Graphs with operations that the target cannot run: the parts, and their results against PyTorch."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from partition_cases import (
    CASES,
    STATES,
    Call,
    Case,
    Net,
    expected,
    extracted,
    given,
    kinds,
    refuse,
    tensors,
    unknown,
)
from torch import nn

from npu_compiler import CompileError, UnsupportedOpError, compile_ir, partition
from npu_compiler.parts_file import MANIFEST, load_parts, save_parts
from npu_runtime import DAGExecutor, InputError, WeightsMismatchError, load_weights
from npu_runtime.device import Device, list_devices
from npu_runtime.null_device import NullDevice
from npu_runtime.weight_loader import prepare_file
from torch_ir import eager, extract_ir
from torch_ir.ir import IR, Node, Output, State, TensorSpec

if not list_devices():
    pytest.skip("running parts takes an OpenCL device", allow_module_level=True)


@pytest.fixture(scope="module")
def device() -> Device:
    return Device()


@pytest.mark.parametrize("name", [*CASES, *STATES])
def test_parts_equal_pytorch(name: str, device: Device, tmp_path: Path) -> None:
    case = {**CASES, **STATES}[name]
    torch.manual_seed(1)
    module = case.make().eval()
    ir = extracted(case, module)
    parts = partition(ir, case.supports)
    assert kinds(parts) == case.kinds
    loaded = load_parts(save_parts(parts, tmp_path))
    executor = DAGExecutor(loaded, device, cpu_runner=eager.run)
    weights = load_weights(tensors(module), executor.program, device)
    for seed, size in enumerate(case.sizes):
        shape = (size, *case.shape[1:]) if case.dynamic else case.shape
        x = given(shape, seed)
        outputs = executor.run({"x": x.numpy()}, weights)
        assert list(outputs) == [output.name for output in ir.outputs]
        for found, wanted in zip(outputs.values(), expected(module, x), strict=True):
            assert found.to_numpy().dtype == wanted.dtype
            np.testing.assert_allclose(found.to_numpy(), wanted, rtol=2e-5, atol=2e-5)
            assert wanted.size == 0 or np.abs(wanted).max() > 0
    first = next(iter(executor.run({"x": given(case.shape, 7).numpy()}, weights.new_state()).values()))
    fresh = case.make().eval()
    fresh.load_state_dict(
        {key: torch.from_numpy(array) for key, array in weights_of(name, module, case).items()}
    )
    np.testing.assert_allclose(
        first.to_numpy(), expected(fresh, given(case.shape, 7))[0], rtol=2e-5, atol=2e-5
    )


def weights_of(name: str, module: nn.Module, case: Case) -> dict[str, np.ndarray]:
    """The weights with every state as it is at first."""
    start = case.make().state_dict() if name in STATES else module.state_dict()
    return {key: value.numpy() for key, value in start.items()}


@pytest.mark.parametrize("name", [*CASES, *STATES])
def test_parts_are_legal_and_complete(name: str) -> None:
    case = {**CASES, **STATES}[name]
    ir = extracted(case, case.make().eval())
    parts = partition(ir, case.supports)
    known = set(ir.inputs)
    placed: list[str] = []
    for part in parts:
        part.ir.verify()
        assert tuple(part.ir.inputs) == part.inputs
        assert tuple(output.value for output in part.ir.outputs) == part.outputs
        assert known.issuperset(part.inputs), "a part reads what no part before it gives"
        known.update(part.outputs)
        placed += [node.name for node in part.ir.nodes]
        assert {reason.node for reason in part.reasons} <= {node.name for node in part.ir.nodes}
        assert not part.reasons or part.kind == "fallback"
    assert {node.name for node in ir.nodes} == set(placed)
    assert known.issuperset(output.value for output in ir.outputs)
    assert all(before.kind != after.kind for before, after in pairwise(parts))
    assert all(line in parts.placement() for line in placed)


def test_a_part_has_its_own_weights_only() -> None:
    parts = partition(extracted(CASES["middle"], Net()))
    assert [sorted(part.ir.weights) for part in parts] == [
        ["first.bias", "first.weight"],
        [],
        ["gain", "second.bias", "second.weight"],
    ]
    last = parts[2].compile()
    assert all("mul" not in step.kernel for step in last.steps), (
        "what weights determine is computed at loading"
    )


def test_supports_decides() -> None:
    ir = extracted(CASES["none"], CASES["none"].make())
    parts = partition(ir, refuse("relu"))
    assert kinds(parts) == "ft"
    assert [(reason.op, reason.reason) for reason in parts[0].reasons] == [
        ("aten.relu.default", "refused by the test")
    ]
    assert kinds(partition(ir, lambda node: None)) == "t"


def test_only_as_many_parts_as_the_longest_chain_of_changes() -> None:
    """Independent chains that change k times need k + 1 parts, not k + 1 each."""

    def chains(x: torch.Tensor) -> torch.Tensor:
        return sum((unknown(torch.relu(x + shift)) * shift for shift in range(1, 9)), torch.zeros(3))

    assert kinds(partition(extract_ir(Call(chains), given((2, 3), 0)))) == "tft"


def test_two_placeholders_of_a_changed_state_are_refused() -> None:
    spec = TensorSpec((3,), "float32")
    nodes = (
        Node("j1", "aten.special_bessel_j1.default", ("x",), ("j1",), (spec,)),
        Node("add", "aten.add.Tensor", ("j1", "b_one"), ("add",), (spec,)),
    )
    states = {"b_one": State("total", spec, "add"), "b_two": State("total", spec)}
    ir = IR("twice", {"x": spec}, (Output("y", "b_two"),), nodes, states=states)
    with pytest.raises(CompileError, match="total is changed, and has several placeholders"):
        partition(ir)


def test_prepared_weights_serve_every_part(device: Device, tmp_path: Path) -> None:
    class Tail(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (
                super().forward(x) + unknown(self.gain).sum() + torch.special.bessel_j1(self.first.bias).sum()
            )

    module = Tail().eval()
    executor = DAGExecutor(partition(extracted(CASES["middle"], module)), device, cpu_runner=eager.run)
    prepare_file(tensors(module), executor.program.transforms, tmp_path / "prepared.safetensors")
    weights = load_weights(tmp_path / "prepared.safetensors", executor.program, device)
    x = given((2, 3, 7, 9), 3)
    found = next(iter(executor.run({"x": x.numpy()}, weights).values())).to_numpy()
    np.testing.assert_allclose(found, expected(module, x)[0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "missing: x"),
        ({"x": np.zeros((2, 3), "float32"), "y": 1}, "unknown: y"),
        ({"x": np.zeros((2, 4), "float32")}, "expected float32"),
        ({"x": np.zeros((2, 3))}, "expected float32"),
        ({"x": np.zeros((9, 3), "float32")}, "takes 1 to 8"),
    ],
)
def test_inputs_are_checked_before_anything_runs(
    inputs: dict[str, Any], message: str, device: Device
) -> None:
    def never(*_: object) -> Any:
        raise AssertionError("a part ran")

    parts = partition(extracted(CASES["crossing-dynamic"], CASES["crossing-dynamic"].make()))
    executor = DAGExecutor(parts, device, cpu_runner=never)
    with pytest.raises(InputError, match=message):
        executor.run(inputs, load_weights({}, executor.program, device))


def test_weights_of_another_model_or_device_are_refused(device: Device) -> None:
    executor = DAGExecutor(partition(extracted(CASES["middle"], Net())), device, cpu_runner=eager.run)
    x = {"x": np.zeros((2, 3, 7, 9), "float32")}
    with pytest.raises(WeightsMismatchError, match=r"first\.weight"):
        load_weights({}, executor.program, device)
    other = partition(extracted(CASES["only"], CASES["only"].make()))
    nothing = load_weights({}, DAGExecutor(other, device, cpu_runner=eager.run).program, device)
    with pytest.raises(WeightsMismatchError, match="lacks"):
        executor.run(x, nothing)
    elsewhere = load_weights(tensors(Net()), executor.program, NullDevice())
    with pytest.raises(InputError, match="load them with the device of this executor"):
        executor.run(x, elsewhere)


def test_fallback_parts_need_a_runner(device: Device) -> None:
    with pytest.raises(InputError, match=r"part0 cannot run on the target.*PyTorch"):
        DAGExecutor(partition(extracted(CASES["only"], CASES["only"].make())), device)


def test_programs_from_the_caller(device: Device) -> None:
    case = CASES["start"]
    parts = partition(extracted(case, case.make()))
    compiled = {part.name: compile_ir(part.ir) for part in parts if part.kind == "target"}
    for programs in (compiled, lambda part: compile_ir(part.ir)):
        executor = DAGExecutor(parts, device, cpu_runner=eager.run, programs=programs)
        outputs, times = executor.run_timed(
            {"x": given((2, 3), 1).numpy()}, load_weights({}, executor.program, device)
        )
        assert [time.step for time in times] == list(range(len(executor.program.steps)))
        wanted = expected(case.make(), given((2, 3), 1))[0]
        np.testing.assert_allclose(next(iter(outputs.values())).to_numpy(), wanted, rtol=2e-5, atol=2e-5)
    with pytest.raises(InputError, match="programs lacks part1"):
        DAGExecutor(parts, device, cpu_runner=eager.run, programs={})
    with pytest.raises(CompileError, match="part0 is a fallback part"):
        parts[0].compile()


def test_outputs_outlive_the_next_run(device: Device) -> None:
    case = CASES["input-as-output"]
    executor = DAGExecutor(partition(extracted(case, case.make())), device, cpu_runner=eager.run)
    weights = load_weights({}, executor.program, device)
    x = given((2, 3), 1).numpy()
    first = executor.run({"x": x}, weights)
    wanted = {name: buffer.to_numpy() for name, buffer in first.items()}
    x *= 0
    executor.run({"x": given((2, 3), 2).numpy()}, weights)
    for name, buffer in first.items():
        np.testing.assert_array_equal(buffer.to_numpy(), wanted[name])


def test_files_are_the_same_each_time_and_damage_is_noticed(tmp_path: Path) -> None:
    parts = partition(extracted(CASES["middle"], Net()))
    manifest = save_parts(parts, tmp_path / "a")
    save_parts(partition(extracted(CASES["middle"], Net())), tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    assert [part.ir for part in load_parts(manifest)] == [part.ir for part in parts]
    (tmp_path / "a" / "part1.ir.json").write_text("{}")
    with pytest.raises(CompileError, match=r"part1\.ir\.json: not the file"):
        load_parts(manifest)
    (tmp_path / "b" / "part0.npubin").unlink()
    with pytest.raises(CompileError, match=r"part0\.npubin: cannot be read"):
        load_parts(tmp_path / "b" / MANIFEST)
    for text in ("", "[]", "{}", manifest.read_text().replace('"format_version": 1', '"format_version": 2')):
        manifest.write_text(text)
        with pytest.raises(CompileError, match="compile again"):
            load_parts(manifest)


def test_without_parts_the_compiler_refuses() -> None:
    with pytest.raises(UnsupportedOpError, match="special_bessel_j1"):
        compile_ir(extracted(CASES["middle"], Net()))
