"""Random valid arguments of calls with many of them: slices, pads, reductions, convolutions, pools, indices.

Hypothesis draws several calls at a time; each list is one program. The short tier draws the same calls every
time, ``pytest -m full`` more of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import graphs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from aten_cases import Calling
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npu_compiler.compiler import compile_ir
from torch_ir import extract_ir
from torch_ir.ir import IR

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

Call = tuple[str, Callable[..., Any], tuple[torch.Tensor, ...]]
SIZES = st.integers(1, 7)


def values(*shape: int, whole: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + len(shape))
    return (
        torch.randint(-9, 10, shape, generator=generator)
        if whole
        else torch.randn(shape, generator=generator)
    )


def shapes(low: int = 1, high: int = 4) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(SIZES, min_size=low, max_size=high).map(tuple)


@st.composite
def slices(draw: DrawFn) -> Call:
    shape = draw(shapes())
    bounds = st.none() | st.integers(-9, 9)
    index = tuple(
        draw(st.integers(-size, size - 1))
        if draw(st.booleans()) and draw(st.booleans())
        else slice(draw(bounds), draw(bounds), draw(st.integers(1, 3)))
        for size in shape
    )
    return f"x[{index}]", lambda x: x[index] * 1, (values(*shape, whole=draw(st.booleans())),)


@st.composite
def pads(draw: DrawFn) -> Call:
    mode = draw(st.sampled_from(["constant", "constant", "reflect", "replicate", "circular"]))
    rank = draw(st.integers(1, 4)) if mode == "constant" else draw(st.integers(3, 4))
    shape = draw(shapes(rank, rank))
    count = draw(st.integers(1, rank)) if mode == "constant" else rank - 2
    widths: list[int] = []
    for size in list(reversed(shape))[:count]:
        low, high = {"constant": (-(size // 2), 3), "reflect": (0, size - 1), "circular": (0, size)}.get(
            mode, (0, 3)
        )
        widths += [draw(st.integers(low, high)), draw(st.integers(low, high))]
    value = draw(st.sampled_from([0.0, -1.5])) if mode == "constant" else 0.0
    return f"pad {shape} {widths} {mode}", lambda x: F.pad(x, widths, mode, value), (values(*shape),)


@st.composite
def reductions(draw: DrawFn) -> Call:
    shape = draw(shapes())
    rank = len(shape)
    dims = draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=rank, unique=True))
    dims = [dim - rank if draw(st.booleans()) else dim for dim in dims]
    keep = draw(st.booleans())
    kind = draw(
        st.sampled_from(["sum", "mean", "amax", "amin", "logsumexp", "prod", "cumsum", "argmax", "any"])
    )
    whole = kind in ("sum", "amax", "cumsum", "any") and draw(st.booleans())
    first = kind in ("prod", "cumsum", "argmax", "any")
    options = {} if kind == "cumsum" else {"keepdim": keep}
    at = dims[0] if first else dims
    return f"{kind} {shape} {at} {keep}", lambda x: getattr(torch, kind)(x, at, **options), (
        values(*shape, whole=whole),
    )  # fmt: skip


@st.composite
def convolutions(draw: DrawFn) -> Call:
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    groups = draw(st.integers(1, 3))
    inner, outer = groups * draw(st.integers(1, 4)), groups * draw(st.integers(1, 9))
    kernel, stride, padding, dilation = (
        [draw(st.integers(low, high)) for _ in range(rank)] for low, high in ((1, 3), (1, 3), (0, 2), (1, 2))
    )
    size = [d * (k - 1) + 1 + draw(st.integers(0, 5)) for k, d in zip(kernel, dilation, strict=True)]
    name = f"conv {inner}->{outer}/{groups} {size} {kernel} {stride} {padding} {dilation}"
    bias = values(outer) if draw(st.booleans()) else None
    x = values(draw(st.integers(1, 3)), inner, *size)
    function: Any = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    if draw(st.booleans()) and draw(st.booleans()):
        extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
        padding = [min(p, d * (k - 1)) for p, k, d in zip(padding, kernel, dilation, strict=True)]
        weight = values(inner, outer // groups, *kernel)
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
        return (
            f"transposed {name} {extra}",
            _constant(lambda x, w: function(x, w, bias, stride, padding, extra, groups, dilation), weight),
            (x,),
        )
    weight = values(outer, inner // groups, *kernel)
    return name, _constant(lambda x, w: function(x, w, bias, stride, padding, dilation, groups), weight), (x,)


def _constant(function: Callable[..., Any], weight: torch.Tensor) -> Callable[..., Any]:
    return lambda x: function(x, weight)


@st.composite
def pools(draw: DrawFn) -> Call:
    rank = draw(st.sampled_from([1, 2, 2]))
    kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
    stride = [draw(st.integers(1, 3)) for _ in range(rank)]
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    size = [k + draw(st.integers(0, 6)) for k in kernel]
    ceil, counted = draw(st.booleans()), draw(st.booleans())
    x = values(draw(st.integers(1, 2)), draw(st.integers(1, 9)), *size)
    kind = draw(st.sampled_from(["max", "avg", "adaptive_avg", "adaptive_max"]))
    name = f"{kind}_pool {tuple(x.shape)} {kernel} {stride} {padding} {ceil} {counted}"
    if kind.startswith("adaptive"):
        function = getattr(F, f"{kind}_pool{rank}d")
        return name, lambda x: function(x, kernel), (x,)
    if kind == "max":
        maximum: Any = (F.max_pool1d, F.max_pool2d)[rank - 1]
        return name, lambda x: maximum(x, kernel, stride, padding, ceil_mode=ceil), (x,)
    average: Any = (F.avg_pool1d, F.avg_pool2d)[rank - 1]
    return name, lambda x: average(x, kernel, stride, padding, ceil, counted), (x,)


@st.composite
def indices(draw: DrawFn) -> Call:
    shape = draw(shapes(1, 3))
    dim = draw(st.integers(0, len(shape) - 1))
    kind = draw(
        st.sampled_from(["index_select", "index", "gather", "scatter", "index_put", "take_along", "two"])
    )
    x, size = values(*shape, whole=draw(st.booleans())), shape[dim]
    count = draw(st.integers(1, 5))
    ids = torch.tensor(draw(st.lists(st.integers(0, size - 1), min_size=count, max_size=count)))
    before: tuple[Any, ...] = tuple([slice(None)] * dim)
    name = f"{kind} {shape} {dim} {ids.tolist()}"
    if kind == "index_select":
        return name, lambda x, i: torch.index_select(x, dim, i), (x, ids)
    if kind == "index":
        ids = ids - draw(st.sampled_from([0, size]))
        return name, lambda x, i: x[(*before, i)], (x, ids)
    if kind == "two" and len(shape) > 1:
        rows = ids % shape[0]
        columns = (ids * 3) % shape[-1]
        gap: tuple[Any, ...] = tuple([slice(None)] * (len(shape) - 2))
        return name, lambda x, i, j: x[(i, *gap, j)], (x, rows, columns)
    if kind == "index_put":
        unique = ids.unique()
        none = [None] * dim
        put = torch.ops.aten.index_put
        return name, lambda x, i: put(x, [*none, i], x.index_select(dim, i) * 2), (x, unique)
    place = (torch.arange(x.numel()).reshape(shape) * 7 + count) % size
    if kind == "scatter":
        return name, lambda x, i: torch.scatter(x, dim, i, 3), (x, place)
    if kind == "take_along":
        return name, lambda x, i: torch.take_along_dim(x, i, dim), (x, place)
    return name, lambda x, i: torch.gather(x, dim, i.narrow(dim, 0, 1)), (x, place)


FAMILIES = {
    "slices": slices(),
    "pads": pads(),
    "reductions": reductions(),
    "convolutions": convolutions(),
    "pools": pools(),
    "indices": indices(),
}


def check(calls: list[Call], device: graphs.GuardedDevice) -> None:
    """All calls as one program, against PyTorch."""
    irs: dict[str, IR] = {}
    arrays: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    expected: dict[str, torch.Tensor] = {}
    for number, (_, function, inputs) in enumerate(calls):
        key = f"c{number}"
        module = Calling(function).eval()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            irs[key] = ir = extract_ir(module, inputs, model_name=key)
            expected[key] = module(*inputs)
        arrays.update({f"{key}.{k}": x.numpy() for k, x in zip(ir.inputs, inputs, strict=True)})
        weights.update({f"{key}.{k}": t.numpy() for k, t in module.state_dict().items()})
    ran = graphs.run(compile_ir(graphs.merge(irs)), device, arrays, weights, guarded=True)
    assert ran.damage == []
    for number, (name, _, _) in enumerate(calls):
        key = f"c{number}"
        got, right = ran.outputs[f"{key}.{irs[key].outputs[0].name}"], expected[key].numpy()
        assert (got.shape, got.dtype) == (right.shape, right.dtype), name
        np.testing.assert_allclose(got, right, rtol=2e-5, atol=2e-5, err_msg=name)


def _checked(examples: int, count: int, derandomize: bool) -> Callable[..., None]:
    """``check`` on ``examples`` lists of ``count`` calls of one family."""

    def run(family: str, device: graphs.GuardedDevice) -> None:
        @settings(
            max_examples=examples, deadline=None, derandomize=derandomize, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(calls=st.lists(FAMILIES[family], min_size=count, max_size=count))
        def inner(calls: list[Call]) -> None:
            check(calls, device)

        inner()

    return run


@pytest.mark.parametrize("family", FAMILIES)
def test_calls_with_drawn_arguments(family: str, guarded: graphs.GuardedDevice) -> None:
    _checked(2, 8, derandomize=True)(family, guarded)  # the first list has the simplest calls only


@pytest.mark.full
@pytest.mark.parametrize("family", FAMILIES)
def test_many_calls_with_drawn_arguments(family: str, guarded: graphs.GuardedDevice) -> None:
    _checked(20, 15, derandomize=False)(family, guarded)
