"""Complex numbers, Fourier transforms, and views that PyTorch states in terms of memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from call_values import Call, WithBuffers, i, n, p

t = torch.tensor


def c(*shape: int, seed: int = 0) -> torch.Tensor:
    """Complex numbers."""
    return torch.complex(n(*shape, seed=seed), n(*shape, seed=seed + 100))


ANGLES = torch.outer(torch.arange(5.0), 10000 ** -(torch.arange(4) / 4))
HANN = torch.hann_window(16)


def _rotated(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding as decoders write it with complex numbers."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns[None, :, None, :]).flatten(3).type_as(x)


def _stft(x: torch.Tensor, **options: Any) -> torch.Tensor:
    return torch.stft(x, 16, return_complex=True, **options)


COMPLEX: dict[str, Call] = {
    "rotary": (WithBuffers(_rotated, torch.polar(torch.ones(5, 4), ANGLES)), (n(2, 5, 3, 8),)),
    "sums": (lambda x, y: (x + y, x - y, 1 - x, torch.add(x, y, alpha=2)), (c(3, 4), c(4))),
    "sums_of_real": (lambda x, y: (x + y, y - x, x + 2, x * y, y * x), (c(3, 1), n(4))),
    "products": (lambda x, y: (x * y, x / y, y / x), (c(3, 1), c(4))),
    "quotients_of_real": (lambda x, y: (x / y, y / x, x / 3, 3 / x), (c(3, 4), n(4))),
    "quotients_of_extremes": (lambda x: 1 / (x * 1e30), (c(3, 4),)),
    "numbers": (lambda x: (torch.exp(1j * x), x * (2 - 1j), x + 1j, x / 2j), (n(5),)),
    "numbers_of_complex": (lambda x: (x * 1j, x / 2j, x + (1 + 2j), x == 1j), (c(5),)),
    "powers": (lambda x: (x**2, x**3, x**-1, x.square(), x.reciprocal()), (c(7),)),
    "parts": (lambda x: (x.real, x.imag, x.conj(), x.abs(), x.angle(), x.sgn()), (c(3, 5),)),
    "functions": (lambda x: (x.exp(), x.log(), x.sqrt(), x.sin(), x.cos()), (c(7),)),
    "made": (lambda x, y: (torch.complex(x, y), torch.polar(y, x), x.to(torch.complex64)), (n(3, 5), p(5))),
    "made_of_numbers": (lambda x: x + torch.ones(3, dtype=torch.complex64) * t([1j, 2, 0.5j]), (c(3),)),
    "tests": (lambda x: (torch.isnan(x), torch.isfinite(x), torch.isreal(x), x == x, x != 0), (c(5),)),
    "matrices": (lambda x, y: (x @ y, x.mH @ x, torch.einsum("ij,jk->ki", x, y)), (c(3, 4), c(4, 5))),
    "vectors": (lambda x, y: (torch.vdot(x, y), torch.dot(x, y), torch.outer(x, y)), (c(5), c(5, seed=1))),
    "linear": (WithBuffers(F.linear, c(5, 4), c(5)), (c(3, 4),)),
    "joined": (
        lambda x, y: (torch.cat([x, y]), torch.stack([x, x]), torch.cat([x, x], 1)),
        (c(3, 4), n(2, 4)),
    ),
    "views": (
        lambda x: (x.view(4, 3).t(), x[:, 1::2], x.flip(0), x.roll(1, 1), x[None].expand(2, 3, 4)),
        (c(3, 4),),
    ),
    "parts_of": (lambda x: (*x.split(2, 1), *x.unbind(0), x.repeat(1, 2), F.pad(x, (1, 2))), (c(3, 5),)),
    "chosen": (
        lambda x, k, m: (x[k], x.masked_fill(m, 0), torch.where(m, x, -x)),
        (c(3, 5), t([2, 0]), n(3, 5) > 0),
    ),
    "written": (
        lambda x, y, k: (x.index_put((k,), y, accumulate=True), x.index_add(0, k, y)),
        (c(4), c(3), t([1, 1, 0])),
    ),
    "added_up": (lambda x: (x.sum(), x.mean(1), x.cumsum(0), torch.linalg.vector_norm(x)), (c(3, 5),)),
    "mixed_precision": (lambda x, y: x * y, (c(5), n(5).double())),
    "double": (lambda x: (x * x, x.abs()), (c(5).to(torch.complex128),)),
    "in_place": (lambda x: x.clone().add_(1).mul_(x), (c(5),)),
    "normalised": (F.normalize, (c(3, 5),)),
    "made_like": (lambda x: (torch.zeros_like(x, dtype=torch.float64), torch.ones_like(x) + x), (c(5),)),
    "as_it_is": (lambda x: x, (c(3),)),
    "nothing": (lambda x: (x * 2, torch.view_as_real(x)), (c(0, 3),)),
    **{f"fft_{size}": (torch.fft.fft, (c(3, size),)) for size in (1, 2, 7, 64, 97, 128, 360)},
    **{f"rfft_{size}": (torch.fft.rfft, (n(3, size),)) for size in (1, 2, 31, 100)},
    **{
        f"irfft_{size}": (lambda x, size=size: torch.fft.irfft(x, n=size), (c(3, size // 2 + 1),))
        for size in (1, 2, 9, 96)
    },
    "fft_dims": (lambda x: (torch.fft.fft(x, dim=0), torch.fft.ifft(x, dim=-2, norm="ortho")), (c(5, 6),)),
    "fft_padded": (lambda x: (torch.fft.fft(x, n=9), torch.fft.fft(x, n=4, norm="forward")), (n(3, 6),)),
    "fft_many": (lambda x: (torch.fft.fft2(x), torch.fft.ifftn(x, s=(4, 7), dim=(0, 2))), (c(2, 5, 6),)),
    "fft_mixing": (lambda x: torch.fft.fftn(x, dim=(1, 2)).real, (n(2, 16, 24),)),
    "rfft_many": (lambda x: (torch.fft.rfft2(x), torch.fft.rfftn(x, dim=(0, 1))), (n(2, 5, 6),)),
    "irfft_many": (lambda x: (torch.fft.irfft2(x, s=(5, 7)), torch.fft.irfft(x)), (c(2, 5, 4),)),
    "hfft": (
        lambda x: (torch.fft.hfft(x), torch.fft.hfft(x, n=7, norm="ortho"), torch.fft.hfft2(x)),
        (c(3, 5),),
    ),
    "hfftn_of_real": (
        lambda x: (torch.fft.hfftn(x, norm="ortho"), torch.fft.hfft2(x, s=(3, 7)), torch.fft.ihfftn(x)),
        (n(3, 6),),
    ),
    "ihfft": (lambda x: (torch.fft.ihfft(x), torch.fft.irfft(x)), (n(3, 6),)),
    "fft_whole": (torch.fft.fft, (i(9, 3, 5),)),
    "fft_double": (lambda x: torch.fft.rfft(x), (n(3, 12).double(),)),
    "fft_shifted": (lambda x: torch.fft.fftshift(torch.fft.fft(x)) + torch.fft.fftfreq(7, 0.5), (n(3, 7),)),
    "convolution_by_fft": (
        lambda x, y: torch.fft.irfft(torch.fft.rfft(x, n=16) * torch.fft.rfft(y, n=16), n=16),
        (n(2, 8), n(2, 9)),
    ),
    "stft": (lambda x: _stft(x, hop_length=4, window=HANN).abs(), (n(2, 64),)),
    "stft_whole": (lambda x: _stft(x, center=False, onesided=False, normalized=True), (n(64),)),
    "istft": (
        lambda x: torch.istft(_stft(x, hop_length=4, window=HANN), 16, 4, window=HANN),
        (n(2, 64),),
    ),
    "bits": (lambda x: (x.view(torch.int32), x.view(torch.uint8), x.t().view(torch.int32)), (n(5, 4),)),
    "bits_wider": (lambda x: (x + 1).view(torch.float64).view(torch.int64), (n(5, 4),)),
    "bits_there_and_back": (lambda x: (x.view(torch.int32) & -8).view(torch.float32), (n(5, 7),)),
    "strided": (
        lambda x: (x.as_strided((3, 4), (2, 1), 1), torch.relu(x).as_strided((2, 2), (1, 3))),
        (n(5, 3),),
    ),
    "strided_view": (
        lambda x: (x.t().as_strided((3, 4), (2, 1)), x[1:, 1].as_strided((3, 2), (2, 1))),
        (n(5, 3),),
    ),
    "strided_product": (
        lambda x, y: (x @ y).transpose(0, 1).reshape(1, 5, 5).as_strided((1, 3, 5), (25, 5, 1)),
        (n(5, 3), n(3, 5)),
    ),
    "strided_copy": (lambda x: x.t().reshape(15).as_strided((3, 4), (1, 4)), (n(5, 3),)),
}
