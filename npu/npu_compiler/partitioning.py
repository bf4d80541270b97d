"""Splits a graph into parts that a target runs and parts for a fallback (PyTorch on the host)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from npu_compiler.coverage import refusals
from npu_compiler.errors import CompileError, Refusal
from npu_compiler.parts import Kind, Part, Partition
from npu_compiler.subgraph import subgraph
from npu_compiler.target import load_target
from torch_ir.ir import IR, Node, Output

#: Says why the target cannot run a node; None means that it can.
Supports: TypeAlias = Callable[[Node], str | None]


def partition(ir: IR, supports: Supports | None = None, *, target: str = "cpu") -> Partition:
    """The fewest parts, alternately for the target and for the fallback, that run ``ir`` in order.

    ``supports`` gives the reason why the target cannot run a node, None where it can; by default the
    compiler's own for ``target``. What weights and constants alone determine is computed in every part that
    reads it. A state stays with the part that changes it; parts before that one read the state itself,
    parts after it get its old content as a value.

    Raises ``IRError`` for a malformed graph, and ``CompileError`` where two placeholders of one state would
    lie in different parts.
    """
    ir.verify()
    ir = ir.checked()
    if supports is not None:
        reasons = {node.name: supports(node) for node in ir.nodes}
        refused = {
            node.name: Refusal(node.name, node.op, str(reasons[node.name]), node.loc)
            for node in ir.nodes
            if reasons[node.name] is not None
        }
        return _Split(ir, refused, target).partition()
    device = load_target(target)
    refused = {item.node: item for item in refusals(ir, device)}
    while True:
        found = _Split(ir, refused, target).partition()
        known = {node.name for node in ir.nodes} - refused.keys()
        more = {
            item.node: item
            for part in found
            if part.kind == "target" and len(found) > 1
            for item in refusals(part.ir, device)
            if item.node in known
        }
        if not more:
            return found
        refused.update(more)


#: What the names of operations have in common whose results differ from call to call.
_RANDOM = ("rand", "dropout", "bernoulli", "multinomial", "aten.normal", "poisson")


class _Split:
    """The steps of a partition. A *free* node depends on weights and constants alone and runs on the target;
    it is copied to every part that reads it."""

    def __init__(self, ir: IR, refused: Mapping[str, Refusal], target: str) -> None:
        self.ir, self.refused, self.target = ir, refused, target
        self.specs = ir.values()
        self.fixed = ir.weight_name_mapping.keys() | ir.constants.keys()
        self.producers = {output: node for node in ir.nodes for output in node.outputs}
        self.free = self._free()
        self.levels = self._levels()
        self.kinds: tuple[Kind, ...] = self._kinds()

    def partition(self) -> Partition:
        ir = self.ir
        outputs = tuple(self.specs[output.value] for output in ir.outputs)
        whole = not self.refused
        parts = (self._whole(),) if whole else self._parts()
        return Partition(ir.name, ir.inputs, ir.outputs, outputs, ir.symbols, parts)

    def _whole(self) -> Part:
        values = tuple(output.value for output in self.ir.outputs)
        return Part("part0", "target", self.ir, tuple(self.ir.inputs), values, (), self.target)

    # -- levels: nodes of one level run together

    def _kind(self, node: Node) -> Kind:
        return "fallback" if node.name in self.refused else "target"

    def _free(self) -> frozenset[str]:
        """The outputs of free nodes."""
        free: set[str] = set()
        for node in self.ir.nodes:
            random = any(word in node.op for word in _RANDOM)
            if (
                self._kind(node) == "target"
                and not random
                and all(value is None or value in self.fixed or value in free for value in node.inputs)
            ):
                free.update(node.outputs)
        return frozenset(free)

    def _levels(self) -> dict[str, int]:
        """node -> level, the least one so that what it reads lies in no later one; even levels are of one
        kind, odd ones of the other. The longest chain of changes between the kinds gives the number of
        levels, which no split can have fewer of."""
        found = [self._levels_from(first) for first in ("target", "fallback")]
        return min(found, key=lambda levels: len(set(levels.values())))

    def _levels_from(self, first: Kind) -> dict[str, int]:
        levels: dict[str, int] = {}
        for node in self.ir.nodes:
            if node.outputs and set(node.outputs) <= self.free:
                continue
            parity = 0 if self._kind(node) == first else 1
            below = [
                levels[self.producers[value].name]
                for value in node.inputs
                if value in self.producers and value not in self.free
            ]
            level = max(below, default=0)
            levels[node.name] = level + (level % 2 != parity)
        return levels

    def _kinds(self) -> tuple[Kind, ...]:
        """The kind of every part, in order; levels are renumbered so that none is empty."""
        used = {level: index for index, level in enumerate(sorted(set(self.levels.values())))}
        self.levels = {name: used[level] for name, level in self.levels.items()}
        kinds = {
            self.levels[node.name]: self._kind(node) for node in self.ir.nodes if node.name in self.levels
        }
        return tuple(kinds[index] for index in range(len(kinds))) or ("target",)

    # -- parts

    def _home(self, value: str) -> int:
        """The part that a value comes from; the last one for what no single part makes."""
        if value in self.producers and value not in self.free:
            return self.levels[self.producers[value].name]
        return len(self.kinds) - 1

    def _parts(self) -> tuple[Part, ...]:
        ir, count = self.ir, len(self.kinds)
        owners = self._owners()
        read: list[dict[str, None]] = [{} for _ in range(count)]
        for node in ir.nodes:
            if node.name in self.levels:
                read[self.levels[node.name]].update(
                    (value, None) for value in node.inputs if value is not None
                )
        for name, owner in owners.items():
            read[owner][str(ir.states[name].update)] = None
            read[owner][name] = None
        results: list[list[Output]] = [[] for _ in range(count)]
        for output in ir.outputs:
            if output.value not in ir.inputs:
                home = owners.get(output.value, self._home(output.value))
                results[home].append(output)
                read[home][output.value] = None
        copies = [self._copies(read[index]) for index in range(count)]
        needed = [
            {value: None for value in read[index] if self._is_foreign(value, index, owners)}
            for index in range(count)
        ]
        return tuple(
            self._part(index, read[index], copies[index], needed, results[index], owners)
            for index in range(count)
        )

    def _owners(self) -> dict[str, int]:
        """state placeholder -> the part that changes it."""
        changed = {
            name: state.update
            for name, state in self.ir.states.items()
            if state.update is not None and state.update != name
        }
        keys = [state.key for state in self.ir.states.values()]
        for name in changed:
            key = self.ir.states[name].key
            if keys.count(key) > 1 and len(self.kinds) > 1:
                raise CompileError(
                    f"{self.ir.name}: the state {key} is changed, and has several placeholders, which parts "
                    "cannot keep the same; register the buffer once, or use supported operations only"
                )
        return {name: self._home(update) for name, update in changed.items()}

    def _copies(self, read: Mapping[str, None]) -> list[Node]:
        """The free nodes that a part computes itself."""
        wanted = {value for value in read if value in self.free}
        found: list[Node] = []
        for node in reversed(self.ir.nodes):
            if wanted.intersection(node.outputs) and node.outputs[0] in self.free:
                found.append(node)
                wanted.update(value for value in node.inputs if value is not None)
        return found[::-1]

    def _is_foreign(self, value: str, index: int, owners: Mapping[str, int]) -> bool:
        """Whether a part must be given a value that it reads."""
        if value in self.fixed or value in self.free:
            return False
        if value in self.ir.states:
            return owners.get(value, index) < index
        return value in self.ir.inputs or self._home(value) != index

    def _part(
        self,
        index: int,
        read: Mapping[str, None],
        copies: Sequence[Node],
        needed: Sequence[Mapping[str, None]],
        results: Sequence[Output],
        owners: Mapping[str, int],
    ) -> Part:
        ir, chosen = self.ir, {node.name for node in copies}
        nodes = [node for node in ir.nodes if node.name in chosen or self.levels.get(node.name) == index]
        made = {output for node in nodes if node.name not in chosen for output in node.outputs}
        made |= {name for name, owner in owners.items() if owner == index}
        outputs = list({output.value: output for output in results}.values())
        public, names = {output.value for output in outputs}, {output.name for output in outputs}
        for later in range(index + 1, len(needed)):
            for value in needed[later]:
                if value in made and value not in public:
                    public.add(value)
                    outputs.append(Output(_unique(value, names), value))
        states = {
            name: state if owners.get(name) == index else replace(state, update=None)
            for name, state in ir.states.items()
            if name in read and name not in needed[index]
        }
        graph = subgraph(ir, nodes, needed[index], outputs, states)
        return Part(
            f"part{index}",
            self.kinds[index],
            graph,
            tuple(graph.inputs),
            tuple(output.value for output in outputs),
            tuple(self.refused[node.name] for node in nodes if node.name in self.refused),
            self.target,
        )


def _unique(name: str, taken: set[str]) -> str:
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}.{count}"
    taken.add(found)
    return found
