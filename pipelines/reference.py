"""Eager PyTorch in float32: what a compiled model is compared with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.extract import build_weightless
from pipelines.inputs import Array
from pipelines.schema import ModelConfig


class Reference:
    """The factory's module with the original weights, in evaluation mode: ``module`` in float32 and, for a
    module of 16-bit floats, ``narrow`` as it is (None otherwise). Both have the same weights, rounded to the
    module's dtypes.

    Raises ``ValueError`` if the weights lack a tensor of the module.
    """

    def __init__(self, config: ModelConfig, weights: Path) -> None:
        import torch

        module, _ = build_weightless(config)
        load(config.name, module, weights)
        short = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in module.parameters())
        self.narrow = copy.deepcopy(module) if short else None
        self.module = module.float()
        self._start = {name: buffer.clone() for name, buffer in self.module.named_buffers()}

    def reset(self) -> None:
        """Puts every buffer back to what it was at first."""
        for module in (self.module, self.narrow):
            for name, buffer in module.named_buffers() if module is not None else ():
                buffer.copy_(self._start[name])

    def call(self, method: str, inputs: Mapping[str, Array], narrow: bool = False) -> list[Array]:
        """The outputs of a method in their order, nested ones flattened; 16-bit floats are widened.
        ``narrow``: of the module in its own dtypes."""
        import torch
        from torch.utils._pytree import tree_leaves

        module = self._chosen(narrow)
        dtype = next((tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()), None)
        tensors = {name: tensor_of(array) for name, array in inputs.items()}
        if narrow:
            tensors = {name: value.to(dtype) if value.is_floating_point() else value
                       for name, value in tensors.items()}
        with torch.no_grad():
            outputs = getattr(module, method)(**tensors)
        return [array_of(output) for output in tree_leaves(outputs) if isinstance(output, torch.Tensor)]

    def state(self, key: str, narrow: bool = False) -> Array:
        """A buffer's content now."""
        return array_of(dict(self._chosen(narrow).named_buffers())[key])

    def _chosen(self, narrow: bool) -> Any:
        return self.narrow if narrow else self.module

    def states(self) -> dict[str, Array]:
        """The content of all buffers now."""
        return {key: array_of(buffer).copy() for key, buffer in self.module.named_buffers()}


def load(name: str, module: Any, weights: Path) -> None:
    """Gives ``module``, which may be on the meta device, the tensors of a safetensors file in its own dtypes,
    one at a time. Tied tensors may be there under any of their names. Raises ``ValueError`` for one that is
    not."""
    import torch
    from safetensors import safe_open

    held = dict(module.named_parameters(remove_duplicate=False))
    held |= {key: tensor for key, tensor in module.state_dict(keep_vars=True).items() if key not in held}
    made: dict[int, Any] = {}
    with safe_open(weights, framework="pt") as file, torch.no_grad():
        present = set(file.keys())
        for key, tensor in held.items():
            if key not in present or id(tensor) in made:
                continue
            found = file.get_tensor(key)
            if found.shape != tensor.shape:
                raise ValueError(
                    f"{name}: the weight {key} has shape {list(found.shape)}, the model's has "
                    f"{list(tensor.shape)}; fetch the weights of this model"
                )
            if not tensor.is_meta:
                made[id(tensor)] = tensor.copy_(found)
            elif isinstance(tensor, torch.nn.Parameter):
                value = found.to(tensor.dtype, copy=True)
                made[id(tensor)] = torch.nn.Parameter(value, requires_grad=False)
            else:
                made[id(tensor)] = found.to(tensor.dtype, copy=True)
    lost = [key for key, tensor in held.items() if id(tensor) not in made and tensor.numel()]
    if lost:
        raise ValueError(
            f"{name}: the original weights lack {', '.join(lost[:5])}"
            + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
            + "; fetch them again"
        )
    for child in module.modules():
        for leaf, tensor in (*child._parameters.items(), *child._buffers.items()):
            if tensor is not None and tensor.is_meta:
                setattr(child, leaf, made[id(tensor)])


def tensor_of(array: Array) -> Any:
    """A tensor with the content of ``array``; floats as float32."""
    import torch

    floating = array.dtype.kind not in "iub" and array.dtype.name != "float64"
    return torch.from_numpy(np.array(array, dtype=np.float32 if floating else array.dtype))


def array_of(tensor: Any) -> Array:
    """An array with the content of ``tensor``; 16-bit floats as float32."""
    import torch

    wide = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
    array: Array = wide.detach().numpy()
    return array
