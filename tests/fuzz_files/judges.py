"""What must hold of a mutated file: it is refused with an error of ours, or it means what it says.

A judge returns an outcome in a word or two, or raises; whatever it raises is a finding. Programs and
prepared weights must give the unmutated result, an original checkpoint what the safetensors library reads; a
graph or a configuration that is accepted must do what it says now, by PyTorch's account.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import containers
import numpy as np
import safetensors.numpy
import small_graphs
from safetensors import SafetensorError

from npu_compiler import compile_ir
from npu_compiler.errors import CompileError
from npu_compiler.interpret import interpret
from npu_runtime.backend import Backend
from npu_runtime.dtypes import nbytes, numpy_dtype
from npu_runtime.errors import DeviceError, FormatError, InputError, WeightsMismatchError
from npu_runtime.executor import Executor
from npu_runtime.npubin import from_bytes, to_bytes
from npu_runtime.null_device import NullDevice
from npu_runtime.program import CompiledProgram
from npu_runtime.symbols import evaluate_shape
from npu_runtime.weight_loader import load_weights, prepare_file
from pipelines.config import ConfigError, load_config
from torch_ir.errors import IRError
from torch_ir.expr import evaluate
from torch_ir.ir import TensorSpec
from torch_ir.serialize import ir_to_dict, load_ir

HERE = Path(__file__).resolve().parent
PUBLIC = HERE.parent / "torch_ir" / "public"
#: Bytes that a mutated program may take to be run.
RUN_LIMIT = 64 << 20
Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Base:
    """A whole file, and what judges a mutation of it: ``judge(path, random generator, device)``."""

    data: bytes
    judge: Callable[[Path, random.Random, Backend], str]


class Finding(AssertionError):
    """A mutated file was accepted and does something else than it says."""


def bases(kind: str, folder: Path) -> dict[str, Base]:
    """The files of a kind. ``folder`` is for files that stay."""
    return {"npubin": _programs, "ir": _graphs, "safetensors": _weights, "yaml": _configs}[kind](folder)


def _graphs(folder: Path) -> dict[str, Base]:
    graphs = small_graphs.graphs()
    found = {name: json.dumps(ir_to_dict(ir), indent=1).encode() for name, ir in graphs.items()}
    found.update((path.stem, path.read_bytes()) for path in sorted(PUBLIC.glob("*.json")))
    return {name: Base(data, _judge_graph) for name, data in found.items()}


def _judge_graph(path: Path, rng: random.Random, device: Backend) -> str:
    try:
        ir = load_ir(path)
        program = compile_ir(ir)
        to_bytes(program)
    except (IRError, CompileError, FormatError):
        return "refused"
    symbols = {name: rng.randint(low, min(high, low + 7)) for name, (low, high) in ir.symbols.items()}
    specs = [*ir.inputs.values(), *ir.weights.values(), *(spec for node in ir.nodes for spec in node.outs)]
    if sum(_count(spec, symbols) for spec in specs) * 8 + program.arena_bytes > RUN_LIMIT:
        return "too large to run"
    draw = np.random.default_rng(rng.randrange(1 << 30))
    inputs = {name: _drawn(draw, spec, symbols) for name, spec in ir.inputs.items()}
    weights = {key: _drawn(draw, spec, symbols) for key, spec in ir.weights.items()}
    weights.update((s.key, _drawn(draw, s.spec, symbols)) for s in ir.states.values() if s.persistent)
    try:
        got = _run(program, device, inputs, weights)
    except (InputError, DeviceError, FormatError, WeightsMismatchError):
        return "refused when run"
    expected = {name: np.asarray(value) for name, value in interpret(ir, inputs, weights).outputs.items()}
    if isinstance(device, NullDevice):
        return "runs"
    _compare(got, expected)
    return "as PyTorch"


def _count(spec: TensorSpec, symbols: Mapping[str, int]) -> int:
    return math.prod(evaluate(size, symbols) for size in spec.shape)


def _drawn(draw: np.random.Generator, spec: TensorSpec, symbols: Mapping[str, int]) -> np.ndarray[Any, Any]:
    shape = tuple(evaluate(size, symbols) for size in spec.shape)
    if spec.dtype.startswith(("float", "bfloat")):
        values = np.abs(draw.standard_normal(shape)) + 0.1
        return values.astype("float32" if spec.dtype == "bfloat16" else spec.dtype)
    return draw.integers(0, 2 if spec.dtype == "bool" else 3, shape).astype(spec.dtype)


def _run(program: CompiledProgram, device: Backend, inputs: Arrays, weights: Any) -> dict[str, Any]:
    loaded = weights if not isinstance(weights, (dict, Path)) else load_weights(weights, program, device)
    return {name: value.to_numpy() for name, value in Executor(program, device).run(inputs, loaded).items()}


def _compare(got: Mapping[str, Any], expected: Mapping[str, Any], exact: bool = False) -> None:
    """Raises ``Finding`` unless these are the same numbers."""
    if got.keys() != expected.keys():
        raise Finding(f"outputs {list(got)}, expected {list(expected)}")
    for name, value in expected.items():
        mine = got[name]
        if (mine.shape, mine.dtype) != (value.shape, value.dtype):
            raise Finding(
                f"{name} is {mine.dtype}{list(mine.shape)}, expected {value.dtype}{list(value.shape)}"
            )
        a, b = mine.astype(np.float64), value.astype(np.float64)
        finite = np.abs(b[np.isfinite(b)])
        near = np.isclose(a, b, 1e-3, 1e-4 * max(1.0, finite.max(initial=0.0)), equal_nan=True)
        if not (np.array_equal(a, b, equal_nan=True) if exact else near.all()):
            raise Finding(f"{name} has other numbers: {a.ravel()[:4]}, expected {b.ravel()[:4]}")


def _programs(folder: Path) -> dict[str, Base]:
    found = {}
    for name, ir in small_graphs.graphs().items():
        data = to_bytes(compile_ir(ir))
        weights = {key: np.zeros(spec.shape, spec.dtype) for key, spec in ir.weights.items()}
        weights.update((s.key, np.zeros(s.spec.shape, s.spec.dtype)) for s in ir.states.values())
        found[name] = Base(data, _judge_program(data, weights))
    return found


def _judge_program(data: bytes, weights: Arrays) -> Callable[[Path, random.Random, Backend], str]:
    whole = from_bytes(data)

    def judge(path: Path, rng: random.Random, device: Backend) -> str:
        mutated = path.read_bytes()
        try:
            if CompiledProgram.load(path) != whole:
                raise Finding("another program was loaded")
            return "same"
        except FormatError:
            pass
        try:  # the same change by someone who knows the digest
            signed = containers.signed(mutated)
        except Exception:  # zipfile raises many kinds for damaged archives
            return "refused"
        try:
            program = from_bytes(signed)
            least = {symbol.name: symbol.lower for symbol in program.symbols}
            inputs = {
                spec.name: np.zeros(evaluate_shape(spec.shape, least), numpy_dtype(spec.dtype))
                for spec in program.input_specs
                if nbytes(evaluate_shape(spec.shape, least), spec.dtype) < RUN_LIMIT
            }
            if program.arena_bytes < RUN_LIMIT:
                _run(program, NullDevice(), inputs, weights)
        except (FormatError, InputError, DeviceError, WeightsMismatchError):
            return "refused, signed as well"
        return "refused, runs signed"

    return judge


def _weights(folder: Path) -> dict[str, Base]:
    graph = small_graphs.graphs()["images"]
    program = compile_ir(graph)
    draw = np.random.default_rng(5)
    arrays = {key: _drawn(draw, spec, {}) for key, spec in graph.weights.items()}
    arrays["unused"] = np.arange(5, dtype=np.int64)
    original, prepared = folder / "original.safetensors", folder / "prepared.safetensors"
    safetensors.numpy.save_file(arrays, original, metadata={"format": "pt"})
    prepare_file(original, program.transforms, prepared)
    inputs = {name: _drawn(draw, spec, {}) for name, spec in graph.inputs.items()}
    judge = _WeightsJudge(program, inputs, original)
    return {
        "original": Base(original.read_bytes(), judge.original),
        "prepared": Base(prepared.read_bytes(), judge.same),
    }


class _WeightsJudge:
    def __init__(self, program: CompiledProgram, inputs: Arrays, original: Path) -> None:
        self._program, self._inputs, self._original = program, inputs, original
        self._executor: Executor | None = None
        self._expected: dict[str, Any] = {}

    def _outputs(self, weights: Any, device: Backend) -> dict[str, Any]:
        if self._executor is None:
            self._executor = Executor(self._program, device)
            self._expected = self._outputs(self._original, device)
        loaded = load_weights(weights, self._program, device)
        return {name: value.to_numpy() for name, value in self._executor.run(self._inputs, loaded).items()}

    def same(self, path: Path, _: random.Random, device: Backend) -> str:
        try:
            got = self._outputs(path, device)
        except (FormatError, WeightsMismatchError):
            return "refused"
        _compare(got, self._expected, exact=True)
        return "same"

    def original(self, path: Path, _: random.Random, device: Backend) -> str:
        """Other values are other numbers: those that the safetensors library reads."""
        try:
            got = self._outputs(path, device)
        except (FormatError, WeightsMismatchError):
            return "refused"
        try:
            arrays = safetensors.numpy.load_file(path)
        except (SafetensorError, OSError, ValueError, KeyError):
            _compare(got, self._expected, exact=True)
            return "same"
        _compare(got, self._outputs(arrays, device), exact=True)
        return "as safetensors reads it"


_BASE = """\
# what models share
precision: float32
compile: {options: {winograd: false}}
verify: {rtol: 1e-3, samples: 4}
"""


def _configs(folder: Path) -> dict[str, Base]:
    models = folder / "configs" / "models"
    models.mkdir(parents=True)
    (models / "loop_a.yaml").write_text("extends: loop_b\n")
    (models / "loop_b.yaml").write_text("extends: loop_a\n")
    root = HERE.parents[1] / "configs" / "models"
    found = {}
    for path in sorted(root.glob("*.yaml")):
        (models / path.name).write_bytes(path.read_bytes())
        found[path.stem] = Base(path.read_bytes(), _judge_config(models))
    return found


def _judge_config(models: Path) -> Callable[[Path, random.Random, Backend], str]:
    def judge(path: Path, rng: random.Random, device: Backend) -> str:
        file = models / "scorer.yaml"
        file.write_bytes(path.read_bytes())
        try:
            config = load_config(file, models.parents[1])
        except ConfigError as error:
            if "scorer.yaml" not in str(error) and "loop" not in str(error):
                raise Finding(f"the error names no file: {error}") from None
            return "refused"
        again = type(config).model_validate_json(config.model_dump_json(by_alias=True))
        if repr(again) != repr(config):
            raise Finding("the configuration that was read is not what it says of itself")
        return "accepted"

    return judge
