"""``python -m tests.architectures [NAME...]``: compiles and runs architectures and prints a table.

A name may end in *. Exits with 1 if one of them differs from eager PyTorch or fails in another way than the
table says.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1]), str(HERE.parents[1] / "npu")]


def main() -> int:
    from architecture import check
    from table import ARCHITECTURES

    from npu_runtime.device import Device

    parser = argparse.ArgumentParser("python -m tests.architectures", description=__doc__)
    parser.add_argument("names", nargs="*", default=["*"], help="which; the name before a * is a start")
    parser.add_argument("--device", help="as NPU_DEVICE")
    options = parser.parse_args()
    chosen = [
        item for item in ARCHITECTURES if any(fnmatch.fnmatch(item.name, name) for name in options.names)
    ]
    device = Device(options.device)
    failed = 0
    print(f"{'architecture':28} {'error':>8}  {'nodes':>5} {'kernels':>7} {'steps':>5} {'seconds':>7}")
    for item in chosen:
        try:
            outcome = check(item, device)
        except Exception as error:  # whatever it is, the others go on
            failed += 1
            print(f"{item.name:28} FAILED   {type(error).__name__}: {error}", flush=True)
            continue
        if outcome.refusal:
            print(f"{item.name:28} refused  {outcome.refusal}", flush=True)
        else:
            print(
                f"{item.name:28} {outcome.error:8.1e}  {outcome.nodes:5} {outcome.kernels:7} "
                f"{outcome.steps:5} {outcome.seconds:7.1f}",
                flush=True,
            )
    print(f"{len(chosen)} architectures, {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
