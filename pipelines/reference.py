"""Eager PyTorch in float32: what a compiled model is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import factory
from pipelines.inputs import Array
from pipelines.schema import ModelConfig


class Reference:
    """The factory's module with the original weights, in float32 and evaluation mode.

    Raises ``ValueError`` if the weights lack a tensor of the module.
    """

    def __init__(self, config: ModelConfig, weights: Path) -> None:
        from safetensors.torch import load_file

        self.module = factory.build(config).float()
        missing, _ = self.module.load_state_dict(load_file(weights), strict=False)
        self._require(config.name, missing)
        self._start = {name: buffer.clone() for name, buffer in self.module.named_buffers()}

    def _require(self, name: str, missing: list[str]) -> None:
        """A file holds tied tensors once: those that share memory with a loaded one are there."""
        absent = set(missing)
        tensors = self.module.state_dict()
        loaded = {
            tensor.data_ptr() for key, tensor in tensors.items() if key not in absent and tensor.numel()
        }
        lost = [key for key in missing if tensors[key].numel() and tensors[key].data_ptr() not in loaded]
        if lost:
            raise ValueError(
                f"{name}: the original weights lack {', '.join(lost[:5])}"
                + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
                + "; fetch them again"
            )

    def reset(self) -> None:
        """Puts every buffer back to what it was at first."""
        for name, buffer in self.module.named_buffers():
            buffer.copy_(self._start[name])

    def call(self, method: str, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs of a method in their order, nested ones flattened; 16-bit floats are widened."""
        import torch
        from torch.utils._pytree import tree_leaves

        with torch.no_grad():
            outputs = getattr(self.module, method)(
                **{name: tensor_of(array) for name, array in inputs.items()}
            )
        return [array_of(output) for output in tree_leaves(outputs) if isinstance(output, torch.Tensor)]

    def state(self, key: str) -> Array:
        """A buffer's content now."""
        return array_of(dict(self.module.named_buffers())[key])

    def states(self) -> dict[str, Array]:
        """The content of all buffers now."""
        return {key: array_of(buffer).copy() for key, buffer in self.module.named_buffers()}


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
