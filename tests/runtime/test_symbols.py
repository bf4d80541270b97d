"""Sizes over symbols."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import saxpy_square

from npu_runtime.errors import FormatError, InputError
from npu_runtime.program import Dim, Guard, IOSpec, Symbol
from npu_runtime.symbols import affine, bind, evaluate, symbols_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("s0", 7),
        ("s0*4 + 1", 29),
        ("(s0 - 9) // 2", -1),
        ("(s0 - 9) % 4", 2),
        ("min(s0, 3, s1)", 2),
        ("max(s0, s1)", 7),
        ("-s0", -7),
        ("2*s0*s1 - -3", 31),
        (" s0 ", 7),
        (12, 12),
    ],
)
def test_evaluation_is_pythons(text: Dim, value: int) -> None:
    assert evaluate(text, {"s0": 7, "s1": 2}) == value


@given(
    st.recursive(
        st.sampled_from(["a", "b", "1", "7", "100"]),
        lambda part: (
            st.tuples(part, st.sampled_from(["+", "-", "*", "//", "%"]), part).map(
                lambda t: f"({' '.join(t)})"
            )
            | st.tuples(st.sampled_from(["min", "max"]), part, part).map(lambda t: f"{t[0]}({t[1]}, {t[2]})")
        ),
        max_leaves=6,
    )
)
def test_random_expressions_agree_with_python(text: str) -> None:
    values = {"a": 5, "b": 3}
    try:
        expected = eval(text, {"__builtins__": {}, "min": min, "max": max}, dict(values))
    except ZeroDivisionError:
        with pytest.raises(FormatError, match="divides by zero"):
            evaluate(text, values)
        return
    assert evaluate(text, values) == expected
    assert symbols_of(text) == {name for name in values if name in text.replace("max", "")}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s0 s1",
        "s0 / 2",
        "s0 ** 2",
        "f(s0)",
        "s0.x",
        "s0[0]",
        "1.5",
        "True",
        "'a'",
        "s0 if s0 else 1",
        "min()",
        "min(*s0)",
        "min(s0, key=s0)",
        "s0 << 2",
        "lambda: 1",
        "(s0 := 3)",
        "(" * 300,
        "9" * 30,
        "__import__('os')",
        "1e3",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="not a size"):
        symbols_of(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n", (1, 0)),
        ("2*n + 3", (2, 3)),
        ("n*n", None),
        ("n//2", None),
        ("min(n, 1000)", None),
        ("m + n", None),
        ("5 - n", None),
        (4, None),
    ],
)
def test_affine_sizes_can_be_solved(text: Dim, expected: tuple[int, int] | None) -> None:
    assert affine(text, "n") == expected


SPECS = (
    IOSpec("ids", ("b", "s"), "int64"),
    IOSpec("mask", ("b", "s + 1"), "int64"),
    IOSpec("half", ("2*k + 1",), "int8"),
)
SYMBOLS = (Symbol("b", 1, 4), Symbol("s", 1, 16), Symbol("k", 0, 5))


def _bind(ids: Sequence[int], mask: Sequence[int], half: Sequence[int]) -> dict[str, int]:
    program = saxpy_square(
        symbols=SYMBOLS,
        input_specs=SPECS,
        guards=(Guard("b*s", 32, "<=", "at most 32 tokens"), Guard("k % 2", 0)),
    )
    return bind(program, {"ids": ids, "mask": mask, "half": half})


def test_shapes_determine_symbols() -> None:
    assert _bind((2, 7), (2, 8), (5,)) == {"b": 2, "s": 7, "k": 2}


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        (((2, 7, 1), (2, 8), (1,)), r"'ids' has shape \[2, 7, 1\]: expected the 2 dims \[b, s\]"),
        (((5, 7), (5, 8), (1,)), r"'ids' dim 0 is 5: this program takes 1 to 4"),
        (((2, 0), (2, 1), (1,)), r"'ids' dim 1 is 0: this program takes 1 to 16"),
        (((2, 7), (3, 8), (1,)), r"'mask' dim 0 is 3: expected 2 \(b, with b = 2 from input 'ids' dim 0\)"),
        (((2, 7), (2, 7), (1,)), r"'mask' dim 1 is 7: expected 8 \(s \+ 1, with s = 7"),
        (((2, 7), (2, 8), (4,)), r"'half' dim 0 is 4: expected a number of the form 2\*k \+ 1"),
        (((2, 7), (2, 8), (13,)), r"'half' dim 0 is 13: this program takes 1 to 11"),
        (((4, 16), (4, 17), (1,)), r"at most 32 tokens \(here 64 and 32\)"),
        (((1, 1), (1, 2), (3,)), r"k % 2 == 0 must hold"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[Sequence[int], ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        _bind(*shapes)
