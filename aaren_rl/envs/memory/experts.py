"""Datasets of scripted experts in the tasks that need memory, in memory or as Minari datasets.

    data = expert_dataset("aaren/PassiveTMaze-v0?length=[5,120]&noise=0.5", episodes=2000)

The environment's options are stored with the data: training and evaluation make the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from aaren_rl.data.episode import Recording
from aaren_rl.data.sources.minari import local_root
from aaren_rl.data.to_minari import check_new_dataset, write_minari
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.envs.loop import Actor, recorded_episodes
from aaren_rl.envs.make import environment_spec, make_vector_env
from aaren_rl.envs.memory.minigrid import MiniGridMemoryExpert
from aaren_rl.envs.memory.recall import RecallExpert
from aaren_rl.envs.memory.tmaze import PassiveTMazeExpert, VectorPassiveTMaze
from aaren_rl.errors import UserError

BATCH = 256  # environments that step together
REFERENCE_SCORES = (0.0, 1.0)  # scores are then per cent of success

EXPERTS: dict[str, Callable[[VectorEnv[Any, Any, Any]], Actor]] = {
    "PassiveTMaze": PassiveTMazeExpert,
    "Recall": RecallExpert,
    "MiniGridMemory": MiniGridMemoryExpert,
}
"""By the beginning of the environment's name."""


def expert_dataset(
    environment: EnvSpec | str, episodes: int, *, seed: int = 0
) -> TrajectoryDataset:
    """Episodes of the task's expert as a dataset, without touching the disk.

    Args:
        environment: one of the tasks that need memory, options included.
        episodes: how many; episode i is seeded with `seed + i`. In a passive T-maze the cues come
            equally often.
        seed: of the first episode.

    Raises:
        UserError: an environment without an expert, or that cannot be made; no episodes.
    """
    return TrajectoryDataset.from_recording(record_expert(environment, episodes, seed=seed))


def write_expert_dataset(
    dataset_id: str,
    environment: EnvSpec | str,
    episodes: int,
    *,
    seed: int = 0,
    root: Path | None = None,
) -> Path:
    """The same as a Minari dataset under the id `namespace/name-v0`; returns its folder.

    Args:
        dataset_id: the new dataset's id.
        environment: as for `expert_dataset`, and so are `episodes` and `seed`.
        episodes: how many.
        seed: of the first episode.
        root: the Minari root to write into; by default the local one, `MINARI_DATASETS_PATH`.

    Raises:
        UserError: as `expert_dataset`, or the dataset exists already, or cannot be written.
    """
    check_new_dataset(dataset_id, local_root() if root is None else root)
    recording = record_expert(environment, episodes, seed=seed)
    spec, (low, high) = recording.env_spec, REFERENCE_SCORES
    assert spec is not None
    assert recording.observation_space is not None
    assert recording.action_space is not None
    return write_minari(
        dataset_id,
        recording.episodes(),
        observation_space=recording.observation_space,
        action_space=recording.action_space,
        env_spec=spec,
        root=root,
        metadata={
            "author": {"aaren-rl"},
            "algorithm_name": "scripted expert",
            "description": f"Scripted expert in {spec.id}, options {spec.kwargs}; "
            f"seeds {seed} to {seed + episodes - 1}",
            "ref_min_score": low,
            "ref_max_score": high,
            "num_episodes_average_score": 100,
        },
    )


def record_expert(environment: EnvSpec | str, episodes: int, *, seed: int = 0) -> Recording:
    """Episodes of the task's expert, T + 1 observations each; see `expert_dataset`."""
    spec = environment_spec(environment) if isinstance(environment, str) else environment
    kind = next((kind for kind in EXPERTS if spec.name.startswith(kind)), None)
    if kind is None or spec.namespace != "aaren":
        known = ", ".join(f"aaren/{name}" for name in EXPERTS)
        raise UserError(f"environment {spec.id!r}: no expert for it; {known} expected")
    if episodes < 1:
        raise UserError(f"{episodes} episodes: at least 1 expected")
    images = "tile_size" in spec.kwargs  # are recorded; the expert sees numbers
    shown = replace(spec, kwargs={**spec.kwargs, "numbers": True}) if images else spec
    env = make_vector_env(shown, min(episodes, BATCH))
    try:
        options = None
        if isinstance(env, VectorPassiveTMaze):
            options = _balanced_cues(env.num_cues, episodes, seed)
        expert, space = EXPERTS[kind](env), env.single_observation_space
        actor = _SeesNumbers(expert) if images else expert
        played = list(recorded_episodes(actor, env, episodes=episodes, seed=seed, options=options))
        if images:
            assert isinstance(space, spaces.Dict)
            space = space["pixels"]
            played = [replace(each, observations=each.observations["pixels"]) for each in played]
        return Recording(
            name=spec.id,
            episodes=lambda: iter(played),
            kind="episodes in memory",
            where=spec.id,
            observation_space=space,
            action_space=env.single_action_space,
            env_spec=spec,
            reference_scores=REFERENCE_SCORES,
        )
    finally:
        env.close()


@dataclass(frozen=True)
class _SeesNumbers:
    """An expert, where observations are `{"numbers": ..., "pixels": ...}`."""

    expert: Actor

    def act(self, observations: Any, rewards: Any = None, dones: Any = None) -> NDArray[Any]:
        return self.expert.act(observations["numbers"], rewards, dones)


def _balanced_cues(
    cues: int, episodes: int, seed: int
) -> Callable[[NDArray[np.int64]], dict[str, Any]]:
    """Reset options with a cue for each episode, in random order, all equally often."""
    drawn = np.random.default_rng(seed).permutation(np.arange(episodes) % cues)
    return lambda running: {"cue": drawn[running]}
