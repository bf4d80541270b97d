"""Small calls of PyTorch as users write them: what each overload's arguments mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Tensors = tuple[torch.Tensor, ...]
Call = tuple[Callable[..., Any], Tensors]


def n(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape) + len(shape)))


def p(*shape: int, seed: int = 0) -> torch.Tensor:
    """Positive numbers."""
    return n(*shape, seed=seed).abs() + 0.1


def i(high: int, *shape: int, low: int = 0, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Whole numbers from ``low`` below ``high``."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(high), dtype=dtype)


def special(*shape: int) -> torch.Tensor:
    """Normal numbers with NaN, infinities and zeros among them."""
    x = n(*shape)
    flat = x.view(-1)
    for index, value in enumerate((float("nan"), float("inf"), -float("inf"), 0.0, -0.0)):
        flat[index * 3 % flat.numel()] = value
    return x


class WithBuffers(nn.Module):
    """A module around ``function(x, ...)`` whose other arguments are buffers or parameters."""

    def __init__(self, function: Callable[..., Any], *tensors: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        for index, tensor in enumerate(tensors):
            self.register_buffer(f"t{index}", tensor)
        self.count = len(tensors)

    def forward(self, *xs: torch.Tensor) -> Any:
        return self.function(*xs, *(getattr(self, f"t{k}") for k in range(self.count)))


def randomised(module: nn.Module) -> nn.Module:
    """The module with numbers that vary in every parameter and buffer, variances positive."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(values.abs() + 0.2 if name.endswith("var") else values)
    return module.eval()


def _conv(*args: Any, **options: Any) -> nn.Module:
    return randomised(nn.Conv2d(*args, **options))


ELEMENTWISE: dict[str, Call] = {
    "add_alpha": (lambda x, y: torch.add(x, y, alpha=-2.5), (n(3, 7), n(7))),
    "add_alpha_scalar": (lambda x: torch.add(x, 3, alpha=2), (n(3, 7),)),
    "add_scalar_tensor_int_float": (lambda x: x + 1.5, (i(9, 3, 7),)),
    "add_int_bool": (lambda x, y: x + y, (i(9, 5), i(2, 5).bool())),
    "add_bool_scalar": (lambda x: x + 1, (i(2, 5).bool(),)),
    "add_f32_f64": (lambda x, y: x + y, (n(5), n(5).double())),
    "add_f32_zero_dim_f64": (lambda x, y: x + y, (n(5), torch.tensor(0.5, dtype=torch.float64))),
    "add_int_zero_dim_float": (lambda x, y: x + y, (i(9, 5), torch.tensor(0.5))),
    "add_i32_i64": (lambda x, y: x + y, (i(9, 5, dtype=torch.int32), i(9, 5))),
    "add_u8_i8": (lambda x, y: x + y, (i(9, 5, dtype=torch.uint8), i(9, 5, low=-9, dtype=torch.int8))),
    "add_u8_wraps": (lambda x, y: x + y, (i(255, 29, dtype=torch.uint8), i(250, 29, dtype=torch.uint8))),
    "broadcast_both": (lambda x, y: x * y, (n(4, 1, 3), n(5, 1))),
    "broadcast_scalar_tensor": (lambda x, y: x - y, (n(2, 3, 5), torch.tensor(0.7))),
    "sub_alpha": (lambda x, y: torch.sub(x, y, alpha=3), (n(2, 3), n(2, 3, seed=1))),
    "rsub": (lambda x: 2 - x, (n(3, 5),)),
    "rsub_alpha": (lambda x, y: torch.rsub(x, y, alpha=2), (n(3, 5), n(3, 5, seed=1))),
    "rsub_scalar_alpha": (lambda x: torch.rsub(x, 3, alpha=2), (n(3, 5),)),
    "mul_scalar": (lambda x: x * -3, (n(3, 5),)),
    "mul_int_float_scalar": (lambda x: x * 0.5, (i(9, 3, 5),)),
    "mul_bool": (lambda x, y: x * y, (i(2, 9).bool(), i(2, 9).bool().flip(0))),
    "div_scalar": (lambda x: x / 3, (n(3, 5),)),
    "div_int": (lambda x, y: x / y, (i(9, 3, 5), i(9, 3, 5, low=1))),
    "div_floor": (lambda x, y: torch.div(x, y, rounding_mode="floor"), (n(3, 5), n(3, 5, seed=3))),
    "div_trunc": (lambda x, y: torch.div(x, y, rounding_mode="trunc"), (n(3, 5) * 9, n(3, 5, seed=3))),
    "div_trunc_int": (
        lambda x, y: torch.div(x, y, rounding_mode="trunc"),
        (i(40, 29, low=-40), i(9, 29, low=1)),
    ),
    "floor_divide_int": (lambda x, y: x // y, (i(40, 29, low=-40), i(9, 29, low=1))),
    "floor_divide_scalar": (lambda x: x // 3, (i(40, 29, low=-40),)),
    "floor_divide_negative": (lambda x: x // -3, (i(40, 29, low=-40),)),
    "floor_divide_float": (lambda x: x // 0.7, (n(29) * 9,)),
    "scalar_over_tensor": (lambda x: 3 / x, (p(3, 5),)),
    "remainder_int": (lambda x: x % 5, (i(40, 29, low=-40),)),
    "remainder_negative": (lambda x: x % -5, (i(40, 29, low=-40),)),
    "remainder_float": (lambda x: x % 0.75, (n(29) * 3,)),
    "remainder_tensor": (lambda x, y: torch.remainder(x, y), (n(3, 5) * 3, n(3, 5, seed=2))),
    "fmod_float": (lambda x: torch.fmod(x, 0.75), (n(29) * 3,)),
    "fmod_int": (lambda x, y: torch.fmod(x, y), (i(40, 29, low=-40), i(9, 29, low=1))),
    "pow_2": (lambda x: x**2, (n(3, 5),)),
    "pow_3": (lambda x: x**3, (n(3, 5),)),
    "pow_half": (lambda x: x**0.5, (p(3, 5),)),
    "pow_zero": (lambda x: x**0, (n(3, 5),)),
    "pow_negative": (lambda x: x**-2, (p(3, 5),)),
    "pow_tensor": (lambda x, y: x**y, (p(3, 5), n(3, 5))),
    "pow_scalar_base": (lambda x: 2**x, (n(3, 5),)),
    "pow_negative_base": (lambda x: x**5, (n(3, 5),)),
    "pow_int": (lambda x: x**2, (i(9, 3, 5, low=-9),)),
    "square": (torch.square, (n(3, 5),)),
    "neg_int": (lambda x: -x, (i(9, 3, 5),)),
    "abs_int": (lambda x: torch.abs(x), (i(9, 3, 5, low=-9),)),
    "sign": (torch.sign, (special(3, 7),)),
    "sign_int": (torch.sign, (i(3, 9, low=-3),)),
    "exp_int": (torch.exp, (i(4, 3, 5),)),
    "log1p": (torch.log1p, (p(3, 5) * 0.01,)),
    "expm1": (torch.expm1, (n(3, 5) * 0.01,)),
    "log2_log10": (lambda x: torch.log2(x) + torch.log10(x), (p(3, 5),)),
    "exp2": (torch.exp2, (n(3, 5),)),
    "sin_cos_int": (lambda x: torch.sin(x) + torch.cos(x), (i(9, 5),)),
    "tan_atan": (lambda x: torch.tan(x) + torch.atan(x), (n(3, 5) * 0.5,)),
    "atan2": (torch.atan2, (n(3, 5), n(3, 5, seed=4))),
    "sinh_cosh": (lambda x: torch.sinh(x) + torch.cosh(x), (n(3, 5),)),
    "asin_acos": (lambda x: torch.asin(x) * 2 + torch.acos(x), (n(3, 5).tanh(),)),
    "round_half_even": (torch.round, (torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 2.4999]),)),
    "floor_int": (torch.floor, (i(9, 5),)),
    "frac": (lambda x: torch.frac(x), (n(3, 5) * 4,)),
    "clamp": (lambda x: x.clamp(-0.5, 0.7), (n(3, 5),)),
    "clamp_min_only": (lambda x: x.clamp(min=-0.5), (n(3, 5),)),
    "clamp_max_only": (lambda x: x.clamp(max=0.5), (n(3, 5),)),
    "clamp_int_float": (lambda x: x.clamp(min=1.5), (i(5, 9),)),
    "clamp_tensor": (lambda x, y: torch.clamp(x, min=y), (n(3, 5), n(5))),
    "clamp_zero_nan": (lambda x: x.clamp(0, 1), (special(3, 7),)),
    "minimum_nan": (torch.minimum, (special(3, 7), n(3, 7, seed=5))),
    "maximum_nan": (torch.maximum, (n(3, 7, seed=5), special(3, 7))),
    "relu_nan": (torch.relu, (special(3, 7),)),
    "relu6_nan": (F.relu6, (special(3, 7) * 4,)),
    "sigmoid_extreme": (torch.sigmoid, (torch.tensor([-200.0, -90.0, 0.0, 30.0, 200.0]),)),
    "silu_extreme": (F.silu, (torch.tensor([-200.0, -50.0, 0.0, 30.0, 200.0]),)),
    "tanh_extreme": (torch.tanh, (torch.tensor([-200.0, 0.1, 200.0]),)),
    "softplus": (F.softplus, (n(3, 7) * 20,)),
    "softplus_beta": (lambda x: F.softplus(x, beta=2, threshold=3), (n(3, 7) * 5,)),
    "elu": (F.elu, (n(3, 7),)),
    "elu_alpha": (lambda x: F.elu(x, alpha=0.3), (n(3, 7),)),
    "selu": (F.selu, (n(3, 7),)),
    "celu": (lambda x: F.celu(x, alpha=0.7), (n(3, 7),)),
    "mish": (F.mish, (n(3, 7) * 10,)),
    "hardswish": (F.hardswish, (n(3, 7) * 4,)),
    "hardsigmoid": (F.hardsigmoid, (n(3, 7) * 4,)),
    "hardtanh": (lambda x: F.hardtanh(x, -0.3, 0.4), (n(3, 7),)),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), (n(3, 7),)),
    "leaky_relu_nan": (lambda x: F.leaky_relu(x, 0.2), (special(3, 7),)),
    "leaky_relu_negative_slope": (lambda x: F.leaky_relu(x, -0.2), (n(3, 7),)),
    "prelu": (randomised(nn.PReLU(3)), (n(2, 3, 5),)),
    "prelu_shared": (randomised(nn.PReLU()), (n(2, 3, 5),)),
    "softsign": (F.softsign, (n(3, 7),)),
    "softshrink": (lambda x: F.softshrink(x, 0.3), (n(3, 7),)),
    "hardshrink": (lambda x: F.hardshrink(x, 0.3), (n(3, 7),)),
    "threshold": (lambda x: F.threshold(x, 0.1, 20.0), (n(3, 7),)),
    "logsigmoid": (F.logsigmoid, (n(3, 7) * 20,)),
    "tanhshrink": (F.tanhshrink, (n(3, 7),)),
    "gelu": (F.gelu, (n(3, 7) * 3,)),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), (n(3, 7) * 3,)),
    "glu": (lambda x: F.glu(x, 1), (n(3, 8),)),
    "eq_scalar": (lambda x: x == 2, (i(4, 3, 5),)),
    "eq_int_with_fraction": (lambda x: x > 1.5, (i(4, 3, 5),)),
    "ne_tensor": (lambda x, y: x != y, (i(3, 3, 5), i(3, 5))),
    "lt_mixed": (lambda x, y: x < y, (i(3, 3, 5), n(3, 5))),
    "compare_nan": (lambda x, y: (x > y, x <= y, x == x, x != x), (special(3, 7), n(3, 7))),
    "isnan": (torch.isnan, (special(3, 7),)),
    "isinf": (torch.isinf, (special(3, 7),)),
    "isfinite": (torch.isfinite, (special(3, 7),)),
    "nan_to_num": (lambda x: torch.nan_to_num(x, 0.5), (special(3, 7),)),
    "logical": (
        lambda x, y: torch.logical_and(x, y) | torch.logical_not(x),
        (i(2, 9), i(3, 9).float()),
    ),
    "logical_xor": (torch.logical_xor, (i(2, 9), i(3, 9))),
    "bool_and_or_not": (lambda x, y: (x & y) | ~x, (i(2, 9).bool(), i(3, 9).bool())),
    "bitwise_int": (lambda x, y: (x & y) | (x ^ 5), (i(99, 9), i(77, 9))),
    "bitwise_not_int": (lambda x: ~x, (i(99, 9, low=-99),)),
    "shift": (lambda x: (x << 2) + (x >> 1), (i(99, 9),)),
    "where": (lambda c, x, y: torch.where(c, x, y), (i(2, 3, 5).bool(), n(3, 5), n(5))),
    "where_scalar": (lambda c, x: torch.where(c, x, 0.5), (i(2, 3, 5).bool(), n(3, 5))),
    "where_scalars": (lambda c: torch.where(c, 1.0, -2.0), (i(2, 3, 5).bool(),)),
    "where_promote": (lambda c, x, y: torch.where(c, x, y), (i(2, 5).bool(), n(5), i(9, 5))),
    "masked_fill": (lambda x, m: x.masked_fill(m, -1e9), (n(3, 5), i(2, 3, 5).bool())),
    "masked_fill_inf": (lambda x, m: x.masked_fill(m, float("-inf")), (n(2, 3, 5), i(2, 5).bool())),
    "addcmul": (lambda x, y, z: torch.addcmul(x, y, z, value=0.5), (n(3, 5), n(5), n(3, 1))),
    "addcdiv": (lambda x, y, z: torch.addcdiv(x, y, z, value=0.5), (n(3, 5), n(5), p(3, 1))),
    "lerp": (lambda x, y: torch.lerp(x, y, 0.3), (n(3, 5), n(3, 5, seed=1))),
    "lerp_tensor": (torch.lerp, (n(3, 5), n(3, 5, seed=1), p(3, 5))),
    "hypot_like": (lambda x, y: torch.sqrt(x * x + y * y), (n(3, 5), n(3, 5, seed=1))),
    "to_dtypes": (lambda x: (x.to(torch.int64), x.int(), x.double(), x.bool()), (n(3, 5) * 3,)),
    "to_float": (lambda x: x.float() / 255, (i(255, 3, 5, dtype=torch.uint8),)),
    "type_as": (lambda x, y: x.type_as(y), (i(9, 5), n(2))),
    "float_to_uint8": (lambda x: x.to(torch.uint8), (p(3, 5) * 40,)),
    "identities": (lambda x: (x * 1 + 0).contiguous().clone(), (n(3, 5),)),
    "dropout_eval": (nn.Dropout(0.5).eval(), (n(3, 5),)),
    "inplace_chain": (lambda x: (x + 1).relu_().mul_(2).add_(0.5).clamp_(0, 3), (n(3, 5),)),
    "deep_chain": (lambda x: torch.tanh(torch.exp(-(x * 0.5 + 1).abs()) * 3 - 0.2).sigmoid(), (n(3, 29),)),
    "reciprocal_rsqrt": (lambda x: torch.reciprocal(x) + torch.rsqrt(x), (p(3, 5),)),
    "erf": (torch.erf, (n(3, 5),)),
}

VIEWS: dict[str, Call] = {
    "slice_step": (lambda x: x[:, 1::3], (n(3, 11),)),
    "slice_negative": (lambda x: x[-3:-1], (n(7, 5),)),
    "slice_beyond": (lambda x: x[2:100], (n(7, 5),)),
    "slice_empty": (lambda x: x[5:2], (n(7, 5),)),
    "slice_ellipsis": (lambda x: x[..., None, 2:], (n(2, 3, 5),)),
    "select_negative": (lambda x: x.select(1, -2), (n(3, 5, 2),)),
    "index_ints": (lambda x: x[1, -1], (n(3, 5, 2),)),
    "narrow": (lambda x: torch.narrow(x, 1, 2, 3), (n(3, 7),)),
    "split": (lambda x: torch.split(x, 3, dim=1), (n(2, 7),)),
    "split_sizes": (lambda x: torch.split(x, [1, 4, 2], dim=-1), (n(2, 7),)),
    "chunk_uneven": (lambda x: torch.chunk(x, 3, dim=0), (n(7, 2),)),
    "tensor_split": (lambda x: torch.tensor_split(x, 3, dim=1), (n(2, 7),)),
    "unbind": (lambda x: torch.unbind(x, -1), (n(2, 3),)),
    "unbind_then_sum": (lambda x: sum(torch.unbind(x, 0)), (n(4, 3),)),
    "cat_3": (lambda x, y, z: torch.cat([x, y, z], dim=-1), (n(2, 3), n(2, 1), n(2, 5))),
    "cat_empty": (lambda x, y: torch.cat([x, y]), (torch.zeros(0), n(3, 2))),
    "cat_promote": (lambda x, y: torch.cat([x, y]), (n(3), i(5, 2))),
    "cat_of_slices": (lambda x: torch.cat([x[:, 3:], -x[:, :3]], dim=1), (n(2, 7),)),
    "cat_same_twice": (lambda x: torch.cat([x, x], 1), (n(2, 3, 5, 5),)),
    "stack": (lambda x, y: torch.stack([x, y], dim=-1), (n(2, 3), n(2, 3, seed=1))),
    "hstack_vstack": (
        lambda x, y: torch.hstack([torch.vstack([x, y]), torch.vstack([y, x])]),
        (n(3), n(3, seed=1)),
    ),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 3), value=0.5), (n(2, 3, 4),)),
    "pad_negative": (lambda x: F.pad(x, (-1, 2, 1, -1)), (n(2, 3, 4, 5),)),
    "pad_int": (lambda x: F.pad(x, (1, 1), value=7), (i(9, 2, 3),)),
    "pad_reflect": (lambda x: F.pad(x, (2, 1, 1, 2), mode="reflect"), (n(1, 2, 5, 7),)),
    "pad_replicate": (lambda x: F.pad(x, (2, 1, 1, 2), mode="replicate"), (n(1, 2, 5, 7),)),
    "pad_circular": (lambda x: F.pad(x, (2, 1), mode="circular"), (n(1, 2, 7),)),
    "repeat": (lambda x: x.repeat(2, 1, 3), (n(3, 2),)),
    "repeat_interleave": (lambda x: x.repeat_interleave(3, dim=1), (n(2, 5),)),
    "tile": (lambda x: torch.tile(x, (2, 2)), (n(3, 2),)),
    "expand": (lambda x: x.expand(4, -1, 5), (n(3, 1),)),
    "expand_then_add": (lambda x, y: x.expand(3, 5) + y, (n(5), n(3, 1))),
    "expand_reshape": (lambda x: x.expand(3, 5).reshape(15), (n(5),)),
    "permute_negative": (lambda x: x.permute(-1, 0, 1) * 2, (n(2, 3, 5),)),
    "transpose_view": (lambda x: x.transpose(1, -1).reshape(2, -1), (n(2, 3, 5),)),
    "T_mT": (lambda x: x.mT + x.transpose(-1, -2), (n(2, 3, 5),)),
    "movedim": (lambda x: torch.movedim(x, 0, 2), (n(2, 3, 5),)),
    "swapaxes": (lambda x: x.swapaxes(0, 1), (n(2, 3, 5),)),
    "flatten": (lambda x: torch.flatten(x, 1), (n(2, 3, 5),)),
    "flatten_scalar": (lambda x: x.sum().flatten(), (n(3),)),
    "unflatten": (lambda x: x.unflatten(1, (3, -1)), (n(2, 12),)),
    "squeeze_unsqueeze": (lambda x: x.squeeze(1).unsqueeze(-1).squeeze(), (n(3, 1, 5),)),
    "view_dims": (lambda x: x.view(3, -1).view(-1), (n(3, 4, 5),)),
    "flip": (lambda x: torch.flip(x, (0, -1)), (n(3, 4, 5),)),
    "roll": (lambda x: torch.roll(x, (2, -1), (0, 1)), (n(3, 5),)),
    "roll_flat": (lambda x: torch.roll(x, 4), (n(3, 5),)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), (n(2, 12, 3, 5),)),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), (n(2, 3, 4, 6),)),
    "channel_shuffle": (
        lambda x: x.view(2, 2, 3, 5, 5).transpose(1, 2).reshape(2, 6, 5, 5),
        (n(2, 6, 5, 5),),
    ),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), (n(2, 3, 4, 5),)),
    "nearest_size": (lambda x: F.interpolate(x, size=(7, 3), mode="nearest"), (n(2, 3, 4, 5),)),
    "bilinear": (lambda x: F.interpolate(x, size=(7, 9), mode="bilinear"), (n(2, 3, 4, 5),)),
    "bilinear_corners": (
        lambda x: F.interpolate(x, size=(7, 9), mode="bilinear", align_corners=True),
        (n(2, 3, 4, 5),),
    ),
    "tril": (torch.tril, (n(5, 7),)),
    "triu_1": (lambda x: torch.triu(x, 1), (n(2, 5, 5),)),
    "diagonal": (lambda x: torch.diagonal(x, 0, 0, 1), (n(4, 4),)),
    "unfold_dim": (lambda x: x.unfold(1, 3, 2), (n(2, 9),)),
    "index_select": (lambda x: torch.index_select(x, 1, torch.tensor([2, 0, 2])), (n(3, 4),)),
    "index_select_runtime": (lambda x, k: torch.index_select(x, 0, k), (n(5, 4), i(5, 3))),
    "index_tensor": (lambda x, k: x[k], (n(5, 4), i(5, 2, 3))),
    "index_middle": (lambda x, k: x[:, k], (n(2, 5, 3), i(5, 4))),
    "index_constant": (lambda x: x[:, [2, 0, 1, 1]], (n(2, 3),)),
    "gather": (lambda x, k: torch.gather(x, 1, k), (n(3, 5), i(5, 3, 2))),
    "take_along": (lambda x, k: torch.take_along_dim(x, k, 0), (n(5, 3), i(5, 2, 3))),
    "embedding": (randomised(nn.Embedding(11, 6)), (i(11, 2, 3),)),
    "embedding_padding": (nn.Embedding(11, 6, padding_idx=0), (i(11, 7),)),
    "embedding_runtime": (lambda table, k: F.embedding(k, table), (n(7, 5), i(7, 3))),
    "embedding_i32": (randomised(nn.Embedding(5, 3)), (i(5, 7, dtype=torch.int32),)),
    "one_hot": (lambda x: F.one_hot(x, 5), (i(5, 7),)),
    "cumsum": (lambda x: torch.cumsum(x, 1), (n(3, 7),)),
    "cumsum_dim0_int": (lambda x: torch.cumsum(x, 0), (i(9, 5, 3),)),
    "cumsum_bool": (lambda x: torch.cumsum(x, -1), (i(2, 3, 7).bool(),)),
    "cumprod": (lambda x: torch.cumprod(x, 1), (p(3, 5),)),
    "meshgrid": (lambda x, y: torch.meshgrid(x, y, indexing="ij"), (n(3), n(5))),
    "slice_scatter": (lambda x, y: torch.slice_scatter(x, y, 1, 1, 5, 2), (n(3, 7), n(3, 2))),
    "select_scatter": (lambda x, y: torch.select_scatter(x, y, 0, -1), (n(3, 7), n(7))),
    "index_copy": (lambda x, k, y: x.index_copy(0, k, y), (n(5, 3), torch.tensor([3, 1]), n(2, 3))),
    "index_put": (
        lambda x, k, y: x.index_put((k,), y),
        (n(5, 3), torch.tensor([3, 1]), n(2, 3)),
    ),
    "index_put_dim1": (
        lambda x, k, y: torch.ops.aten.index_put(x, [None, k], y),
        (n(2, 5, 3), torch.tensor([3, 1]), n(2, 2, 3)),
    ),
    "scatter": (lambda x, k, y: x.scatter(1, k, y), (n(3, 5), torch.tensor([[1], [0], [4]]), n(3, 1))),
    "assign_slice": (lambda x, y: _assigned(x, y), (n(3, 7), n(3, 2))),
}


def _assigned(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    z = x.clone()
    z[:, 2:4] = y
    z[0] = 0.5
    return z


CREATION: dict[str, Call] = {
    "zeros_ones_full": (
        lambda x: x + torch.zeros(3, 5) + torch.ones(5) * torch.full((3, 1), 2.5),
        (n(3, 5),),
    ),
    "likes": (lambda x: torch.zeros_like(x) + torch.ones_like(x) + torch.full_like(x, 3.5) + x, (n(3, 5),)),
    "new": (lambda x: x.new_zeros(5) + x.new_ones(5) + x.new_full((5,), 2.0) + x, (n(3, 5),)),
    "arange": (lambda x: x + torch.arange(5), (n(3, 5),)),
    "arange_step": (lambda x: x * torch.arange(1, 11, 2).float(), (n(3, 5),)),
    "arange_float": (lambda x: x * torch.arange(0, 1, 0.2), (n(3, 5),)),
    "linspace": (lambda x: x * torch.linspace(-1, 1, 5), (n(3, 5),)),
    "eye": (lambda x: x + torch.eye(5), (n(5, 5),)),
    "tensor_constant": (lambda x: x + torch.tensor([1.0, 2.0, 3.0]), (n(2, 3),)),
    "scalar_tensor": (lambda x: torch.where(x > 0, x, torch.tensor(-1.0)), (n(2, 3),)),
    "only_constant": (lambda x: (torch.arange(5) * 2, x), (n(3),)),
    "causal_mask": (
        lambda x: x.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), float("-inf")).softmax(-1),
        (n(2, 5, 5),),
    ),
}

REDUCTIONS: dict[str, Call] = {
    "sum_all": (torch.sum, (n(3, 5, 7),)),
    "sum_dims": (lambda x: x.sum((0, -1)), (n(3, 5, 7),)),
    "sum_keepdim": (lambda x: x.sum(-1, keepdim=True), (n(3, 5, 7),)),
    "sum_int_promotes": (lambda x: x.sum(1), (i(9, 3, 5, dtype=torch.int32),)),
    "sum_bool": (lambda x: x.sum(), (i(2, 3, 5).bool(),)),
    "sum_dtype": (lambda x: x.sum(0, dtype=torch.float64), (n(3, 5),)),
    "mean_dims": (lambda x: x.mean((1, 2)), (n(3, 5, 7),)),
    "mean_middle": (lambda x: x.mean(1, keepdim=True), (n(3, 5, 7),)),
    "mean_all": (torch.mean, (n(3, 5),)),
    "mean_of_permuted": (lambda x: x.permute(2, 0, 1).mean(0), (n(3, 5, 7),)),
    "amax_amin": (lambda x: x.amax((0, 2)) + x.amin((0, 2)), (n(3, 5, 7),)),
    "amax_nan": (lambda x: x.amax(1), (special(3, 7),)),
    "max_all": (torch.max, (n(3, 5),)),
    "min_all_int": (torch.min, (i(99, 3, 5),)),
    "max_dim": (lambda x: torch.max(x, 1), (n(3, 5, 2),)),
    "max_dim_keepdim": (lambda x: torch.max(x, -1, keepdim=True), (n(3, 5, 2),)),
    "min_dim_ties": (lambda x: torch.min(x, 0), (i(3, 7, 5),)),
    "max_dim_nan": (lambda x: torch.max(x, 1), (special(3, 7),)),
    "argmax": (lambda x: torch.argmax(x), (n(3, 5),)),
    "argmax_dim": (lambda x: torch.argmax(x, 1), (n(3, 5, 2),)),
    "argmin_keepdim": (lambda x: torch.argmin(x, 0, keepdim=True), (n(3, 5),)),
    "argmax_permuted": (lambda x: torch.argmax(x.transpose(0, 1)), (n(3, 5),)),
    "prod": (lambda x: x.prod(1), (p(3, 5),)),
    "prod_all": (torch.prod, (p(7),)),
    "any_all": (lambda x: (torch.any(x > 1, 1), torch.all(x > -1, 0)), (n(3, 5),)),
    "any_float": (lambda x: torch.any(x), (torch.tensor([0.0, 0.0, 0.5]),)),
    "any_int_all": (lambda x: (torch.any(x), torch.all(x, 1)), (i(2, 3, 5),)),
    "any_flat": (lambda x: torch.any(x.flatten()), (i(2, 3, 5).bool(),)),
    "var": (lambda x: x.var(1), (n(3, 7),)),
    "var_biased": (lambda x: x.var((0, 1), unbiased=False), (n(3, 7),)),
    "var_correction": (lambda x: torch.var(x, -1, correction=2, keepdim=True), (n(3, 7),)),
    "std": (lambda x: x.std(), (n(3, 7),)),
    "std_dim": (lambda x: x.std(0, keepdim=True), (n(3, 7),)),
    "var_mean": (lambda x: torch.var_mean(x, 1, correction=0), (n(3, 7),)),
    "std_mean": (lambda x: torch.std_mean(x, 1), (n(3, 7),)),
    "norm": (lambda x: torch.linalg.vector_norm(x, dim=1), (n(3, 7),)),
    "norm_1": (lambda x: torch.linalg.vector_norm(x, ord=1, dim=1, keepdim=True), (n(3, 7),)),
    "norm_inf": (lambda x: torch.linalg.vector_norm(x, ord=float("inf")), (n(3, 7),)),
    "normalize": (lambda x: F.normalize(x, dim=1), (n(3, 7),)),
    "cosine_similarity": (lambda x, y: F.cosine_similarity(x, y, dim=1), (n(3, 7), n(3, 7, seed=1))),
    "logsumexp": (lambda x: torch.logsumexp(x, 1), (n(3, 7) * 50,)),
    "softmax": (lambda x: x.softmax(-1), (n(3, 7) * 30,)),
    "softmax_dim0": (lambda x: x.softmax(0), (n(3, 7),)),
    "softmax_middle": (lambda x: x.softmax(1), (n(2, 5, 3),)),
    "softmax_dtype": (lambda x: x.softmax(-1, dtype=torch.float64), (n(3, 7),)),
    "softmax_minus_inf": (lambda x: x.softmax(-1), (torch.tensor([[-float("inf"), 1.0, 2.0]]),)),
    "softmin": (lambda x: F.softmin(x, 1), (n(3, 7),)),
    "log_softmax": (lambda x: x.log_softmax(0), (n(3, 7) * 30,)),
    "rank_0": (lambda x: x.sum().softmax(0) + x.sum().max(), (n(5),)),
    "sum_of_rank_0": (lambda x: x.mean().sum(), (n(5),)),
    "count_nonzero": (lambda x: (x != 0).sum(1), (i(2, 3, 5),)),
}

NORMS: dict[str, Call] = {
    "layer_norm": (randomised(nn.LayerNorm(7)), (n(3, 7),)),
    "layer_norm_2d": (randomised(nn.LayerNorm((5, 7))), (n(3, 5, 7),)),
    "layer_norm_plain": (nn.LayerNorm(7, elementwise_affine=False), (n(3, 7),)),
    "layer_norm_no_bias": (randomised(nn.LayerNorm(7, bias=False)), (n(3, 7),)),
    "layer_norm_bias_only": (WithBuffers(lambda x, b: F.layer_norm(x, (7,), None, b), n(7)), (n(3, 7),)),
    "layer_norm_eps": (randomised(nn.LayerNorm(7, eps=0.3)), (n(2, 3, 7),)),
    "batch_norm": (randomised(nn.BatchNorm2d(5)), (n(2, 5, 3, 3),)),
    "batch_norm_plain": (randomised(nn.BatchNorm2d(5, affine=False)), (n(2, 5, 3, 3),)),
    "batch_norm_1d": (randomised(nn.BatchNorm1d(5)), (n(3, 5),)),
    "batch_norm_1d_length": (randomised(nn.BatchNorm1d(5)), (n(3, 5, 7),)),
    "group_norm": (randomised(nn.GroupNorm(2, 6)), (n(2, 6, 5, 3),)),
    "group_norm_plain": (nn.GroupNorm(3, 6, affine=False), (n(2, 6, 5),)),
    "instance_norm": (randomised(nn.InstanceNorm2d(3, affine=True)), (n(2, 3, 5, 7),)),
    "rms_norm": (randomised(nn.RMSNorm(7)), (n(3, 7),)),
    "rms_norm_eps": (lambda x: F.rms_norm(x, (7,), None, 0.1), (n(3, 7),)),
    "local_response_norm": (lambda x: F.local_response_norm(x, 3), (n(2, 7, 3, 3),)),
}

PRODUCTS: dict[str, Call] = {
    "matmul_1_1": (torch.matmul, (n(7), n(7, seed=1))),
    "matmul_1_2": (torch.matmul, (n(7), n(7, 3))),
    "matmul_2_1": (torch.matmul, (n(3, 7), n(7))),
    "matmul_2_2": (torch.matmul, (n(3, 7), n(7, 5))),
    "matmul_3_1": (torch.matmul, (n(2, 3, 7), n(7))),
    "matmul_1_3": (torch.matmul, (n(7), n(2, 7, 3))),
    "matmul_3_2": (torch.matmul, (n(2, 3, 7), n(7, 5))),
    "matmul_2_3": (torch.matmul, (n(3, 7), n(2, 7, 5))),
    "matmul_3_3": (torch.matmul, (n(2, 3, 7), n(2, 7, 5))),
    "matmul_4_3": (torch.matmul, (n(2, 3, 4, 7), n(3, 7, 5))),
    "matmul_4_4_broadcast": (torch.matmul, (n(2, 1, 4, 7), n(1, 3, 7, 5))),
    "matmul_int": (torch.matmul, (i(9, 3, 7), i(9, 7, 5))),
    "matmul_transposed": (lambda x, y: x @ y.transpose(-1, -2), (n(2, 3, 7), n(2, 5, 7))),
    "matmul_constant": (WithBuffers(torch.matmul, n(7, 5)), (n(3, 7),)),
    "matmul_constant_left": (WithBuffers(lambda x, w: w @ x, n(4, 3)), (n(3, 7),)),
    "matmul_constant_batch": (WithBuffers(torch.matmul, n(2, 7, 5)), (n(2, 3, 7),)),
    "bmm": (torch.bmm, (n(2, 3, 7), n(2, 7, 5))),
    "mv": (torch.mv, (n(3, 7), n(7))),
    "outer": (torch.outer, (n(3), n(5))),
    "einsum": (lambda x, y: torch.einsum("bik,bjk->bij", x, y), (n(2, 3, 7), n(2, 5, 7))),
    "einsum_heads": (lambda x, y: torch.einsum("bhid,bhjd->bhij", x, y), (n(2, 2, 3, 7), n(2, 2, 5, 7))),
    "addmm": (lambda b, x, y: torch.addmm(b, x, y, alpha=0.5, beta=2), (n(5), n(3, 7), n(7, 5))),
    "addmm_beta_0": (lambda b, x, y: torch.addmm(b, x, y, beta=0), (special(3, 5), n(3, 7), n(7, 5))),
    "baddbmm": (lambda b, x, y: torch.baddbmm(b, x, y, alpha=2), (n(2, 3, 5), n(2, 3, 7), n(2, 7, 5))),
    "linear": (randomised(nn.Linear(7, 5)), (n(3, 7),)),
    "linear_no_bias": (randomised(nn.Linear(7, 5, bias=False)), (n(2, 3, 7),)),
    "linear_vector": (randomised(nn.Linear(7, 5)), (n(7),)),
    "linear_runtime_weight": (F.linear, (n(3, 7), n(5, 7), n(5))),
    "linear_runtime_bias": (WithBuffers(lambda x, b, w: F.linear(x, w, b), n(5, 7)), (n(3, 7), n(5))),
    "linear_double": (nn.Linear(7, 5).double(), (n(3, 7).double(),)),
    "linear_of_transposed": (
        WithBuffers(lambda x, w: F.linear(x.transpose(0, 1), w), n(5, 3)),
        (n(3, 7),),
    ),
    "linear_relu_residual": (WithBuffers(lambda x, w: F.relu(F.linear(x, w) + x), n(7, 7)), (n(3, 7),)),
    "bilinear_form": (lambda x, y, z: x @ y @ z, (n(3, 7), n(7, 7), n(7, 2))),
    "attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
        (n(2, 3, 5, 8), n(2, 3, 7, 8), n(2, 3, 7, 8, seed=1)),
    ),
    "attention_causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        (n(2, 3, 5, 8), n(2, 3, 5, 8, seed=2), n(2, 3, 5, 8, seed=1)),
    ),
    "attention_mask": (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m, scale=0.3),
        (n(2, 5, 8), n(2, 7, 8), n(2, 7, 8, seed=1), n(5, 7)),
    ),
    "attention_bool_mask": (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
        (n(2, 1, 5, 8), n(2, 1, 7, 8), n(2, 1, 7, 8, seed=1), i(3, 2, 1, 5, 7).bool()),
    ),
    "attention_masked_row": (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
        (
            n(1, 3, 8),
            n(1, 4, 8),
            n(1, 4, 8, seed=1),
            torch.tensor([[1, 1, 0, 1], [0] * 4, [0, 1, 0, 0]]).bool(),
        ),
    ),
    "attention_grouped": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        (n(1, 4, 5, 8), n(1, 2, 7, 8), n(1, 2, 7, 8, seed=1)),
    ),
    "multihead": (
        randomised(nn.MultiheadAttention(8, 2, batch_first=True)),
        (n(2, 5, 8), n(2, 5, 8, seed=1), n(2, 5, 8, seed=2)),
    ),
    "transformer_layer": (
        randomised(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
        (n(2, 5, 8),),
    ),
}

IMAGES: dict[str, Call] = {
    "conv": (_conv(3, 8, 3), (n(1, 3, 7, 9),)),
    "conv_batch": (_conv(3, 5, 3, padding=1), (n(3, 3, 7, 9),)),
    "conv_unbatched": (_conv(3, 8, 3), (n(3, 7, 9),)),
    "conv_stride": (_conv(3, 8, 3, stride=(2, 1), padding=(1, 2)), (n(1, 3, 9, 9),)),
    "conv_dilation": (_conv(4, 8, 3, dilation=(2, 3), padding=2), (n(1, 4, 11, 11),)),
    "conv_groups": (_conv(6, 9, 3, groups=3), (n(2, 6, 7, 7),)),
    "conv_depthwise": (_conv(5, 5, 3, groups=5, padding=1), (n(2, 5, 7, 7),)),
    "conv_depthwise_multiplier": (_conv(4, 8, 3, groups=4), (n(1, 4, 7, 7),)),
    "conv_same": (_conv(3, 8, 4, padding="same"), (n(1, 3, 7, 9),)),
    "conv_same_dilated": (_conv(3, 8, (2, 3), padding="same", dilation=2), (n(1, 3, 7, 9),)),
    "conv_valid": (_conv(3, 8, 3, padding="valid"), (n(1, 3, 7, 9),)),
    "conv_no_bias": (_conv(3, 8, 1, bias=False), (n(2, 3, 7, 9),)),
    "conv_1x1_stride": (_conv(16, 8, 1, stride=2), (n(1, 16, 7, 7),)),
    "conv_whole_image": (_conv(3, 8, (7, 9)), (n(2, 3, 7, 9),)),
    "conv_replicate_padding": (_conv(3, 8, 3, padding=1, padding_mode="replicate"), (n(1, 3, 7, 9),)),
    "conv_winograd": (_conv(32, 32, 3, padding=1), (n(1, 32, 13, 15),)),
    "conv1d": (randomised(nn.Conv1d(3, 8, 3, stride=2, padding=1)), (n(2, 3, 11),)),
    "conv1d_groups": (randomised(nn.Conv1d(4, 4, 3, groups=4, padding="same")), (n(2, 4, 11),)),
    "conv1d_unbatched": (randomised(nn.Conv1d(3, 8, 3)), (n(3, 11),)),
    "conv3d": (randomised(nn.Conv3d(2, 3, (2, 3, 3), padding=1)), (n(1, 2, 4, 5, 6),)),
    "conv_transpose": (randomised(nn.ConvTranspose2d(3, 5, 3, stride=2, padding=1)), (n(2, 3, 4, 5),)),
    "conv_transpose_output_padding": (
        randomised(nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2)),
        (n(1, 4, 4, 5),),
    ),
    "conv_transpose1d": (randomised(nn.ConvTranspose1d(3, 5, 4, stride=2, dilation=2)), (n(2, 3, 7),)),
    "conv_runtime_weight": (lambda x, w: F.conv2d(x, w, padding=1), (n(1, 3, 5, 5), n(4, 3, 3, 3))),
    "conv_bn_relu": (
        randomised(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())),
        (n(2, 3, 7, 7),),
    ),
    "conv_bias_bn_relu6": (
        randomised(nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.ReLU6())),
        (n(2, 3, 7, 7),),
    ),
    "conv_hardswish": (randomised(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish())), (n(1, 3, 7, 7),)),
    "conv_silu_conv": (
        randomised(nn.Sequential(nn.Conv2d(3, 11, 3, padding=1), nn.SiLU(), nn.Conv2d(11, 5, 1))),
        (n(2, 3, 7, 7),),
    ),
    "conv_flatten_linear": (
        randomised(nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 5 * 5, 7))),
        (n(2, 3, 7, 7),),
    ),
    "two_convs_cat": (
        WithBuffers(
            lambda x, v, w: torch.cat([F.conv2d(x, v), F.conv2d(x, w), x], 1), n(5, 3, 1, 1), n(8, 3, 1, 1)
        ),
        (n(2, 3, 5, 5),),
    ),
    "conv_split": (
        WithBuffers(lambda x, w: F.conv2d(x, w).chunk(2, 1), n(10, 3, 3, 3)),
        (n(2, 3, 5, 5),),
    ),
    "squeeze_excite": (
        WithBuffers(
            lambda x, v, w: (y := F.conv2d(x, v)) * F.conv2d(y.mean((2, 3), keepdim=True), w).sigmoid(),
            n(13, 3, 3, 3),
            n(13, 13, 1, 1),
        ),
        (n(2, 3, 7, 7),),
    ),
    "max_pool": (lambda x: F.max_pool2d(x, 3, 2, 1), (n(1, 3, 9, 9),)),
    "max_pool_ceil": (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), (n(2, 5, 8, 8),)),
    "max_pool_ceil_pad": (lambda x: F.max_pool2d(x, 2, 2, 1, ceil_mode=True), (n(1, 3, 7, 7),)),
    "max_pool_dilation": (lambda x: F.max_pool2d(x, (3, 2), 1, dilation=(2, 1)), (n(1, 3, 9, 9),)),
    "max_pool_nan": (lambda x: F.max_pool2d(x, 2), (special(1, 1, 4, 6),)),
    "max_pool_negative": (lambda x: F.max_pool2d(x, 3, 1, 1), (-p(1, 3, 5, 5),)),
    "max_pool1d": (lambda x: F.max_pool1d(x, 3, 2), (n(2, 3, 11),)),
    "max_pool_indices": (lambda x: F.max_pool2d(x, 2, return_indices=True), (n(1, 3, 4, 6),)),
    "avg_pool": (lambda x: F.avg_pool2d(x, 3, 2, 1), (n(1, 3, 9, 9),)),
    "avg_pool_no_pad_count": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        (n(2, 5, 8, 8),),
    ),
    "avg_pool_ceil": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), (n(1, 3, 8, 8),)),
    "avg_pool_ceil_no_pad_count": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        (n(1, 3, 8, 8),),
    ),
    "avg_pool_divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), (n(1, 3, 8, 8),)),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 3, 2, 1), (n(2, 3, 11),)),
    "avg_pool_unbatched": (lambda x: F.avg_pool2d(x, 2), (n(3, 6, 8),)),
    "adaptive_1": (lambda x: F.adaptive_avg_pool2d(x, 1), (n(2, 3, 7, 9),)),
    "adaptive_even": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), (n(2, 3, 8, 9),)),
    "adaptive_uneven": (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), (n(2, 3, 7, 9),)),
    "adaptive_upsamples": (lambda x: F.adaptive_avg_pool2d(x, (5, 5)), (n(1, 3, 3, 4),)),
    "adaptive_none": (lambda x: F.adaptive_avg_pool2d(x, (None, 1)), (n(1, 3, 3, 4),)),
    "adaptive_1d": (lambda x: F.adaptive_avg_pool1d(x, 4), (n(2, 3, 7),)),
    "adaptive_max": (lambda x: F.adaptive_max_pool2d(x, (2, 3)), (n(2, 3, 7, 9),)),
    "lp_pool": (lambda x: F.lp_pool2d(x, 2, 2), (p(1, 3, 4, 6),)),
}

OUTPUTS: dict[str, Call] = {
    "output_is_input": (lambda x, y: (x, x + y), (n(3, 5), n(5))),
    "output_is_view_of_input": (lambda x: (x.t(), x[1:], x.reshape(-1)), (n(3, 5),)),
    "output_twice": (lambda x: (y := x * 2, y), (n(3, 5),)),
    "output_and_its_view": (lambda x: (y := x * 2, y.t(), y[0]), (n(3, 5),)),
    "output_and_used": (lambda x: (y := torch.relu(x), y + 1, torch.exp(y)), (n(3, 5),)),
    "output_is_weight": (WithBuffers(lambda x, w: (w, x + w), n(5)), (n(3, 5),)),
    "output_is_weight_math": (WithBuffers(lambda x, w: (w * 2 + 1, x + w), n(5)), (n(3, 5),)),
    "output_is_weight_exp": (WithBuffers(lambda x, w: (w.sin(), x + w.sin()), n(5)), (n(3, 5),)),
    "conv_output_is_output": (
        WithBuffers(lambda x, w: (y := F.conv2d(x, w), F.relu(y)), n(13, 3, 3, 3)),
        (n(2, 3, 5, 5),),
    ),
    "conv_used_twice": (
        WithBuffers(lambda x, w: F.relu(y := F.conv2d(x, w)) + y, n(13, 3, 3, 3)),
        (n(2, 3, 5, 5),),
    ),
    "conv_plus_itself": (
        WithBuffers(lambda x, w: (y := F.conv2d(x, w)) + y, n(13, 3, 3, 3)),
        (n(2, 3, 5, 5),),
    ),
    "conv_residual": (
        WithBuffers(lambda x, w: F.relu(F.conv2d(x, w, padding=1) + x), n(3, 3, 3, 3)),
        (n(2, 3, 5, 5),),
    ),
    "conv_residual_broadcast": (
        WithBuffers(lambda x, y, w: F.conv2d(x, w, padding=1) + y, n(3, 3, 3, 3)),
        (n(2, 3, 5, 5), n(5)),
    ),
    "conv_minus_residual": (
        WithBuffers(lambda x, w: x - F.conv2d(x, w, padding=1), n(3, 3, 3, 3)),
        (n(2, 3, 5, 5),),
    ),
    "conv_residual_transposed": (
        WithBuffers(lambda x, w: F.conv2d(x, w, padding=1) + x.transpose(2, 3), n(3, 3, 3, 3)),
        (n(2, 3, 5, 5),),
    ),
    "conv_times_two_convs": (
        WithBuffers(lambda x, v, w: F.conv2d(x, v) * F.conv2d(x, w), n(8, 3, 1, 1), n(8, 3, 1, 1, seed=1)),
        (n(2, 3, 5, 5),),
    ),
    "shared_weight": (
        WithBuffers(
            lambda x, w, s: F.conv2d(F.conv2d(x, w, padding=1) * s, w, padding=1) * s * 2,
            n(3, 3, 3, 3),
            n(3, 1, 1),
        ),
        (n(2, 3, 5, 5),),
    ),
    "dead_code": (lambda x: (x.exp(), x + 1)[1], (n(3, 5),)),
    "empty_tensor": (lambda x: x[:0] * 2, (n(3, 5),)),
    "sum_of_empty": (lambda x: x[:0].sum(0), (n(3, 5),)),
    "double": (lambda x: (x.exp() @ x.t()).softmax(1), (n(3, 5).double(),)),
}

CALLS: dict[str, Call] = {
    f"{group}-{name}": call
    for group, calls in (
        ("elementwise", ELEMENTWISE),
        ("views", VIEWS),
        ("creation", CREATION),
        ("reductions", REDUCTIONS),
        ("norms", NORMS),
        ("products", PRODUCTS),
        ("images", IMAGES),
        ("outputs", OUTPUTS),
    )
    for name, call in calls.items()
}


class Calling(nn.Module):
    """A module around a function or another module, called with positional tensors."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *xs: torch.Tensor) -> Any:
        return self.function(*xs)
