"""The parts of a graph that was split between a target and a fallback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from npu_compiler.errors import CompileError, Refusal
from npu_compiler.weights import Transforms, state_spec
from npu_runtime.program import CompiledProgram, StateSpec, Transform
from torch_ir.ir import IR, Output, TensorSpec

Kind: TypeAlias = Literal["target", "fallback"]


@dataclass(frozen=True)
class Part:
    """Nodes that run together, as a graph of their own.

    ``inputs`` and ``outputs`` are names of values of the whole graph. ``ir.outputs`` gives the latter as
    well, in the same order, each under its public name where it is an output of the whole graph. ``reasons``
    says per node of a fallback part why the target cannot run it. ``program`` is the compiled part once there
    is one.
    """

    name: str
    kind: Kind
    ir: IR
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reasons: tuple[Refusal, ...] = ()
    target: str = "cpu"
    program: CompiledProgram | None = None

    def compile(self, **options: Any) -> CompiledProgram:
        """The program of a target part: ``program`` if it is there, else compiled with ``compile_ir``'s
        ``options``, whose errors this raises."""
        from npu_compiler.compiler import compile_ir

        if self.kind != "target":
            raise CompileError(f"{self.ir.name}: {self.name} is a fallback part; PyTorch runs it")
        return self.program or compile_ir(self.ir, target=self.target, **{"program": self.name, **options})

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The weights that a fallback part reads, each as it is in the state_dict; its name is not the key.
        None for a target part, whose program has its own."""
        if self.kind == "target":
            return ()
        return tuple(self._transform(key) for key in self.weight_keys)

    @property
    def weight_keys(self) -> tuple[str, ...]:
        """The state_dict keys of ``transforms``, in the same order."""
        return tuple(dict.fromkeys(self.ir.weight_name_mapping.values()))

    def _transform(self, key: str) -> Transform:
        spec, made = self.ir.weights[key], Transforms()
        name = made.add(["tensor", key], tuple(int(str(size)) for size in spec.shape), spec.dtype)
        return made.made[name]

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """The states that the part reads or changes."""
        return tuple(state_spec(state) for state in self.ir.states.values())

    @property
    def updates(self) -> frozenset[str]:
        """The keys of the states that the part changes."""
        return frozenset(state.key for state in self.ir.states.values() if state.update is not None)


@dataclass(frozen=True)
class Partition:
    """The parts of a graph in an order in which they can run; a sequence of them.

    ``inputs``, ``outputs`` and ``symbols`` are those of the whole graph.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: tuple[Output, ...]
    output_specs: tuple[TensorSpec, ...]
    symbols: Mapping[str, tuple[int, int]]
    parts: tuple[Part, ...]

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Part:
        return self.parts[index]

    def summary(self) -> str:
        """One line: how many nodes run where."""
        target, fallback = (
            sum(len(part.ir.nodes) for part in self.parts if part.kind == kind)
            for kind in ("target", "fallback")
        )
        return (
            f"{self.name or 'graph'}: {target} nodes on the target, {fallback} with PyTorch, "
            f"in {len(self.parts)} part{'s' * (len(self.parts) != 1)}"
        )

    def placement(self) -> str:
        """A report for people: which node runs where and why."""
        lines = [self.summary()]
        for part in self.parts:
            place = f"target {part.target}" if part.kind == "target" else "PyTorch"
            lines += ["", f"{part.name}: {place}, {len(part.ir.nodes)} nodes"]
            lines.append(
                f"  reads {', '.join(part.inputs) or 'nothing'}; gives {', '.join(part.outputs) or 'nothing'}"
            )
            reasons = {item.node: item.reason for item in part.reasons}
            for node in part.ir.nodes:
                line = f"  {node.name}: {node.op}" + (f" ({node.loc})" if node.loc else "")
                lines.append(line + (f": {reasons[node.name]}" if node.name in reasons else ""))
        return "\n".join(lines) + "\n"
