"""What the closest existing system gets wrong without a word: modules, inputs, and its wrong answer.

``mistaken`` gives what the mistake would give; a test shows that it is not the right answer within the
tolerance, so that none of the cases could pass with the mistake in place.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Mistake:
    """A module and inputs for it; ``mistaken(module, *inputs)`` is the wrong answer to its first output."""

    module: nn.Module
    inputs: Tensors
    mistaken: Callable[..., Any]


class Calls(nn.Module):
    """``function(module, *inputs)``, with the given parts registered."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def call(
    function: Callable[..., Any], inputs: Tensors, mistaken: Callable[..., Any], **parts: Any
) -> Mistake:
    return Mistake(random_numbers(Calls(function, **parts)).eval(), inputs, mistaken)


def n(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1000 * seed + sum(shape)))


def random_numbers(module: nn.Module) -> nn.Module:
    """The module with parameters and statistics that vary, none of them trivial."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 3 + 0.2)
            elif tensor.is_floating_point() and "." in name:
                scale = 1 / math.sqrt(max(1, tensor[0].numel())) if tensor.dim() > 1 else 1.0
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
    return module


def _shift_lost(m: Any, x: Tensor) -> Tensor:
    scale = m.bn.weight / (m.bn.running_var + m.bn.eps).sqrt()
    return m.conv(x) * scale[:, None, None]


FOLDS = {
    "conv_without_bias_then_batch_norm": call(
        lambda m, x: m.bn(m.conv(x)), (n(2, 3, 9, 9),), _shift_lost,
        conv=nn.Conv2d(3, 8, 3, bias=False), bn=nn.BatchNorm2d(8, eps=1e-3),
    ),
    "conv_without_bias_then_batch_norm_then_relu": call(
        lambda m, x: F.relu(m.bn(m.conv(x))), (n(3, 5, 7, 7),), lambda m, x: F.relu(_shift_lost(m, x)),
        conv=nn.Conv2d(5, 11, 1, bias=False), bn=nn.BatchNorm2d(11),
    ),
    "depthwise_conv_without_bias_then_batch_norm": call(
        lambda m, x: m.bn(m.conv(x)), (n(2, 6, 8, 8),), _shift_lost,
        conv=nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), bn=nn.BatchNorm2d(6),
    ),
    "conv_with_bias_then_batch_norm": call(
        lambda m, x: m.bn(m.conv(x)), (n(2, 3, 7, 7),), _shift_lost,
        conv=nn.Conv2d(3, 13, 3), bn=nn.BatchNorm2d(13),
    ),
}  # fmt: skip


def _windows_of_one_size(_: Any, x: Tensor) -> Tensor:
    """5 x 3 windows of 10 // 4 by 7 // 3, all of one size."""
    return F.avg_pool2d(x, (10 // 4, 7 // 3), (10 // 4, 7 // 3))[:, :, :4, :3]


def _first_group(m: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, m.conv.weight[:2].repeat(3, 1, 1, 1), m.conv.bias, padding=1, groups=3)


KERNELS = {
    "division_by_a_scalar": call(lambda m, x: x / 3.0, (n(3, 7),), lambda m, x: x * 3.0),
    "division_of_a_scalar": call(lambda m, x: 3.0 / x, (n(3, 7).abs() + 0.5,), lambda m, x: x / 3.0),
    "add_with_alpha": call(
        lambda m, x, y: torch.add(x, y, alpha=-2.5), (n(3, 7), n(7)), lambda m, x, y: x + y
    ),
    "sub_with_alpha": call(lambda m, x, y: torch.sub(x, y, alpha=3), (n(3, 7), n(7)), lambda m, x, y: x - y),
    "add_of_a_scalar_with_alpha": call(lambda m, x: torch.add(x, 2, alpha=3), (n(5),), lambda m, x: x + 2),
    "softmax_over_the_middle": call(lambda m, x: x.softmax(1), (n(2, 5, 3),), lambda m, x: x.softmax(-1)),
    "softmax_over_the_first": call(lambda m, x: x.softmax(0), (n(7, 5),), lambda m, x: x.softmax(-1)),
    "log_softmax_over_channels": call(
        lambda m, x: F.log_softmax(x, -3), (n(2, 3, 4, 5),), lambda m, x: F.log_softmax(x, -1)
    ),
    "cat_of_four": call(
        lambda m, x, y, z: torch.cat([x, y, z, x], 1),
        (n(2, 3, 5), n(2, 1, 5), n(2, 4, 5)),
        lambda m, x, y, z: torch.cat([x, y, z * 0, x * 0], 1),
    ),
    "cat_of_three_images": call(
        lambda m, x, y: torch.cat([F.relu(m.conv(x)), y, x], 1), (n(2, 3, 6, 6), n(2, 5, 6, 6)),
        lambda m, x, y: torch.cat([F.relu(m.conv(x)), y, x * 0], 1), conv=nn.Conv2d(3, 13, 3, padding=1),
    ),
    "conv_with_dilation": call(
        lambda m, x: m.conv(x), (n(2, 3, 11, 11),),
        lambda m, x: F.conv2d(x, m.conv.weight, m.conv.bias, padding=1),
        conv=nn.Conv2d(3, 5, 3, padding=2, dilation=2),
    ),
    "conv_with_groups": call(
        lambda m, x: m.conv(x), (n(2, 9, 5, 5),), _first_group, conv=nn.Conv2d(9, 6, 3, padding=1, groups=3)
    ),
    "conv_with_groups_dilation_and_uneven_strides": call(
        lambda m, x: m.conv(x), (n(1, 4, 12, 13),),
        lambda m, x: F.conv2d(x, m.conv.weight, m.conv.bias, (2, 1), (1, 1), (1, 1), 2)[:, :, :, :13],
        conv=nn.Conv2d(4, 6, 3, stride=(2, 1), padding=(2, 3), dilation=(2, 3), groups=2),
    ),
    "matmul_that_broadcasts_batches": call(
        lambda m, x, y: x @ y, (n(2, 1, 3, 4), n(5, 4, 6)), lambda m, x, y: (x @ y[:1]).expand(2, 5, 3, 6)
    ),
    "matmul_of_a_batch_and_a_matrix": call(
        lambda m, x, y: x @ y, (n(4, 6), n(3, 6, 5)), lambda m, x, y: (x @ y[:1]).expand(3, 4, 5)
    ),
    "adaptive_average_pooling": call(
        lambda m, x: F.adaptive_avg_pool2d(x, (4, 3)), (n(2, 3, 10, 7),), _windows_of_one_size
    ),
    "adaptive_average_pooling_to_more": call(
        lambda m, x: F.adaptive_avg_pool2d(x, (5, 7)), (n(1, 9, 3, 4),),
        lambda m, x: F.interpolate(x, (5, 7), mode="nearest"),
    ),
    "adaptive_average_pooling_1d": call(
        lambda m, x: F.adaptive_avg_pool1d(x, 4), (n(2, 3, 10),), lambda m, x: F.avg_pool1d(x, 2, 2)[..., :4]
    ),
    "mean_over_the_first": call(lambda m, x: x.mean(0), (n(5, 5, 5),), lambda m, x: x.mean(-1)),
    "mean_over_outer_dims": call(lambda m, x: x.mean((0, 2)), (n(4, 4, 4),), lambda m, x: x.mean((1, 2))),
    "mean_over_channels": call(
        lambda m, x: x.mean(1, keepdim=True), (n(2, 5, 3, 3),),
        lambda m, x: x.mean((2, 3), keepdim=True).mean(1, keepdim=True).expand(2, 1, 3, 3),
    ),
    "mean_over_all": call(lambda m, x: x.mean(), (n(3, 7),), lambda m, x: x.mean(-1)[0]),
    "batch_norm_alone": call(
        lambda m, x: m.bn(x), (n(3, 5, 4, 4),), lambda m, x: F.batch_norm(x, None, None, training=True),
        bn=nn.BatchNorm2d(5),
    ),
    "batch_norm_alone_of_rows": call(
        lambda m, x: m.bn(x), (n(4, 7),), lambda m, x: F.batch_norm(x, None, None, training=True),
        bn=nn.BatchNorm1d(7),
    ),
    "batch_norm_after_relu_without_affine": call(
        lambda m, x: m.bn(F.relu(x)), (n(2, 3, 6, 5),), lambda m, x: F.relu(x),
        bn=nn.BatchNorm2d(3, affine=False),
    ),
}  # fmt: skip


def _as_the_first(x: Tensor) -> Tensor:
    return x[:1].expand_as(x)


PADDED = {
    "batch_through_padded_channels": call(
        lambda m, x: m.b(F.relu(m.a(x))), (n(3, 3, 9, 9),), lambda m, x: _as_the_first(m.b(F.relu(m.a(x)))),
        a=nn.Conv2d(3, 5, 3, padding=1), b=nn.Conv2d(5, 11, 3, stride=2),
    ),
    "batch_through_padded_channels_to_a_linear_layer": call(
        lambda m, x: m.b(F.max_pool2d(m.a(x), 2).flatten(1)), (n(3, 3, 8, 8),),
        lambda m, x: _as_the_first(m.b(F.max_pool2d(m.a(x), 2).flatten(1))),
        a=nn.Conv2d(3, 13, 1), b=nn.Linear(13 * 16, 7),
    ),
    "padded_channels_in_a_sum": call(
        lambda m, x: m.a(x).sigmoid().sum(1), (n(2, 3, 6, 6),),
        lambda m, x: m.a(x).sigmoid().sum(1) + 3 * 0.5,
        a=nn.Conv2d(3, 5, 3, padding=1),
    ),
    "padded_channels_in_a_maximum": call(
        lambda m, x: (m.a(x) - 9).amax((1, 2, 3)), (n(2, 3, 6, 6),), lambda m, x: torch.zeros(2),
        a=nn.Conv2d(3, 5, 3, padding=1),
    ),
    "padded_channels_in_a_softmax": call(
        lambda m, x: m.a(x).softmax(1), (n(2, 3, 6, 6),),
        lambda m, x: F.pad(m.a(x), (0, 0, 0, 0, 0, 3)).softmax(1)[:, :5], a=nn.Conv2d(3, 5, 3, padding=1),
    ),
    "padded_channels_in_a_layer_norm": call(
        lambda m, x: F.layer_norm(m.a(x), (5, 6, 6)), (n(2, 3, 6, 6),),
        lambda m, x: F.layer_norm(F.pad(m.a(x), (0, 0, 0, 0, 0, 3)), (8, 6, 6))[:, :5],
        a=nn.Conv2d(3, 5, 3, padding=1),
    ),
    "padded_channels_in_a_cat": call(
        lambda m, x: m.b(torch.cat([m.a(x), x], 1)), (n(2, 3, 6, 6),),
        lambda m, x: m.b(F.pad(torch.cat([m.a(x), x], 1), (0, 0, 0, 0, 3, 0))[:, :8]),
        a=nn.Conv2d(3, 5, 3, padding=1), b=nn.Conv2d(8, 3, 1),
    ),
}  # fmt: skip


class TwoFolds(nn.Module):
    """One weight with two batch norms, and as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.first, self.second = nn.BatchNorm2d(6), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensors:
        return self.second(self.conv(x)), self.first(self.conv(x)), self.conv(x)

    def twice(self, x: Tensor) -> Tensor:
        scale = self.first.weight / (self.first.running_var + self.first.eps).sqrt()
        return self.second(self.conv(x) * scale[:, None, None])


class TiedLinears(nn.Module):
    """A weight that a scale is folded into on one of its two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(7, 7, bias=False), nn.Linear(7, 7, bias=False)
        self.b.weight = self.a.weight
        self.register_buffer("scale", torch.linspace(0.5, 2.0, 7))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x) * self.scale))


OUTPUTS = {
    "intermediate_that_is_an_output": call(
        lambda m, x: (m.a(x), F.relu(m.a(x)) * 2), (n(2, 3, 5, 5),), lambda m, x: F.relu(m.a(x)),
        a=nn.Conv2d(3, 5, 3),
    ),
    "every_step_is_an_output": call(
        lambda m, x: (y := m.a(x), z := m.bn(y), F.relu(z)), (n(2, 3, 5, 5),), lambda m, x: m.bn(m.a(x)),
        a=nn.Conv2d(3, 5, 3), bn=nn.BatchNorm2d(5),
    ),
    "intermediate_of_a_chain_is_an_output": call(
        lambda m, x: (y := torch.tanh(x) * 2, (y + 1).sigmoid()), (n(3, 7),), lambda m, x: x * 0
    ),
    "residual_that_is_an_output": call(
        lambda m, x: (y := m.a(x), m.b(y) + y), (n(4, 6),), lambda m, x: x * 0,
        a=nn.Linear(6, 6), b=nn.Linear(6, 6),
    ),
    "output_that_is_an_input": call(lambda m, x, y: (x, x + y), (n(3, 5), n(5)), lambda m, x, y: x * 0),
    "output_that_is_an_input_twice": call(lambda m, x: (x, x), (n(3, 5),), lambda m, x: x * 0),
    "output_that_is_a_view_of_an_input": call(
        lambda m, x: (x.transpose(0, 1), x[1:, ::2]), (n(3, 5),), lambda m, x: x.T * 0
    ),
    "output_that_is_a_whole_number_input": call(
        lambda m, x: (x, x + 1), (torch.arange(7),), lambda m, x: x * 0
    ),
    "output_that_is_a_weight": call(
        lambda m, x: (m.a.weight, m.a(x)), (n(3, 5),), lambda m, x: m.a.weight * 0, a=nn.Linear(5, 4)
    ),
    "weight_shared_by_two_folds": Mistake(
        random_numbers(TwoFolds()).eval(), (n(2, 3, 6, 6),), lambda m, x: m.twice(x)
    ),
    "weight_shared_by_a_fold_and_a_plain_use": Mistake(
        random_numbers(TiedLinears()).eval(), (n(3, 7),), lambda m, x: torch.tanh(m.a(x) * m.scale) @ (
            m.a.weight * m.scale[:, None]).T
    ),
}  # fmt: skip

#: Token ids that float16 cannot hold: whole numbers above 2048 lose their last bits.
IDS = torch.tensor([[2049, 4097, 4999], [0, 2051, 3333]])


def _rounded(ids: Tensor) -> Tensor:
    return ids.half().long().clamp(max=4999)


DTYPES = {
    "to_int32": call(lambda m, x: x.to(torch.int32), (n(3, 7) * 9,), lambda m, x: x),
    "to_int8_and_back": call(lambda m, x: x.to(torch.int8).to(torch.float32) / 2, (n(3, 7) * 9,),
                             lambda m, x: x / 2),
    "to_bool": call(lambda m, x: x.to(torch.bool).to(torch.float32), (F.relu(n(3, 7)),), lambda m, x: x),
    "to_float64": call(lambda m, x: x.to(torch.float64) / 3, (n(3, 7),), lambda m, x: x / 3),
    "whole_numbers_to_float": call(lambda m, x: x.float() / 2, (torch.arange(9),), lambda m, x: x // 2),
    "to_like_another": call(lambda m, x, y: x.to(y) * 2, (n(9) * 9, torch.arange(9)), lambda m, x, y: x * 2),
    "large_whole_numbers_stay": call(
        lambda m, x: x * 3 + 1, (torch.tensor([2**24 + 1, 2**31 + 5, -(2**40) - 3]),),
        lambda m, x: (x.float() * 3 + 1).long(),
    ),
    "token_ids_above_2048": call(
        lambda m, ids: m.embedding(ids), (IDS,), lambda m, ids: m.embedding(_rounded(ids)),
        embedding=nn.Embedding(5000, 6),
    ),
    "token_ids_computed": call(
        lambda m, ids: m.embedding((ids + 1) % 5000), (IDS,),
        lambda m, ids: m.embedding((_rounded(ids) + 1) % 5000),
        embedding=nn.Embedding(5000, 6),
    ),
}  # fmt: skip


class Rotary(nn.Module):
    """Rotary positions as language models write them: in a region without gradients, in float32."""

    def __init__(self, base: float, width: int = 16) -> None:
        super().__init__()
        frequencies = 1.0 / base ** (torch.arange(0, width, 2, dtype=torch.int64).float() / width)
        self.register_buffer("inv_freq", frequencies, persistent=False)

    @torch.no_grad()
    def angles(self, positions: Tensor) -> Tensors:
        inner = self.inv_freq[None, :, None].float().expand(positions.shape[0], -1, 1)
        angle = (inner @ positions[:, None, :].float()).transpose(1, 2)
        both = torch.cat([angle, angle], -1)
        return both.cos(), both.sin()

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        cos, sin = self.angles(positions)
        half = x.shape[-1] // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def rounded_frequencies(module: Any, *inputs: Tensor) -> Any:
    copied = copy.deepcopy(module)
    copied.inv_freq = module.inv_freq.bfloat16().float()
    return copied(*inputs)


POSITIONS = torch.tensor([[0, 1, 17, 1024, 4095]])


def _without_gradients(m: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = torch.cumsum(x * 2 - 1, 1)
        z = y.amax(0, keepdim=True)
    return torch.tanh(y - z * 0.5) + m.a(x)


REGIONS = {
    "rotary_base_of_a_million": Mistake(
        Rotary(1e6), (n(1, 5, 16), POSITIONS), lambda m, *inputs: Rotary(1e4)(*inputs)
    ),
    "rotary_base_of_ten_thousand": Mistake(
        Rotary(1e4), (n(1, 5, 16), POSITIONS), lambda m, *inputs: Rotary(1e6)(*inputs)
    ),
    "rotary_frequencies_in_float32": Mistake(Rotary(1e6), (n(1, 5, 16), POSITIONS), rounded_frequencies),
    "region_without_gradients_that_is_not_rotary": call(
        _without_gradients, (n(3, 6),), lambda m, x: m.a(x), a=nn.Linear(6, 6)
    ),
}


def _first_2048(_: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k[..., :2048, :], v[..., :2048, :])


#: A row that sees nothing, one that sees all, one that sees some.
MASK = torch.tensor([[False] * 5, [True] * 5, [True, False, True, False, False]])


def _mask_of_numbers(_: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    added = torch.zeros(mask.shape).masked_fill(mask.logical_not(), -math.inf)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=added)


ATTENTION = {
    "attention_over_more_than_2048": call(
        lambda m, q, k, v: F.scaled_dot_product_attention(q, k, v),
        (n(1, 2, 3, 8) * 3, n(1, 2, 2500, 8, seed=1), n(1, 2, 2500, 8, seed=2)), _first_2048,
    ),
    "attention_rows_that_see_nothing": call(
        lambda m, q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
        (n(1, 2, 3, 8), n(1, 2, 5, 8, seed=1), n(1, 2, 5, 8, seed=2), MASK),
        lambda m, q, k, v, mask: ((q @ k.mT / 8**0.5).masked_fill(~mask, -math.inf)).softmax(-1) @ v,
    ),
    "attention_rows_that_see_nothing_by_infinities": call(
        _mask_of_numbers, (n(1, 2, 3, 8), n(1, 2, 5, 8, seed=1), n(1, 2, 5, 8, seed=2), MASK),
        lambda m, q, k, v, mask: ((q @ k.mT / 8**0.5).masked_fill(~mask, -math.inf)).softmax(-1) @ v,
    ),
}  # fmt: skip

MISTAKES = {**FOLDS, **KERNELS, **PADDED, **OUTPUTS, **DTYPES, **REGIONS, **ATTENTION}
