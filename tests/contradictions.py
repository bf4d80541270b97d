"""``python -m tests.contradictions --seed S --count N``: nodes of sample calls with another shape, dtype or
argument than they had. Each is refused, or makes what PyTorch makes.

Prints the outcomes, and those that are neither with their seed; exits with 1 if there is one. What PyTorch
refuses and the compiler does not, is told as well.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "npu"), str(HERE / "ops")]


def main() -> int:
    from aten_cases import CALLS
    from judged_nodes import judge, single_nodes

    parser = argparse.ArgumentParser("python -m tests.contradictions", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    nodes = single_nodes(name for name in CALLS if not name.startswith("refused"))
    outcomes: Counter[str] = Counter()
    for seed in range(options.seed, options.seed + options.count):
        judged = judge(random.Random(seed).choice(nodes), seed)
        outcomes[judged.outcome] += 1
        if judged.outcome in ("another result", "internal", "PyTorch refuses"):
            print(f"seed {seed}: {judged}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))
    return 1 if outcomes["another result"] + outcomes["internal"] else 0


if __name__ == "__main__":
    sys.exit(main())
