"""The algebra of views against numpy: both sides must name the same elements."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npu_compiler import views
from npu_compiler.views import View, place
from torch_ir.expr import evaluate, substitute, symbol
from torch_ir.ir import TensorSpec

Array = np.ndarray[Any, Any]


def elements(view: View) -> Array:
    """The positions in the buffer that the view's elements have."""
    index = np.full(view.shape, view.offset, np.int64)
    for axis, (size, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        shape = [1] * len(view.shape)
        shape[axis] = int(str(size))
        index += np.arange(int(str(size))).reshape(shape) * stride
    return index


def dense(shape: tuple[int, ...]) -> tuple[View, Array]:
    return place("b", TensorSpec(shape, "float32")), np.arange(prod(shape)).reshape(shape)


@st.composite
def factorisations(draw: st.DrawFn, number: int) -> tuple[int, ...]:
    """Shapes of ``number`` elements."""
    shape: list[int] = []
    rest = number
    while rest > 1:
        size = draw(st.sampled_from([d for d in range(2, rest + 1) if rest % d == 0]))
        shape.append(size)
        rest //= size
    for _ in range(draw(st.integers(0, 2))):
        shape.insert(draw(st.integers(0, len(shape))), 1)
    return tuple(shape)


@st.composite
def programs(draw: st.DrawFn) -> tuple[View, Array, list[str]]:
    """A view and an array after the same operations."""
    view, array = dense(tuple(draw(st.lists(st.integers(1, 5), min_size=0, max_size=4))))
    done = []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["permute", "slice", "expand", "reshape"]))
        if kind == "permute":
            order = draw(st.permutations(range(array.ndim)))
            view, array = views.permute(view, order), array.transpose(order)
            done.append(f"permute {order}")
        elif kind == "slice" and array.ndim:
            dim = draw(st.integers(0, array.ndim - 1))
            start = draw(st.integers(0, array.shape[dim] - 1))
            step = draw(st.integers(1, 3))
            length = draw(st.integers(1, (array.shape[dim] - start + step - 1) // step))
            view = views.slice_dim(view, dim, start, step, length)
            cut = [slice(None)] * array.ndim
            cut[dim] = slice(start, start + step * length, step)
            array = array[tuple(cut)]
            done.append(f"slice {dim} {start} {step} {length}")
        elif kind == "expand":
            lead = tuple(draw(st.lists(st.integers(1, 3), max_size=1)))
            shape = (*lead, *(draw(st.integers(1, 3)) if size == 1 else size for size in array.shape))
            if prod(shape) <= 2000:
                view, array = views.expand(view, shape), np.broadcast_to(array, shape)
                done.append(f"expand {shape}")
        elif kind == "reshape":
            shape = draw(factorisations(array.size))
            reshaped = views.reshape(view, shape)
            done.append(f"reshape {shape}: {'view' if reshaped else 'copy'}")
            if reshaped is not None:
                view, array = reshaped, array.reshape(shape)
    return view, array, done


@given(programs())
def test_views_name_the_elements_that_numpy_names(program: tuple[View, Array, list[str]]) -> None:
    view, array, _ = program
    assert view.shape == array.shape
    np.testing.assert_array_equal(elements(view), array)
    if view.is_dense():
        np.testing.assert_array_equal(elements(replace(view, offset=0)).reshape(-1), np.arange(array.size))


@given(programs(), st.data())
def test_a_reshape_is_a_view_whenever_numpy_can_make_one(
    program: tuple[View, Array, list[str]], data: st.DataObject
) -> None:
    view, array, _ = program
    shape = data.draw(factorisations(array.size))
    reshaped = views.reshape(view, shape)
    if reshaped is not None:
        np.testing.assert_array_equal(elements(reshaped), array.reshape(shape))
    elif 0 not in view.strides:
        strided = np.lib.stride_tricks.as_strided(
            np.arange(10_000)[int(str(view.offset)) :], array.shape, [8 * int(str(s)) for s in view.strides]
        )
        try:
            strided.shape = shape
        except AttributeError:
            return
        raise AssertionError(f"numpy views {view} as {shape}")


@pytest.mark.parametrize(("layout", "space"), [("nhwc8", 0), ("nhwc8_spaced", 16)])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 8, 3, 3), (3, 13, 1, 1), (2, 17, 4, 1)])
def test_channels_last_pads_channels_to_whole_vectors(
    shape: tuple[int, ...], layout: str, space: int
) -> None:
    spec = TensorSpec(shape, "float32", layout)
    n, c, h, w = shape
    padded = -(-c // 8) * 8 + space
    expected = np.arange(n * h * w * padded).reshape(n, h, w, padded)[..., :c].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(elements(place("b", spec)), expected)
    assert views.layout_numel(spec) == n * h * w * padded
    assert views.nbytes(spec) == 4 * n * h * w * padded


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_symbolic_views_are_the_numeric_ones(size: int) -> None:
    s = symbol("s")
    spec = TensorSpec((s, 3, s * 2, 5), "float32")
    view = views.permute(place("b", spec), (0, 2, 1, 3))
    view = views.slice_dim(view, 1, s, 1, s)
    made = views.reshape(views.expand(view, (2, *view.shape)), (2, s, s, 3, 5, 1))
    assert made is not None
    numeric = View(
        "b",
        "float32",
        tuple(evaluate(d, {"s": size}) for d in made.shape),
        tuple(evaluate(d, {"s": size}) for d in made.strides),
        substitute(made.offset, {"s": size}),
    )
    array = np.arange(size * 3 * size * 2 * 5).reshape(size, 3, size * 2, 5).transpose(0, 2, 1, 3)[:, size:]
    np.testing.assert_array_equal(elements(numeric), np.stack([array, array])[..., None])


def test_empty_tensors_can_have_any_empty_shape() -> None:
    view, _ = dense((0, 3))
    made = views.reshape(view, (7, 0))
    assert made is not None and made.shape == (7, 0)
