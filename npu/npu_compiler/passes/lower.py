"""ATen operations -> ops of the registry, with no-ops dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from npu_compiler.dtypes import SHORT
from npu_compiler.errors import Refusal, Unsupported, UnsupportedOpError
from npu_compiler.lowering import Builder
from npu_compiler.ops import Lowering, load_all
from npu_compiler.target import Target
from torch_ir.ir import IR, Node, Output, State, TensorSpec


def lower(ir: IR, target: Target) -> IR:
    """Rewrites every node by the lowering that claims its overload.

    Raises ``UnsupportedOpError`` with all nodes that nothing claims or that a lowering refuses.
    """
    lowered, refusals = lower_known(ir)
    if refusals:
        raise UnsupportedOpError(ir.name, refusals)
    return lowered


def lower_known(ir: IR) -> tuple[IR, tuple[Refusal, ...]]:
    """``lower`` for the nodes that can be, and why the others cannot.

    What a refused node makes is an input of the graph that comes back; what nodes make for it is an output.
    """
    ops, lowerings = load_all()
    specs = ir.values()
    taken = set(specs) | {node.name for node in ir.nodes}
    aliases: dict[str, str] = {}
    nodes: list[Node] = []
    refusals: list[Refusal] = []
    lost: dict[str, TensorSpec] = {}
    wanted: dict[str, None] = {}
    for extracted in ir.nodes:
        node = replace(
            extracted,
            inputs=tuple(aliases.get(v, v) if v is not None else None for v in extracted.inputs),
            origin=extracted.origin or (extracted.name,),
        )
        if node.op in ops:
            nodes.append(node)
            continue
        builder = Builder(node, specs, taken)
        try:
            results = _lowering(node, specs, lowerings)(builder, node)
        except Unsupported as error:
            refusals.append(Refusal(node.name, node.op, error.reason, node.loc, error.remedy))
            lost.update(zip(node.outputs, node.outs, strict=True))
            wanted.update((value, None) for value in node.inputs if value is not None)
            continue
        made, renamed = builder.finish([results] if isinstance(results, str) else list(results))
        nodes += made
        specs.update((output, spec) for n in made for output, spec in zip(n.outputs, n.outs, strict=True))
        aliases.update({original: aliases.get(value, value) for original, value in renamed.items()})
    outputs = [replace(output, value=aliases.get(output.value, output.value)) for output in ir.outputs]
    if lost:
        produced = {output for node in nodes for output in node.outputs}
        outputs = [output for output in outputs if output.value not in lost]
        outputs += [Output(f"{value}:read by a refused node", value) for value in wanted if value in produced]
    states = {name: _renamed(state, aliases, lost) for name, state in ir.states.items()}
    lowered = replace(
        ir, inputs={**ir.inputs, **lost}, nodes=tuple(nodes), outputs=tuple(outputs), states=states
    )
    return lowered, tuple(refusals)


def _lowering(node: Node, specs: Mapping[str, TensorSpec], lowerings: Mapping[str, Lowering]) -> Lowering:
    if node.op not in lowerings:
        raise Unsupported(
            "no lowering knows this operation",
            "rewrite it with supported operations, or run it in a fallback part",
        )
    dtypes = [specs[value].dtype for value in node.inputs if value is not None]
    for dtype in (*dtypes, *(spec.dtype for spec in node.outs)):
        if dtype not in SHORT:
            raise Unsupported(f"values of dtype {dtype}", f"use one of {', '.join(SHORT)}")
    return lowerings[node.op]


def _renamed(state: State, aliases: Mapping[str, str], lost: Mapping[str, TensorSpec]) -> State:
    update = aliases.get(state.update, state.update) if state.update is not None else None
    return replace(state, update=None if update in lost else update)
