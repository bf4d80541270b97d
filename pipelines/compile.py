"""compile: ``<program>.ir.json`` -> ``<program>.npubin`` or its parts, its weight transforms, kernels,
dumps and provenance."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from npu_runtime.program import Transform
from pipelines.fingerprint import Observed
from pipelines.job import Job, write_atomic
from pipelines.tuning_files import tuning_of
from pipelines.yaml_source import ConfigError, suggest

if TYPE_CHECKING:
    from npu_compiler.compiler import CompileResult
    from npu_compiler.tuned import Tuning

#: Arguments of the compiler that the build sets itself.
_RESERVED = ("ir", "target", "precision", "program", "expose_values", "tuning", "start_after")


def run(job: Job) -> Observed:
    """Makes ``npubin`` (``parts`` where the configuration allows a fallback), ``transforms``, ``kernels``,
    ``dumps`` and ``build_info`` for every program, and a language model's ``token_sampler``."""
    templates: set[str] = set()
    questions: set[str] = set()
    tuning = tuning_of(job)
    ignored: set[str] = set()
    info: dict[str, Any] = {}
    for number, name in enumerate(job.programs):
        job.progress(f"compiling {name}", number, len(job.programs))
        made: list[Transform] = []
        if job.config.fallback == "allow":
            results, made = _compile_parts(job, name, tuning)
        else:
            result = _compile(job, job.ir(name), name, name, tuning)
            result.program.save(job.npubin(name))
            results = {name: result}
        for result in results.values():
            program = result.program
            made += program.transforms
            made += [Transform(f"state {state.name}", state.shape, state.dtype, state.init)
                     for state in program.states if state.init is not None]
            templates.update(result.templates)
            questions.update(answer.key for answer in result.answers)
            ignored.update(note for answer in result.answers for note in answer.ignored)
        unique = {item.name: item for item in made}
        text = msgspec.json.format(msgspec.json.encode(list(unique.values())))
        write_atomic(job.transforms(name), text + b"\n")
        info[name] = {"templates": sorted({file for result in results.values() for file in result.templates}),
                      "decisions": [line for result in results.values() for line in result.decisions],
                      "tuned": sum(answer.source != "rule" for result in results.values()
                                   for answer in result.answers),
                      "kernels": sum(len(result.program.kernels) for result in results.values()),
                      "arena_bytes": sum(result.program.arena_bytes for result in results.values())}
    if job.paths("token_sampler"):
        templates.update(_compile_sampler(job))
    job.dump_dir.mkdir(exist_ok=True)
    job.kernels_dir.mkdir(exist_ok=True)
    write_atomic(job.build_info, json.dumps({"target": job.target, "programs": info}, indent=2) + "\n")
    for note in sorted(ignored):
        job.say(f"measured choices left aside: {note}; doit tune:{job.label} measures anew")
    return Observed(templates=tuple(sorted(templates)), tuning=tuple(sorted(questions)))


def _compile_sampler(job: Job) -> tuple[str, ...]:
    """Makes ``token_sampler`` for the logits of ``decode``; gives the templates it includes."""
    from npu_compiler.compiler import load_graph
    from npu_compiler.token_sampler import token_sampler
    graph = load_graph(job.ir("decode"))
    (logits,) = (output.value for output in graph.outputs if output.name == "logits")
    batch, *_, vocabulary = graph.values()[logits].shape
    size = int(str(vocabulary))
    result = token_sampler(size, target=job.target, batch=batch if isinstance(batch, int) else 1)
    result.program.save(job.token_sampler)
    return result.templates


def _compile(job: Job, graph: Any, name: str, folder: str, tuning: Tuning) -> CompileResult:
    """Compiles a graph; its kernels and dumps go to ``folder`` in theirs."""
    from npu_compiler.compiler import compile_with_report
    result = compile_with_report(graph, target=job.target, precision=job.config.precision,
                                 program=name, tuning=tuning, **_options(job, compile_with_report))
    for file, text in result.program.kernel_sources.items():
        write_atomic(job.kernels_dir / folder / file.removeprefix("kernels/"), text)
    for index, (title, text) in enumerate(result.dumps.items()):
        stem = title if re.match(r"\d", title) else f"{index:02}-{title}"
        write_atomic(job.dump_dir / folder / f"{stem}.txt", text)
    return result


def _compile_parts(job: Job, name: str, tuning: Tuning) -> tuple[dict[str, CompileResult], list[Transform]]:
    """Splits a program, says what runs where, compiles its target parts and writes all parts. Returns the
    compiled parts, and the weights of the others."""
    from npu_compiler.compiler import load_graph
    from npu_compiler.partitioning import partition
    from npu_compiler.parts_file import save_parts
    found = partition(load_graph(job.ir(name)), target=job.target)
    write_atomic(job.parts_dir(name) / "placement.txt", found.placement())
    job.say(found.summary())
    for reason in (reason for part in found for reason in part.reasons):
        job.say(f"  {reason.node} runs with PyTorch: {reason.op}: {reason.reason}"
                + (f" ({reason.loc})" if reason.loc else ""))
    results: dict[str, CompileResult] = {}
    for part in found:
        if part.kind == "target":
            alone = len(found) == 1
            results[part.name] = _compile(job, part.ir, name if alone else f"{name}.{part.name}",
                                          name if alone else f"{name}/{part.name}", tuning)
    parts = tuple(replace(part, program=results[part.name].program) if part.name in results else part
                  for part in found)
    save_parts(replace(found, parts=parts), job.parts_dir(name))
    others = [part for part in parts if part.kind == "fallback"]
    states = [Transform(f"state {state.name}", state.shape, state.dtype, state.init)
              for part in others for state in part.states if state.init is not None]
    return results, [*(item for part in others for item in part.transforms), *states]


def _options(job: Job, compiler: Callable[..., object]) -> dict[str, Any]:
    """``compile.options``, each a keyword that the compiler has."""
    known = [name for name in inspect.signature(compiler).parameters if name not in _RESERVED]
    for name in job.config.compile.options:
        if name not in known:
            raise ConfigError(f"{job.label}: compile.options: the compiler has no option {name}"
                              f"{suggest(name, known) if known else '; it has none'}")
    return dict(job.config.compile.options)
