"""A GGUF file's tensors as the state_dict of the ``transformers`` model that they come from.

Quantised tensors are dequantised to float32 by the ``gguf`` library. Names and the order of rows follow
llama.cpp's converter: for the architecture ``llama`` it interleaves the two halves that rotary embedding
turns, row by row of every head of the query and key projections, which is undone here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npu_runtime.dtypes import Array
from npu_runtime.safetensors_file import write_safetensors
from pipelines.gguf_file import field_of, open_gguf
from pipelines.packages import FetchError

_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_PARTS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
#: Architectures whose tensors have these names, and the parts whose rows the converter interleaves.
INTERLEAVED: dict[str, tuple[str, ...]] = {"llama": ("attn_q", "attn_k"), "qwen2": ()}


def convert(file: Path, out: Path) -> None:
    """Writes the tensors of ``file`` to ``out`` (safetensors, float32), one at a time. Raises ``FetchError``
    for a damaged file, an unknown architecture, tensor or quantisation."""
    reader = open_gguf(file)
    try:
        architecture = str(field_of(reader, "general.architecture"))
        if architecture not in INTERLEAVED:
            raise FetchError(f"{file.name}: the architecture {architecture} is not known; "
                             f"known are {', '.join(INTERLEAVED)}")
        heads = {"attn_q": int(field_of(reader, f"{architecture}.attention.head_count")),
                 "attn_k": int(field_of(reader, f"{architecture}.attention.head_count_kv"))}
    except (KeyError, TypeError) as error:
        raise FetchError(f"{file.name} is not a whole GGUF file: {error}") from None
    found = sorted((_name(file, tensor.name, architecture), tensor) for tensor in reader.tensors)
    shapes = {name: (tuple(map(int, reversed(tensor.shape))), "float32") for name, tensor in found}

    def arrays() -> Iterator[tuple[str, Array]]:
        for name, tensor in found:
            yield name, _values(file, tensor, heads, INTERLEAVED[architecture]).reshape(shapes[name][0])

    write_safetensors(out, shapes, arrays(), {"format": "pt"})


def _name(file: Path, name: str, architecture: str) -> str:
    """``blk.3.attn_q.weight`` -> ``model.layers.3.self_attn.q_proj.weight``."""
    head, *middle, kind = name.split(".")
    if head in _WHOLE and not middle:
        return f"{_WHOLE[head]}.{kind}"
    if head == "blk" and len(middle) == 2 and middle[1] in _PARTS:
        return f"model.layers.{middle[0]}.{_PARTS[middle[1]]}.{kind}"
    raise FetchError(f"{file.name}: the tensor {name} is not one of a {architecture} model's")


def _values(file: Path, tensor: Any, heads: dict[str, int], interleaved: tuple[str, ...]) -> Array:
    from gguf import dequantize
    try:
        values = np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
    except (NotImplementedError, ValueError) as error:
        raise FetchError(f"{file.name}: {tensor.name} is quantised as {tensor.tensor_type.name}, "
                         f"which cannot be read: {error}") from None
    part = tensor.name.split(".")[-2]
    if part in interleaved:
        if values.shape[0] % (2 * heads[part]):
            raise FetchError(f"{file.name}: {tensor.name} has {values.shape[0]} rows, which are not pairs "
                             f"for each of {heads[part]} heads")
        rows = values.reshape(heads[part], -1, 2, *values.shape[1:])
        values = np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(values.shape)
    return values
