"""Our Decision Transformer with Hugging Face's weights predicts what Hugging Face's predicts.

Theirs adds a position embedding that is the same at every place (`wpe[0]`) after the embeddings'
norm: here it goes into the norm's bias. Their `Conv1D` keeps its weight transposed. They know
nothing of scales and statistics, so ours are one, and of padding at the left, which we do not need.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from aaren_rl.agents import AgentConfig, AgentSpec, DecisionTransformer
from aaren_rl.data import Batch

STATES, ACTIONS, WIDTH, LAYERS, LONGEST, TIME, BATCH = 11, 3, 32, 2, 200, 20, 4
ACTIVATIONS = {"relu": "relu", "gelu_new": "gelu"}  # theirs: ours


def make_theirs(heads: int, activation: str, attention: str) -> torch.nn.Module:
    config = transformers.DecisionTransformerConfig(
        state_dim=STATES,
        act_dim=ACTIONS,
        hidden_size=WIDTH,
        n_layer=LAYERS,
        n_head=heads,
        max_ep_len=LONGEST,
        activation_function=activation,
        attn_implementation=attention,
    )
    torch.manual_seed(heads)
    model = transformers.DecisionTransformerModel(config).eval()
    for parameter in model.parameters():  # biases and norms do not start at 0 and 1 only
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def make_ours(heads: int, activation: str) -> DecisionTransformer:
    config = AgentConfig(
        width=WIDTH,
        layers=LAYERS,
        heads=heads,
        activation=ACTIVATIONS[activation],  # type: ignore[arg-type]
        context_length=TIME,
        timestep_embedding="learned",
        max_episode_length=LONGEST,
    )
    spec = AgentSpec(
        gym.spaces.Box(-np.inf, np.inf, (STATES,), np.float32),
        gym.spaces.Box(-1, 1, (ACTIONS,), np.float32),
        returns_scale=1.0,
    )
    return DecisionTransformer(config, spec).eval()


def translated(theirs: torch.nn.Module) -> dict[str, Tensor]:
    """Their weights under our names."""
    source = dict(theirs.state_dict())
    pairs = {
        "embed_return": "embed_return",
        "embed_observation": "embed_state",
        "embed_action": "embed_action",
        "embed_norm": "embed_ln",
        "head.0": "predict_action.0",
        "sequence_model.norm": "encoder.ln_f",
    }
    weights = {"embed_timestep.weight": source["embed_timestep.weight"]}
    for ours, name in pairs.items():
        for kind in ("weight", "bias"):
            weights[f"{ours}.{kind}"] = source[f"{name}.{kind}"]
    weights["embed_norm.bias"] = weights["embed_norm.bias"] + source["encoder.wpe.weight"][0]
    for layer in range(LAYERS):
        block, theirs_block = f"sequence_model.blocks.{layer}", f"encoder.h.{layer}"
        for ours, name in {"mixer_norm": "ln_1", "feed_forward_norm": "ln_2"}.items():
            for kind in ("weight", "bias"):
                weights[f"{block}.{ours}.{kind}"] = source[f"{theirs_block}.{name}.{kind}"]
        for ours, name in {
            "mixer.query_key_value": "attn.c_attn",
            "mixer.out": "attn.c_proj",
            "feed_forward.expand": "mlp.c_fc",
            "feed_forward.contract": "mlp.c_proj",
        }.items():
            weights[f"{block}.{ours}.weight"] = source[f"{theirs_block}.{name}.weight"].T
            weights[f"{block}.{ours}.bias"] = source[f"{theirs_block}.{name}.bias"]
    return weights


def load(ours: DecisionTransformer, theirs: torch.nn.Module) -> None:
    """Every trained number of ours must come from theirs."""
    weights = translated(theirs)
    assert set(weights) == {name for name, _ in ours.named_parameters()}
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    buffers = {"observation_mean", "observation_std", "actions.low", "actions.high"}
    assert set(missing) <= buffers
    assert not unexpected


def random_batch(time: int = TIME) -> Batch:
    generator = torch.Generator().manual_seed(time)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    start = torch.randint(LONGEST - time, (BATCH, 1), generator=generator)
    return Batch(
        observations=normal(BATCH, time, STATES),
        actions=normal(BATCH, time, ACTIONS).tanh(),
        returns_to_go=normal(BATCH, time, 1),
        timesteps=start + torch.arange(time),
        mask=torch.ones(BATCH, time, dtype=torch.bool),
    )


@torch.no_grad()
def their_actions(model: torch.nn.Module, batch: Batch) -> Tensor:
    out = model(
        states=batch.observations,
        actions=batch.actions,
        rewards=torch.zeros(*batch.mask.shape, 1),
        returns_to_go=batch.returns_to_go,
        timesteps=batch.timesteps,
        attention_mask=batch.mask.long(),
    )
    actions: Tensor = out.action_preds
    return actions


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("heads", [1, 4])
def test_same_predictions(heads: int, activation: str, attention: str) -> None:
    theirs, ours = make_theirs(heads, activation, attention), make_ours(heads, activation)
    load(ours, theirs)
    batch = random_batch()
    wanted = their_actions(theirs, batch)
    assert wanted.std() > 0.1
    with torch.no_grad():
        torch.testing.assert_close(ours.predict(batch), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 4])
def test_their_padding_at_the_left_is_our_shorter_sequence(heads: int) -> None:
    theirs, ours = make_theirs(heads, "relu", "eager"), make_ours(heads, "relu")
    load(ours, theirs)
    whole = random_batch()
    for real in (1, 7, TIME - 1):
        mask = torch.arange(TIME).expand(BATCH, -1) >= TIME - real
        padded = Batch(*(torch.where(_like(mask, part), part, 0) for part in whole[:4]), mask)
        wanted = their_actions(theirs, padded)[:, -real:]
        short = Batch(*(part[:, -real:] for part in whole[:5]))
        with torch.no_grad():
            torch.testing.assert_close(ours.predict(short), wanted, rtol=0, atol=1e-5)


def _like(mask: Tensor, part: Tensor) -> Tensor:
    return mask if part.dim() == 2 else mask[..., None]


@pytest.mark.parametrize("mode", ["window", "carry"])
def test_acting_is_their_evaluation_loop(mode: str) -> None:
    """Their published loop: append, cut to the context, pad at the left, take the last action."""
    theirs, ours = make_theirs(4, "relu", "eager"), make_ours(4, "relu")
    load(ours, theirs)
    rng = np.random.default_rng(0)
    steps = TIME if mode == "carry" else 2 * TIME  # within the context a cache is a window
    states = rng.normal(size=(steps, STATES)).astype(np.float32)
    rewards, target = rng.normal(size=steps), 3.0
    policy = ours.policy(1, target, mode)  # type: ignore[arg-type]
    actions = torch.zeros(0, ACTIONS)
    returns_to_go = target - np.concatenate([[0], np.cumsum(rewards)[:-1]])
    for step in range(steps):
        got = policy.act(states[step : step + 1], rewards[step - 1 : step] if step else None)
        actions = torch.cat([actions, torch.zeros(1, ACTIONS)])
        first = max(0, step + 1 - TIME)
        pad = TIME - (step + 1 - first)

        def window(values: Tensor, pad: int = pad, first: int = first, step: int = step) -> Tensor:
            rows = values[first : step + 1]
            return torch.cat([torch.zeros(pad, *rows.shape[1:], dtype=rows.dtype), rows])[None]

        batch = Batch(
            observations=window(torch.from_numpy(states)),
            actions=window(actions),
            returns_to_go=window(torch.from_numpy(returns_to_go).float()[:, None]),
            timesteps=window(torch.arange(steps)),
            mask=(torch.arange(TIME) >= pad)[None],
        )
        wanted = their_actions(theirs, batch)[0, -1]
        np.testing.assert_allclose(got[0], wanted.numpy(), rtol=0, atol=1e-5)
        actions[-1] = torch.from_numpy(got[0])
