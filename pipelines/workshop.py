"""The tuner's side of the process that builds and runs kernels: starts it, waits for it no longer than it may
take, and kills it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from npu_compiler.spaces import Choice
from npu_compiler.tuned import Answer
from pipelines.search import Trial

#: What a worker is started with; its last argument is what it works on.
WORKER = (sys.executable, "-m", "pipelines.tune_worker")
#: Seconds that a worker may take to lower the model's graphs and to open the device.
START = 600.0


@dataclass
class Workshop:
    """A worker for the programs that ``given`` describes, started anew when it was killed. An answer may take
    ``patience`` seconds."""

    given: Mapping[str, Any]
    patience: float
    root: Path
    command: Sequence[str] = WORKER
    threads: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _pending: bytes = field(default=b"", repr=False)

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()

    def open(self, program: str, answer: Answer, default: Choice,
             others: Sequence[tuple[str, Choice]]) -> Bench:
        """What measures choices for the question of ``answer``. Raises ``ValueError`` where the rule's own
        choice does not run, or the node alone does not ask it."""
        request = {"do": "open", "program": program, "node": answer.nodes[0], "question": answer.key,
                   "default": dict(default),
                   "others": [(key, dict(choice)) for key, choice in others if key != answer.key]}
        bench = Bench(self, request)
        bench.begin()
        return bench

    def profile(self, program: str) -> dict[str, float]:
        """The microseconds of every node's kernels in a run of ``program`` by the rules. Raises
        ``ValueError`` where it does not run."""
        if not self.alive:
            self.start()
        answer = self.ask({"do": "profile", "program": program}, START)
        if "problem" in answer:
            raise ValueError(f"{program}: {answer['problem']}")
        found: dict[str, float] = answer["times"]
        return found

    def ask(self, request: Mapping[str, Any], limit: float) -> dict[str, Any]:
        """The worker's answer; "problem" is why there is none. A worker that hangs is killed."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            return self._died()
        return self._answer(limit)

    @property
    def alive(self) -> bool:
        """Whether there is a worker that has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts a worker. Raises ``ValueError`` where it does not come up."""
        self.stop()
        self._process = subprocess.Popen(
            [*self.command, json.dumps(self.given)], cwd=self.root, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        answer = self._answer(START)
        if "problem" in answer:
            raise ValueError(f"the process that measures {answer['problem']}")
        self.threads = answer["threads"]

    def stop(self) -> None:
        """Ends the worker, and whatever it has started."""
        process, self._process, self._pending = self._process, None, b""
        if process is None:
            return
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _answer(self, limit: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        end = time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                left = end - time.monotonic()
                if left <= 0 or not selector.select(left):
                    self.stop()
                    return {"problem": f"did not end within {limit:g} s"}
                data = os.read(self._process.stdout.fileno(), 1 << 16)
                if not data:
                    return self._died()
                self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _died(self) -> dict[str, Any]:
        assert self._process is not None
        code = self._process.wait()
        self.stop()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        return {"problem": f"crashed: it was ended {how}"}


@dataclass
class Bench:
    """Measures choices for one question (``pipelines.search.Lab``)."""

    workshop: Workshop
    request: Mapping[str, Any]

    def begin(self) -> None:
        """Has the worker run the rule's choice. Raises ``ValueError`` where it cannot."""
        if not self.workshop.alive:
            self.workshop.start()
        answer = self.workshop.ask(self.request, self.workshop.patience)
        if not answer.get("asked"):
            raise ValueError(answer.get("problem", "the node alone does not ask it"))

    def measure(self, choice: Choice, repeats: int) -> Trial:
        """See ``pipelines.search.Lab``."""
        return self._trial({"do": "measure", "choice": dict(choice), "repeats": repeats})

    def measure_program(self, choice: Choice) -> Trial:
        """See ``pipelines.search.Lab``."""
        return self._trial({"do": "measure_program", "choice": dict(choice)})

    def build(self, choice: Choice) -> None:
        """Has the driver build what ``choice`` needs."""
        self._ask({"do": "build", "choice": dict(choice)})

    def _trial(self, request: Mapping[str, Any]) -> Trial:
        answer = self._ask(request)
        if "problem" in answer:
            return Trial(problem=answer["problem"])
        return Trial(tuple(answer["times"]), tuple(answer["default"]))

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if not self.workshop.alive:
            self.begin()
        return self.workshop.ask(request, self.workshop.patience)
