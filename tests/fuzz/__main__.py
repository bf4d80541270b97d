"""``python -m tests.fuzz --seed S --count N``: random graphs from consecutive seeds, against the interpreter.

On a failure it prints the seed, what differs and the reduced graph, and exits with 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "npu")]


def main() -> int:
    import checking
    import graphs

    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=50, help="how many seeds")
    parser.add_argument("--batch", type=int, default=25, help="graphs per OpenCL program")
    parser.add_argument("--device", help="as NPU_DEVICE")
    options = parser.parse_args()
    device = graphs.GuardedDevice(options.device)
    failed = 0
    for start in range(options.seed, options.seed + options.count, options.batch):
        stop = min(start + options.batch, options.seed + options.count)
        subjects = [checking.subject(seed) for seed in range(start, stop)]
        try:
            found = checking.differences(subjects, device)
        except Exception:  # one of them does not compile or run: find out which
            found = {}
            for s in subjects:
                try:
                    found.update(checking.differences([s], device))
                except Exception as error:
                    found[s.seed] = f"{type(error).__name__}: {error}"
        for s in subjects:
            if s.seed in found:
                failed += 1
                print(checking.told(checking.reduced(s, device), found[s.seed]), flush=True)
        print(f"seeds {start} to {stop - 1}: {len(found)} failures", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
