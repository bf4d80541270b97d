"""Weights: original and prepared files, sharing, state."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from programs import accumulator, saxpy_square
from safetensors.numpy import load_file, save_file

from npu_runtime.backend import Backend, Bytes, Memory
from npu_runtime.dtypes import numpy_dtype
from npu_runtime.errors import FormatError, WeightsMismatchError
from npu_runtime.executor import Executor
from npu_runtime.null_device import NullDevice
from npu_runtime.program import CompiledProgram, StateSpec, Transform
from npu_runtime.safetensors_file import SafetensorsFile
from npu_runtime.weight_loader import Weights, load_weights, prepare_file

WEIGHT = np.array([1, 2, 4], np.float32)
BIAS = np.array([0.5, 0.25, -1], np.float32)
STATE_DICT = {"weight": WEIGHT, "bias": BIAS, "unused": np.zeros((0,), np.float32)}
PROGRAM = saxpy_square()
TRANSFORM = PROGRAM.transforms[0]


class CountingDevice(NullDevice):
    """Counts what is uploaded."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads = 0

    def upload(self, data: Bytes, *, share: bool = False) -> Memory:
        self.uploads += 1
        return super().upload(data, share=share)


def _file(folder: Path) -> Path:
    save_file(STATE_DICT, folder / "model.safetensors")
    return folder / "model.safetensors"


def _sharded(folder: Path) -> Path:
    save_file({"weight": WEIGHT}, folder / "model-1.safetensors")
    save_file({"bias": BIAS}, folder / "model-2.safetensors")
    return folder


def _indexed(folder: Path) -> Path:
    _sharded(folder)
    save_file({"weight": WEIGHT * 0}, folder / "consolidated.safetensors")
    index = {"metadata": {}, "weight_map": {"weight": "model-1.safetensors", "bias": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _prepared(folder: Path) -> Path:
    prepare_file(_file(folder), PROGRAM.transforms, folder / "prepared.safetensors")
    return folder / "prepared.safetensors"


def _tensor(weights: Weights, transform: Transform) -> np.ndarray[Any, Any]:
    out = np.empty(transform.shape, numpy_dtype(transform.dtype))
    weights.device.read(weights.tensors.memory(transform), out.reshape(-1).view(np.uint8))
    return out


@pytest.mark.parametrize(
    "make",
    [lambda _: STATE_DICT, _file, _sharded, _indexed, _prepared],
    ids=["mapping", "file", "shards", "index", "prepared"],
)
def test_every_source_gives_the_same_tensor(
    make: Callable[[Path], Any], tmp_path: Path, device: Backend
) -> None:
    weights = load_weights(make(tmp_path), PROGRAM, device)
    np.testing.assert_array_equal(_tensor(weights, TRANSFORM), WEIGHT + BIAS)


def test_a_mapping_may_change_after_a_tensor_was_prepared(device: Backend) -> None:
    program = saxpy_square(transforms=(Transform("w3", (1024,), "float32", ["tensor", "w"]),))
    array = np.ones(1024, np.float32)
    weights = Weights(
        load_weights(
            {"w": array}, saxpy_square(transforms=(), buffers=(), steps=(), output_specs=()), device
        ).tensors
    )
    weights.tensors.memory(program.transforms[0])
    array[:] = 5
    assert _tensor(weights, program.transforms[0]).max() == 1


def test_tensors_are_prepared_once_and_only_when_needed() -> None:
    other = saxpy_square(
        program="other",
        transforms=(
            Transform("another_name", (3,), "float32", TRANSFORM.expr),
            Transform("u", (3,), "float32", ["neg", ["tensor", "bias"]]),
        ),
        buffers=tuple(
            msgspec.structs.replace(b, ref="another_name") if b.kind == "weight" else b
            for b in PROGRAM.buffers
        ),
    )
    device = CountingDevice()
    weights = load_weights(STATE_DICT, PROGRAM, device)
    assert device.uploads == 0
    x = {"x": np.ones((2, 3), np.float32)}
    for program in (PROGRAM, PROGRAM, other):
        Executor(program, device).run(x, weights)
    Executor(PROGRAM, device).run(x, weights.new_state())
    assert device.uploads == 1
    assert weights.tensors.nbytes == 12


@pytest.mark.parametrize(
    ("state_dict", "says"),
    [
        ({"weight": WEIGHT}, r"lacks 1 tensor that the program needs: bias;"),
        ({}, r"lacks 2 tensors.*weight, bias; it has 0"),
        ({"weight": WEIGHT, "bais": BIAS}, r"bias \(there is bais\)"),
        ({"model.weight": WEIGHT, "bias": BIAS}, r"weight \(there is model.weight\)"),
        ({"weight": np.zeros((4,), np.float32), "bias": BIAS}, r"weight \[4\], bias \[3\]"),
        ({"weight": np.zeros((2, 3), np.float32), "bias": BIAS}, r"gives \[2, 3\], not \[3\]"),
    ],
)
def test_weights_of_another_model_are_refused(state_dict: dict[str, Any], says: str, tmp_path: Path) -> None:
    save_file(state_dict, tmp_path / "w.safetensors")
    for source in (state_dict, tmp_path / "w.safetensors"):
        with pytest.raises(WeightsMismatchError, match=says):
            load_weights(source, PROGRAM, NullDevice())


def test_an_executor_refuses_weights_of_another_program() -> None:
    device = NullDevice()
    weights = load_weights({}, accumulator(), device)
    with pytest.raises(WeightsMismatchError, match="weight, bias"):
        Executor(PROGRAM, device).run({"x": np.ones((2, 3), np.float32)}, weights)
    assert device.launched == []


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_prepared_files_are_deterministic_safetensors(dtype: str, tmp_path: Path) -> None:
    wanted = [
        Transform("z", (3,), dtype, ["tensor", "weight"]),
        Transform("a", (64,), dtype, ["pad", ["tensor", "weight"], [[0, 61]]]),
        Transform("empty", (0, 2), dtype, ["reshape", ["tensor", "unused"], [0, 2]]),
    ]
    for name, transforms in (("one", wanted), ("two", wanted[::-1] + wanted)):
        prepare_file(STATE_DICT, transforms, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"one", "two"}
    file = SafetensorsFile(tmp_path / "one")
    assert file.metadata["npubin"] == "prepared"
    np.testing.assert_array_equal(file.tensor("z"), WEIGHT.astype(numpy_dtype(dtype)))
    if dtype != "bfloat16":
        loaded = load_file(tmp_path / "one")
        assert {name: value.shape for name, value in loaded.items()} == {
            "z": (3,),
            "a": (64,),
            "empty": (0, 2),
        }


def test_one_prepared_file_serves_several_programs(tmp_path: Path) -> None:
    extra = Transform("extra", (3,), "bfloat16", ["neg", ["tensor", "weight"]])
    both = saxpy_square(transforms=(TRANSFORM, extra))
    prepare_file(STATE_DICT, both.transforms, tmp_path / "w")
    weights = load_weights(tmp_path / "w", PROGRAM, NullDevice())
    load_weights(tmp_path / "w", both, NullDevice())
    np.testing.assert_array_equal(_tensor(weights, extra), -WEIGHT.astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        (
            Transform("w3", (3,), "float32", ["tensor", "weight"]),
            "another program: 'w3' is made otherwise.*prepare",
        ),
        (Transform("w3", (3,), "float16", TRANSFORM.expr), "made otherwise"),
        (Transform("w4", (3,), "float32", ["tensor", "weight"]), "'w4' is missing"),
    ],
)
def test_a_file_prepared_for_another_program_is_refused(
    transform: Transform, says: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsMismatchError, match=says):
        load_weights(_prepared(tmp_path), accumulator(transforms=(transform,)), NullDevice())


def test_preparing_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatchError, match="bias"):
        prepare_file({"weight": WEIGHT}, PROGRAM.transforms, tmp_path / "w")
    with pytest.raises(ValueError, match="two transforms are named 'w3'"):
        prepare_file(
            STATE_DICT, (TRANSFORM, msgspec.structs.replace(TRANSFORM, dtype="float16")), tmp_path / "w"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:20],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"[" + data[9:],
        lambda data: data.replace(b"F32", b"F33"),
        lambda data: data.replace(b"[3]", b"[9]"),
        lambda data: data.replace(b"[0,12]", b"[4,16]"),
        lambda data: data.replace(b'"shape"', b'"shapo"'),
        lambda data: data.replace(b"[3]", b"-33"),
    ],
)
def test_damaged_files_are_refused(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = _file(tmp_path)
    damaged = change(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    with pytest.raises(FormatError, match=r"model\.safetensors: not a whole safetensors file"):
        load_weights(path, PROGRAM, NullDevice())


def test_folders_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"has no \.safetensors file"):
        load_weights(tmp_path, PROGRAM, NullDevice())
    save_file({"weight": WEIGHT}, tmp_path / "a.safetensors")
    save_file({"weight": WEIGHT}, tmp_path / "b.safetensors")
    with pytest.raises(FormatError, match=r"'weight' is in a\.safetensors and in b\.safetensors"):
        load_weights(tmp_path, PROGRAM, NullDevice())
    for index, says in (
        ("{}", "not an index"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "outside its folder"),
    ):
        (tmp_path / "model.safetensors.index.json").write_text(index)
        with pytest.raises(FormatError, match=says):
            load_weights(tmp_path, PROGRAM, NullDevice())
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "none.safetensors", PROGRAM, NullDevice())


def _step(program: CompiledProgram, device: Backend, weights: Weights) -> float:
    executor = Executor(program, device)
    return float(executor.run({"x": np.arange(5, dtype=np.float32)}, weights)["out"].to_numpy()[2])


def test_state_is_shared_by_programs_and_not_by_sequences(device: Backend) -> None:
    prefill, decode = accumulator("prefill"), accumulator("decode")
    weights = load_weights({}, prefill, device)
    assert [_step(prefill, device, weights), _step(decode, device, weights)] == [2, 4]
    other = weights.new_state()
    assert [_step(decode, device, other), _step(decode, device, weights)] == [2, 6]
    weights.reset()
    assert [_step(decode, device, weights), _step(decode, device, other)] == [2, 4]


@pytest.mark.parametrize("prepared", [False, True])
def test_state_starts_with_its_initial_content(prepared: bool, tmp_path: Path, device: Backend) -> None:
    init = ["mul", ["tensor", "start"], ["tensor", "start"]]
    program = accumulator(
        states=(StateSpec("total", (5,), "float32", init),),
        transforms=(Transform("start2", (5,), "float32", init),),
    )
    state_dict = {"start": np.arange(5, dtype=np.float32)}
    if prepared:
        prepare_file(state_dict, program.transforms, tmp_path / "w")
    weights = load_weights(tmp_path / "w" if prepared else state_dict, program, device)
    assert [_step(program, device, weights), _step(program, device, weights)] == [6, 8]
    weights.reset()
    assert _step(program, device, weights) == 6


def test_states_that_disagree_are_refused(first_device: Backend) -> None:
    weights = load_weights({}, accumulator(), first_device)
    weights.state(accumulator().states[0])
    with pytest.raises(
        WeightsMismatchError, match=r"'total' is float32\[5\] in one program and float32\[6\]"
    ):
        weights.state(accumulator(size=6).states[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-3] + bytes([data[-3] ^ 4]) + data[-2:],
        lambda data: data.replace(b'"npubin":"prepared"', b'"npubim":"prepared"'),
        lambda data: data.replace(b'"npubin":"prepared"', b'"npubin":"prepares"'),
        lambda data: data.replace(b'"checksums"', b'"checksumz"'),
        lambda data: data.replace(b'"contents"', b'"contentz"'),
    ],
    ids=["data", "marker", "kind", "checksums", "contents"],
)
def test_a_damaged_prepared_file_is_refused(change: Any, tmp_path: Path, device: Backend) -> None:
    path = _prepared(tmp_path)
    data = path.read_bytes()
    path.write_bytes(change(data))
    assert path.read_bytes() != data
    with pytest.raises(FormatError, match=r"damaged.*prepare"):
        weights = load_weights(path, PROGRAM, device)
        Executor(PROGRAM, device).run({"x": np.ones((2, 3), np.float32)}, weights)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b'{"__metadata__":"x"}', "Expected `object`"),
        (b'{"__metadata__":{"a":1}}', "Expected `str`"),
        (b'{"w":1,"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}', "appears twice"),
        (b"[1]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}', "lies at bytes"),
        (b'{"w":{"dtype":"F32","shape":["\\ud800"],"data_offsets":[0,0]}}', "surrogates"),
        (b'{"\\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}', "surrogates"),
    ],
    ids=["metadata", "values", "twice", "list", "deep", "overflow", "size", "name"],
)
def test_a_malformed_header_is_refused(header: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(FormatError, match=says):
        SafetensorsFile(path)
