"""The one hook into Stable-Baselines3's loops. Imported only when training begins."""

from __future__ import annotations

from collections.abc import Callable

from stable_baselines3.common.callbacks import BaseCallback


class BetweenRollouts(BaseCallback):
    """Calls a function where a learner is whole: all steps stored and learned from, none begun.

    Args:
        visit: called there; says whether to go on.
        on_step: called after every step in the environment.
    """

    def __init__(self, visit: Callable[[], bool], on_step: Callable[[], None]) -> None:
        super().__init__()
        self._visit, self._told = visit, on_step
        self._going_on = True

    def _on_rollout_start(self) -> None:
        self._going_on = self._visit()

    def _on_step(self) -> bool:
        if self._going_on:
            self._told()
        return self._going_on
