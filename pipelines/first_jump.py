"""Where an error first appears: every value of a program against PyTorch's, in the order of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.inputs import Array
from pipelines.job import Job
from pipelines.metrics import error_stats
from torch_ir.ir import IR, Node

if TYPE_CHECKING:
    from pipelines.reference import Reference
    from pipelines.verify import Compiled

#: A value's error jumps if it is so many times that of everything it is made of.
JUMP = 10.0
#: Errors up to this, relative to the largest value, are float32's rounding.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Jump:
    """The first node whose result is much further off than what it reads. Errors are relative."""

    node: str
    op: str
    loc: str
    error: float
    before: float

    def __str__(self) -> str:
        place = f"{self.op}, {self.loc}" if self.loc else self.op
        return (
            f"The error first jumps at {self.node} ({place}): {self.error:.1e}, "
            f"after {self.before:.1e} in what it reads"
        )


def first_jump(
    job: Job,
    compiled: Compiled,
    reference: Reference,
    program: str,
    inputs: Mapping[str, Mapping[str, Array]],
) -> Jump | None:
    """Runs ``program`` once more with all its values as outputs, after the programs before it, and compares
    each with PyTorch's. ``inputs`` holds those of every program up to it."""
    from safetensors.numpy import load_file

    from npu_compiler import compile_ir
    from npu_runtime.errors import WeightsMismatchError
    from npu_runtime.executor import Executor
    from npu_runtime.weight_loader import load_weights
    from torch_ir import eager

    ir = IR.load(job.ir(program))
    options: Mapping[str, Any] = job.config.compile.options
    exposed = compile_ir(ir, target=job.target, precision=job.config.precision, expose_values=True, **options)
    try:
        weights = load_weights(job.prepared_weights, exposed, compiled.device)
    except WeightsMismatchError:  # more outputs can mean less fusion, and other transforms
        weights = load_weights(job.source_weights, exposed, compiled.device)
    reference.reset()
    for name in inputs:
        if name != program:
            compiled.executors[name].run(inputs[name], weights)
            reference.call(job.config.programs[name].method, inputs[name])
    buffers = reference.states()
    states = {state.key: buffers[state.key] for state in ir.states.values() if state.key in buffers}
    found = {
        name: buffer.to_numpy()
        for name, buffer in Executor(exposed, compiled.device).run(inputs[program], weights).items()
    }
    expected = eager.run(ir, inputs[program], load_file(job.source_weights), states, keep_values=True).values
    errors = {}
    for output in exposed.output_specs:
        value = next((item.value for item in ir.outputs if item.name == output.name), output.name)
        if value in expected:
            stats = error_stats(found[output.name], expected[value].float().numpy())
            errors[value] = float("inf") if stats.mismatched else stats.max_relative
    return find_jump(ir, errors, floor=max(ROUNDING, job.config.verify.max_relative_error / 10))


def find_jump(ir: IR, errors: Mapping[str, float], floor: float = ROUNDING) -> Jump | None:
    """The first node with an output in ``errors`` (value -> relative error) that is above ``floor`` and above
    ``JUMP`` times the errors of what it is made of; values that are not in ``errors`` pass on what they
    read."""
    carried: dict[str, float] = {}
    for node in ir.nodes:
        before = max((carried.get(value, 0.0) for value in node.inputs if value is not None), default=0.0)
        known = [errors[value] for value in node.outputs if value in errors]
        error = max(known, default=before)
        if known and error > max(floor, before * JUMP):
            return _jump(node, error, before)
        carried.update(dict.fromkeys(node.outputs, error))
    return None


def _jump(node: Node, error: float, before: float) -> Jump:
    return Jump(node.name, node.op, node.loc, error, before)
