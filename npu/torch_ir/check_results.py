"""Whether a graph that a file gives says of every operation what PyTorch says of it: the shapes and dtypes of
its results. PyTorch is imported when it is needed; nothing is computed.

A file that ``save_ir`` wrote and nobody changed needs no check. Where PyTorch is not installed there is none:
the compiler's shape rules and lowerings then hold what they know against what the file says.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch_ir.calling import arguments, converter, overload
from torch_ir.errors import IRError
from torch_ir.expr import evaluate
from torch_ir.functionalize import is_in_place
from torch_ir.ir import IR, Attr, Node, TensorSpec

#: How many sizes a graph with symbols is checked for, how many are tried for guards, and how far from the
#: smallest.
_SAMPLES, _TRIES, _SPREAD = 2, 200, 97


def check_results(ir: IR) -> None:
    """Raises ``IRError`` with the nodes whose results PyTorch gives another shape or dtype, or whose operands
    and arguments it refuses. Nodes that PyTorch does not know, or whose results depend on values, pass; so
    do mixed floating-point dtypes, which are promoted."""
    if not ir.nodes or importlib.util.find_spec("torch") is None:
        return
    problems: dict[str, str] = {}
    for symbols in _samples(ir):
        problems.update(_Checking(ir, symbols).problems())
    if problems:
        first = "; ".join(list(problems.values())[:5])
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise IRError(f"{ir.name}: operations contradict what the graph says of their results: {first}{more}")


def _samples(ir: IR) -> list[Mapping[str, int]]:
    """Values of the symbols for which the guards hold."""
    if not ir.symbols:
        return [{}]
    rng = random.Random(0)
    found: list[Mapping[str, int]] = []
    for _ in range(_TRIES):
        drawn = {
            name: rng.randint(min(low + 2, high), min(high, low + _SPREAD))
            for name, (low, high) in ir.symbols.items()
        }
        if all(guard.holds(drawn) for guard in ir.guards):
            found.append(drawn)
        if len(found) == _SAMPLES:
            break
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch tells of operands that it refuses in its log, too."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = disabled


@dataclass(frozen=True)
class _Checking:
    ir: IR
    symbols: Mapping[str, int]

    def problems(self) -> Iterator[tuple[str, str]]:
        """node -> what is wrong with it."""
        import torch
        from torch._subclasses import FakeTensorMode

        specs = self.ir.values()
        with _quiet():
            mode = FakeTensorMode(allow_non_fake_inputs=True)
            with mode, torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
                tensors: dict[str, Any] = {}
                for node in self.ir.nodes:
                    if node.outs and "." in node.op and not is_in_place(node.op):
                        problem = self._problem(torch, node, specs, tensors)
                        if problem is not None:
                            yield node.name, f"{node.name} ({node.op}) {problem}"

    def _problem(
        self, torch: Any, node: Node, specs: Mapping[str, TensorSpec], tensors: dict[str, Any]
    ) -> str | None:
        for value in node.inputs:
            if value is not None and value not in tensors:
                tensors[value] = self._tensor(torch, specs[value])
        operands = [None if value is None else tensors[value] for value in node.inputs]
        try:
            results = self._results(torch, node, operands)
        except Exception as error:
            text = " ".join(str(error).split("\n")[0].split())
            return f"is refused by PyTorch: {text[:200] or type(error).__name__}"
        if results is None:
            return None
        if len(results) < len(node.outs):
            return f"has {len(node.outs)} results, and makes {len(results)}"
        for result, name, spec in zip(results, node.outputs, node.outs, strict=False):
            made = (tuple(result.shape), str(result.dtype).removeprefix("torch."))
            if made != (self._shape(spec), spec.dtype):
                texts = (f"{dtype}{list(shape)}" for shape, dtype in (made, (self._shape(spec), spec.dtype)))
                return f"makes {next(texts)} and the graph says that {name} is {next(texts)}"
        return None

    def _results(self, torch: Any, node: Node, operands: Sequence[Any]) -> list[Any] | None:
        """The results of a node without their values; None where there is nothing to be known."""
        from torch._subclasses import fake_tensor

        try:
            operation = overload(torch, node.op)
        except (AttributeError, RuntimeError):
            return None
        unknown = (
            NotImplementedError,
            fake_tensor.DataDependentOutputException,
            fake_tensor.DynamicOutputShapeException,
        )
        device = torch.device("cpu")
        convert = converter(torch, self._size, lambda name: getattr(torch, name), device)

        def call(values: Sequence[Any]) -> list[Any]:
            args, kwargs = arguments(operation, values, node.attrs, convert, device)
            result = operation(*args, **kwargs)
            return [result] if isinstance(result, torch.Tensor) else list(result)

        try:
            try:
                results = call(operands)
            except unknown:
                return None
            except Exception:  # operands of several dtypes are computed with in the widest of them
                wide = _promoted(torch, operands)
                if wide is None:
                    raise
                results = call(wide)
        except unknown:
            return None
        return results if all(isinstance(result, torch.Tensor) for result in results) else None

    def _tensor(self, torch: Any, spec: TensorSpec) -> Any:
        return torch.empty(self._shape(spec), dtype=getattr(torch, spec.dtype))

    def _shape(self, spec: TensorSpec) -> tuple[int, ...]:
        return tuple(evaluate(dim, self.symbols) for dim in spec.shape)

    def _size(self, attr: Attr) -> int:
        return evaluate(attr, self.symbols)  # type: ignore[arg-type]


def _promoted(torch: Any, operands: Sequence[Any]) -> list[Any] | None:
    """The operands with floating-point ones in the widest of their dtypes; None where they have one."""
    floats = {value.dtype for value in operands if value is not None and value.is_floating_point()}
    if len(floats) < 2:
        return None
    wide = functools.reduce(torch.promote_types, floats)
    return [
        value.to(wide) if value is not None and value.is_floating_point() else value for value in operands
    ]
