"""Samples for the targets ``gpu`` and ``nvidia``: the registry's, products of 16 bits, and products whose
rows are normalised before; and models of 16 bits for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import torch
from op_graphs import Sample, samples

from npu_compiler.ops import Case, load_all
from torch_ir.ir import IR, Node

HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
#: Ops that have kernels of their own for work-groups; the long tier has the others too.
GROUPED = (
    "draw_token",
    *("attention", "conv", "linear", "gated", "norm", "softmax", "reduce", "max_pool", "avg_pool"),
    *("gather_rows", "rotary", "cache_rows", "seen_end"),
)


@dataclass(frozen=True)
class HalfSample(Sample):
    """A product of a model that computes in 16 bits. All its numbers are of that dtype, so that no rounding
    of operands shows."""

    def arrays(self) -> dict[int, np.ndarray[Any, Any]]:
        half: Any = HALVES[str(self.case.attrs["half"])]
        return {at: array.astype(half).astype(array.dtype) for at, array in super().arrays().items()}

    def graph(self) -> IR:
        """With a copy of the input in front, which may lie in 16 bits."""
        ir = super().graph()
        *nodes, last = ir.nodes
        if last.inputs[0] == "x0":
            spec, attrs = ir.inputs["x0"], {"dtype": "torch.float32"}
            nodes.append(Node("x0.moved", "cast", ("x0",), ("x0.moved",), (spec,), attrs))
            last = replace(last, inputs=("x0.moved", *last.inputs[1:]))
        return replace(ir, nodes=(*nodes, last))


def linear(rows: int, out: int, inner: int, half: str, **more: Any) -> Case:
    """A product of ``rows`` rows with a weight of ``out`` rows, all of ``inner`` numbers."""
    return Case(((rows, inner), (out, inner), (out,)), {"half": half, **more}, constant=(1, 2))


#: Errors of attention whose weights are rounded to 16 bits.
WEIGHTS = {"float16": {"rtol": 1e-3, "atol": 4e-3}, "bfloat16": {"rtol": 1e-2, "atol": 3e-2}}


def attention(queries: int, keys: int, width: int) -> Iterator[Case]:
    """Every kind of mask, shared heads, and rotated queries."""
    rows, scale = (1, 2, keys, width), width**-0.5
    shapes = ((1, 4, queries, width), rows, rows)
    yield Case(shapes, {"scale": scale, "causal": True})
    yield Case(
        (*shapes, (1, 1, queries, keys)), {"scale": scale, "causal": False}, values=(*3 * ("normal",), "bool")
    )
    yield Case((*shapes, (1, 4, queries, keys)), {"scale": scale, "causal": False})
    yield Case(
        (*shapes, None, (1, 1, queries, 1), (queries, width), (queries, width)),
        {"scale": scale, "causal": False},
        values=(*3 * ("normal",), "normal", f"index:{keys}", "normal", "normal"),
    )


def half_samples() -> Iterator[Sample]:
    """The products of the registry in both dtypes, and sizes that choose each tile of tensor cores."""
    ops = load_all()[0]
    for half in HALVES:
        cases = [(op, case) for op in ("gated", "linear", "conv") for case in ops[op].cases]
        sizes = (
            (1, 40, 64),
            (3, 13, 104),
            (29, 72, 72),
            (113, 520, 96),
            (70, 8, 2080),
            (1025, 1032, 64),
            (130, 136, 2080),
            (130, 136, 4128),
        )
        cases += [("linear", linear(*size, half)) for size in sizes]
        gates = ops["gated"].cases[0].attrs
        sizes = ((1, 48, 64), (3, 16, 104), (113, 80, 96), (1025, 1040, 32))
        cases += [
            ("gated", Case((size[::2], size[1:]), {"half": half, **gates}, constant=(1,))) for size in sizes
        ]
        for shapes in ((40, 40, 64), (9, 77, 128), (130, 66, 32)):
            cases += [("attention", case) for case in attention(*shapes)]
        for index, (name, case) in enumerate(cases):
            if name == "attention":
                wide = replace(case, attrs={**case.attrs, "half": half})
                yield HalfSample(replace(ops[name], **WEIGHTS[half]), wide, "float32", half, index)
            elif case.dtypes == ("float32",) and 1 in case.constant:
                case = replace(case, attrs={**case.attrs, "half": half})
                yield HalfSample(ops[name], case, "float32", half, index)


def normed_samples() -> Iterator[Sample]:
    """Products whose rows are normalised before: with and without a weight, rounding and a gate."""
    ops = load_all()[0]
    gates = ops["gated"].cases[0].attrs
    index = 0
    for rows, inner in ((1, 64), (3, 40), (2, 1536), (1, 2080)):
        for rounded in ("", "bfloat16", "float16"):
            more = {"norm_eps": 1e-6, "norm_rounded": rounded, **({"half": rounded} if rounded else {})}
            scale = (inner,) if rows != 3 else None
            for name, out, attrs in (("linear", 24, {}), ("gated", 48, gates)):
                bias = (out,) if rows == 1 else None
                case = Case(
                    ((rows, inner), (out, inner), bias, None, scale), {**attrs, **more}, constant=(1, 2, 4)
                )
                tolerance = {"rtol": 2e-2, "atol": 2e-2} if rounded else {}
                yield Sample(replace(ops[name], **tolerance), case, "float32", f"normed{rounded}", index)
                index += 1


SAMPLES = {sample.id: sample for sample in (*samples(), *half_samples(), *normed_samples())}


def is_short(sample: Sample) -> bool:
    """Whether every run of the tests has it."""
    if sample.layout.startswith("normed"):
        return True
    if isinstance(sample, HalfSample):
        return sample.index % 6 == 0 or sample.case not in sample.op.cases
    first = (sample.dtype, sample.layout) == (sample.case.dtypes[0], sample.case.layouts[0])
    return sample.op.name.startswith(GROUPED) and first


class Block(torch.nn.Module):
    """Convolutions with a residual behind a pool, then a gated layer: what lies in 16 bits between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 16, 5, padding=2)
        self.second = torch.nn.Conv2d(16, 16, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(16)
        self.gate, self.up = (torch.nn.Linear(16 * 9, 48, bias=False) for _ in range(2))
        self.down = torch.nn.Linear(48, 7)

    def forward(self, x: Any) -> Any:
        y = torch.nn.functional.max_pool2d(self.first(x).relu(), 3, 2)
        y = (self.norm(self.second(y)) + y).relu()
        y = torch.nn.functional.layer_norm(y.flatten(1), (16 * 9,))
        return self.down(torch.nn.functional.silu(self.gate(y)) * self.up(y))


class Short(torch.nn.Module):
    """Rows shorter than a work-group between products: normalised in both ways, gated, convolved with weights
    that are computed, pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.more = (torch.nn.Linear(8, 24, bias=False) for _ in range(3))
        self.centred, self.square = torch.nn.LayerNorm(24), torch.nn.RMSNorm(24)
        self.middle, self.down = torch.nn.Linear(24, 24), torch.nn.Linear(24, 8)
        self.made = torch.nn.Parameter(torch.randn(5, 3))
        self.mixed, self.last = torch.nn.Conv2d(5, 7, 1), torch.nn.Linear(4, 11)

    def forward(self, x: Any) -> Any:
        y = self.centred(self.up(x) + self.more(x))
        y = self.square(self.middle(y) * torch.nn.functional.silu(self.gate(x)))
        y = torch.nn.functional.conv2d(self.down(y), (self.made * 0.5)[:, :, None, None])
        return self.last(torch.nn.functional.avg_pool2d(self.mixed(y).relu(), (1, 2)))
