"""How long the recurrent mixers keep what was written, before any training."""

from __future__ import annotations

import pytest
import torch

from aaren_rl.layers import MIXERS, HiddenState, LSTMMixer, MinGRUMixer, SequenceModel


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


@pytest.mark.parametrize("name", ["lstm", "min-gru"])
def test_the_sequence_model_leaves_the_mixers_start_alone(name: str) -> None:
    """Gates that begin open inside a model too: `SequenceModel` touches no mixer's weights."""
    torch.manual_seed(0)
    model = SequenceModel(name, 64, layers=2)
    for block in model.blocks:
        mixer = block.mixer
        if isinstance(mixer, MinGRUMixer):
            keeps = -mixer.gate.bias
        else:
            assert isinstance(mixer, LSTMMixer)
            keeps = mixer.lstm.get_parameter("bias_ih_l0")[64:128]
        assert float(keeps.min()) >= 0
        assert float(keeps.median()) > 5  # half of the units keep for more than 150 tokens


@pytest.mark.parametrize("name", sorted(MIXERS))
def test_every_mixer_draws_all_of_its_weights_anew(name: str) -> None:
    """What `reset_parameters` gives depends on the seed alone, not on what was there before."""
    model = SequenceModel(name, 16, layers=1)
    mixer = model.blocks[0].mixer
    torch.manual_seed(3)
    mixer.reset_parameters()
    first = {key: value.clone() for key, value in mixer.state_dict().items()}
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.fill_(7.0)
    torch.manual_seed(3)
    mixer.reset_parameters()
    for key, value in mixer.state_dict().items():
        assert torch.equal(value, first[key]), key
