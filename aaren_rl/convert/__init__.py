"""Any dataset as a Minari dataset, an episode at a time."""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.convert.command import convert
    from aaren_rl.convert.config import ConvertConfig

__all__ = ["ConvertConfig", "convert"]
__getattr__, __dir__ = lazy_exports(__name__, __all__)
