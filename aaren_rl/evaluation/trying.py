"""Check an environment by one step in it, before hours of training."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from aaren_rl.agents import Agent
from aaren_rl.data.spaces import flatten_batch, map_arrays, parts_of
from aaren_rl.envs.check import check_environment
from aaren_rl.envs.global_settings import global_settings_kept
from aaren_rl.envs.make import (
    Env,
    EnvLike,
    close_env,
    describe,
    make_env,
    make_vector_env,
)
from aaren_rl.errors import FAILURES, UserError, one_line
from aaren_rl.evaluation.rollouts import check_length, fitted

RESET = "reset(seed=..., options=...) must give (observation, info)"
STEP = "step(action) must give (observation, reward, terminated, truncated, info)"
API = "as in Gymnasium since 0.26"


def try_environment(env: EnvLike, agent: Agent, seed: int = 0) -> None:
    """Make an environment, reset it, and take one step with an action of the agent.

    A single environment that is given is reset and stepped too. Of a vector environment only the
    spaces and the time limit are checked.

    Args:
        env: see `aaren_rl.envs.make_vector_env`.
        agent: for the spaces of its data and for the action. It is left in evaluation mode.
        seed: of the reset.

    Raises:
        UserError: the environment cannot be made, does not fit the agent, has the signatures of
            old Gym, raises, or gives something else than an observation of its space, a finite
            reward and two flags; one line that names what.
    """
    single = make_vector_env(env, 1) if isinstance(env, VectorEnv) else make_env(env)
    try:
        check_environment(single, agent.spec.observation_space, agent.spec.action_space)
        check_length(agent, single)
        if isinstance(single, gymnasium.Env):  # a vector would bring some mistakes into shape
            _try_step(single, agent, seed, f"environment {describe(env)}")
    finally:
        close_env(single)


def _try_step(env: Env, agent: Agent, seed: int, name: str) -> None:
    reset = _call(f"{name}: reset", RESET, env.reset, seed=seed, options=None)
    if not isinstance(reset, tuple) or len(reset) != 2:
        raise UserError(f"{name}: {RESET}, {API}; got {_kind(reset)}")
    _check_info(reset[1], f"{name}: reset")
    space = env.observation_space
    batch = _batch(reset[0], space, f"{name}: reset")
    action = _action(agent, env, batch)
    step = _call(f"{name}: step", STEP, env.step, action)
    if not isinstance(step, tuple) or len(step) != 5:
        raise UserError(f"{name}: {STEP}, {API}; got {_kind(step)}")
    observation, reward, *flags, info = step
    second = _batch(observation, space, f"{name}: step")
    if (outside := _outside(space, batch) or _outside(space, second)) is not None:
        warnings.warn(f"{name}: observation holds {outside}", stacklevel=4)
    try:
        value = float(reward)  # also of a NumPy scalar or an array of one number
    except (TypeError, ValueError):
        value = np.nan
    if isinstance(reward, str) or np.ndim(reward) or not np.isfinite(value):
        raise UserError(f"{name}: step: reward {reward!r}: a finite number expected")
    for word, flag in zip(("terminated", "truncated"), flags, strict=True):
        if np.ndim(flag) or np.asarray(flag).dtype.kind not in "biu":
            raise UserError(f"{name}: step: {word} {flag!r}: True or False expected")
    _check_info(info, f"{name}: step")


def _check_info(info: Any, what: str) -> None:
    if not isinstance(info, dict):  # vector environments read it
        raise UserError(f"{what}: info {info!r}: a dictionary expected")


def _call(what: str, signature: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        with global_settings_kept(generator=True):
            return function(*args, **kwargs)
    except FAILURES as error:
        said = f"{type(error).__name__}: {one_line(error)}"
        if isinstance(error, TypeError) or "unpack" in said:
            said = f"{said}; {signature}, {API}"
        raise UserError(f"{what} failed: {said}") from error


def _kind(result: Any) -> str:
    if isinstance(result, tuple):
        return f"{len(result)} values"
    return f"one {type(result).__name__}"


def _batch(observation: Any, space: spaces.Space[Any], what: str) -> Any:
    """A batch of one observation, as a vector environment gives it, checked."""
    try:
        batch = _as_batch(observation, space)
        flat = flatten_batch(space, batch)
    except (UserError, KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{what}: observation does not fit {space}: {one_line(error)}") from error
    if not np.isfinite(flat).all():
        bad = flat[~np.isfinite(flat)][0]
        raise UserError(f"{what}: observation holds {bad}; finite numbers expected")
    return batch


def _as_batch(observation: Any, space: spaces.Space[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _as_batch(observation[key], part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(map(_as_batch, observation, space.spaces))
    array = np.asarray(observation)
    declared = space.dtype
    if declared is not None and array.dtype.kind in "biuf":
        with np.errstate(invalid="ignore"):
            same = declared.kind not in "iu" or np.array_equal(array.astype(declared), array)
        if not (same and np.can_cast(array.dtype, declared, "same_kind")):
            shown = array.dtype if same else f"{array.dtype} numbers such as {array.flat[0]}"
            raise UserError(f"{shown} came, {declared} is declared")
    return array[None]


def _outside(space: spaces.Space[Any], batch: Any) -> str | None:
    """A number that is outside the bounds of its Box, in words; `None` where there is none."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        found = (_outside(part, batch[key]) for key, part in parts_of(space).items())
        return next(filter(None, found), None)
    if not isinstance(space, spaces.Box):
        return None
    values = batch[0].astype(space.dtype)
    off = (values < space.low) | (values > space.high)
    return f"{values[off][0]:g}, outside of {space}" if off.any() else None


def _action(agent: Agent, env: Env, batch: Any) -> Any:
    """The agent's action at the beginning of an episode."""
    training = agent.training
    actions = fitted(agent.policy(1, agent.usual_target), env, agent).act(batch)
    agent.train(training)
    return map_arrays(lambda part: part[0], actions)
