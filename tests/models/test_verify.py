"""verify on tiny models, compiled and run: what agrees passes, what does not names the value where it
begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.opening import PeerError, Work
from benchmarks.peers import compare, run_of
from npu_runtime.device import list_devices
from npu_runtime.program import Transform
from npu_runtime.weight_loader import prepare_file
from pipelines import bench, compile, extract, fetch, report, verify, weights
from pipelines.config import load_config
from pipelines.first_jump import find_jump
from pipelines.job import Job
from pipelines.peer_results import keep, read
from pipelines.results import (
    BenchResult,
    ErrorStats,
    TensorCheck,
    VerifyResult,
    file_digest,
    read_history,
    read_result,
)
from pipelines.schema import VerifyKnobs
from pipelines.verify import VerifyError
from torch_ir.ir import IR, Node, Output, TensorSpec

TINY = """
factory: tiny_models:Tiny
weights: {random: {seed: 1}}
programs:
  main:
    inputs:
      x: {shape: [batch, 3, 7, 5]}
    symbols:
      batch: {min: 1, max: 8}
    outputs: [logits]
verify: {samples: 2}
"""

COUNTER = """
factory: tiny_models:Counter
weights: {random: {seed: 1}}
programs:
  prefill:
    method: write
    inputs:
      x: {shape: [2, 4]}
  decode:
    method: read
    inputs:
      factor: {shape: [2, 4]}
bench: {warmup: 1, repeats: 2}
"""

pytestmark = pytest.mark.skipif(not list_devices(), reason="no OpenCL device on this machine")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Job]:
    """Builds a model's YAML up to its prepared weights, once per module."""
    built: dict[str, Job] = {}

    def make(name: str, text: str) -> Job:
        if name not in built:
            root = tmp_path_factory.mktemp(name)
            path = root / "configs" / "models" / f"{name}.yaml"
            path.parent.mkdir(parents=True)
            path.write_text(text)
            (root / "artifacts" / name / "cpu").mkdir(parents=True)
            info = list_devices()[0]
            job = Job(root, load_config(path, root), "cpu", device=info.vendor, selector=info.selector)
            for stage in (fetch, extract, compile, weights):
                stage.run(job)
            built[name] = job
        return built[name]

    return make


@pytest.fixture(scope="module")
def tiny(build: Callable[[str, str], Job]) -> Job:
    return build("tiny", TINY)


@pytest.fixture(scope="module")
def counter(build: Callable[[str, str], Job]) -> Job:
    return build("counter", COUNTER)


def test_a_dynamic_batch_is_checked_at_its_bounds_and_between(tiny: Job) -> None:
    verify.run(tiny)
    result = read_result(tiny.verify_result, VerifyResult)
    assert result.passed
    assert [(check.symbols, check.shape, check.runs) for check in result.checks] == [
        ({"batch": size}, (size, 12), 2) for size in (1, 3, 8)
    ]
    assert all(check.errors.max_relative < 1e-5 and check.errors.elements for check in result.checks)
    assert all(check.top1 == 1.0 for check in result.checks)


def test_states_are_compared_across_programs(counter: Job) -> None:
    verify.run(counter)
    checks = read_result(counter.verify_result, VerifyResult).checks
    found = {(check.program, check.kind, check.name) for check in checks if check.kind == "state"}
    assert {("prefill", "state", "total"), ("decode", "state", "total")} <= found
    assert sum(check.program == "decode" and check.kind == "output" for check in checks) == 2
    assert all(check.errors.max_relative < 1e-5 for check in checks)


def test_wrong_weights_fail_and_name_the_first_wrong_value(tiny: Job, tmp_path: Path) -> None:
    right = tiny.prepared_weights.read_bytes()
    tensors = load_file(tiny.source_weights)
    tensors["second.weight"] = tensors["second.weight"] * np.float32(1.25)
    wanted = msgspec.json.decode(tiny.transforms().read_bytes(), type=list[Transform])
    tiny.verify_result.unlink(missing_ok=True)
    try:
        prepare_file(tensors, wanted, tmp_path / "wrong.safetensors")
        (tmp_path / "wrong.safetensors").replace(tiny.prepared_weights)
        with pytest.raises(VerifyError) as raised:
            verify.run(tiny)
    finally:
        tiny.prepared_weights.write_bytes(right)
    message = str(raised.value)
    assert "tiny: main.logits on made-up inputs, batch = 1 differs from PyTorch by" in message
    assert "verify.max_relative_error allows 1.00e-04" in message
    assert "The error first jumps at" in message
    source = (Path(__file__).parent / "tiny_models.py").read_text().splitlines()
    line = 1 + next(index for index, text in enumerate(source) if "self.second(y)" in text)
    assert f"tests/models/tiny_models.py:{line})" in message
    assert not tiny.verify_result.exists()


def test_bench_and_report_of_two_programs(counter: Job) -> None:
    verify.run(counter)
    bench.run(counter)
    result = read_result(counter.bench_result, BenchResult)
    assert [program.program for program in result.programs] == ["prefill", "decode"]
    for program in result.programs:
        assert len(program.samples_ms) == 2
        assert 0 < program.p10_ms <= program.median_ms <= program.p90_ms
        assert program.first_result.total > 0
        assert program.kernels and len(program.steps) == program.memory.steps
        assert program.memory.states == 32
    report.run(counter)
    html = counter.report.read_text()
    assert "How long does decode take?" in html
    assert 'total</code> <span class="muted">state</span>' in html
    assert [set(line.programs) for line in read_history(counter.history)] == [{"prefill", "decode"}]


def test_peers_take_turns_on_the_same_work(tiny: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    work = Work("tiny", "cpu", tiny.selector, 1, root=str(tiny.root))
    ours, theirs = compare(work, ("npubin", "pytorch"), rounds=2, repeats=3, warmup=1)
    assert (ours.peer, ours.ratio, theirs.peer) == ("npubin", 1.0, "pytorch")
    assert len(ours.samples) == len(theirs.samples) == 6
    rounds = [np.median(np.reshape(peer.samples, (2, 3)), axis=1) for peer in (ours, theirs)]
    rounding = 1e-4 / min(*ours.samples, *theirs.samples)  # of both: samples have four decimals
    assert theirs.ratio == pytest.approx(np.median(rounds[0] / rounds[1]), rel=rounding)
    for ratio in (0.5, 0.25):
        keep(tiny, run_of(work, 0.0, [ours, msgspec.structs.replace(theirs, ratio=ratio)]))
    (kept,) = read(tiny).runs
    assert (kept.threads, kept.times[1].ratio) == (1, 0.25)
    assert kept.digest == file_digest(tiny.npubin("main"))
    with pytest.raises(PeerError, match=r"artifacts/tiny/gpu/main\.npubin is missing.*doit weights:tiny"):
        compare(Work("tiny", "gpu", None, 1, root=str(tiny.root)), ("npubin",), 1, 1, 1)


def chain(*ops: str) -> IR:
    """x -> ops[0] -> ops[1] ..., each node and its value named after its place."""
    spec = TensorSpec((4,), "float32")
    names = ["x", *(f"v{index}" for index in range(len(ops)))]
    nodes = tuple(
        Node(names[index + 1], op, (names[index],), (names[index + 1],), (spec,), loc=f"model.py:{index}")
        for index, op in enumerate(ops)
    )
    return IR("chain", {"x": spec}, (Output("y", names[-1]),), nodes)


@pytest.mark.parametrize(
    ("errors", "node"),
    [
        ({"v0": 1e-7, "v1": 2e-7, "v2": 3e-7}, None),
        ({"v0": 1e-7, "v1": 2e-3, "v2": 3e-3}, "v1"),
        ({"v2": 3e-3}, "v2"),  # the two before it are fused away
        ({"v0": 1e-3, "v1": 5e-3, "v2": 9e-2}, "v0"),  # the first one, not the largest
        ({"v0": 2e-6, "v1": 9e-6, "v2": 5e-5}, None),  # grows, never jumps
        ({"v0": 0.0, "v1": float("inf"), "v2": float("inf")}, "v1"),
    ],
)
def test_the_first_jump_is_found(errors: dict[str, float], node: str | None) -> None:
    jump = find_jump(chain("a", "b", "c"), errors)
    assert (jump.node if jump else None) == node
    if jump is not None:
        assert f"{jump.op}, {jump.loc}" in str(jump)


@pytest.mark.parametrize(("wanted", "share", "fails"), [
    (1.0, 0.95, True), (0.95, 0.95, False), (None, 0.5, False), (1.0, None, False), (1.0, 1.0, False)])
def test_rows_with_another_best_class_fail_below_the_wanted_share(
        wanted: float | None, share: float | None, fails: bool) -> None:
    check = TensorCheck("main", "logits", "output", "images", {}, (20, 1000), 1,
                        ErrorStats(1e-6, 1e-7, 1e-6, 120.0, 20000), share, share)
    problem = verify.problem_of(check, VerifyKnobs(min_agreement=wanted))
    assert (problem is not None) == fails
    if problem:
        assert "main.logits on images has PyTorch's best class in 95.0% of its rows" in problem
        assert "verify.min_agreement asks for 100.0%" in problem
