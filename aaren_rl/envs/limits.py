"""How long an environment's episodes are, and what ends them."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import gymnasium
from gymnasium.vector import SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers import TimeLimit

Env = gymnasium.Env[Any, Any]

LIMITS = ("_max_episode_steps", "max_episode_steps", "max_steps")
"""Attributes in which environments and `TimeLimit` keep their time limit, in steps."""
LONGEST = 10**8  # a larger one says that there is no limit


def time_limit(env: Env | VectorEnv[Any, Any, Any]) -> int | None:
    """Steps that an environment names as its longest episode's; `None` when it names none.

    An attribute may name more than the environment keeps to, see `missing_limit`.
    """
    one = _one_of(env)
    if isinstance(one, VectorEnv):
        return _spec_limit(one) or _named_limit(one)
    limits = [_named_limit(layer) for layer in layers_of(one)]
    return min((limit for limit in limits if limit is not None), default=None)


def missing_limit(env: Env | VectorEnv[Any, Any, Any], otherwise: int) -> int | None:
    """Steps after which episodes must be cut, since no `TimeLimit` does; else `None`.

    As many as an attribute names, which the environment itself need not end at, or `otherwise`.
    """
    one = _one_of(env)
    kept = (
        _spec_limit(one) is not None
        if isinstance(one, VectorEnv)
        else any(isinstance(layer, TimeLimit) for layer in layers_of(one))
    )
    return None if kept else time_limit(one) or otherwise


def _one_of(env: Any) -> Any:
    """The first environment of a vector environment that shows its environments; else itself."""
    if not isinstance(env, VectorEnv):
        return env
    shown = getattr(env.unwrapped, "envs", None)
    return shown[0] if shown else env.unwrapped


def _spec_limit(vector: VectorEnv[Any, Any, Any]) -> int | None:
    return None if vector.spec is None else vector.spec.max_episode_steps


def layers_of(env: Any) -> Iterator[Any]:
    """The environment's wrappers from the outermost on, and what they wrap.

    Of a vector environment that shows its environments also the first one's.
    """
    while isinstance(env, (gymnasium.Wrapper, VectorWrapper)):
        yield env
        env = env.env
    yield env
    if isinstance(env, SyncVectorEnv):
        yield from layers_of(env.envs[0])


def _named_limit(env: Any) -> int | None:
    names = (name for name in LIMITS if name in vars(env) or hasattr(type(env), name))
    values = (getattr(env, name, None) for name in names)  # its own, not those that it wraps
    whole = (int(value) for value in values if isinstance(value, Integral))  # also NumPy's
    return next((limit for limit in whole if 0 < limit <= LONGEST), None)
