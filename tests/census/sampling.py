"""Sample calls out of PyTorch's own operator database, as modules of tensors."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from typing import Any

import torch

#: Of an operator's samples at most so many are looked at.
_MOST = 400
#: What is left to chance: only shapes and dtypes are results.
UNDEFINED = frozenset(
    {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"}
)


#: The kinds of operators (by the name of their description's class) that are tried on extreme values too.
_ELEMENTWISE = ("UnaryUfuncInfo", "BinaryUfuncInfo", "ReductionOpInfo")
_FLOATS = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 100.0, -100.0)
#: Operators that may name any of several equal elements: the places of whole numbers are not compared.
TIES = frozenset({"argsort", "kthvalue", "median", "mode", "nanmedian", "sort", "topk"})


@dataclass(frozen=True)
class Call:
    """A module that calls the operator, its inputs, and the call as text."""

    module: Calling
    inputs: tuple[torch.Tensor, ...]
    text: str
    extreme: bool = False
    """Whether the inputs hold the ends of the dtype's range: results are judged element by element."""


class Calling(torch.nn.Module):
    """Calls a function with tensors put back among its constant arguments; returns the tensors it gives."""

    def __init__(self, function: Any, leaves: list[Any], structure: Any) -> None:
        super().__init__()
        self.function, self.leaves, self.structure = function, leaves, structure
        self.copies = False
        """Whether the function works in place, and gets copies of the inputs."""

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        given = iter(tensors)
        leaves = [self._own(next(given)) if isinstance(leaf, _Input) else leaf for leaf in self.leaves]
        args, kwargs = torch.utils._pytree.tree_unflatten(leaves, self.structure)
        result = self.function(*args, **kwargs)
        return [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]

    def _own(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone() if self.copies else tensor


class _Input:
    """Stands for a tensor among a call's arguments."""


def database() -> Sequence[Any]:
    """PyTorch's list of operators with sample inputs."""
    module = import_module("torch.testing._internal.common_methods_invocations")
    return module.op_db  # type: ignore[no-any-return]


def title(info: Any) -> str:
    """An operator's name, with that of its variant where it has one."""
    return info.name + (f".{info.variant_test_name}" if info.variant_test_name else "")


def calls(info: Any, dtype: torch.dtype, count: int) -> Iterator[Call]:
    """``count`` calls of an operator (fewer if there are fewer) that differ as much as they can: in ranks,
    empty and strided tensors, and in their arguments. The same ones every time."""
    torch.manual_seed(zlib.crc32(f"{title(info)} {dtype}".encode()))
    samples = list(islice(info.sample_inputs("cpu", dtype, requires_grad=False), _MOST))
    chosen = [(sample, False) for sample in _chosen(samples, count)]
    if type(info).__name__ in _ELEMENTWISE:
        chosen += [(sample, True) for sample, _ in chosen if _has_room(sample.input)][:2]
    for sample, extreme in chosen:
        arguments = ((sample.input, *sample.args), sample.kwargs)
        leaves, structure = torch.utils._pytree.tree_flatten(arguments)
        tensors = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        if extreme:
            tensors = tuple(_with_extremes(tensor) for tensor in tensors)
        held = [_Input() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        text = ", ".join([*(_text(arg) for arg in arguments[0]), *_named(sample.kwargs)])
        text = f"{title(info)}({text})" + " of extremes" * extreme
        yield Call(Calling(info.op, held, structure).eval(), tensors, text, extreme)


def _has_room(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() > 4


def _with_extremes(tensor: torch.Tensor) -> torch.Tensor:
    """Other values in the same shape and strides, drawn from those at which arithmetic goes wrong."""
    if tensor.dtype == torch.bool or tensor.dtype.is_complex:
        return tensor
    if tensor.dtype.is_floating_point:
        info = torch.finfo(tensor.dtype)
        values = [*_FLOATS, info.max, info.min, info.tiny]
    else:
        bounds = torch.iinfo(tensor.dtype)
        values = [
            bounds.min,
            bounds.max,
            bounds.max - 1,
            0,
            1,
            2,
            3,
            7,
            *(() if bounds.min == 0 else (-1, -2, -7)),
        ]
    pool = torch.tensor(values, dtype=tensor.dtype)
    tensor = tensor.clone()
    return tensor.copy_(pool[torch.randint(len(pool), tensor.shape)])


def _named(kwargs: dict[str, Any]) -> list[str]:
    return [f"{name}={_text(value)}" for name, value in kwargs.items()]


def _text(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        strides = "" if value.layout is not torch.strided or value.is_contiguous() else " strided"
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}{strides}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_text, value))})"
    return repr(value)


def _features(sample: Any) -> set[str]:
    found = {f"input {_text(sample.input)}".split("[")[0]}
    for index, value in enumerate(
        torch.utils._pytree.tree_leaves((sample.input, sample.args, sample.kwargs))
    ):
        if isinstance(value, torch.Tensor):
            found.add(f"{index} rank {value.dim()}")
            found.add(f"{index} {value.dtype}")
            if value.numel() == 0:
                found.add("empty")
            elif value.layout is torch.strided and not value.is_contiguous():
                found.add("strided")
        else:
            found.add(f"{index} {type(value).__name__} {value}")
    found.update(f"{name}={re.sub(r'[0-9.]+', '#', _text(value))}" for name, value in sample.kwargs.items())
    return found


def _chosen(samples: list[Any], count: int) -> list[Any]:
    """The first sample, then again and again the one that adds most that was not there before."""
    rest = [(sample, _features(sample)) for sample in samples]
    seen: set[str] = set()
    chosen: list[Any] = []
    while rest and len(chosen) < count:
        best = max(range(len(rest)), key=lambda i: (len(rest[i][1] - seen), -i)) if chosen else 0
        sample, features = rest.pop(best)
        seen |= features
        chosen.append(sample)
    return chosen
