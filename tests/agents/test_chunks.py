"""Action chunks: what is learned from, what is executed when, and that restarts begin anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import aaren_rl as arl
from aaren_rl.agents import AgentConfig, load_agent
from aaren_rl.cli import main
from aaren_rl.data import Batch
from aaren_rl.errors import UserError
from aaren_rl.export.command import write_step
from aaren_rl.layers import make_head
from tests.agents.agent_cases import SPACES, TARGET, make_agent

BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


def test_what_is_beyond_an_episode_is_not_learned_from() -> None:
    """Two episodes packed in one row, of three and two steps: 5 + 3 + 1 pairs are known."""
    head = make_head(BOX, chunk=3)
    torch.manual_seed(0)
    predictions, actions = torch.randn(1, 5, 6), torch.rand(1, 5, 2)
    timesteps = torch.tensor([[0, 1, 2, 0, 1]])
    mask = torch.ones(1, 5, dtype=torch.bool)
    batch = Batch(torch.zeros(1, 5, 1), actions, torch.zeros(1, 5, 1), timesteps, mask)
    pairs = [(t, 0) for t in range(5)] + [(0, 1), (1, 1), (3, 1), (0, 2)]
    errors = [
        (predictions[0, t, 2 * j : 2 * j + 2] - actions[0, t + j]).square().mean() for t, j in pairs
    ]
    torch.testing.assert_close(head.batch_loss(predictions, batch), torch.stack(errors).mean())
    padded = batch._replace(mask=torch.tensor([[True, True, False, False, False]]))
    errors = [errors[0], errors[1], errors[5]]
    torch.testing.assert_close(head.batch_loss(predictions, padded), torch.stack(errors).mean())
    one = make_head(BOX)
    assert torch.equal(one.batch_loss(actions, batch), one.loss(actions, actions, mask))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    ("name", "mode"),
    [("decision-aaren", "carry"), ("decision-aaren", "window"), ("behavior-cloning", None)],
)
def test_actions_of_a_chunk_are_executed(name: str, mode: Any, space: str) -> None:
    """Beside a policy that predicts anew at each step and is told what was really executed."""
    agent = make_agent(name, SPACES[space], action_chunk=3, execute=2)
    policy, other = agent.policy(2, mode=mode), agent.policy(2, mode=mode)
    other._execute = 1  # type: ignore[attr-defined]
    seen: list[Any] = []
    other.choose = lambda predictions: agent.actions.single.decide(predictions)  # type: ignore[attr-defined]
    original = agent.actions.chunk
    agent.actions.chunk = lambda given: seen.append(original(given)) or original(given)  # type: ignore[method-assign, func-returns-value]
    rng, place, before = np.random.default_rng(0), np.zeros(2, int), None
    plans: list[Any] = [None, None]
    for step in range(7):
        observations = rng.normal(size=(2, 4)).astype(np.float32)
        rewards = None if step == 0 else np.ones(2)
        dones = np.array([False, step == 3])
        actions = policy.act(observations, rewards, dones)
        other.act(observations, rewards, dones, executed_actions=before)
        chunk = [agent.actions.to_numpy(agent.actions.single.decide(each)) for each in seen[-1]]
        for env in range(2):
            if dones[env] or place[env] == 2:
                place[env] = 0
            if place[env] == 0:
                plans[env] = [each[env] for each in chunk]
            np.testing.assert_allclose(actions[env], plans[env][place[env]], atol=1e-5)
            place[env] += 1
        before = actions
    policy.reset(np.array([True, False]))
    assert policy.state_bytes > 0


def test_trained_saved_loaded_and_exported(tmp_path: Path) -> None:
    small: dict[str, Any] = {"updates": 2, "width": 8, "layers": 1, "episodes": 1}
    run = arl.train(
        "aaren-rl/hopper-small-v0",
        env="none",
        action_chunk=3,
        execute=2,
        head="tanh-gaussian",
        sampling="episodes",
        **small,
    )
    run.agent.save(tmp_path / "agent")
    loaded = load_agent(tmp_path / "agent")
    how: dict[str, Any] = {"episodes": 1, "deterministic": False, "seed": 3}
    returns = [
        arl.evaluate(agent, "Hopper-v5", **how).rows[0].returns for agent in (run.agent, loaded)
    ]
    assert returns[0] == returns[1]
    with pytest.raises(UserError, match="executes 2 actions of a chunk"):
        write_step(loaded, tmp_path / "step", "torch-export")
    agent = make_agent("behavior-cloning", action_chunk=3)
    write_step(agent, tmp_path / "step", "torch-export")


def test_bad_chunks_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--execute", "2"], ["--action-chunk", "0"], ["--execute", "0"]):
        assert main(["train", *words]) == 2
        assert f"error: {words[0]} must be at " in capsys.readouterr().err
    assert AgentConfig.from_json({}).action_chunk == 1
    assert make_agent("decision-aaren").policy(1, TARGET).plan_bytes == 0  # type: ignore[attr-defined]
