"""Architectures that make images, maps and boxes, small, with the constructs of the usual code."""

from __future__ import annotations

import torch
from architecture import Architecture
from model_inputs import features, images
from own_convolutions import conv
from torch import Tensor, nn
from torch.nn import functional


class UNet(nn.Module):
    """Sizes that are odd on the way down, so that the way up must pad."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv(3, 8), conv(8, 12), conv(12, 16)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(16, 12, 2, 2), nn.ConvTranspose2d(12, 8, 2, 2)])
        self.after = nn.ModuleList([conv(24, 12), conv(16, 8)])
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        kept = []
        for index, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if index else x)
            kept.append(x)
        for up, after, skip in zip(self.up, self.after, (kept[1], kept[0]), strict=True):
            x = up(x)
            high, wide = skip.size(2) - x.size(2), skip.size(3) - x.size(3)
            x = functional.pad(x, [wide // 2, wide - wide // 2, high // 2, high - high // 2])
            x = after(torch.cat([skip, x], dim=1))
        return {"mask": torch.sigmoid(self.out(x)), "middle": kept[-1]}


class DeepLab(nn.Module):
    """Dilated branches, a pooled branch, and logits resized to the input's size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 8, 3, 2), conv(8, 16, 3, 2))
        self.branches = nn.ModuleList(
            [conv(16, 8, 1), conv(16, 8, 3, dilation=2), conv(16, 8, 3, dilation=4)]
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(16, 8, 1))
        self.out = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        size = y.shape[-2:]
        found = [branch(y) for branch in self.branches]
        found.append(functional.interpolate(self.pooled(y), size=size, mode="bilinear", align_corners=False))
        return functional.interpolate(self.out(torch.cat(found, 1)), x.shape[-2:], mode="bilinear")


class FeaturePyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([conv(3, 8, 3, 2), conv(8, 12, 3, 2), conv(12, 16, 3, 2)])
        self.lateral = nn.ModuleList([nn.Conv2d(c, 8, 1) for c in (8, 12, 16)])

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        levels = [self.lateral[-1](found[-1])]
        for lateral, y in zip(reversed(self.lateral[:-1]), reversed(found[:-1]), strict=True):
            top = functional.interpolate(levels[0], size=y.shape[-2:], mode="nearest")
            levels.insert(0, lateral(y) + top)
        return levels


class Detector(nn.Module):
    """A YOLO head: anchors and grid added to what the convolution says, boxes of all scales in one list."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 8, 3, 2, activation=nn.SiLU), conv(8, 16, 3, 2, activation=nn.SiLU))
        self.pools = nn.ModuleList([nn.MaxPool2d(k, 1, k // 2) for k in (5, 9)])
        self.down = conv(48, 16, 3, 2, activation=nn.SiLU)
        self.heads = nn.ModuleList([nn.Conv2d(48, 2 * 7, 1), nn.Conv2d(16, 2 * 7, 1)])
        self.register_buffer("anchors", torch.tensor([[[1.0, 2.0], [3.0, 1.5]], [[4.0, 5.0], [7.0, 3.0]]]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.stem(x)
        y = torch.cat([y, *(pool(y) for pool in self.pools)], 1)
        boxes = []
        for level, (head, z) in enumerate(zip(self.heads, (y, self.down(y)), strict=True)):
            n, _, h, w = z.shape
            raw = head(z).view(n, 2, 7, h, w).permute(0, 1, 3, 4, 2).contiguous()
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            grid = torch.stack((columns, rows), 2).view(1, 1, h, w, 2).float()
            y2 = raw.sigmoid()
            middle = (y2[..., 0:2] * 2.0 - 0.5 + grid) * 2 ** (level + 2)
            size = (y2[..., 2:4] * 2) ** 2 * self.anchors[level].view(1, 2, 1, 1, 2)
            boxes.append(torch.cat((middle, size, y2[..., 4:]), -1).view(n, -1, 7))
        found = torch.cat(boxes, 1)
        return found, found[..., 5:].argmax(-1)


def super_resolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.Tanh(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.PReLU(16),
        nn.Conv2d(16, 9, 3, padding=1),
        nn.PixelShuffle(3),
    )


class Variational(nn.Module):
    """A decoder in the manner of latent diffusion: group norms, attention over pixels, nearest resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 16, 3, padding=1)
        self.norm, self.attention_norm = nn.GroupNorm(4, 16, eps=1e-6), nn.GroupNorm(4, 16)
        self.convolution = nn.Conv2d(16, 16, 3, padding=1)
        self.qkv = nn.Conv2d(16, 48, 1)
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.first(z)
        x = x + self.convolution(functional.silu(self.norm(x)))
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).reshape(n, 3, c, h * w).unbind(1)
        weights = torch.softmax(torch.bmm(q.transpose(1, 2), k) * c**-0.5, dim=2)
        x = x + torch.bmm(v, weights.transpose(1, 2)).reshape(n, c, h, w)
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return torch.tanh(self.last(functional.silu(x)))


def generator() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(16, 24, 4, 1, 0, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(True),
        nn.ConvTranspose2d(24, 12, 4, 2, 1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(True),
        nn.ConvTranspose2d(12, 3, 3, 2, 1, output_padding=1),
        nn.Tanh(),
    )


def discriminator() -> nn.Module:
    return nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 4, 2, 1)),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 4, 2, 1),
        nn.InstanceNorm2d(16, affine=True),
        nn.LeakyReLU(0.2, True),
        nn.ReflectionPad2d(1),
        nn.Conv2d(16, 1, 4),
        nn.Flatten(),
    )


class StyleTransfer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 5), nn.InstanceNorm2d(8)
        self.last = nn.Conv2d(8, 3, 3, padding=1, padding_mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        y = functional.elu(self.norm(self.first(functional.pad(x, (2, 2, 2, 2), mode="reflect"))))
        y = functional.interpolate(y, scale_factor=2, mode="bicubic", align_corners=False)
        return self.last(y).clamp(-1, 1)


IMAGES = (
    Architecture("unet", UNet, images(27, 37, name="x")),
    Architecture("deeplab", DeepLab, images(30, 44, name="x")),
    Architecture("feature_pyramid", FeaturePyramid, images(32, 48, name="x")),
    Architecture("yolo_head", Detector, images(32, 48, name="x")),
    Architecture("super_resolution", super_resolution, images(13, 17, channels=1, name="input")),
    Architecture(
        "super_resolution_any_size",
        super_resolution,
        images(channels=1, name="input"),
        {"input": {2: ("height", 4, 32), 3: ("width", 4, 32)}},
        ({"height": 13, "width": 17}, {"height": 5, "width": 8}, {"height": 32, "width": 9}),
    ),
    Architecture("diffusion_decoder", Variational, features(2, 4, 6, 10, name="z")),
    Architecture("dcgan_generator", generator, features(2, 16, 1, 1, name="input")),
    Architecture("dcgan_discriminator", discriminator, images(24, 24, name="input")),
    Architecture("style_transfer", StyleTransfer, images(18, 22, name="x")),
)
