"""What an environment's `info` says: whether its episode has succeeded. Nothing else is read."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

NAMES = ("success", "is_success")


class SuccessAlone(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Leaves of `info` nothing but whether the episode has succeeded, as a number.

    A vector environment joins the infos of its environments key by key, which fails for values that
    differ in shape or are too large.
    """

    def reset(self, **how: Any) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.Env.reset`; a reset is no success."""
        observation, _ = self.env.reset(**how)
        return observation, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        *result, info = self.env.step(action)
        observation, reward, terminated, truncated = result
        said = [won for name in NAMES if (won := _success(info.get(name))) is not None]
        kept = {NAMES[0]: float(any(said))} if said else {}
        return observation, reward, terminated, truncated, kept


def successes(infos: dict[str, Any], size: int) -> NDArray[np.bool_] | None:
    """Which of `size` environments a vector environment's infos call successful.

    In SAME_STEP mode `final_info` is of the episode that has ended. `None` where nothing is said.
    """
    now, final = _said(infos, size), _said(infos.get("final_info"), size)
    if now is None and final is None:
        return None
    restarted = False if final is None else _mask(infos, "final_info", size)
    return np.where(restarted, final is not None and final, now is not None and now)


def _said(infos: Any, size: int) -> NDArray[np.bool_] | None:
    found: NDArray[np.bool_] | None = None
    for name in NAMES if isinstance(infos, dict) else ():
        try:
            each = [_success(value) for value in infos.get(name)]
        except TypeError:  # none, or one number for all
            continue
        if len(each) == size and any(won is not None for won in each):
            won = np.array(each, bool) & _mask(infos, name, size)
            found = won if found is None else found | won
    return found


def _mask(infos: dict[str, Any], name: str, size: int) -> Any:
    """Which environments have the entry, as Gymnasium's vector environments say; else all."""
    mask = np.asarray(infos.get(f"_{name}", True))
    return mask if mask.dtype == bool and mask.shape == (size,) else True


def _success(value: Any) -> bool | None:
    """Whether a number or flag says success, which 1 or more does; `None` for anything else."""
    try:
        value = value.item() if hasattr(value, "item") else value  # of an array or a tensor
        number = math.nan if isinstance(value, (str, bytes)) else float(value)
    except Exception:  # whatever other people's objects raise
        return None
    return None if math.isnan(number) else number >= 1
