"""Compiles and runs random graphs, and says where they differ from PyTorch and from the interpreter."""

from __future__ import annotations

import contextlib
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import random_graphs
import torch
from random_graphs import TOLERANCE

from npu_compiler.compiler import compile_ir
from npu_compiler.coverage import refusals
from npu_compiler.errors import Refusal
from npu_compiler.interpret import interpret
from npu_compiler.passes.eliminate_dead import eliminate_dead
from npu_runtime.errors import InputError
from torch_ir import extract_ir
from torch_ir.errors import IRError
from torch_ir.ir import IR, Output, TensorSpec
from torch_ir.printer import from_text, to_text

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Any]
NODES = range(5, 31)


@dataclass
class Subject:
    """A graph with what it is run on, and what eager PyTorch gives: one entry per size."""

    name: str
    ir: IR
    inputs: tuple[Arrays, ...]
    weights: Arrays
    eager: tuple[Arrays, ...] = ()
    excluded: tuple[Arrays, ...] = ()
    """Inputs of sizes that the graph's guards exclude: the program must refuse them."""
    refused: tuple[Refusal, ...] = ()
    """What attempts before this one were refused for."""


def subject(seed: int) -> Subject:
    """The random graph of ``seed``: 5 to 30 nodes, all of them supported."""
    refused: list[Refusal] = []
    for attempt in range(100):
        made = random_graphs.make(seed, attempt)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ir = extract_ir(
                    made.module,
                    made.inputs[0],
                    model_name=f"seed{seed}",
                    dynamic_shapes=made.dynamic_shapes(),
                )
        except IRError:
            if not made.symbolic:
                raise
            continue  # a step fixes the size that was to be symbolic
        if len(ir.nodes) not in NODES:
            continue
        why_not = refusals(ir, graphs.CPU)
        if why_not:
            refused += why_not
            continue
        inputs, excluded = by_guards(ir, [dict(zip(ir.inputs, given, strict=True)) for given in made.inputs])
        with torch.no_grad():
            eager = tuple(
                dict(zip((o.name for o in ir.outputs), made.module(*given.values()), strict=True))
                for given in inputs
            )
        return Subject(f"seed{seed}", ir, inputs, made.module.state_dict(), eager, excluded, tuple(refused))
    raise AssertionError(f"seed {seed} gives no graph that is supported: {refused}")


def by_guards(ir: IR, sizes: Sequence[Arrays]) -> tuple[tuple[Arrays, ...], tuple[Arrays, ...]]:
    """The inputs whose sizes keep ``ir``'s guards, and those whose sizes do not."""

    def kept(given: Arrays) -> bool:
        values = {
            str(dim): size
            for name, spec in ir.inputs.items()
            for dim, size in zip(spec.shape, given[name].shape, strict=True)
            if str(dim) in ir.symbols
        }
        return all(guard.holds(values) for guard in ir.guards)

    fits = [kept(given) for given in sizes]
    inputs = tuple(given for given, fit in zip(sizes, fits, strict=True) if fit)
    return inputs, tuple(given for given, fit in zip(sizes, fits, strict=True) if not fit)


def differences(
    subjects: Sequence[Subject], device: graphs.GuardedDevice, *, interpreted: bool = True
) -> dict[str, str]:
    """What is wrong, by name: subjects with the same symbols and guards run as one program between guard
    bytes, at each of their sizes. Results are compared with eager PyTorch's where these are known, and with
    what the interpreter gives for the graph as extracted and after all passes."""
    groups: dict[Any, list[Subject]] = {}
    for s in subjects:
        groups.setdefault((bool(s.ir.symbols), s.ir.guards), []).append(s)
    found: dict[str, str] = {}
    for group in groups.values():
        found.update(_differences(group, device, interpreted))
    return found


def _differences(
    subjects: Sequence[Subject], device: graphs.GuardedDevice, interpreted: bool
) -> dict[str, str]:
    program = compile_ir(graphs.merge({s.name: s.ir for s in subjects}))
    weights = {f"{s.name}.{k}": graphs.array(t) for s in subjects for k, t in s.weights.items()}
    found: dict[str, str] = {}
    passed = {s.name: graphs.passed(s.ir) for s in subjects} if interpreted else {}
    for size in range(len(subjects[0].excluded)):
        with contextlib.suppress(InputError):
            graphs.run(program, device, _given(subjects, [s.excluded[size] for s in subjects]), weights)
            found.update({s.name: f"runs at size {size} of those that its guards exclude" for s in subjects})
    for size in range(len(subjects[0].inputs)):
        inputs = _given(subjects, [s.inputs[size] for s in subjects])
        ran = graphs.run(program, device, inputs, weights, guarded=True)
        for s in subjects:
            tolerances = _tolerances(s.ir)
            if ran.damage:
                found.setdefault(s.name, "; ".join(ran.damage))
            got = {o.name: ran.outputs[f"{s.name}.{o.name}"] for o in s.ir.outputs}
            wanted = list(_wanted(s, size, passed.get(s.name)))
            for source, expected in wanted:
                for name, tensor in expected.items():
                    problem = difference(got[name], graphs.array(tensor), tolerances[name])
                    if problem:
                        found.setdefault(s.name, f"{name} at size {size} against {source}: {problem}")
    return found


def _given(subjects: Sequence[Subject], inputs: Sequence[Arrays]) -> Arrays:
    return {
        f"{s.name}.{k}": graphs.array(t)
        for s, given in zip(subjects, inputs, strict=True)
        for k, t in given.items()
    }


def _wanted(s: Subject, size: int, passed: IR | None) -> Iterator[tuple[str, Arrays]]:
    if s.eager:
        yield "PyTorch", s.eager[size]
    yield "the interpreter", interpret(s.ir, s.inputs[size], s.weights).outputs
    if passed is not None:
        yield "the interpreter after all passes", interpret(passed, s.inputs[size], s.weights).outputs


def _tolerances(ir: IR) -> dict[str, float]:
    """By output, the tolerance of the least precise dtype among the floating-point values it comes from: a
    float32 gelu added to a float64 number is no more exact than float32."""
    known = {name: TOLERANCE.get(getattr(torch, spec.dtype), 0.0) for name, spec in ir.values().items()}
    for node in ir.nodes:
        read = max((known[name] for name in node.inputs if name is not None), default=0.0)
        known.update((name, max(known[name], read)) for name in node.outputs)
    return {output.name: known[output.value] for output in ir.outputs}


def difference(got: Array, expected: Array, tolerance: float = 0.0) -> str | None:
    """How two results differ; None where they agree to ``tolerance`` (at least that of their dtype), whole
    numbers and truth values exactly."""
    if (got.shape, got.dtype) != (expected.shape, expected.dtype):
        return f"{got.dtype}{got.shape} instead of {expected.dtype}{expected.shape}"
    if expected.dtype.kind in "iub":
        close = np.asarray(got == expected)
    else:
        tolerance = max(tolerance, TOLERANCE[getattr(torch, str(expected.dtype))])
        wide, exact = got.astype(np.float64), expected.astype(np.float64)
        scale = max(1.0, float(np.sqrt(np.mean(np.square(exact))))) if exact.size else 1.0
        close = np.isclose(wide, exact, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    if close.all():
        return None
    at = tuple(int(i) for i in np.argwhere(~close)[0])
    return (
        f"{int((~close).sum())} of {close.size} elements, first at {at}: {got[at]} instead of {expected[at]}"
    )


def named_case(path: Path) -> Subject:
    """A graph that once failed: its text, with inputs and weights drawn anew (truth values and whole numbers
    too), at two sizes where it has a symbol."""
    ir = from_text(path.read_text(encoding="utf-8"))
    rng = np.random.default_rng(zlib.crc32(path.stem.encode()))

    def draw(spec: TensorSpec, size: int) -> torch.Tensor:
        dtype = getattr(torch, spec.dtype)
        shape = graphs.concrete(spec.shape, dict.fromkeys(ir.symbols, size))
        values = torch.from_numpy(np.asarray(rng.standard_normal(shape)))
        return (
            values > 0
            if dtype == torch.bool
            else (values if dtype.is_floating_point else values * 9).to(dtype)
        )

    sizes = (3, 1, 2) if ir.guards else (3, 1) if ir.symbols else (0,)
    inputs, excluded = by_guards(
        ir, [{name: draw(spec, size) for name, spec in ir.inputs.items()} for size in sizes]
    )
    weights = {key: draw(spec, 0) for key, spec in ir.weights.items()}
    return Subject(path.stem, ir, inputs, weights, excluded=excluded)


def told(s: Subject, problem: str) -> str:
    """A failure for a reader: the seed, what differs, and the graph as a named case would hold it."""
    return f"{s.name}: {problem}\n\n{to_text(s.ir)}"


def reduced(s: Subject, device: graphs.GuardedDevice) -> Subject:
    """The same kind of failure with fewer nodes: only one output; the graph cut behind the first value that
    is wrong; then, as long as it still fails, nodes replaced by inputs with the values that they have."""
    crash = failure(s, device)
    values = _all_values(s)

    def fails(smaller: Subject) -> bool:
        problem = failure(smaller, device)
        return problem is not None and problem.partition(":")[0] == str(crash).partition(":")[0]

    for value in [value for node in s.ir.nodes for value in node.outputs]:
        smaller = cut_behind(s, value)
        if fails(smaller):
            s = smaller
            break
    for node in reversed(s.ir.nodes[:-1]):
        for value in node.outputs:
            if value not in s.ir.values() or value in s.ir.inputs or s.ir.outputs[0].value == value:
                continue
            smaller = with_input(s, value, values)
            if smaller is not None and fails(smaller):
                s = smaller
    return s


def failure(s: Subject, device: graphs.GuardedDevice) -> str | None:
    """What is wrong with one subject: what differs, or the exception that it raises."""
    try:
        problem = differences([replace(s, eager=())], device).get(s.name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None if problem is None else f"difference: {problem}"


def cut_behind(s: Subject, value: str) -> Subject:
    ir = eliminate_dead(replace(s.ir, outputs=(Output("cut", value),)), graphs.CPU)
    return replace(s, ir=ir, eager=())


def with_input(s: Subject, value: str, values: Sequence[Arrays]) -> Subject | None:
    """The subject with ``value`` as an input instead of a result; None where its sizes would tell no symbol's
    value, or nothing would go."""
    spec = s.ir.values()[value]
    nodes = tuple(node for node in s.ir.nodes if value not in node.outputs)
    if any(len(node.outputs) > 1 and value in node.outputs for node in s.ir.nodes):
        return None
    if any(not isinstance(dim, int) and str(dim) not in s.ir.symbols for dim in spec.shape):
        return None
    ir = replace(s.ir, inputs={**s.ir.inputs, value: spec}, nodes=nodes)
    ir = eliminate_dead(ir, graphs.CPU)
    read = {name for node in ir.nodes for name in node.inputs} | ir.results()
    kept = {name for name in ir.inputs if name in read}
    told = {str(dim) for name in kept for dim in ir.inputs[name].shape}
    if not ir.symbols.keys() <= told:
        return None
    ir = replace(ir, inputs={name: spec for name, spec in ir.inputs.items() if name in kept})
    inputs = tuple(
        {name: {**given, **known}[name] for name in sorted(kept)}
        for given, known in zip(s.inputs, values, strict=True)
    )
    return replace(s, ir=ir, inputs=inputs, eager=())


def _all_values(s: Subject) -> list[Arrays]:
    """Every value of the graph, per size."""
    outputs = tuple(Output(value, value) for node in s.ir.nodes for value in node.outputs)
    whole = replace(s.ir, outputs=outputs)
    return [interpret(whole, given, s.weights).outputs for given in s.inputs]
