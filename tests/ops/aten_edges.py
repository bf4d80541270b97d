"""Small calls at the edges of what an operation takes: where PyTorch's own samples found differences, and
what is made of other operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from call_values import Call, i, n, p, special

t = torch.tensor
INF = float("inf")
BYTES = t([0, 1, 2, 255], dtype=torch.uint8)

FAR = t([1.5, -1.5, -2.9, 127.5, 128.0, -129.0, 255.0, 256.0, 300.7, 32768.0, -32769.0, 65536.0, 70000.3])
ENDS = t([2**31 - 1, -(2**31), -1, 0, 1, 255, 46341], dtype=torch.int32)

EDGES: dict[str, Call] = {
    "cast_beyond": (lambda x: (x.to(torch.uint8), x.to(torch.int8), x.to(torch.int16), x.int()), (FAR,)),
    "cast_double_beyond": (lambda x: (x.to(torch.uint8), x.to(torch.int16)), (FAR.double(),)),
    "whole_wraps": (lambda x, y: ((x + 1) > x, x * 2 // 2, x + y, x * y, -x), (ENDS, ENDS.flip(0))),
    "whole_wraps_64": (lambda x: ((x + 1) > x, x * 2 // 2, -x), (t([2**63 - 1, -(2**63), 5]),)),
    "alpha_number_first": (lambda x, y: (torch.sub(5, x, alpha=-2), torch.add(-5, y, alpha=3)), (ENDS, n(5))),
    "cosine_broadcast": (lambda x, y: torch.cosine_similarity(x, y, dim=-2), (n(1, 2, 3), n(2, 1, 3))),
    "cosine_rank_0": (lambda x, y: torch.cosine_similarity(x.sum(), y.sum(), dim=0), (n(3), n(4))),
    "var_of_one": (lambda x: (x.var(1), x.std(1, correction=2), x), (n(3, 1),)),
    "std_far": (lambda x: ((x * 1e-30).std(1) * 1e30, (x * 1e37).std(1) * 1e-37, x.std()), (p(3, 5),)),
    "std_of_nothing_finite": (lambda x: (x.std(1), x.var(1)), (special(7, 2) * 0 + n(7, 2),)),
    "var_rank_0": (lambda x: (x.sum().var(), x), (n(3),)),
    "true_is_not_0": (
        lambda x: (
            F.pad(x, (1, 0), value=0.5),
            F.pad(x, (0, 1), value=-INF),
            x.index_fill(0, t([0]), -0.25),
            x.scatter(0, t([[1, 0]]), 0.5),
            x.masked_fill(~x, 1e40),
            torch.full_like(x, 2**40),
        ),
        (t([[True, False], [False, False]]),),
    ),
    "pad_circular_cut": (lambda x: F.pad(x, (-1, 1, -2, 1), "circular"), (n(1, 3, 4, 4),)),
    "avg_pool_negative_divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=-2), (n(1, 3, 4, 4),)),
    "log_softmax_far": (lambda x: (x.log_softmax(1), (x - 3e5).double().log_softmax(0)), (n(3, 7) + 1e5,)),
    "prelu_rank_0": (lambda x, w: F.prelu(x.sum(), w), (-p(3), n(1))),
    "floor_div_infinity": (
        lambda x, y: torch.div(x, y, rounding_mode="floor"),
        (t([-1.0, 1.0, -2.5, INF, 0.0]), t([INF, INF, -INF, 2.0, -0.5])),
    ),
    "norm_0": (lambda x: (x.round().norm(0, 1), torch.linalg.vector_norm(x.round(), 0)), (n(3, 7),)),
    "norm_rank_0": (lambda x: torch.linalg.vector_norm(x.sum(), 0, dim=0), (n(3),)),
    "unfold_rank_0": (lambda x: x.sum().unfold(0, 1, 1), (n(3),)),
    "take_along_negative": (lambda x, k: torch.take_along_dim(x, k, 1), (n(3, 5), i(5, 3, 2, low=-5))),
    "gather_of_nothing": (lambda x: (torch.gather(x, 0, torch.zeros(2, 0, dtype=torch.int64)), x), (n(5),)),
    "any_uint8": (lambda x: (x.any(), x.all(), x[2].any(), x[3].all(), x.any(0)), (BYTES,)),
    "sum_rank_0": (lambda x: (x.sum().sum(0), x.sum().amin(0, keepdim=True)), (n(3),)),
    "pow_whole": (lambda x, y: x**y, (i(9, 40, low=-9), i(70, 40))),
    "pow_whole_scalar": (lambda x: (x**5, x**0, x**63), (i(9, 40, low=-9),)),
    "pow_uint8": (lambda x: x**7, (BYTES,)),
    "pow_of_number": (lambda x: 3**x, (i(45, 40),)),
    "shift_beyond": (lambda x, y: (x << y, x >> y), (i(99, 13, low=-99), i(90, 13))),
    "shift_uint8": (lambda x: (x << 3, x >> 9, x << 8), (BYTES,)),
    "add_bool": (lambda x, y: (x + y, x * y), (i(2, 13).bool(), i(2, 13).flip(0).bool())),
    "linspace_whole": (lambda x: torch.linspace(4.3, 1, 50, dtype=torch.int64) + x, (i(3, 50),)),
    "full_wraps": (lambda x: torch.scalar_tensor(-5, dtype=torch.uint8) + x, (BYTES,)),
    "linspace_one": (lambda x: torch.linspace(-2, 5, 1, dtype=torch.int64) + x, (i(3, 2),)),
    "cross_entropy_sum": (lambda x, y: F.cross_entropy(x, y, reduction="sum"), (n(4, 5), i(5, 4))),
    "logaddexp_special": (torch.logaddexp, (special(3, 7), special(3, 7).flip(1))),
    "hypot": (torch.hypot, (n(3, 7), n(3, 7, seed=4))),
    "copysign": (lambda x, y: (torch.copysign(x, y), torch.copysign(x, -2.0)), (special(3, 7), n(3, 7))),
    "fmax_fmin": (lambda x, y: (torch.fmax(x, y), torch.fmin(x, y)), (special(3, 7), special(7))),
    "nextafter": (torch.nextafter, (n(3, 7), n(3, 7, seed=4))),
    "signbit": (lambda x: torch.signbit(x), (special(3, 7),)),
    "inverse_hyperbolic": (lambda x: (x.asinh(), (x + 1).acosh(), x.tanh().atanh(), x.erfc()), (p(3, 7),)),
    "einsum_vectors": (lambda x, y: (torch.einsum("i,i->", x, y), torch.einsum("i,i", x, x)), (n(7), n(7))),
    "einsum_same": (lambda x, y: (torch.einsum("i,i->i", x, y), torch.einsum("i,i->", y, y)), (n(7), n(7))),
    "gelu_tanh_far": (lambda x: F.gelu(x, approximate="tanh"), (t([-INF, -5e18, -104.0, -6.0, 3e38, INF]),)),
    "erf_far": (
        lambda x: (torch.erf(x), torch.erf(x * 1e-30) * 1e30, F.gelu(x.clamp(-1e30, 1e30))),
        (t([-INF, -20.0, -3.93, -3.7, -1e-3, 0.0, 0.5, 3.8, 3.92, 7.0, INF, float("nan")]),),
    ),
    "addcmul_extreme": (lambda x: torch.addcmul(x, x.flip(0), x, value=2), (t([3e38, 1.0, 1e-30]),)),
    "cumprod_within": (lambda x: (x.cumprod(0), x.cumsum(0)), (t([1e30, 1e30, 1e-30]),)),
    "lgamma": (torch.lgamma, (n(3, 7) * 3,)),
    "angle": (torch.angle, (special(3, 7),)),
    "isin": (lambda x, y: (torch.isin(x, y), torch.isin(x, 3, invert=True)), (i(9, 3, 7), i(9, 4))),
    "searchsorted": (
        lambda x, y: (torch.searchsorted(x, y), torch.searchsorted(x, y, side="right", out_int32=True)),
        (i(9, 3, 7).sort().values, i(12, 3, 4)),
    ),
    "bucketize_special": (lambda x, y: torch.bucketize(x, y, right=True), (special(3, 7), t([-1.0, 0, 2]))),
    "cdist": (lambda x, y: (torch.cdist(x, y), torch.cdist(x, y, p=1)), (n(2, 3, 5), n(4, 5))),
    "cdist_largest": (lambda x, y: torch.cdist(x, y, p=INF), (n(2, 3, 5), n(2, 4, 5))),
    "cdist_0": (lambda x, y: torch.cdist(x.round(), y.round(), p=0), (n(3, 5), n(4, 5))),
    "pdist": (lambda x: F.pdist(x, 3.0), (n(5, 3),)),
    "bilinear": (lambda x, y, w, b: F.bilinear(x, y, w, b), (n(2, 3), n(2, 4), n(5, 3, 4), n(5))),
    "addbmm": (lambda a, x, y: torch.addbmm(a, x, y, beta=0.5, alpha=2), (n(3, 5), n(2, 3, 4), n(2, 4, 5))),
    "quantile": (lambda x, q: torch.quantile(x, q, dim=1), (n(3, 7), t([0.1, 0.5, 1.0]))),
    "vmap": (
        lambda x, w: torch.vmap(torch.vmap(torch.dot, (None, 0)), (0, None))(x, w),
        (n(3, 5), n(4, 5)),
    ),
    "vmap_reduced": (lambda x: torch.vmap(lambda y: y.sum() * y, in_dims=1)(x), (n(3, 5),)),
    "transpose_in_place": (lambda x: (x + 1).transpose_(0, 1), (n(3, 7),)),
    "pow_in_place": (lambda x, y: (x + 1).pow_(2).pow_(y), (n(3, 7), n(3, 7))),
    "alpha_dropout_of_inference": (lambda x: F.alpha_dropout(x, 0.5, training=False) + 1, (n(3, 7),)),
    "rrelu_of_inference": (lambda x: F.rrelu(x, training=False), (n(3, 7),)),
}  # fmt: skip
