"""``python -m torch_ir info FILE`` and ``... visualize FILE [-o FILE]``. Neither needs PyTorch."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch_ir.errors import IRError
from torch_ir.expr import product
from torch_ir.ir import IR, TensorSpec


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m torch_ir", description="Looks into IR files.")
    commands = parser.add_subparsers(dest="command", required=True)
    info_parser = commands.add_parser("info", help="print a summary")
    info_parser.add_argument("file", type=Path)
    picture_parser = commands.add_parser("visualize", help="print the graph as a Mermaid flowchart")
    picture_parser.add_argument("file", type=Path)
    picture_parser.add_argument("-o", "--output", type=Path, help="write it to this file instead")
    options = parser.parse_args(arguments)
    try:
        ir = IR.load(options.file)
    except IRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = info(ir) if options.command == "info" else mermaid(ir)
    if options.command == "visualize" and options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0


def info(ir: IR) -> str:
    """A summary for people: what goes in and out, and what is between."""
    values = ir.values()
    states = {state.key for state in ir.states.values()}
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    trained = sum(
        _count(spec) for key, spec in ir.weights.items() if key not in states and not key.endswith(buffers)
    )
    total = sum(int(spec.nbytes) for spec in ir.weights.values() if isinstance(spec.nbytes, int))
    lines = [
        f"{ir.name or '(no name)'}  (PyTorch {ir.pytorch_version or 'unknown'}, IR version {ir.ir_version})"
    ]
    lines += ["", "inputs"] + [f"  {name}: {_describe(spec)}" for name, spec in ir.inputs.items()]
    lines += ["", "outputs"] + [
        f"  {output.name}: {_describe(values[output.value])}" for output in ir.outputs
    ]
    if ir.symbols:
        lines += ["", "symbols"] + [f"  {name}: {low} to {high}" for name, (low, high) in ir.symbols.items()]
    if ir.states:
        lines += ["", "states"] + [
            f"  {state.key}: {_describe(state.spec)}, {'changed' if state.update else 'read'}"
            for state in ir.states.values()
        ]
    lines += ["", f"weights: {len(ir.weights)} tensors, {trained:,} parameters, {total:,} bytes"]
    if ir.constants:
        lines.append(
            f"constants: {len(ir.constants)} tensors, "
            f"{sum(len(constant.data) for constant in ir.constants.values()):,} bytes"
        )
    lines += ["", f"operations: {len(ir.nodes)}"]
    counts = Counter(node.op for node in ir.nodes)
    lines += [
        f"  {count:5}  {op}" for op, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return "\n".join(lines) + "\n"


def mermaid(ir: IR) -> str:
    """A Mermaid flowchart of inputs, operations, states and outputs; weights are left out."""
    ids: dict[str, str] = {}
    lines = ["flowchart TD"]

    def box(value: str, shape: tuple[str, str], *texts: str) -> None:
        ids.setdefault(value, f"n{len(set(ids.values()))}")
        label = "<br/>".join(_escape(text) for text in texts)
        lines.append(f'  {ids[value]}{shape[0]}"{label}"{shape[1]}')

    for name, spec in ir.inputs.items():
        box(name, ("([", "])"), name, _describe(spec))
    for name, state in ir.states.items():
        box(name, ("[(", ")]"), f"state {state.key}", _describe(state.spec))
    for node in ir.nodes:
        first = node.outputs[0] if node.outputs else f"node {node.name}"
        box(first, ("[", "]"), node.op, ", ".join(_describe(spec) for spec in node.outs))
        ids.update(dict.fromkeys(node.outputs, ids[first]))
        lines += [f"  {ids[value]} --> {ids[first]}" for value in dict.fromkeys(node.inputs) if value in ids]
    for output in ir.outputs:
        box(f"output {output.name}", ("([", "])"), output.name)
        if output.value in ids:
            lines.append(f"  {ids[output.value]} --> {ids[f'output {output.name}']}")
    lines += [
        f"  {ids[state.update]} -.-> {ids[name]}"
        for name, state in ir.states.items()
        if state.update in ids and state.update is not None
    ]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def _describe(spec: TensorSpec) -> str:
    return f"{spec.dtype}[{', '.join(map(str, spec.shape))}]"


def _count(spec: TensorSpec) -> int:
    count = product(spec.shape)
    return count if isinstance(count, int) else 0


if __name__ == "__main__":
    sys.exit(main())
