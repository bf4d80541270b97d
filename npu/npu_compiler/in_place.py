"""What nodes may write into the memory of the tensor that they change, instead of into a copy of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping

from npu_compiler.ops import op_def
from torch_ir.ir import IR, Node


def in_place(ir: IR, constants: Container[str]) -> frozenset[str]:
    """The outputs of nodes that change parts of an input, or write over one, which nothing reads any more
    once they have run, in whatever shape.

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

    def changed(value: str) -> str | None:
        """The root of the value that a node changes to make ``value``, where it is the last to read it."""
        node = producers[value]
        place, over = node.outputs.index(value), op_def(node.op).over
        if over is not None and len(node.inputs) > over and node.inputs[over] is not None:
            place = over
        elif place >= op_def(node.op).updates:
            return None
        read = [root(given) for given in node.inputs if given is not None]
        first = root(str(node.inputs[place]))
        return first if last[first] == node.name and read.count(first) == 1 else None

    ends = {root(value) for value in ir.results()}
    found = {
        value
        for value in producers
        if (before := changed(value)) in producers
        and before not in constants
        and not {before, value} & ends
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
    value: str, placeholder: str, producers: Mapping[str, Node], changed: Callable[[str], str | None]
) -> set[str]:
    """The values between a state's old value and its next one, if all may be made in its memory."""
    found: set[str] = set()
    while value != placeholder:
        before = changed(value) if value in producers else None
        if before is None:
            return set()
        found.add(value)
        value = before
    return found
