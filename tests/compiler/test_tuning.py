"""Measured choices: lookup, what does not count, what they do to programs; and that rules are valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import graphs
import msgspec
import numpy as np
import pytest

from npu_compiler.compiler import compile_with_report
from npu_compiler.errors import CompileError
from npu_compiler.isolate import isolated
from npu_compiler.pipeline import run_passes
from npu_compiler.resources import config_root
from npu_compiler.spaces import Value, spaces, version
from npu_compiler.tuned import (
    FORMAT,
    DeviceKey,
    Entry,
    Tuning,
    TuningFile,
    family_of,
    file_bytes,
    file_name,
    load_tuning,
    read_file,
)
from npu_compiler.tuning import PRODUCT
from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.weight_loader import load_weights
from torch_ir.ir import IR, Node, Output, TensorSpec

F32 = "float32"


def convolution(size: int = 12, channels: int = 16, out: int = 32) -> IR:
    """A 3x3 convolution with its weight."""
    return IR(
        "conv",
        {"x": TensorSpec((1, channels, size, size), F32)},
        (Output("y", "y"),),
        (
            Node(
                "y", "aten.conv2d.default", ("x", "w", None), ("y",),
                (TensorSpec((1, out, size, size), F32),),
                {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1},
            ),
        ),
        {"w": TensorSpec((out, channels, 3, 3), F32)},
        {"w": "w"},
    )  # fmt: skip


def asked(ir: IR, tuning: Tuning | None = None, **options: bool) -> dict[str, object]:
    """What is chosen for the products of ``ir``."""
    (answer,) = [
        answer
        for answer in compile_with_report(ir, tuning=tuning, **options).answers
        if answer.space == "product"
    ]
    return {**answer.choice, "source": answer.source, "ignored": answer.ignored}


def entry_for(ir: IR, **changes: Value) -> Entry:
    """A measured choice that differs from the rule's by ``changes``."""
    (answer,) = [
        answer
        for answer in compile_with_report(ir, winograd=False).answers
        if answer.space == "product"
    ]
    params = {**answer.choice, **changes}
    return Entry(
        answer.space, dict(answer.question), params, version(PRODUCT.templates), "driver 1", 2, 36, 10.0, 9.0,
        11.0, dict(answer.choice), 12.0, 20,
    )  # fmt: skip


def write(folder: Path, name: str, *entries: Entry) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_bytes(file_bytes(TuningFile(FORMAT, name, entries)))


DEVICE = DeviceKey("pocl-some-cpu", "pocl-avx2", "driver 1")
FILES = {
    "exact": {"pocl-some-cpu": {"mr": 4}, "pocl-avx2": {"mr": 3}},
    "family": {"pocl-avx2": {"mr": 3}, "intel-avx2": {"mr": 2}},
    "another family's": {"intel-avx2": {"mr": 2}},
}


@pytest.mark.parametrize(("files", "mr", "source"), [
    ("exact", 4, "pocl-some-cpu"), ("family", 3, "pocl-avx2"), ("another family's", 6, "rule"),
])  # fmt: skip
def test_the_exact_device_comes_before_its_family_and_that_before_the_rule(
    tmp_path: Path, files: str, mr: int, source: str
) -> None:
    ir = convolution()
    for name, changes in FILES[files].items():
        write(tmp_path, name, entry_for(ir, **changes))
    found = asked(ir, load_tuning([tmp_path], DEVICE), winograd=False)
    assert (found["mr"], found["source"], found["ignored"]) == (mr, source, ())


def test_a_projects_own_file_comes_before_the_shipped_one(tmp_path: Path) -> None:
    ir = convolution()
    write(tmp_path / "own", "pocl-avx2", entry_for(ir, mr=2))
    write(tmp_path / "shipped", "pocl-avx2", entry_for(ir, mr=3))
    found = asked(ir, load_tuning([tmp_path / "own", tmp_path / "shipped"], DEVICE), winograd=False)
    assert found["mr"] == 2


BAD: dict[str, tuple[Mapping[str, object], str]] = {
    "another driver": ({"driver": "driver 0"}, "is of the driver driver 0, this is driver 1"),
    "other kernels": ({"kernel": "0" * 16}, "is of other kernels"),
    "an impossible tile": ({"params": {"mr": 9, "nv": 2}}, "a choice that is not valid"),
    "an unknown knob": ({"params": {"mr": 4, "colour": 1}}, "a choice that is not valid"),
    "a knob of another type": ({"params": {"mr": True}}, "a choice that is not valid"),
    "no steps": ({"params": {"unroll": 0}}, "a choice that is not valid"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_entry_that_does_not_count_is_told_and_the_rule_chooses(tmp_path: Path, what: str) -> None:
    ir, (changes, reason) = convolution(), BAD[what]
    entry = entry_for(ir, mr=4)
    if isinstance(params := changes.get("params"), dict):
        changes = {"params": {**entry.params, **params}}
    write(tmp_path, "pocl-avx2", msgspec.structs.replace(entry, **changes))
    found = asked(ir, load_tuning([tmp_path], DEVICE), winograd=False)
    assert found["mr"] == 6 and found["source"] == "rule"
    assert reason in str(found["ignored"])


def test_another_drivers_entries_count_where_the_configuration_says_so(tmp_path: Path) -> None:
    ir = convolution()
    write(tmp_path, "pocl-avx2", msgspec.structs.replace(entry_for(ir, mr=4), driver="driver 0"))
    assert asked(ir, load_tuning([tmp_path], DEVICE, any_driver=True), winograd=False)["mr"] == 4
    unknown = replace(DEVICE, exact=None, driver=None)  # compiled for a device that is not here
    assert asked(ir, load_tuning([tmp_path], unknown), winograd=False)["mr"] == 4


@pytest.mark.parametrize(("text", "message"), [
    (b"{", "configs/tuning/pocl-avx2.json: .*doit tune"),
    (b'{"format": 99, "device": "x"}', "has format 99, this version reads 1"),
    (b'{"format": 1, "device": "x", "entries": [{"space": "product"}]}', r"missing required field"),
    (b'{"format": 1, "device": "x", "speed": 1}', "unknown field `speed`"),
])  # fmt: skip
def test_a_malformed_file_is_refused_by_name(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "pocl-avx2.json").write_bytes(text)
    with pytest.raises(CompileError, match=message):
        load_tuning([tmp_path], DEVICE)


def test_equal_entries_are_equal_bytes_and_read_back(tmp_path: Path) -> None:
    entries = [entry_for(convolution(size), mr=4) for size in (12, 20)]
    files = [TuningFile(FORMAT, "d", tuple(order)) for order in (entries, reversed(entries))]
    assert file_bytes(files[0]) == file_bytes(files[1])
    write(tmp_path, "d", *entries)
    assert sorted(read_file(tmp_path / "d.json").entries, key=lambda e: e.key) == sorted(
        entries, key=lambda e: e.key
    )


def test_the_state_of_a_question_changes_with_what_it_would_be_answered(tmp_path: Path) -> None:
    ir = convolution()
    key = entry_for(ir).key
    told = [Tuning().state(key)]
    for entry in (entry_for(ir, mr=4), entry_for(ir, mr=3),
                  msgspec.structs.replace(entry_for(ir, mr=3), driver="driver 0")):  # fmt: skip
        write(tmp_path, "pocl-avx2", entry, entry_for(convolution(20), mr=2))
        told.append(load_tuning([tmp_path], DEVICE).state(key))
    write(tmp_path, "pocl-avx2", msgspec.structs.replace(entry_for(ir, mr=4), median_us=1.0, tried=3))
    assert len(set(told)) == 4
    assert load_tuning([tmp_path], DEVICE).state(key) == told[1]  # the measurement itself shapes nothing


def test_choices_next_to_the_rules_compute_the_same() -> None:
    """The space of products on the device, one knob at a time."""
    device = Device()
    random = np.random.default_rng(7)
    ir = convolution(9, 8, 24)
    x = random.standard_normal((1, 8, 9, 9)).astype(np.float32)
    weights = {"w": random.standard_normal((24, 8, 3, 3)).astype(np.float32)}
    (answer,) = [answer for answer in compile_with_report(ir).answers if answer.space == "product"]

    def run(tuning: Tuning) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        program = compile_with_report(ir, tuning=tuning).program
        outputs = Executor(program, device).run({"x": x}, load_weights(weights, program, device))
        return outputs["y"].to_numpy()

    expected = run(Tuning())
    assert np.abs(expected).max() > 1
    seen = set()
    for knob, choice in list(PRODUCT.neighbours(answer.choice, answer.question))[::5]:
        seen.add(knob)
        np.testing.assert_allclose(run(Tuning(forced=((answer.key, choice),))), expected, 2e-4, 2e-4)
    assert len(seen) >= 3


def test_an_isolated_node_asks_what_it_asks_in_the_model() -> None:
    ir = convolution()
    lowered, _ = run_passes(ir, graphs.CPU)
    (name,) = [node.name for node in lowered.nodes if node.op == "conv"]
    alone = isolated(lowered, name)
    whole = {answer.key for answer in compile_with_report(ir).answers}
    found = compile_with_report(alone, start_after="assign_layouts").answers
    assert whole and {answer.key for answer in found} == whole


def test_shipped_entries_are_of_spaces_that_there_are() -> None:
    for path in (Path(str(config_root())) / "tuning").glob("*.json"):
        for entry in read_file(path).entries:
            assert entry.space in spaces(), path
            assert entry.params.keys() == spaces()[entry.space].knobs.keys(), path


@pytest.mark.parametrize(("vendor", "profile", "family"), [
    ("pocl", "pocl-avx2", "pocl-avx2"), ("intel", "pocl-avx2", "intel-avx2"), ("nvidia", "gpu", "gpu"),
    ("nvidia", "nvidia-sm80", "nvidia-sm80"),
])  # fmt: skip
def test_families(vendor: str, profile: str, family: str) -> None:
    assert family_of(vendor, profile) == family
    assert file_name("nvidia NVIDIA H100 80GB HBM3") == "nvidia-nvidia-h100-80gb-hbm3"
