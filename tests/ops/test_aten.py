"""What users write in PyTorch gives what PyTorch gives: extracted, compiled, run.

All calls are one program. What cannot be compiled says so, with the reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import graphs
import numpy as np
import pytest
import torch
from aten_cases import CALLS, Calling

from npu_compiler.compiler import compile_ir
from npu_compiler.errors import UnsupportedOpError
from torch_ir import extract_ir
from torch_ir.ir import IR

#: What is refused, and a part of the reason.
REFUSED = {
    "refused-rand": "random numbers",
    "refused-multinomial": "random numbers",
    "refused-complex_product": "values of dtype complex64",
    "refused-strides": "strides over memory whose arrangement",
    "refused-segments": "no lowering knows this operation",
    "refused-qr": "matrix factorisation",
    "refused-index_masks": "a mask and other indices at once",
}


def extracted(name: str) -> tuple[IR, torch.nn.Module, tuple[torch.Tensor, ...]]:
    """A call's graph, module and inputs."""
    function, inputs = CALLS[name]
    module = Calling(function).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return extract_ir(module, inputs, model_name=name), module, inputs


def flat(result: Any) -> Iterator[torch.Tensor]:
    """The tensors in what a module returns."""
    if isinstance(result, torch.Tensor):
        yield result
    else:
        for item in result:
            yield from flat(item)


@dataclass
class Together:
    """All calls of a session, run as one program."""

    expected: dict[str, list[np.ndarray[Any, Any]]]
    got: dict[str, list[np.ndarray[Any, Any]]]
    damage: list[str]


@pytest.fixture(scope="session")
def together(request: pytest.FixtureRequest, guarded: graphs.GuardedDevice) -> Together:
    chosen = {
        item.callspec.params["call"]  # type: ignore[attr-defined]
        for item in request.session.items
        if graphs.is_for(item, "call", guarded)
    }
    irs: dict[str, IR] = {}
    arrays: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    expected: dict[str, list[np.ndarray[Any, Any]]] = {}
    for name in sorted(chosen):
        ir, module, inputs = extracted(name)
        irs[name] = ir
        for key, tensor in zip(ir.inputs, inputs, strict=True):
            arrays[f"{name}.{key}"] = tensor.numpy()
        weights.update({f"{name}.{k}": t.numpy() for k, t in module.state_dict().items()})
        with torch.no_grad():
            expected[name] = [tensor.resolve_conj().numpy() for tensor in flat(module(*inputs))]
    program = compile_ir(graphs.merge(irs))
    ran = graphs.run(program, guarded, arrays, weights, guarded=True)
    got = {name: [ran.outputs[f"{name}.{o.name}"] for o in ir.outputs] for name, ir in irs.items()}
    return Together(expected, got, ran.damage)


def _parameters() -> list[Any]:
    """The short tier has all calls about outputs, and every third of the others."""
    names = sorted(CALLS.keys() - REFUSED.keys())
    return [
        pytest.param(name, marks=[] if name.startswith("outputs") or i % 3 == 0 else [pytest.mark.full])
        for i, name in enumerate(names)
    ]


@pytest.mark.parametrize("call", _parameters())
def test_a_call_gives_what_pytorch_gives(call: str, together: Together) -> None:
    for got, expected in zip(together.got[call], together.expected[call], strict=True):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        wide = np.complex128 if expected.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(got.astype(wide), expected.astype(wide), rtol=2e-5, atol=1e-5)


@pytest.mark.every_shard
def test_calls_write_nothing_outside_their_memory(together: Together) -> None:
    assert together.damage == []


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_not_supported_is_refused_with_the_reason_and_a_remedy(name: str) -> None:
    ir, _, _ = extracted(name)
    with pytest.raises(UnsupportedOpError, match=REFUSED[name]) as caught:
        compile_ir(ir)
    assert all(refusal.node and refusal.remedy for refusal in caught.value.refusals)


def test_results_of_calls_vary() -> None:
    """The table would notice a program that gives zeros."""
    empty = {"views-slice_empty", "outputs-empty_tensor", "outputs-sum_of_empty", "sorting-sort_empty"}
    empty.add("complex-nothing")
    for name, (function, inputs) in CALLS.items():
        with torch.no_grad():
            results = list(flat(Calling(function).eval()(*inputs)))
        assert name in empty or any(bool(torch.any(tensor != 0)) for tensor in results), name
