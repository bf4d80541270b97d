"""compile: ``<program>.ir.json`` -> ``<program>.npubin``, its weight transforms, kernels, dumps and
provenance."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from npu_runtime.program import Transform
from pipelines.fingerprint import Observed
from pipelines.job import Job, write_atomic
from pipelines.yaml_source import ConfigError, suggest

#: Arguments of the compiler that the build sets itself.
_RESERVED = ("ir", "target", "precision", "program", "expose_values")


def run(job: Job) -> Observed:
    """Makes ``npubin``, ``transforms``, ``kernels``, ``dumps`` and ``build_info`` for every program."""
    from npu_compiler.compiler import compile_with_report
    templates: set[str] = set()
    info: dict[str, Any] = {}
    for number, name in enumerate(job.programs):
        job.progress(f"compiling {name}", number, len(job.programs))
        result = compile_with_report(job.ir(name), target=job.target, precision=job.config.precision,
                                     program=name, **_options(job, compile_with_report))
        program = result.program
        program.save(job.npubin(name))
        made = (*program.transforms, *(Transform(f"state {state.name}", state.shape, state.dtype, state.init)
                                       for state in program.states if state.init is not None))
        write_atomic(job.transforms(name), msgspec.json.format(msgspec.json.encode(made)) + b"\n")
        for file, text in program.kernel_sources.items():
            write_atomic(job.kernels_dir / name / file.removeprefix("kernels/"), text)
        for index, (title, text) in enumerate(result.dumps.items()):
            stem = title if re.match(r"\d", title) else f"{index:02}-{title}"
            write_atomic(job.dump_dir / name / f"{stem}.txt", text)
        templates.update(result.templates)
        info[name] = {"templates": sorted(result.templates), "decisions": list(result.decisions),
                      "kernels": len(program.kernels), "arena_bytes": program.arena_bytes}
    job.dump_dir.mkdir(exist_ok=True)
    write_atomic(job.build_info, json.dumps({"target": job.target, "programs": info}, indent=2) + "\n")
    return Observed(templates=tuple(sorted(templates)))


def _options(job: Job, compiler: Callable[..., object]) -> dict[str, Any]:
    """``compile.options``, each a keyword that the compiler has."""
    if job.config.fallback == "allow":
        raise ConfigError(f"{job.label}: fallback: this version compiles whole programs only; write deny")
    known = [name for name in inspect.signature(compiler).parameters if name not in _RESERVED]
    for name in job.config.compile.options:
        if name not in known:
            raise ConfigError(f"{job.label}: compile.options: the compiler has no option {name}"
                              f"{suggest(name, known) if known else '; it has none'}")
    return dict(job.config.compile.options)
