"""The process in which ``doit tune`` builds and runs kernels: it may hang or die without harm to the tuner.

Reads requests from standard input, a JSON object a line, and answers each with one: ``open`` isolates the
node that a question is about and runs it as the rules have it; ``measure`` compares another choice with that
and times both in turns; ``measure_program`` does so with the program that the node is part of; ``profile``
tells how long every node of a program takes. What fails without ending the process is told as ``problem``.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from npu_compiler.compiler import CompileResult, compile_with_report, load_graph
from npu_compiler.isolate import isolated
from npu_compiler.pipeline import PASSES, run_passes
from npu_compiler.spaces import Choice
from npu_compiler.target import load_target
from npu_compiler.tuned import Tuning
from npu_runtime.device import Device
from npu_runtime.dtypes import numpy_dtype
from npu_runtime.env import pin_threads
from npu_runtime.executor import Executor
from npu_runtime.program import CompiledProgram
from npu_runtime.symbols import evaluate_shape
from npu_runtime.weight_loader import Weights, load_weights
from pipelines.inputs import made_up_inputs
from pipelines.schema import Program
from torch_ir.ir import IR, TensorSpec

#: Bytes that are moved between two runs, so that weights come from main memory as they do within a model.
SCRUB = 48 << 20
#: Largest difference of a result from the rule's, relative to its largest magnitude.
TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}
DEFAULT_TOLERANCE = 2e-4
#: Runs of a program that do not count, those that do at least, and the seconds after which there are no more.
WARMUP, FEWEST, SECONDS = 3, 12, 3.0

Forced: TypeAlias = "tuple[tuple[str, Choice], ...]"


class Bench:
    """A node on a device, run as the rules have it and as somebody else chooses."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        pin_threads()
        self.device = Device(given["selector"], threads=given["threads"])
        self.target, self.options, self.sizes = given["target"], given["options"], given["sizes"]
        target = load_target(self.target)
        self.graphs = {name: run_passes(load_graph(Path(path)), target)[0]
                       for name, path in given["graphs"].items()}
        self.configs = {name: Program.model_validate_json(text) for name, text in given["programs"].items()}
        self.scrub = (self.device.allocate(SCRUB), np.zeros(SCRUB, np.uint8))

    def open(self, program: str, node: str, question: str, default: Choice,
             others: list[tuple[str, Choice]]) -> dict[str, Any]:
        """Makes the run that the others are compared with. ``others`` are choices about questions that the
        node asks beside ``question``."""
        self.program, self.graph, self.node, self.question, self.rule, self.others = (
            program, isolated(self.graphs[program], node), node, question, default, others)
        random = np.random.default_rng(0)
        self.weights = {key: draw(random, spec) for key, spec in self.graph.weights.items()}
        self.inputs = {name: draw(random, spec, self.sizes) for name, spec in self.graph.inputs.items()}
        self.default = self._runner(default)
        self.expected = self.default()[1]
        return {"asked": question in self.asked}

    def measure(self, choice: Choice, repeats: int) -> dict[str, Any]:
        """Microseconds of ``choice`` and of the rule's in turns."""
        run = self._runner(choice)
        problem = difference(self.expected, run()[1])
        if problem:
            return {"problem": problem}
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            for runner, found in ((run, times[0]), (self.default, times[1])):
                self.device.write(*self.scrub)
                found.append(runner()[0])
        return {"times": times[0], "default": times[1]}

    def build(self, choice: Choice) -> dict[str, Any]:
        """Runs ``choice`` once, so that the driver has its kernels in its cache."""
        return {"problem": difference(self.expected, self._runner(choice)()[1])}

    def profile(self, program: str) -> dict[str, Any]:
        """Microseconds of the kernels of each node of ``program``, by the rules."""
        graph = self.graphs[program]
        alone = replace(graph, nodes=tuple(replace(node, origin=(node.name,)) for node in graph.nodes))
        compiled, executor, weights, inputs = self._program(program, alone, ())
        executor.run_timed(inputs, weights)
        times: dict[str, float] = {}
        for item in executor.run_timed(inputs, weights)[1]:
            for name in compiled.steps[item.step].origin:
                times[name] = times.get(name, 0.0) + (item.end - item.start) / 1e3
        return {"times": times}

    def measure_program(self, choice: Choice) -> dict[str, Any]:
        """Microseconds of the whole program with ``choice`` and with the rule's, in turns, from inputs in
        host memory to outputs there."""
        runs = [self._program(self.program, self.graphs[self.program], self._forced(asked))
                for asked in (choice, self.rule)]
        times: tuple[list[float], list[float]] = ([], [])
        start = time.monotonic()
        while len(times[0]) < WARMUP + FEWEST or time.monotonic() - start < SECONDS:
            for (_, executor, weights, inputs), found in zip(runs, times, strict=True):
                began = time.perf_counter()
                for buffer in executor.run(inputs, weights).values():
                    buffer.to_numpy()
                found.append(1e6 * (time.perf_counter() - began))
        return {"times": times[0][WARMUP:], "default": times[1][WARMUP:]}

    def _program(self, name: str, graph: IR, forced: Forced,
                 ) -> tuple[CompiledProgram, Executor, Weights, dict[str, Any]]:
        """A whole program with made-up weights and inputs, ready to run."""
        compiled, random = self._compile(graph, forced).program, np.random.default_rng(0)
        drawn = {key: draw(random, spec) for key, spec in graph.weights.items()}
        config = self.configs.get(name)
        inputs = (made_up_inputs(config, self.sizes, (0,)) if config is not None else
                  {key: draw(random, spec, self.sizes) for key, spec in graph.inputs.items()})
        executor = Executor(compiled, self.device)
        return compiled, executor, load_weights(drawn, compiled, self.device), inputs

    def _forced(self, choice: Choice) -> Forced:
        return ((self.question, choice), *((key, other) for key, other in self.others))

    def _compile(self, graph: IR, forced: Forced) -> CompileResult:
        return compile_with_report(
            graph, target=self.target, start_after=f"{len(PASSES):02}-{PASSES[-1].__name__}",
            tuning=Tuning(forced=forced), **self.options)

    def _runner(self, choice: Choice) -> Callable[[], tuple[float, dict[str, Any]]]:
        """Compiles the node for ``choice``; the result runs it: microseconds of its kernels, and outputs."""
        result = self._compile(self.graph, self._forced(choice))
        self.asked = {answer.key for answer in result.answers}
        program = result.program
        executor, weights = Executor(program, self.device), load_weights(self.weights, program, self.device)

        def run() -> tuple[float, dict[str, Any]]:
            outputs, times = executor.run_timed(self.inputs, weights)
            spent = sum(time.end - time.start for time in times
                        if self.node in program.steps[time.step].origin)
            return spent / 1e3, {name: buffer.to_numpy() for name, buffer in outputs.items()}

        return run


def draw(random: np.random.Generator, spec: TensorSpec, sizes: Mapping[str, int] | None = None) -> Any:
    """Made-up values. Floats lie around 0, scaled so that sums of products keep their size, those of one
    dimension between 0.5 and 1.5, for they may be variances; whole numbers are 0."""
    shape = evaluate_shape(tuple(str(size) for size in spec.shape), sizes or {})
    if "float" not in spec.dtype:
        return np.zeros(shape, numpy_dtype(spec.dtype))
    if len(shape) == 1:
        return random.uniform(0.5, 1.5, shape).astype(numpy_dtype(spec.dtype))
    values = random.standard_normal(shape, np.float32) / np.float32(math.sqrt(max(1, math.prod(shape[1:]))))
    return values.astype(numpy_dtype(spec.dtype))


def difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """How ``found`` differs from ``expected`` by more than rounding; "" where it does not."""
    for name, values in expected.items():
        other, reference = found[name].astype(np.float64), values.astype(np.float64)
        allowed = TOLERANCE.get(values.dtype.name, DEFAULT_TOLERANCE)
        error = float(np.abs(other - reference).max(initial=0.0))
        if not error <= allowed * max(float(np.abs(reference).max(initial=0.0)), 1e-30):
            return f"computes something else: {name} differs by {error:.1e}"
    return ""


def main(given: Mapping[str, Any]) -> None:
    """Serves requests until standard input ends. What libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    bench = Bench(given)
    print(json.dumps({"threads": bench.device.threads}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(bench, request.pop("do"))(**request)
        except Exception as error:  # whatever a candidate does is a finding about it
            first, *_ = [*str(error).splitlines(), ""]
            answer = {"problem": f"{type(error).__name__}: {first}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
