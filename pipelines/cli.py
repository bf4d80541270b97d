"""The ``npubin`` command: what is not a build. Runs and inspects programs, lists devices."""

import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

if TYPE_CHECKING:
    import typer

    from npu_runtime.program import CompiledProgram

_NEEDED = 'npubin: the command needs typer and rich: pip install "npubin[cli]"'


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit code; what went wrong is one line on standard error."""
    try:
        from rich.console import Console

        app = make_app(Console())
    except ImportError:
        print(_NEEDED, file=sys.stderr)
        return 1
    from npu_compiler.errors import CompileError
    from npu_runtime.errors import NpubinError
    from torch_ir.errors import IRError

    try:
        app(args=argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except (NpubinError, CompileError, IRError, OSError) as error:
        print(f"npubin: {_text(error)}", file=sys.stderr)
        return 1
    return 0


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def make_app(console: Any) -> "typer.Typer":
    """The command line; output goes to ``console``. Raises ``ImportError`` without typer."""
    import typer

    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Runs compiled PyTorch models on any OpenCL device.",
    )

    @app.command("devices")
    def devices(
        probe: Annotated[bool, typer.Option(help="find out anew what each can do, by kernels")] = False,
    ) -> None:
        """Lists the OpenCL devices of this machine and marks the default one."""
        _devices(console)
        if probe:
            _probe(console)

    @app.command("run")
    def run(
        program: Annotated[Path, typer.Argument(help="a .npubin file, or the parts.json of one in parts")],
        weights: Annotated[
            Path, typer.Argument(help="safetensors: the model's own, a folder of them, or prepared")
        ],
        inputs: Annotated[
            list[str], typer.Option("--input", "-i", help="NAME=FILE.npy, once per input")
        ] = [],  # noqa: B006
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="a folder, or a file FILE.npz")
        ] = None,
        device: Annotated[
            str | None, typer.Option(help="pocl, intel, nvidia:0, gpu, cpu; else NPU_DEVICE")
        ] = None,
        threads: Annotated[int | None, typer.Option(help="compute units to use")] = None,
        repeat: Annotated[int, typer.Option(min=1, help="runs; the time is the fastest one's")] = 1,
        profile: Annotated[bool, typer.Option("--profile", help="print the time of each kernel")] = False,
        trace: Annotated[Path | None, typer.Option(help="write a Chrome trace (JSON)")] = None,
    ) -> None:
        """Runs a program once, prints its outputs' shapes and the time, and writes the outputs."""
        _run(console, program, weights, inputs, output, device, threads, repeat, profile, trace)

    @app.command("inspect")
    def inspect(
        program: Annotated[Path, typer.Argument(help="a .npubin file")],
        kernel: Annotated[str | None, typer.Option(help="print the source of this kernel")] = None,
        steps: Annotated[bool, typer.Option("--steps", help="print every step")] = False,
    ) -> None:
        """Shows a program's inputs, outputs, memory, kernels and steps."""
        _inspect(console, program, kernel, steps)

    @app.command("generate")
    def generate(
        model: Annotated[str, typer.Argument(help="a language model that was built: NAME, NAME@TARGET")],
        prompt: Annotated[str | None, typer.Option(help="a text to continue")] = None,
        chat: Annotated[
            str | None, typer.Option(help="a message to answer; with neither, a conversation begins")
        ] = None,
        system: Annotated[str | None, typer.Option(help="what the model is told before the chat")] = None,
        max_tokens: Annotated[int, typer.Option(min=0, help="0: until it stops or the cache is full")] = 256,
        temperature: Annotated[float, typer.Option(help="0: always the best token")] = 0.0,
        top_k: Annotated[int | None, typer.Option(help="draw from the k best tokens")] = None,
        top_p: Annotated[float | None, typer.Option(help="from the best that sum to this")] = None,
        min_p: Annotated[float | None, typer.Option(help="from those of this share of the best")] = None,
        repetition_penalty: Annotated[float, typer.Option(help="above 1: say less again")] = 1.0,
        seed: Annotated[int | None, typer.Option(help="equal seeds draw equal tokens")] = None,
        stop: Annotated[list[str], typer.Option(help="end before this text; may be repeated")] = [],  # noqa: B006
        device: Annotated[
            str | None, typer.Option(help="pocl, intel, nvidia:0, gpu, cpu; else NPU_DEVICE")
        ] = None,
        threads: Annotated[int | None, typer.Option(help="compute units to use")] = None,
    ) -> None:
        """Continues a text or a chat with a language model; times go to standard error."""
        from npu_runtime.sampling import Sampling
        from pipelines import generate_command

        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        generate_command.run(generate_command.Request(
            model, prompt, chat, system, max_tokens, sampling, stop, device, threads))

    @app.command("init")
    def init(
        folder: Annotated[Path, typer.Argument(help="the project's folder; made where there is none")],
    ) -> None:
        """Starts a project: a folder in which `doit` builds models of your own."""
        from pipelines import project

        for name in project.init(folder):
            _say(console, str(folder / name))
        _say(console, f"next: cd {shlex.quote(str(folder))} && doit")

    @app.command("gate")
    def gate(
        base: Annotated[Path, typer.Argument(help="the project as it was, with its artifacts")],
        head: Annotated[Path, typer.Argument(help="the project as it is, with its artifacts")],
        models: Annotated[
            list[str] | None, typer.Argument(help="MODEL[@TARGET]...; else the default models")
        ] = None,
        threshold: Annotated[float, typer.Option(min=0, help="slowdown that may pass, as a share")] = 0.05,
        confidence: Annotated[float, typer.Option(min=0.5, max=0.9999)] = 0.99,
        rounds: Annotated[int, typer.Option(min=1, help="turns of each side before the first look")] = 20,
        report: Annotated[Path | None, typer.Option("--json", help="write the result to this file")] = None,
    ) -> None:
        """Measures two revisions in turns. Exit status: 0 passed, 1 error, 2 misuse, 3 regression,
        4 nothing was compared."""
        from pipelines import gate as gate_module
        from pipelines.gate_run import Settings, run_gate
        from pipelines.results import write_result

        found = run_gate(base, head, models or (), Settings(threshold, confidence, rounds))
        if report is not None:
            write_result(report, found)
        _say(console, gate_module.text(found))
        raise typer.Exit(found.status)

    @app.command("fleet")
    def fleet(
        models: Annotated[
            list[str] | None, typer.Argument(help="MODEL[@TARGET]...; else the default models")
        ] = None,
        to: Annotated[str, typer.Option(help="the last stage to do")] = "report",
        scheduler: Annotated[str | None, typer.Option(help="of a cluster; else workers here")] = None,
        workers: Annotated[int, typer.Option(min=1, help="how many, without --scheduler")] = 2,
    ) -> None:
        """Does the stages of many models on a Dask cluster. Exit status 1 if one failed."""
        from pipelines import fleet as fleet_module

        raise typer.Exit(fleet_module.command(
            models or (), to, scheduler, workers, lambda line: _say(console, line)))

    return app


def _table(console: Any, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table, markup=False, highlight=False)


def _say(console: Any, text: str = "") -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _devices(console: Any) -> None:
    from npu_runtime.device import find_device, list_devices

    chosen = find_device().selector
    _table(
        console,
        ("", "selector", "device", "kind", "units", "memory", "platform", "driver"),
        [
            (
                "*" if info.selector == chosen else "",
                info.selector,
                info.name,
                info.kind,
                info.threads,
                _size(info.memory),
                info.platform,
                info.driver,
            )
            for info in list_devices()
        ],
    )
    _say(console, "* the default; choose another with --device or NPU_DEVICE")


def _probe(console: Any) -> None:
    from npu_runtime.device import Device, list_devices
    from npu_runtime.probes import PROBES, capability

    rows = []
    for info in list_devices():
        for name in PROBES:
            found = capability(Device(info.selector), name, again=True)
            what = "no" if not found.value else "yes" if found.value == 1 else _size(found.value)
            rows.append((info.selector, name, what, " ".join(found.reason.split())[:200]))
    _table(console, ("selector", "capability", "has", "why not"), rows)


def _run(
    console: Any,
    path: Path,
    source: Path,
    pairs: Sequence[str],
    output: Path | None,
    selector: str | None,
    threads: int | None,
    repeat: int,
    profile: bool,
    trace: Path | None,
) -> None:
    from npu_runtime import Device, Profiler, load_weights
    from npu_runtime.env import pin_threads
    from pipelines.programs import open_program

    inputs = _read_inputs(pairs)
    pin_threads()
    device = Device(selector, threads=threads)
    executor = open_program(path, device)
    weights = load_weights(source, executor.program, device)
    profiler = Profiler(executor)
    run: Callable[..., Any] = profiler.run if profile or trace else executor.run
    seconds = []
    for _ in range(repeat):
        weights.reset()
        start = time.perf_counter()
        outputs = run(inputs, weights)
        seconds.append(time.perf_counter() - start)
    arrays = {name: buffer.to_numpy() for name, buffer in outputs.items()}
    for name, array in arrays.items():
        _say(console, f"{name}: {array.dtype}{list(array.shape)}")
    _say(console, f"{min(seconds) * 1e3:.3f} ms on {device.name} ({device.info.platform} {device.driver})")
    if output is not None:
        _write_outputs(output, arrays)
    if profile:
        _say(console, profiler.summary())
    if trace is not None:
        profiler.save_trace(trace)


def _read_inputs(pairs: Sequence[str]) -> dict[str, Any]:
    from npu_runtime.errors import InputError

    inputs: dict[str, Any] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not equals or not name or name in inputs:
            raise InputError(f"--input {pair}: expected NAME=FILE.npy, each name once")
        try:
            inputs[name] = np.load(file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InputError(f"--input {pair}: {file} is not a .npy file ({error})") from None
        if not isinstance(inputs[name], np.ndarray):
            raise InputError(f"--input {pair}: {file} is an archive: give one .npy file per input")
    return inputs


def _write_outputs(output: Path, arrays: dict[str, Any]) -> None:
    """Types that numpy's files cannot name (bfloat16) are written as float32, which loses nothing."""
    plain = {
        name: array.astype(np.float32) if array.dtype.kind == "V" else array for name, array in arrays.items()
    }
    if output.suffix == ".npz":
        np.savez(output, **plain)
        return
    output.mkdir(parents=True, exist_ok=True)
    for name, array in plain.items():
        np.save(output / f"{name.replace('/', '_')}.npy", array)


def _inspect(console: Any, path: Path, kernel: str | None, steps: bool) -> None:
    from npu_runtime import CompiledProgram

    program = CompiledProgram.load(path)
    if kernel is not None:
        _say(console, _kernel_source(program, kernel))
        return
    _say(
        console,
        f"{program.model} {program.program}: target {program.target} ({program.device_type}), "
        f"profile {program.profile}, format {program.format_version}",
    )
    for symbol in program.symbols:
        _say(console, f"symbol {symbol.name}: {symbol.lower} to {symbol.upper}")
    for what, specs in (
        ("input", program.input_specs),
        ("output", program.output_specs),
        ("state", program.states),
    ):
        for spec in specs:
            _say(console, f"{what} {spec.name}: {spec.dtype}[{', '.join(map(str, spec.shape))}]")
    from npu_runtime.dtypes import nbytes

    weights = sum(nbytes(transform.shape, transform.dtype) for transform in program.transforms)
    states = sum(nbytes(state.shape, state.dtype) for state in program.states)
    _say(
        console,
        f"memory: weights {_size(weights)} in {len(program.transforms)} tensors, scratch "
        f"{_size(program.arena_bytes)}, states {_size(states)}",
    )
    _say(console, f"{len(program.steps)} steps, {len(program.kernels)} kernels:")
    calls = Counter(step.kernel for step in program.steps)
    _table(
        console,
        ("kernel", "steps", "file"),
        [(entry.entry, calls[entry.entry], entry.file) for entry in program.kernels],
    )
    if steps:
        _table(
            console,
            ("step", "kernel", "global", "local", "flops", "computes"),
            [
                (
                    index,
                    step.kernel,
                    "x".join(map(str, step.global_size)),
                    "x".join(map(str, step.local_size)) if step.local_size else "-",
                    step.cost.flops,
                    " ".join(step.origin),
                )
                for index, step in enumerate(program.steps)
            ],
        )


def _kernel_source(program: "CompiledProgram", name: str) -> str:
    from npu_runtime.errors import InputError

    for kernel in program.kernels:
        if kernel.entry == name:
            return program.kernel_sources[kernel.file]
    names = ", ".join(kernel.entry for kernel in program.kernels)
    raise InputError(f"{program.model} has no kernel {name!r}; it has {names}")


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


if __name__ == "__main__":
    sys.exit(main())
