"""Evaluation environments: several at once, each with its own seed, restarted by hand."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv

from aaren_rl.data.spaces import flat_size
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.envs.tasks import environment_id
from aaren_rl.errors import UserError


def environment_of(dataset: TrajectoryDataset) -> EnvSpec | str:
    """The environment to evaluate in: the dataset's own, else the one that its name says.

    Raises:
        UserError: neither is known.
    """
    environment = dataset.env_spec or environment_id(dataset.name)
    if environment is None:
        raise UserError(
            f"dataset {dataset.name!r} does not say its environment; give it with --environment"
        )
    return environment


def make_vector_env(
    environment: EnvSpec | str,
    num_envs: int,
    *,
    asynchronous: bool = False,
    render_mode: str | None = None,
) -> VectorEnv[Any, Any, Any]:
    """Make `num_envs` copies of an environment that do not restart by themselves.

    Give seeds by `reset(seed=[...])`, one an environment. Finished environments must be restarted
    before the next step, by `reset(seed=[...], options={"reset_mask": finished})`, which leaves
    the others as they are. Gymnasium takes the mask out of that dictionary: make a new one a call.

    Args:
        environment: a specification, or the id of a registered environment.
        num_envs: how many.
        asynchronous: each in a process of its own.
        render_mode: as in `gymnasium.make`.

    Raises:
        UserError: no such environment, or fewer than one.
    """
    if num_envs < 1:
        raise UserError(f"{num_envs} environments: at least 1 expected")
    try:
        return gymnasium.make_vec(
            environment,
            num_envs=num_envs,
            vectorization_mode="async" if asynchronous else "sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
            render_mode=render_mode,
            disable_env_checker=True,
        )
    except (gymnasium.error.Error, ImportError) as error:
        name = environment if isinstance(environment, str) else environment.id
        reason = " ".join(str(error).split())
        raise UserError(f"environment {name!r}: cannot be made: {reason}") from error


def check_environment(
    vector_env: VectorEnv[Any, Any, Any],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
) -> None:
    """Raise UserError unless an agent for these spaces can act in the environment.

    Args:
        vector_env: the environments.
        observation_space: of the data that the agent learned from, for one environment.
        action_space: likewise.
    """
    ours, theirs = flat_size(vector_env.single_observation_space), flat_size(observation_space)
    if ours != theirs:
        raise UserError(
            f"observations: the environment's {vector_env.single_observation_space} has {ours} "
            f"values, the data's {observation_space} has {theirs}; equal numbers expected"
        )
    environment_actions = vector_env.single_action_space
    if _action_kind(environment_actions) != _action_kind(action_space):
        raise UserError(
            f"actions: the environment takes {environment_actions}, the data hold {action_space}; "
            "the same kind and size expected"
        )


def _action_kind(space: spaces.Space[Any]) -> tuple[str, int]:
    """What has to agree between two action spaces; bounds may differ."""
    return type(space).__name__, flat_size(space)
