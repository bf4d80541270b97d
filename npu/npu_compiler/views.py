"""Values as strided views of buffers: what makes permute, slice, expand and most reshapes free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch_ir.expr import Dim, gcd_of, product
from torch_ir.ir import ITEM_SIZE, TensorSpec

#: Channels-last images pad their channels to a multiple of this, so that every pixel starts at a vector's
#: alignment.
CHANNEL_BLOCK = 8
#: "nhwc8_spaced" has so many channels more between pixels, never used.
SPACE = 16


@dataclass(frozen=True, slots=True)
class View:
    """``shape`` elements of ``buffer``, the first at ``offset``, dimension ``i`` advancing by ``strides[i]``
    elements."""

    buffer: str
    dtype: str
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    offset: Dim = 0

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.shape, self.dtype)

    def is_dense(self) -> bool:
        """Whether the elements lie row-major without gaps (the offset does not matter)."""
        return all(
            size == 1 or stride == expected
            for size, stride, expected in zip(self.shape, self.strides, row_strides(self.shape), strict=True)
        )

    def may_overlap(self) -> bool:
        """Whether two elements may be one in memory, as in an expanded dimension or in windows."""
        if self.is_dense():
            return False
        reach: Dim = 0  # how far the dimensions of smaller strides extend
        steps = [step for step in zip(self.strides, self.shape, strict=True) if step[1] != 1]
        known = [(stride, size) for stride, size in steps if isinstance(stride, int)]
        for stride, size in sorted(known, key=lambda step: step[0]):
            if not isinstance(reach, int) or stride <= reach:
                return True
            reach = reach + stride * (size - 1)
        return len(known) < len(steps)


def row_strides(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """Element strides of the dense row-major layout. A dimension of size 0 counts as 1."""
    strides: list[Dim] = []
    step: Dim = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * (size if size != 0 else 1)
    return tuple(reversed(strides))


def layout_strides(spec: TensorSpec) -> tuple[Dim, ...]:
    """Element strides of a value in its layout: "row", "nhwc8" (channels last, padded to CHANNEL_BLOCK), or
    "nhwc8_spaced" (the same with SPACE between pixels)."""
    if spec.layout == "row":
        return row_strides(spec.shape)
    n, *rest = row_strides(_padded(spec))
    return (n, rest[-1], *rest[:-1])


def layout_numel(spec: TensorSpec) -> Dim:
    """Elements of memory that a value in its layout takes, padding included."""
    return spec.numel if spec.layout == "row" else product(_padded(spec))


def _padded(spec: TensorSpec) -> tuple[Dim, ...]:
    """Sizes in memory of a value in a channels-last layout."""
    batch, channels, *spatial = spec.shape
    pixel = (channels + (CHANNEL_BLOCK - 1)) // CHANNEL_BLOCK * CHANNEL_BLOCK
    return (batch, *spatial, pixel + (SPACE if spec.layout == "nhwc8_spaced" else 0))


def place(buffer: str, spec: TensorSpec) -> View:
    """The view of a whole buffer that holds ``spec`` in its layout."""
    return View(buffer, spec.dtype, spec.shape, layout_strides(spec))


def permute(view: View, dims: Sequence[int]) -> View:
    return replace(
        view, shape=tuple(view.shape[d] for d in dims), strides=tuple(view.strides[d] for d in dims)
    )


def expand(view: View, shape: Sequence[Dim]) -> View:
    """Broadcasts to ``shape`` (aligned at the right), with stride 0 where a dimension is repeated.

    Only a size of 1 repeats: two symbolic sizes may be equal without being written alike."""
    lead = len(shape) - len(view.shape)
    strides: list[Dim] = [0] * lead
    for size, stride in zip(view.shape, view.strides, strict=True):
        strides.append(0 if size == 1 else stride)
    return replace(view, shape=tuple(shape), strides=tuple(strides))


def slice_dim(view: View, dim: int, start: Dim, step: int, length: Dim) -> View:
    """Elements ``start, start + step, ...`` of one dimension, ``length`` of them."""
    stride = view.strides[dim]
    shape, strides = list(view.shape), list(view.strides)
    shape[dim], strides[dim] = length, stride * step
    return replace(view, shape=tuple(shape), strides=tuple(strides), offset=view.offset + stride * start)


def reshape(view: View, shape: Sequence[Dim]) -> View | None:
    """The view in another shape of as many elements; None where it takes a copy."""
    target = tuple(shape)
    if target == view.shape:
        return view
    if view.is_dense() or any(size == 0 for size in target):
        return replace(view, shape=target, strides=row_strides(target))
    # Runs of dimensions that lie densely one inside the other can be regrouped; each run must map to whole
    # dimensions.
    runs: list[tuple[Dim, Dim]] = []
    for size, stride in zip(view.shape, view.strides, strict=True):
        if size == 1:
            continue
        if runs and runs[-1][1] == stride * size:
            runs[-1] = (runs[-1][0] * size, stride)
        else:
            runs.append((size, stride))
    strides: list[Dim] = []
    rest = list(reversed(target))
    for size, stride in reversed(runs):
        covered: Dim = 1
        while rest and covered != size:
            take = rest.pop(0)
            strides.append(stride * covered)
            covered = covered * take
            if isinstance(covered, int) and isinstance(size, int) and covered > size:
                return None
        if covered != size:
            return None
        while rest and rest[0] == 1:
            strides.append(stride * covered)
            rest.pop(0)
    if any(size != 1 for size in rest):
        return None
    strides += [1] * len(rest)
    return replace(view, shape=target, strides=tuple(reversed(strides)))


def reinterpret(view: View, dtype: str) -> View | None:
    """The view's bits as elements of ``dtype``, which takes or makes several elements of the last dimension
    where their sizes differ; None where that takes a copy."""
    old, new = ITEM_SIZE[view.dtype], ITEM_SIZE[dtype]
    if old == new:
        return replace(view, dtype=dtype)
    if view.strides[-1] != 1 and view.shape[-1] != 1:
        return None
    *outer, last = view.shape
    if old > new:
        factor = old // new
        strides = tuple(stride * factor for stride in view.strides[:-1])
        return View(view.buffer, dtype, (*outer, last * factor), (*strides, 1), view.offset * factor)
    factor = new // old
    if any(gcd_of(part) % factor for part in (*view.strides[:-1], view.offset)) or not isinstance(last, int):
        return None
    strides = tuple(stride // factor for stride in view.strides[:-1])
    return View(view.buffer, dtype, (*outer, last // factor), (*strides, 1), view.offset // factor)


def nbytes(spec: TensorSpec) -> Dim:
    """Bytes of memory that a value in its layout takes, padding included."""
    return layout_numel(spec) * ITEM_SIZE[spec.dtype]


def strides_of(prefix: str, view: View) -> dict[str, Dim]:
    """Where an image's elements lie: its offset and the strides of n, h, w and c, under names of kernels."""
    n, c, h, w = view.strides
    return {f"{prefix}_{key}": dim for key, dim in zip(("off", "sn", "sh", "sw", "sc"),
                                                       (view.offset, n, h, w, c), strict=True)}  # fmt: skip


def places_of(prefix: str, view: View) -> dict[str, Dim]:
    """The same for an image whose pixels lie one after the other: offset, n, pixel and c."""
    n, c, _, w = view.strides
    return {f"{prefix}_off": view.offset, f"{prefix}_sn": n, f"{prefix}_sp": w, f"{prefix}_sc": c}
