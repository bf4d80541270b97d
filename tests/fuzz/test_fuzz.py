"""A few random graphs in every run; ``python -m tests.fuzz`` runs many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import checking
import numpy as np
import pytest
import random_graphs

from torch_ir.printer import to_text

if TYPE_CHECKING:
    from graphs import GuardedDevice


@pytest.mark.parametrize(
    ("first", "count"), [(0, 12), pytest.param(1000, 120, marks=pytest.mark.full)], ids=str
)
def test_random_graphs_give_what_the_interpreter_gives(
    first: int, count: int, guarded: GuardedDevice
) -> None:
    subjects = [checking.subject(seed) for seed in range(first, first + count)]
    found = checking.differences(subjects, guarded)
    assert not found, "\n".join(
        checking.told(checking.reduced(s, guarded), found[s.seed]) for s in subjects if s.seed in found
    )


def test_a_seed_gives_the_same_graph_again() -> None:
    first, second = checking.subject(7), checking.subject(7)
    assert to_text(first.ir) == to_text(second.ir)
    assert all(np.array_equal(first.inputs[k], second.inputs[k]) for k in first.inputs)
    assert all(np.array_equal(first.weights[k], second.weights[k]) for k in first.weights)


def test_random_graphs_cover_the_kinds() -> None:
    ops = {node.op.split(".")[1] for seed in range(40) for node in checking.subject(seed).ir.nodes}
    assert ops >= {"conv2d", "linear", "batch_norm", "cat", "permute", "softmax", "mul", "max_pool2d"}
    assert all(3 <= len(random_graphs.make(seed)[0].steps) <= 12 for seed in range(40))


def test_differences_are_seen() -> None:
    x = np.arange(6, dtype=np.float32)
    assert checking.difference(x, x) is None
    assert "instead of" in str(checking.difference(x + 0.01 * (x == 3), x))
    assert "instead of" in str(checking.difference(x[:5], x))
    assert checking.difference(np.where(x == 3, np.nan, x).astype(np.float32), x) is not None
