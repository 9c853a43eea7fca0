"""Online fine-tuning: the agent plays an episode, learns from it for some updates, and so on."""

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
from aaren_rl.envs.check import single_spaces
from aaren_rl.envs.loop import recorded_episodes
from aaren_rl.envs.make import close_env
from aaren_rl.errors import UserError
from aaren_rl.evaluation.rollouts import drawing, limit_of
from aaren_rl.evaluation.seeds import first_episode_seed
from aaren_rl.layout import Layout
from aaren_rl.training.build import make_sampler
from aaren_rl.training.checkpoint import with_prefix, without_prefix
from aaren_rl.training.config import TrainConfig
from aaren_rl.training.learner import Learner
from aaren_rl.training.online.buffer import ReplayBuffer
from aaren_rl.training.online.config import FinetuneConfig
from aaren_rl.training.trainer import Trainer


class OnlineSampler:
    """Plays, and draws batches of what was played and of the data.

    Everything random follows from the run's seed and the number of episodes played: the episodes,
    the draws of actions, and the batches until the next episodes.

    Args:
        config: how to train: the batches' size, sampling and seed.
        online: how to play.
        agent: who plays; it is left in training mode.
        environment: where, as `make_vector_env` takes it; observations are not flattened.
        buffer: what is learned from.
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
        self.environment_steps = self.episodes = 0  # played so far
        self._vector: VectorEnv[Any, Any, Any] = make_vector_env(environment, online.explorers)
        self._updates_left = 0  # until the next episodes
        self._batches: Sampler | None = None
        self._last: dict[str, float] = {}
        self._restored: dict[str, Tensor] = {}
        space, _ = single_spaces(self._vector)
        if Layout.of(space).form != agent.spec.observation_layout.form:
            self.close()
            raise UserError(
                f"the environment shows {space}, the agent was trained on "
                f"{agent.spec.observation_space}: flattened observations cannot be played with"
            )

    @property
    def done(self) -> bool:
        """Whether all steps are played and learned from."""
        return self._updates_left == 0 and self.environment_steps >= self.online.steps

    def prepare(self, on_step: Callable[[], None]) -> None:
        """Play the next episodes, if all updates of the ones before are done.

        `on_step` is called before each step. It may raise to stop: then nothing has changed.
        """
        if self._updates_left:
            return
        training, vector = self.agent.training, self._vector
        seed = first_episode_seed(self.config.seed, "when playing") + self.episodes
        make_policy = drawing(self.agent, self.online.temperature, seed)
        policy = make_policy(vector.num_envs, self._asked(), self.config.mode)
        play = recorded_episodes(
            _Watched(policy, on_step),
            vector,
            episodes=vector.num_envs,
            seed=seed,
            limit=limit_of(vector, self.agent),
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
        self._updates_left = self.online.updates_per_episode * new.num_episodes
        self._new_batches()

    def _asked(self) -> float | None:
        """The return that is asked for when playing."""
        if self.online.exploration_return is not None or not self.agent.asks_return:
            return self.online.exploration_return
        usual = self.agent.usual_target or 0.0
        return usual + abs(usual)

    def sample(self) -> Batch:
        """The next batch; `prepare` comes before."""
        assert self._batches is not None
        self._updates_left -= 1
        return self._batches.sample()

    def metrics(self) -> dict[str, float]:
        """What there is to log, by tag."""
        counts = {"environment_steps": self.environment_steps, "episodes": self.episodes}
        counts["buffer_episodes"] = len(self.buffer)
        return {f"online/{name}": float(v) for name, v in {**counts, **self._last}.items()}

    def state_dict(self) -> dict[str, Any]:
        """Its state as JSON values; `tensors` has the episodes."""
        return {
            "environment_steps": self.environment_steps,
            "episodes": self.episodes,
            "left": self._updates_left,
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
        """The inverse of `state_dict`."""
        self.buffer.load(state["buffer"], self._restored)
        self.environment_steps, self.episodes = state["environment_steps"], state["episodes"]
        self._updates_left, self._last = state["left"], dict(state["last"])
        if state["batches"] is not None:
            self._new_batches().load_state_dict(state["batches"])

    def close(self) -> None:
        """Close the environments."""
        close_env(self._vector)

    def _new_batches(self) -> Sampler:
        """Begin batches of the buffer's episodes; the agent gets the largest return in it."""
        data, spec = self.buffer.data(), self.agent.spec
        largest = data.largest_return_to_go
        if spec.largest_return is not None:
            largest = max(largest, spec.largest_return)
        self.agent.spec = dataclasses.replace(spec, largest_return=largest)
        seed = np.random.SeedSequence([self.config.seed, self.episodes]).generate_state(1)
        config = dataclasses.replace(self.config, seed=int(seed[0]))
        self._batches = make_sampler(config, data, 0, 1)
        return self._batches


class _Watched:
    """A policy that calls `on_step` before each step."""

    def __init__(self, policy: Any, on_step: Callable[[], None]) -> None:
        self._policy, self._on_step = policy, on_step

    def act(self, observations: Any, rewards: Any = None, dones: Any = None) -> Any:
        """See `Policy.act`."""
        self._on_step()
        return self._policy.act(observations, rewards, dones)


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


class OnlineTrainer(Trainer):
    """A trainer that ends when all environment steps are played and learned from.

    Its `state` counts on from the training before, so that the curves of both lie on one axis.
    """

    learner: OnlineLearner

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._first = self.state.update

    def _progress(self) -> tuple[int, int, str]:
        sampler = self.learner.sampler
        return sampler.environment_steps, sampler.online.steps, "environment step"

    @property
    def _at_end(self) -> bool:
        return self.learner.sampler.done

    def _due(self, interval: int) -> bool:
        """Counted from the first update of the fine-tuning, and before it."""
        return (self.state.update - self._first) % interval == 0

    def _say_duration(self) -> None:
        """Nothing: episodes may have any length."""

    def _step(self) -> None:
        try:
            self.learner.sampler.prepare(self._on_step)
        except UserError:  # of the environment; what is learned must be saved
            self._save()
            raise
        super()._step()
