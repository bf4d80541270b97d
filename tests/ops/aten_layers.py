"""Small calls of PyTorch as users write them: reductions, normalisations, products, images, outputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from call_values import Call, WithBuffers, conv, i, n, p, randomised, special
from torch import nn

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
    "layer_norm_of_part": (
        WithBuffers(
            lambda x, w: F.layer_norm(x[:, :, 8:24].transpose(1, 2).unflatten(1, (2, 8)).mT, (8,), w), n(8)
        ),
        (n(2, 5, 32),),
    ),
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
    "batch_norm_own_statistics": (
        randomised(nn.BatchNorm2d(5, track_running_stats=False)),
        (n(2, 5, 3, 7),),
    ),
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
    "conv": (conv(3, 8, 3), (n(1, 3, 7, 9),)),
    "conv_batch": (conv(3, 5, 3, padding=1), (n(3, 3, 7, 9),)),
    "conv_unbatched": (conv(3, 8, 3), (n(3, 7, 9),)),
    "conv_stride": (conv(3, 8, 3, stride=(2, 1), padding=(1, 2)), (n(1, 3, 9, 9),)),
    "conv_dilation": (conv(4, 8, 3, dilation=(2, 3), padding=2), (n(1, 4, 11, 11),)),
    "conv_groups": (conv(6, 9, 3, groups=3), (n(2, 6, 7, 7),)),
    "conv_depthwise": (conv(5, 5, 3, groups=5, padding=1), (n(2, 5, 7, 7),)),
    "conv_depthwise_multiplier": (conv(4, 8, 3, groups=4), (n(1, 4, 7, 7),)),
    "conv_same": (conv(3, 8, 4, padding="same"), (n(1, 3, 7, 9),)),
    "conv_same_dilated": (conv(3, 8, (2, 3), padding="same", dilation=2), (n(1, 3, 7, 9),)),
    "conv_valid": (conv(3, 8, 3, padding="valid"), (n(1, 3, 7, 9),)),
    "upsample_bicubic_sizes": (lambda x: F.interpolate(x, size=(4, 3), mode="bicubic"), (n(1, 2, 4, 3),)),
    "conv_runtime_weight_groups": (
        lambda x, w, b: F.relu(F.conv2d(x, w, b, stride=(2, 1), padding=(1, 2), groups=2) + 1),
        (n(2, 6, 9, 7), n(8, 3, 3, 3), n(8)),
    ),
    "conv_runtime_weight_1d": (lambda x, w: F.conv1d(x, w, dilation=2), (n(2, 3, 11), n(5, 3, 3))),
    "conv_runtime_bias": (
        WithBuffers(lambda x, b, w: F.conv2d(x, w, b), n(5, 3, 2, 2)),
        (n(1, 3, 5, 7), n(5)),
    ),
    "conv_runtime_depthwise": (
        lambda x, w: F.conv2d(x, w, padding=1, groups=5),
        (n(1, 5, 7, 3), n(5, 1, 3, 3)),
    ),
    "conv_weight_norm": (
        nn.utils.parametrizations.weight_norm(conv(3, 5, 3), dim=2),
        (n(2, 3, 7, 5),),
    ),
    "conv_spectral_norm": (nn.utils.parametrizations.spectral_norm(conv(3, 5, 3)).eval(), (n(2, 3, 7, 5),)),
    "conv_standardised": (
        WithBuffers(
            lambda x, w: F.conv2d(
                x, F.batch_norm(w.reshape(1, 5, -1), None, None, training=True).reshape_as(w)
            ),
            n(5, 3, 3, 3),
        ),
        (n(2, 3, 7, 5),),
    ),
    "conv_no_bias": (conv(3, 8, 1, bias=False), (n(2, 3, 7, 9),)),
    "conv_1x1_stride": (conv(16, 8, 1, stride=2), (n(1, 16, 7, 7),)),
    "conv_whole_image": (conv(3, 8, (7, 9)), (n(2, 3, 7, 9),)),
    "conv_replicate_padding": (conv(3, 8, 3, padding=1, padding_mode="replicate"), (n(1, 3, 7, 9),)),
    "conv_winograd": (conv(32, 32, 3, padding=1), (n(1, 32, 13, 15),)),
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
