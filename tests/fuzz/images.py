"""Steps over images and signals: convolutions, pools, norms of channels, resizing."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from random_graphs import Function, Maker, Rejected
from torch import Tensor


def _conv(m: Maker, x: Tensor) -> Function:
    channels = x.shape[1]
    groups = m.choice([g for g in (1, 1, 2, channels) if channels % g == 0])
    out = groups * m.choice([1, 2, 5, 8]) if groups > 1 else m.choice([1, 5, 8, 13, 16, 24])
    rank = x.dim() - 2
    size = tuple(m.choice([1, 2, 3, 3, 5]) for _ in range(rank))
    stride, padding, dilation = (
        tuple(m.choice(options) for _ in range(rank)) for options in ((1, 1, 2), (0, 1, 2), (1, 1, 2))
    )
    w, b = m.weight(out, channels // groups, *size), m.weight(out)
    bias = m.chance(0.5)
    function = F.conv2d if rank == 2 else F.conv1d
    return lambda s, t: function(
        t, getattr(s, w), getattr(s, b) if bias else None, stride, padding, dilation, groups
    )


def _conv_transposed(m: Maker, x: Tensor) -> Function:
    out, size, stride = m.choice([1, 3, 8]), m.choice([1, 2, 3]), m.choice([1, 2])
    w, b = m.weight(x.shape[1], out, *[size] * (x.dim() - 2)), m.weight(out)
    padding = m.rng.randint(0, size - 1)
    function = F.conv_transpose2d if x.dim() == 4 else F.conv_transpose1d
    return lambda s, t: function(t, getattr(s, w), getattr(s, b), stride, padding) * 0.5


def _conv_residual(m: Maker, x: Tensor) -> Function:
    w = m.weight(x.shape[1], x.shape[1], 3, 3)
    act = m.choice([F.relu, torch.tanh, F.silu, F.hardswish])
    return lambda s, t: act(F.conv2d(t, getattr(s, w), padding=1) + t)


def _batch_norm(m: Maker, x: Tensor) -> Function:
    names = [m.weight(x.shape[1], positive=i == 1) for i in range(4)]
    kind = m.choice(["batch", "batch", "instance", "group", "plain"])
    if kind == "instance":
        return lambda s, t: F.instance_norm(
            t, weight=getattr(s, names[2]), bias=getattr(s, names[3]), eps=0.1
        )
    if kind == "group":
        groups = m.choice([g for g in (1, 2, x.shape[1]) if x.shape[1] % g == 0])
        return lambda s, t: F.group_norm(t, groups, getattr(s, names[2]), getattr(s, names[3]), 0.1)
    if kind == "plain":
        return lambda s, t: F.batch_norm(t, getattr(s, names[0]), getattr(s, names[1]))
    return lambda s, t: F.batch_norm(t, *(getattr(s, name) for name in names), False, 0.1, 1e-3)


def _conv_norm(m: Maker, x: Tensor) -> Function:
    """What folds: a convolution without bias, a batch norm, an activation."""
    out = m.choice([3, 8, 17])
    w = m.weight(out, x.shape[1], 3, 3)
    names = [m.weight(out, positive=i == 1) for i in range(4)]
    act = m.choice([F.relu, F.silu, F.hardswish, torch.sigmoid, lambda t: t])
    return lambda s, t: act(
        F.batch_norm(F.conv2d(t, getattr(s, w), None, 1, 1), *(getattr(s, name) for name in names))
    )


def _pool(m: Maker, x: Tensor) -> Function:
    size, stride, ceil = m.choice([2, 3]), m.choice([1, 2]), m.chance(0.3)
    padding = size // 2 if size == 3 else 0
    if x.dim() == 3:
        kind = m.choice([F.max_pool1d, F.avg_pool1d])
        return lambda _, t: kind(t, size, stride, padding, ceil_mode=ceil)
    if m.chance(0.3):
        count = m.chance(0.5)
        return lambda _, t: F.avg_pool2d(t, (size, 2), stride, (padding, 0), ceil, count)
    if m.chance(0.3):
        return lambda _, t: F.max_pool2d(t, 2, 1, 0, 2)
    kind = m.choice([F.max_pool2d, F.avg_pool2d])
    return lambda _, t: kind(t, size, stride, padding, ceil_mode=ceil)


def _adaptive(m: Maker, x: Tensor) -> Function:
    out: Any = m.choice([1, (2, 3), 3])
    return lambda _, t: F.adaptive_avg_pool2d(t, out)


def _resize(m: Maker, x: Tensor) -> Function:
    mode = m.choice(["nearest", "bilinear"])
    size = (m.rng.randint(1, 10), m.rng.randint(1, 10))
    corners = m.chance(0.5) if mode == "bilinear" else None
    if m.chance(0.5):
        return lambda _, t: F.interpolate(t, scale_factor=2, mode=mode, align_corners=corners)
    return lambda _, t: F.interpolate(t, size, mode=mode, align_corners=corners)


def _shuffle(m: Maker, x: Tensor) -> Function:
    if m.chance(0.5) and x.shape[1] % 4 == 0:
        return lambda _, t: F.pixel_shuffle(t, 2)
    if x.shape[2] % 2 or x.shape[3] % 2:
        raise Rejected
    return lambda _, t: F.pixel_unshuffle(t, 2)


def _pad(m: Maker, x: Tensor) -> Function:
    mode = m.choice(["reflect", "replicate", "circular"])
    widths = [m.rng.randint(0, min(2, size - 1)) for size in reversed(x.shape[2:]) for _ in range(2)]
    return lambda _, t: F.pad(t, widths, mode=mode)


#: How each is made, the ranks that it takes, and how often it is drawn.
IMAGES = (
    (_conv, (3, 4), 7),
    (_conv_transposed, (3, 4), 1),
    (_conv_residual, (4,), 3),
    (_conv_norm, (4,), 3),
    (_batch_norm, (3, 4), 3),
    (_pool, (3, 4), 3),
    (_adaptive, (4,), 1),
    (_resize, (4,), 1),
    (_shuffle, (4,), 0.7),
    (_pad, (3, 4), 0.7),
)
