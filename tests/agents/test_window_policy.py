"""A window of tokens acts as a window of observations does, and encodes each frame once."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_cases import CONTEXT, CONTINUOUS, DISCRETE, make_agent

from aaren_rl.agents.window_policy import TokenWindowPolicy, WindowPolicy

FRAMES = gym.spaces.Box(0, 255, (36, 36, 1), np.uint8)
ENVS, STEPS = 2, 3 * CONTEXT


@pytest.mark.parametrize("action_space", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
@pytest.mark.parametrize("condition", ["target", "max-return"])
@pytest.mark.parametrize("told", [False, True], ids=["chosen", "executed"])
@torch.no_grad()
def test_tokens_are_kept_in_place_of_frames(
    action_space: gym.Space, condition: str, told: bool
) -> None:
    agent = make_agent(
        "decision-transformer", action_space, FRAMES, condition=condition, encoder="nature"
    )
    targets = np.array([30.0, 50.0])
    policies = [WindowPolicy(agent, targets), TokenWindowPolicy(agent, targets)]
    assert type(agent.policy(num_envs=ENVS, mode="window")) is TokenWindowPolicy
    encoded: list[int] = []
    agent.embed_observation.register_forward_hook(
        lambda _, given, __: encoded.append(len(given[0]))
    )
    rng = np.random.default_rng(0)
    action_space.seed(0)
    ended = {4: [True, False], CONTEXT + 3: [False, True], 2 * CONTEXT: [True, True]}
    for step in range(STEPS):
        frames = rng.integers(0, 256, (ENVS, *FRAMES.shape)).astype(np.uint8)
        given = {}
        if step:
            given["rewards"] = rng.normal(size=ENVS)
            given["dones"] = np.array(ended.get(step, [False, False]))
        if step and told:
            given["executed_actions"] = np.stack([action_space.sample() for _ in range(ENVS)])
        encoded.clear()
        first, second = (policy.act(frames, **given) for policy in policies)
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(*(each.returns_to_go for each in policies), rtol=1e-5)
        assert encoded[-1] == ENVS  # the window of tokens encodes the new frames alone
    assert policies[1].state_bytes < policies[0].state_bytes / 5
