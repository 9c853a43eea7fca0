"""LSTM (Hochreiter and Schmidhuber 1997) as a sequence mixer: the classical recurrent rival."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aaren_rl.layers.mixers.recurrent_state import HiddenState, keep_biases
from aaren_rl.layers.packed import each_sequence
from aaren_rl.layers.start import STD, start_linear
from aaren_rl.layers.state import EVERY_TOKEN, check_mask


class LSTMMixer(nn.Module):
    """torch's LSTM and an output projection; the state is its hidden and its cell vector.

    Args:
        width: size of a token and of both vectors.
        out_std: standard deviation of the output projection's weights at the start.
    """

    state_type = HiddenState

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

    def forward(
        self,
        x: Tensor,
        state: HiddenState | None = None,
        mask: Tensor | None = None,
        read: slice = EVERY_TOKEN,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, HiddenState]:
        """Mix tokens with their past; arguments and results as `AarenAttention.forward`.

        The state after a packed batch is the last sequence's.
        """
        if cu_seqlens is not None:
            return each_sequence(self, x, cu_seqlens, read)
        check_mask(x, mask)
        if state is None:
            zeros = self.out.weight.new_zeros(x.shape[0], 2, x.shape[2])
            state = HiddenState(zeros)
        if mask is None:
            outputs, state = self._run(x, state)
            return self.out(outputs[:, read]), state
        pieces = []
        for step in range(x.shape[1]):  # masks come with the few tokens of acting
            output, new = self._run(x[:, step : step + 1], state)
            kept = torch.where(mask[:, step, None, None], new.vectors, state.vectors)
            state = HiddenState(kept)
            pieces.append(output)
        return self.out(torch.cat(pieces, dim=1)[:, read]), state

    def _run(self, x: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        # In float32 whatever surrounds it: a bfloat16 cell would forget by rounding.
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.out.weight.dtype
            hidden, cell = state.vectors.transpose(0, 1).contiguous().split(1)
            outputs, (hidden, cell) = self.lstm(x.to(dtype), (hidden, cell))
        return outputs, HiddenState(torch.cat([hidden, cell]).transpose(0, 1))
