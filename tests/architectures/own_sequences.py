"""Recurrent networks, mixers, graphs, point clouds and other architectures without a library, small."""

from __future__ import annotations

import math

import torch
from architecture import Architecture, Inputs, Sizes
from model_inputs import features, images, padding_mask, together, tokens
from torch import Tensor, nn
from torch.nn import functional


class Recurrent(nn.Module):
    """An LSTM or GRU over embedded tokens, both ways, and a head on its last state."""

    def __init__(self, kind: type[nn.RNNBase], both: bool = True, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 12, padding_idx=0)
        self.body = kind(12, 16, layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(32 if both else 16, 5)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.body(self.embed(input_ids))
        return self.head(y[:, -1]), y


class CellLoop(nn.Module):
    """LSTM and GRU cells stepped by a Python loop."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTMCell(6, 8), nn.GRUCell(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 8)
        c, g = torch.zeros_like(h), torch.zeros_like(h)
        found = []
        for step in x.unbind(1):
            h, c = self.first(step, (h, c))
            g = self.second(h, g)
            found.append(g)
        return torch.stack(found, dim=1)


class Mixer(nn.Module):
    def __init__(self, patches: int = 12, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 8, 8)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.tokens = nn.Sequential(nn.Linear(patches, 24), nn.GELU(), nn.Linear(24, patches))
        self.channels = nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width))
        self.head = nn.Linear(width, 7)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x).flatten(2).transpose(1, 2)
        y = y + self.tokens(self.norms[0](y).transpose(1, 2)).transpose(1, 2)
        y = y + self.channels(self.norms[1](y))
        return self.head(y.mean(dim=1))


class Conformer(nn.Module):
    """Half feed-forward, attention, gated depthwise convolution, half feed-forward."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.feed = nn.ModuleList(
            [
                nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 32), nn.SiLU(), nn.Linear(32, width))
                for _ in range(2)
            ]
        )
        self.attention_norm, self.attention = (
            nn.LayerNorm(width),
            nn.MultiheadAttention(width, 4, batch_first=True),
        )
        self.conv_norm = nn.LayerNorm(width)
        self.conv = nn.Sequential(
            nn.Conv1d(width, 2 * width, 1),
            nn.GLU(1),
            nn.Conv1d(width, width, 5, padding=2, groups=width),
            nn.BatchNorm1d(width),
            nn.SiLU(),
            nn.Conv1d(width, width, 1),
        )
        self.last = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + 0.5 * self.feed[0](x)
        y = self.attention_norm(x)
        x = x + self.attention(y, y, y, key_padding_mask=mask == 0, need_weights=False)[0]
        x = x + self.conv(self.conv_norm(x).transpose(1, 2)).transpose(1, 2)
        return self.last(x + 0.5 * self.feed[1](x))


class Chomp(nn.Module):
    """One level of a temporal convolutional network: causal by cutting what sees the future."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.cut = 2 * dilation
        self.conv = nn.utils.parametrizations.weight_norm(
            nn.Conv1d(inputs, outputs, 3, padding=self.cut, dilation=dilation)
        )
        self.shortcut = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.conv(x)[:, :, : -self.cut].contiguous())
        return functional.relu(y + self.shortcut(x))


class WaveNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 8, 1)
        self.gates = nn.ModuleList([nn.Conv1d(8, 16, 2, dilation=2**i) for i in range(3)])
        self.skips = nn.ModuleList([nn.Conv1d(8, 8, 1) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        total = torch.zeros(())
        for index, (gate, skip) in enumerate(zip(self.gates, self.skips, strict=True)):
            a, b = gate(functional.pad(x, (2**index, 0))).chunk(2, 1)
            y = skip(torch.tanh(a) * torch.sigmoid(b))
            x, total = x + y, total + y
        return functional.relu(total)


class PointNet(nn.Module):
    """A learned transform of the points, shared layers, and a maximum over all points."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.matrix = nn.Linear(16, 9)
        self.layers = nn.Sequential(nn.Conv1d(3, 24, 1), nn.BatchNorm1d(24), nn.ReLU())
        self.head = nn.Linear(24, 6)

    def forward(self, points: Tensor) -> Tensor:
        found = torch.max(self.transform(points), 2, keepdim=True)[0].view(-1, 16)
        matrix = self.matrix(found).view(-1, 3, 3) + torch.eye(3).view(1, 3, 3).repeat(points.shape[0], 1, 1)
        moved = torch.bmm(points.transpose(2, 1), matrix).transpose(2, 1)
        return functional.log_softmax(self.head(self.layers(moved).max(2).values), dim=1)


class GraphNet(nn.Module):
    """Graph convolution by a normalised adjacency matrix, and attention along its edges."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8)
        self.source, self.target = nn.Parameter(torch.zeros(8, 1)), nn.Parameter(torch.zeros(8, 1))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        linked = edges + torch.eye(edges.shape[-1])
        degree = linked.sum(-1).pow(-0.5)
        degree = torch.where(torch.isinf(degree), torch.zeros_like(degree), degree)
        y = torch.relu(degree[:, None] * linked @ (degree[:, None] * self.first(x)))
        z = self.second(y)
        scores = functional.leaky_relu(z @ self.source + (z @ self.target).T, 0.2)
        return torch.softmax(scores.masked_fill(linked == 0, float("-inf")), dim=1) @ z


class Transformer(nn.Module):
    """PyTorch's own encoder and decoder layers, with padding and causal masks."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(99, width)
        self.register_buffer("positions", self._table(32, width), persistent=False)
        self.body = nn.Transformer(width, 4, 1, 1, 24, batch_first=True, norm_first=True, activation="gelu")

    @staticmethod
    def _table(length: int, width: int) -> Tensor:
        angle = torch.arange(length)[:, None] * torch.exp(
            torch.arange(0, width, 2) * (-math.log(1e4) / width)
        )
        return torch.stack((angle.sin(), angle.cos()), -1).flatten(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids) * math.sqrt(16) + self.positions[: input_ids.shape[1]]
        hidden = attention_mask == 0
        causal = nn.Transformer.generate_square_subsequent_mask(input_ids.shape[1])
        return self.body(
            x,
            x.flip(1),
            tgt_mask=causal,
            tgt_is_causal=True,
            src_is_causal=False,
            memory_is_causal=False,
            src_key_padding_mask=hidden,
            memory_key_padding_mask=hidden,
        )


class Experts(nn.Module):
    """A mixture of experts that computes all and weighs the best two."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4, bias=False)
        self.up, self.down = nn.Parameter(torch.zeros(4, 8, 12)), nn.Parameter(torch.zeros(4, 12, 8))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = torch.topk(torch.softmax(self.router(x), -1), 2, dim=-1)
        gates = torch.zeros(*x.shape[:-1], 4).scatter(-1, chosen, weights / weights.sum(-1, keepdim=True))
        each = torch.einsum("bsd,edf->bsef", x, self.up)
        return torch.einsum("bsef,efd,bse->bsd", functional.gelu(each), self.down, gates)


class Recommender(nn.Module):
    """Embeddings of categories, crossed with each other and joined to numbers (DLRM)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(n, 8) for n in (11, 5, 23)])
        self.tags = nn.Embedding(17, 8)
        self.bottom, self.top = nn.Linear(5, 8), nn.Linear(18, 1)

    def forward(self, x: Tensor, categories: Tensor, tags: Tensor) -> Tensor:
        rows = [table(categories[:, i]) for i, table in enumerate(self.tables)]
        rows += [self.tags(tags).mean(1), torch.relu(self.bottom(x))]
        stacked = torch.stack(rows, 1)
        crossed = torch.bmm(stacked, stacked.transpose(1, 2)) / 8
        i, j = torch.tril_indices(5, 5, offset=-1)
        return torch.sigmoid(self.top(torch.cat([rows[-1], crossed[:, i, j]], dim=1))).squeeze(-1)


def recommender_inputs(generator: torch.Generator, sizes: Sizes) -> Inputs:
    return {
        "x": torch.randn(3, 5, generator=generator),
        "categories": torch.randint(0, 5, (3, 3), generator=generator),
        "tags": torch.randint(0, 17, (3, 4), generator=generator),
    }


class Matcher(nn.Module):
    """Features of two images against each other (CLIP, SuperGlue): cosines and the best match each way."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(10, 8)
        self.temperature = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        x, y = (functional.normalize(self.project(z), dim=-1) for z in (x, y))
        scores = self.temperature.exp() * x @ y.mT
        best = scores.argmax(-1)
        mutual = scores.argmax(-2).gather(1, best) == torch.arange(best.shape[1])
        return {"scores": scores.softmax(-1) * scores.softmax(-2), "best": best, "mutual": mutual}


class Diffusion(nn.Module):
    """A denoiser's step: sinusoidal time embedding, scale and shift, cross attention to a text."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 32))
        self.conv, self.norm = nn.Conv2d(4, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.attention = nn.MultiheadAttention(16, 2, kdim=10, vdim=10, batch_first=True)
        self.down, self.out = nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x: Tensor, step: Tensor, text: Tensor) -> Tensor:
        frequency = torch.exp(-math.log(10000) * torch.arange(8, dtype=torch.float32) / 8)
        angle = step[:, None].float() * frequency[None]
        time = self.time(torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1))
        scale, shift = time[:, :, None, None].chunk(2, dim=1)
        y = self.down(functional.silu(self.norm(self.conv(x)) * (1 + scale) + shift))
        n, c, h, w = y.shape
        flat = y.view(n, c, -1).permute(0, 2, 1)
        flat = flat + self.attention(flat, text, text)[0]
        y = functional.interpolate(
            flat.permute(0, 2, 1).reshape(n, c, h, w), scale_factor=2.0, mode="nearest"
        )
        return self.out(y)


BATCH = {0: ("batch", 1, 4)}

SEQUENCES = (
    Architecture("lstm", lambda: Recurrent(nn.LSTM), tokens(50, 2, 9, mask="")),
    Architecture("gru", lambda: Recurrent(nn.GRU), tokens(50, 2, 9, mask="")),
    Architecture("rnn", lambda: Recurrent(nn.RNN, both=False), tokens(50, 2, 9, mask="")),
    Architecture("lstm_one_way", lambda: Recurrent(nn.LSTM, both=False, layers=1), tokens(50, 3, 5, mask="")),
    Architecture("cells", CellLoop, features(2, 5, 6)),
    Architecture("mlp_mixer", Mixer, images(32, 24, name="x")),
    Architecture(
        "conformer",
        Conformer,
        lambda generator, sizes: {
            "x": torch.randn(2, 11, 16, generator=generator),
            "mask": padding_mask(2, 11),
        },
    ),
    Architecture(
        "tcn",
        lambda: nn.Sequential(Chomp(3, 8, 1), Chomp(8, 8, 2), Chomp(8, 8, 4)),
        features(2, 3, 23, name="input"),
    ),
    Architecture(
        "tcn_any_length",
        lambda: nn.Sequential(Chomp(3, 8, 1), Chomp(8, 8, 2)),
        features("batch", 3, "length", name="input"),
        {"input": {0: ("batch", 1, 4), 2: ("length", 2, 40)}},
        ({"batch": 2, "length": 23}, {"batch": 1, "length": 2}, {"batch": 3, "length": 40}),
    ),
    Architecture("wavenet", WaveNet, features(2, 1, 37)),
    Architecture("pointnet", PointNet, features(2, 3, 29, name="points")),
    Architecture(
        "graph_network",
        GraphNet,
        lambda generator, sizes: {
            "x": torch.randn(9, 6, generator=generator),
            "edges": (torch.rand(9, 9, generator=generator) < 0.3).float(),
        },
    ),
    Architecture("torch_transformer", Transformer, tokens()),
    Architecture("experts", Experts, features(2, 5, 8)),
    Architecture("recommender", Recommender, recommender_inputs),
    Architecture("matcher", Matcher, together(features(2, 7, 10), features(2, 11, 10, name="y"))),
    Architecture(
        "diffusion_step",
        Diffusion,
        lambda generator, sizes: {
            "x": torch.randn(2, 4, 10, 14, generator=generator),
            "step": torch.tensor([3, 771]),
            "text": torch.randn(2, 5, 10, generator=generator),
        },
    ),
)
