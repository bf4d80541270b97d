"""Calls ``torch.export``: on models of any device, its complaints as ``IRError``. PyTorch is handed in."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from torch_ir.errors import IRError
from torch_ir.example import inferred
from torch_ir.returned import returning_plain


def export(
    torch: Any, name: str, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> tuple[Any, int]:
    """As ``_export``. Objects that the module returns and PyTorch does not look into are taken apart."""
    try:
        return _export(torch, name, model, args, kwargs, dynamic_shapes)
    except IRError as error:
        if "in output, which is not a known type" not in str(error):
            raise
    with returning_plain(torch, model):
        return _export(torch, name, model, args, kwargs, dynamic_shapes)


def _export(
    torch: Any, name: str, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> tuple[Any, int]:
    """The ``ExportedProgram`` of one call, and the least size that it is right for where a dimension's bounds
    do not say more. Raises ``IRError`` where there is none, or it would lose state.

    A dynamic size is taken for any number within its bounds: PyTorch would otherwise assume that it is 2 at
    least, whatever was declared, which is the last resort. Where the module works for some of the declared
    sizes only, as for multiples of 8 or for two that are equal, that becomes a condition of the graph.
    """
    config = import_module("torch.fx.experimental._config")
    program = failure = None
    least = 0
    for any_size, as_conditions in ((True, False), (True, True), (False, False)):
        if as_conditions and "Constraints violated" not in str(failure):
            continue
        shapes = (inferred(torch, dynamic_shapes) if as_conditions else None) or dynamic_shapes
        with (
            warnings.catch_warnings(record=True) as caught,
            torch.no_grad(),
            config.patch(backed_size_oblivious=any_size),
        ):
            warnings.simplefilter("always")
            try:
                program = torch.export.export(
                    model, args, kwargs, dynamic_shapes=shapes, strict=False,
                    prefer_deferred_runtime_asserts_over_guards=as_conditions,
                )
                least = 0 if any_size else 2
                break
            except Exception as error:
                failure = failure or error
                if not dynamic_shapes:
                    break
    if program is None:
        raise IRError(_export_message(name, failure)) from failure
    for warning in caught:
        text = str(warning.message)
        lost = _lost_attributes(model, text)
        if lost:
            raise IRError(
                f"{name}: the module assigns {', '.join(lost)}, which a graph would lose; make it a buffer "
                "with register_buffer if it is state, or call the module once before if it only keeps what "
                "it has computed from its weights"
            )
        if "assigned during export" not in text and not issubclass(warning.category, FutureWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return program, least


def _lost_attributes(model: Any, warning: str) -> list[str]:
    """The attributes that PyTorch warns of: tensors that the module sets and that are not registered."""
    if "assigned during export" not in warning:
        return []
    registered = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    lost = []
    for path in re.findall(r"self\.[\w.]+(?:\[\w+\])*", warning):
        value = model
        for part in re.findall(r"\w+", path.removeprefix("self.")):
            value = value[int(part)] if isinstance(value, (list, tuple)) else getattr(value, part, None)
        if id(value) not in registered:
            lost.append(path)
    return lost


#: What PyTorch raises where a size or a branch hangs on what a tensor holds.
_OF_VALUES = (
    "DataDependentOutputException",
    "DynamicOutputShapeException",
    "GuardOnDataDependentSymNode",
    "PendingUnbackedSymbolNotFound",
)


def _export_message(name: str, error: Exception | None) -> str:
    text = str(error).split("The error above occurred when")[0].strip()
    text = text if len(text) <= 1000 else f"{text[:1000]}..."
    if "Constraints violated" in text:
        return (
            f"{name}: the module does not work for all sizes that were declared; declare the bounds that it "
            f"works for, or lift the restriction in the module. {text}"
        )
    if type(error).__name__ in _OF_VALUES:
        return (
            f"{name}: PyTorch cannot export this module: a size, a branch or a Python number in it depends "
            f"on the values of a tensor; choose with torch.where, and keep sizes fixed. {text}"
        )
    return f"{name}: PyTorch cannot export this module: {text}"


@contextmanager
def on_cpu(torch: Any, model: Any) -> Iterator[Callable[[Any], Any]]:
    """While it lasts, a model on another device has tensors without memory on the CPU for its state_dict.

    Yields what makes an example tensor fit it.
    """
    held = [*model.parameters(), *model.buffers()]
    if all(tensor.device.type == "cpu" for tensor in held):
        yield (
            lambda tensor: (
                tensor if tensor.device.type == "cpu" else torch.zeros(tensor.shape, dtype=tensor.dtype)
            )
        )
        return
    environment = import_module("torch.fx.experimental.symbolic_shapes").ShapeEnv()
    mode = torch._subclasses.FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)
    stand_ins: dict[int, Any] = {}

    def shape_only(tensor: Any) -> Any:
        with mode:
            made = torch.empty(tensor.shape, dtype=tensor.dtype)
        return (
            torch.nn.Parameter(made, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else made
        )

    def stand_in(tensor: Any, has_value: bool) -> Any:
        if id(tensor) not in stand_ins:
            keep = has_value and tensor.device.type != "meta"
            stand_ins[id(tensor)] = tensor.cpu() if keep else shape_only(tensor)
        return stand_ins[id(tensor)]

    swapped: list[tuple[Any, str, Any]] = []
    try:
        for module in list(model.modules()):
            for key, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None:
                    swapped.append((module, key, tensor))
        for module, key, tensor in swapped:
            setattr(module, key, stand_in(tensor, key in module._non_persistent_buffers_set))
        yield shape_only
    finally:
        for module, key, tensor in swapped:
            setattr(module, key, tensor)
