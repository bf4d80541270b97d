"""The tests in several processes at once: ``python -m tests.shards [-n 16] [what goes to pytest]``.

    NPU_DEVICE=nvidia python -m tests.shards -m "full or not full" tests/ops tests/runtime
    NPU_DEVICE=nvidia python -m tests.shards --target nvidia tests/e2e tests/ops/test_aten.py

Each process takes every Nth test, and ends with this one, however that ends. Prints what failed, the sums,
and which devices were covered; the whole output of each goes to a file of ``--logs``. Exits with 1 unless
every process ends well.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed)")
_DEVICE = re.compile(
    r"(\S+): (\d+) tests of this device(?:, and what else needs a device of (\d+) others)? (.*)"
)
#: pytest's statuses: all passed, and no test in this shard.
_WELL = (0, 5)


#: Linux's name for "the signal that I get when my parent ends".
_PR_SET_PDEATHSIG = 1


def started(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """A process from the root of the sources that writes to ``log``. On Linux it is killed when this one
    ends, be it by a signal that nothing can be done against."""
    parent = os.getpid()

    def end_with_parent() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)

    with log.open("w") as out:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.shards", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--logs", type=Path, help="folder for the outputs; default: a temporary one")
    args, more = parser.parse_known_args()
    logs = args.logs or Path(tempfile.mkdtemp(prefix="npubin-shards-"))
    logs.mkdir(parents=True, exist_ok=True)
    start, command = time.perf_counter(), [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *more]
    running = [
        started([*command, f"--shard={shard}/{args.n}", "-rfE"], logs / f"shard{shard}.txt")
        for shard in range(1, args.n + 1)
    ]
    statuses = [process.wait() for process in running]
    counts: Counter[str] = Counter()
    devices: dict[tuple[str, str], Counter[str]] = {}
    for shard in range(1, args.n + 1):
        text = (logs / f"shard{shard}.txt").read_text()
        lines = text.splitlines() or ["nothing was said"]
        for line in lines:
            if line.startswith(("FAILED ", "ERROR ")):
                print(line)
            if found := _DEVICE.fullmatch(line):
                devices.setdefault((found[1], found[4]), Counter()).update(
                    own=int(found[2]), others=int(found[3] or 0)
                )
        for number, what in _COUNTS.findall(lines[-1]):
            counts[what] += int(number)
        if statuses[shard - 1] not in _WELL:
            print(f"shard {shard} ended with {statuses[shard - 1]}: {logs}/shard{shard}.txt: {lines[-1]}")
    for (selector, name), ran in devices.items():
        print(
            f"{selector}: {ran['own']} tests of this device, {ran['others']} others with it as default {name}"
        )
    sums = ", ".join(f"{number} {what}" for what, number in counts.items()) or "no tests"
    print(f"{sums} in {time.perf_counter() - start:.0f} s, {args.n} processes: pytest {' '.join(more)}")
    return int(any(status not in _WELL for status in statuses) or not counts["passed"])


if __name__ == "__main__":
    sys.exit(main())
