"""Kernel calls: which template with which parameters runs where, and the names that kernels get."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from npu_compiler.ops import Cost
from torch_ir.expr import Dim

#: A template parameter: plain data that renders to text.
Param: TypeAlias = Any


@dataclass(frozen=True)
class BufferUse:
    """A kernel argument that is memory; ``access`` is "r", "w" or "rw"."""

    buffer: str
    access: str


@dataclass(frozen=True)
class ScalarUse:
    """A kernel argument that is a whole number: an OpenCL "int" or "long"."""

    value: Dim
    ctype: str = "int"


@dataclass(frozen=True)
class KernelCall:
    """One enqueue of the kernel that ``template`` renders with ``params``. ``origin`` names the nodes it
    computes."""

    entry: str
    template: str
    params: Mapping[str, Param]
    args: tuple[BufferUse | ScalarUse, ...]
    global_size: tuple[Dim, ...]
    local_size: tuple[int, ...] | None = None
    cost: Cost = field(default_factory=Cost)
    origin: tuple[str, ...] = ()


def kernel_name(
    op: str, dtype: str, variant: str, shown: Mapping[str, int | str], params: Mapping[str, Param]
) -> str:
    """``<op>_<dtype>_<variant>__<params>``: ``shown`` are the parameters worth reading, as ``<name><value>``.

    All others (``params``) enter through a digest, so equal names mean equal kernels.
    """
    text = json.dumps(params, sort_keys=True, default=str)
    parts = [f"{name}{value}" for name, value in shown.items()]
    parts.append("h" + hashlib.sha256(text.encode()).hexdigest()[:8])
    head = "_".join(part for part in (op, dtype, variant) if part)
    return f"{head}__{'_'.join(parts)}".replace("-", "m").replace(".", "p")
