"""Evaluation environments: several at once, each with its own seed, restarted by hand."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import mujoco
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv

from aaren_rl.errors import one_line
from aaren_rl.data.spaces import flat_size
from aaren_rl.data.trajectory import BLOCK, TrajectoryDataset
from aaren_rl.envs.d4rl_ant import BODY_SIZE, D4RL_ANT, OBSERVATION_SIZE
from aaren_rl.envs.tasks import ENVIRONMENTS, environment_id
from aaren_rl.errors import UserError


def environment_of(dataset: TrajectoryDataset) -> EnvSpec | str:
    """The environment to evaluate in: the dataset's own, else the one that its name says.

    Raises:
        UserError: neither is known.
    """
    environment = dataset.env_spec or environment_id(dataset.name)
    if environment == ENVIRONMENTS["ant"] and _is_d4rl_ant(dataset):
        return D4RL_ANT
    if environment is None:
        raise UserError(
            f"dataset {dataset.name!r} does not say its environment; give it with --environment"
        )
    return environment


def environment_spec(name: str) -> EnvSpec:
    """The registered environment of this name, which may have options behind a question mark.

    `aaren/PassiveTMaze-v0?length=10000&noise=0.5` is what
    `gymnasium.make("aaren/PassiveTMaze-v0", length=10000, noise=0.5)` makes. Values are JSON:
    numbers, `true`, `[5,120]`; what is no JSON is text.

    Raises:
        UserError: no such environment, or an option without a value.
    """
    plain, _, options = name.partition("?")
    try:
        spec = copy.deepcopy(gymnasium.spec(plain))
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"environment {name!r}: {one_line(error)}") from error
    for option in options.split("&") if options else ():
        key, equals, value = option.partition("=")
        if not (key and equals):
            raise UserError(f"environment {name!r}: option {option!r}: key=value expected")
        try:
            spec.kwargs[key] = json.loads(value)
        except ValueError:
            spec.kwargs[key] = value
    return spec


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
        environment: a specification, or the name of a registered environment, options behind
            a question mark included (see `environment_spec`).
        num_envs: how many.
        asynchronous: each in a process of its own.
        render_mode: as in `gymnasium.make`.

    Raises:
        UserError: no such environment, or fewer than one.
    """
    if num_envs < 1:
        raise UserError(f"{num_envs} environments: at least 1 expected")
    name = environment if isinstance(environment, str) else environment.id
    spec = environment_spec(environment) if isinstance(environment, str) else environment
    options: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    if _has_vector_form(spec) and not asynchronous:
        mode = "vector_entry_point"
        options["autoreset_mode"] = AutoresetMode.DISABLED.value
    else:
        mode = "async" if asynchronous else "sync"
        options["vector_kwargs"] = {"autoreset_mode": AutoresetMode.DISABLED}
        options["disable_env_checker"] = True  # it would check, and slow, every step
    try:
        with _without_deprecations():
            return gymnasium.make_vec(spec, num_envs=num_envs, vectorization_mode=mode, **options)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise UserError(f"environment {name!r}: cannot be made: {one_line(error)}") from error


def make_env(spec: EnvSpec) -> gymnasium.Env[Any, Any]:
    """One environment that is reset by hand.

    Raises:
        UserError: it cannot be made.
    """
    try:
        with _without_deprecations():
            return gymnasium.make(spec, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise UserError(f"environment {spec.id!r}: cannot be made: {one_line(error)}") from error


def _has_vector_form(spec: EnvSpec) -> bool:
    """Whether an environment is one of ours that steps in batches.

    Other people's vector environments start their episodes as they like, not as we seed them.
    """
    entry_point = spec.vector_entry_point
    return isinstance(entry_point, str) and entry_point.startswith("aaren_rl.")


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


def _is_d4rl_ant(dataset: TrajectoryDataset) -> bool:
    """Whether Ant's observations are D4RL's: as many, and no contact forces."""
    right_size = dataset.observations.shape[1] == OBSERVATION_SIZE
    starts = range(0, dataset.num_steps if right_size else 0, BLOCK)
    forces = (dataset.observations[start : start + BLOCK, BODY_SIZE:] for start in starts)
    return right_size and not any(block.any() for block in forces)


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Keep quiet about deprecated words in Gymnasium's own MuJoCo models.

    MuJoCo prints such a warning for every environment, and logs it in the working directory.
    """
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(
        lambda text: None if "deprecated" in text else warnings.warn(text, stacklevel=2)
    )
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)
