"""EfficientNet-Lite0 with the state_dict keys of the published PyTorch checkpoint."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as functional
from torch import Tensor, nn

from pipelines.zoo.randomize import randomize

__all__ = ["EfficientNetLite", "efficientnet_lite0", "randomize"]


class Stage(NamedTuple):
    """``repeats`` inverted residual blocks of one kernel size; the first one has the stride."""

    expand: int
    kernel: int
    stride: int
    channels: int
    repeats: int


LITE0 = (Stage(1, 3, 1, 16, 1), Stage(6, 3, 2, 24, 2), Stage(6, 5, 2, 40, 2), Stage(6, 3, 2, 80, 3),
         Stage(6, 5, 1, 112, 3), Stage(6, 5, 2, 192, 4), Stage(6, 3, 1, 320, 1))


class SameConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "SAME".

    How much padding is needed follows from the input's size; of an odd total, the extra row and column lie
    at the bottom and the right (at stride 2 often the only ones).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = self._padding(x.shape[-2], 0)
        left, right = self._padding(x.shape[-1], 1)
        if (top, left) == (bottom, right):
            return functional.conv2d(x, self.weight, None, self.stride, (top, left), 1, self.groups)
        return super().forward(functional.pad(x, (left, right, top, bottom)))

    def _padding(self, size: int, axis: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """An inverted residual: 1x1 expansion (left out for a factor of 1), depthwise, 1x1 projection."""

    def __init__(self, inputs: int, outputs: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        self.expands = expand != 1
        if self.expands:
            self._expand_conv = SameConv2d(inputs, width, 1)
            self._bn0 = _norm(width)
        self._depthwise_conv = SameConv2d(width, width, kernel, stride, groups=width)
        self._bn1 = _norm(width)
        self._project_conv = SameConv2d(width, outputs, 1)
        self._bn2 = _norm(outputs)
        self._relu = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        y = self._relu(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._relu(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return y + x if self.residual else y


class EfficientNetLite(nn.Module):
    """Images ``[n, 3, h, w]`` to logits ``[n, classes]``, float32."""

    def __init__(self, stages: tuple[Stage, ...], classes: int) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, stride=2)
        self._bn0 = _norm(32)
        blocks, inputs = [], 32
        for stage in stages:
            widths = [inputs] + [stage.channels] * stage.repeats
            blocks += [Block(before, after, stage.expand, stage.kernel, stage.stride if first == 0 else 1)
                       for first, (before, after) in enumerate(pairwise(widths))]
            inputs = stage.channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv2d(inputs, 1280, 1)
        self._bn1 = _norm(1280)
        self._avg_pooling = nn.AdaptiveAvgPool2d(1)
        self._fc = nn.Linear(1280, classes)
        self._relu = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        x = self._relu(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = self._relu(self._bn1(self._conv_head(x)))
        return self._fc(self._avg_pooling(x).flatten(1))


def efficientnet_lite0(classes: int = 1000) -> EfficientNetLite:
    """EfficientNet-Lite0: 4.65 M parameters and 0.39 G multiply-adds at 224x224."""
    return EfficientNetLite(LITE0, classes)
