"""Small calls of special functions, at their limits too, and of what is made of other operations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from call_values import Call, WithBuffers, i, n, p

t = torch.tensor
INF, NAN = float("inf"), float("nan")
LIMITS = t(
    [
        0.0,
        -0.0,
        1.0,
        -1.0,
        1e-30,
        INF,
        -INF,
        NAN,
        0.5,
        -0.5,
        1.5,
        -1.5,
        0.09,
        3.0,
        5.1,
        9.5,
        20.5,
        -20.5,
        60.0,
    ]
)
ORDERS = t([[1.0], [1.5], [2.0], [10.0], [30.0], [0.5], [NAN]])
SMALLEST = t([-(2**31), 2**31 - 1, 0, 1, -6, 15, 4], dtype=torch.int32)


def _in_both_precisions(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return function(x), function(y.double())


def _inverses(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = F.linear(x, w)
    return y.sigmoid().erfinv(), torch.special.i1e(F.linear(x, w))


SPECIAL: dict[str, Call] = {
    **{
        name: (partial(_in_both_precisions, getattr(torch.special, name)), (LIMITS, n(5, 7) * 3))
        for name in ("erfinv", "ndtri", "erfcx", "log_ndtr", "i0e", "i1e", "digamma")
    },
    **{
        name: (partial(_in_both_precisions, getattr(torch.special, name)), (LIMITS, n(5, 7) * 12))
        for name in (
            *("spherical_bessel_j0", "modified_bessel_k0", "modified_bessel_k1"),
            *("scaled_modified_bessel_k0", "scaled_modified_bessel_k1"),
        )
    },
    "modified_bessel_i": (
        lambda x: (torch.special.modified_bessel_i0(x), torch.special.modified_bessel_i1(x)),
        (n(3, 7) * 3,),
    ),
    "i0_i1": (lambda x: (torch.i0(x), torch.special.i1(x)), (LIMITS.clamp(-9, 9),)),
    "polygamma": (lambda x: [torch.polygamma(k, x) for k in range(4)], (p(3, 7) + 0.3,)),
    "polygamma_limits": (lambda x: torch.polygamma(1, x), (t([0.0, INF, -INF, NAN, 1.0, 0.3, -0.3, 1e9]),)),
    "zeta": (
        lambda s, q: (torch.special.zeta(s, q), torch.special.zeta(2.5, q), torch.special.zeta(s, 1.5)),
        (ORDERS, t([0.5, 1.0, 2.5, 100.0, 1e9, -0.5, -2.0, 0.0, INF])),
    ),
    "special_half": (lambda x: (torch.digamma(x), torch.i0(x).erfinv()), ((p(3, 5) * 2).half(),)),
    "special_after_linear": (
        WithBuffers(_inverses, n(8, 5)),
        (n(3, 5),),
    ),
    "gcd_lcm": (lambda x, y: (torch.gcd(x, y), torch.lcm(x, y)), (i(99, 5, 7, low=-99), i(60, 7))),
    "gcd_smallest": (lambda x: (torch.gcd(x[:, None], x), torch.gcd(x.to(torch.int8), x)), (SMALLEST,)),
    "frexp": (torch.frexp, (t([0.0, -0.0, 1.0, -1.0, 0.5, 3e38, 2e-38, INF, -INF, NAN, 7.3]),)),
    "frexp_double": (torch.frexp, (t([1e300, 1e-310, -7.3], dtype=torch.float64),)),
    "int_mm": (lambda x, y: torch._int_mm(x.to(torch.int8), y.to(torch.int8)), (i(99, 20, 8), i(127, 8, 16))),
    "mode": (lambda x: (x.mode(1)[0], x.mode(0, True)[0], (x > 1).mode(1)[0]), (i(3, 5, 9),)),
    "mode_of_different": (torch.mode, (n(5, 7),)),
    "mode_nan": (lambda x: torch.mode(x, 1)[0], (t([[NAN, 1.0, NAN], [NAN, 1.0, 1.0], [NAN, NAN, NAN]]),)),
    **{
        f"diagonal_scatter_{offset}".replace("-", "minus_"): (
            partial(torch.diagonal_scatter, offset=offset),
            (n(4, 6), n(4, 6, seed=1).diagonal(offset).clone()),
        )
        for offset in (0, 2, -1, 5)
    },
    "diagonal_scatter_dims": (
        lambda x, y: torch.diagonal_scatter(x, y, 1, -1, 0),
        (i(9, 4, 3, 6), i(9, 4, 3, 6, dtype=torch.int32).diagonal(1, -1, 0).clone()),
    ),
    "as_strided_copy": (lambda x: torch.as_strided_copy(x, (2, 3), (1, 2), 3), (n(3, 5),)),
    "empty_permuted": (lambda x: (torch.empty_permuted((3, 5), (1, 0)) * 0 + x, x), (n(3, 5),)),
    "fake_quantize": (
        lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, -128, 127),
        (torch.cat([n(29) * 9, t([NAN, INF, -INF, 0.05, 0.15, 0.25])]),),
    ),
    "fake_quantize_tensors": (
        lambda x, s, z: torch.fake_quantize_per_tensor_affine(x, s, z, 0, 255),
        (n(29), t([0.03]), t([100], dtype=torch.int32)),
    ),
    "fake_quantize_channels": (
        lambda x, s, z: torch.fake_quantize_per_channel_affine(x, s, z, 1, -128, 127),
        (n(3, 4, 5), p(4), i(3, 4, dtype=torch.int32)),
    ),
    **{
        f"grid_3d_{mode}_{padding}{'_corners' * corners}": (
            partial(F.grid_sample, mode=mode, padding_mode=padding, align_corners=corners),
            (n(2, 3, 3, 4, 5), n(2, 2, 3, 4, 3)),
        )
        for mode, padding, corners in product(
            ("bilinear", "nearest"), ("zeros", "border", "reflection"), (False, True)
        )
    },
}  # fmt: skip
