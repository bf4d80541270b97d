"""The regression gate: its statistics on made-up samples, its exit statuses, a real run of a tiny program."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from npu_compiler import compile_ir
from pipelines import gate_run
from pipelines.cli import main
from pipelines.gate import (
    LOOKS,
    Comparison,
    Ratio,
    Rounds,
    Verdict,
    decide,
    judge,
    ratio_of_medians,
    status_of,
)
from pipelines.gate_run import GateError, Settings, run_gate


def samples(seed: int, factor: float = 1.0, *, rounds: int = 20, runs: int = 10, turn: float = 0.02,
            run: float = 0.05) -> tuple[Rounds, Rounds]:
    """Two sides whose medians differ by ``factor``: a machine that drifts and has slow phases (which both
    sides of a round see), noise of each turn, and runs with a long tail."""
    random = np.random.default_rng(seed)
    machine = 1 + 0.3 * np.sin(np.linspace(0, 3, rounds)) + 0.5 * (random.random(rounds) < 0.2)

    def side(scale: float) -> Rounds:
        turns = machine * np.exp(turn * random.standard_normal(rounds))
        tails = np.exp(run * random.exponential(1, (rounds, runs)))
        times: Rounds = (scale * turns[:, None] * tails).tolist()
        return times

    return side(3.0), side(3.0 * factor)


@pytest.mark.parametrize(("factor", "verdict"), [
    (1.5, "regression"), (1.15, "regression"), (1.0, "no regression"), (0.8, "improvement")])
@pytest.mark.parametrize("seed", range(5))
def test_clear_cases_are_told_apart(factor: float, verdict: str, seed: int) -> None:
    found, ratio, _, _ = decide(lambda rounds: samples(seed, factor, rounds=rounds), rounds=20,
                                threshold=0.1, confidence=0.99)
    assert found == verdict or (found, verdict) == ("improvement", "no regression")
    assert ratio.low < ratio.value < ratio.high
    assert ratio.low < factor < ratio.high


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    inside = [ratio.low <= 1.07 <= ratio.high for ratio in (
        ratio_of_medians(*samples(seed, 1.07, rounds=30), 0.95) for seed in range(200))]
    assert 0.9 <= np.mean(inside) <= 0.995


def test_equal_sides_raise_no_alarm() -> None:
    """Also where one look would not be enough: noise of 10 % per turn against a threshold of 0."""
    seeds = itertools.count()
    verdicts = [decide(lambda rounds: samples(next(seeds), turn=0.1, rounds=rounds), rounds=12, threshold=0.0,
                       confidence=0.95)[0] for _ in range(300)]
    assert verdicts.count("regression") + verdicts.count("improvement") <= 0.05 * len(verdicts)
    assert "undecided" in verdicts


def test_runs_within_a_turn_are_not_taken_for_independent() -> None:
    few = ratio_of_medians(*samples(7, turn=0.1, runs=10), 0.99)
    many = ratio_of_medians(*samples(7, turn=0.1, runs=500), 0.99)
    assert many.high - many.low > 0.5 * (few.high - few.low)


def test_the_ratio_follows_its_sides() -> None:
    base, head = samples(3, 1.3)
    ratio, inverse = ratio_of_medians(base, head, 0.99), ratio_of_medians(head, base, 0.99)
    assert (1 / inverse.high, 1 / inverse.value, 1 / inverse.low) == pytest.approx(
        (ratio.low, ratio.value, ratio.high))
    wider = ratio_of_medians(base, head, 0.9999)
    assert wider.low < ratio.low < ratio.high < wider.high


@pytest.mark.parametrize(("rounds", "confidence", "left_out"), [
    (6, 0.95, 0), (8, 0.95, 0), (9, 0.95, 1), (20, 0.95, 5), (20, 0.99, 3), (100, 0.95, 39)])
def test_the_interval_is_that_of_the_sign_test(rounds: int, confidence: float, left_out: int) -> None:
    """As in tables of the median's confidence interval: the ranks left out on each side."""
    ratio = ratio_of_medians([[1.0]] * rounds, [[1.0 + number] for number in range(rounds)], confidence)
    assert (ratio.low, ratio.high) == (1.0 + left_out, float(rounds - left_out))


@pytest.mark.parametrize(("base", "head"), [
    ([[1.0]] * 7, [[1.0]] * 7), ([[1.0]] * 9, [[1.0]] * 8), ([[]] * 9, [[]] * 9), ([], []),
    ([[1.0]] * 9, [[1.0]] * 8 + [[0.0]]), ([[1.0]] * 8 + [[float("nan")]], [[1.0]] * 9),
    ([[1.0]] * 9, [[-1.0]] * 9), ([[float("inf")]] * 9, [[1.0]] * 9),
])
def test_samples_that_mean_nothing_are_refused(base: Rounds, head: Rounds) -> None:
    with pytest.raises(ValueError, match=r"rounds|times"):
        ratio_of_medians(base, head, 0.99)


@pytest.mark.parametrize(("low", "high", "verdict"), [
    (1.06, 1.2, "regression"), (1.05, 1.2, "undecided"), (0.9, 1.06, "undecided"),
    (0.97, 1.05, "no regression"), (0.9, 1.0, "no regression"), (0.8, 0.99, "improvement"),
    (1.01, 1.04, "no regression"),
])
def test_an_interval_is_judged_by_all_of_it(low: float, high: float, verdict: str) -> None:
    assert judge(Ratio((low + high) / 2, low, high), 0.05) == verdict


@pytest.mark.parametrize(("noisy", "asked"), [(False, [10]), (True, [10, 10, 20])])
def test_only_the_undecided_is_measured_again(noisy: bool, asked: list[int]) -> None:
    calls: list[int] = []

    def measure(rounds: int) -> tuple[Rounds, Rounds]:
        calls.append(rounds)
        return samples(len(calls), 1.05 if noisy else 2.0, rounds=rounds, turn=0.2 if noisy else 0.0)

    _, _, base, head = decide(measure, rounds=10, threshold=0.05, confidence=0.99)
    assert calls == asked
    assert len(calls) <= LOOKS
    assert len(base) == len(head) == sum(asked)


@pytest.mark.parametrize(("verdicts", "status"), [
    (["no regression"], 0), (["improvement", "undecided"], 0), (["no regression", "not compared"], 0),
    (["regression", "no regression"], 3), (["regression", "error"], 1), (["error", "not compared"], 1),
    (["not compared", "not compared"], 4), ([], 4), (["regression", "not compared"], 3),
])
def test_exit_statuses(verdicts: Sequence[Verdict], status: int) -> None:
    assert status_of([Comparison("m", "main", verdict) for verdict in verdicts]) == status


NODE = {"name": "relu", "op_type": "aten.relu.default", "attrs": {},
        "inputs": [{"name": "x", "shape": [2, 3], "dtype": "float32"}],
        "outputs": [{"name": "relu", "shape": [2, 3], "dtype": "float32"}]}
GRAPH = {"model_name": "tiny", "pytorch_version": "", "weights": [], "weight_name_mapping": {},
         "nodes": [NODE], "graph_inputs": NODE["inputs"], "graph_outputs": NODE["outputs"]}
YAML = "factory: a:b\nprograms:\n  main:\n    inputs:\n      x: {shape: [2, 3]}\ndefault: true\n"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("tiny") / "tiny.npubin"
    compile_ir(GRAPH).save(path)
    return path.read_bytes()


def project(root: Path, program: bytes | None) -> Path:
    """A project whose only model has ``program`` for its artifact."""
    (root / "configs" / "models").mkdir(parents=True)
    (root / "configs" / "models" / "tiny.yaml").write_text(YAML)
    if program is not None:
        folder = root / "artifacts" / "tiny" / "cpu"
        folder.mkdir(parents=True)
        (folder / "main.npubin").write_bytes(program)
        save_file({"unused": np.ones(1, np.float32)}, folder / "tiny.safetensors")
    return root


def test_two_folders_are_measured_in_turns(
        compiled: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    base, head = project(tmp_path / "base", compiled), project(tmp_path / "head", compiled)
    turns: list[str] = []
    runs = gate_run.Side.runs

    def counted(side: gate_run.Side, count: int) -> list[float]:
        turns.append(side.name)
        return runs(side, count)

    monkeypatch.setattr(gate_run.Side, "runs", counted)
    arguments = ["gate", str(base), str(head), "--rounds", "10", "--threshold", "1e6",
                 "--json", str(tmp_path / "gate.json")]
    assert main(arguments) == 0
    assert turns == ["base", "head", *(["base", "head", "head", "base"] * 5)]
    assert "tiny main" in capsys.readouterr().out
    report = json.loads((tmp_path / "gate.json").read_text())
    (found,) = report["comparisons"]
    assert report["status"] == 0
    assert found["rounds"] == 10
    assert found["base_digest"] == found["head_digest"] != ""
    assert found["ratio"]["low"] <= found["ratio"]["value"] <= found["ratio"]["high"]


class Made:
    """In place of ``Side``: head takes ``slower`` times as long as base."""

    slower = 1.0

    def __init__(self, name: str, *_: object) -> None:
        self.name, self.count = name, 0

    def __enter__(self) -> Made:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def runs(self, count: int) -> list[float]:
        random = np.random.default_rng([len(self.name), self.name == "head", self.count])
        self.count += 1
        scale = self.slower if self.name == "head" else 1.0
        return list(scale * np.exp(0.01 * random.standard_normal(count)))


@pytest.mark.parametrize(("slower", "status"), [(1.0, 0), (1.5, 3), (0.5, 0)])
def test_the_command_ends_with_its_status(slower: float, status: int, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    base, head = project(tmp_path / "base", b"old"), project(tmp_path / "head", b"new")
    monkeypatch.setattr(Made, "slower", slower)
    monkeypatch.setattr(gate_run, "Side", Made)
    assert main(["gate", str(base), str(head)]) == status


@pytest.mark.parametrize(("base", "head", "names", "status", "said"), [
    (None, None, [], 4, "nothing was compared"), (None, b"new", [], 4, "base has no artifacts/tiny"),
    (b"old", None, [], 4, "head has no artifacts/tiny"), (b"old", None, ["tiny"], 1, "run doit weights:tiny"),
    (None, b"new", ["tiny"], 4, "nothing was compared"),
    (b"torn", b"torn", [], 1, "base: tiny main cannot be run"),
])
def test_what_cannot_be_compared_is_told(
        base: bytes | None, head: bytes | None, names: list[str], status: int, said: str, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    one, other = project(tmp_path / "base", base), project(tmp_path / "head", head)
    assert main(["gate", str(one), str(other), *names]) == status
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("names", "said"), [
    (["tinny"], 'did you mean "tiny"'), (["tiny@cpuu"], 'unknown target cpuu; did you mean "cpu"')])
def test_wrong_names_are_errors(names: list[str], said: str, tmp_path: Path) -> None:
    root = project(tmp_path / "one", None)
    with pytest.raises(GateError, match=said):
        run_gate(root, root, names, Settings())
    with pytest.raises(GateError, match="take 10 or more"):
        run_gate(root, root, [], Settings(rounds=9))
    with pytest.raises(GateError, match="there is no folder"):
        run_gate(tmp_path / "nowhere", root, [], Settings())


def test_misuse_has_a_status_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", str(tmp_path)]) == 2
    assert main(["gate", str(tmp_path), str(tmp_path), "--rounds", "0"]) == 2
