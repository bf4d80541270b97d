"""Graphs of one registered op, from its sample cases."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from graphs import draw

from npu_compiler.ops import Case, OpDef, load_all
from torch_ir.ir import IR, Node, Output, TensorSpec


@dataclass(frozen=True)
class Sample:
    """One op on one sample case with one dtype and one layout of its inputs."""

    op: OpDef
    case: Case
    dtype: str
    layout: str
    index: int

    @property
    def id(self) -> str:
        shapes = "_".join(
            "none" if s is None else "x".join(map(str, s)) or "scalar" for s in self.case.shapes
        )
        return f"{self.op.name}-{self.index}-{shapes}-{self.dtype}-{self.layout}"

    def dtypes(self) -> list[str | None]:
        """dtype of each input; None where it is absent."""
        found: list[str | None] = []
        for position, shape in enumerate(self.case.shapes):
            kind = self.kind(position) if isinstance(self.case.values, tuple) else ""
            whole = kind.startswith(("index:", "around:", "ends:"))
            own = kind if kind in ("bool", "float16") else self.dtype
            found.append(None if shape is None else "int64" if whole else own)
        return found

    def kind(self, position: int) -> str:
        values = self.case.values
        return values if isinstance(values, str) else values[position]

    def arrays(self) -> dict[int, np.ndarray[Any, Any]]:
        """Values for the inputs that are there, by position."""
        rng = np.random.default_rng(zlib.crc32(self.id.encode()))
        return {
            position: draw(rng, shape, dtype, self.kind(position))
            for position, (shape, dtype) in enumerate(zip(self.case.shapes, self.dtypes(), strict=True))
            if shape is not None and dtype is not None
        }

    def graph(self) -> IR:
        """The op between copies: inputs and result in the sample's layout, then the program's outputs."""
        inputs: dict[str, TensorSpec] = {}
        weights: dict[str, TensorSpec] = {}
        nodes: list[Node] = []
        operands: list[str | None] = []
        specs: list[TensorSpec | None] = []
        layouts: list[str | None] = []
        for position, (shape, dtype) in enumerate(zip(self.case.shapes, self.dtypes(), strict=True)):
            if shape is None or dtype is None:
                operands.append(None)
                specs.append(None)
                layouts.append(None)
                continue
            name, spec = f"x{position}", TensorSpec(shape, dtype)
            specs.append(spec)
            if position in self.case.constant:
                weights[name] = spec
                operands.append(name)
                layouts.append("row")
                continue
            inputs[name] = spec
            if self.layout == "row" or len(shape) != 4:
                operands.append(name)
                layouts.append("row")
                continue
            moved = f"{name}.moved"
            nodes.append(
                Node(
                    moved,
                    "cast",
                    (name,),
                    (moved,),
                    (replace(spec, layout=self._spaced(self.layout)),),
                    {"dtype": f"torch.{dtype}"},
                )
            )
            operands.append(moved)
            layouts.append(self.layout)
        outs = self.op.infer(specs, self.case.attrs)
        if self.op.alias is None:
            outs = tuple(
                replace(out, layout=self._spaced(self._out_layout(out, layouts, outs))) for out in outs
            )
        names = tuple(f"y{index}" for index in range(len(outs)))
        nodes.append(Node("y", self.op.name, tuple(operands), names, outs, self.case.attrs))
        return IR(
            self.op.name,
            inputs,
            tuple(Output(name, name) for name in names),
            tuple(nodes),
            weights,
            {name: name for name in weights},
        )

    def _spaced(self, layout: str) -> str:
        """Images of every second sample have space between pixels."""
        return f"{layout}_spaced" if layout == "nhwc8" and self.index % 2 else layout

    def _out_layout(self, out: TensorSpec, layouts: list[str | None], outs: tuple[TensorSpec, ...]) -> str:
        """Row-major among row-major inputs (kernels write any layout), else as the record says."""
        if self.layout == "row" or out.rank != 4:
            return "row"
        if self.op.layout is not None:
            names = tuple("" if layout else None for layout in layouts)
            return self.op.layout(Node("y", self.op.name, names, ("y",), outs[:1], self.case.attrs), layouts)
        return "nhwc8" if self.op.expr is not None or self.op.name == "pointwise" else "row"

    def reference(self, torch: Any, arrays: dict[int, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """What the record says that the op means."""
        tensors = [
            None if shape is None else torch.from_numpy(arrays[position])
            for position, shape in enumerate(self.case.shapes)
        ]
        result = self.op.reference(torch, *tensors, **self.case.attrs)
        results = [result] if isinstance(result, torch.Tensor) else list(result)
        return [tensor.numpy() for tensor in results]


def operands(chosen: Mapping[str, Sample]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs and the weights of the samples' graphs side by side, by name."""
    inputs: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for key, sample in chosen.items():
        for position, array in sample.arrays().items():
            (weights if position in sample.case.constant else inputs)[f"{key}.x{position}"] = array
    return inputs, weights


def samples() -> list[Sample]:
    """Every op, case, dtype and layout."""
    ops, _ = load_all()
    return [
        Sample(op, case, dtype, layout, index)
        for op in ops.values()
        for index, case in enumerate(op.cases)
        for dtype in case.dtypes
        for layout in case.layouts
    ]
