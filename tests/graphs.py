"""What tests build and run graphs with: graphs of one op, many graphs merged into one program, guarded
memory."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import msgspec
import numpy as np

from npu_compiler.compiler import assemble
from npu_compiler.emit import Emitter
from npu_compiler.emitted import Options
from npu_compiler.pipeline import PASSES
from npu_compiler.target import Target, load_target
from npu_runtime.backend import Memory
from npu_runtime.buffer import as_bytes
from npu_runtime.device import Device
from npu_runtime.executor import Executor
from npu_runtime.program import CompiledProgram
from npu_runtime.weight_loader import load_weights
from torch_ir.expr import evaluate, parse
from torch_ir.ir import IR, Node, Output

#: Bytes around everything that a program writes; a multiple of every device's alignment.
GUARD = 4096
#: What guards and fresh memory hold: NaN as a floating point number, -1 as a whole one.
PATTERN = 0xFF
CPU: Target = load_target("cpu")


def merge(graphs: Mapping[str, IR], name: str = "merged") -> IR:
    """Graphs side by side in one; every name of graph ``k`` gets ``k.`` in front. Symbols must be equal; the
    guards of all hold for the whole."""
    inputs: dict[str, Any] = {}
    outputs: list[Output] = []
    nodes: list[Node] = []
    weights: dict[str, Any] = {}
    mapping: dict[str, str] = {}
    constants: dict[str, Any] = {}
    states: dict[str, Any] = {}
    symbols: dict[str, tuple[int, int]] = {}
    guards = tuple(dict.fromkeys(guard for ir in graphs.values() for guard in ir.guards))
    for prefix, ir in graphs.items():

        def named(value: str | None, prefix: str = prefix) -> str | None:
            return None if value is None else f"{prefix}.{value}"

        inputs.update({f"{prefix}.{k}": v for k, v in ir.inputs.items()})
        outputs += [Output(f"{prefix}.{o.name}", f"{prefix}.{o.value}") for o in ir.outputs]
        weights.update({f"{prefix}.{k}": v for k, v in ir.weights.items()})
        mapping.update({f"{prefix}.{k}": f"{prefix}.{v}" for k, v in ir.weight_name_mapping.items()})
        constants.update({f"{prefix}.{k}": v for k, v in ir.constants.items()})
        states.update(
            {
                f"{prefix}.{k}": replace(v, key=f"{prefix}.{v.key}", update=named(v.update))
                for k, v in ir.states.items()
            }
        )
        assert all(symbols.get(k, v) == v for k, v in ir.symbols.items()), "symbols of one name differ"
        symbols.update(ir.symbols)
        nodes += [
            replace(
                node,
                name=f"{prefix}.{node.name}",
                inputs=tuple(named(v) for v in node.inputs),
                outputs=tuple(f"{prefix}.{v}" for v in node.outputs),
                origin=tuple(f"{prefix}.{v}" for v in node.origin),
            )
            for node in ir.nodes
        ]
    merged = IR(name, inputs, tuple(outputs), tuple(nodes), weights, mapping, constants, states, symbols)
    merged = replace(merged, guards=guards)
    merged.verify("merging")
    return merged


def emit(ir: IR, options: Options | None = None, target: Target = CPU) -> CompiledProgram:
    """Compiles a graph of the registry's ops as it is, without any pass."""
    emitter = Emitter(ir, target, options or Options())
    emitter.run()
    return assemble(ir, emitter.result(), target, "main")


def copies_of_a_table(program: CompiledProgram) -> int:
    """How often a table of short rows that is a product's weight too lies on the device: products on GPUs
    read rows of whole tiles."""
    return 1 if program.target == "cpu" else 2


def passed(ir: IR, upto: str = "", target: Target = CPU) -> IR:
    """The graph after the pass ``upto`` (its first place in the list), or after all."""
    for step in PASSES:
        ir = step(ir, target)
        ir.verify(step.__name__)
        if step.__name__ == upto:
            break
    return ir


def spread(program: CompiledProgram) -> CompiledProgram:
    """The program with no scratch memory used twice, and ``GUARD`` unused bytes between any two buffers."""
    at = GUARD
    buffers = []
    for buffer in program.buffers:
        if buffer.kind == "scratch":
            buffer = replaced(buffer, offset=at)
            at += -(-int(buffer.nbytes) // GUARD) * GUARD + GUARD
        buffers.append(buffer)
    return replaced(program, buffers=tuple(buffers), arena_bytes=at)


def replaced(record: Any, **changes: Any) -> Any:
    """A record of a program with other values in some fields."""
    return msgspec.structs.replace(record, **changes)


class GuardedDevice(Device):
    """A device that fills fresh memory with ``PATTERN`` and keeps ``GUARD`` bytes of it before and after
    each."""

    def __init__(self, selector: str | None = None, options: Sequence[str] = ()) -> None:
        super().__init__(selector)
        self.options = options
        self.guarded: list[tuple[Memory, int]] = []

    def build(self, sources: Sequence[tuple[str, str]], options: Sequence[str]) -> Any:
        return super().build(sources, [*options, *self.options])

    def allocate(self, nbytes: int) -> Memory:
        whole = super().allocate(nbytes + 2 * GUARD)
        self.write(whole, np.full(whole.nbytes, PATTERN, np.uint8))
        self.guarded.append((whole, max(1, nbytes)))
        part = super().region(whole, GUARD, nbytes)
        return Memory(part.nbytes, part.handle, whole, GUARD)

    def region(self, memory: Memory, offset: int, nbytes: int) -> Memory:
        if memory.parent is not None:
            return super().region(memory.parent, memory.offset + offset, nbytes)
        return super().region(memory, offset, nbytes)

    def forget(self) -> None:
        """Lets go of the memory allocated so far."""
        self.guarded.clear()

    def damage(self, program: CompiledProgram | None = None) -> list[str]:
        """Where something was written outside the memory that was asked for. With ``program`` (from
        ``spread``), the gaps of its arena count too."""
        found = []
        for index, (whole, nbytes) in enumerate(self.guarded):
            data = np.empty(whole.nbytes, np.uint8)
            self.read(whole, data)
            checked = [("before", data[:GUARD]), ("after", data[GUARD + nbytes :])]
            if program is not None and nbytes == arena_bytes(program):
                checked += _gaps(program, data[GUARD : GUARD + nbytes])
            for where, part in checked:
                bad = np.flatnonzero(part != PATTERN)
                if bad.size:
                    found.append(f"memory {index} of {nbytes} bytes: {bad.size} bytes written {where}")
        return found


def arena_bytes(program: CompiledProgram) -> int:
    """What the executor allocates for scratch."""
    ends = [b.offset + max(1, int(b.nbytes)) for b in program.buffers if b.kind == "scratch"]
    return max(ends, default=-1)


def _gaps(program: CompiledProgram, arena: np.ndarray[Any, Any]) -> list[tuple[str, np.ndarray[Any, Any]]]:
    scratch = sorted((b for b in program.buffers if b.kind == "scratch"), key=lambda b: b.offset)
    gaps, at = [], 0
    for buffer in scratch:
        gaps.append((f"before {buffer.name}", arena[at : buffer.offset]))
        at = buffer.offset + int(buffer.nbytes)
    return gaps


@dataclass
class Ran:
    """Arrays by name, and what was written outside its place."""

    outputs: dict[str, Any]
    states: dict[str, Any] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)


def run(
    program: CompiledProgram,
    device: Device,
    inputs: Mapping[str, Any],
    weights: Mapping[str, Any] | None = None,
    *,
    guarded: bool = False,
) -> Ran:
    """Runs a program once. ``guarded``: on a ``GuardedDevice``, every buffer of the arena on its own."""
    if guarded:
        assert isinstance(device, GuardedDevice)
        device.forget()
        program = spread(program)
    executor = Executor(program, device)
    loaded = load_weights({k: np.asarray(v) for k, v in (weights or {}).items()}, program, device)
    arrays = {k: np.asarray(v) for k, v in inputs.items()}
    outputs = {k: v.to_numpy() for k, v in executor.run(arrays, loaded).items()}
    states = {}
    for spec in program.states:
        array = np.empty(spec.shape, np.dtype(spec.dtype))
        device.read(loaded.state(spec), as_bytes(array))
        states[spec.name] = array
    damage = device.damage(program) if guarded else []  # type: ignore[attr-defined]
    return Ran(outputs, states, damage)


def is_for(item: object, parameter: str, device: GuardedDevice) -> bool:
    """Whether a collected test has this parameter and runs on this device."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    return parameter in params and params.get("guarded") == device.info.selector


def draw(rng: np.random.Generator, shape: Sequence[int], dtype: str, kind: str) -> np.ndarray[Any, Any]:
    """Values that vary: "normal", "positive", "unit", "index:N" (whole numbers below N), "around:N" (from
    -N to N - 1), "ends:N" (rising from 0 to N), "bool"."""
    shape = tuple(shape)
    if kind.startswith("index:"):
        return np.asarray(rng.integers(0, int(kind[6:]), shape)).astype(dtype)
    if kind.startswith("around:"):
        return np.asarray(rng.integers(-int(kind[7:]), int(kind[7:]), shape)).astype(dtype)
    if kind.startswith("ends:"):
        inner = np.sort(rng.integers(0, int(kind[5:]) + 1, int(np.prod(shape)) - 2))
        return np.array([0, *inner, int(kind[5:])], dtype).reshape(shape)
    if dtype == "bool" or kind == "bool":
        return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    if np.dtype(dtype).kind in "iu":
        low = 1 if kind == "positive" else 0 if dtype == "uint8" else -9
        return np.asarray(rng.integers(low, 10, shape)).astype(dtype)
    values = rng.standard_normal(shape)
    if kind == "unit":
        values = np.tanh(values)
    return np.asarray(np.abs(values) + 0.1 if kind == "positive" else values).astype(dtype)


def array(tensor: Any) -> np.ndarray[Any, Any]:
    """A tensor for NumPy, one of bfloat16 too."""
    tensor = tensor.detach().contiguous()
    if str(tensor.dtype) != "torch.bfloat16":
        return np.asarray(tensor.numpy())
    shape = tuple(tensor.shape)
    bits = tensor.reshape(-1).view(importlib.import_module("torch").int16).numpy()
    return np.asarray(bits.view(ml_dtypes.bfloat16)).reshape(shape)


def concrete(shape: Sequence[Any], symbols: Mapping[str, int]) -> tuple[int, ...]:
    """A shape with its symbols' values."""
    return tuple(evaluate(parse(str(dim)), symbols) for dim in shape)
