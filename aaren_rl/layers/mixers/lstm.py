"""LSTM (Hochreiter and Schmidhuber 1997) as a sequence mixer: the classical recurrent rival."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aaren_rl.layers.mixers.base import RecurrentMixer, keep_biases, register_mixer
from aaren_rl.layers.start import STD, start_linear
from aaren_rl.layers.state import HiddenState


class LSTMMixer(RecurrentMixer):
    """torch's LSTM and an output projection; the state is its hidden and its cell vector."""

    def __init__(self, width: int, *, out_std: float = STD) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.out = nn.Linear(width, width)
        self.out_std = out_std
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw torch's own weights for the gates, and biases with which they keep for long."""
        self.lstm.reset_parameters()
        start_linear(self.out, self.out_std)
        with torch.no_grad():  # torch orders the gates input, forget, cell, output
            width = self.lstm.hidden_size
            kept = keep_biases(width)
            self.lstm.get_parameter("bias_hh_l0").zero_()
            bias = self.lstm.get_parameter("bias_ih_l0").zero_()
            bias[:width] = -kept
            bias[width : 2 * width] = kept

    def project(self, mixed: Tensor) -> Tensor:
        """See `RecurrentMixer.project`."""
        out: Tensor = self.out(mixed)
        return out

    def mix(self, x: Tensor, state: HiddenState | None) -> tuple[Tensor, HiddenState]:
        """See `RecurrentMixer.mix`."""
        if state is None:
            state = HiddenState(self.out.weight.new_zeros(x.shape[0], 2, x.shape[2]))
        # In float32 whatever surrounds it: a bfloat16 cell would forget by rounding.
        with torch.autocast(x.device.type, enabled=False):
            hidden, cell = state.vectors.transpose(0, 1).contiguous().split(1)
            outputs, last = self.lstm(x.to(self.out.weight.dtype), (hidden, cell))
        return outputs, HiddenState(torch.cat(last).transpose(0, 1))


register_mixer("lstm", LSTMMixer)
