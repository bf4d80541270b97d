"""``python -m tests.oclgrind [-k PATTERN]``: every kernel variant on Oclgrind, a simulated OpenCL device that
reports accesses outside of memory, data races and reads of what nothing wrote.

Subjects are the sample cases of all op records, on the kernels for CPUs and on those for GPUs, and graphs for
the branches of templates that these do not reach. Exit status: 0 if every branch of every template ran (those
of inline PTX aside) and nothing was reported, 1 otherwise, 77 where Oclgrind is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [
    str(HERE),
    str(HERE.parent),
    str(HERE.parent / "ops"),
    str(HERE.parent / "runtime"),
    str(ROOT / "npu"),
]

SKIPPED = 77
_LIBRARIES = (
    "/usr/lib/oclgrind/liboclgrind-rt-icd.so",
    "/usr/lib/x86_64-linux-gnu/oclgrind/liboclgrind-rt-icd.so",
    "/usr/local/lib/liboclgrind-rt-icd.so",
)


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.oclgrind", description=__doc__)
    parser.add_argument("-k", default="", metavar="PATTERN", help="a regular expression over subjects")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--batch", type=int, default=40, help="subjects per process")
    parser.add_argument("--library", default="", help="path of liboclgrind-rt-icd.so")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        import simulate

        simulate.child(options.child)
        return 0
    library = next((path for path in (options.library, *_LIBRARIES) if path and Path(path).exists()), None)
    if library is None:
        print("Oclgrind is not installed: apt-get install oclgrind, or give --library", file=sys.stderr)
        return SKIPPED
    import simulate
    from branches import Recorder

    names = [name for name in simulate.listed() if re.search(options.k, name)]
    batches = [
        names[start :: -(-len(names) // options.batch)] for start in range(-(-len(names) // options.batch))
    ]
    with tempfile.TemporaryDirectory(prefix="npubin-oclgrind-") as folder:
        (Path(folder) / "oclgrind.icd").write_text(library + "\n")
        with ThreadPoolExecutor(options.jobs) as pool:
            found = list(pool.map(lambda item: _run(Path(folder), *item), enumerate(batches)))
    problems = [line for batch in found for line in batch["problems"]]
    taken = {(condition, value) for batch in found for condition, value in batch["taken"]}
    elsewhere = set() if options.k else {*simulate.rendered_for_nvidia()} - taken
    recorder = Recorder()
    missing = [] if options.k else list(recorder.missing(taken, elsewhere))
    variants = sorted({name for batch in found for name in batch["variants"]})
    print(f"{sum(len(batch['ran']) for batch in found)} runs, {len(variants)} kinds of kernels:")
    print("  " + " ".join(variants))
    print(f"{len(taken)} of {recorder.count} branches of the templates were rendered and run")
    if elsewhere:
        print(f"{len(elsewhere)} more are for inline PTX alone, which only NVIDIA's driver runs")
    print("\n".join([*problems, *missing]) or "nothing was reported")
    return 1 if problems or missing else 0


def _run(folder: Path, number: int, names: list[str]) -> dict[str, Any]:
    request = folder / f"{number}.json"
    request.write_text(json.dumps(names))
    environment = os.environ | {
        "OCL_ICD_VENDORS": str(folder),
        "NPU_CACHE_DIR": str(folder / f"cache{number}"),
        "OCLGRIND_DATA_RACES": "1",
        "OCLGRIND_UNINITIALIZED": "1",
        "OCLGRIND_CHECK_API": "1",
        "OCLGRIND_NUM_THREADS": "1",
        "OCLGRIND_LOG": str(folder / f"{number}.log"),
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "tests.oclgrind", "--child", str(request)]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    answer = request.with_suffix(".found")
    if not answer.exists():
        last = ended.stderr.strip().splitlines()[-3:]
        return {
            "problems": [f"a process ended with {ended.returncode} while it ran {', '.join(names)}: {last}"],
            "ran": [],
            "taken": [],
            "variants": [],
        }
    found: dict[str, Any] = json.loads(answer.read_text())
    print(f"batch {number}: {len(found['ran'])} runs, {len(found['problems'])} problems", file=sys.stderr)
    return found


if __name__ == "__main__":
    sys.exit(main())
