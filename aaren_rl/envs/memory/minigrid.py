"""MiniGrid's memory task, observed as numbers or as images; needs the extra `minigrid`.

The agent starts in a corridor or in the room at its west end, where there is a key or a ball. At
the corridor's east end it has to turn to the one of two objects that is the same. Registered are
`aaren/MiniGridMemoryS7-v0`, `S9`, `S11`, `S13`, and, with corridors of random length, `S13Random`
and `S17Random`, as in MiniGrid. Options: `size` (odd, 7 or more), `random_length`, `max_steps`, and
`tile_size` and `numbers` of `PixelMiniGrid`.
The return is MiniGrid's: 0, or for success 1 - 0.9 (steps taken / max_steps).
"""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from aaren_rl.errors import UserError

MINIGRID_MEMORY = "aaren/MiniGridMemory"
SIZES: dict[str, dict[str, Any]] = {
    "S7": {"size": 7},
    "S9": {"size": 9},
    "S11": {"size": 11},
    "S13": {"size": 13},
    "S13Random": {"size": 13, "random_length": True},
    "S17Random": {"size": 17, "random_length": True},
}
DIRECTIONS = 4
EAST, SOUTH, WEST, NORTH = range(DIRECTIONS)
LEFT, RIGHT, FORWARD = range(3)
WALL, KEY, BALL = 2, 5, 6
LARGEST_TILE = 64
SCALE = np.array([10, 5, 2], np.float32)
"""The largest object, colour and state of a cell in MiniGrid's encoding."""


class FlatMiniGrid(gymnasium.ObservationWrapper[Any, Any, Any]):
    """A MiniGrid environment's image and direction as one vector of numbers from 0 to 1.

    Observations are float32 `[3 v v + 4]` for a view of v x v cells: the image, for each column
    from left to right and each row from far to near a cell's object / 10, colour / 5 and state / 2;
    then the direction, one-hot (east, south, west, north). The agent stands in the middle of the
    last row and looks along the columns. The mission, a text, is left out.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, spaces.Dict)
        image = env.observation_space["image"].shape
        assert image is not None
        self.observation_space = spaces.Box(0.0, 1.0, (np.prod(image) + DIRECTIONS,), np.float32)

    def observation(self, observation: dict[str, Any]) -> NDArray[np.float32]:
        """See the class."""
        flat = np.zeros(self.observation_space.shape or (), np.float32)
        flat[:-DIRECTIONS] = (observation["image"] / SCALE).reshape(-1)
        flat[int(observation["direction"]) - DIRECTIONS] = 1
        return flat


class PixelMiniGrid(gymnasium.ObservationWrapper[Any, Any, Any]):
    """A MiniGrid environment's view as an image, and nothing beyond it.

    Observations are uint8 `[v tile_size, v tile_size, 3]` for a view of v x v cells, as MiniGrid
    draws what the agent sees: it looks up, from the middle of the last row.

    Args:
        env: the environment.
        tile_size: pixels a side of a cell.
        numbers: show `{"numbers": ..., "pixels": ...}`, with the observations of `FlatMiniGrid`.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], tile_size: int, numbers: bool) -> None:
        super().__init__(FlatMiniGrid(env))
        if not (isinstance(tile_size, int) and 1 <= tile_size <= LARGEST_TILE):
            raise UserError(f"tile_size {tile_size!r}: pixels from 1 to {LARGEST_TILE} expected")
        self.tile_size, self.numbers = tile_size, numbers
        inner: Any = env.unwrapped
        self._draw = inner.get_frame
        side = inner.agent_view_size * tile_size
        frames = spaces.Box(0, 255, (side, side, 3), np.uint8)
        both = spaces.Dict({"numbers": self.env.observation_space, "pixels": frames})
        self.observation_space = both if numbers else frames

    def observation(self, observation: NDArray[np.float32]) -> Any:
        """See the class."""
        frame = np.asarray(self._draw(tile_size=self.tile_size, agent_pov=True), np.uint8)
        return {"numbers": observation, "pixels": frame} if self.numbers else frame


def make_minigrid_memory(
    *, tile_size: int | None = None, numbers: bool = False, **options: Any
) -> gymnasium.Env[Any, Any]:
    """MiniGrid's memory task, observed as numbers, or with a `tile_size` as images."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it greets on standard output
    try:
        from minigrid.envs import MemoryEnv
    except ImportError as error:
        raise ImportError(f"it needs: pip install 'aaren-rl[minigrid]' ({error})") from error
    env = MemoryEnv(**options)
    return FlatMiniGrid(env) if tile_size is None else PixelMiniGrid(env, tile_size, numbers)


class MiniGridMemoryExpert:
    """Looks at the object in the start room, walks to the junction, turns to the same object.

    It knows the rules but has only the observations. Where the start room's object is not in
    sight, it turns around and walks west until it is.

    Args:
        env: the environments that it will act in, with a view of 7 x 7 cells.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        self.objects = np.zeros(env.num_envs, np.int64)
        """The start room's object, 0 before it has been seen."""
        self.chosen = np.zeros(env.num_envs, bool)
        """Whether it has turned at the junction."""

    def act(
        self,
        observations: NDArray[np.float32],
        rewards: NDArray[np.float64] | None = None,
        dones: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Actions `[num_envs]`.

        Args:
            observations: `[num_envs, 151]`.
            rewards: not needed.
            dones: bool `[num_envs]`, where an episode begins with this observation.
        """
        if dones is not None:
            self.objects[dones] = 0
            self.chosen[dones] = False
        images = observations[:, :-DIRECTIONS].reshape(len(observations), 7, 7, 3)
        cells = np.rint(images[..., 0] * SCALE[0]).astype(np.int64)  # [num_envs, column, row]
        direction = observations[:, -DIRECTIONS:].argmax(axis=1)
        self._look(cells, direction)
        return self._decide(cells, direction)

    def _look(self, cells: NDArray[np.int64], direction: NDArray[np.int64]) -> None:
        """Note the start room's object where it is in sight.

        It stands at the room's west wall, one cell north of the corridor's line: looking west it
        is one column to the right of the agent, and looking east, from beside it, the next cell to
        the left. The two at the junction are two cells off the line.
        """
        ahead = np.where(np.isin(cells[:, 4], (KEY, BALL)), cells[:, 4], 0).max(axis=1)
        beside = np.where(np.isin(cells[:, 2, 6], (KEY, BALL)), cells[:, 2, 6], 0)
        seen = np.where(direction == WEST, ahead, np.where(direction == EAST, beside, 0))
        self.objects = np.where(self.objects == 0, seen, self.objects)

    def _decide(self, cells: NDArray[np.int64], direction: NDArray[np.int64]) -> NDArray[np.int64]:
        """The next move of each."""
        known = self.objects > 0
        search = np.where(direction == WEST, FORWARD, LEFT)
        # Along the corridor's line there is a wall ahead, looking east, at the junction alone.
        junction = known & (direction == EAST) & (cells[:, 3, 5] == WALL)
        choose = np.where(cells[:, 1, 6] == self.objects, LEFT, RIGHT)
        walk = np.where(direction == EAST, FORWARD, RIGHT)
        moves = np.where(junction, choose, np.where(self.chosen, FORWARD, walk))
        self.chosen = self.chosen | junction
        return np.where(known, moves, search).astype(np.int64)


for _name, _options in SIZES.items():
    gymnasium.register(
        id=f"{MINIGRID_MEMORY}{_name}-v0",
        entry_point="aaren_rl.envs.memory.minigrid:make_minigrid_memory",
        kwargs=_options,
    )
