"""Small calls of PyTorch as users write them: resizing, padding, bags of embeddings, distances, searches."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from call_values import Call, i, n, p, randomised, special
from torch import nn

t = torch.tensor


def _resized(**options: object) -> partial[torch.Tensor]:
    return partial(F.interpolate, **options)  # type: ignore[arg-type]


RESIZING: dict[str, Call] = {
    "pad_reflect_3d": (lambda x: F.pad(x, (1, 2, 0, 1, 1, 1), mode="reflect"), (n(1, 2, 3, 4, 5),)),
    "pad_replicate_3d": (lambda x: F.pad(x, (1, 2, 0, 1, 1, 1), mode="replicate"), (n(1, 2, 3, 4, 5),)),
    "pad_circular_3d": (lambda x: F.pad(x, (1, 2, 0, 1, 1, 1), mode="circular"), (n(1, 2, 3, 4, 5),)),
    "pad_replicate_negative": (lambda x: F.pad(x, (-1, 2), mode="replicate"), (n(2, 5),)),
    "pad_3d_raw": (lambda x: torch.ops.aten.reflection_pad3d(x, [1, 0, 1, 1, 2, 1]), (n(2, 3, 4, 5),)),
    "nearest_3d": (_resized(scale_factor=2), (n(1, 2, 3, 4, 5),)),
    "nearest_3d_size": (_resized(size=(5, 3, 9)), (n(1, 2, 3, 4, 5),)),
    "nearest_down": (_resized(scale_factor=0.4), (n(1, 2, 7, 9),)),
    "nearest_exact_1d": (_resized(scale_factor=1.7, mode="nearest-exact"), (n(1, 2, 9),)),
    "nearest_exact_2d": (_resized(size=(7, 3), mode="nearest-exact"), (n(1, 2, 4, 5),)),
    "nearest_exact_3d": (_resized(size=(2, 7, 3), mode="nearest-exact"), (n(1, 2, 3, 4, 5),)),
    "linear_1d": (_resized(size=7, mode="linear"), (n(1, 2, 5),)),
    "trilinear": (_resized(size=(5, 3, 9), mode="trilinear"), (n(1, 2, 3, 4, 5),)),
    "trilinear_corners": (
        _resized(size=(5, 1, 9), mode="trilinear", align_corners=True),
        (n(1, 2, 3, 4, 5),),
    ),
    "bilinear_scale": (_resized(scale_factor=(1.7, 0.6), mode="bilinear"), (n(1, 2, 4, 5),)),
    "bilinear_scale_again": (
        _resized(scale_factor=(1.7, 0.6), mode="bilinear", recompute_scale_factor=True),
        (n(1, 2, 4, 5),),
    ),
    "bicubic": (_resized(size=(7, 9), mode="bicubic"), (n(1, 2, 4, 5),)),
    "bicubic_corners": (_resized(size=(7, 9), mode="bicubic", align_corners=True), (n(1, 2, 4, 5),)),
    "bicubic_scale": (_resized(scale_factor=1.7, mode="bicubic"), (n(1, 2, 4, 5),)),
    "bicubic_one": (_resized(size=(3, 1), mode="bicubic", align_corners=True), (n(1, 2, 1, 5),)),
    "bilinear_smooth": (_resized(size=(3, 2), mode="bilinear", antialias=True), (n(1, 2, 7, 9),)),
    "bilinear_smooth_up": (_resized(size=(11, 2), mode="bilinear", antialias=True), (n(1, 2, 7, 9),)),
    "bicubic_smooth": (_resized(size=(3, 2), mode="bicubic", antialias=True), (n(1, 2, 7, 9),)),
    "bicubic_smooth_corners": (
        _resized(size=(3, 13), mode="bicubic", antialias=True, align_corners=True),
        (n(1, 2, 7, 9),),
    ),
    "area": (_resized(size=(3, 2), mode="area"), (n(1, 2, 7, 9),)),
    "unfold": (lambda x: F.unfold(x, (2, 3), (1, 2), (1, 0), (2, 1)), (n(2, 3, 7, 9),)),
    "fold": (lambda x: F.fold(x, (5, 6), (2, 3), padding=1, stride=(2, 1)), (n(2, 12, 18),)),
    "grid_bilinear": (lambda x, g: F.grid_sample(x, g, align_corners=False), (n(2, 3, 5, 7), n(2, 4, 6, 2))),
    "grid_nearest_border": (
        lambda x, g: F.grid_sample(x, g, "nearest", "border", True),
        (n(2, 3, 5, 7), n(2, 4, 6, 2)),
    ),
    "grid_bicubic_reflection": (
        lambda x, g: F.grid_sample(x, g, "bicubic", "reflection", False),
        (n(2, 3, 5, 7), n(2, 4, 6, 2)),
    ),
    "affine_grid": (
        lambda x, a: F.grid_sample(x, F.affine_grid(a, (2, 3, 4, 6), False), align_corners=False),
        (n(2, 3, 5, 7), n(2, 2, 3)),
    ),
}


def bag(**options: object) -> nn.Module:
    return randomised(nn.EmbeddingBag(11, 5, **options))  # type: ignore[arg-type]


SEARCHING: dict[str, Call] = {
    "bag_sum": (bag(mode="sum"), (i(11, 3, 4),)),
    "bag_mean": (bag(), (i(11, 3, 4),)),
    "bag_max": (bag(mode="max"), (i(11, 3, 4),)),
    "bag_offsets": (bag(mode="sum"), (i(11, 9), t([0, 2, 2, 6]))),
    "bag_offsets_i32": (bag(mode="max"), (i(11, 9, dtype=torch.int32), t([0, 2, 2, 9], dtype=torch.int32))),
    "bag_padding": (bag(padding_idx=2), (i(11, 3, 7),)),
    "bag_weighted": (
        lambda w, x, o, q: F.embedding_bag(x, w, o, mode="sum", per_sample_weights=q),
        (n(11, 5), i(11, 9), t([0, 3, 4]), n(9)),
    ),
    "bag_last_offset": (
        lambda w, x, o: F.embedding_bag(x, w, o, mode="mean", include_last_offset=True),
        (n(11, 5), i(11, 9), t([0, 3, 4, 9])),
    ),
    "bag_everything": (
        lambda w, x, o: torch.ops.aten._embedding_bag(w, x, o, False, 2, False, None, False, 2),
        (n(11, 2), t([1, 2, 3, 4, 2, 2, 7]), t([0, 2, 2, 5])),
    ),
    "bag_mean_sizes": (
        lambda w, x, o: torch.ops.aten._embedding_bag(w, x, o, False, 1, False, None, False, -1),
        (n(11, 2), t([1, 2, 3, 4, 2, 2, 7]), t([0, 2, 2, 5])),
    ),
    "cdist": (torch.cdist, (n(3, 5), n(4, 5))),
    "cdist_1": (lambda x, y: torch.cdist(x, y, p=1.0), (n(2, 3, 5), n(2, 4, 5))),
    "cdist_3_broadcast": (lambda x, y: torch.cdist(x, y, p=3.0), (n(2, 1, 3, 5), n(7, 4, 5))),
    "cdist_inf": (lambda x, y: torch.cdist(x, y, p=float("inf")), (n(3, 5), n(4, 5))),
    "cdist_0": (lambda x, y: torch.cdist(x, y, p=0.0), (i(3, 3, 5).float(), i(3, 4, 5).float())),
    "pdist": (F.pdist, (n(5, 3),)),
    "pdist_1": (lambda x: F.pdist(x, 1.0), (n(7, 3),)),
    "pairwise_distance": (F.pairwise_distance, (n(7, 3), n(7, 3, seed=1))),
    "cummax": (lambda x: torch.cummax(x, 1), (n(3, 7),)),
    "cummin_ties": (lambda x: torch.cummin(x, 0), (i(4, 7, 3),)),
    "cummax_nan": (lambda x: torch.cummax(x, -1), (special(3, 7),)),
    "bucketize": (torch.bucketize, (n(3, 7), n(9).sort()[0])),
    "bucketize_right": (
        lambda x, e: torch.bucketize(x, e, right=True, out_int32=True),
        (i(5, 3, 7), t([1, 2, 2, 4])),
    ),
    "searchsorted": (torch.searchsorted, (n(3, 9).sort()[0], n(3, 4))),
    "searchsorted_shared": (lambda e, x: torch.searchsorted(e, x, side="right"), (n(9).sort()[0], n(3, 4))),
    "searchsorted_number": (lambda e: (torch.searchsorted(e, 0.3), e), (n(9).sort()[0],)),
    "searchsorted_nan": (torch.searchsorted, (t([0.0, 1.0, float("nan")]), special(3, 4))),
    "searchsorted_sorter": (lambda e, x: torch.searchsorted(e, x, sorter=e.argsort()), (n(9), n(3, 4))),
    "repeat_interleave": (
        lambda x, r: torch.repeat_interleave(x, r, dim=0, output_size=6),
        (n(3, 2), t([1, 2, 3])),
    ),
    "histc": (lambda x: torch.histc(x, 5, -1, 1), (n(29),)),
    "inverse_hyperbolic": (
        lambda x: (torch.asinh(x), torch.acosh(x.abs() + 1), torch.atanh(x.tanh() * 0.9)),
        (n(3, 5),),
    ),
    "erfc_lgamma": (lambda x: torch.erfc(x) + torch.lgamma(x), (p(3, 5),)),
}
