"""Making datasets as D4RL's were made: train online, keep the history, roll the policies out.

Stable-Baselines3 (the extra `collect`) is imported only when training begins.
"""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.collect.config import CollectConfig
    from aaren_rl.collect.recipe import collect

__all__ = ["CollectConfig", "collect"]
__getattr__, __dir__ = lazy_exports(__name__, __all__)
