"""What an environment says of itself, by whatever names it."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any, NamedTuple

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from aaren_rl.errors import FAILURES, UserError, one_line
from aaren_rl.registry import import_module


def environment_spec(name: str) -> EnvSpec:
    """The specification of an environment by its id, or from JSON.

    `aaren/PassiveTMaze-v0?length=10000&noise=0.5` is what
    `gymnasium.make("aaren/PassiveTMaze-v0", length=10000, noise=0.5)` makes. Values are JSON:
    numbers, `true`, `[5,120]`; what is no JSON is text. `my_envs:Line-v0` imports `my_envs` first,
    from the working directory too.

    Raises:
        UserError: no such environment or module, or an option without a value.
    """
    plain, _, options = name.partition("?")
    module, _, registered = plain.rpartition(":")
    try:
        if name.lstrip().startswith("{"):
            return EnvSpec.from_json(name)
        if module:
            import_module(module)
        spec = copy.deepcopy(gymnasium.spec(registered))
    except FAILURES as error:  # an imported module may raise anything
        raise UserError(f"environment {name!r}: {one_line(error)}") from error
    for option in options.split("&") if options else ():
        key, equals, value = option.partition("=")
        if not (key and equals):
            raise UserError(f"environment {name!r}: option {option!r}: key=value expected")
        try:
            spec.kwargs[key] = json.loads(value)
        except (ValueError, RecursionError):
            spec.kwargs[key] = value
    spec.max_episode_steps = spec.kwargs.pop("max_episode_steps", spec.max_episode_steps)
    return spec


class Known(NamedTuple):
    """The spaces of an environment, and its specification where it has one."""

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    spec: EnvSpec | None


def known_environment(env: Any) -> Known:
    """What an environment says, which is made and closed if need be.

    `env` is a Gymnasium id, as `environment_spec` reads it, a spec, a function that makes an
    environment, an environment, or a vector environment. `UserError` when it cannot be made.
    """
    made = None
    env = environment_spec(env) if isinstance(env, str) else env
    if isinstance(env, EnvSpec) or not hasattr(env, "observation_space"):
        make = env if callable(env) else lambda: gymnasium.make(env, disable_env_checker=True)
        try:
            env = made = make()
        except UserError:
            raise
        except FAILURES as error:
            raise UserError(f"environment {env}: cannot be made: {one_line(error)}") from error
    single = "single_" if hasattr(env, "single_observation_space") else ""
    known = Known(
        getattr(env, f"{single}observation_space"),
        getattr(env, f"{single}action_space"),
        getattr(env, "spec", None),
    )
    if made is not None:
        with suppress(*FAILURES):  # nothing depends on it
            made.close()
    return known


def registered_action_space(spec: EnvSpec | None) -> spaces.Space[Any] | None:
    """The action space of the environment that Gymnasium has under a specification's id.

    None where it cannot be made, or may have other choices in the specification, by its options or
    wrappers. A specification in a file of data may name anything, so that the registry's own is
    made.
    """
    if spec is None or spec.id not in gymnasium.registry:
        return None
    try:
        space = known_environment(spec.id).action_space
    except UserError:  # a package or a licence that is missing; training says so
        return None
    plain = not spec.additional_wrappers and spec.kwargs == gymnasium.registry[spec.id].kwargs
    return space if plain or not isinstance(space, spaces.Discrete) else None
