"""Runs a graph with PyTorch: the reference for verification, and what runs parts that no target takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch_ir.calling import arguments, converter, overload
from torch_ir.constants import static_shape, to_array
from torch_ir.errors import IRError
from torch_ir.expr import Expr, evaluate, substitute, symbols_of
from torch_ir.functionalize import is_in_place
from torch_ir.ir import IR, ITEM_SIZE, Attr, Constant, Node, TensorSpec

if TYPE_CHECKING:
    import torch

_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class EagerResult:
    """Tensors by name: outputs, states (by key, after the run), and all values if they were kept."""

    outputs: dict[str, torch.Tensor]
    states: dict[str, torch.Tensor]
    values: dict[str, torch.Tensor]


def run(
    ir: IR,
    inputs: Mapping[str, Any],
    weights: Mapping[str, Any],
    states: Mapping[str, Any] | None = None,
    *,
    keep_values: bool = False,
    dtype: Any = None,
) -> EagerResult:
    """Runs ``ir`` on the device of its inputs.

    ``inputs`` by name, ``weights`` by state_dict key, and ``states`` by key, are NumPy arrays or tensors; a
    state that is not given starts as the graph says. ``dtype`` (``torch.float64``) replaces every
    floating-point dtype. Nothing that is passed in is changed. Raises ``IRError`` for a missing or unknown
    input, one with another shape or dtype, and an operation that PyTorch does not have.
    """
    import torch

    with torch.no_grad():
        return _Run(torch, ir, dtype).run(inputs, weights, states or {}, keep_values)


def bind_symbols(ir: IR, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The value of every symbol, from the shapes of the inputs. Raises ``IRError`` where they do not fit."""
    found: dict[str, int] = {}
    pairs = [
        (f"dimension {axis} of input {name}", dim, shapes[name][axis])
        for name, spec in ir.inputs.items()
        for axis, dim in enumerate(spec.shape)
    ]
    for _ in ir.symbols:
        for _, dim, size in pairs:
            rest = substitute(dim, found)
            if isinstance(rest, Expr) and len(symbols_of(rest)) == 1:
                solved = _solve(rest, size)
                if solved is not None:
                    found.update(solved)
    missing = ir.symbols.keys() - found.keys()
    if missing:
        raise IRError(f"{ir.name}: the input shapes do not tell the value of {', '.join(sorted(missing))}")
    for place, dim, size in pairs:
        if evaluate(dim, found) != size:
            raise IRError(
                f"{ir.name}: {place} is {size}; expected {dim}"
                + ("" if isinstance(dim, int) else f" = {evaluate(dim, found)}")
            )
    for name, (low, high) in ir.symbols.items():
        if not low <= found[name] <= high:
            raise IRError(f"{ir.name}: {name} is {found[name]}; the graph was extracted for {low} to {high}")
    return found


def _solve(dim: Expr, size: int) -> dict[str, int] | None:
    """The symbol of ``factor * symbol + offset == size``; None for any other expression."""
    (name,) = symbols_of(dim)
    offset, one, two = (substitute(dim, {name: value}) for value in (0, 1, 2))
    assert isinstance(offset, int) and isinstance(one, int) and isinstance(two, int)
    factor = one - offset
    if factor == 0 or two != offset + 2 * factor or (size - offset) % factor:
        return None
    return {name: (size - offset) // factor}


class _Run:
    def __init__(self, torch: Any, ir: IR, dtype: Any) -> None:
        self._torch = torch
        self._ir = ir
        self._dtype = dtype
        self._device: Any = "cpu"
        self._symbols: dict[str, int] = {}

    def run(
        self,
        inputs: Mapping[str, Any],
        weights: Mapping[str, Any],
        states: Mapping[str, Any],
        keep_values: bool,
    ) -> EagerResult:
        ir = self._ir
        self._check_names("input", inputs, ir.inputs)
        given = {name: self._tensor(value) for name, value in inputs.items()}
        self._device = next((tensor.device for tensor in given.values()), "cpu")
        for name, spec in ir.inputs.items():
            if given[name].dim() != spec.rank:
                raise IRError(
                    f"{ir.name}: input {name} has {given[name].dim()} dimensions; expected {spec.rank}"
                )
        self._symbols = bind_symbols(ir, {name: tuple(tensor.shape) for name, tensor in given.items()})
        values = {name: self._fit(f"input {name}", given[name], spec) for name, spec in ir.inputs.items()}
        values.update({name: self._constant(constant) for name, constant in ir.constants.items()})
        by_key = {state.key: name for name, state in ir.states.items()}
        self._check_names("state", states, by_key, complete=False)
        for name, state in ir.states.items():
            start = states.get(state.key)
            if start is None and state.persistent:
                start = self._weight(weights, state.key)
            if start is not None:
                values[name] = self._fit(f"state {state.key}", self._tensor(start), state.spec)
            else:
                size = math.prod(static_shape(state.spec, state.key)) * ITEM_SIZE[state.spec.dtype]
                data = state.data if state.data is not None else bytes(size)
                values[name] = self._constant(Constant(state.spec, data))
        read = {value for node in ir.nodes for value in node.inputs} | ir.results()
        for name, key in ir.weight_name_mapping.items():
            if name in read:
                tensor = self._tensor(self._weight(weights, key))
                values[name] = self._fit(f"weight {key}", tensor, ir.weights[key])
        last = self._last_readers(keep_values)
        for node in ir.nodes:
            results = self._call(node, values)
            values.update(zip(node.outputs, results, strict=True))
            for name in last.get(node.name, ()):
                values.pop(name, None)
        return EagerResult(
            {output.name: values[output.value] for output in ir.outputs},
            {state.key: values[state.update or name] for name, state in ir.states.items()},
            values if keep_values else {},
        )

    def _last_readers(self, keep_values: bool) -> dict[str, list[str]]:
        """node name -> the values that nothing needs after it."""
        if keep_values:
            return {}
        ir = self._ir
        kept = ir.results() | ir.states.keys()
        last = {
            name: node.name for node in ir.nodes for name in (*node.outputs, *node.inputs) if name is not None
        }
        freed: dict[str, list[str]] = {}
        for name, reader in last.items():
            if name not in kept:
                freed.setdefault(reader, []).append(name)
        return freed

    def _check_names(
        self, what: str, given: Mapping[str, Any], known: Mapping[str, Any], complete: bool = True
    ) -> None:
        unknown = [name for name in given if name not in known]
        missing = [name for name in known if name not in given] if complete else []
        if unknown or missing:
            raise IRError(
                f"{self._ir.name}: "
                + "; ".join(
                    f"{kind} {what} {', '.join(names)}"
                    for kind, names in (("unknown", unknown), ("missing", missing))
                    if names
                )
                + f"; the graph has {', '.join(known) or 'none'}"
            )

    def _weight(self, weights: Mapping[str, Any], key: str) -> Any:
        if key not in weights:
            raise IRError(f"{self._ir.name}: weight {key} is missing; pass the model's whole state_dict")
        return weights[key]

    def _tensor(self, value: Any) -> Any:
        if isinstance(value, self._torch.Tensor):
            return value.detach()
        import numpy as np

        array = np.ascontiguousarray(value).reshape(np.shape(value))
        if array.dtype.name == "bfloat16":
            return self._torch.from_numpy(array.view(np.uint16).copy()).view(self._torch.bfloat16)
        return self._torch.from_numpy(array.copy() if not array.flags.writeable else array)

    def _fit(self, place: str, tensor: Any, spec: TensorSpec) -> Any:
        shape = tuple(self._size(dim) for dim in spec.shape)
        found = str(tensor.dtype).removeprefix("torch.")
        upcast = self._dtype is not None and found in _FLOATS and spec.dtype in _FLOATS
        if tuple(tensor.shape) != shape or (found != spec.dtype and not upcast):
            raise IRError(
                f"{self._ir.name}: {place} is {found}{list(tensor.shape)}; expected {spec.dtype}{list(shape)}"
            )
        return tensor.to(self._device, self._float(spec.dtype))

    def _float(self, dtype: str) -> Any:
        """The dtype that values of ``dtype`` are computed in."""
        if self._dtype is not None and dtype in _FLOATS:
            return self._dtype
        return getattr(self._torch, dtype)

    def _constant(self, constant: Constant) -> Any:
        array = to_array(constant).copy()
        return self._torch.from_numpy(array).to(self._device, self._float(constant.spec.dtype))

    def _size(self, attr: Attr) -> int:
        assert isinstance(attr, (int, Expr))
        return evaluate(attr, self._symbols)

    def _call(self, node: Node, values: Mapping[str, Any]) -> list[Any]:
        operation = self._operation(node)
        inputs = [None if name is None else values[name] for name in node.inputs]
        convert = converter(self._torch, self._size, self._float, self._device)
        args, kwargs = arguments(operation, inputs, node.attrs, convert, self._torch.device(self._device))
        try:
            result = operation(*args, **kwargs)
        except Exception as error:
            raise IRError(
                f"{self._ir.name}: {node.name} ({node.op}) at {node.loc or 'an unknown line'} failed in "
                f"PyTorch: {error}"
            ) from error
        return [result] if isinstance(result, self._torch.Tensor) else list(result)[: len(node.outputs)]

    def _operation(self, node: Node) -> Any:
        if is_in_place(node.op):
            raise IRError(
                f"{self._ir.name}: {node.name} ({node.op}) works in place, and a graph must not; "
                "extract it again with extract_ir"
            )
        try:
            return overload(self._torch, node.op)
        except (AttributeError, RuntimeError):
            raise IRError(
                f"{self._ir.name}: PyTorch {self._torch.__version__} has no operation {node.op} ({node.name})"
            ) from None
