"""Why an operation that no lowering knows has none, and what to do instead: by the kind that its name tells.
(``ops/refused.py`` has operations of the core set by their full names.)"""

from __future__ import annotations

import re
from importlib.util import find_spec

from npu_compiler.dtypes import SHORT
from npu_compiler.errors import Unsupported

_FALLBACK = "or run it in a fallback part"
#: Part of an operation's name -> reason, remedy.
_KINDS = tuple(
    (re.compile(pattern), reason, remedy)
    for pattern, reason, remedy in (
        (
            r"\.(rand|normal|bernoulli|multinomial|poisson|binomial|exponential|cauchy|geometric|log_normal|uniform)"
            r"|dropout|rrelu|fractional_max_pool",
            "its results are random, and differ from run to run",
            "draw the numbers outside the model and make them an input",
        ),
        (
            r"\.(linalg|cholesky|lu|_lu|qr|svd|geqrf|ormqr|eig|lstsq|triangular_solve|pinverse|logdet|matrix_exp)",
            "a factorisation or solution of matrices, which has no kernel",
            f"compute it outside the model where it does not depend on inputs, {_FALLBACK}",
        ),
        (
            r"sparse|to_dense|_nested|_coalesce",
            "tensors that are not dense",
            "make them dense before, as with to_dense() outside the model",
        ),
        (
            r"\.(nonzero|unique|_unique|argwhere|masked_select|bincount|histc|histogram|repeat_interleave)",
            "the size or the bins of its result depend on values",
            f"use an operation whose result has a size of its own, such as where, {_FALLBACK}",
        ),
        (
            r"\.(special_|polygamma|digamma|igamma|i0|erfinv|mvlgamma|lgamma)",
            "a special function without a kernel",
            f"tabulate or approximate it with elementary functions, {_FALLBACK}",
        ),
    )
)


def unknown_dtype(dtype: str) -> Unsupported:
    """The refusal of values of a dtype that no kernel has."""
    if dtype.startswith("complex"):
        return Unsupported(
            f"values of dtype {dtype}",
            "compute the real and the imaginary part as two tensors (a DFT is a product with two matrices)",
        )
    return Unsupported(f"values of dtype {dtype}", f"use one of {', '.join(SHORT)}")


def unknown(op: str) -> Unsupported:
    """The refusal of an operation that no lowering takes, and PyTorch's tables do not express."""
    for pattern, reason, remedy in _KINDS:
        if pattern.search(op):
            return Unsupported(f"no lowering knows this operation: {reason}", remedy)
    remedy = f"rewrite it with supported operations, {_FALLBACK}"
    if find_spec("torch") is None:
        remedy += (
            "; or install PyTorch where models are compiled: its tables may express it with other operations"
        )
    return Unsupported("no lowering knows this operation", remedy)
