"""docs/operators.md: what compiles, from the compiler's registry and PyTorch's list of core operations."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from npu_compiler import spectra
from npu_compiler.ops import Lowering, OpDef, load_all
from npu_compiler.ops.refused import REFUSED
from npu_compiler.passes.complex_as_pairs import RULES
from npu_compiler.schemas import line_of
from torch_ir.calling import overload

HEAD = """# Operations

Written by `python -m pipelines operators` from the registry; a test holds it to that. A model's operations
are those of its graph as `torch.export` gives it: `python -m npu_compiler coverage FILE` says for one model
which are covered, and `python -m tests.census` measures a sample of PyTorch's own test calls.
"""
#: Core operations that no graph of a program has, and why.
ELSEWHERE: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("training: a program computes no gradients", lambda op: "_backward" in op),
    ("sizes, which are expressions of a program's symbols", lambda op: op.startswith("aten.sym_")),
    (
        "writes into a given tensor: graphs are made functional when they are extracted",
        lambda op: op.endswith((".out", "_out")) or op.split(".")[1].endswith("_"),
    ),
    (
        "normalises by the batch's own statistics and keeps them, in training",
        lambda op: op.startswith("aten._native_batch_norm_legit."),
    ),
)


def document() -> str:
    """The whole text. Needs PyTorch, for its lists."""
    ops, lowerings = load_all()
    refused = {f"aten.{name}": reason for (reason, _), names in REFUSED.items() for name in names}
    lowered = {
        op: function for op, function in lowerings.items() if op.startswith("aten.") and op not in refused
    }
    core, simpler = _pytorch_lists()
    parts = [
        HEAD,
        _lowered_text(lowered, ops),
        _simpler_text(sorted(op for op in simpler - lowered.keys() - refused.keys() if not _is_fourier(op))),
        _complex_text(),
        _core_text(core, lowered.keys(), refused, simpler),
        _refused_text(),
        _records_text(ops),
    ]
    return "\n".join(parts)


def schema_lines() -> str:
    """``npu_compiler/schemas.txt``. Needs PyTorch."""
    torch: Any = importlib.import_module("torch")
    names = {op for op in load_all()[1] if op.startswith("aten.")}
    for base in RULES:
        packet = getattr(torch.ops.aten, base, None)
        kinds = packet.overloads() if packet else ()
        names |= {f"aten.{base}.{kind}" for kind in kinds if "out" not in kind}
    lines = []
    for op in sorted(names):
        try:
            schema = overload(torch, op)._schema
        except AttributeError:  # of other versions of PyTorch
            continue
        if "Tensor" in str(schema) and "Dimname" not in str(schema) and "Dict" not in str(schema):
            lines.append(line_of(op, schema))
    return "\n".join(lines) + "\n"


def _pytorch_lists() -> tuple[set[str], set[str]]:
    """The overloads of core ATen, and those that PyTorch expresses by others."""
    torch: Any = importlib.import_module("torch")
    table = importlib.import_module("torch._decomp").decomposition_table
    core, simpler = set(), {str(op) for op in table if str(op).startswith("aten.")}
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = name.partition("::")
        base, _, overload = rest.partition(".")
        if namespace != "aten" or not hasattr(torch.ops.aten, base):
            continue
        packet = getattr(torch.ops.aten, base)
        if (overload or "default") not in packet.overloads():
            continue
        op = getattr(packet, overload or "default")
        if torch.Tag.core in op.tags:
            core.add(str(op))
        if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"):
            simpler.add(str(op))
    return core, {op for op in simpler if not _never(op)}


def _never(op: str) -> bool:
    base = op.split(".")[1]
    return any(holds(op) for _, holds in ELSEWHERE) or base.startswith("__") or "generator" in op or (
        "_copy" in base or base.endswith(("_forward_ad", "_double")) or "Dimname" in op or "names" in op
    )  # fmt: skip


def _lowered_text(lowered: Mapping[str, Lowering], ops: Mapping[str, OpDef]) -> str:
    rows: dict[str, dict[tuple[str, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
    for op, function in lowered.items():
        rows[function.__module__.rpartition(".")[2]][records_of(function, ops)].append(
            op.removeprefix("aten.")
        )
    text = [
        f"## Operations with a lowering ({len(lowered)} overloads)\n",
        "By the file of `npu_compiler/ops` that lowers them, with the records (below) that they may become.",
    ]
    for family in sorted(rows):
        text += [f"\n### {family}\n", "| overloads of `aten` | records |", "|---|---|"]
        for records, names in sorted(rows[family].items(), key=lambda row: sorted(row[1])):
            text.append(f"| {_code(sorted(names))} | {_code(records) or 'none: it moves nothing'} |")
    return "\n".join(text) + "\n"


def records_of(function: Lowering, ops: Mapping[str, OpDef]) -> tuple[str, ...]:
    """The records that a lowering emits, read from its source and that of the functions it calls."""
    return tuple(sorted(_records(function, ops, set())))


def _records(function: Any, ops: Mapping[str, OpDef], seen: set[Any]) -> set[str]:
    code = getattr(function, "__code__", None)
    if code is None or code in seen or not function.__module__.startswith("npu_compiler"):
        return set()
    seen.add(code)
    known = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    found: set[str] = set()
    for call in (node for node in ast.walk(_tree(function)) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in ("emit", "emit_multi") and call.args:
            found |= {text for text in _texts(call.args[0], known) if text in ops}
        if inspect.isfunction(known.get(name)):
            found |= _records(known[name], ops, seen)
    return found


def _tree(function: Any) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (SyntaxError, OSError):  # a lambda within a call
        return ast.Module([], [])


def _texts(node: ast.AST, known: Mapping[str, Any]) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
        if isinstance(part, ast.Name):
            value = known.get(part.id)
            yield from (
                value.values() if isinstance(value, Mapping) else [value] if isinstance(value, str) else []
            )


def _simpler_text(names: list[str]) -> str:
    families: dict[str, list[str]] = defaultdict(list)
    for name in names:
        _, base, overload = name.split(".")
        families[base].append(overload)
    listed = [base if overloads == ["default"] else f"{base} ({', '.join(overloads)})"
              for base, overloads in sorted(families.items())]  # fmt: skip
    return (
        f"## Operations that PyTorch's tables take apart ({len(names)} overloads)\n\n"
        "No lowering takes these. Where PyTorch is installed when a model is compiled, its decompositions\n"
        "replace them, if the whole of what they become is covered; else they are refused.\n\n"
        + textwrap.fill(", ".join(listed), 120, break_long_words=False, break_on_hyphens=False)
        + "\n"
    )


def _is_fourier(op: str) -> bool:
    return op.split(".")[1] in spectra.RULES


def _complex_text() -> str:
    return (
        f"## Complex numbers ({len(RULES)} operations)\n\n"
        "They are taken as two real tensors, by a rule for each operation; inputs, outputs, weights and\n"
        "states may be complex. What has no rule is taken apart by PyTorch's tables, or refused.\n\n"
        + textwrap.fill(", ".join(sorted(RULES)), 120, break_long_words=False, break_on_hyphens=False)
        + "\n"
    )


def _core_text(core: set[str], lowered: Any, refused: Mapping[str, str], simpler: set[str]) -> str:
    native = {op for op in core if op in lowered or _is_fourier(op)}
    elsewhere = {op: why for op in sorted(core - native) for why, holds in ELSEWHERE if holds(op)}
    apart = (core & simpler) - native - elsewhere.keys() - refused.keys()
    rest = core - native - apart - elsewhere.keys()
    text = [
        f"## Core ATen ({len(core)} overloads)\n",
        f"{len(native)} have a lowering or a rule, {len(apart)} are taken apart by PyTorch's tables "
        f"({_code(sorted(name.removeprefix('aten.') for name in apart)) or 'none'}), {len(elsewhere)} "
        "never reach a compiler:\n",
    ]
    for why in dict.fromkeys(elsewhere.values()):
        names = sorted(op.removeprefix("aten.") for op, reason in elsewhere.items() if reason == why)
        text.append(f"- {why}: {_code(names)}")
    text.append(f"\n{len(rest)} have no native path:\n")
    for op in sorted(rest):
        text.append(f"- `{op.removeprefix('aten.')}`: {refused.get(op, 'no kernel yet')}")
    return "\n".join(text) + "\n"


def _refused_text() -> str:
    rows = ["## Refused, with the reason\n", "| reason | remedy | overloads of `aten` |", "|---|---|---|"]
    rows += [f"| {reason} | {remedy} | {_code(names)} |" for (reason, remedy), names in REFUSED.items()]
    return "\n".join(rows) + "\n"


def _records_text(ops: Mapping[str, OpDef]) -> str:
    rows = [
        f"## Records ({len(ops)})\n",
        "What the lowered graph is made of. Every record runs in the tests, with the dtypes that are named;\n"
        "float16 and bfloat16 are stored as such and computed in float32.\n",
        "| record | runs as | on weights | dtypes with cases | cases |",
        "|---|---|---|---|---|",
    ]
    for name, op in sorted(ops.items()):
        runs = "elementwise" if op.expr is not None else "view" if op.alias is not None else "kernel"
        dtypes = sorted({dtype for case in op.cases for dtype in case.dtypes})
        early = "when loaded" if op.weight_expr is not None else ""
        rows.append(f"| `{name}` | {runs} | {early} | {', '.join(dtypes)} | {len(op.cases)} |")
    return "\n".join(rows) + "\n"


def _code(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)
