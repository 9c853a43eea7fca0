"""The Transformer's sliding cache: the last context, each token as it was computed when new."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agent_cases import CONTEXT, SPACES, Played, make_agent, play

from aaren_rl.agents import DecisionTransformer
from aaren_rl.errors import UserError
from aaren_rl.layers import CausalSelfAttention

ROOM = 3 * CONTEXT - 1  # tokens from the first return-to-go of a context to its last observation


def transformer(kind: str = "continuous", **config: object) -> DecisionTransformer:
    agent = make_agent("decision-transformer", SPACES[kind], **config)
    assert isinstance(agent, DecisionTransformer)
    return agent


@torch.no_grad()
def by_hand(
    agent: DecisionTransformer, played: Played, env: int, start: int, stop: int
) -> np.ndarray:
    """The whole episode at once, with a band instead of the triangle as the attention's mask.

    A token of step t sees from the return-to-go of step t - CONTEXT + 1 on (the action of step t
    is read in step t + 1, with that step's past).
    """
    batch = played.batch(env, start, stop)
    tokens = agent.embed(batch.returns_to_go, batch.observations, batch.actions, batch.timesteps)
    index = torch.arange(tokens.shape[1])
    read_in = (index + 1) // 3  # the step in which a token is read
    first = 3 * (read_in - CONTEXT + 1)
    seen = (index[None, :] <= index[:, None]) & (index[None, :] >= first[:, None])
    x = tokens
    for block in agent.sequence_model.blocks:
        mixer = block.mixer
        assert isinstance(mixer, CausalSelfAttention)
        dim = mixer.width // mixer.heads
        queries, keys, values = (
            part.unflatten(-1, (mixer.heads, dim)).transpose(1, 2)
            for part in mixer.query_key_value(block.mixer_norm(x)).chunk(3, dim=-1)
        )
        scores = queries @ keys.transpose(2, 3) / dim**0.5
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        x = x + mixer.out((weights @ values).transpose(1, 2).flatten(2))
        x = x + block.feed_forward(block.feed_forward_norm(x))
    predictions = agent.head(agent.sequence_model.norm(x)[:, 1::3])
    return agent.actions.decide(predictions)[0].numpy()


@pytest.mark.parametrize("condition", ["target", "max-return"])
@pytest.mark.parametrize("kind", sorted(SPACES))
@pytest.mark.parametrize("lengths", [[[60]], [[60], [13, 47], [1, 1, 2, 30, 26]]])
def test_each_step_reads_the_last_context(
    kind: str, lengths: list[list[int]], condition: str
) -> None:
    agent = transformer(kind, condition=condition)
    played = play(agent, "sliding", lengths)
    for env in range(len(lengths)):
        for start, stop in played.episodes(env):
            wanted = by_hand(agent, played, env, start, stop)
            if kind == "discrete":
                assert (wanted == played.actions[start:stop, env]).mean() > 0.99
            else:
                taken = played.actions[start:stop, env]
                np.testing.assert_allclose(taken, wanted, rtol=0, atol=2e-5)


def test_is_the_full_cache_at_first_and_the_window_in_a_single_layer() -> None:
    agent = transformer()
    sliding, carry = play(agent, "sliding", [[20]]).actions, play(agent, "carry", [[20]]).actions
    np.testing.assert_allclose(sliding[:CONTEXT], carry[:CONTEXT], rtol=0, atol=1e-5)
    assert np.abs(sliding[CONTEXT:] - carry[CONTEXT:]).max() > 1e-3
    shallow = transformer(layers=1)
    pair = [play(shallow, mode, [[20], [7, 13]]).actions for mode in ("sliding", "window")]
    np.testing.assert_allclose(*pair, rtol=0, atol=1e-5)


def test_a_context_of_one_step_has_no_past() -> None:
    agent = transformer(context_length=1)
    pair = [play(agent, mode, [[9], [4, 5]]).actions for mode in ("sliding", "window")]
    np.testing.assert_allclose(*pair, rtol=0, atol=1e-5)


def test_its_state_stops_growing() -> None:
    sizes = play(transformer(), "sliding", [[30]]).state_bytes
    token, rest = 2 * 2 * 16 * 4, 2 * 4 + 2 * 8
    assert sizes == [token * min(2 + 3 * step, ROOM) + rest for step in range(30)]


def test_decision_aaren_has_none() -> None:
    with pytest.raises(UserError, match="must be one of carry, reset, window, got 'sliding'"):
        make_agent("decision-aaren").policy(1, mode="sliding")
