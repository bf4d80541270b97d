"""Sentence embeddings by a small BERT (all-MiniLM-L6-v2), with the state_dict keys of its checkpoint."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from pipelines.zoo.randomize import randomize

__all__ = ["SentenceEncoder", "all_minilm_l6_v2", "randomize"]


class Embeddings(nn.Module):
    """Tokens ``[n, length]`` to vectors ``[n, length, width]``: word, place and first segment."""

    def __init__(self, vocabulary: int, positions: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width, padding_idx=0)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, input_ids: Tensor) -> Tensor:
        places = self.position_embeddings.weight[: input_ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(input_ids) + self.token_type_embeddings.weight[0] + places)


class Projections(nn.Module):
    """Query, key and value of every head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))


class Output(nn.Module):
    """A projection, added to what the block was given, and normalised."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + given)


class Attention(nn.Module):
    """Attention of every token to all that ``bias`` ``[n, 1, 1, length]`` does not exclude."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.self = Projections(width)
        self.output = Output(width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.self.query, self.self.key, self.self.value)
        )
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.output(found.transpose(1, 2).flatten(2), x)


class Intermediate(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.dense(x))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.intermediate = Intermediate(width, inner)
        self.output = Output(inner, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.attention(x, bias)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    def __init__(self, layers: int, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Layer(width, heads, inner) for _ in range(layers)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, bias)
        return x


class SentenceEncoder(nn.Module):
    """Tokens and mask (1: a token, 0: padding), int64 ``[n, length]``, to vectors of length 1, float32
    ``[n, width]``: the mean over each sentence's tokens, normalised. The checkpoint's pooler has no part in
    it.
    """

    def __init__(
        self, vocabulary: int, positions: int, layers: int, width: int, heads: int, inner: int
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(vocabulary, positions, width)
        self.encoder = Encoder(layers, width, heads, inner)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        kept = attention_mask.float()
        bias = (1.0 - kept)[:, None, None, :] * torch.finfo(torch.float32).min
        hidden = self.encoder(self.embeddings(input_ids), bias) * kept[:, :, None]
        mean = hidden.sum(1) / kept.sum(1, keepdim=True).clamp(min=1e-9)
        return functional.normalize(mean, dim=1)


def all_minilm_l6_v2() -> SentenceEncoder:
    """all-MiniLM-L6-v2: 6 layers of 12 heads, 384 wide; 22.6 M parameters."""
    return SentenceEncoder(30522, 512, layers=6, width=384, heads=12, inner=1536)
