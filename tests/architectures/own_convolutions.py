"""Convolutional architectures as their papers have them, small, with the constructs of the usual code."""

from __future__ import annotations

from itertools import pairwise

import torch
from architecture import Architecture
from model_inputs import images
from torch import Tensor, nn
from torch.nn import functional


def conv(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int] = 3,
    stride: int = 1,
    *,
    groups: int = 1,
    dilation: int = 1,
    activation: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution of the input's size over the stride, batch norm, activation."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = tuple(dilation * (side - 1) // 2 for side in sides)
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class Residual(nn.Module):
    """``relu(branch(x) + shortcut(x))``."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        y += self.shortcut(x)
        return functional.relu(y, inplace=True)


def bottlenecks(width: int, groups: int) -> nn.Module:
    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        branch = nn.Sequential(
            conv(inputs, width, 1),
            conv(width, width, 3, stride, groups=groups),
            conv(width, outputs, 1, activation=None),
        )
        return Residual(branch, conv(inputs, outputs, 1, stride, activation=None))

    return nn.Sequential(
        conv(3, 16, 7, 2),
        nn.MaxPool2d(3, 2, 1),
        block(16, 32, 1),
        block(32, 48, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def alexnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 11, 4, 2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(16, 24, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.LocalResponseNorm(3),
        nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d((3, 2)),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(144, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((3, 8, 16, 24)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, 2, ceil_mode=True),
        ]
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d((3, 3)),
        nn.Flatten(1),
        nn.Linear(216, 32),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(32, 10),
    )


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(8 + 6 * i),
                nn.ReLU(),
                nn.Conv2d(8 + 6 * i, 12, 1, bias=False),
                nn.BatchNorm2d(12),
                nn.ReLU(),
                nn.Conv2d(12, 6, 3, padding=1, bias=False),
            )
            for i in range(3)
        )
        self.transition = nn.Sequential(
            nn.BatchNorm2d(26), nn.ReLU(), nn.Conv2d(26, 13, 1), nn.AvgPool2d(2, 2)
        )
        self.classify = nn.Linear(13, 10)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.stem(x)]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        y = self.transition(torch.cat(found, 1))
        return self.classify(functional.adaptive_avg_pool2d(functional.relu(y), (1, 1)).flatten(1))


class Inception(nn.Module):
    """The four branches of GoogLeNet's block, and those of Inception-v3 with 1x7 and 7x1."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.one = conv(inputs, 8, 1)
        self.three = nn.Sequential(conv(inputs, 8, 1), conv(8, 12, (1, 7)), conv(12, 12, (7, 1)))
        self.five = nn.Sequential(conv(inputs, 4, 1), conv(4, 8, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), conv(inputs, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


def googlenet() -> nn.Module:
    return nn.Sequential(
        conv(3, 8, 7, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Inception(8),
        Inception(32),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


class Fire(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, 6, 1)
        self.narrow, self.wide = nn.Conv2d(6, 12, 1), nn.Conv2d(6, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(x))
        return torch.cat([functional.relu(self.narrow(x)), functional.relu(self.wide(x))], 1)


def squeezenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(16),
        Fire(24),
        nn.Conv2d(24, 10, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
    )


class Shuffle(nn.Module):
    """ShuffleNetV2's unit of stride 1: half of the channels pass, then all are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(half, half, 1), conv(half, half, 3, groups=half, activation=None), conv(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        y = torch.cat((first, self.branch(second)), dim=1)
        batch, channels, height, width = y.size()
        y = y.view(batch, 2, channels // 2, height, width)
        return torch.transpose(y, 1, 2).contiguous().view(batch, -1, height, width)


class ShuffleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2), nn.MaxPool2d(3, 2, 1))
        self.units = nn.Sequential(Shuffle(16), Shuffle(16))
        self.classify = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.units(self.stem(x)).mean([2, 3]))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = functional.adaptive_avg_pool2d(x, 1)
        return x * functional.hardsigmoid(self.up(functional.relu(self.down(scale))))


class Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        wide = 3 * inputs
        self.keep = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            conv(inputs, wide, 1, activation=nn.Hardswish),
            conv(wide, wide, kernel, stride, groups=wide),
            SqueezeExcite(wide) if squeeze else nn.Identity(),
            conv(wide, outputs, 1, activation=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.keep else self.body(x)


def mobilenet_v3() -> nn.Module:
    return nn.Sequential(
        conv(3, 8, 3, 2, activation=nn.Hardswish),
        Inverted(8, 12, 3, 2, True),
        Inverted(12, 12, 5, 1, True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 16),
        nn.Hardswish(),
        nn.Linear(16, 10),
    )


def mnasnet() -> nn.Module:
    return nn.Sequential(
        conv(3, 8, 3, 2),
        conv(8, 8, 3, groups=8),
        conv(8, 6, 1, activation=None),
        Inverted(6, 9, 3, 2, False),
        Inverted(9, 9, 5, 1, False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(9, 10),
    )


BATCH = {0: ("batch", 1, 4)}
BATCHES = ({"batch": 2}, {"batch": 1}, {"batch": 3})
WIDE = images(30, 44, name="input")

CONVOLUTIONS = (
    Architecture("alexnet", alexnet, images(95, 79, name="input")),
    Architecture("vgg", vgg, WIDE),
    Architecture("vgg_batches", vgg, WIDE, {"input": BATCH}, BATCHES),
    Architecture("densenet", DenseNet, images(30, 44, name="x")),
    Architecture("googlenet", googlenet, WIDE),
    Architecture("squeezenet", squeezenet, images(35, 41, name="input")),
    Architecture("shufflenet_v2", ShuffleNet, images(30, 44, name="x")),
    Architecture("shufflenet_v2_batches", ShuffleNet, images(30, 44, name="x"), {"x": BATCH}, BATCHES),
    Architecture("mnasnet", mnasnet, WIDE),
    Architecture("mobilenet_v3", mobilenet_v3, WIDE),
    Architecture("resnext", lambda: bottlenecks(16, 4), WIDE),
    Architecture("wide_resnet", lambda: bottlenecks(40, 1), WIDE),
)
