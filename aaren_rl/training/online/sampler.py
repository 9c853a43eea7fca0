"""Batches from a buffer that grows: the agent plays an episode, then learns for some updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from torch import Tensor

from aaren_rl.agents import Agent
from aaren_rl.data import Sampler
from aaren_rl.data.sampling import Batch
from aaren_rl.envs import make_vector_env
from aaren_rl.envs.check import check_environment, single_spaces
from aaren_rl.envs.loop import recorded_episodes
from aaren_rl.errors import UserError
from aaren_rl.evaluation.rollouts import check_length, drawing, limit_of
from aaren_rl.evaluation.seeds import first_episode_seed
from aaren_rl.layout import Layout
from aaren_rl.training.build import make_sampler
from aaren_rl.training.checkpoint import with_prefix, without_prefix
from aaren_rl.training.config import TrainConfig
from aaren_rl.training.learner import Learner
from aaren_rl.training.online.buffer import ReplayBuffer
from aaren_rl.training.online.config import FinetuneConfig


class OnlineSampler:
    """Plays, and draws batches of what was played and of the data.

    Everything random follows from the run's seed and the number of episodes played: the episodes,
    the draws of actions, and the batches until the next ones.

    Args:
        config: how to train: the batches' size, sampling and seed.
        online: how to play.
        agent: who plays; it is left in training mode.
        environment: where, as `make_vector_env` takes it.
        buffer: what is learned from.

    Attributes:
        environment_steps: played so far.
        episodes: played so far.
    """

    def __init__(
        self,
        config: TrainConfig,
        online: FinetuneConfig,
        agent: Agent,
        environment: Any,
        buffer: ReplayBuffer,
    ) -> None:
        self.config, self.online, self.agent, self.buffer = config, online, agent, buffer
        self.environment_steps = self.episodes = 0
        self._environment = environment
        self._vector: VectorEnv[Any, Any, Any] | None = None
        self._left = 0  # updates until the next episode
        self._batches: Sampler | None = None
        self._last: dict[str, float] = {}
        self._restored: dict[str, Tensor] = {}

    @property
    def done(self) -> bool:
        """Whether all steps are played and learned from."""
        return self._left == 0 and self.environment_steps >= self.online.steps

    def prepare(self, on_step: Callable[[], None]) -> None:
        """Play the next episodes, if all updates of the ones before are done.

        Args:
            on_step: called before each step; may raise to stop, and nothing has happened then.

        Raises:
            UserError: the environment does not fit or fails.
        """
        if self._left:
            return
        training, vector = self.agent.training, self._environments()
        seed = first_episode_seed(self.config.seed, "when playing") + self.episodes
        make_policy = drawing(self.agent, self.online.temperature, seed)
        asked = self.online.exploration_return if self.agent.asks_return else None
        policy = make_policy(vector.num_envs, asked, self.config.mode)
        play = recorded_episodes(
            _Watched(policy, on_step),
            vector,
            episodes=vector.num_envs,
            seed=seed,
            limit=limit_of(vector),
        )
        try:
            new = self.buffer.add(list(play))
        finally:
            self.agent.train(training)
        self.environment_steps += new.num_steps
        self.episodes += new.num_episodes
        self._last = {
            "episode_return": float(new.episode_returns.mean()),
            "episode_length": float(new.lengths.mean()),
        }
        self._left = self.online.updates_per_episode * new.num_episodes
        self._begin()

    def sample(self) -> Batch:
        """The next batch; `prepare` comes before."""
        assert self._batches is not None
        self._left -= 1
        return self._batches.sample()

    def metrics(self) -> dict[str, float]:
        """What there is to log, by tag."""
        counts = {"environment_steps": self.environment_steps, "episodes": self.episodes}
        counts["buffer_episodes"] = len(self.buffer)
        return {f"online/{name}": float(v) for name, v in {**counts, **self._last}.items()}

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as JSON values; `tensors` has the episodes."""
        return {
            "environment_steps": self.environment_steps,
            "episodes": self.episodes,
            "left": self._left,
            "last": dict(self._last),
            "buffer": self.buffer.state_dict(),
            "batches": None if self._batches is None else self._batches.state_dict(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The episodes that were played."""
        return self.buffer.tensors()

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`; `load_state_dict` comes next."""
        self._restored = tensors

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the sampler that gave `state` stood."""
        self.buffer.load(state["buffer"], self._restored)
        self.environment_steps, self.episodes = state["environment_steps"], state["episodes"]
        self._left, self._last = state["left"], dict(state["last"])
        if state["batches"] is not None:
            self._begin().load_state_dict(state["batches"])

    def close(self) -> None:
        """Close the environments."""
        if self._vector is not None:
            self._vector.close()
            self._vector = None

    def _begin(self) -> Sampler:
        """Batches of the buffer as it is now, and the largest return in it for the agent."""
        data, spec = self.buffer.data(), self.agent.spec
        largest = data.largest_return_to_go
        if spec.largest_return is not None:
            largest = max(largest, spec.largest_return)
        self.agent.spec = dataclasses.replace(spec, largest_return=largest)
        mixed = np.random.SeedSequence([self.config.seed, self.episodes]).generate_state(1)
        config = dataclasses.replace(self.config, seed=int(mixed[0]))
        self._batches = make_sampler(config, data, 0, 1)
        return self._batches

    def _environments(self) -> VectorEnv[Any, Any, Any]:
        if self._vector is None:
            spec = self.agent.spec
            vector = make_vector_env(self._environment, self.online.explorers)
            check_environment(vector, spec.observation_space, spec.action_space)
            check_length(self.agent, vector)
            space, _ = single_spaces(vector)
            if Layout.of(space).form != spec.observation_layout.form:
                raise UserError(
                    f"the environment shows {space}, the agent was trained on "
                    f"{spec.observation_space}: flattened observations cannot be played with"
                )
            self._vector = vector
        return self._vector


class OnlineLearner(Learner):
    """A learner whose sampler plays: what it has played is saved, and its metrics are logged."""

    sampler: OnlineSampler

    def metrics(self) -> dict[str, float]:
        """See `Learner.metrics`."""
        return {**super().metrics(), **self.sampler.metrics()}

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `Learner.tensors`."""
        shared, own = super().tensors()
        return shared, own | with_prefix("buffer.", self.sampler.tensors())

    def restore(self, shared: dict[str, Tensor], own: dict[str, Tensor]) -> None:
        """See `Learner.restore`."""
        super().restore(shared, own)
        self.sampler.load_tensors(without_prefix("buffer.", own))


class _Watched:
    """A policy that calls `on_step` before each step."""

    def __init__(self, policy: Any, on_step: Callable[[], None]) -> None:
        self._policy, self._on_step = policy, on_step

    def act(self, observations: Any, rewards: Any = None, dones: Any = None) -> Any:
        """See `Policy.act`."""
        self._on_step()
        return self._policy.act(observations, rewards, dones)
