"""Whether inputs and weights fit what runs them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from npu_runtime.backend import Backend
from npu_runtime.buffer import NPUBuffer, as_dense, check_spec, value_range, within
from npu_runtime.errors import InputError
from npu_runtime.program import IOSpec
from npu_runtime.weight_loader import Weights


def accept(
    known: Mapping[str, IOSpec],
    inputs: Mapping[str, object],
    device: Backend,
    scanned: int | None = None,
) -> tuple[dict[str, object], dict[str, tuple[int, ...]]]:
    """The inputs by name, numpy ones converted, and their shapes. Raises ``InputError`` unless names, dtypes,
    ranks and values are those of ``known``; values of inputs with more than ``scanned`` elements are not
    looked at (None: of every input)."""
    if known.keys() != inputs.keys():
        missing, unknown = known.keys() - inputs.keys(), inputs.keys() - known.keys()
        says = [
            f"{what}: {', '.join(sorted(map(str, names)))}"
            for what, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise InputError(f"inputs do not fit the program ({'; '.join(says)}): it takes {', '.join(known)}")
    arrays: dict[str, object] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, spec in known.items():
        value = inputs[name]
        if isinstance(value, NPUBuffer):
            if value.device.domain != device.domain:
                raise InputError(
                    f"input {name!r} lies on {value.device.name!r}, the program runs on "
                    f"{device.name!r}: make the buffer with that device"
                )
            check_spec(value.shape, value.dtype, spec)
            arrays[name], shapes[name] = value, value.shape
        else:
            dense = as_dense(value, spec)
            arrays[name], shapes[name] = dense, dense.shape
        if (spec.lower is None and spec.upper is None) or (
            scanned is not None and prod(shapes[name]) > scanned
        ):
            continue
        if not isinstance(value, NPUBuffer) and within(dense, spec.lower, spec.upper):
            continue
        bounds = value.bounds() if isinstance(value, NPUBuffer) else value_range(dense)
        if bounds and (
            (spec.lower is not None and bounds[0] < spec.lower)
            or (spec.upper is not None and bounds[1] > spec.upper)
        ):
            raise InputError(
                f"input {name!r} has values from {bounds[0]} to {bounds[1]}: expected "
                f"{spec.lower if spec.lower is not None else '...'} to "
                f"{spec.upper if spec.upper is not None else '...'}"
            )
    return arrays, shapes


def check_weights(weights: Weights, device: Backend) -> None:
    """Raises ``InputError`` unless ``weights`` are ``Weights`` on ``device``."""
    if not isinstance(weights, Weights):
        raise InputError(f"weights is a {type(weights).__name__}: expected what load_weights returns")
    if weights.device.domain != device.domain:
        raise InputError(
            f"the weights lie on {weights.device.name!r}: load them with the device of this executor, "
            f"{device.name!r}"
        )
