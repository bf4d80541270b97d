"""Finds the ATen overload that a node names, and puts the node's arguments back in the schema's order.

PyTorch is handed in: this module never imports it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch_ir.ir import Attr

#: Makes an attribute what PyTorch takes, given the argument's name.
Convert = Callable[[str, Attr], Any]

#: A complex number, which is a text in a graph: "1j", "(0.5-2j)".
_COMPLEX = re.compile(r"\(?[-+]?[\d.einf+-]*[\df]j\)?")
_LISTS = ("List[Tensor]", "List[Optional[Tensor]]", "Optional[List[Tensor]]")


def overload(torch: Any, op: str) -> Any:
    """The ``OpOverload`` of "aten.relu.default". Raises ``AttributeError`` where PyTorch has none."""
    namespace, _, rest = op.partition(".")
    name, _, kind = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), kind or "default")


def arguments(
    operation: Any, inputs: Sequence[Any], attrs: Mapping[str, Attr], convert: Convert, device: Any
) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments of ``operation``.

    ``inputs`` are the values of a node's inputs (None for one that is absent), ``attrs`` its attributes, and
    ``device`` is where tensors that it creates lie.
    """
    tensors = iter(inputs)
    listed = attrs.get("_tensor_list_sizes", ())
    sizes = iter(listed if isinstance(listed, tuple) else ())
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in operation._schema.arguments:
        kind = str(argument.type)
        value: Any = None
        if argument.name in attrs:
            value = convert(argument.name, attrs[argument.name])
        elif kind in _LISTS:
            count = next(sizes, None)
            value = None if count is None else [next(tensors) for _ in range(int(str(count)))]
        elif kind in ("Tensor", "Optional[Tensor]"):
            value = next(tensors, None)
        elif kind == "Optional[Device]":
            value = device
        elif argument.has_default_value():
            value = argument.default_value
        if argument.kwarg_only:
            kwargs[argument.name] = value
        else:
            args.append(value)
    return args, kwargs


def converter(torch: Any, size: Callable[[Attr], Any], dtype: Callable[[str], Any], device: Any) -> Convert:
    """``convert`` for ``arguments``: expressions by ``size``, dtypes ("float32") by ``dtype``."""

    def convert(name: str, value: Attr) -> Any:
        if isinstance(value, tuple):
            return [convert(name, item) for item in value]
        if not isinstance(value, str):
            return value if isinstance(value, (bool, int, float)) or value is None else size(value)
        if name == "device":
            return torch.device(device)
        if value.startswith("torch."):
            kind = value.removeprefix("torch.")
            found = getattr(torch, kind)
            return dtype(kind) if isinstance(found, torch.dtype) else found
        return complex(value) if name != "equation" and _COMPLEX.fullmatch(value) else value

    return convert
