"""``python -m tests.fuzz_files --kind KIND --seed S --count N``: mutated files from consecutive seeds.

Every file is judged in a forked process with limits of time and memory, so that crashes and hangs are seen.
Prints the outcomes, and each finding with the seed that makes it again; exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "npu")]

KINDS = ("npubin", "ir", "safetensors", "yaml")
SECONDS = 120
MEMORY = 4 << 30


def made(kind: str, seed: int, found: dict[str, Any]) -> tuple[str, bytes, random.Random]:
    """The base's name, the mutated file of a seed, and the generator for what is left to draw."""
    import mutations

    rng = random.Random(f"{kind} {seed}")
    name = rng.choice(sorted(found))
    return name, mutations.mutated(kind, rng, found[name].data), rng


def work(kind: str, found: dict[str, Any], seeds: Iterable[int], folder: Path, channel: Connection) -> None:
    """Judges seeds one after the other and tells what each gave."""
    from npu_runtime.device import Device

    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    device = Device()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    path = folder / f"mutated-{os.getpid()}.{'json' if kind == 'ir' else kind}"
    for seed in seeds:
        channel.send((seed, "", ""))
        name, data, rng = made(kind, seed, found)
        path.write_bytes(data)
        try:
            outcome, detail = found[name].judge(path, rng, device), ""
        except BaseException as error:  # a MemoryError is a finding, and an exit too
            outcome = "finding"
            frames = traceback.extract_tb(error.__traceback__)[-3:]
            places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
            detail = f"{type(error).__name__}: {str(error)[:300]} [{places}]"
        channel.send((seed, outcome, f"{name}: {detail}" if detail else ""))


def run(
    kind: str, found: dict[str, Any], seeds: range, folder: Path
) -> tuple[Counter[str], list[tuple[int, str]]]:
    """The outcomes of all seeds, and the findings. A process that ends or hangs is a finding of its seed."""
    outcomes: Counter[str] = Counter()
    context = multiprocessing.get_context("fork")
    start = seeds.start
    while start < seeds.stop:
        ours, theirs = context.Pipe()
        batch = range(start, min(start + 250, seeds.stop))
        process = context.Process(target=work, args=(kind, found, batch, folder, theirs), daemon=True)
        process.start()
        theirs.close()
        seed, outcome, detail = start, "", ""
        while True:
            try:
                if not ours.poll(SECONDS):
                    process.kill()
                    outcome, detail = "finding", f"hangs: no answer in {SECONDS} s"
                else:
                    seed, outcome, detail = ours.recv()
                    if not outcome:
                        continue
            except EOFError:
                process.join()
                if outcome or start == batch.stop:
                    break
                outcome, detail = "finding", f"the process ended with {process.exitcode}"
            outcomes[outcome] += 1
            if outcome == "finding":
                print(f"{kind} seed {seed}: {detail}", flush=True)
            start = seed + 1
            if start == batch.stop or process.exitcode is not None or "hangs" in detail:
                break
        process.join(5)
        process.kill()
        print(f"{kind} to seed {start - 1}: {dict(outcomes)}", file=sys.stderr, flush=True)
    return outcomes


def main() -> int:
    import judges

    parser = argparse.ArgumentParser("python -m tests.fuzz_files", description=__doc__)
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=100, help="how many seeds, of each kind")
    parser.add_argument("--keep", type=Path, help="only write the mutated file of the first seed there")
    options = parser.parse_args()
    failed = False
    for kind in KINDS if options.kind == "all" else [options.kind]:
        with tempfile.TemporaryDirectory(prefix="npubin-fuzz-") as folder:
            found = judges.bases(kind, Path(folder))
            if options.keep:
                name, data, _ = made(kind, options.seed, found)
                options.keep.write_bytes(data)
                print(f"{kind} seed {options.seed}: a mutation of {name}")
                continue
            seeds = range(options.seed, options.seed + options.count)
            outcomes = run(kind, found, seeds, Path(folder))
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
            print(f"{kind}: {options.count} files: {counts}")
            failed |= outcomes["finding"] > 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
