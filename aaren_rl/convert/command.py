"""The command that writes any dataset as a Minari dataset, an episode at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aaren_rl.convert.config import ConvertConfig
from aaren_rl.data.checking import Checker
from aaren_rl.data.episode import Recording, Trajectory
from aaren_rl.data.sources.load import open_recording
from aaren_rl.data.sources.minari import is_minari_id, local_root
from aaren_rl.data.spaces import join_rows, map_arrays, read_as, row_count
from aaren_rl.data.to_minari import check_new_dataset, write_minari
from aaren_rl.environment import known_environment
from aaren_rl.envs.make import environment_spec
from aaren_rl.errors import UserError
from aaren_rl.records import typed
from aaren_rl.registry import load_plugins


def convert(config: ConvertConfig) -> Path:
    """Write the dataset, and return its folder.

    Raises:
        UserError: a source that does not read, a target that is no Minari id or is there already,
            or an environment or plug-in that is not found.
    """
    config = typed(config, "convert()")
    load_plugins(config.plugin)
    if config.target.endswith((".hdf5", ".h5")):
        raise UserError(
            f"target {config.target!r}: D4RL files are read but no longer written; a Minari id "
            "such as d4rl/hopper/medium-v2 expected"
        )
    if not is_minari_id(config.target):
        raise UserError(
            f"target {config.target!r}: a Minari id such as d4rl/hopper/medium-v2 expected"
        )
    spec = None if config.environment is None else environment_spec(config.environment)
    check_new_dataset(config.target, local_root() if config.root is None else config.root)
    recording = open_recording(config.source)
    # It is read twice: spaces are known, and all episodes checked, only at its end.
    checker = Checker(recording, None if spec is None else known_environment(spec))
    with read_as(recording.where, recording.kind):
        for _ in checker.blocks(recording.episodes()):
            pass
    observation_space, action_space = checker.spaces()
    scores = recording.reference_scores
    metadata: dict[str, Any] = {
        "description": f"Converted from {Path(recording.where).name} by aaren-rl convert"
    }
    if scores is not None:
        metadata |= {"ref_min_score": scores[0], "ref_max_score": scores[1]}
        metadata["num_episodes_average_score"] = 100
    return write_minari(
        config.target,
        _with_last_observation(recording),
        observation_space=observation_space,
        action_space=action_space,
        env_spec=spec or recording.env_spec,
        root=config.root,
        metadata=metadata,
        compression=None if config.compression == "none" else config.compression,
    )


def _with_last_observation(recording: Recording) -> Iterator[Trajectory]:
    """Episodes of T + 1 observations; the last is repeated where the source does not have it."""

    def repeated(part: Any) -> Any:
        return join_rows([part, part[-1:]])

    with read_as(recording.where, recording.kind):
        for episode in (recording.to_the_end or recording.episodes)():
            observations = map_arrays(np.asarray, episode.observations)
            if row_count(observations) == len(episode.rewards):
                observations = map_arrays(repeated, observations)
            yield replace(episode, observations=observations)
