"""Images: their encoders by shape, shifts in training, and agents that learn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from run_cases import signal_at_batch, weights

import aaren_rl as arl
from aaren_rl.agents import AgentConfig
from aaren_rl.data import TrajectoryDataset
from aaren_rl.errors import UserError
from aaren_rl.export.command import write_step
from aaren_rl.layers import make_encoder
from aaren_rl.layers.encoders.images import ImageEncoder, shifted
from aaren_rl.runtime import OnnxPolicy
from aaren_rl.training import Interrupted, build

SMALL = {"width": 16, "layers": 1, "context_length": 4, "batch_size": 8}
SIZE = 18


class Bar(gym.Env[np.ndarray, int]):
    """A bright bar on the left or on the right; the action that names the side is rewarded."""

    observation_space = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def _frame(self) -> np.ndarray:
        self.side = int(self.np_random.integers(2))
        frame = self.np_random.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
        frame[:, slice(3, 6) if self.side == 0 else slice(-6, -3)] = 255
        return frame

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._frame(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = float(action == self.side)
        self.t += 1
        return self._frame(), reward, self.t == 5, False, {}


@pytest.fixture(scope="module")
def data() -> TrajectoryDataset:
    """Episodes of right and of wrong actions, half and half."""
    env, rng, episodes = Bar(), np.random.default_rng(0), []
    for number in range(40):
        frames, actions, rewards = [env.reset(seed=number)[0]], [], []
        right = number % 2 == 0
        for _ in range(5):
            actions.append(env.side if right else int(rng.integers(2)))
            frame, reward, *_ = env.step(actions[-1])
            frames.append(frame)
            rewards.append(reward)
        episodes.append(
            {
                "observations": np.array(frames),
                "actions": np.array(actions),
                "rewards": np.array(rewards),
                "terminated": True,
            }
        )
    return TrajectoryDataset.from_episodes(
        episodes, observation_space=Bar.observation_space, action_space=Bar.action_space
    )


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("nature", (84, 84, 4)),
        ("nature", (4, 84, 84)),
        ("nature", (36, 40)),
        ("impala", (3, 16, 20)),
        ("impala", (16, 20, 1)),
    ],
)
def test_channels_are_found(
    name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    encoder = make_encoder(name, space, 8, {}).eval()
    frames = torch.randint(256, (2, 3, *shape), dtype=torch.uint8)
    tokens = encoder(frames.flatten(2))
    assert tokens.shape == (2, 3, 8)
    torch.testing.assert_close(encoder(frames.flatten(2)[1, 2]), tokens[1, 2])  # a step alone
    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr("aaren_rl.layers.encoders.images.FRAMES", 4)
        torch.testing.assert_close(encoder(frames.flatten(2)), tokens)  # 4 and 2 frames
    if len(shape) == 3:  # the same pixels with the channels at the other end
        channels = min(shape)
        other = frames.movedim(2, -1) if shape[0] == channels else frames.movedim(-1, 2)
        twin = make_encoder(name, spaces.Box(0, 255, other.shape[2:], np.uint8), 8, {}).eval()
        twin.load_state_dict(encoder.state_dict())
        torch.testing.assert_close(twin(other.flatten(2)), tokens)


def test_a_sequence_is_moved_as_a_whole() -> None:
    torch.manual_seed(0)
    row = torch.arange(7.0).expand(1, 7, 7) + 10 * torch.arange(7.0)[:, None]
    rows = row.repeat(6, 1, 1, 1)  # three sequences of two frames
    out = shifted(rows, 3, 2)
    assert out.shape == rows.shape
    for first, second in out.view(3, 2, 1, 7, 7):
        assert torch.equal(first, second)
    padded = torch.nn.functional.pad(row[None], (2,) * 4, mode="replicate")[0, 0]
    places = [padded[i : i + 7, j : j + 7] for i in range(5) for j in range(5)]
    found = {next(k for k, p in enumerate(places) if torch.equal(p, one[0])) for one in out}
    assert len(found) > 1
    encoder = make_encoder("impala", spaces.Box(0, 255, (16, 16), np.uint8), 4, {"shift": 3})
    frames = torch.randint(256, (4, 1, 256), dtype=torch.uint8)
    assert not torch.equal(encoder(frames), encoder(frames))
    encoder.eval()
    assert torch.equal(encoder(frames), encoder(frames))


@pytest.mark.filterwarnings("ignore")
def test_learns_saves_acts_and_exports(data: TrajectoryDataset, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SMALL, "learning_rate": 3e-3, "encoder_options": {"shift": 1}}
    run = arl.train(data, env=Bar, updates=60, episodes=20, encoder="impala", seed=1, **settings)
    agent = run.agent
    assert data.observations.dtype == np.uint8
    assert run.scores[0].return_mean > 4.5  # of 5
    agent.save(tmp_path / "agent")
    loaded = arl.load_agent(tmp_path / "agent")
    write_step(loaded, tmp_path / "step.onnx", "onnx")
    policies = [agent.policy(2, 5.0), loaded.policy(2, 5.0), loaded.policy(2, 5.0, "window")]
    policies.append(OnnxPolicy(tmp_path / "step.onnx", 2, 5.0))
    env = gym.vector.SyncVectorEnv([Bar, Bar])
    frames, rewards = env.reset(seed=3)[0], None
    for _ in range(4):
        actions = [policy.act(frames, rewards) for policy in policies]
        for other in actions[1:]:
            np.testing.assert_array_equal(other, actions[0])
        frames, rewards, *_ = env.step(actions[0])


def test_shifts_are_of_the_seed_and_a_resumed_run_goes_on_with_them(
    data: TrajectoryDataset, tmp_path: Path
) -> None:
    how = {"encoder": "impala", "encoder_options": {"shift": 3}, "env": "none", "updates": 4}
    settings: Any = {**SMALL, **how}
    arl.train(data, out=tmp_path / "whole", **settings)
    with pytest.MonkeyPatch.context() as patch:
        signal_at_batch(patch, "windows", 2)
        with pytest.raises(Interrupted):
            arl.train(data, out=tmp_path / "stopped", **settings)
    arl.train(data, out=tmp_path / "stopped", resume=True, **settings)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    still = arl.train(data, **{**settings, "encoder_options": {"shift": 0}}).agent
    augmented = arl.load_agent(tmp_path / "whole").embed_observation
    assert not torch.equal(still.embed_observation.head.weight, augmented.head.weight)  # type: ignore


@pytest.mark.filterwarnings("ignore")
def test_an_image_beside_choices_and_numbers(tmp_path: Path) -> None:
    space = spaces.Dict(
        image=spaces.Box(0, 255, (3, 16, 20), np.uint8),
        direction=spaces.Discrete(4),
        speed=spaces.Box(-1, 1, (2,)),
    )
    space.seed(0)
    rows = [space.sample() for _ in range(24)]
    seen = {key: np.stack([row[key] for row in rows]) for key in space}
    episode = {"observations": seen, "actions": np.arange(24) % 2, "rewards": np.ones(24)}
    data = TrajectoryDataset.from_episodes(
        [{**episode, "terminated": True}] * 3, observation_space=space
    )
    agent = arl.train(data, env="none", updates=2, **SMALL).agent  # type: ignore[arg-type]
    kinds = {type(part).__name__ for part in agent.embed_observation.parts}  # type: ignore
    assert kinds == {"ImpalaEncoder", "ChoiceTables", "LinearEncoder"}
    agent.save(tmp_path / "agent")
    loaded = arl.load_agent(tmp_path / "agent")
    write_step(loaded, tmp_path / "step.onnx", "onnx")
    policies = [agent.policy(2, 5.0), OnnxPolicy(tmp_path / "step.onnx", 2, 5.0)]
    for t in range(3):
        two = {key: values[2 * t : 2 * t + 2] for key, values in seen.items()}
        first, *others = (policy.act(two, np.ones(2) if t else None) for policy in policies)
        for other in others:
            np.testing.assert_array_equal(other, first)


def test_images_get_an_encoder_by_themselves(data: TrajectoryDataset) -> None:
    run = arl.train(data, env="none", updates=1, **SMALL)  # type: ignore[arg-type]
    assert isinstance(run.agent.embed_observation, ImageEncoder)
    assert run.agent.config.encoder == "impala"
    assert run.agent.normalise(torch.tensor([[255.0] * SIZE * SIZE * 3])).max() == 255


def test_agents_that_see_images_have_heads_that_forget(data: TrajectoryDataset) -> None:
    """One frame shows no velocity; a mean over all frames so far hides the last two."""
    forgetting = AgentConfig(heads=4, recency=(0.25, 0.0625, 0.015625, 0.0))
    for given, wanted in (
        ({}, forgetting),
        ({"encoder": "impala"}, forgetting),
        ({"recency": (0.0,)}, AgentConfig(recency=(0.0,))),
        ({"heads": 2}, AgentConfig(heads=2)),
        ({"width": 18}, AgentConfig()),  # four heads do not divide it
    ):
        settings: Any = {**SMALL, **given}
        config = arl.train(data, env="none", updates=1, **settings).agent.config
        assert (config.heads, config.recency) == (wanted.heads, wanted.recency)


def test_runs_of_images_that_began_with_one_head_go_on(
    data: TrajectoryDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As older versions trained them: resumed, and taken as a start."""
    settings: Any = {**SMALL, "env": "none", "out": tmp_path / "run"}
    with monkeypatch.context() as patch:
        older = {"model": AgentConfig()}
        patch.setitem(build.PRESETS, "control", older)
        arl.train(data, updates=2, **settings)
    run = arl.train(data, updates=4, resume=True, **settings)
    assert run.summary["updates"] == 4
    assert (run.agent.config.heads, run.agent.config.encoder) == (1, "impala")
    for flags in ({}, {"dropout": 0.0}):
        settings = {**SMALL, **flags, "env": "none", "init_from": tmp_path / "run"}
        assert arl.train(data, updates=1, **settings).agent.config.heads == 1


def test_what_does_not_fit_is_named() -> None:
    small = spaces.Box(0, 255, (20, 20, 3), np.uint8)
    with pytest.raises(UserError, match=r"20 x 20 pixels: at least 36 .* `impala`"):
        make_encoder("nature", small, 8, {})
    with pytest.raises(UserError, match=r"images of shape \[5\]"):
        make_encoder("impala", spaces.Box(0, 255, (5,), np.uint8), 8, {})
    with pytest.raises(UserError, match=r"images of float32: uint8 .* expected by ImpalaEncoder"):
        make_encoder("impala", spaces.Box(0, 1, (20, 20, 3)), 8, {})
    with pytest.raises(UserError, match="shift must be at least 0"):
        make_encoder("impala", small, 8, {"shift": -1})
