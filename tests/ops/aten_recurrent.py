"""Recurrent layers and cells of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from call_values import Call, n, randomised
from torch import nn


class Layer(nn.Module):
    """A recurrent layer without the structure of its results."""

    def __init__(self, kind: type[nn.RNNBase], *sizes: int, **options: Any) -> None:
        super().__init__()
        self.layer = randomised(kind(*sizes, **options))

    def forward(self, x: torch.Tensor, *start: torch.Tensor) -> list[torch.Tensor]:
        given = start if len(start) > 1 else start[0] if start else None
        return torch.utils._pytree.tree_leaves(self.layer(x, given))


RECURRENT: dict[str, Call] = {
    "lstm": (Layer(nn.LSTM, 3, 5).eval(), (n(7, 2, 3),)),
    "lstm_both_ways": (
        Layer(nn.LSTM, 3, 4, 2, batch_first=True, bidirectional=True, dropout=0.5).eval(),
        (n(2, 5, 3),),
    ),
    "lstm_started": (Layer(nn.LSTM, 3, 5, bias=False).eval(), (n(4, 2, 3), n(1, 2, 5), n(1, 2, 5, seed=1))),
    "lstm_projected": (Layer(nn.LSTM, 3, 5, proj_size=2).eval(), (n(4, 2, 3),)),
    "gru": (Layer(nn.GRU, 3, 5, 2, bidirectional=True).eval(), (n(5, 2, 3),)),
    "gru_unbatched": (Layer(nn.GRU, 3, 5).eval(), (n(4, 3),)),
    "rnn_tanh": (Layer(nn.RNN, 3, 5, bidirectional=True).eval(), (n(4, 2, 3),)),
    "rnn_relu": (Layer(nn.RNN, 3, 5, nonlinearity="relu").eval(), (n(4, 2, 3), n(1, 2, 5))),
    "lstm_cell": (randomised(nn.LSTMCell(3, 5)), (n(2, 3),)),
    "rnn_cell_unbatched": (randomised(nn.RNNCell(3, 5)), (n(3),)),
    "gru_cell": (randomised(nn.GRUCell(3, 5)), (n(2, 3), n(2, 5))),
}
