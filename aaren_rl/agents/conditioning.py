"""What an agent's actions are conditioned on, and in which order it reads a step's tokens.

With the condition `target` a step is (return-to-go, observation, action): the user asks for a
return. With `max-return` it is (observation, return-to-go, action), after Reinformer (Zhuang et al.
2024, arXiv 2405.08740): the agent predicts the return-to-go from the observation and the past,
close to the largest that the data hold there, and acts on its own prediction. With `goal` it is
(goal, observation, action): the goal is the observation's part `desired_goal`, in training one that
was achieved later (`aaren_rl.data.hindsight`), in acting the environment's.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aaren_rl.agents.config import Condition

TokenKind = Literal["return", "goal", "observation", "action"]

CHUNKS: dict[Condition, tuple[tuple[TokenKind, ...], ...]] = {
    "target": (("action", "return", "observation"),),
    "max-return": (("action", "observation"), ("return",)),
    "goal": (("action", "goal", "observation"),),
}
"""The tokens that one step of acting reads, chunk after chunk.

`action` is the previous step's. The return of a chunk that stands alone is predicted from the last
features of the chunk before; the action is read from the last features of the last chunk.
"""


def expectile_loss(predictions: Tensor, wanted: Tensor, expectile: float) -> Tensor:
    """Squared errors weighted by their sign: `|expectile - 1(error < 0)| error^2`, elementwise.

    The error is `wanted - predictions`. The constant with the smallest mean loss over samples is
    their expectile: the mean for 0.5, and the largest sample in the limit of 1.

    Args:
        predictions: of any shape.
        wanted: of the same shape.
        expectile: in (0, 1).
    """
    errors = wanted - predictions
    return torch.where(errors < 0, 1 - expectile, expectile) * errors.square()
