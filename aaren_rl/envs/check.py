"""Which environment belongs to a dataset, and whether an environment fits an agent's spaces."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from aaren_rl.data.episode import BLOCK
from aaren_rl.data.spaces import flat_size
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.envs.d4rl_ant import BODY_SIZE, D4RL_ANT, OBSERVATION_SIZE
from aaren_rl.envs.make import Env, EnvLike, spec_of
from aaren_rl.errors import UserError
from aaren_rl.layout import Layout
from aaren_rl.robots import Robot, is_robot_environment, robot_named, robot_of, usable_reference


def environment_of(dataset: TrajectoryDataset) -> EnvSpec | str:
    """The environment to evaluate in: the dataset's own, else by its name; else `UserError`."""
    if dataset.env_spec is not None:
        return dataset.env_spec
    if dataset.name in gymnasium.registry:
        return dataset.name
    robot = robot_of_dataset(dataset)
    if robot is None:
        raise UserError(
            f"dataset {dataset.name!r} does not say its environment; give it with --env"
        )
    return D4RL_ANT if robot.name == "ant" and _is_d4rl_ant(dataset) else robot.environment


def robot_of_dataset(dataset: TrajectoryDataset, env: EnvLike | None = None) -> Robot | None:
    """The robot whose target return and reference scores apply to a dataset, or None.

    Args:
        dataset: its name, and its environment or its sizes, must be the robot's.
        env: where the agent acts, if that is not the dataset's own environment. A function is
            called once.

    Raises:
        UserError: the environment cannot be made.
    """
    if env is None:
        sizes = dataset.observations.shape[1], flat_size(dataset.action_space)
        return robot_of(dataset.name, dataset.env_spec, sizes)
    spec = spec_of(env) if robot_named(dataset.name) else None
    return None if spec is None else robot_of(dataset.name, spec)


def reference_scores_of(
    dataset: TrajectoryDataset, env: EnvLike | None = None
) -> tuple[float, float] | None:
    """Returns that count as 0 and 100: the dataset's own, else those of its robot.

    D4RL's, which a dataset was given by its name alone, do not apply in another environment; `env`
    is as for `robot_of_dataset`.
    """
    robot, own = robot_named(dataset.name), usable_reference(dataset.reference_scores)
    if robot is None or own not in (None, robot.reference_scores):
        return own
    return None if robot_of_dataset(dataset, env) is None else robot.reference_scores


def reference_scores_in(
    env: EnvLike | None, dataset: str, own: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Returns that count as 0 and 100 where an agent acts in `env`; `None` for its own environment.

    A robot's, which the agent has by the dataset's name alone, do not apply in another environment,
    for example with other rewards: `None`. So is one without a specification, which Gymnasium's
    robots have; of a vector environment without one nothing is known.

    Args:
        env: where the agent acts. A function is called once.
        dataset: name of the training data.
        own: the agent's reference scores.

    Raises:
        UserError: the environment cannot be made.
    """
    robot = robot_named(dataset)
    if env is None or robot is None or own != robot.reference_scores:
        return own
    spec = spec_of(env)
    same = isinstance(env, VectorEnv) if spec is None else is_robot_environment(robot, spec)
    return own if same else None


def check_environment(
    env: Env | VectorEnv[Any, Any, Any],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
) -> None:
    """Raise UserError unless an agent for these spaces, of one environment, can act in `env`."""
    seen, taken = single_spaces(env)
    if not isinstance(observation_space, spaces.Box):
        if Layout.of(seen).form != Layout.of(observation_space).form:
            raise UserError(
                f"observations: the environment's {seen}, the data's {observation_space}; the same "
                "parts, shapes and choices expected"
            )
    elif (size := flat_size(seen)) != (expected := flat_size(observation_space)):
        raise UserError(
            f"observations: the environment's {seen} has {size} values, the data's "
            f"{observation_space} has {expected}; equal numbers expected"
        )
    elif isinstance(seen, spaces.Box) and seen.shape != observation_space.shape:
        raise UserError(
            f"observations: the environment's have shape {seen.shape}, the data's "
            f"{observation_space.shape}; the same shape expected"
        )
    for own, theirs in zip(
        Layout.of(observation_space).leaves, Layout.of(seen).leaves, strict=False
    ):
        if own.is_image and not theirs.levels and np.max(theirs.space.high) <= 1:
            raise UserError(
                f"observations: the environment's {theirs.space} are at most 1, the data's images "
                "are uint8, 0 to 255; the same numbers expected"
            )
    if Layout.of(taken).form != Layout.of(action_space).form:
        raise UserError(
            f"actions: the environment takes {taken}, the data hold {action_space}; "
            "the same kind and size expected"
        )


def single_spaces(
    env: Env | VectorEnv[Any, Any, Any],
) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """The observation and the action space of one environment."""
    if isinstance(env, VectorEnv):
        return env.single_observation_space, env.single_action_space
    return env.observation_space, env.action_space


def _is_d4rl_ant(dataset: TrajectoryDataset) -> bool:
    """Whether Ant's observations are D4RL's: as many, and no contact forces."""
    right_size = dataset.observations.shape[1] == OBSERVATION_SIZE
    starts = range(0, dataset.num_steps if right_size else 0, BLOCK)
    forces = (dataset.observations[start : start + BLOCK, BODY_SIZE:] for start in starts)
    return right_size and not any(block.any() for block in forces)
