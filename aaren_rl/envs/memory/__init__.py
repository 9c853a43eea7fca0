"""Tasks that need memory, the experts that solve them, and data of these experts.

Importing this package registers `aaren/PassiveTMaze-v0`, `aaren/Recall-v0`,
`aaren/MiniGridMemory...-v0` and `aaren/MaskVelocity...-v5` with Gymnasium.
"""

from aaren_rl.envs.memory import mask_velocity, minigrid, recall, tmaze
from aaren_rl.envs.memory.experts import expert_dataset, write_expert_dataset

__all__ = [
    "expert_dataset",
    "mask_velocity",
    "minigrid",
    "recall",
    "tmaze",
    "write_expert_dataset",
]
