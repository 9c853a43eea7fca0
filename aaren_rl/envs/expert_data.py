"""Datasets of scripted experts in the tasks that need memory, made in memory or written for Minari.

    data = expert_dataset("aaren/PassiveTMaze-v0?length=[5,120]&noise=0.5", episodes=2000)

The environment's options go with the data, so that training and evaluation find it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from aaren_rl.data.sources.minari import local_root
from aaren_rl.data.to_minari import check_new_dataset, write_minari
from aaren_rl.data.trajectory import Trajectory, TrajectoryDataset
from aaren_rl.envs.minigrid_memory import MiniGridMemoryExpert
from aaren_rl.envs.passive_tmaze import PassiveTMazeExpert, VectorPassiveTMaze
from aaren_rl.envs.recall import RecallExpert
from aaren_rl.envs.vector import environment_spec, make_vector_env
from aaren_rl.errors import UserError

BATCH = 256  # environments that step together
REFERENCE_SCORES = (0.0, 1.0)  # scores are then per cent of success


class Expert(Protocol):
    """Who acts by a script, with the interface of an agent's policy."""

    def act(
        self,
        observations: NDArray[np.float32],
        rewards: NDArray[np.float64] | None = None,
        dones: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Actions `[num_envs]`; `dones` where an episode begins with this observation."""


EXPERTS: dict[str, Callable[[VectorEnv[Any, Any, Any]], Expert]] = {
    "PassiveTMaze": PassiveTMazeExpert,
    "Recall": RecallExpert,
    "MiniGridMemory": MiniGridMemoryExpert,
}
"""By the beginning of the environment's name."""


@dataclass(frozen=True)
class Recording:
    """Whole episodes, each with the observation after its last action.

    Attributes:
        episodes: in the order of their seeds.
        observation_space: of one observation.
        action_space: of one action.
        environment: where they come from, options included.
    """

    episodes: list[Trajectory]
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    environment: EnvSpec


def expert_dataset(
    environment: EnvSpec | str, episodes: int, *, seed: int = 0, name: str | None = None
) -> TrajectoryDataset:
    """Let the task's expert act, and give what it did as a dataset, without touching the disk.

    Args:
        environment: one of the tasks that need memory, options included.
        episodes: how many; episode i is seeded with `seed + i`. In a passive T-maze the cues come
            equally often.
        seed: of the first episode.
        name: of the dataset; by default the environment's id.

    Raises:
        UserError: an environment without an expert, or that cannot be made; no episodes.
    """
    recording = record_expert(environment, episodes, seed=seed)
    return TrajectoryDataset.from_episodes(
        recording.episodes,
        name=name or recording.environment.id,
        observation_space=recording.observation_space,
        action_space=recording.action_space,
        env_spec=recording.environment,
        reference_scores=REFERENCE_SCORES,
    )


def write_expert_dataset(
    dataset_id: str,
    environment: EnvSpec | str,
    episodes: int,
    *,
    seed: int = 0,
    root: Path | None = None,
) -> Path:
    """Let the task's expert act, and write what it did as a Minari dataset.

    Args:
        dataset_id: the new dataset's id, `namespace/name-v0`.
        environment: as for `expert_dataset`, and so are `episodes` and `seed`.
        episodes: how many.
        seed: of the first episode.
        root: the Minari root to write into; by default the local one, `MINARI_DATASETS_PATH`.

    Returns:
        The dataset's folder.

    Raises:
        UserError: as `expert_dataset`, or the dataset is there already, or cannot be written.
    """
    check_new_dataset(dataset_id, local_root() if root is None else root)
    recording = record_expert(environment, episodes, seed=seed)
    low, high = REFERENCE_SCORES
    return write_minari(
        dataset_id,
        recording.episodes,
        observation_space=recording.observation_space,
        action_space=recording.action_space,
        env_spec=recording.environment,
        root=root,
        metadata={
            "author": {"aaren-rl"},
            "algorithm_name": "scripted expert",
            "description": f"Scripted expert in {recording.environment.id}, options "
            f"{recording.environment.kwargs}; seeds {seed} to {seed + episodes - 1}",
            "ref_min_score": low,
            "ref_max_score": high,
            "num_episodes_average_score": 100,
        },
    )


def record_expert(environment: EnvSpec | str, episodes: int, *, seed: int = 0) -> Recording:
    """Let the task's expert act for a number of whole episodes; see `expert_dataset`."""
    spec = environment_spec(environment) if isinstance(environment, str) else environment
    kind = next((kind for kind in EXPERTS if spec.name.startswith(kind)), None)
    if kind is None or spec.namespace != "aaren":
        known = ", ".join(f"aaren/{name}" for name in EXPERTS)
        raise UserError(f"environment {spec.id!r}: no expert for it; {known} expected")
    if episodes < 1:
        raise UserError(f"{episodes} episodes: at least 1 expected")
    env = make_vector_env(spec, min(episodes, BATCH))
    try:
        cues = None
        if isinstance(env, VectorPassiveTMaze):
            cues = _balanced_cues(env.num_cues, episodes, seed)
        recorder = _Recorder(env, EXPERTS[kind](env), episodes, seed, cues)
        return Recording(
            recorder.run(), env.single_observation_space, env.single_action_space, spec
        )
    finally:
        env.close()


def _balanced_cues(cues: int, episodes: int, seed: int) -> NDArray[np.int64]:
    """A cue for each episode, in random order, all equally often."""
    return np.random.default_rng(seed).permutation(np.arange(episodes) % cues)


class _End(NamedTuple):
    """Where an episode is in the recording, and how it ended."""

    env: int
    steps: slice
    observation: NDArray[np.float32]
    terminated: bool


class _Recorder:
    """Acts in a batch of environments, each of which takes the next episode when it is through."""

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        expert: Expert,
        episodes: int,
        seed: int,
        cues: NDArray[np.int64] | None,
    ) -> None:
        self.env, self.expert, self.num_episodes = env, expert, episodes
        self.seed, self.cues = seed, cues
        self.running = np.arange(env.num_envs)  # the episode in each environment
        self.begun = np.zeros(env.num_envs, np.int64)  # and the vector step at which it began
        self.handed_out = env.num_envs

    def run(self) -> list[Trajectory]:
        """All episodes, in the order of their seeds."""
        step = 0
        dones = np.ones(self.env.num_envs, bool)
        observations = self._restart(dones)
        seen, taken, earned = [], [], []
        ends: dict[int, _End] = {}
        while len(ends) < self.num_episodes:
            actions = self.expert.act(observations, None, dones)
            seen.append(observations)
            taken.append(actions)
            observations, rewards, terminations, truncations, _ = self.env.step(actions)
            earned.append(rewards)
            step += 1
            dones = np.asarray(terminations | truncations)
            if dones.any():
                for index in np.flatnonzero(dones).tolist():
                    span = slice(int(self.begun[index]), step)
                    end = _End(index, span, observations[index].copy(), bool(terminations[index]))
                    ends.setdefault(int(self.running[index]), end)
                self._hand_out(dones, step)
                observations = self._restart(dones)
        arrays = [np.stack(rows, axis=1) for rows in (seen, taken, earned)]
        return [_cut(arrays, ends[episode]) for episode in range(self.num_episodes)]

    def _hand_out(self, dones: NDArray[np.bool_], step: int) -> None:
        """Give the next episodes to those that are through; when there are none, old ones again."""
        for index in np.flatnonzero(dones).tolist():
            self.running[index] = min(self.handed_out, self.num_episodes - 1)
            self.begun[index] = step
            self.handed_out += 1

    def _restart(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Begin the episodes that were handed out; the observations of all environments."""
        options: dict[str, Any] = {"reset_mask": mask}
        if self.cues is not None:
            options["cue"] = self.cues[self.running]
        seeds: Any = [self.seed + int(episode) for episode in self.running]
        observations, _ = self.env.reset(seed=seeds, options=options)
        return np.asarray(observations)


def _cut(arrays: list[NDArray[Any]], end: _End) -> Trajectory:
    """One episode out of observations, actions and rewards `[num_envs, vector steps, ...]`."""
    seen, taken, earned = (array[end.env, end.steps] for array in arrays)
    return Trajectory(
        observations=np.concatenate([seen, end.observation[None]]),
        actions=taken,
        rewards=earned,
        terminated=end.terminated,
        truncated=not end.terminated,
    )
