"""Every registered op, on every sample case, dtype and layout, against its reference in PyTorch.

The kernels of all selected samples are one program, run once between guard bytes.
"""

from __future__ import annotations

import re
from typing import Any

import graphs
import numpy as np
import pytest
import torch
from op_graphs import Sample, operands, samples

from npu_compiler.ops import load_all

SAMPLES = samples()


def _is_short(sample: Sample) -> bool:
    """Whether the short tier has it: of ops with kernels of their own every case and layout in the case's
    first dtype and the first case in all; of elementwise ones the first case and the last."""
    dtypes, last = sample.case.dtypes, len(sample.op.cases) - 1
    if sample.op.expr is None:
        return sample.index == 0 or sample.dtype == dtypes[0]
    return (sample.index, sample.dtype) in ((0, dtypes[0]), (last, dtypes[-1]))


def _parameters() -> list[Any]:
    return [
        pytest.param(sample, id=sample.id, marks=[] if _is_short(sample) else [pytest.mark.full])
        for sample in SAMPLES
    ]


@pytest.fixture(scope="session")
def ran(request: pytest.FixtureRequest, guarded: graphs.GuardedDevice) -> graphs.Ran:
    """What all samples of this session give."""
    chosen = {
        item.callspec.params["sample"].id: item.callspec.params["sample"]  # type: ignore[attr-defined]
        for item in request.session.items
        if graphs.is_for(item, "sample", guarded) and item.module.__name__ == __name__  # type: ignore[attr-defined]
    }
    program = graphs.emit(graphs.merge({key: sample.graph() for key, sample in chosen.items()}))
    inputs, weights = operands(chosen)
    return graphs.run(program, guarded, inputs, weights, guarded=True)


def magnitude(array: np.ndarray[Any, Any]) -> float:
    """The root of the mean square of the finite elements."""
    finite = array[np.isfinite(array)].astype(np.float64)
    return float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0


@pytest.mark.parametrize("sample", _parameters())
def test_an_op_gives_what_its_reference_gives(sample: Sample, ran: graphs.Ran) -> None:
    for index, expected in enumerate(sample.reference(torch, sample.arrays())):
        got = ran.outputs[f"{sample.id}.y{index}"]
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(
            got.astype(np.float64),
            expected.astype(np.float64),
            rtol=sample.op.rtol,
            atol=sample.op.atol * max(1.0, magnitude(expected)),
        )


@pytest.mark.every_shard
def test_nothing_is_written_outside_its_memory(ran: graphs.Ran) -> None:
    assert ran.damage == []


@pytest.mark.parametrize("name", sorted(load_all()[0]))
def test_an_op_has_telling_cases(name: str) -> None:
    mine = [sample for sample in SAMPLES if sample.op.name == name]
    assert mine, f"{name} has no cases"
    takes_inputs = any(sample.case.shapes for sample in mine)
    assert not takes_inputs or any(
        array.size > 2 and np.unique(array).size > 1 for sample in mine for array in sample.arrays().values()
    ), "no input of any case varies"
    results = [result for sample in mine for result in sample.reference(torch, sample.arrays())]
    varying = any(result.size > 2 and np.unique(result).size > 1 for result in results)
    assert varying or name == "full", "no result varies"
    sizes = {size for result in results for size in result.shape}
    assert sizes & {3, 5, 7, 11, 13, 29, 31, 113}, "no result has a prime size"


@pytest.mark.parametrize("name", sorted(load_all()[0]))
def test_shape_rules_agree_with_the_reference(name: str) -> None:
    for sample in (sample for sample in SAMPLES if sample.op.name == name):
        outs = sample.graph().nodes[-1].outs
        results = sample.reference(torch, sample.arrays())
        assert [(out.shape, out.dtype) for out in outs] == [
            (result.shape, result.dtype.name) for result in results
        ]


@pytest.mark.parametrize(
    ("kernel", "pattern", "place"),
    [
        ("softmax", r"(\*restrict q = y \+ \()", "written after"),
        ("cast", r"(\*restrict t = out \+ \()", "written before y0"),
    ],
)
def test_the_guards_notice(guarded: graphs.GuardedDevice, kernel: str, pattern: str, place: str) -> None:
    """A kernel made to write 100 elements too far is found, in the arena too."""
    sample = next(s for s in SAMPLES if s.op.name == "softmax" and s.layout == "nhwc8")
    program = graphs.emit(sample.graph())
    entry = next(step.kernel for step in program.steps if step.kernel.startswith(kernel))
    name = f"kernels/{entry}.cl"
    text = re.sub(pattern, r"\g<1>100 + ", program.kernel_sources[name])
    assert text != program.kernel_sources[name]
    broken = graphs.replaced(program, kernel_sources={**program.kernel_sources, name: text})
    ran = graphs.run(broken, guarded, {f"x{k}": a for k, a in sample.arrays().items()}, guarded=True)
    if not guarded.shares_arenas:  # each value lies in memory of its own
        place = "written after"
    assert any(place in line for line in ran.damage), ran.damage
