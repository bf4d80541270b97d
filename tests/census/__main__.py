"""``python -m tests.census``: every operator that PyTorch has sample inputs for, against eager PyTorch.

Each call is extracted, compiled, run and compared. It is *ok*; *refused* with a reason; *export*:
torch.export itself cannot take it; *wrong*: another number, shape or dtype; *crash*: an untyped error, a dead
process or no answer in time; or *skipped*: eager PyTorch fails as well. Exits with 1 if anything is wrong or
crashes.
"""

from __future__ import annotations

import argparse
import json
import queue
import re
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "npu")]
FORMS = ("function", "method", "inplace", "module")
OUTCOMES = ("ok", "refused", "export", "wrong", "crash", "skipped")


class Worker:
    """A child process, started anew whenever it has died."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def ask(self, task: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
        """The verdicts on a task, and what went wrong before they were complete ("" for nothing)."""
        process = self._started()
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._seconds, give_up)
        timer.start()
        found: list[dict[str, Any]] = []
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                verdict = json.loads(line)
                if not verdict:
                    return found, ""
                found.append(verdict)
        except BrokenPipeError:
            pass
        finally:
            timer.cancel()
        code = process.wait()
        return found, f"no answer in {self._seconds:.0f} s" if late.is_set() else f"the process died ({code})"

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        return self._process

    def close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()


def judged(worker: Worker, task: dict[str, Any]) -> list[dict[str, Any]]:
    """The verdicts on a task. Where its calls do not run in one program, each runs on its own."""
    found, failure = worker.ask({**task, "together": True})
    if failure or any(verdict["detail"].startswith("run:") for verdict in found):
        found, failure = worker.ask({**task, "together": False})
    if failure:
        found.append({**task, "call": task["op"], "outcome": "crash", "detail": failure})
    return found


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.census", description=__doc__)
    parser.add_argument("--ops", default="", help="only operators whose name matches this regular expression")
    parser.add_argument("--dtypes", default="float32", help="of the samples, separated by commas")
    parser.add_argument(
        "--forms", default="function", help=f"of calls, separated by commas, of {list(FORMS)}"
    )
    parser.add_argument("--samples", type=int, default=6, help="calls per operator and dtype")
    parser.add_argument("--jobs", type=int, default=2, help="child processes")
    parser.add_argument("--seconds", type=float, default=180, help="that an operator may take")
    parser.add_argument("--json", type=Path, help="where to write all verdicts")
    options = parser.parse_args()
    import torch
    from sampling import database, takes, title

    tasks: queue.Queue[dict[str, Any]] = queue.Queue()
    for form in options.forms.split(","):
        for name in options.dtypes.split(","):
            for info in database(form):
                if re.search(options.ops, title(info)) and takes(info, getattr(torch, name)):
                    tasks.put({"op": title(info), "form": form, "dtype": name, "samples": options.samples})
    total, verdicts = tasks.qsize(), []
    lock = threading.Lock()

    def work() -> None:
        worker = Worker(options.seconds)
        while True:
            try:
                task = tasks.get_nowait()
            except queue.Empty:
                return worker.close()
            found = judged(worker, task)
            with lock:
                verdicts.extend(found)
                for verdict in found:
                    if verdict["outcome"] in ("wrong", "crash"):
                        print(told(verdict), flush=True)
                left = tasks.qsize()
                if left % 25 == 0:
                    print(f"{total - left} of {total}", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=work) for _ in range(options.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if options.json:
        options.json.write_text(json.dumps(verdicts, indent=0) + "\n", encoding="utf-8")
    print(summary(verdicts))
    return int(any(verdict["outcome"] in ("wrong", "crash") for verdict in verdicts))


def told(verdict: dict[str, Any]) -> str:
    kind = f"{verdict['dtype']} {verdict['form']}"
    return f"{verdict['outcome']}: {kind} {verdict['call'][:300]}: {verdict['detail']}"


def summary(verdicts: list[dict[str, Any]]) -> str:
    """Counts by dtype, form and outcome (calls, and operators in brackets), then the reasons of refusals."""
    calls: dict[str, Counter[str]] = defaultdict(Counter)
    operators: dict[tuple[str, str], set[str]] = defaultdict(set)
    reasons: dict[str, set[str]] = defaultdict(set)
    for verdict in verdicts:
        kind = f"{verdict['dtype']} {verdict['form']}"
        calls[kind][verdict["outcome"]] += 1
        operators[kind, verdict["outcome"]].add(verdict["op"])
        if verdict["outcome"] in ("refused", "export"):
            reason = re.sub(r"\d+", "#", verdict["detail"].split("; ")[0])
            reasons[f"{verdict['outcome']}: {reason[:160]}"].add(verdict["op"])
    lines = [f"{'dtype, form':20}" + "".join(f"{outcome:>16}" for outcome in OUTCOMES)]
    for kind, counts in calls.items():
        cells = (f"{counts[outcome]} ({len(operators[kind, outcome])})" for outcome in OUTCOMES)
        lines.append(f"{kind:20}" + "".join(f"{cell:>16}" for cell in cells))
    lines += ["", "reasons, by operators:"]
    for reason, names in sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"{len(names):4}  {reason}   [{', '.join(sorted(names)[:4])}]")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
