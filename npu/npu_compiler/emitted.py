"""What a graph is emitted with, and what it becomes: kernel calls, buffers, transforms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from npu_compiler.select import KernelCall
from npu_compiler.tuned import Answer
from npu_runtime.program import Transform
from torch_ir.expr import Dim


@dataclass(frozen=True)
class Options:
    """Choices that a model's YAML may make under ``compile.options``."""

    winograd: bool = True
    """Whether 3x3 convolutions may use Winograd's F(4x4, 3x3), which rounds differently (about 1e-6
    relative)."""
    fuse_depthwise: bool = True
    """Whether a convolution and the depthwise one behind it may be one kernel."""
    check_indices: bool = True
    """Whether a run raises an error where an index is out of range. Nothing outside a buffer is ever read or
    written; unchecked, such an index reads zeros and writes nothing."""


@dataclass(frozen=True)
class BufferInfo:
    """Memory that calls use: its kind, what it refers to (see ``npu_runtime.program.Buffer``) and its
    bytes."""

    kind: str
    ref: str
    nbytes: Dim


@dataclass(frozen=True)
class Emitted:
    """What a graph became."""

    calls: tuple[KernelCall, ...]
    buffers: Mapping[str, BufferInfo]
    transforms: Mapping[str, Transform]
    decisions: tuple[str, ...]
    answers: tuple[Answer, ...]
    """What was chosen about kernels, in the order of the questions."""
    input_bounds: Mapping[str, tuple[int, int]]
    """Smallest and largest value of the integer inputs that kernels use as indices."""
