"""The training loop of fine-tuning: as the trainer's, with episodes that are played in between."""

from __future__ import annotations

from typing import Any

from aaren_rl.errors import UserError
from aaren_rl.training.online.sampler import OnlineLearner
from aaren_rl.training.progress import TrainingProgress
from aaren_rl.training.state import RunState
from aaren_rl.training.trainer import Trainer


class OnlineTrainer(Trainer):
    """Ends when all environment steps are played and learned from.

    Args:
        learner: makes the updates; its sampler plays.
        begun: updates that the agent has had, and the seconds that they took. The count goes on
            from there, so that the curves of both trainings lie on one axis.
        arguments: as `Trainer`'s that follow.
    """

    learner: OnlineLearner

    def __init__(
        self, learner: OnlineLearner, *arguments: Any, begun: tuple[int, float], **options: Any
    ) -> None:
        self._first = begun[0]
        self._sampler = learner.sampler
        super().__init__(learner, *arguments, **options)
        self.state = RunState(update=begun[0], train_seconds=begun[1])

    def _progress_bar(self) -> TrainingProgress:
        return TrainingProgress(
            self.title,
            self._sampler.online.steps,
            self._done,
            quiet=not self._leads,
            unit="environment step",
        )

    @property
    def _done(self) -> int:
        """Environment steps."""
        return self._sampler.environment_steps

    @property
    def _at_end(self) -> bool:
        return self._sampler.done

    def _due(self, interval: int) -> bool:
        """Counted from the first update of the fine-tuning, and before it."""
        return (self.state.update - self._first) % interval == 0

    def _say_duration(self) -> None:
        """Episodes are of any length: nobody knows."""

    def _step(self) -> None:
        try:
            self._sampler.prepare(self._on_step)
        except UserError:  # whatever the environment does, nothing is lost
            self._save()
            raise
        super()._step()
