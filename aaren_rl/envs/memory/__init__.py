"""Tasks that need memory, the experts that solve them, and data of these experts.

Importing this package registers `aaren/PassiveTMaze-v0`, `aaren/Recall-v0`,
`aaren/MiniGridMemory...-v0` and `aaren/MaskVelocity...-v5` with Gymnasium.
"""

from aaren_rl.envs.memory.experts import expert_dataset, write_expert_dataset
from aaren_rl.envs.memory.mask_velocity import MaskVelocity
from aaren_rl.envs.memory.minigrid import FlatMiniGrid, MiniGridMemoryExpert
from aaren_rl.envs.memory.recall import Recall, RecallExpert
from aaren_rl.envs.memory.tmaze import PassiveTMaze, PassiveTMazeExpert

__all__ = [
    "FlatMiniGrid",
    "MaskVelocity",
    "MiniGridMemoryExpert",
    "PassiveTMaze",
    "PassiveTMazeExpert",
    "Recall",
    "RecallExpert",
    "expert_dataset",
    "write_expert_dataset",
]
