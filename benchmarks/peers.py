"""Compares compiled models with other ways to run them on this machine, in one sitting.

    python benchmarks/peers.py resnet18 efficientnet_lite0 --device pocl --json peers.json

Each peer runs in a process of its own. They take turns: while one runs, the others block on a pipe, so that
no thread pool of theirs spins meanwhile. All are held to the same cores and threads, get the same input and
the same weights, and are checked against PyTorch first. Absolute times drift on shared machines: quote the
ratios.

Needs the model's built artifacts (`doit weights:resnet18`) and the extra `peers`. The last sitting with each
number of threads is kept beside the model's program, and stands in its report (`doit report:resnet18`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "npu"), str(ROOT)]

from benchmarks.opening import INTEL, OURS, PEERS, REFERENCE, PeerError, Work, job_of  # noqa: E402
from pipelines.peer_results import PeerRun, PeerTime, keep  # noqa: E402  # where the path finds it

#: Runs at the start of each turn that do not count: caches and clocks settle.
SETTLE = 1
#: Columns that the table needs.
WIDTH = 112
#: Busy cores of other work above which figures mislead: thread pools that spin (PyTorch's OpenMP above all)
#: lose far more to it than those that sleep.
BUSY = 0.5


def serve(name: str, work: Work, check: Path) -> None:
    """A peer's process: opens the model, saves its first result to ``check``, then answers every line ``N``
    on standard input with the milliseconds of N runs as JSON. Anything that a library prints goes to
    standard error."""
    import numpy as np

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    step, version = PEERS[name](work)
    with check.open("wb") as file:
        np.save(file, np.asarray(step()))
    print(json.dumps(version), file=answers, flush=True)
    for line in sys.stdin:
        samples = []
        for number in range(SETTLE + int(line)):
            start = time.perf_counter_ns()
            step()
            if number >= SETTLE:
                samples.append((time.perf_counter_ns() - start) / 1e6)
        print(json.dumps(samples), file=answers, flush=True)


class Child:
    """A peer's process, seen from here."""

    def __init__(self, name: str, work: Work, folder: Path, cores: Sequence[int]) -> None:
        self.name = name
        self.check = folder / f"{name}.npy"
        self._errors: IO[str] = (folder / f"{name}.log").open("w+")
        threads = str(work.threads)
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, json.dumps(asdict(work)), str(self.check)],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "OMP_NUM_THREADS": threads, "POCL_MAX_PTHREAD_COUNT": threads,
                 "POCL_AFFINITY": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        self.version: str = self._answer()

    def run(self, repeats: int) -> list[float]:
        """Milliseconds of ``repeats`` runs; waits for them."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{repeats}\n")
        self._process.stdin.flush()
        found: list[float] = self._answer()
        return found

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._errors.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
            raise PeerError(f"{self.name} ended: {last}")
        return json.loads(line)


def compare(work: Work, names: Sequence[str], rounds: int, repeats: int, warmup: float) -> list[PeerTime]:
    """Times ``names`` in turns, in another order each round, after ``warmup`` seconds of turns that do not
    count: all of them get faster by up to a tenth meanwhile. Ratios are the typical round's ratio of medians:
    a shared machine gets slower and faster by a fifth within seconds, and medians of all rounds may be of
    different phases. Raises ``PeerError``."""
    import tempfile

    import numpy as np

    cores = sorted(os.sched_getaffinity(0))[: work.threads]
    with tempfile.TemporaryDirectory() as folder:
        children: list[Child] = []
        try:
            for name in names:
                children.append(Child(name, work, Path(folder), cores))
            check_results(work, children)
            start = time.monotonic()
            while time.monotonic() < start + warmup:
                for child in children:
                    child.run(repeats)
            samples: dict[str, list[list[float]]] = {name: [] for name in names}
            for number in range(rounds):
                shift = number % len(children)
                for child in children[shift:] + children[:shift]:
                    time.sleep(0.02)  # what the peer before still spins, it spins now
                    samples[child.name].append(child.run(repeats))
        finally:
            for child in children:
                child.close()
    ours = np.array(samples[OURS])
    found = []
    for child in children:
        theirs = np.array(samples[child.name])
        by_round = np.median(ours, axis=1) / np.median(theirs, axis=1)
        low, high = np.percentile(by_round, (25, 75))
        p10, median, p90 = np.percentile(theirs, (10, 50, 90))
        found.append(
            PeerTime(
                child.name,
                child.version,
                float(median),
                float(p10),
                float(p90),
                float(np.median(by_round)),
                float(low),
                float(high),
                tuple(theirs.ravel().round(4).tolist()),
            )
        )
    return found


def check_results(work: Work, children: Sequence[Child], tolerance: float = 1e-3) -> None:
    """Raises ``PeerError`` unless every peer's first result is the reference's, relative to its largest
    value."""
    import numpy as np

    results = {child.name: np.load(child.check) for child in children}
    expected = results.get(REFERENCE, results[OURS])
    for name, found in results.items():
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        if found.shape != expected.shape or not error <= tolerance:
            raise PeerError(f"{name} computes something else for {work.model}: relative error {error:.1e}")


def show(work: Work, times: Sequence[PeerTime]) -> None:
    """A table for the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    title = f"{work.model}, {work.threads} threads"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for column in ("peer", "version", "median ms", "p10", "p90", "npubin / peer"):
        table.add_column(column, justify="left" if column in ("peer", "version") else "right", no_wrap=True)
    for row in sorted(times, key=lambda row: row.median):
        if row.peer == OURS:
            name, ratio = f"[bold]{row.peer}[/]", "1"
        else:
            colour = "green" if row.ratio <= 1 else "yellow" if row.ratio <= 1.3 else "red"
            name = row.peer
            ratio = f"[{colour}]{row.ratio:.2f}[/] ({row.ratio_low:.2f} to {row.ratio_high:.2f})"
        milliseconds = (f"{value:.2f}" for value in (row.median, row.p10, row.p90))
        table.add_row(name, row.version, *milliseconds, ratio)
    Console(width=max(WIDTH, Console().width)).print(table)


def run_of(work: Work, busy: float, times: Sequence[PeerTime]) -> PeerRun:
    """A sitting with where and when it was taken."""
    from npu_runtime.device import Device
    from pipelines.results import environment_of, file_digest

    environment = environment_of(Device(work.device, threads=work.threads), ("numpy", "pyopencl"))
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    digest = file_digest(job_of(work).npubin("main"))
    return PeerRun(work.threads, when, digest, environment, round(busy, 2), tuple(times))


def _has_intel() -> bool:
    from npu_runtime.device import list_devices

    return any(device.vendor == "intel" for device in list_devices())


def main(arguments: Sequence[str]) -> int:
    """The command."""
    if arguments[:1] == ["--serve"]:
        serve(arguments[1], Work(**json.loads(arguments[2])), Path(arguments[3]))
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", help="names of files in configs/models")
    parser.add_argument("--target", default="cpu", help="which target's program of ours (default: cpu)")
    parser.add_argument(
        "--device", help="the OpenCL device for ours: pocl, intel (default: the runtime's choice)"
    )
    parser.add_argument("--peers", default=",".join(PEERS), help=f"some of {', '.join(PEERS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20, help="turns of each peer (default: 20)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs in a turn (default: 3)")
    parser.add_argument(
        "--warmup", type=float, default=4, help="seconds of turns before those that count (default: 4)"
    )
    parser.add_argument("--json", type=Path, help="also writes everything to this file")
    options = parser.parse_args(arguments)
    wanted = set(options.peers.split(","))
    if unknown := wanted - PEERS.keys():
        parser.error(f"unknown peer {', '.join(sorted(unknown))}; choose from {', '.join(PEERS)}")
    names = [name for name in PEERS if name in wanted | {OURS}]
    if INTEL in names and (options.device or not _has_intel()):
        names.remove(INTEL)
    if (load := os.getloadavg()[0]) > BUSY:
        print(f"warning: other work keeps {load:.1f} cores busy; figures may mislead", file=sys.stderr)
    results = {}
    try:
        for model in options.models:
            work = Work(model, options.target, options.device, options.threads)
            times = compare(work, names, options.rounds, options.repeats, options.warmup)
            show(work, times)
            results[model] = {"work": asdict(work), "times": msgspec.to_builtins(times)}
            keep(job_of(work), run_of(work, load, times))
    except (PeerError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
