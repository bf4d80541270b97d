"""Small calls of PyTorch as users write them: pooling, convolutions, padding, resizing and sampling in one to
three dimensions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from call_values import Call, i, n, p, randomised, special
from torch import nn

POOLING: dict[str, Call] = {
    "max_2d_indices": (lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True), (n(2, 3, 9, 7),)),
    "max_2d_indices_ties": (
        lambda x: F.max_pool2d(x, 3, 2, return_indices=True),
        (i(3, 1, 2, 9, 9).float(),),
    ),
    "max_2d_indices_nan": (lambda x: F.max_pool2d(x, 2, return_indices=True), (special(1, 1, 4, 6),)),
    "max_2d_indices_dilated": (
        lambda x: F.max_pool2d(x, (2, 3), (1, 2), (1, 1), (2, 3), True, True),
        (n(1, 3, 9, 11),),
    ),
    "max_1d_indices": (lambda x: F.max_pool1d(x, 3, 2, 1, return_indices=True), (n(2, 3, 11),)),
    "max_1d_unbatched": (lambda x: F.max_pool1d(x, 3), (n(3, 11),)),
    "max_1d_ceil_dilated": (lambda x: F.max_pool1d(x, 3, 2, 1, 2, True), (n(2, 3, 12),)),
    "max_3d": (lambda x: F.max_pool3d(x, (2, 3, 2), 2, (1, 1, 0), ceil_mode=True), (n(1, 3, 5, 7, 6),)),
    "max_3d_indices": (lambda x: F.max_pool3d(x, 2, return_indices=True), (n(2, 3, 4, 5, 6),)),
    "max_3d_unbatched": (lambda x: F.max_pool3d(x, 2, 1), (n(3, 4, 5, 6),)),
    "max_2d_double": (lambda x: F.max_pool2d(x, 3, 2, 1), (n(1, 3, 9, 9).double(),)),
    "max_2d_int": (lambda x: F.max_pool2d(x, 3, 2), (i(99, 1, 3, 9, 9, low=-99),)),
    "max_2d_infinite": (
        lambda x: F.max_pool2d(x - float("inf"), 2, 2, return_indices=True),
        (n(1, 1, 4, 4),),
    ),
    "unpool": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), (n(1, 2, 4, 6),)),
    "avg_3d": (lambda x: F.avg_pool3d(x, 3, 2, 1), (n(1, 3, 5, 7, 6),)),
    "avg_3d_ceil": (
        lambda x: F.avg_pool3d(x, (2, 3, 3), (2, 2, 1), (1, 1, 1), True, False),
        (n(2, 3, 6, 8, 5),),
    ),
    "avg_3d_divisor": (lambda x: F.avg_pool3d(x, 2, divisor_override=3), (n(3, 4, 5, 6),)),
    "avg_1d_ceil": (lambda x: F.avg_pool1d(x, 3, 2, 1, True, False), (n(2, 3, 12),)),
    "avg_2d_double": (lambda x: F.avg_pool2d(x, 3, 2, 1, True), (n(1, 3, 8, 8).double(),)),
    "avg_2d_int": (lambda x: F.avg_pool2d(x, 3, 2), (i(99, 1, 3, 9, 9, low=-99),)),
    "adaptive_avg_3d": (lambda x: F.adaptive_avg_pool3d(x, (2, None, 5)), (n(2, 3, 5, 4, 7),)),
    "adaptive_avg_3d_1": (lambda x: F.adaptive_avg_pool3d(x, 1), (n(2, 3, 5, 4, 7),)),
    "adaptive_avg_1d_wide": (lambda x: F.adaptive_avg_pool1d(x, 11), (n(3, 7),)),
    "adaptive_avg_double": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (n(2, 3, 7, 9).double(),)),
    "adaptive_max_1d": (lambda x: F.adaptive_max_pool1d(x, 3, return_indices=True), (n(2, 3, 11),)),
    "adaptive_max_2d": (lambda x: F.adaptive_max_pool2d(x, (3, 4), return_indices=True), (n(2, 3, 7, 9),)),
    "adaptive_max_3d": (lambda x: F.adaptive_max_pool3d(x, (2, 3, 1), return_indices=True), (n(3, 5, 4, 7),)),
    "adaptive_max_only": (lambda x: F.adaptive_max_pool2d(x, 2), (n(1, 3, 7, 5),)),
    "pool_of_permuted": (lambda x: F.max_pool2d(x.transpose(2, 3), 2, return_indices=True), (n(1, 3, 6, 4),)),
    "lp_1d": (lambda x: F.lp_pool1d(x, 3, 3, 2), (p(2, 3, 11),)),
}

CONVOLUTIONS: dict[str, Call] = {
    "3d": (randomised(nn.Conv3d(2, 3, (2, 3, 3), padding=1)), (n(2, 2, 4, 5, 6),)),
    "3d_strides": (randomised(nn.Conv3d(3, 8, 3, (2, 1, 3), (0, 1, 2), bias=False)), (n(1, 3, 7, 5, 9),)),
    "3d_dilation_groups": (randomised(nn.Conv3d(4, 6, 2, dilation=(3, 1, 2), groups=2)), (n(1, 4, 6, 5, 7),)),
    "3d_depthwise": (randomised(nn.Conv3d(5, 5, 3, padding="same", groups=5)), (n(1, 5, 4, 5, 6),)),
    "3d_same_even": (randomised(nn.Conv3d(2, 3, (2, 4, 3), padding="same")), (n(1, 2, 4, 5, 6),)),
    "3d_valid": (randomised(nn.Conv3d(2, 3, 2, padding="valid")), (n(2, 4, 5, 6),)),
    "3d_patches": (randomised(nn.Conv3d(3, 16, (2, 4, 4), (2, 4, 4))), (n(1, 3, 4, 8, 8),)),
    "3d_reflect": (randomised(nn.Conv3d(2, 3, 3, padding=1, padding_mode="reflect")), (n(1, 2, 4, 5, 6),)),
    "3d_double": (randomised(nn.Conv3d(2, 3, 2).double()), (n(1, 2, 3, 4, 5).double(),)),
    "3d_computed_weight": (lambda x, w: F.conv3d(x, w, padding=1), (n(1, 2, 3, 4, 5), n(3, 2, 2, 3, 3))),
    "3d_relu_sum": (
        randomised(nn.Sequential(nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU())),
        (n(1, 2, 3, 5, 7),),
    ),
    "1d_same_even": (randomised(nn.Conv1d(3, 5, 4, padding="same", dilation=3)), (n(2, 3, 11),)),
    "1d_circular": (randomised(nn.Conv1d(3, 5, 3, padding=2, padding_mode="circular")), (n(2, 3, 11),)),
    "2d_double": (randomised(nn.Conv2d(3, 5, 3, 2, 1, groups=1).double()), (n(2, 3, 7, 9).double(),)),
    "2d_depthwise_double": (randomised(nn.Conv2d(6, 6, 3, groups=6).double()), (n(1, 6, 7, 9).double(),)),
    "2d_computed_weight_stride": (
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2),
        (n(2, 4, 9, 11), n(6, 2, 3, 3), n(6)),
    ),
    "2d_empty_batch": (lambda x, w: (F.conv2d(x[2:], w), x), (n(2, 3, 5, 5), n(4, 3, 3, 3))),
    "transposed_3d": (
        randomised(nn.ConvTranspose3d(3, 4, 3, (2, 1, 2), 1, (1, 0, 1))),
        (n(1, 3, 3, 4, 5),),
    ),
    "transposed_3d_groups": (
        randomised(nn.ConvTranspose3d(4, 6, (1, 2, 3), 2, groups=2, dilation=2)),
        (n(4, 2, 3, 4),),
    ),
    "transposed_1d_groups": (
        randomised(nn.ConvTranspose1d(4, 6, 5, 3, 2, 2, groups=2)),
        (n(2, 4, 7),),
    ),
    "transposed_2d_cuts": (randomised(nn.ConvTranspose2d(3, 5, 3, padding=3)), (n(1, 3, 9, 8),)),
    "transposed_2d_computed": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, output_padding=1),
        (n(1, 3, 4, 5), n(3, 2, 3, 3)),
    ),
    "transposed_2d_dilated": (
        randomised(nn.ConvTranspose2d(3, 5, (2, 3), (1, 2), (0, 1), (0, 1), dilation=(3, 2))),
        (n(2, 3, 4, 5),),
    ),
    "raw": (
        lambda x, w: torch.ops.aten.convolution(x, w, None, [2], [1], [1], True, [1], 1),
        (n(2, 3, 7), n(3, 4, 3)),
    ),
    "tbc": (lambda x, w, b: torch.conv_tbc(x, w, b, 1), (n(7, 2, 3), n(3, 3, 5), n(5))),
}
