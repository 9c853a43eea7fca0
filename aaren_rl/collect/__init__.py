"""Making datasets as D4RL's were made: train online, keep the history, roll the policies out.

Stable-Baselines3 (the extra `collect`) is imported only when training begins.
"""

from aaren_rl.collect.config import CollectConfig
from aaren_rl.collect.recipe import collect

__all__ = ["CollectConfig", "collect"]
