"""How long the recurrent mixers keep what was written, before any training."""

from __future__ import annotations

import pytest
import torch

from aaren_rl.layers import LSTMMixer, MinGRUMixer
from aaren_rl.layers.recurrent_state import HiddenState


@pytest.mark.parametrize("mixer", [LSTMMixer, MinGRUMixer])
def test_much_is_kept_over_a_hundred_tokens(mixer: type[LSTMMixer] | type[MinGRUMixer]) -> None:
    torch.manual_seed(0)
    layer, width = mixer(64), 64
    vectors = torch.ones(1, 2 if mixer is LSTMMixer else 1, width)
    with torch.no_grad():
        _, after = layer(torch.zeros(1, 100, width), HiddenState(vectors))
        _, empty = layer(torch.zeros(1, 100, width), HiddenState(torch.zeros_like(vectors)))
    kept = (after.vectors - empty.vectors)[0, -1]  # of an LSTM the cell
    assert kept.median() > 0.5
    assert kept.min() < 0.4  # and some units forget
    assert kept.max() < 1
