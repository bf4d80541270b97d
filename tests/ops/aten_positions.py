"""Small calls of PyTorch as users write them: sorting, and reading and writing at computed positions."""

from __future__ import annotations

import torch
from call_values import Call, i, n, p, special

t = torch.tensor

SORTING: dict[str, Call] = {
    "sort": (lambda x: torch.sort(x), (n(3, 7),)),
    "sort_dim0_descending": (lambda x: torch.sort(x, dim=0, descending=True), (n(7, 3),)),
    "sort_stable": (lambda x: torch.sort(x, dim=1, stable=True), (i(3, 4, 29),)),
    "sort_nan": (lambda x: torch.sort(x, dim=1, stable=True).values, (special(3, 7),)),
    "sort_nan_descending": (lambda x: torch.sort(x, descending=True, stable=True), (special(3, 7),)),
    "sort_bool": (lambda x: torch.sort(x, stable=True, dim=-1), (i(2, 3, 9).bool(),)),
    "sort_rank_0": (lambda x: torch.sort(x.sum(), dim=0), (n(3),)),
    "sort_permuted": (lambda x: torch.sort(x.transpose(0, 2), dim=-2), (n(2, 5, 3),)),
    "sort_empty": (lambda x: torch.sort(x[:, 7:], dim=1), (n(3, 7),)),
    "argsort": (lambda x: torch.argsort(x, dim=-2), (n(3, 7, 2),)),
    "argsort_stable": (lambda x: torch.argsort(x, stable=True, descending=True), (i(3, 4, 29),)),
    "msort": (torch.msort, (n(7, 3),)),
    "topk": (lambda x: torch.topk(x, 3), (n(3, 11),)),
    "topk_smallest_dim": (lambda x: torch.topk(x, 4, dim=0, largest=False), (n(7, 5),)),
    "topk_ties": (lambda x: torch.topk(x, 5).values, (i(4, 3, 13),)),
    "topk_all": (lambda x: torch.topk(x, 7, dim=1), (n(3, 7),)),
    "topk_none": (lambda x: (torch.topk(x, 0).values, x), (n(3, 7),)),
    "topk_nan": (lambda x: torch.topk(x, 3, dim=1).values, (special(3, 7),)),
    "topk_int": (lambda x: torch.topk(x, 2, 0), (torch.arange(15).flip(0).reshape(5, 3),)),
    "kthvalue": (lambda x: torch.kthvalue(x, 3, dim=0, keepdim=True), (n(7, 5),)),
    "kthvalue_last": (lambda x: torch.kthvalue(x, 2), (n(3, 5),)),
    "median": (torch.median, (n(3, 5),)),
    "median_even": (torch.median, (n(2, 5),)),
    "median_nan": (torch.median, (special(3, 5),)),
    "median_dim": (lambda x: torch.median(x, 1), (n(3, 6),)),
    "median_dim_nan": (lambda x: torch.median(x, 0, keepdim=True).values, (special(4, 3),)),
    "median_int": (lambda x: torch.median(x, 1).values, (i(9, 3, 5),)),
    "nanmedian": (torch.nanmedian, (special(3, 5),)),
    "nanmedian_dim": (lambda x: torch.nanmedian(x, 1).values, (special(3, 4),)),
    "sort_then_cumsum": (lambda x: torch.sort(x, descending=True)[0].cumsum(-1), (p(3, 7),)),
}

READING: dict[str, Call] = {
    "index_negative": (lambda x, k: x[k], (n(5, 4), i(5, 7, low=-5))),
    "index_i32": (lambda x, k: x[:, k], (n(3, 5), i(5, 7, low=-5, dtype=torch.int32))),
    "index_two": (lambda x, j, k: x[j, k], (n(5, 4, 3), i(5, 7, low=-5), i(4, 7, low=-4))),
    "index_two_broadcast": (lambda x, j, k: x[j[:, None], k], (n(5, 4, 3), i(5, 2), i(4, 3))),
    "index_middle_two": (lambda x, j, k: x[:, j, k], (n(2, 5, 4, 3), i(5, 7), i(4, 7))),
    "index_apart": (lambda x, j, k: x[j, :, k], (n(5, 2, 4), i(5, 3), i(4, 3))),
    "index_apart_behind": (lambda x, j, k: x[:, j, :, k], (n(2, 5, 3, 4), i(5, 2, 3), i(4, 3))),
    "index_three": (lambda x, j, k: x[j, k, j], (n(5, 4, 6), i(4, 2, 1), i(4, 3))),
    "index_rank_0": (lambda x, k: torch.ops.aten.index(x, [None, k.sum()]), (n(2, 9), i(3, 4))),
    "index_int_and_tensor": (lambda x, k: x[1, :, k], (n(2, 3, 5), i(5, 4))),
    "index_nothing": (lambda x: (x[:, torch.zeros(0, dtype=torch.int64)], x), (n(2, 3),)),
    "index_bool_table": (lambda x, k: x[k], (i(2, 5, 3).bool(), i(5, 4))),
    "gather_middle": (lambda x, k: torch.gather(x, -2, k), (n(2, 5, 3), i(5, 2, 4, 2))),
    "gather_rank_0": (lambda x, k: torch.gather(x.sum(), 0, k.sum() * 0), (n(3), i(1, 1))),
    "gather_permuted": (lambda x, k: torch.gather(x.t(), 0, k.t()), (n(3, 5), i(5, 2, 4))),
    "take_along_flat": (lambda x, k: torch.take_along_dim(x, k), (n(3, 5), i(15, 4))),
    "take_along_argsort": (lambda x: torch.take_along_dim(x, x.argsort(1), 1), (n(3, 5),)),
    "take": (lambda x, k: torch.take(x, k), (n(3, 5), i(15, 2, 3, low=-15))),
}

WRITING: dict[str, Call] = {
    "index_put_two": (
        lambda x, j, k, y: torch.ops.aten.index_put(x, [j, k], y),
        (n(5, 4, 3), t([1, -1, 0]), t([-2, 3, 1]), n(3, 3)),
    ),
    "index_put_apart": (
        lambda x, j, k, y: torch.ops.aten.index_put(x, [j, None, k], y),
        (n(5, 2, 4), t([1, 4, 0]), t([3, 3, -3]), n(3, 2)),
    ),
    "index_put_adds": (
        lambda x, k, y: x.index_put((k,), y, accumulate=True),
        (n(5, 3), i(5, 11, low=-5), n(11, 3)),
    ),
    "index_put_adds_two": (
        lambda x, j, k, y: x.index_put((j, k), y, accumulate=True),
        (n(3, 4), i(3, 29), i(4, 29), n(29)),
    ),
    "index_put_adds_scalar": (
        lambda x, k: x.index_put((k,), torch.tensor(1.0), accumulate=True),
        (n(5), i(5, 13)),
    ),
    "index_put_int": (lambda x, k, y: x.index_put((k,), y, accumulate=True), (i(9, 5), i(5, 7), i(9, 7))),
    "index_put_broadcast": (
        lambda x, k, y: x.index_put((k,), y),
        (n(5, 3), t([3, 1]), n(3)),
    ),
    "mask_put": (lambda x, m: x.index_put((m,), torch.tensor(0.5)), (n(3, 5), i(2, 3, 5).bool())),
    "mask_put_rows": (lambda x, m, y: x.index_put((m,), y), (n(4, 5), i(2, 4).bool(), n(5))),
    "mask_put_columns": (
        lambda x, m: torch.ops.aten.index_put(x, [None, m], torch.tensor(-1.0)),
        (n(3, 5), i(2, 5).bool()),
    ),
    "mask_put_adds": (
        lambda x, m: x.index_put((m,), torch.tensor(0.5), accumulate=True),
        (n(3, 5), i(2, 3, 5).bool()),
    ),
    "mask_put_each": (
        lambda x, m, y: x.index_put((m,), y),
        (n(2, 3), t([[True, False, True], [False, True, True]]), n(4)),
    ),
    "mask_put_each_row": (
        lambda x, m, y: torch.ops.aten.index_put(x, [None, m], y),
        (n(2, 4, 3), t([True, False, True, False]), n(2, 2, 3)),
    ),
    "assign_mask": (lambda x, m: _assigned(x, m), (n(3, 5), i(2, 3, 5).bool())),
    "masked_scatter": (
        lambda x, m, y: x.masked_scatter(m, y),
        (n(3, 5), i(2, 3, 5).bool(), n(4, 5, seed=1)),
    ),
    "masked_scatter_broadcast": (
        lambda x, m, y: x.masked_scatter(m, y),
        (n(3, 5), i(2, 5).bool(), n(15, seed=1)),
    ),
    "index_fill": (lambda x, k: x.index_fill(1, k, -1.5), (n(3, 5), t([0, -1]))),
    "index_fill_tensor": (lambda x, k, v: x.index_fill(0, k, v.sum()), (n(5, 3), t([4, 1]), n(2))),
    "index_copy_dim1": (lambda x, k, y: x.index_copy(-1, k, y), (n(3, 5), t([3, 1]), n(3, 2))),
    "index_add": (lambda x, k, y: x.index_add(0, k, y), (n(5, 3), i(5, 11), n(11, 3))),
    "index_add_alpha": (
        lambda x, k, y: x.index_add(1, k, y, alpha=-2),
        (n(3, 5), i(5, 7), n(3, 7)),
    ),
    "index_reduce_mean": (
        lambda x, k, y: x.index_reduce(0, k, y, "mean"),
        (n(5, 3), i(4, 9), n(9, 3)),
    ),
    "index_reduce_amax": (
        lambda x, k, y: x.index_reduce(1, k, y, "amax", include_self=False),
        (n(3, 5), i(4, 9), n(3, 9)),
    ),
    "scatter_value": (lambda x, k: x.scatter(0, k, -7.0), (n(5, 3), i(5, 2, 3))),
    "scatter_smaller_index": (
        lambda x, k, y: x.scatter(1, k, y),
        (n(3, 5, 4), t([[[1, 2], [0, 3]]]), n(2, 5, 4)),
    ),
    "scatter_bool": (lambda x, k: torch.zeros_like(x).scatter(1, k, True), (i(2, 3, 5).bool(), i(5, 3, 1))),
    "scatter_reduce_name": (
        lambda x, k, y: x.scatter(1, k, y, reduce="multiply"),
        (n(3, 5), i(5, 3, 4), n(3, 4)),
    ),
    "scatter_add": (lambda x, k, y: x.scatter_add(0, k, y), (n(5, 3), i(5, 11, 3), n(11, 3))),
    "scatter_add_last": (lambda x, k, y: x.scatter_add(-1, k, y), (n(2, 3, 5), i(5, 2, 3, 9), n(2, 4, 11))),
    "scatter_add_int": (lambda x, k, y: x.scatter_add(0, k, y), (i(9, 5), i(5, 11), i(9, 11))),
    **{
        f"scatter_reduce_{name}_{'with' if own else 'without'}": (
            lambda x, k, y, name=name, own=own: x.scatter_reduce(1, k, y, name, include_self=own),
            (n(3, 5), i(5, 3, 7), n(3, 7)),
        )
        for name in ("sum", "prod", "mean", "amax", "amin")
        for own in (True, False)
    },
    "scatter_reduce_nan": (
        lambda x, k, y: x.scatter_reduce(1, k, y, "amax"),
        (n(3, 5), i(5, 3, 7), special(3, 7)),
    ),
    "scatter_reduce_mean_int": (
        lambda x, k, y: x.scatter_reduce(0, k, y, "mean", include_self=False),
        (i(9, 5), i(4, 11), i(40, 11, low=-40)),
    ),
    **{
        f"multilabel_margin_{reduction}": (
            lambda x, k, y, r=reduction: (
                torch.nn.functional.multilabel_margin_loss(x, k, reduction=r),
                torch.nn.functional.multilabel_margin_loss(y, k[1], reduction="sum"),
            ),
            (n(3, 4), t([[1, -1, 0, 2], [3, 0, 3, 1], [-1, 1, 2, 0]]), n(4)),
        )
        for reduction in ("none", "mean", "sum")
    },
    "put": (lambda x, k, y: x.put(k, y), (n(3, 5), t([0, -1, 7]), n(3))),
    "put_adds": (lambda x, k, y: x.put(k, y, accumulate=True), (n(3, 5), i(15, 29), n(29))),
}

REFUSED: dict[str, Call] = {
    "rand": (lambda x: x + torch.rand_like(x), (n(3, 5),)),
    "multinomial": (lambda x: torch.multinomial(x, 2), (p(3, 5),)),
    "complex_product": (lambda x: torch.fft.rfft(x).prod().abs(), (n(3, 8),)),
    "strides": (lambda x: (x.t() * 2).as_strided((3, 4), (1, 2)), (n(3, 8),)),
    "segments": (lambda x: torch.segment_reduce(x, "sum", lengths=t([1, 2])), (n(3),)),
    "qr": (lambda x: torch.linalg.qr(x).R, (n(3, 3),)),
    "index_masks": (
        lambda x, m, k: torch.ops.aten.index_put(x, [m, k], torch.tensor(1.0)),
        (n(3, 5), t([True, False, True]), t([1, 2])),
    ),
}


def _assigned(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    z = x.clone()
    z[m] = 0.25
    z[:, [0, -1]] = 2
    return z
