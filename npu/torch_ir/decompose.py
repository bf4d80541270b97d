"""Operations -> simpler operations, by PyTorch: a whole program made functional, or nodes of a graph
replaced by what its decomposition tables say of them. PyTorch is imported when it is needed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from torch_ir.functionalize import base_name
from torch_ir.ir import IR, Node, Output, TensorSpec
from torch_ir.printer import from_text, to_text
from torch_ir.tracing import Tracing

#: How often what an operation became may itself be decomposed.
_DEPTH = 6


def make_functional(program: Any) -> Any:
    """The ``ExportedProgram`` without in-place operations, the casts of autocast regions written out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return program.run_decompositions({})


def restore_composites(nodes: Sequence[Node], outputs: Sequence[str | None]) -> list[Node]:
    """Batch-norm as the one-output operation that it was before ``make_functional``."""
    read = {name for node in nodes for name in node.inputs} | set(outputs)
    restored = []
    for node in nodes:
        if node.op == "aten._native_batch_norm_legit_no_training.default" and not read & set(
            node.outputs[1:]
        ):
            attrs = {
                "training": False,
                "momentum": node.attrs["momentum"],
                "eps": node.attrs["eps"],
                "cudnn_enabled": False,
            }
            node = replace(
                node, op="aten.batch_norm.default", attrs=attrs, outputs=node.outputs[:1], outs=node.outs[:1]
            )
        restored.append(node)
    return restored


def decomposed(ir: IR, known: frozenset[str], chosen: frozenset[str], depth: int = _DEPTH) -> IR:
    """``IR.decomposed``."""
    import torch  # noqa: F401  says at once that it is absent

    specs = ir.values()
    taken = set(specs) | {node.name for node in ir.nodes}
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    constants = dict(ir.constants)
    for node in ir.nodes:
        inputs = tuple(renamed.get(value, value) if value is not None else None for value in node.inputs)
        node = replace(node, inputs=inputs)
        body = _body(node, specs, ir.symbols, known - {node.op}, depth) if node.name in chosen else None
        if body is None:
            nodes.append(node)
            continue
        made = _Inlined(node, body, taken)
        nodes += made.nodes
        constants.update(made.constants)
        specs.update((name, spec) for n in made.nodes for name, spec in zip(n.outputs, n.outs, strict=True))
        renamed.update({name: renamed.get(value, value) for name, value in made.renamed.items()})
    outputs = tuple(replace(item, value=renamed.get(item.value, item.value)) for item in ir.outputs)
    states = {
        name: replace(state, update=state.update and renamed.get(state.update, state.update))
        for name, state in ir.states.items()
    }
    return replace(ir, nodes=tuple(nodes), outputs=outputs, states=states, constants=constants)


class _Inlined:
    """The nodes of ``body`` in place of ``node``. ``renamed``: outputs of ``node`` that are other values."""

    def __init__(self, node: Node, body: IR, taken: set[str]) -> None:
        values = dict(zip(body.inputs, _present(node), strict=True))
        made = {name for part in body.nodes for name in part.outputs}
        self.renamed: dict[str, str] = {}
        for name, output in zip(node.outputs, body.outputs, strict=True):
            if output.value in made and output.value not in values:
                values[output.value] = name
            else:
                self.renamed[name] = output.value
        self._taken, self._base = taken, node.name
        self.constants = {
            self._fresh(values, name, "constant"): item for name, item in body.constants.items()
        }
        self.nodes = []
        for part in body.nodes:
            base = base_name(part.op)
            outputs = tuple(values.get(name) or self._fresh(values, name, base) for name in part.outputs)
            self.nodes.append(
                replace(
                    part,
                    name=outputs[0] if len(outputs) == 1 else self._unique(base),
                    inputs=tuple(values[name] if name is not None else None for name in part.inputs),
                    outputs=outputs,
                    loc=node.loc,
                    origin=node.origin or (node.name,),
                )
            )
        self.renamed = {name: values[value] for name, value in self.renamed.items()}

    def _fresh(self, values: dict[str, str], name: str, base: str) -> str:
        values[name] = self._unique(base)
        return values[name]

    def _unique(self, name: str) -> str:
        found, count = f"{self._base}.{name}", 1
        while found in self._taken:
            count += 1
            found = f"{self._base}.{name}.{count}"
        self._taken.add(found)
        return found


def _present(node: Node) -> list[str]:
    return [value for value in node.inputs if value is not None]


def _body(
    node: Node,
    specs: Mapping[str, TensorSpec],
    bounds: Mapping[str, tuple[int, int]],
    known: frozenset[str],
    depth: int,
) -> IR | None:
    """What ``node`` decomposes into: a graph of known ops from its present inputs to its outputs."""
    given = {f"x{index}": specs[value] for index, value in enumerate(_present(node))}
    names = iter(given)
    inputs = tuple(None if value is None else next(names) for value in node.inputs)
    outputs = tuple(f"y{index}" for index in range(len(node.outputs)))
    alone = Node("y", node.op, inputs, outputs, node.outs, node.attrs)
    results = tuple(Output(name, name) for name in outputs)
    return _decomposition(to_text(IR("", given, results, (alone,), symbols=bounds)), known, depth)


@lru_cache(maxsize=1024)
def _decomposition(text: str, known: frozenset[str], depth: int) -> IR | None:
    """What the one node of a graph (in its text form) decomposes into, or None: PyTorch has nothing to say,
    the result holds an op that is not known, or it would hold for some sizes only."""
    ir = from_text(text)
    (node,) = ir.nodes
    if depth == 0:
        return None
    try:
        body = Tracing(ir, known).run()
        unknown = frozenset(part.name for part in body.nodes if part.op not in known)
        body = decomposed(body, known, unknown, depth - 1) if unknown else body
        body.verify("decomposition")
    except Exception:  # whatever goes wrong inside PyTorch's functions: this node has no decomposition
        return None
    specs = body.values()
    found = [(specs[output.value].shape, specs[output.value].dtype) for output in body.outputs]
    if any(part.op not in known for part in body.nodes):
        return None
    return body if found == [(spec.shape, spec.dtype) for spec in node.outs] else None
