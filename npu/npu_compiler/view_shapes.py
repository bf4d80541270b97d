"""Shape rules of the ops that move elements. What PyTorch refuses is refused here: a view beyond its buffer
would be read."""

from __future__ import annotations

from collections.abc import Sequence

from npu_compiler.lowering import as_dim, as_dims, as_int, as_ints, wrap_dim, wrap_dims
from npu_compiler.ops import Attrs, Specs
from npu_compiler.shapes import may_equal, require, same_count
from torch_ir.expr import Dim, product
from torch_ir.ir import Node, TensorSpec


def first_spec(specs: Specs, attrs: Attrs) -> TensorSpec:
    """The first operand's."""
    assert specs[0] is not None
    return specs[0]


def regrouped(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    """As many elements in another shape."""
    shape, of = as_dims(attrs["shape"]), first_spec(specs, attrs)
    require(same_count(of.shape, shape), f"the shape {shape} for the elements of {of.shape}")
    return (TensorSpec(shape, of.dtype),)


def expanded(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    """Repeated along dimensions of size 1 and new ones in front."""
    shape, of = as_dims(attrs["shape"]), first_spec(specs, attrs)
    fits = len(of.shape) <= len(shape) and all(
        size == 1 or may_equal(size, wanted)
        for size, wanted in zip(reversed(of.shape), reversed(shape), strict=False)
    )
    require(fits, f"the shape {of.shape} does not expand to {shape}")
    return (TensorSpec(shape, of.dtype),)


def permuted(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    """Dimensions in another order."""
    spec, dims = first_spec(specs, attrs), as_ints(attrs["dims"])
    require(sorted(dims) == list(range(spec.rank)), f"the order {dims} of {spec.rank} dimensions")
    return (TensorSpec(tuple(spec.shape[dim] for dim in dims), spec.dtype),)


def sliced(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    """Every ``step``-th element of a dimension."""
    spec = first_spec(specs, attrs)
    shape, dim = list(spec.shape), as_int(attrs["dim"])
    start, step, length = as_dim(attrs["start"]), as_int(attrs["step"]), as_dim(attrs["length"])
    require(0 <= dim < spec.rank and step >= 1, f"a slice of dimension {dim} by {step}")
    if isinstance(length, int) and isinstance(start, int) and isinstance(shape[dim], int):
        end = start + step * (length - 1)
        inside = length == 0 or (length > 0 and start >= 0 and end < as_int(shape[dim]))
        require(inside, f"elements {start} to {end} of {shape[dim]}")
    shape[dim] = length
    return (TensorSpec(tuple(shape), spec.dtype),)


def _without(shape: Sequence[Dim], dim: int) -> tuple[Dim, ...]:
    return (*shape[:dim], *shape[dim + 1 :])


def joined(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, ...]:
    """Tensors one behind the other along a dimension."""
    spec, dim = first_spec(specs, attrs), as_int(attrs["dim"])
    shape = list(spec.shape)
    total: Dim = 0
    for other in specs:
        assert other is not None
        fits = other.rank == spec.rank and other.dtype == spec.dtype
        fits = fits and all(map(may_equal, _without(other.shape, dim), _without(spec.shape, dim)))
        require(fits, f"{other.dtype}{other.shape} joined to {spec.dtype}{spec.shape} along {dim}")
        total = total + other.shape[dim]
    shape[dim] = total
    return (TensorSpec(tuple(shape), spec.dtype),)


def check_view(node: Node, shape: tuple[Dim, ...]) -> None:
    """Refuses a view whose arguments give another shape than the node has."""
    rank, attrs = len(shape), node.attrs
    made: list[Dim] | None = None
    if "unsqueeze" in node.op:
        dim = wrap_dim(attrs["dim"], rank + 1)
        made = [*shape[:dim], 1, *shape[dim:]]
    elif "squeeze" in node.op:
        dims = wrap_dims(attrs.get("dim"), rank) if rank else ()
        made = [size for i, size in enumerate(shape) if i not in dims or size != 1]
    elif "flatten.using_ints" in node.op and rank:
        first, last = wrap_dim(attrs.get("start_dim", 0), rank), wrap_dim(attrs.get("end_dim", -1), rank)
        made = [*shape[:first], product(shape[first : last + 1]), *shape[last + 1 :]]
    elif "size" in attrs or "shape" in attrs:
        made = list(as_dims(attrs["size"] if "size" in attrs else attrs["shape"]))
        unknown = [i for i, size in enumerate(made) if size == -1]
        require(len(unknown) <= 1, f"the shape {made}")
        for i in unknown:
            made[i] = node.out.shape[i] if len(made) == node.out.rank else -1
    elif "sizes" in attrs:
        dim, sizes = wrap_dim(attrs["dim"], rank), as_dims(attrs["sizes"])
        rest = [node.out.shape[dim + i] if size == -1 else size for i, size in enumerate(sizes)]
        made = [*shape[:dim], *rest, *shape[dim + 1 :]]
    if made is not None:
        fits = len(made) == node.out.rank and all(map(may_equal, made, node.out.shape))
        require(fits, f"arguments that give the shape {made} for a result of {node.out.shape}")
