"""Weight expressions."""

from __future__ import annotations

import base64
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from npu_runtime.errors import FormatError
from npu_runtime.program import Transform
from npu_runtime.transforms import check, digest, evaluate, materialise, shape_of, tensors_of

A = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
B = np.array([[0.5], [3.0]], np.float16)
I = np.array([3, -2, 5], np.int32)  # noqa: E741
H = np.array([1.5, 2.25], ml_dtypes.bfloat16)
WEIGHTS: dict[str, np.ndarray[Any, Any]] = {"a": A, "b": B, "i": I, "h": H}
TA, TB, TI, TH = (["tensor", key] for key in "abih")
CONST = ["const", "int16", [2, 2], base64.b64encode(np.array([[1, -2], [3, 4]], "<i2").tobytes()).decode()]
A64 = A.astype(np.float64)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (TA, A),
        (CONST, np.array([[1, -2], [3, 4]], np.int16)),
        (["add", TA, TB], A64 + B),
        (["sub", TA, TB], A64 - B),
        (["mul", TA, TB], A64 * B),
        (["div", TA, TB], A64 / B),
        (["max", TA, TB], np.maximum(A64, B)),
        (["min", TA, TB], np.minimum(A64, B)),
        (["add", TI, TI], I + I),
        (["neg", TI], -I),
        (["abs", TI], abs(I)),
        (["sqrt", TA], np.sqrt(A64)),
        (["rsqrt", TA], 1 / np.sqrt(A64)),
        (["exp", TB], np.exp(B.astype(np.float64))),
        (["sum", TA, [1]], A64.sum(1, keepdims=True)),
        (["mean", TA, [0, 1]], A64.mean((0, 1), keepdims=True)),
        (["sum", TI, []], I),
        (["mul", TH, TH], np.array([2.25, 5.0625])),
        (["reshape", TA, [3, 2]], A.reshape(3, 2)),
        (["permute", TA, [1, 0]], A.T),
        (["pad", TA, [[1, 0], [0, 2]]], np.pad(A, [(1, 0), (0, 2)])),
        (["slice", TA, [[0, 2, 1], [0, 3, 2]]], A[:, ::2]),
        (["slice", TA, [[1, 9, 1], [2, 3, 1]]], A[1:, 2:]),
        (["concat", [TA, TA, TA], 1], np.concatenate([A, A, A], 1)),
        (["broadcast", TB, [4, 2, 3]], np.broadcast_to(B, (4, 2, 3))),
        (["cast", TA, "int8"], A.astype(np.int8)),
    ],
)
def test_each_function_is_numpys(expr: list[Any], expected: np.ndarray[Any, Any]) -> None:
    value = evaluate(expr, WEIGHTS.__getitem__)
    assert value.dtype == expected.dtype
    np.testing.assert_array_equal(value, expected)
    assert shape_of(expr, lambda key: WEIGHTS[key].shape) == expected.shape


def test_folding_is_computed_in_double_precision() -> None:
    expr = ["sub", ["add", TA, ["broadcast", ["cast", CONST_TINY, "float32"], [2, 3]]], TA]
    value = materialise(Transform("t", (2, 3), "float32", expr), expr, WEIGHTS.__getitem__)
    np.testing.assert_allclose(value, np.full((2, 3), 1e-9, np.float32), rtol=1e-6)


CONST_TINY = ["const", "float32", [], base64.b64encode(np.array(1e-9, "<f4").tobytes()).decode()]


@pytest.mark.parametrize(
    "expr",
    [
        [],
        None,
        "a",
        ["tensor"],
        ["tensor", 1],
        ["eval", "1"],
        ["add", TA],
        ["add", TA, TB, TB],
        ["neg", TA, TB],
        ["reshape", TA, [-1]],
        ["reshape", TA, [2.0, 3]],
        ["reshape", TA, [True, 6]],
        ["permute", TA, "10"],
        ["pad", TA, [[1], [0, 0]]],
        ["pad", TA, [[-1, 0], [0, 0]]],
        ["slice", TA, [[0, 1, 0], [0, 1, 1]]],
        ["concat", [], 0],
        ["concat", [TA], -1],
        ["cast", TA, "float31"],
        ["const", "int8", [2], "AA=="],
        ["const", "int8", [1], "?"],
        ["const", "int8", [1 << 50], ""],
        ["broadcast", TA, [1] * 17],
        {"tensor": "a"},
    ],
)
def test_malformed_expressions_are_refused(expr: Any) -> None:
    with pytest.raises(FormatError):
        check(expr)
    with pytest.raises(FormatError):
        evaluate(expr, WEIGHTS.__getitem__)


def test_deep_nesting_is_refused() -> None:
    expr: list[Any] = TA
    for _ in range(100):
        expr = ["neg", expr]
    with pytest.raises(FormatError, match="nested"):
        check(expr)
    with pytest.raises(FormatError, match="nested"):
        evaluate(expr, WEIGHTS.__getitem__)


@pytest.mark.parametrize(
    "expr",
    [
        ["reshape", TA, [4]],
        ["permute", TA, [0, 0]],
        ["permute", TA, [0]],
        ["pad", TA, [[0, 0]]],
        ["slice", TA, [[0, 1, 1]]],
        ["concat", [TA, TI], 0],
        ["broadcast", TA, [2, 2]],
        ["add", TA, TH],
    ],
)
def test_shapes_that_do_not_fit_are_refused(expr: list[Any]) -> None:
    with pytest.raises(FormatError):
        evaluate(expr, WEIGHTS.__getitem__)
    with pytest.raises(FormatError):
        shape_of(expr, lambda key: WEIGHTS[key].shape)


def test_result_is_dense_and_of_the_declared_dtype() -> None:
    spec = Transform("t", (3, 2), "bfloat16", ["permute", TA, [1, 0]])
    value = materialise(spec, spec.expr, WEIGHTS.__getitem__)
    assert value.flags.c_contiguous
    assert value.dtype == ml_dtypes.bfloat16
    with pytest.raises(FormatError, match=r"gives shape \[2, 3\], the program expects \[3, 2\]"):
        materialise(Transform("t", (3, 2), "float32", TA), TA, WEIGHTS.__getitem__)


def test_tensors_are_listed_once_in_order() -> None:
    assert tensors_of(["add", ["concat", [TB, TA], 0], ["mul", TB, TI]]) == ["b", "a", "i"]


def test_digest_ignores_order_and_sees_content() -> None:
    one, two = Transform("a", (2, 3), "float32", TA), Transform("b", (2, 3), "float32", ["neg", TA])
    assert digest([one, two]) == digest((two, one))
    assert (
        digest([one]) != digest([one, two]) != digest([one, Transform("b", (2, 3), "float16", ["neg", TA])])
    )
