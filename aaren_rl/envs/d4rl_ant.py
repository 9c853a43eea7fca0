"""The Ant of D4RL's data, made of Gymnasium's.

D4RL's Ant shows 111 numbers: 27 of positions and velocities, then 84 contact forces that its
simulator left at zero, without cost. Gymnasium's Ant-v5 shows 78 forces that are not zero.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

D4RL_ANT = "aaren-rl/D4RLAnt-v2"
BODY_SIZE = 27
OBSERVATION_SIZE = 111

gymnasium.register(
    id=D4RL_ANT, entry_point="aaren_rl.envs.d4rl_ant:make_d4rl_ant", max_episode_steps=1000
)


class ZeroContactForces(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Appends zeros in the place of the contact forces: `[27]` becomes `[111]`."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float64)

    def observation(self, observation: NDArray[np.float64]) -> NDArray[np.float64]:
        """The observation, with zeros behind it."""
        return np.pad(observation, (0, OBSERVATION_SIZE - BODY_SIZE))


def make_d4rl_ant(**kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Ant-v5 as D4RL's data show it; keyword arguments as for Ant-v5."""
    kwargs = {"contact_cost_weight": 0.0, **kwargs, "include_cfrc_ext_in_observation": False}
    body = gymnasium.make("Ant-v5", disable_env_checker=True, max_episode_steps=-1, **kwargs)
    return ZeroContactForces(body)
