"""``compile_ir``: graph in, executable program out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from npu_compiler import memory
from npu_compiler.coverage import refusals
from npu_compiler.emit import Emitter
from npu_compiler.emitted import Emitted, Options
from npu_compiler.errors import CompileError, UnsupportedOpError
from npu_compiler.output_bounds import output_bounds
from npu_compiler.pipeline import MISSED, run_passes
from npu_compiler.render import PRELUDE, render, template_closure
from npu_compiler.select import BufferUse, KernelCall, Param, ScalarUse
from npu_compiler.target import Target, load_target
from npu_compiler.tuned import Answer, Tuning
from npu_compiler.weights import state_spec
from npu_runtime.npubin import digest
from npu_runtime.program import (
    FORMAT_VERSION,
    Arg,
    Buffer,
    BufferArg,
    CompiledProgram,
    Guard,
    IOSpec,
    Kernel,
    ScalarArg,
    Step,
    StepCost,
    Symbol,
)
from torch_ir.expr import Dim, bounds_of
from torch_ir.ir import IR, Output
from torch_ir.serialize import ir_from_dict

#: The dtypes that a program's arithmetic can be asked to have.
PRECISIONS = ("float32", "float16", "bfloat16")
_ERF = re.compile(r"\bnpu_erf_(\w+)\(")


@dataclass(frozen=True)
class CompileResult:
    """A program, and how it came to be: the template files read, the choices made (in words, and those about
    kernels with their questions), the graph after each pass."""

    program: CompiledProgram
    templates: tuple[str, ...]
    decisions: tuple[str, ...]
    answers: tuple[Answer, ...]
    dumps: Mapping[str, str]


def compile_ir(
    ir: IR | str | Path | Mapping[str, Any],
    *,
    target: str = "cpu",
    precision: str | None = None,
    program: str = "main",
    expose_values: bool = False,
    winograd: bool = True,
    fuse_depthwise: bool = True,
    check_indices: bool = True,
    tuning: Tuning | None = None,
) -> CompiledProgram:
    """Compiles a graph for a target.

    ``ir`` is an ``IR``, the path of an IR file or the file's content as a dict. ``precision``: the dtype
    that the graph must compute in ("float32", "float16", "bfloat16"; None: any); it is chosen at extraction.
    ``program`` is the name among the model's programs. With ``expose_values`` every value that survives
    fusion is an output as well, under its name in the graph. ``winograd``: whether 3x3 convolutions may use
    Winograd's forms where they pay, ``fuse_depthwise``: whether a convolution and the depthwise one behind
    it may be one kernel where that pays. ``check_indices``: whether a run raises an error where an index is
    out of range (reading or writing elsewhere is impossible either way). ``tuning``: measured choices about
    kernels (``npu_compiler.tuned.load_tuning``); without it, rules choose.

    Raises ``UnsupportedOpError`` listing all nodes that cannot be compiled, ``IRError`` for a malformed graph
    and ``CompileError`` for anything else.
    """
    return compile_with_report(
        ir,
        target=target,
        precision=precision,
        program=program,
        expose_values=expose_values,
        winograd=winograd,
        fuse_depthwise=fuse_depthwise,
        check_indices=check_indices,
        tuning=tuning,
    ).program


def compile_with_report(
    ir: IR | str | Path | Mapping[str, Any],
    *,
    target: str = "cpu",
    precision: str | None = None,
    program: str = "main",
    expose_values: bool = False,
    winograd: bool = True,
    fuse_depthwise: bool = True,
    check_indices: bool = True,
    tuning: Tuning | None = None,
    start_after: str | None = None,
) -> CompileResult:
    """``compile_ir`` with the templates, choices and intermediate graphs. ``start_after`` names the pass
    after which ``ir`` was taken. Raises the same errors."""
    if precision not in (None, *PRECISIONS):
        raise CompileError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    graph = load_graph(ir)
    graph.verify()
    graph = graph.checked()
    _check_precision(graph, precision)
    device = load_target(target)
    try:
        lowered, dumps = run_passes(graph, device, start_after=start_after)
        if expose_values:
            lowered = _expose(lowered)
        options = Options(winograd, fuse_depthwise, check_indices)
        emitter = Emitter(lowered, device, options, tuning or Tuning())
        emitter.run()
    except UnsupportedOpError as error:
        # it knows the nodes that one stage of the compiler refuses; a reader wants all of them at once
        raise UnsupportedOpError(
            graph.name, (start_after is None and refusals(graph, device)) or error.refusals
        ) from None
    emitted = emitter.result()
    built = assemble(lowered, emitted, device, program)
    templates = template_closure([PRELUDE, *(call.template for call in emitted.calls)])
    missed = tuple(line for look in MISSED for line in look(lowered))
    decisions = (*map(str, emitted.answers), *emitted.decisions, *missed)
    return CompileResult(built, templates, decisions, emitted.answers, dumps)


def _check_precision(graph: IR, precision: str | None) -> None:
    """Raises ``CompileError`` unless the floating-point weights (without any: the inputs) are ``precision``,
    by most of their elements."""
    elements = dict.fromkeys(PRECISIONS, 0)
    for spec in (graph.weights or graph.inputs).values():
        if spec.dtype in elements:
            elements[spec.dtype] += bounds_of(spec.numel, graph.symbols)[1]
    found = max(elements, key=lambda dtype: elements[dtype])
    if precision is not None and elements[found] and found != precision:
        raise CompileError(
            f"{graph.name} was asked for in {precision}, and its graph computes in {found}: extract the "
            f"module in {precision} (by factory_args, or model.to(torch.{precision})), or leave precision out"
        )


def load_graph(ir: IR | str | Path | Mapping[str, Any]) -> IR:
    """The graph itself, from a file or from a file's content."""
    if isinstance(ir, IR):
        return ir
    return IR.load(ir) if isinstance(ir, (str, Path)) else ir_from_dict(ir)


def _expose(ir: IR) -> IR:
    known = {output.name for output in ir.outputs}
    extra = [Output(value, value) for node in ir.nodes for value in node.outputs if value not in known]
    return replace(ir, outputs=(*ir.outputs, *extra))


def assemble(ir: IR, emitted: Emitted, target: Target, program: str) -> CompiledProgram:
    """Plans memory, renders the kernels and puts the program together."""
    lifetimes = _lifetimes(ir, emitted)
    offsets, arena = memory.plan(lifetimes)
    memory.check(lifetimes, offsets, arena)
    sources, kernels = _render(emitted.calls)
    transforms = tuple(emitted.transforms[name] for name in sorted(emitted.transforms))
    buffers = []
    for name, info in sorted(emitted.buffers.items()):
        life = lifetimes.get(name)
        size = info.nbytes if life is None else life.nbytes
        buffers.append(
            Buffer(
                name,
                info.kind,  # type: ignore[arg-type]
                _dim(size),
                info.ref,
                offsets.get(name, 0),
                life.first if life else 0,
                life.last if life else 0,
            )
        )
    values = ir.values()
    return CompiledProgram(
        format_version=FORMAT_VERSION,
        model=ir.name,
        program=program,
        target=target.name,
        profile=target.profile,
        device_type=target.device_type,
        options=target.options,
        symbols=tuple(Symbol(name, low, high) for name, (low, high) in ir.symbols.items()),
        guards=tuple(
            Guard(_dim(guard.left), _dim(guard.right), guard.relation)  # type: ignore[arg-type]
            for guard in ir.guards
        ),
        input_specs=tuple(
            IOSpec(name, _dims(spec.shape), spec.dtype, *emitted.input_bounds.get(name, (None, None)))
            for name, spec in ir.inputs.items()
        ),
        output_specs=tuple(
            IOSpec(
                output.name,
                _dims(values[output.value].shape),
                values[output.value].dtype,
                *output_bounds(ir, output.value),
            )
            for output in ir.outputs
        ),
        states=tuple(state_spec(state) for state in ir.states.values()),
        transforms=transforms,
        transform_digest=digest(transforms),
        arena_bytes=arena,
        buffers=tuple(buffers),
        kernels=kernels,
        steps=tuple(_step(call) for call in emitted.calls),
        kernel_sources=sources,
    )


def _lifetimes(ir: IR, emitted: Emitted) -> dict[str, memory.Lifetime]:
    spans: dict[str, tuple[int, int]] = {}
    for index, call in enumerate(emitted.calls):
        for use in call.args:
            if isinstance(use, BufferUse) and emitted.buffers[use.buffer].kind == "scratch":
                spans[use.buffer] = (spans.get(use.buffer, (index, index))[0], index)
    return {
        name: memory.Lifetime(bounds_of(emitted.buffers[name].nbytes, ir.symbols)[1], first, last)
        for name, (first, last) in spans.items()
    }


def _render(calls: tuple[KernelCall, ...]) -> tuple[dict[str, str], tuple[Kernel, ...]]:
    entries = {call.entry: call for call in calls}
    texts = {entry: render(call.template, {"entry": entry, **call.params}) for entry, call in entries.items()}
    used = {"fp64": "double", "power": "npu_power", "gcd": "npu_gcd"}
    used |= {f"special_{real}": f"npu_{real}_" for real in ("float", "double")}
    wanted: dict[str, Param] = {
        name: any(word in text for text in texts.values()) for name, word in used.items()
    }
    wanted["erf"] = sorted({kind for text in texts.values() for kind in _ERF.findall(text)})
    sources = {"kernels/_prelude.cl": render(PRELUDE, wanted)}
    kernels = []
    for entry, text in texts.items():
        name = f"kernels/{entry}.cl"
        sources[name] = text
        kernels.append(Kernel(entry, name, hashlib.sha256(text.encode()).hexdigest()))
    return sources, tuple(kernels)


def _step(call: KernelCall) -> Step:
    cost = StepCost(_dim(call.cost.flops), _dim(call.cost.bytes_read), _dim(call.cost.bytes_written))
    return Step(
        call.entry,
        tuple(_arg(use) for use in call.args),
        _dims(call.global_size),
        call.local_size,
        call.origin,
        cost,
    )


def _arg(use: BufferUse | ScalarUse) -> Arg:
    if isinstance(use, BufferUse):
        return BufferArg(use.buffer, use.access)  # type: ignore[arg-type]
    return ScalarArg(_dim(use.value), use.ctype)  # type: ignore[arg-type]


def _dim(dim: Dim) -> int | str:
    return dim if isinstance(dim, int) else str(dim)


def _dims(dims: tuple[Dim, ...]) -> tuple[int | str, ...]:
    return tuple(_dim(dim) for dim in dims)
