"""Which nodes may write into the memory of the tensor that they change, instead of into a copy of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping

from npu_compiler.ops import op_def
from torch_ir.ir import IR, Node


def in_place(ir: IR, constants: Container[str]) -> frozenset[str]:
    """The names of nodes whose first input nothing reads any more once they have run, in whatever shape.

    That input is a value made before, which is no result of the program; or a state's old value, where what
    the node makes of it is the state's next one, perhaps after other such changes.
    """
    producers = {output: node for node in ir.nodes for output in node.outputs}

    def root(value: str) -> str:
        """The value whose memory ``value`` looks at."""
        node = producers.get(value)
        while node is not None and op_def(node.op).alias is not None and node.inputs[0] is not None:
            value = node.inputs[0]
            node = producers.get(value)
        return value

    last = _last_reads(ir, root)

    def changed(node: Node) -> str | None:
        """The root of the value that the node changes, where it is the last to read it."""
        if not op_def(node.op).updates:
            return None
        first, *others = [root(value) for value in node.inputs if value is not None]
        return first if last[first] == node.name and first not in others else None

    ends = {root(value) for value in ir.results()}
    found = {
        node.name
        for node in ir.nodes
        if (value := changed(node)) in producers
        and value not in constants
        and not {value, *node.outputs} & ends
    }
    outputs = {root(output.value) for output in ir.outputs}
    updates = {name: root(state.update) for name, state in ir.states.items() if state.update is not None}
    shared = Counter(updates.values())
    for placeholder, value in updates.items():
        if value not in outputs and shared[value] == 1:
            found |= _chain(value, placeholder, producers, changed)
    return frozenset(found)


def _last_reads(ir: IR, root: Callable[[str], str]) -> dict[str, str]:
    """Root -> the name of the last node that reads its memory; looking differently at it is not reading."""
    last: dict[str, str] = {}
    for node in ir.nodes:
        if op_def(node.op).alias is None:
            last.update((root(value), node.name) for value in node.inputs if value is not None)
    return last


def _chain(
    value: str, placeholder: str, producers: Mapping[str, Node], changed: Callable[[Node], str | None]
) -> set[str]:
    """The nodes that make a state's next value out of its old one, if they all may do so in its memory."""
    names: set[str] = set()
    while value != placeholder:
        node = producers.get(value)
        before = None if node is None else changed(node)
        if node is None or before is None:
            return set()
        names.add(node.name)
        value = before
    return names
