"""minGRU (Feng et al. 2024, *Were RNNs all we needed?*, arXiv 2410.01201) as a sequence mixer.

    z_t = sigmoid(W_z x_t),   h_t = (1 - z_t) h_{t-1} + z_t g(W_h x_t)

Gate and candidate do not see h, so all steps come out of one parallel scan. It is done in log
space, as in the paper's appendix B: g is positive, and h_t is a sum of products of gates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from aaren_rl.layers.mixers.base import RecurrentMixer, keep_biases, register_mixer
from aaren_rl.layers.start import STD, start_linear
from aaren_rl.layers.state import HiddenState


def log_g(x: Tensor) -> Tensor:
    """Log of g(x) = x + 0.5 for x >= 0, sigmoid(x) below."""
    return torch.where(x >= 0, (x.clamp(min=0) + 0.5).log(), -softplus(-x))


class MinGRUMixer(RecurrentMixer):
    """A minGRU and an output projection; the state is one vector."""

    def __init__(self, width: int, *, out_std: float = STD) -> None:
        super().__init__()
        self.gate = nn.Linear(width, width)
        self.candidate = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.out_std = out_std
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as GPT-2 does, and gate biases with which the state is kept for long."""
        start_linear(self.gate)
        start_linear(self.candidate)
        start_linear(self.out, self.out_std)
        with torch.no_grad():  # z_t near 0 keeps, so the biases are negative
            self.gate.bias.copy_(-keep_biases(self.gate.out_features))

    def project(self, mixed: Tensor) -> Tensor:
        """See `RecurrentMixer.project`."""
        out: Tensor = self.out(mixed)
        return out

    def mix(self, x: Tensor, state: HiddenState | None) -> tuple[Tensor, HiddenState]:
        """See `RecurrentMixer.mix`."""
        return self.mix_masked(x, state, None)

    def mix_masked(
        self, x: Tensor, state: HiddenState | None, mask: Tensor | None
    ) -> tuple[Tensor, HiddenState]:
        """All tokens at once, masked or not."""
        dtype = self.out.weight.dtype  # the scan is not done in half precision
        gates, candidates = self.gate(x).to(dtype), self.candidate(x).to(dtype)
        log_keep, log_write = logsigmoid(-gates), logsigmoid(gates) + log_g(candidates)
        if mask is not None:
            log_keep = log_keep.masked_fill(~mask[..., None], 0.0)
            log_write = log_write.masked_fill(~mask[..., None], -torch.inf)
        if state is not None:  # as a token before the first, which keeps nothing of what was before
            before = state.vectors
            tiny = torch.finfo(before.dtype).tiny
            log_write = torch.cat([before.clamp_min(tiny).log(), log_write], 1)
            log_keep = torch.cat([torch.zeros_like(before), log_keep], 1)
        hidden = log_scan(log_keep, log_write).exp()
        outputs = hidden[:, -x.shape[1] :].to(x.dtype)
        return outputs, HiddenState(hidden[:, -1:])


def log_scan(log_keep: Tensor, log_write: Tensor) -> Tensor:
    """Log h `[batch, time, width]`, with h_t = keep_t h_{t-1} + write_t and h_{-1} = 0."""
    kept = log_keep.cumsum(1)
    return kept + (log_write - kept).logcumsumexp(1)


register_mixer("min-gru", MinGRUMixer)
