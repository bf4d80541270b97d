"""``python -m tests.decoders [CLASS...]``: every causal language model of ``transformers``, small.

A name may end in *. Prints a line for each class, which is equal to the library's eager forward at prompts of
1, 7 and 13 tokens and three steps after each, or refused; then counts. Exits with 1 if one differs or fails
without a reason of ours.
"""

from __future__ import annotations

import argparse
import fnmatch
import logging
import sys
import warnings
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1]), str(HERE.parents[1] / "npu")]


def main() -> int:
    from sweep import check, class_names

    parser = argparse.ArgumentParser("python -m tests.decoders", description=__doc__)
    parser.add_argument("names", nargs="*", default=["*"], help="which; the name before a * is a start")
    parser.add_argument("--graphs", action="store_true", help="let PyTorch run the graphs; compile nothing")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    counts: Counter[str] = Counter()
    for name in class_names():
        if any(fnmatch.fnmatch(name, pattern) for pattern in options.names):
            found = check(name, options.graphs)
            counts[found.kind] += 1
            print(f"{name:36} {found.kind:8} {found.seconds:5.1f} s  {found.detail[:240]}", flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    return 1 if counts["differs"] + counts["crash"] else 0


if __name__ == "__main__":
    sys.exit(main())
