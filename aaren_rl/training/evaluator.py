"""Evaluations during training: acting in the environment, and measurements on held-out episodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aaren_rl.agents import Agent
from aaren_rl.data import TrajectoryDataset
from aaren_rl.envs.global_settings import global_settings_kept
from aaren_rl.errors import UserError
from aaren_rl.evaluation import Score, rollout, score
from aaren_rl.evaluation.length import LengthError, length_errors
from aaren_rl.evaluation.memory import MemoryHorizon, episode_batch, memory_horizon
from aaren_rl.evaluation.rollouts import seconds_per_step
from aaren_rl.evaluation.seeds import first_episode_seed
from aaren_rl.layers import AarenAttention
from aaren_rl.training.checkpoint import random_state, restore_random_state
from aaren_rl.training.config import TrainConfig
from aaren_rl.training.loggers import target_tag


@dataclass(frozen=True)
class OfflineMetrics:
    """Metrics on held-out episodes.

    Attributes:
        lengths: action errors by position.
        memory: of the longest episode; Aaren's alone.
    """

    lengths: list[LengthError]
    memory: MemoryHorizon | None = None

    @property
    def margin(self) -> dict[str, float]:
        """See `MemoryHorizon`, by `layer_L_head_H`."""
        return {
            f"layer_{layer}_head_{head}": float(value)
            for layer, heads in enumerate([] if self.memory is None else self.memory.margin)
            for head, value in enumerate(heads)
        }

    def scalars(self) -> dict[str, float]:
        """By TensorBoard tag; the horizon, exp(margin), is in tokens."""
        tags = {}
        for row in self.lengths:
            place = f"steps_{row.first}_{row.last}"
            tags[f"held_out/error_carry/{place}"] = row.carry
            tags[f"held_out/error_window/{place}"] = row.window
        for name, value in self.margin.items():
            tags[f"memory/margin/{name}"] = value
            tags[f"memory/horizon/{name}"] = math.exp(value) if value < 700 else math.inf
        return tags


def offline_metrics(agent: Agent, held_out: TrajectoryDataset) -> OfflineMetrics:
    """Measure on held-out episodes; the same episodes and steps at every call."""
    lengths = length_errors(agent, held_out)
    sequence = getattr(agent, "sequence_model", None)
    if sequence is None or not isinstance(sequence.blocks[0].mixer, AarenAttention):
        return OfflineMetrics(lengths)
    batch = episode_batch(held_out, int(held_out.lengths.argmax()))
    return OfflineMetrics(lengths, memory_horizon(agent, batch.to(agent.observation_mean.device)))


class Evaluator:
    """Measures an agent, which is left in training mode, in the same episodes at every call.

    Args:
        config: how many episodes, for which targets, in which mode.
        agent: the agent that acts.
        environment: where, as `rollout` takes it; `None` for nowhere. With several datasets a list
            of one for each.
        held_out: episodes to measure errors on; `None` for none.
        longest_episode: steps of the data's longest episode, for the expected duration.
    """

    def __init__(
        self,
        config: TrainConfig,
        agent: Agent,
        environment: Any,
        held_out: TrajectoryDataset | None,
        longest_episode: int,
    ) -> None:
        self.config, self.agent, self.environment = config, agent, environment
        self.held_out, self.longest_episode = held_out, longest_episode
        self.acting = [(agent, environment)]
        if agent.spec.tasks and agent.spec.task is None:
            self.acting = [(agent.for_task(i), env) for i, env in enumerate(environment)]
        self.acting = [(who, where) for who, where in self.acting if where is not None]
        self._how: dict[str, Any] = {
            "mode": config.mode,
            "seed": first_episode_seed(config.seed, "during training"),
            "num_envs": config.num_envs,
        }

    def act(self, on_step: Callable[[], None]) -> list[Score]:
        """A score for each target return; none without an environment.

        `on_step` is called after each step of acting; it may raise to stop.
        """
        try:
            with global_settings_kept(generator=True):
                return [
                    self._score(agent, environment, target, on_step)
                    for agent, environment in self.acting
                    for target in self.targets_of(agent)
                ]
        finally:
            self.agent.train()

    def targets_of(self, agent: Agent) -> list[float | None]:
        """The returns that the agent is asked for."""
        asked: list[float | None] = [*(self.config.target_return or agent.spec.target_returns)]
        return asked if agent.asks_return else [None]

    @property
    def groups(self) -> list[str]:
        """The groups of the scores' scalars, see `target_tag`."""
        return [
            target_tag(target, None if agent.spec.task is None else agent.spec.dataset)
            for agent, _ in self.acting or [(self.agent, None)]
            for target in self.targets_of(agent)
        ]

    def _score(
        self, agent: Agent, environment: Any, target: float | None, on_step: Callable[[], None]
    ) -> Score:
        episodes = rollout(
            agent,
            environment,
            episodes=self.config.episodes,
            target_return=target,
            on_step=on_step,
            **self._how,
        )
        result = score(agent, episodes, target)
        if not (math.isfinite(result.score_mean) and math.isfinite(result.return_mean)):
            raise UserError(
                f"the score is {result.score_mean}, the return {result.return_mean}: rewards and "
                "reference scores must be finite, and reference scores differ"
            )
        return result

    def measure(self) -> OfflineMetrics | None:
        """Measurements on the held-out episodes; `None` where none are held out."""
        if self.held_out is None:
            return None
        try:
            return offline_metrics(self.agent, self.held_out)
        finally:
            self.agent.train()

    def expected_seconds(self) -> float | None:
        """An estimate for all evaluations, from some steps of acting; `None` where acting fails."""
        if not self.acting:
            return 0.0
        agent, environment = self.acting[0]
        before = random_state()
        together = min(self.config.episodes, self.config.num_envs)
        how = {"episodes": together, "target_return": self.targets_of(agent)[0], **self._how}
        try:
            step = seconds_per_step(agent, environment, **how)
        except Exception:  # the evaluation itself reports it
            return None
        finally:
            restore_random_state(*before)
            self.agent.train()
        batches = math.ceil(self.config.episodes / together) * len(self.groups)
        evaluations = math.ceil(self.config.updates / self.config.evaluation_interval)
        return evaluations * batches * self.longest_episode * step
