"""A child process of the census: reads (operator, dtype) from its input, writes verdicts, a JSON per line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "npu")]


def main() -> None:
    import torch
    from judging import judge
    from sampling import FORMS, database, title

    from npu_runtime.device import Device

    torch.set_num_threads(1)
    answers = sys.stdout
    sys.stdout = sys.stderr
    device = Device()
    infos = {(form, title(info)): info for form in FORMS for info in database(form)}
    for line in sys.stdin:
        task = json.loads(line)
        info, dtype = infos[task["form"], task["op"]], getattr(torch, task["dtype"])
        try:
            for verdict in judge(info, dtype, task["samples"], task["form"], device, task["together"]):
                print(json.dumps({**task, **vars(verdict)}), file=answers, flush=True)
        except Exception as error:  # the samples themselves cannot be made
            text = f"{type(error).__name__}: {error}"[:300]
            print(
                json.dumps({**task, "call": task["op"], "outcome": "skipped", "detail": text}), file=answers
            )
        print("{}", file=answers, flush=True)


if __name__ == "__main__":
    main()
