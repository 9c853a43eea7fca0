"""Robot data without velocities, so that an agent has to remember earlier positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from numpy.typing import NDArray

from aaren_rl.data.episode import Recording, Trajectory
from aaren_rl.data.spaces import named, numbers, read_as
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.errors import UserError
from aaren_rl.robots import ROBOTS, robot_named

PREFIX = "mask-velocity:"
WRAPPER = WrapperSpec("MaskVelocity", "aaren_rl.envs.memory.mask_velocity:MaskVelocity", {})

# Observations of Gymnasium's robots are positions, then velocities: qpos without the first entry
# (the way travelled), then qvel; see `_get_obs` in gymnasium/envs/mujoco/*_v5.py. The way travelled
# is there too with `exclude_current_positions_from_observation=False`.
BASE_ENVIRONMENTS = ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5")
SIZES = {"hopper": (5, 6), "halfcheetah": (8, 9), "walker2d": (8, 9)}
"""Positions, without the way travelled, and velocities."""


def mask_velocity(dataset: TrajectoryDataset) -> TrajectoryDataset:
    """The same episodes with the positions alone, to act in the environment that shows no more.

    The name gets the prefix `mask-velocity:`; actions, rewards and reference scores stay.

    Raises:
        UserError: not data of Hopper, HalfCheetah or Walker2d, or not their observations.
    """
    robot, positions = _shown(dataset.name, dataset.env_spec, dataset.observations.shape[1])
    return replace(
        dataset,
        name=PREFIX + dataset.name,
        observations=dataset.observations[:, :positions].copy(),
        observation_space=positions_space(dataset.observation_space, positions),
        observation_offset=(
            None if dataset.observation_offset is None else dataset.observation_offset[:positions]
        ),
        env_spec=masked_environment(dataset.env_spec or gymnasium.spec(ROBOTS[robot].environment)),
    )


def masked_recording(recording: Recording) -> Recording:
    """As `mask_velocity`, of a recording; its environment is known where the recording says it.

    Raises:
        UserError: as `mask_velocity`.
    """
    with read_as(recording.where, recording.kind):
        size = next((_columns(each).shape[1] for each in recording.episodes()), 0)
    _, positions = _shown(recording.name, recording.env_spec, size)

    def masked(episodes: Callable[[], Iterator[Trajectory]]) -> Callable[[], Iterator[Trajectory]]:
        return lambda: (
            replace(each, observations=_columns(each)[:, :positions]) for each in episodes()
        )

    space, spec, whole = recording.observation_space, recording.env_spec, recording.to_the_end
    return replace(
        recording,
        name=PREFIX + recording.name,
        episodes=masked(recording.episodes),
        observation_space=None if space is None else positions_space(space, positions),
        env_spec=None if spec is None else masked_environment(spec),
        to_the_end=None if whole is None else masked(whole),
    )


def _columns(episode: Trajectory) -> NDArray[Any]:
    with named("observations"):
        values = numbers(episode.observations)
        if values.ndim != 2:
            raise UserError(f"shape {list(values.shape)}; rows of numbers expected")
    return values


def _shown(name: str, spec: EnvSpec | None, size: int) -> tuple[str, int]:
    """The robot whose observations have `size` values, and how many of them are positions."""
    known = robot_named(name if spec is None else spec.name)
    robot = "" if known is None else known.name
    if robot not in SIZES:
        raise UserError(
            f"{PREFIX}{name}: data of {', '.join(SIZES)} expected; other robots' "
            "velocities are not known"
        )
    least, velocities = SIZES[robot]
    positions = size - velocities
    if positions - least not in (0, 1):
        raise UserError(
            f"{PREFIX}{name}: {size} values an observation; {robot}'s "
            f"{least + velocities}, positions and velocities, expected"
        )
    return robot, positions


def masked_environment(environment: EnvSpec) -> EnvSpec:
    """The environment with the wrapper `MaskVelocity` around it: `aaren/MaskVelocityHopper-v5`."""
    version = "" if environment.version is None else f"-v{environment.version}"
    return replace(
        environment,
        id=f"aaren/MaskVelocity{environment.name}{version}",
        additional_wrappers=(*environment.additional_wrappers, WRAPPER),
    )


def positions_space(space: spaces.Space, positions: int) -> spaces.Box:
    """The space of the first `positions` values of a flat Box.

    Raises:
        UserError: another kind of space.
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise UserError(f"observations {space}: a Box of one dimension expected")
    return spaces.Box(space.low[:positions], space.high[:positions], dtype=space.dtype.type)
