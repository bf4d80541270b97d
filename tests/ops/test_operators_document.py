"""docs/operators.md says what the registry holds."""

from __future__ import annotations

from pathlib import Path

import torch

from npu_compiler.ops import load_all
from npu_compiler.ops.refused import REFUSED
from pipelines.operators import document, records_of

FILE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_the_document_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == document(), "run `python -m pipelines operators`"


def test_records_are_read_from_lowerings() -> None:
    ops, lowerings = load_all()
    assert records_of(lowerings["aten.glu.default"], ops) == ("mul", "sigmoid", "slice")
    assert "matmul" in records_of(lowerings["aten.bmm.default"], ops)
    silent = {name for name, function in lowerings.items() if not records_of(function, ops)}
    refused = {f"aten.{name}" for names in REFUSED.values() for name in names}
    assert len(silent - refused) < 0.1 * len(lowerings)


def test_every_core_operation_is_in_the_document() -> None:
    text = FILE.read_text(encoding="utf-8")
    for name in ("conv2d.default", "nonzero.default", "sort.stable", "convolution_backward.default"):
        assert f"`{name}`" in text
        base, overload = name.split(".")
        assert hasattr(getattr(torch.ops.aten, base), overload)
