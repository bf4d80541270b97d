"""Example inputs and dynamic dimensions as ``torch.export`` wants them. PyTorch is handed in by the caller.

``torch.export`` takes a dimension whose example size is 0 or 1 for a constant, so examples of dynamic
dimensions are made anew with a larger size where needed; their contents do not matter.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch_ir.errors import IRError


@dataclass
class Example:
    """What ``torch.export.export`` is called with.

    ``dims`` has, for each tensor in the order of the flattened inputs, its dynamic dimensions: index ->
    ``torch.export.Dim`` or a hint such as ``Dim.AUTO``.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any = None
    dims: list[dict[int, Any]] = field(default_factory=list)


def prepare(
    torch: Any,
    model: Any,
    example: Any,
    dynamic_shapes: Any,
    *,
    fixed: Mapping[str, int] = MappingProxyType({}),
    alike: bool = False,
) -> Example:
    """Splits ``example`` into arguments and makes it fit ``dynamic_shapes``, in which the dimensions named in
    ``fixed`` have those sizes. ``alike``: all named dimensions have one size, where their bounds have one in
    common. Raises ``IRError``."""
    bound = _bind(model, example)
    if isinstance(example, Mapping):
        args: tuple[Any, ...] = ()
        kwargs = {
            key: value
            for name, value in bound.arguments.items()
            for key, value in (value.items() if _is_rest(bound, name) else [(name, value)])
        }
    else:
        args, kwargs = bound.args, {}
    if not dynamic_shapes:
        return Example(args, kwargs)
    shapes = _with_dims(torch, dynamic_shapes, {}, "dynamic_shapes")
    if isinstance(shapes, Mapping):
        shapes = _by_parameter(bound, shapes)
        parts = [(name, value, shapes[name]) for name, value in bound.arguments.items()]
    else:
        given = (*args, *kwargs.values())
        if len(shapes) != len(given):
            raise IRError(
                f"dynamic_shapes has {len(shapes)} entries and the example {len(given)}; "
                "give one per input, or a mapping by input name"
            )
        names = [*(f"input {index}" for index in range(len(args))), *kwargs]
        parts = list(zip(names, given, shapes, strict=True))
    leaves = [leaf for name, value, shape in parts for leaf in _leaves(torch, value, shape, name)]
    dims = [
        _dims_of(leaf, shape, place, fixed) if _is_tensor(leaf) else None for place, leaf, shape in leaves
    ]
    tensors = [
        (leaf, by_axis) for (_, leaf, _), by_axis in zip(leaves, dims, strict=True) if by_axis is not None
    ]
    sizes = _choose_sizes(tensors, alike)
    resized = [
        leaf if by_axis is None else _resize(torch, leaf, by_axis, sizes)
        for (_, leaf, _), by_axis in zip(leaves, dims, strict=True)
    ]
    pytree = torch.utils._pytree
    args, kwargs = pytree.tree_unflatten(resized, pytree.tree_structure((args, kwargs)))
    moving = [
        by_axis and {axis: dim for axis, dim in by_axis.items() if not isinstance(dim, _Fixed)}
        for by_axis in dims
    ]
    tree = pytree.tree_unflatten(moving, pytree.tree_structure(dict(bound.arguments)))
    return Example(args, kwargs, tree, [by_axis for by_axis in moving if by_axis is not None])


def _bind(model: Any, example: Any) -> inspect.BoundArguments:
    signature = inspect.signature(model.forward)
    try:
        if isinstance(example, Mapping):
            return signature.bind(**{str(name): value for name, value in example.items()})
        return signature.bind(*(example if isinstance(example, (tuple, list)) else (example,)))
    except TypeError as error:
        raise IRError(
            f"{type(model).__name__}.forward{signature} does not take this example: {error}; give a "
            "tensor, a tuple of the positional inputs, or a mapping by input name"
        ) from None


def _is_rest(bound: inspect.BoundArguments, name: str) -> bool:
    """Whether ``name`` is the ``**kwargs`` of the signature."""
    return bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD


def _by_parameter(bound: inspect.BoundArguments, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """``shapes`` with an entry for every parameter in use, those of ``**kwargs`` nested."""
    found: dict[str, Any] = {}
    known: list[str] = []
    for name, value in bound.arguments.items():
        inner = shapes.get(name)
        if _is_rest(bound, name) and not isinstance(inner, Mapping):
            inner = {key: shapes.get(key) for key in value}
            known += value
        found[name] = inner
        known.append(name)
    unknown = [str(name) for name in shapes if name not in known]
    if unknown:
        raise IRError(
            f"dynamic_shapes names {', '.join(unknown)}, which the example does not have; "
            f"its inputs are {', '.join(known)}"
        )
    return found


class _Fixed(int):
    """A dimension declared with one possible size."""


def _with_dims(torch: Any, shapes: Any, known: dict[str, tuple[Any, ...]], place: str) -> Any:
    """``shapes`` with each ``(symbol name, lower, upper)`` replaced by a ``torch.export.Dim``."""
    if isinstance(shapes, Mapping):
        return {key: _with_dims(torch, value, known, f"{place}[{key!r}]") for key, value in shapes.items()}
    if not isinstance(shapes, (tuple, list)):
        return shapes
    if len(shapes) != 3 or not isinstance(shapes[0], str):
        return tuple(_with_dims(torch, value, known, f"{place}[{at}]") for at, value in enumerate(shapes))
    name, lower, upper = shapes
    if not (
        isinstance(lower, int) and isinstance(upper, int) and 0 <= lower <= upper and name.isidentifier()
    ):
        raise IRError(
            f"{place}: {tuple(shapes)!r} is not a dynamic dimension; write "
            '("name", lower, upper) with an identifier and 0 <= lower <= upper, as in ("batch", 1, 8)'
        )
    if name not in known:
        dim = torch.export.Dim(name, min=lower, max=upper) if lower < upper else _Fixed(lower)
        known[name] = (lower, upper, dim)
    if known[name][:2] != (lower, upper):
        raise IRError(
            f"{place}: {name} goes from {lower} to {upper} here and from {known[name][0]} to "
            f"{known[name][1]} elsewhere; give a symbol the same bounds everywhere"
        )
    return known[name][2]


def _leaves(torch: Any, value: Any, shape: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """(place, leaf, its part of the dynamic shapes) for every leaf, in the order of PyTorch's flattening."""
    if isinstance(value, Mapping) and type(value) is dict:
        for key, item in value.items():
            yield from _leaves(torch, item, shape[key] if shape else None, f"{place}[{key!r}]")
    elif type(value) in (tuple, list):
        for index, item in enumerate(value):
            yield from _leaves(torch, item, shape[index] if shape else None, f"{place}[{index}]")
    else:
        leaves = torch.utils._pytree.tree_leaves(value)
        for leaf in leaves:
            yield place, leaf, shape if leaf is value else None


def _dims_of(leaf: Any, shape: Any, place: str, fixed: Mapping[str, int]) -> dict[int, Any]:
    dims = dict(shape.items() if isinstance(shape, Mapping) else enumerate(shape or ()))
    for axis in dims:
        if not isinstance(axis, int) or not -leaf.dim() <= axis < leaf.dim():
            raise IRError(
                f"{place} has {leaf.dim()} dimensions; dynamic_shapes declares its dimension {axis!r}"
            )
    return {
        axis % leaf.dim(): _settled(dim, fixed)
        for axis, dim in dims.items()
        if dim is not None and (isinstance(dim, _Fixed) or not isinstance(dim, int))
    }


def _settled(dim: Any, fixed: Mapping[str, int]) -> Any:
    root = getattr(dim, "root", dim)
    if not is_named(root) or root.__name__ not in fixed:
        return dim
    size = fixed[root.__name__]
    return _Fixed(size if dim is root else dim.fn(size))


def inferred(torch: Any, shapes: Any) -> Any:
    """``shapes`` with hints for the named dimensions, of which PyTorch then finds out what the module asks of
    them; None where one is derived from another."""
    leaves, tree = torch.utils._pytree.tree_flatten(shapes)
    if any(hasattr(leaf, "root") for leaf in leaves):
        return None
    auto = torch.export.Dim.AUTO
    hints = [auto(min=dim_bounds(leaf)[0], max=dim_bounds(leaf)[1]) if is_named(leaf) else leaf
             for leaf in leaves]
    return torch.utils._pytree.tree_unflatten(hints, tree)


#: Sizes that weights and caches rarely have.
_UNUSUAL = (53, 47, 43, 41, 37, 31, 29, 23, 19, 17, 13, 11, 7, 5, 3)


def _choose_sizes(tensors: Sequence[tuple[Any, Mapping[int, Any]]], alike: bool) -> dict[str, int]:
    """An example size for every named dimension: the given one where it lies inside the bounds, else another
    inside them. At the upper bound it may equal a fixed size (a cache's length), and be taken for it."""
    if alike and (common := _common_size(tensors)):
        return common
    given = [
        (dim, int(tensor.shape[axis]))
        for tensor, by_axis in tensors
        for axis, dim in by_axis.items()
        if is_named(dim)
    ]
    sizes: dict[str, int] = {}
    for dim, size in sorted(given, key=lambda item: hasattr(item[0], "root")):
        root = getattr(dim, "root", dim)
        if root.__name__ in sizes:
            continue
        lower, upper = dim_bounds(root)
        lower, highest = max(lower, 2), upper if upper is not None else 1 << 30
        inside = [n for n in _UNUSUAL if lower < n < highest and n not in sizes.values()]
        fits = dim is root and lower <= size <= highest
        if (not fits or size == highest) and inside:
            sizes[root.__name__] = inside[0]
        else:
            sizes[root.__name__] = size if fits else max(lower, min(3, highest))
    return sizes


def _common_size(tensors: Sequence[tuple[Any, Mapping[int, Any]]]) -> dict[str, int]:
    """One size for all named dimensions, by name; nothing where there is none."""
    named = [getattr(dim, "root", dim) for _, by_axis in tensors for dim in by_axis.values() if is_named(dim)]
    bounds = [dim_bounds(dim) for dim in named]
    lower = max((low for low, _ in bounds), default=0)
    upper = min((high for _, high in bounds if high is not None), default=1 << 30)
    inside = [*(size for size in _UNUSUAL if lower < size < upper), max(lower, 2)]
    return {dim.__name__: inside[0] for dim in named} if inside[0] <= upper else {}


def _resize(torch: Any, tensor: Any, by_axis: Mapping[int, Any], sizes: Mapping[str, int]) -> Any:
    wanted = list(tensor.shape)
    for axis, dim in by_axis.items():
        if isinstance(dim, _Fixed):
            wanted[axis] = int(dim)
        elif hasattr(dim, "root"):
            wanted[axis] = int(dim.fn(sizes[dim.root.__name__]))
        elif is_named(dim):
            wanted[axis] = sizes[dim.__name__]
        elif wanted[axis] < 2 and "STATIC" not in str(dim):
            wanted[axis] = 3
    return (
        tensor
        if wanted == list(tensor.shape)
        else torch.zeros(wanted, dtype=tensor.dtype, device=tensor.device)
    )


def is_named(dim: Any) -> bool:
    """Whether ``dim`` is a ``torch.export.Dim("name")`` or derived from one; hints such as AUTO are not."""
    return isinstance(getattr(dim, "__name__", None), str) and hasattr(dim, "min")


def dim_bounds(dim: Any) -> tuple[int, int | None]:
    """The bounds of a named dimension; None: no upper bound."""
    return int(dim.min), dim.max if isinstance(dim.max, int) else None


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "untyped_storage")
