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
#: How an operator is called -> where its description keeps that callable.
FORMS = {"function": "op", "method": "method_variant", "inplace": "inplace_variant", "module": "module_cls"}
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


def database(form: str) -> Sequence[Any]:
    """PyTorch's list of operators that can be called in this form (of ``FORMS``), with sample inputs; for
    ``module`` that of ``torch.nn``'s modules."""
    if form == "module":
        return import_module("torch.testing._internal.common_modules").module_db  # type: ignore[no-any-return]
    infos = import_module("torch.testing._internal.common_methods_invocations").op_db
    return [info for info in infos if getattr(info, FORMS[form]) is not None]


def title(info: Any) -> str:
    """An operator's name, with that of its variant where it has one; a module's name."""
    variant = getattr(info, "variant_test_name", "")
    return info.name + (f".{variant}" if variant else "")


def takes(info: Any, dtype: torch.dtype) -> bool:
    """Whether there are samples of this dtype."""
    if hasattr(info, "module_cls"):
        return dtype in info.dtypes
    return dtype in info.supported_dtypes("cpu")


def calls(info: Any, dtype: torch.dtype, count: int, form: str) -> Iterator[Call]:
    """``count`` calls of an operator (fewer if there are fewer) that differ as much as they can: in ranks,
    empty and strided tensors, and in their arguments. The same ones every time."""
    torch.manual_seed(zlib.crc32(f"{title(info)} {dtype}".encode()))
    if form == "module":
        yield from _module_calls(info, dtype, count)
        return
    samples = list(islice(info.sample_inputs("cpu", dtype, requires_grad=False), _MOST))
    if form == "inplace":
        samples = [s for s in samples if isinstance(s.input, torch.Tensor) and not s.broadcasts_input]
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
        yield Call(Calling(getattr(info, FORMS[form]), held, structure).eval(), tensors, text, extreme)


def _module_calls(info: Any, dtype: torch.dtype, count: int) -> Iterator[Call]:
    """The first ``count`` calls of a module in inference, each with weights of its own."""
    samples = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=False)
    for sample in islice(samples, count):
        given, built = sample.forward_input, sample.constructor_input
        module = info.module_cls(*built.args, **built.kwargs).to(dtype).eval()
        leaves, structure = torch.utils._pytree.tree_flatten((given.args, given.kwargs))
        tensors = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        held = [_Input() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        arguments = (", ".join([*map(_text, part.args), *_named(part.kwargs)]) for part in (built, given))
        yield Call(
            Calling(module, held, structure), tensors, title(info) + "".join(f"({a})" for a in arguments)
        )


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
