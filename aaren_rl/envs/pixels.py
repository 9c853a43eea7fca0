"""Environments observed as rendered frames.

Registered is `aaren/Pixels-v0`, with the options of `Pixels`:
`aaren/Pixels-v0?env=CartPole-v1&size=48`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.envs.registration import EnvSpec, load_env_creator
from numpy.typing import NDArray
from PIL import Image

from aaren_rl.envs.limits import time_limit
from aaren_rl.envs.make import EnvLike, describe, environment_spec, make_env
from aaren_rl.errors import UserError, one_line

PIXELS = "aaren/Pixels-v0"
SMALLEST, LARGEST = 16, 1024


class Pixels(gymnasium.Env[Any, Any]):
    """Another environment, observed as uint8 frames `[size, size, channels]`, channels last.

    A frame is what the environment renders, averaged down to `size` pixels a side. One frame does
    not show velocities: an agent has to compare frames, or sees several of them as channels.

    Args:
        env: what is rendered, an id with options or a specification. A function must make an
            environment of render mode `rgb_array`.
        size: pixels a side, from 16 to 1024.
        color: three channels, red, green and blue; else one, of brightness.
        stack: how many frames are seen at once, the oldest first; where an episode begins its first
            frame is repeated.
        numbers: show `{"numbers": ..., "pixels": ...}`, with what the environment itself shows.

    Raises:
        UserError: an environment that cannot be made or does not render, or a size out of range.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  (Gymnasium's own form)

    def __init__(
        self,
        env: EnvLike,
        size: int = 48,
        color: bool = False,
        stack: int = 1,
        numbers: bool = False,
        render_mode: str | None = "rgb_array",
    ) -> None:
        if not (isinstance(size, int) and SMALLEST <= size <= LARGEST):
            raise UserError(f"size {size!r}: pixels from {SMALLEST} to {LARGEST} expected")
        channels = (3 if color else 1) * stack
        if not (isinstance(stack, int) and 0 < channels < size):
            raise UserError(f"stack {stack!r}: at least 1 frame, and fewer channels than {size}")
        self.render_mode = render_mode
        self.size, self.color, self.numbers = size, color, numbers
        self.frames: deque[NDArray[np.uint8]] = deque(maxlen=stack)
        named = isinstance(env, (str, EnvSpec))  # the others have chosen their render mode
        self.inner = make_env(_small(env, size), render_mode="rgb_array" if named else None)
        self.max_episode_steps = time_limit(self.inner)
        self.action_space = self.inner.action_space
        frames = spaces.Box(0, 255, (size, size, channels), np.uint8)
        shown = self.inner.observation_space
        self.observation_space = (
            spaces.Dict({"numbers": shown, "pixels": frames}) if numbers else frames
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        shown, info = self.inner.reset(seed=seed, options=options)
        self.frames.clear()
        return self._seen(shown), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        shown, *rest = self.inner.step(action)
        return self._seen(shown), *rest

    def render(self) -> Any:
        """What the environment renders, in its own size."""
        return self.inner.render()

    def close(self) -> None:
        """Close the environment."""
        self.inner.close()

    def _seen(self, shown: Any) -> Any:
        count = 1 if self.frames else self.frames.maxlen or 1
        self.frames.extend([self._frame()] * count)
        seen = np.concatenate(self.frames, axis=-1)
        return {"numbers": shown, "pixels": seen} if self.numbers else seen

    def _frame(self) -> NDArray[np.uint8]:
        """The frame of this moment, uint8 `[size, size, channels]`."""
        try:
            drawn = np.asarray(self.inner.render())
        except Exception as error:  # of any kind: drivers of graphics cards
            raise UserError(
                f"environment {describe(self.inner)}: cannot be rendered: {one_line(error)}"
            ) from error
        if drawn.dtype != np.uint8 or drawn.ndim != 3 or drawn.shape[-1] != 3:
            raise UserError(
                f"environment {describe(self.inner)}: renders {drawn.dtype} of shape "
                f"{list(drawn.shape)}; uint8 [height, width, 3] of render mode rgb_array expected"
            )
        image = Image.fromarray(drawn).convert("RGB" if self.color else "L")
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BOX)
        return np.asarray(image).reshape(self.size, self.size, -1)


def _small(env: EnvLike, size: int) -> EnvLike:
    """The environment; MuJoCo's render directly in the requested size, which is far faster."""
    if not isinstance(env, (str, EnvSpec)):
        return env
    spec = environment_spec(env) if isinstance(env, str) else env
    entry = spec.entry_point
    try:
        made = load_env_creator(entry) if isinstance(entry, str) else entry
    except Exception:  # Gymnasium will raise it when it makes the environment
        return spec
    if isinstance(made, type) and issubclass(made, MujocoEnv):
        spec = replace(spec, kwargs={"width": size, "height": size, **spec.kwargs})
    return spec


def pixels_spec(env: str, size: int, *, color: bool = False, stack: int = 1) -> EnvSpec:
    """The specification of `Pixels` of an environment; see there."""
    spec = environment_spec(PIXELS)
    return replace(spec, kwargs={"env": env, "size": size, "color": color, "stack": stack})


gymnasium.register(id=PIXELS, entry_point="aaren_rl.envs.pixels:Pixels")
