"""Small calls of PyTorch as users write them: pooling, convolutions, padding, resizing and sampling in one to
three dimensions."""

from __future__ import annotations

import torch.nn.functional as F
from call_values import Call, i, n, p, special

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
