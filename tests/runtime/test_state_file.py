"""States in files: what was saved is restored, and what belongs elsewhere or is damaged changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from programs import accumulator

from npu_runtime.backend import Backend
from npu_runtime.errors import FormatError, NpubinError, WeightsMismatchError
from npu_runtime.executor import Executor
from npu_runtime.program import StateSpec
from npu_runtime.safetensors_file import write_safetensors
from npu_runtime.weight_loader import Weights, load_weights

PROGRAM = accumulator()
SUM = StateSpec("sum", (5,), "float32")


def total(weights: Weights) -> list[float]:
    return [float(value) for value in weights.read_state(PROGRAM.states[0])]


def run(weights: Weights, device: Backend) -> None:
    Executor(PROGRAM, device).run({"x": np.arange(5, dtype=np.float32)}, weights)


def test_a_state_is_saved_and_restored(device: Backend, tmp_path: Path) -> None:
    weights = load_weights({}, PROGRAM, device)
    weights.save_state(tmp_path / "fresh")
    run(weights, device)
    first = total(weights)
    weights.save_state(tmp_path / "saved")
    run(weights, device)
    assert total(weights) != first and any(first)
    weights.restore_state(tmp_path / "saved")
    assert total(weights) == first
    assert weights.changed == {"total"}
    weights.restore_state(tmp_path / "fresh")
    assert not any(total(weights)) and not weights.changed
    other = load_weights({}, PROGRAM, device)
    other.restore_state(tmp_path / "saved")
    assert total(other) == first


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 64
    path.write_bytes(data)


def _weights(path: Path) -> None:
    write_safetensors(path, {"total": ((5,), "float32")}, [("total", np.ones(5, np.float32))], {})


def _other(path: Path, device: Backend, **fields: object) -> None:
    load_weights({}, accumulator(**fields), device).save_state(path)  # type: ignore[arg-type]


@pytest.mark.parametrize(("harm", "error", "words"), [
    (lambda path, device: _cut(path), FormatError, "not a whole safetensors file"),
    (lambda path, device: _flip(path), FormatError, "state 'total' is damaged"),
    (lambda path, device: _weights(path), FormatError, "holds no states"),
    (lambda path, device: _other(path, device, model="another"), WeightsMismatchError,
     "has the states of 'another', and these weights are of"),
    (lambda path, device: _other(path, device, size=7), WeightsMismatchError,
     r"state 'total' is float32\[7\] there and float32\[5\] here"),
    (lambda path, device: _other(path, device, states=(SUM,), buffers=(), steps=()), WeightsMismatchError,
     r"state 'sum' is float32\[5\] there and missing here \(and 1 more\)"),
])
def test_what_does_not_fit_changes_nothing(
    harm: Callable[[Path, Backend], None],
    error: type[NpubinError],
    words: str,
    device: Backend,
    tmp_path: Path,
) -> None:
    weights = load_weights({}, PROGRAM, device)
    run(weights, device)
    before = total(weights)
    weights.save_state(tmp_path / "saved")
    run(weights, device)
    now = total(weights)
    assert now != before
    harm(tmp_path / "saved", device)
    with pytest.raises(error, match=words):
        weights.restore_state(tmp_path / "saved")
    assert total(weights) == now


def test_no_file_is_an_error_of_the_system(device: Backend, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_weights({}, PROGRAM, device).restore_state(tmp_path / "none")
