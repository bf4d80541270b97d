"""``python -m tests.fuzz --seed S --count N``: random graphs from consecutive seeds, against PyTorch and the
interpreter.

On a failure it prints the seed, what differs and the reduced graph, and exits with 1. At the end it prints
which operations, dtypes and sizes the graphs had.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "npu")]


class Seen:
    """What the graphs were made of."""

    def __init__(self) -> None:
        self.ops: Counter[str] = Counter()
        self.dtypes: Counter[str] = Counter()
        self.nodes: list[int] = []
        self.symbolic = 0
        self.refused: Counter[str] = Counter()

    def add(self, ir: object, refused: object) -> None:
        self.nodes.append(len(ir.nodes))
        self.symbolic += bool(ir.symbols)
        self.ops.update({node.op.split(".")[1] for node in ir.nodes})
        self.dtypes.update({spec.dtype for spec in ir.values().values()})
        self.refused.update({f"{item.op}: {item.reason}" for item in refused})

    def text(self) -> str:
        nodes = sorted(self.nodes)
        rows = [
            f"{len(nodes)} graphs of {nodes[0]} to {nodes[-1]} nodes (median {nodes[len(nodes) // 2]}), "
            f"{self.symbolic} with a symbolic dimension, {len(self.ops)} operations",
            "dtypes: " + ", ".join(f"{name} {count}" for name, count in self.dtypes.most_common()),
            "graphs per operation: "
            + ", ".join(f"{name} {count}" for name, count in sorted(self.ops.items())),
        ]
        if self.refused:
            rows.append("refused, and not counted:")
            rows += [f"  {count} x {text}" for text, count in self.refused.most_common()]
        return "\n".join(rows)


def main() -> int:
    import checking
    import graphs

    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=50, help="how many seeds")
    parser.add_argument("--batch", type=int, default=20, help="graphs per OpenCL program")
    parser.add_argument("--device", help="as NPU_DEVICE")
    parser.add_argument(
        "--unoptimised", action="store_true", help="kernels are built with -cl-opt-disable: twice as fast"
    )
    options = parser.parse_args()
    device = graphs.GuardedDevice(options.device, ("-cl-opt-disable",) if options.unoptimised else ())
    failed, seen = 0, Seen()
    for start in range(options.seed, options.seed + options.count, options.batch):
        stop = min(start + options.batch, options.seed + options.count)
        subjects = [checking.subject(seed) for seed in range(start, stop)]
        for s in subjects:
            seen.add(s.ir, s.refused)
        try:
            found = checking.differences(subjects, device)
        except Exception:  # one of them does not compile or run: find out which
            found = {}
            for s in subjects:
                problem = checking.failure(s, device)
                if problem is not None:
                    found[s.name] = problem
        for s in subjects:
            if s.name in found:
                failed += 1
                print(checking.told(checking.reduced(s, device), found[s.name]), flush=True)
        print(f"seeds {start} to {stop - 1}: {len(found)} failures", file=sys.stderr, flush=True)
    print(seen.text())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
