"""Small modules whose public files hold everything that the format has. Imports PyTorch alone.

``MODULES`` maps a name to a module and its inputs; both are the same wherever they are made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tensors = tuple[Tensor, ...]
Made = tuple[nn.Module, Tensors]


def n(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(100 * seed + sum(shape)))


class Calls(nn.Module):
    """``function(self, *inputs)`` with parts: modules, parameters (by tensors) and buffers (by lists)."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            elif isinstance(part, list):
                self.register_buffer(name, part[0])
            else:
                self.register_parameter(name, nn.Parameter(part, requires_grad=part.is_floating_point()))

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def made(function: Callable[..., Any], *inputs: Tensor, **parts: Any) -> Made:
    module = Calls(function, **parts).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if "." in name and tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(values.abs() + 0.3 if name.endswith("var") else values)
    return module, inputs


def tied() -> Made:
    embedding, head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
    head.weight = embedding.weight
    ids = torch.tensor([[1, 10, 3]])
    return made(lambda m, i: m.head(torch.tanh(m.embedding(i))), ids, embedding=embedding, head=head)


def in_place(m: Any, x: Tensor) -> Tensor:
    y = x * 2
    y.add_(1).mul_(0.5)
    F.relu_(y)
    z = y.clone()
    z[:, 0] = 7
    z[1:, 2:].sub_(x[1:, 2:])
    z.masked_fill_(x > 1, -2.0)
    return z.clamp_(max=5.0)


def counter(m: Any, x: Tensor) -> Tensor:
    m.count.add_(1)
    m.cache[:, 1:3] = x[:, :2]
    m.total.mul_(0.5).add_(x.sum(0))
    return m.cache.sum() + m.total + m.count


def views(m: Any, x: Tensor) -> tuple[Tensor, ...]:
    y = x + 0
    turned = y.transpose(0, 1)
    turned[1].add_(10)
    low, high = y.split([1, 2], 0)
    high.mul_(2)
    y.unsqueeze(0).select(-1, 0).fill_(5)
    flat = m.rows.view(-1)
    flat[2:4].sub_(1)
    y.permute(1, 0).narrow(0, 2, 2).copy_(x.t()[:2])
    return y, turned.relu(), low * 2, high.sum(), flat[1:], m.rows * x


def maybe_a_view(m: Any, x: Tensor) -> Tensor:
    y = x.t() + 1
    y.reshape(-1).add_(1)
    return y


def no_gradients(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = m.layer(x).relu() * 2
    return y + x


def no_gradients_several(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y, z = x.cos(), x.sin()
    return y * x + z


def autocast(m: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = m.layer(x)
    return y.float() + 1


MODULES: dict[str, Callable[[], Made]] = {
    "getitem": lambda: made(
        lambda m, x: (*x.split([2, 3], 1), *x.max(1), torch.stack(x.unbind(0)[:2]), x.chunk(2, -1)[1]),
        n(3, 5, 4),
    ),
    "tuple_of_inputs": lambda: made(lambda m, x, y: (x, y, x + y, x), n(3, 4), n(4)),
    "tied_weights": tied,
    "unused_weights": lambda: made(
        lambda m, x: x @ m.w, n(3, 4), w=n(4, 2), unused=n(5), empty=torch.empty(0), none=[torch.zeros(0, 3)]
    ),
    "constants": lambda: made(
        lambda m, x: x[:, torch.tensor([2, 0])] * torch.tensor([1.5, -2.0]) + torch.tensor(3), n(3, 4)
    ),
    "scalars": lambda: made(
        lambda m, x: (
            x + 1e-06,
            x * 2,
            1 - x,
            x / 3,
            2 / (x.abs() + 1),
            x**2,
            x - 0.25,
            x > 0.5,
            torch.add(x, 2, alpha=3),
            torch.where(x > 0, x, 0.0),
            x.clamp(-0.5),
            torch.full((2, 3), 2.5) * 2,
            x.long() // 2,
            x.long() % 3,
        ),
        n(3, 4) * 3,
    ),
    "tensor_lists": lambda: made(
        lambda m, x, i: (
            torch.cat([x, x * 2, x], -1),
            torch.stack([x, x], 1),
            x[:, i],
            x[i, :, i],
            x[:, :, i],
            torch.einsum("abc,dbc->ad", x, x),
            x.index_put((i,), x[i] * 0 + 1),
            torch.ops.aten.index_put(x, [None, i], x[:, i] * 2),
        ),
        n(3, 4, 5),
        torch.tensor([2, 0]),
    ),
    "slices": lambda: made(
        lambda m, x: (x[1:], x[:, -3:], x[..., ::2], x[:-1, 1:-1], x[:, 5:], x.narrow(-1, 1, 2)), n(4, 5, 6)
    ),
    "negative_dims": lambda: made(
        lambda m, x: (
            x.softmax(-1),
            x.transpose(-1, -2),
            x.select(-1, -1),
            x.mean(-2),
            x.unsqueeze(-1),
            x.flatten(-2),
            x.sum((-1, 0), keepdim=True),
            x.flip(-1),
            x.roll(1, -1),
            x.cumsum(-2),
            x.permute(-1, 0, 1),
        ),
        n(2, 3, 4),
    ),
    "dtypes": lambda: made(
        lambda m, x: (
            x.to(torch.float64),
            x.to(torch.int32),
            x.double() / 3,
            torch.arange(4, dtype=torch.float32) * x,
            torch.zeros_like(x, dtype=torch.int64) + 1,
            torch.ones(2, 4) - x[:2],
            torch.full((4,), 3) + x,
            x.type_as(x.long()),
            torch.zeros(3, 1, dtype=torch.bool).logical_or(x > 0),
            x.sum(dtype=torch.float64),
        ),
        n(3, 4) * 4,
    ),
    "infinities": lambda: made(
        lambda m, x: (
            x.masked_fill(x > 0, -math.inf),
            x.clamp(max=math.inf),
            torch.full((2,), math.nan),
            x.masked_fill(x < 0, math.inf).nan_to_num(nan=1.0, posinf=2.0),
            torch.where(x > 0, x, math.nan),
            x.masked_fill(x > 0, -math.inf).softmax(-1),
        ),
        n(3, 5),
    ),
    "in_place": lambda: made(in_place, n(3, 4)),
    "buffers_that_change": lambda: made(
        counter, n(3, 4), count=[torch.zeros((), dtype=torch.int64)], cache=[n(3, 6)], total=[n(4, seed=2)]
    ),
    "views_that_change": lambda: made(views, n(3, 4), rows=[n(3, 4, seed=3)]),
    "maybe_a_view": lambda: made(maybe_a_view, n(3, 4)),
    "batch_norm_without_affine": lambda: made(
        lambda m, x: m.bn(x), n(2, 3, 5), bn=nn.BatchNorm1d(3, affine=False)
    ),
    "conv_batch_norm": lambda: made(
        lambda m, x: F.relu(m.bn(m.conv(x)), inplace=True),
        n(2, 3, 6, 6),
        conv=nn.Conv2d(3, 5, 3, bias=False),
        bn=nn.BatchNorm2d(5),
    ),
    "layer_norm_of_bias_alone": lambda: made(
        lambda m, x: F.layer_norm(x, (4,), None, m.norm_bias), n(3, 4), norm_bias=n(4)
    ),
    "layer_norm_of_weight_alone": lambda: made(
        lambda m, x: m.norm(x), n(3, 4), norm=nn.LayerNorm(4, bias=False)
    ),
    "layer_norm_plain": lambda: made(lambda m, x: F.layer_norm(x, (4,)), n(3, 4)),
    "group_norm_of_bias_alone": lambda: made(
        lambda m, x: F.group_norm(x, 2, None, m.bias), n(2, 4, 3), bias=n(4)
    ),
    "instance_norm": lambda: made(
        lambda m, x: (m.a(x), m.b(x)),
        n(2, 3, 7),
        a=nn.InstanceNorm1d(3, affine=True),
        b=nn.InstanceNorm1d(3, track_running_stats=True),
    ),
    "convolutions_without_bias": lambda: made(
        lambda m, x: (m.a(x), m.b(x)),
        n(2, 4, 6, 6),
        a=nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2, bias=False),
        b=nn.ConvTranspose2d(4, 3, 2, stride=2, bias=False),
    ),
    "attention_with_mask": lambda: made(
        lambda m, q, mask: (
            F.scaled_dot_product_attention(q, q, q, attn_mask=mask),
            F.scaled_dot_product_attention(q, q, q, is_causal=True),
        ),
        n(1, 2, 3, 4),
        torch.tensor([[True, False, True], [True, True, True], [False, True, True]]),
    ),
    "clamp_by_two_tensors": lambda: made(lambda m, x, y: x.clamp(y - 1, y + 1), n(3, 4) * 3, n(4)),
    "clamp_by_one_tensor": lambda: made(lambda m, x, y: x.clamp(max=y), n(3, 4), n(4)),
    "no_gradients": lambda: made(no_gradients, n(3, 4), layer=nn.Linear(4, 4)),
    "no_gradients_several": lambda: made(no_gradients_several, n(3, 4)),
    "autocast": lambda: made(autocast, n(3, 4), layer=nn.Linear(4, 4)),
    "mixed_dtypes": lambda: made(
        lambda m, x: (x * m.scale, x + m.shift, (x @ m.w.float()) * 2, m.whole + x),
        n(3, 4),
        scale=n(4).bfloat16(),
        shift=n(4).half(),
        w=n(4, 2).bfloat16(),
        whole=[torch.arange(4)],
    ),
    "pools_and_resizing": lambda: made(
        lambda m, x: (
            F.adaptive_avg_pool2d(x, (3, 2)),
            F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
            F.avg_pool2d(x, 2),
            F.interpolate(x, scale_factor=2),
            F.interpolate(x, (5, 4), mode="bilinear"),
            F.pad(x, (1, 0, 2, 1)),
        ),
        n(1, 3, 7, 5),
    ),
    "recurrent_gates": lambda: made(
        lambda m, x, h: (g := m.cell(x) + h, torch.sigmoid(g[:, :4]) * torch.tanh(g[:, 4:]))[1],
        n(2, 3),
        n(2, 8),
        cell=nn.Linear(3, 8),
    ),
    "positions": lambda: made(
        lambda m, i: m.word(i) + m.place(torch.arange(i.shape[1])) + (i != 0).unsqueeze(-1).float(),
        torch.tensor([[3, 0, 5]]),
        word=nn.Embedding(7, 4),
        place=nn.Embedding(9, 4),
    ),
}
