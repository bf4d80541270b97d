"""Small modules, each for one pass: whether it must change the graph that reaches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class PassCase:
    """``make`` gives a module and its inputs; ``fires``: whether the pass must change the graph; ``rounds``:
    PyTorch rounds to bfloat16 between operations, where ``lower`` or the pass goes on in float32. ``target``:
    some passes act for one kind of device; ``limit``: whose largest buffer has so many bytes."""

    step: str
    make: Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]
    fires: bool = True
    rounds: bool = False
    target: str = "cpu"
    limit: int | None = None


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


class Holder(nn.Module):
    """A module around ``function(self, *inputs)`` with tensors of the given names."""

    def __init__(self, function: Callable[..., Any], **tensors: torch.Tensor | nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, value in tensors.items():
            if isinstance(value, nn.Module):
                self.add_module(name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


def norm(channels: int) -> nn.Module:
    """Batch-norm whose statistics are not trivial."""
    module = nn.BatchNorm2d(channels).eval()
    for index, tensor in enumerate(module.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(values(channels, seed=index).abs() + 0.1 * index)
    return module


def call(function: Callable[..., Any], *inputs: torch.Tensor, **tensors: Any) -> Any:
    """A maker of a ``Holder`` and its inputs."""
    return lambda: (Holder(function, **tensors).eval(), inputs)


X = values(2, 3, 5, 5)
W = values(4, 3, 3, 3)
V = values(4, 4, 1, 1)


def twice(m: Any, x: torch.Tensor) -> torch.Tensor:
    """One weight behind two different scales."""
    return F.conv2d(x, m.w) * m.s + F.conv2d(x, m.w) * m.t


def rotated(m: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(torch.view_as_complex(x) * m.turns).flatten(1)


def bottleneck(
    w: torch.Tensor = values(4, 3, 1, 1),  # noqa: B008
    d: torch.Tensor = values(4, 1, 3, 3),  # noqa: B008
    *,
    padding: int = 0,
    groups: int = 4,
    dilation: int = 1,
    shift: float = 1.0,
    again: bool = False,
) -> Any:
    """The first half of an inverted bottleneck; ``again``: what it expands is an output too."""

    def run(m: Any, x: torch.Tensor) -> Any:
        t = F.relu6(F.conv2d(x, m.w, m.b, padding=padding))
        y = F.relu(F.conv2d(F.pad(t, (0, 1, 0, 1)), m.d, stride=2, groups=groups, dilation=dilation)) + shift
        return (t, y) if again else y

    return call(run, X, w=w, d=d, b=values(4))


def _block(m: Any, x: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """A projection beside what the block was given, normalised, and a layer of two products behind it."""
    x = F.layer_norm(F.linear(x, m.w, m.b) + given, (16,), m.b)
    return F.linear(F.gelu(F.linear(x, m.u)), m.u.T) + x


_BLOCK = {"w": values(16, 16), "b": values(16), "u": values(48, 16)}

CASES: dict[str, PassCase] = {
    "complex_as_pairs_rotary": PassCase(
        "complex_as_pairs", call(rotated, values(3, 5, 2), turns=torch.polar(torch.ones(5), values(5)))
    ),
    "complex_as_pairs_spectrum": PassCase(
        "complex_as_pairs", call(lambda m, x: torch.fft.rfft(x), values(3, 4))
    ),
    "complex_as_pairs_none": PassCase("complex_as_pairs", call(lambda m, x: x.abs(), X), fires=False),
    "resolve_strides_view": PassCase(
        "resolve_strides", call(lambda m, x: (x + 1).t()[1:].as_strided((2, 3), (4, 1)), values(5, 4))
    ),
    "resolve_strides_none": PassCase("resolve_strides", call(lambda m, x: x[1:], X), fires=False),
    "decompose_logaddexp": PassCase(
        "decompose", call(lambda m, x, y: torch.logaddexp(x, y), values(3, 5), values(5))
    ),
    "decompose_not_what_is_lowered": PassCase(
        "decompose", call(lambda m, x: F.silu(x).softmax(1), values(3, 5)), False
    ),
    "lower_linear_gelu": PassCase(
        "lower",
        call(
            lambda m, x: torch.add(F.gelu(F.linear(x, m.w, m.b)), x, alpha=2),
            values(3, 5),
            w=values(5, 5),
            b=values(5),
        ),
    ),
    "lower_batch_norm": PassCase("lower", call(lambda m, x: m.norm(x), X, norm=norm(3))),
    "lower_several_outputs": PassCase(
        "lower", call(lambda m, x: (x.split(2, 1), torch.max(x, 1)), values(3, 5))
    ),
    "lower_drops_no_ops": PassCase(
        "lower", call(lambda m, x: F.dropout(x.contiguous(), training=False).view(3, 5) + 1, values(3, 5))
    ),
    "eliminate_dead_unused_bias": PassCase(
        "eliminate_dead", call(lambda m, x: torch.var_mean(x, 1)[1], values(3, 5))
    ),
    "eliminate_dead_keeps_all": PassCase("eliminate_dead", call(lambda m, x: x * 2, values(3, 5)), False),
    "fold_affine_batch_norm": PassCase(
        "fold_affine", call(lambda m, x: m.norm(F.conv2d(x, m.w)), X, w=W, norm=norm(4))
    ),
    "fold_affine_batch_norm_bias": PassCase(
        "fold_affine", call(lambda m, x: m.norm(F.conv2d(x, m.w, m.b)), X, w=W, b=values(4), norm=norm(4))
    ),
    "fold_affine_linear_bias": PassCase(
        "fold_affine",
        call(
            lambda m, x: F.linear(x, m.w, m.b) * m.s, values(3, 7), w=values(5, 7), b=values(5), s=values(5)
        ),
    ),
    "fold_affine_shared_weight": PassCase(
        "fold_affine", call(twice, X, w=W, s=values(4, 1, 1), t=values(4, 1, 1, seed=1))
    ),
    "fold_affine_one_number": PassCase(
        "fold_affine", call(lambda m, x: F.conv2d(x, m.w) * m.s, X, w=W, s=values(1))
    ),
    "fold_affine_not_when_used_twice": PassCase(
        "fold_affine", call(lambda m, x: (y := F.conv2d(x, m.w)) * m.s + y, X, w=W, s=values(4, 1, 1)), False
    ),
    "fold_affine_not_when_an_output": PassCase(
        "fold_affine", call(lambda m, x: (y := F.conv2d(x, m.w), y * m.s), X, w=W, s=values(4, 1, 1)), False
    ),
    "fold_affine_not_per_column": PassCase(
        "fold_affine", call(lambda m, x: F.conv2d(x, m.w) * m.s, X, w=W, s=values(3)), False
    ),
    "fold_affine_not_a_computed_scale": PassCase(
        "fold_affine", call(lambda m, x, s: F.conv2d(x, m.w) * s, X, values(4, 1, 1), w=W), False
    ),
    "fold_affine_not_where_it_broadcasts": PassCase(
        "fold_affine",
        call(lambda m, x: F.linear(x, m.w) * m.s, values(1, 7), w=values(5, 7), s=values(3, 5)),
        False,
    ),
    "fold_affine_not_what_is_constant": PassCase(
        "fold_affine",
        call(
            lambda m, x: x + (F.linear(m.z, m.w) + m.b),
            values(1, 5),
            z=values(1, 7),
            w=values(5, 7),
            b=values(5),
        ),
        False,
    ),
    "fold_pad": PassCase(
        "fold_pad", call(lambda m, x: F.conv2d(F.pad(x, (0, 1, 2, 1)), m.w, padding=1), X, w=W)
    ),
    "fold_pad_used_twice": PassCase(
        "fold_pad", call(lambda m, x: (y := F.pad(x, (1, 1, 1, 1)), F.conv2d(y, m.w)), X, w=W)
    ),
    "fold_pad_not_of_ones": PassCase(
        "fold_pad", call(lambda m, x: F.conv2d(F.pad(x, (0, 1), value=1.0), m.w), X, w=W), False
    ),
    "fold_pad_not_of_channels": PassCase(
        "fold_pad", call(lambda m, x: F.conv2d(F.pad(x, (0, 0, 0, 0, 1, 0)), m.w), X[:, :2], w=W), False
    ),
    "fold_pad_not_before_a_pool": PassCase(
        "fold_pad", call(lambda m, x: F.max_pool2d(F.pad(x, (1, 1)), 2), X), False
    ),
    "fuse_depthwise": PassCase("fuse_depthwise", bottleneck()),
    "fuse_depthwise_of_an_image": PassCase("fuse_depthwise", bottleneck(w=W, padding=1, shift=0.0)),
    "fuse_depthwise_padded_point": PassCase("fuse_depthwise", bottleneck(padding=1), False),
    "fuse_depthwise_read_twice": PassCase("fuse_depthwise", bottleneck(again=True), False),
    "fuse_depthwise_of_groups": PassCase(
        "fuse_depthwise", bottleneck(d=values(4, 2, 3, 3), groups=2), False
    ),
    "fuse_depthwise_dilated": PassCase("fuse_depthwise", bottleneck(dilation=2), False),
    "fuse_depthwise_not_for_groups_of_work_items": PassCase(
        "fuse_depthwise", bottleneck(), False, target="gpu"
    ),
    "narrow_linear_last_position": PassCase(
        "narrow_linear",
        call(
            lambda m, x: F.linear(F.linear(x, m.w, m.b), m.v)[:, -1],
            values(2, 5, 7),
            w=values(4, 7),
            b=values(4),
            v=values(3, 4),
        ),
    ),
    "narrow_linear_not_of_columns": PassCase(
        "narrow_linear", call(lambda m, x: F.linear(x, m.w)[..., 1:], values(3, 7), w=values(5, 7)), False
    ),
    "narrow_linear_not_when_used_twice": PassCase(
        "narrow_linear",
        call(lambda m, x: (y := F.linear(x, m.w))[1:] * y.sum(), values(3, 7), w=values(5, 7)),
        False,
    ),
    "narrow_linear_not_of_an_output": PassCase(
        "narrow_linear",
        call(lambda m, x: (y := F.linear(x, m.w), y[1:]), values(3, 7), w=values(5, 7)),
        False,
    ),
    "fuse_epilogue_relu": PassCase("fuse_epilogue", call(lambda m, x: F.relu6(F.conv2d(x, m.w)), X, w=W)),
    "fuse_epilogue_residual": PassCase(
        "fuse_epilogue", call(lambda m, x: F.relu(F.conv2d(x, m.w, padding=1) + x), X, w=values(3, 3, 3, 3))
    ),
    "fuse_epilogue_two_hosts": PassCase(
        "fuse_epilogue", call(lambda m, x: F.relu(F.conv2d(x, m.w) - F.conv2d(x, m.v)), X, w=W, v=W.flip(0))
    ),
    "fuse_epilogue_linear": PassCase(
        "fuse_epilogue", call(lambda m, x: F.silu(F.linear(x, m.w)) * x, values(3, 7), w=values(7, 7))
    ),
    "fuse_epilogue_not_when_used_twice": PassCase(
        "fuse_epilogue", call(lambda m, x: F.relu(y := F.conv2d(x, m.w)).mean() + y.sum(), X, w=W), False
    ),
    "fuse_epilogue_not_over_an_output": PassCase(
        "fuse_epilogue", call(lambda m, x: (y := F.conv2d(x, m.w), F.relu(y)), X, w=W), False
    ),
    "fuse_epilogue_not_a_residual_of_other_shape": PassCase(
        "fuse_epilogue", call(lambda m, x, y: F.conv2d(x, m.w) + y, X, values(4, 1, 1), w=W), False
    ),
    "fuse_epilogue_one_residual_only": PassCase(
        "fuse_epilogue",
        call(
            lambda m, x, y, z: F.conv2d(x, m.w) + y + z,
            X,
            values(2, 4, 3, 3),
            values(2, 4, 3, 3, seed=1),
            w=W,
        ),
    ),
    "fuse_epilogue_not_another_dtype": PassCase(
        "fuse_epilogue", call(lambda m, x: F.conv2d(x, m.w) > 0, X, w=W), False
    ),
    "fuse_pointwise_chain": PassCase(
        "fuse_pointwise", call(lambda m, x, y: torch.sigmoid(x * 2 + y) - x, values(3, 5), values(5))
    ),
    "fuse_pointwise_tree": PassCase(
        "fuse_pointwise", call(lambda m, x: torch.where(x > 0, x.exp(), x.sin()) * x, values(3, 5))
    ),
    "fuse_pointwise_not_when_used_twice": PassCase(
        "fuse_pointwise", call(lambda m, x: (y := torch.exp(x)).sum(0) + y.mean(0), values(3, 5)), False
    ),
    "fuse_pointwise_not_over_an_output": PassCase(
        "fuse_pointwise", call(lambda m, x: (y := torch.exp(x), torch.sin(y)), values(3, 5)), False
    ),
    "fuse_pointwise_not_when_it_would_repeat_work": PassCase(
        "fuse_pointwise", call(lambda m, x, y: torch.exp(x) + y, values(5), values(3, 5)), False
    ),
    "chain_rows_encoder": PassCase("chain_rows", call(_block, values(53, 16), values(53, 16), **_BLOCK)),
    "chain_rows_two_results": PassCase(
        "chain_rows",
        call(lambda m, x: (y := F.layer_norm(x, (16,)), F.linear(y, m.w)), values(53, 16), w=values(32, 16)),
    ),
    "chain_rows_not_of_few_rows": PassCase(
        "chain_rows", call(_block, values(47, 16), values(47, 16), **_BLOCK), False
    ),
    "chain_rows_not_over_what_stands_between": PassCase(
        "chain_rows",
        call(lambda m, x: F.linear(F.linear(x, m.w).softmax(0), m.w), values(53, 16), w=values(16, 16)),
        False,
    ),
    "chain_rows_not_of_odd_columns": PassCase(
        "chain_rows",
        call(lambda m, x: F.linear(F.layer_norm(x, (15,)), m.w), values(53, 15), w=values(16, 15)),
        False,
    ),
    "assign_layouts_images": PassCase(
        "assign_layouts",
        call(
            lambda m, x: torch.cat(
                [F.max_pool2d(y := F.relu(F.conv2d(x, m.w)), 2), F.avg_pool2d(y * y, 2)], 1
            ).mean((2, 3)),
            X,
            w=W,
        ),
    ),
    "assign_layouts_crowded": PassCase(
        "assign_layouts",
        call(
            lambda m, x: F.max_pool2d(F.conv2d(F.relu(F.conv2d(x, m.w)), m.v), 2).mean((2, 3)),
            values(1, 8, 4, 4),
            w=values(256, 8, 1, 1),
            v=values(248, 256, 1, 1),
        ),
    ),
    "assign_layouts_output": PassCase(
        "assign_layouts",
        call(lambda m, x: (F.conv2d(x, m.w).reshape(2, -1), torch.exp(F.conv2d(x, m.w))), X, w=W),
    ),
    "assign_layouts_not_of_matrices": PassCase(
        "assign_layouts", call(lambda m, x: x.exp().softmax(1), values(3, 5)), False
    ),
}
