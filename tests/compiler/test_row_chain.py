"""How rows are shared among a device's threads."""

from __future__ import annotations

import pytest

from npu_compiler.ops.row_chain import MOST_ROWS, rows_of
from npu_runtime.program import THREADS
from npu_runtime.symbols import evaluate
from torch_ir.expr import symbol


@pytest.mark.parametrize(
    ("count", "threads", "rows"),
    [
        (128, 2, 64),
        (128, 1, 64),
        (128, 8, 16),
        (128, 64, 4),
        (130, 2, 33),
        (256, 3, 43),
        (2048, 2, 64),
        (5, 2, 3),
        (2, 16, 1),
        (1, 2, 1),
        (0, 2, 1),
    ],
)
def test_threads_have_as_many_rows_each(count: int, threads: int, rows: int) -> None:
    values = {"n": count, THREADS: threads}
    found = evaluate(str(rows_of(symbol("n"))), values)
    assert found == rows <= MOST_ROWS
    assert evaluate(str(rows_of(count)), values) == rows
