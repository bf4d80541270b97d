"""A file says at each use what a value is; here it is compared with what the value's maker says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch_ir.errors import IRError
from torch_ir.expr import Dim
from torch_ir.ir import TensorSpec


def check_uses(
    uses: Iterable[tuple[str, str, str, tuple[Dim, ...]]], specs: Mapping[str, TensorSpec]
) -> None:
    """``uses``: who reads, which value, as which dtype and shape. Raises ``IRError`` where a value is
    something else."""
    for reader, value, dtype, shape in uses:
        made = specs.get(value)
        if made is not None and (made.dtype, made.shape) != (dtype, shape):
            says, is_ = (
                f"{a}[{', '.join(map(str, b))}]" for a, b in ((dtype, shape), (made.dtype, made.shape))
            )
            raise IRError(f"{reader} reads {value} as {says}, which is {is_}")
