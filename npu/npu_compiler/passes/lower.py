"""ATen operations -> ops of the registry, with no-ops dropped."""

from __future__ import annotations

from dataclasses import replace

from npu_compiler.errors import Refusal, Unsupported, UnsupportedOpError
from npu_compiler.lowering import Builder
from npu_compiler.ops import load_all
from npu_compiler.target import Target
from torch_ir.ir import IR, Node, State


def lower(ir: IR, target: Target) -> IR:
    """Rewrites every node by the lowering that claims its overload.

    Raises ``UnsupportedOpError`` with all nodes that nothing claims or that a lowering refuses.
    """
    ops, lowerings = load_all()
    specs = ir.values()
    taken = set(specs) | {node.name for node in ir.nodes}
    aliases: dict[str, str] = {}
    nodes: list[Node] = []
    refusals: list[Refusal] = []
    for extracted in ir.nodes:
        node = replace(
            extracted,
            inputs=tuple(aliases.get(v, v) if v is not None else None for v in extracted.inputs),
            origin=extracted.origin or (extracted.name,),
        )
        if node.op in ops:
            nodes.append(node)
            continue
        if node.op not in lowerings:
            refusals.append(
                Refusal(
                    node.name,
                    node.op,
                    "no lowering knows this operation",
                    node.loc,
                    "rewrite it with supported operations, or run it in a fallback part",
                )
            )
            continue
        builder = Builder(node, specs, taken)
        try:
            results = lowerings[node.op](builder, node)
        except Unsupported as error:
            refusals.append(Refusal(node.name, node.op, error.reason, node.loc, error.remedy))
            continue
        made, renamed = builder.finish([results] if isinstance(results, str) else list(results))
        nodes += made
        specs.update((output, spec) for n in made for output, spec in zip(n.outputs, n.outs, strict=True))
        aliases.update({original: aliases.get(value, value) for original, value in renamed.items()})
    if refusals:
        raise UnsupportedOpError(ir.name, tuple(refusals))
    return replace(
        ir,
        nodes=tuple(nodes),
        outputs=tuple(
            replace(output, value=aliases.get(output.value, output.value)) for output in ir.outputs
        ),
        states={name: _renamed(state, aliases) for name, state in ir.states.items()},
    )


def _renamed(state: State, aliases: dict[str, str]) -> State:
    return state if state.update is None else replace(state, update=aliases.get(state.update, state.update))
