"""MuJoCo robots observed without their velocities.

Registered are `aaren/MaskVelocityHopper-v5`, `aaren/MaskVelocityHalfCheetah-v5` and
`aaren/MaskVelocityWalker2d-v5`, with the options of Gymnasium's own. Data for them are made from
the robots' data by `aaren_rl.data.mask_velocity`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from aaren_rl.data.mask_velocity import BASE_ENVIRONMENTS, masked_environment, positions_space
from aaren_rl.errors import UserError


class MaskVelocity(gymnasium.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Shows the positions alone: what comes before the velocities in the observation.

    Args:
        env: Hopper, HalfCheetah or Walker2d, or another MuJoCo environment whose observations are
            its positions (`qpos`, with or without the first) and then its velocities (`qvel`).

    Raises:
        UserError: an environment with other observations.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        model = getattr(env.unwrapped, "model", None)
        shape = env.observation_space.shape
        positions = shape[0] - model.nv if model is not None and shape is not None else -1
        if model is None or positions not in (model.nq - 1, model.nq):
            raise UserError(
                f"MaskVelocity: observations {env.observation_space}: a MuJoCo robot's positions, "
                "then its velocities, and nothing else expected"
            )
        self.positions = positions
        self.observation_space = positions_space(env.observation_space, positions)

    def observation(self, observation: NDArray[Any]) -> NDArray[Any]:
        """The positions, `[positions]`."""
        return observation[: self.positions]


for _name in BASE_ENVIRONMENTS:
    _spec = masked_environment(gymnasium.spec(_name))
    gymnasium.register(
        id=_spec.id,
        entry_point=_spec.entry_point,
        reward_threshold=_spec.reward_threshold,
        max_episode_steps=_spec.max_episode_steps,
        additional_wrappers=_spec.additional_wrappers,
    )
