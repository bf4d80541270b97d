"""Compiles and runs random graphs, and says where they differ from what the interpreter gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import graphs
import numpy as np
import random_graphs

from npu_compiler.compiler import compile_ir
from npu_compiler.errors import UnsupportedOpError
from npu_compiler.interpret import interpret
from npu_compiler.passes.eliminate_dead import eliminate_dead
from torch_ir import extract_ir
from torch_ir.ir import IR
from torch_ir.printer import to_text

Array = np.ndarray[Any, Any]


@dataclass
class Subject:
    """A random graph with what it is run on."""

    seed: int
    ir: IR
    inputs: dict[str, Array]
    weights: dict[str, Array]


def subject(seed: int) -> Subject:
    module, inputs = random_graphs.make(seed)
    ir = extract_ir(module, inputs, model_name=f"seed{seed}")
    given = {name: x.numpy() for name, x in zip(ir.inputs, inputs, strict=True)}
    return Subject(seed, ir, given, {name: t.numpy() for name, t in module.state_dict().items()})


def differences(subjects: Sequence[Subject], device: graphs.GuardedDevice) -> dict[int, str]:
    """What is wrong, by seed: all subjects run as one program between guard bytes."""
    prefix = {s.seed: f"seed{s.seed}" for s in subjects}
    program = compile_ir(graphs.merge({prefix[s.seed]: s.ir for s in subjects}))
    inputs = {f"{prefix[s.seed]}.{k}": a for s in subjects for k, a in s.inputs.items()}
    weights = {f"{prefix[s.seed]}.{k}": a for s in subjects for k, a in s.weights.items()}
    ran = graphs.run(program, device, inputs, weights, guarded=True)
    found = {s.seed: "; ".join(ran.damage) for s in subjects if ran.damage}
    for s in subjects:
        for name, tensor in interpret(s.ir, s.inputs, s.weights).outputs.items():
            got, expected = ran.outputs[f"{prefix[s.seed]}.{name}"], tensor.numpy()
            problem = difference(got, expected)
            if problem:
                found[s.seed] = f"{name}: {problem}"
                break
    return found


def difference(got: Array, expected: Array) -> str | None:
    """How two results differ; None where they agree to about 1e-4 of their magnitude."""
    if (got.shape, got.dtype) != (expected.shape, expected.dtype):
        return f"{got.dtype}{got.shape} instead of {expected.dtype}{expected.shape}"
    scale = max(1.0, float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))) if expected.size else 1.0
    close = np.isclose(got, expected, rtol=1e-4, atol=1e-4 * scale, equal_nan=True)
    if close.all():
        return None
    at = tuple(int(i) for i in np.argwhere(~close)[0])
    return (
        f"{int((~close).sum())} of {close.size} elements, first at {at}: {got[at]} instead of {expected[at]}"
    )


def reduced(s: Subject, device: graphs.GuardedDevice) -> Subject:
    """The same failure with as few nodes as cutting the graph behind one of its values leaves."""
    values = [value for node in s.ir.nodes for value in node.outputs]
    for value in values:
        output = replace(s.ir.outputs[0], name="cut", value=value)
        cut = eliminate_dead(replace(s.ir, outputs=(output,)), graphs.CPU)
        smaller = replace_ir(s, cut)
        try:
            if differences([smaller], device):
                return smaller
        except UnsupportedOpError:
            raise
        except Exception:  # the failure may be one of compilation
            return smaller
    return s


def replace_ir(s: Subject, ir: IR) -> Subject:
    return Subject(s.seed, ir, s.inputs, s.weights)


def told(s: Subject, problem: str) -> str:
    """A failure for a reader: the seed, what differs, and the graph."""
    return f"seed {s.seed}: {problem}\n\n{to_text(s.ir)}"
