"""Environments made from whatever specifies them.

An environment is given as a Gymnasium id (`Hopper-v5`, `module:Id`, either with options behind a
question mark), a specification (also as JSON), a function that makes one, an environment, or a
vector environment.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, WrapperSpec, load_env_creator
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers import TimeLimit

from aaren_rl.environment import environment_spec
from aaren_rl.envs.global_settings import global_settings_kept
from aaren_rl.envs.limits import layers_of, time_limit
from aaren_rl.envs.success import SuccessAlone
from aaren_rl.errors import FAILURES, UserError, one_line

Env = gymnasium.Env[Any, Any]
EnvLike = str | EnvSpec | Callable[[], Env] | Env | VectorEnv[Any, Any, Any]

RECORDERS = {"Monitor", "RecordEpisodeStatistics", "RecordVideo", "DataCollector"}
"""Wrappers that only record what happens; without them the environment is the same."""
STATISTICS = ("obs_rms", "return_rms")
"""Attributes of Gymnasium's wrappers that normalise by running statistics."""
MOVED = {
    "aaren_rl.envs.passive_tmaze:": "aaren_rl.envs.memory.tmaze:",
    "aaren_rl.envs.recall:": "aaren_rl.envs.memory.recall:",
    "aaren_rl.envs.minigrid_memory:": "aaren_rl.envs.memory.minigrid:",
    "aaren_rl.envs.mask_velocity:": "aaren_rl.envs.memory.mask_velocity:",
}
"""Modules named in the specifications of older runs and datasets, and where they are now."""


def describe(env: EnvLike) -> str:
    """A short name of an environment for messages."""
    if isinstance(env, str):
        return env if not env.lstrip().startswith("{") else environment_spec(env).id
    if isinstance(env, EnvSpec):
        return env.id
    if isinstance(env, (gymnasium.Env, VectorEnv)):
        inner = env.unwrapped
        if isinstance(inner, SyncVectorEnv):
            inner = inner.envs[0].unwrapped
        return inner.spec.id if inner.spec is not None else type(inner).__name__
    if isinstance(env, functools.partial):
        return describe(env.args[0] if env.func is _with_limit else env.func)
    return getattr(env, "__name__", type(env).__name__)


def spec_of(env: EnvLike) -> EnvSpec | None:
    """The environment's specification, where it has one; a function is called once."""
    if isinstance(env, (str, EnvSpec)):
        return _checked_spec(env)
    if isinstance(env, (gymnasium.Env, VectorEnv)):
        inner = env.unwrapped
        one = inner.envs[0] if env.spec is None and isinstance(inner, SyncVectorEnv) else env
        return one.spec
    made = make_env(env)
    close_env(made)
    return made.spec


def saved_name(env: EnvLike | None) -> str | None:
    """The id or JSON specification to make an environment again; `None` where neither does."""
    if env is None or isinstance(env, str):
        return env
    spec = env if isinstance(env, EnvSpec) else getattr(env, "spec", None)
    if not isinstance(spec, EnvSpec) or isinstance(env, VectorEnv):
        return None
    try:
        return spec.to_json()
    except (TypeError, ValueError):  # its entry point is a class or a function, or an argument is
        known = gymnasium.registry.get(spec.id)
        own = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
        same = known and (known.kwargs, known.max_episode_steps) == (own, spec.max_episode_steps)
        return spec.id if same and not spec.additional_wrappers else None


def close_env(env: Env | VectorEnv[Any, Any, Any]) -> None:
    """Close an environment; what its `close` raises is a warning."""
    try:
        env.close()
    except FAILURES as error:
        text = f"environment {describe(env)}: its close failed: {one_line(error)}"
        warnings.warn(text, stacklevel=2)


def make_env(env: EnvLike, *, render_mode: str | None = None) -> Env:
    """One environment that is reset by hand. One that is given is not closed by its `close`.

    Raises:
        UserError: it cannot be made, or is no `gymnasium.Env`.
    """
    if isinstance(env, gymnasium.Env):
        _warn_of_statistics(env)
        return _Borrowed(env)
    if isinstance(env, VectorEnv):
        raise UserError(
            f"environment {describe(env)}: a single one, no vector environment, expected"
        )
    options: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    try:
        with _without_deprecations(), global_settings_kept(generator=False):
            if isinstance(env, (str, EnvSpec)):
                made = gymnasium.make(_checked_spec(env), disable_env_checker=True, **options)
            else:
                made = env()
    except UserError:
        raise
    except FAILURES as error:  # constructors of other people's environments raise anything
        raise UserError(
            f"environment {describe(env)!r}: cannot be made: {one_line(error)}"
        ) from error
    if not isinstance(made, gymnasium.Env):
        raise UserError(
            f"environment {describe(env)!r}: a gymnasium.Env expected, got {type(made)}"
        )
    for name in ("observation_space", "action_space"):
        if not isinstance(space := getattr(made, name, None), gymnasium.Space):
            raise UserError(
                f"environment {describe(env)!r}: {name} {space!r}: a space of Gymnasium expected"
            )
    _warn_of_statistics(made)
    return made


def make_vector_env(
    env: EnvLike, num_envs: int, *, asynchronous: bool = False, exact: bool = False
) -> VectorEnv[Any, Any, Any]:
    """Make `num_envs` copies of an environment that do not restart by themselves.

    Finished environments must be restarted before the next step, by
    `reset(seed=[...], options={"reset_mask": finished})`, which leaves the others as they are.
    Gymnasium removes the mask from that dictionary: make a new one for each call.

    An environment that is given is the only one in the vector, whatever `num_envs` is. A vector
    environment that is given keeps its number and autoreset mode. The result's `close` closes
    neither. With `asynchronous` each environment runs in a process of its own. With `exact` floats
    are kept in float64, whatever the environment declares; not in vector environments of their own.

    Raises:
        UserError: no such environment, it cannot be made, or `num_envs` below 1.
    """
    if isinstance(env, VectorEnv):
        _warn_of_statistics(env)
        return _BorrowedVector(env)
    if num_envs < 1:
        raise UserError(f"{num_envs} environments: at least 1 expected")
    spec = _checked_spec(env) if isinstance(env, (str, EnvSpec)) else None
    count = 1 if isinstance(env, gymnasium.Env) else num_envs
    made: list[Env] = []

    def make() -> Env:
        made.append(SuccessAlone(make_env(env)))
        if exact:
            made[-1].observation_space = _in_float64(made[-1].observation_space)
        return made[-1]

    try:
        if spec is not None and _has_vector_form(spec) and not asynchronous:
            mode: Any = {"autoreset_mode": AutoresetMode.DISABLED.value}
            mode["vectorization_mode"] = "vector_entry_point"
            return gymnasium.make_vec(spec, num_envs=count, **mode)
        how = AsyncVectorEnv if asynchronous else SyncVectorEnv
        vector: Any = how([make] * count, autoreset_mode=AutoresetMode.DISABLED)
        if asynchronous:  # Gymnasium has made one in this process, for its spaces
            vector.envs = made
    except FAILURES as error:
        message = one_line(error)
        if not isinstance(error, UserError):
            message = f"environment {describe(env)!r}: cannot be made: {message}"
        if made and not asynchronous:
            for each in made:
                close_env(each)
            message += f" ({len(made)} of {count} were; --num-envs 1 makes one alone)"
        raise UserError(message) from error
    vector.spec = spec
    return vector


def _in_float64(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """The space with its floats in float64: buffers of vector environments have its dtype."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _in_float64(part) for key, part in space.spaces.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([_in_float64(part) for part in space.spaces])
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        return spaces.Box(low, high, dtype=np.float64)
    return space


def limit_episodes(env: EnvLike, steps: int) -> EnvLike:
    """The environment, with its episodes cut after `steps` steps if it has no time limit.

    Warns when it cuts them. A vector environment is returned as it is. Functions are called once,
    to look for a limit. `UserError` when it cannot be made.
    """
    spec = _checked_spec(env) if isinstance(env, (str, EnvSpec)) else None
    if isinstance(env, VectorEnv) or (spec is not None and spec.max_episode_steps is not None):
        return env
    made = make_env(env)
    limit = time_limit(made)
    close_env(made)
    if limit is not None:
        return env
    warnings.warn(
        f"environment {describe(env)}: it has no time limit, so episodes are cut after {steps} "
        "steps, as many as the longest episode of the data has",
        stacklevel=2,
    )
    if isinstance(env, gymnasium.Env):
        return TimeLimit(env, steps)
    if isinstance(env, str) and not env.lstrip().startswith("{"):
        return f"{env}{'&' if '?' in env else '?'}max_episode_steps={steps}"
    if spec is not None:
        return replace(spec, max_episode_steps=steps)
    return functools.partial(_with_limit, env, steps)


def _with_limit(env: EnvLike, steps: int) -> Env:
    return TimeLimit(make_env(env), steps)


def _warn_of_statistics(env: Env | VectorEnv[Any, Any, Any]) -> None:
    for layer in layers_of(env):
        if any(attribute in vars(layer) for attribute in STATISTICS):
            warnings.warn(
                f"environment {describe(env)}: its wrapper {type(layer).__name__} normalises by "
                "running statistics, which are not the data's: what agents see or earn here is "
                "not on the scale of the data",
                stacklevel=3,
            )


class _Borrowed(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment of the caller's, which stays open."""

    def close(self) -> None:
        """Do nothing."""


class _BorrowedVector(VectorWrapper[Any, Any, Any, Any, Any]):
    """A vector environment of the caller's, which stays open."""

    def close(self, **kwargs: Any) -> None:
        """Do nothing."""


def _checked_spec(env: str | EnvSpec) -> EnvSpec:
    """The specification, checked, with today's modules, without recorders that cannot be made."""
    spec = environment_spec(env) if isinstance(env, str) else env
    moved = {name: _moved(getattr(spec, name)) for name in ("entry_point", "vector_entry_point")}
    spec = replace(spec, **moved)
    wrappers = [replace(w, entry_point=_moved(w.entry_point)) for w in spec.additional_wrappers]
    kept = tuple(wrapper for wrapper in wrappers if _can_be_made(wrapper, spec))
    for name, kind in (("entry_point", gymnasium.Env), ("vector_entry_point", VectorEnv)):
        _check_entry_point(spec, name, kind)
    return replace(spec, additional_wrappers=kept)


def _moved(entry_point: Any) -> Any:
    if not isinstance(entry_point, str):
        return entry_point
    return next(
        (entry_point.replace(old, new) for old, new in MOVED.items() if old in entry_point),
        entry_point,
    )


def _check_entry_point(spec: EnvSpec, name: str, kind: type) -> None:
    """Refuse a name that is neither a registered environment's nor a class of this kind.

    Datasets and runs hold specifications, and Gymnasium would call whatever they name.
    """
    entry = getattr(spec, name)
    registered = gymnasium.registry.get(spec.id)
    if not isinstance(entry, str) or (registered and getattr(registered, name) == entry):
        return
    try:
        made = load_env_creator(entry)
    except Exception:  # Gymnasium will raise it when it makes the environment
        return
    if not (isinstance(made, type) and issubclass(made, kind)):
        raise UserError(
            f"environment {spec.id!r}: its {name} {entry} is no {kind.__name__}; import the module "
            f"that registers it with --env module:{spec.id}"
        )


def _can_be_made(wrapper: WrapperSpec, spec: EnvSpec) -> bool:
    """Whether Gymnasium can make a wrapper again; a recorder may be left out."""
    try:
        made = load_env_creator(wrapper.entry_point)
        reason = "its arguments were not recorded" if wrapper.kwargs is None else None
        if not (isinstance(made, type) and issubclass(made, gymnasium.Wrapper)):
            reason = "it is no gymnasium.Wrapper"
    except Exception as error:
        reason = one_line(error)
    if reason is None:
        return True
    which = f"environment {spec.id!r}: its wrapper {wrapper.name} ({wrapper.entry_point})"
    if wrapper.name not in RECORDERS:
        raise UserError(
            f"{which} cannot be made again ({reason}); give another environment with --env"
        )
    warnings.warn(
        f"{which} cannot be made again ({reason}) and is left out: it only records", stacklevel=4
    )
    return False


def _has_vector_form(spec: EnvSpec) -> bool:
    """Whether it is an environment of this package that steps in batches.

    Others' vector environments need not seed each episode as `reset` asks.
    """
    entry_point = spec.vector_entry_point
    ours = isinstance(entry_point, str) and entry_point.startswith("aaren_rl.")
    return ours and spec.max_episode_steps is None and not spec.additional_wrappers


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Suppress MuJoCo's warnings about deprecated attributes in Gymnasium's own models.

    MuJoCo prints one for every environment, and logs it in the working directory.
    """
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(
        lambda text: None if "deprecated" in text else warnings.warn(text, stacklevel=2)
    )
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)
