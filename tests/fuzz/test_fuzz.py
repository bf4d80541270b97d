"""A few random graphs in every run, and those that once failed; ``python -m tests.fuzz`` runs many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import checking
import numpy as np
import pytest
import random_graphs
import torch
from steps import KINDS

from torch_ir.ir import Node
from torch_ir.printer import from_text, to_text

if TYPE_CHECKING:
    from graphs import GuardedDevice

#: A graph that takes even sizes only.
PAIRS = """ir pairs {ir_version=1}
symbol n = 1..8
guard "n % 2 == 0"
input x : f32[n, 3]
exp = aten.exp.default(x) : f32[n, 3]
output exp = exp
"""
MIXED = """ir mixed {ir_version=1}
input x : f32[5, 12]
input y : f64[12]
gelu = aten.gelu.default(x) {approximate="tanh"} : f32[5, 12]
add = aten.add.Tensor(gelu, y) : f64[5, 12]
exp = aten.exp.default(y) : f64[12]
output mixed = add
output wide = exp
"""
CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))


@pytest.mark.parametrize(
    ("first", "count"), [(0, 8), pytest.param(10000, 120, marks=pytest.mark.full)], ids=str
)
def test_random_graphs_give_what_pytorch_gives(first: int, count: int, guarded: GuardedDevice) -> None:
    subjects = [checking.subject(seed) for seed in range(first, first + count)]
    found = checking.differences(subjects, guarded)
    assert not found, "\n".join(
        checking.told(checking.reduced(s, guarded), found[s.name]) for s in subjects if s.name in found
    )


def test_graphs_that_once_failed_give_what_the_interpreter_gives(guarded: GuardedDevice) -> None:
    assert len(CASES) >= 1
    assert checking.differences([checking.named_case(path) for path in CASES], guarded) == {}


def test_a_seed_gives_the_same_graph_again() -> None:
    first, second = checking.subject(7), checking.subject(7)
    assert to_text(first.ir) == to_text(second.ir)
    for one, other in zip((*first.inputs, first.weights), (*second.inputs, second.weights), strict=True):
        assert all(np.array_equal(one[k], other[k]) for k in one)


def test_random_modules_draw_from_all_kinds_dtypes_and_sizes() -> None:
    made = [random_graphs.make(seed) for seed in range(60)]
    assert sum(bool(sample.symbolic) for sample in made) >= 10
    assert {sample.module.real for sample in made} == set(random_graphs.REALS)
    assert len(KINDS) > 50
    assert max(len(sample.module.steps) for sample in made) > 15


def test_sizes_that_guards_exclude_must_be_refused(
    guarded: GuardedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler that forgets the guards."""
    ir = from_text(PAIRS)
    sizes = [{"x": torch.ones(n, 3)} for n in (4, 3, 2, 5)]
    inputs, excluded = checking.by_guards(ir, sizes)
    assert [len(given["x"]) for given in inputs] == [4, 2]
    s = checking.Subject("pairs", ir, inputs, {}, excluded=excluded)
    assert checking.differences([s], guarded) == {}
    compile_ir = checking.compile_ir
    monkeypatch.setattr(checking, "compile_ir", lambda ir: compile_ir(replace(ir, guards=())))
    assert "exclude" in checking.differences([s], guarded)["pairs"]


def test_differences_are_seen() -> None:
    x = np.arange(6, dtype=np.float32)
    assert checking.difference(x, x) is None
    assert "instead of" in str(checking.difference(x + 0.01 * (x == 3), x))
    assert "instead of" in str(checking.difference(x[:5], x))
    assert checking.difference(np.where(x == 3, np.nan, x).astype(np.float32), x) is not None
    assert "1 of 6" in str(checking.difference(np.arange(6) + (x == 3), np.arange(6)))


def test_a_result_is_as_exact_as_what_it_comes_from(guarded: GuardedDevice) -> None:
    """float32's gelu in a float64 sum; of a float64 alone, every digit counts."""
    ir = from_text(MIXED)
    assert checking._tolerances(ir) == {"mixed": 1e-4, "wide": 1e-10}
    x, y = torch.linspace(-3, 3, 60).reshape(5, 12), torch.linspace(0, 1, 12, dtype=torch.float64)
    exact = {"mixed": torch.nn.functional.gelu(x.double(), approximate="tanh") + y, "wide": y.exp()}
    s = checking.Subject("mixed", ir, ({"x": x, "y": y},), {}, (exact,))
    assert checking.differences([s], guarded) == {}
    wrong = replace(s, eager=({**exact, "wide": y.exp() * (1 + 1e-8)},))
    assert checking.differences([wrong], guarded)["mixed"].startswith("wide at size 0 against PyTorch")


def test_a_failure_is_reduced_to_the_node_that_is_wrong(
    guarded: GuardedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler that takes every tanh for a sine."""
    seed = next(
        seed for seed in range(100) if any("tanh" in n.op for n in checking.subject(seed).ir.nodes[2:-2])
    )
    s = checking.subject(seed)

    def wrong(node: Node) -> Node:
        return replace(node, op="aten.sin.default") if node.op == "aten.tanh.default" else node

    compile_ir = checking.compile_ir

    def compiled(ir: checking.IR) -> object:
        return compile_ir(replace(ir, nodes=tuple(wrong(node) for node in ir.nodes)))

    monkeypatch.setattr(checking, "compile_ir", compiled)
    problem = checking.failure(s, guarded)
    assert problem is not None and problem.startswith("difference")
    assert [node.op for node in checking.reduced(s, guarded).ir.nodes] == ["aten.tanh.default"]
