"""Histograms, and products of rows by the matrix of their group."""

from __future__ import annotations

import torch
from call_values import Call, i, n, special

GROUPS: dict[str, Call] = {
    "histc": (lambda x: torch.histc(x, bins=7, min=-2, max=2), (n(113),)),
    "histc_of_whole_numbers": (lambda x: torch.histc(x.float(), bins=5, min=0, max=4), (i(7, 29),)),
    "histc_special": (lambda x: torch.histc(x, bins=3, min=-1, max=1), (special(29)[5:],)),
    "histc_float64": (lambda x: torch.histc(x, bins=11, min=-3, max=0.5), (n(7, 13).double(),)),
}
