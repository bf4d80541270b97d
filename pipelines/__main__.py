"""``python -m pipelines``: what a build needs beside doit.

    validate                       check all configurations (without PyTorch)
    schema                         write configs/schema.json, the schema for editors
    operators                      write docs/operators.md, what compiles, and its schemas (with PyTorch)
    compile MODEL[@TARGET] --to PASS   print the graph after a pass of the compiler
    run-stage STAGE MODEL[@TARGET]     run one stage now, whether or not it is up to date
    rehearse STAGE MODEL[@TARGET]      print the digests of what it would make, and change nothing
    cache status|prune|fill        look after the cache that NPU_CACHE names
    tune MODEL[@TARGET]            measure the kernels' open choices on the device that is here
    device TARGET                  print the device that the target is measured on
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pipelines import cache_command, devices, imports
from pipelines.config import ConfigError, load_configs
from pipelines.job import Job, job_of, write_atomic
from pipelines.schema import schema
from pipelines.stages import STAGES, Stage
from pipelines.yaml_source import suggest


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, 1 for a failure, 2 for a misuse."""
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("validate")
    schema_command = commands.add_parser("schema")
    schema_command.add_argument("--check", action="store_true", help="fail if the file is not current")
    operators_command = commands.add_parser("operators")
    operators_command.add_argument("--check", action="store_true", help="fail if the file is not current")
    for name in ("run-stage", "rehearse"):
        of_stage = commands.add_parser(name)
        of_stage.add_argument("stage", metavar="STAGE")
        of_stage.add_argument("model", metavar="MODEL[@TARGET]")
        of_stage.add_argument("--watched", action="store_true", help=argparse.SUPPRESS)
    compiler = commands.add_parser("compile")
    compiler.add_argument("model", metavar="MODEL[@TARGET]")
    compiler.add_argument("--to", metavar="PASS", required=True)
    compiler.add_argument("--program", default=None)
    tuner = commands.add_parser("tune")
    tuner.add_argument("model", metavar="MODEL[@TARGET]")
    tuner.add_argument("--seconds", type=float, help="how long at most (default: tune.seconds)")
    tuner.add_argument("--candidates", type=int, help="choices for one kernel (default: tune.candidates)")
    tuner.add_argument("--prepare", action="store_true", help="only build kernels, on a busy machine")
    tuner.add_argument("--watched", action="store_true", help=argparse.SUPPRESS)
    commands.add_parser("device").add_argument("target", metavar="TARGET")
    cache_command.add_arguments(commands.add_parser("cache"))
    options = parser.parse_args(arguments)
    root = Path.cwd()
    try:
        return int(_COMMANDS[options.command](options, root))
    except Exception as error:  # the message is for people; the traceback for those who ask
        return _report(error)


def _validate(options: argparse.Namespace, root: Path) -> int:
    configs = load_configs(root)
    names = ", ".join(configs) or "there are none in configs/models"
    print(f"{len(configs)} configurations are valid: {names}")
    return 0


def _schema(options: argparse.Namespace, root: Path) -> int:
    text = json.dumps(schema(), indent=2) + "\n"
    return _written(root / "configs" / "schema.json", text, "schema", options.check)


def _operators(options: argparse.Namespace, root: Path) -> int:
    from pipelines.operators import document, schema_lines
    code = _written(root / "npu" / "npu_compiler" / "schemas.txt", schema_lines(), "operators", options.check)
    return code or _written(root / "docs" / "operators.md", document(), "operators", options.check)


def _written(path: Path, text: str, command: str, check: bool) -> int:
    if check:
        current = path.is_file() and path.read_text(encoding="utf-8") == text
        state = "current" if current else f"out of date; run `python -m pipelines {command}`"
        print(f"{path.name} is {state}")
        return 0 if current else 1
    write_atomic(path, text)
    return 0


def _run_stage(options: argparse.Namespace, root: Path) -> int:
    from pipelines.cache import open_cache
    from pipelines.execute import execute
    stage, job = _stage_and_job(options, root)
    execute(stage, job, cache=open_cache(root), anew=not options.watched)
    return 0


def _rehearse(options: argparse.Namespace, root: Path) -> int:
    from pipelines.execute import rehearse
    stage, job = _stage_and_job(options, root)
    job.say_outcome("rehearsed", json.dumps(rehearse(stage, job)))
    return 0


def _stage_and_job(options: argparse.Namespace, root: Path) -> tuple[Stage, Job]:
    """What this process is to do, on the device that it needs or asks about."""
    imports.install()
    from npu_runtime.errors import NoDeviceError
    stages = {stage.name: stage for stage in STAGES}
    if options.stage not in stages:
        raise ConfigError(f"there is no stage {options.stage}{suggest(options.stage, stages)}")
    stage = stages[options.stage]
    _end_in_order()
    job = replace(job_of(options.model, root), watched=options.watched)
    if stage.device:
        job = devices.on(job, devices.find(job.target))
    elif stage.tuned:
        with contextlib.suppress(NoDeviceError):
            job = devices.tuned_for(job, devices.find(job.target))
    return stage, job


def _end_in_order() -> None:
    """From now on, Ctrl-C or a request to end lets what was begun be cleaned up (staging, a worker), for some
    seconds, whatever arrives meanwhile: on a terminal the build's request comes right after Ctrl-C."""
    def leave(number: int, _: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        signal.alarm(_CLEANING)
        sys.exit(128 + number)

    for each in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, leave)


def _compile(options: argparse.Namespace, root: Path) -> int:
    from npu_compiler.compiler import compile_with_report
    job = job_of(options.model, root)
    program = options.program or job.programs[0]
    if not job.ir(program).is_file():
        raise ConfigError(f"{options.model}: there is no {job.ir(program).name} yet; "
                          f"run doit extract:{job.config.name}")
    dumps = compile_with_report(job.ir(program), target=job.target, precision=job.config.precision).dumps
    named = {name.lstrip("0123456789-"): text for name, text in dumps.items()}
    if options.to not in named:
        raise ConfigError(f"there is no pass {options.to}{suggest(options.to, named)}")
    print(named[options.to])
    return 0


def _tune(options: argparse.Namespace, root: Path) -> int:
    from pipelines.progress_bar import progress_bar
    from pipelines.tune import tune
    _end_in_order()
    job = replace(job_of(options.model, root), watched=options.watched)
    with progress_bar(job) as show:
        tune(job, show, seconds=options.seconds, candidates=options.candidates, prepare=options.prepare)
    return 0


def _device(options: argparse.Namespace, root: Path) -> int:
    print(json.dumps(asdict(devices.find(options.target))))
    return 0


#: Seconds.
_CLEANING = 10
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_COMMANDS = {"validate": _validate, "schema": _schema, "operators": _operators,
             "run-stage": _run_stage, "rehearse": _rehearse, "tune": _tune, "compile": _compile,
             "device": _device, "cache": cache_command.run}


def _report(error: Exception) -> int:
    """Prints an error: one message, or with ``NPU_DEBUG`` the traceback."""
    from npu_runtime.env import debug_level
    sys.stdout.flush()
    if debug_level() >= 1:
        traceback.print_exception(error)
    kind = type(error)
    ours = kind.__module__.partition(".")[0] in ("pipelines", "torch_ir", "npu_compiler", "npu_runtime")
    if ours:
        print(f"error: {error}", file=sys.stderr)
    elif isinstance(error, OSError) and error.errno in _FULL:
        print(f"error: {error.strerror}: make room where artifacts lies, or where temporary files do "
              f"({tempfile.gettempdir()}), and build again", file=sys.stderr)
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        print(f"error: {kind.__name__}: {error} (at {Path(frame.filename).name}:{frame.lineno}; "
              "NPU_DEBUG=1 shows how it came to this)", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
