"""One side of the regression gate: runs a program on request and prints how long each run took.

Started as a file (``python -P gate_worker.py JSON``) with the side's own sources on the path, so that a
revision is measured with its own runtime. Lines in: how many runs; lines out: JSON.
"""

from __future__ import annotations

import gc
import json
import math
import sys
import time
from pathlib import Path


def main(given: dict[str, object]) -> None:
    """Opens the program, then answers every number ``n`` on standard input with the milliseconds of ``n``
    runs, from inputs in host memory to outputs in host memory."""
    import numpy as np

    import npu_runtime
    from npu_runtime.device import Device
    from npu_runtime.dtypes import numpy_dtype
    from npu_runtime.weight_loader import load_weights
    from pipelines.programs import open_program

    device = Device(given["selector"], threads=given["threads"])  # type: ignore[arg-type]
    executor = open_program(Path(str(given["program"])), device)
    weights = load_weights(str(given["weights"]), executor.program, device)
    inputs, data = {}, Path(str(given["inputs"])).read_bytes()
    for name, shape, dtype in given["specs"]:  # type: ignore[attr-defined]
        array = np.frombuffer(data, numpy_dtype(dtype), math.prod(shape)).reshape(shape)
        inputs[name], data = array, data[array.nbytes:]

    def run() -> float:
        start = time.perf_counter_ns()
        for buffer in executor.run(inputs, weights).values():
            buffer.to_numpy()
        return (time.perf_counter_ns() - start) / 1e6

    _say({"runtime": str(Path(str(npu_runtime.__file__)).parent), "device": device.name,
          "driver": device.info.driver})
    gc.disable()
    for line in sys.stdin:
        _say([run() for _ in range(int(line))])
        gc.collect()


def _say(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
