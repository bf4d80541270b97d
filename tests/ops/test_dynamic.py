"""Operations on tensors whose sizes are known at run time only: one program, several sizes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import graphs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from aten_cases import Calling
from call_values import i, n
from torch.export import Dim

from npu_compiler.compiler import compile_ir
from torch_ir import extract_ir

LENGTHS = (5, 2, 9)


@dataclass(frozen=True)
class Dynamic:
    """``function`` of what ``inputs(length)`` gives; ``dims`` says which of each one's dimensions has that
    length."""

    function: Callable[..., Any]
    inputs: Callable[[int], tuple[torch.Tensor, ...]]
    dims: tuple[int | None, ...]


CALLS: dict[str, Dynamic] = {
    "sort": Dynamic(lambda x: torch.sort(x, dim=1, stable=True), lambda k: (n(3, k),), (1,)),
    "sort_rows": Dynamic(lambda x: torch.sort(x, dim=1, descending=True), lambda k: (n(k, 7),), (0,)),
    "topk": Dynamic(lambda x: torch.topk(x, 2, dim=0), lambda k: (n(k, 3),), (0,)),
    "median": Dynamic(lambda x: torch.median(x, 0), lambda k: (n(k, 3),), (0,)),
    "index_negative": Dynamic(lambda x, j: x[j], lambda k: (n(k, 3), i(k, 4, low=-k)), (0, None)),
    "index_both": Dynamic(
        lambda x, j, m: x[j, m], lambda k: (n(k, 3), i(k, 7, low=-k), i(3, 7, low=-3)), (0, None, None)
    ),
    "index_two_symbols": Dynamic(
        lambda x, j, m: (x @ x.mT)[:, j, m],
        lambda k: (n(2, k, 3), i(k, 7, low=-k), i(k, 7)),
        (1, None, None),
    ),
    "index_apart": Dynamic(lambda x, j: x[j, :, j], lambda k: (n(4, 2, k), i(2, 3, low=-2)), (2, None)),
    "gather": Dynamic(lambda x, j: torch.gather(x, 1, j), lambda k: (n(3, k), i(k, 3, 4)), (1, None)),
    "gather_long": Dynamic(lambda x, j: torch.gather(x, 1, j), lambda k: (n(3, 5), i(5, 3, k)), (None, 1)),
    "index_put": Dynamic(
        lambda x, j, y: x.index_put((j,), y, accumulate=True),
        lambda k: (n(4, 3), i(4, k, low=-4), n(k, 3)),
        (None, 0, 0),
    ),
    "scatter_add": Dynamic(
        lambda x, j, y: x.scatter_add(0, j, y), lambda k: (n(4, 3), i(4, k, 3), n(k, 3)), (None, 0, 0)
    ),
    "scatter_mean": Dynamic(
        lambda x, j, y: x.scatter_reduce(1, j, y, "mean", include_self=False),
        lambda k: (n(2, k), i(k, 2, 7), n(2, 7)),
        (1, None, None),
    ),
    "mask_put": Dynamic(
        lambda x, m: x.index_put((m,), torch.tensor(0.5)), lambda k: (n(k, 3), i(2, k).bool()), (0, 0)
    ),
    "masked_scatter": Dynamic(
        lambda x, m, y: x.masked_scatter(m, y),
        lambda k: (n(k, 3), i(2, k, 3).bool(), n(k, 3, seed=1)),
        (0, 0, 0),
    ),
    "max_pool_indices": Dynamic(
        lambda x: F.max_pool2d(x, 3, 1, 1, return_indices=True), lambda k: (n(1, 2, k, 7),), (2,)
    ),
    "avg_pool1d": Dynamic(lambda x: F.avg_pool1d(x, 2, 1, 1), lambda k: (n(2, 3, k),), (2,)),
    "avg_pool3d": Dynamic(lambda x: F.avg_pool3d(x, 2, 2, 1), lambda k: (n(1, 2, 3, k, 4),), (3,)),
    "adaptive_avg": Dynamic(lambda x: F.adaptive_avg_pool2d(x, (2, 3)), lambda k: (n(2, 3, k, 7),), (2,)),
    "adaptive_max": Dynamic(lambda x: F.adaptive_max_pool1d(x, 4), lambda k: (n(2, 3, k),), (2,)),
    "arange_of_length": Dynamic(
        lambda x: x + torch.arange(x.shape[0], 2 * x.shape[0])[:, None], lambda k: (n(k, 3),), (0,)
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_program_serves_all_sizes(name: str, guarded: graphs.GuardedDevice) -> None:
    call = CALLS[name]
    module = Calling(call.function).eval()
    inputs = call.inputs(LENGTHS[0])
    shapes = tuple(None if dim is None else {dim: Dim("k", min=1, max=16)} for dim in call.dims)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ir = extract_ir(module, inputs, model_name=name, dynamic_shapes=shapes)
    assert ir.symbols
    program = compile_ir(ir)
    for length in LENGTHS:
        tensors = call.inputs(length)
        expected = module(*tensors)
        given = {key: tensor.contiguous().numpy() for key, tensor in zip(ir.inputs, tensors, strict=True)}
        ran = graphs.run(program, guarded, given, guarded=True)
        results = [expected] if isinstance(expected, torch.Tensor) else list(expected)
        for output, result in zip(ir.outputs, results, strict=True):
            np.testing.assert_allclose(ran.outputs[output.name], result.numpy(), rtol=2e-5, atol=1e-5)
        assert ran.damage == []
