"""Callbacks: code of the user's that runs at fixed moments of training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aaren_rl.errors import UserError
from aaren_rl.evaluation import Score

if TYPE_CHECKING:
    from aaren_rl.agents import Agent
    from aaren_rl.training.config import TrainConfig
    from aaren_rl.training.state import Evaluated
    from aaren_rl.training.trainer import Trainer


class StopTraining(Exception):
    """Raised by a callback: training ends after this update as if it were the last one.

    >>> class OneUpdate(arl.Callback):
    ...     def on_update(self, trainer):
    ...         raise arl.StopTraining
    >>> data = arl.load_dataset("aaren-rl/hopper-small-v0")
    >>> arl.train(data, env="none", callbacks=[OneUpdate()], updates=2).summary["updates"]
    1
    """


class TrainerView:
    """What a callback sees of the training: values to read, and `request_stop`."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    @property
    def update(self) -> int:
        """Updates done."""
        return self._trainer.state.update

    @property
    def config(self) -> TrainConfig:
        """All settings; `config.updates` is the number of updates asked for."""
        return self._trainer.config

    @property
    def agent(self) -> Agent:
        """The agent that is trained, on its device."""
        return self._trainer.agent

    @property
    def folder(self) -> Path | None:
        """The run's folder; `None` for a run that does not touch the disk."""
        return None if self._trainer.folder is None else self._trainer.folder.path

    @property
    def loss(self) -> float:
        """The loss of the last update, NaN before the first; on a GPU, reading it waits for it."""
        return float(self._trainer.learner.last_loss)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last update (of the optimiser's first group)."""
        return self._trainer.learner.learning_rate

    @property
    def scores(self) -> Sequence[Score]:
        """Scores of the last evaluation, one for each target return."""
        return tuple(self._trainer.state.scores)

    @property
    def history(self) -> Sequence[Evaluated]:
        """Scores of all evaluations so far."""
        return tuple(self._trainer.state.history)

    def request_stop(self) -> None:
        """Let training end after this update as if it were the last one: saved and evaluated."""
        self._trainer.request_stop()


class Callback:
    """Base class of callbacks: override what is needed. Each method may raise `StopTraining`.

    In a training by several processes they are called in the first one only. Any other exception
    ends the training with that exception; what was saved before stays.

    >>> class Watched(arl.Callback):
    ...     def on_update(self, trainer):
    ...         if trainer.loss < 1000:
    ...             print("update", trainer.update)
    ...             trainer.request_stop()
    >>> data = arl.load_dataset("aaren-rl/hopper-small-v0")
    >>> run = arl.train(data, env="none", callbacks=[Watched()], updates=5)
    update 1
    """

    def on_start(self, trainer: TrainerView) -> None:
        """Before the first update; in a run that is resumed, with its state restored."""

    def on_update(self, trainer: TrainerView) -> None:
        """After each update."""

    def on_evaluation(self, trainer: TrainerView, scores: Sequence[Score]) -> None:
        """After each evaluation in the environment, with a score for each target return."""

    def on_checkpoint(self, trainer: TrainerView, folder: Path) -> None:
        """After each checkpoint; `folder` holds it until the next one takes its place."""

    def on_end(self, trainer: TrainerView) -> None:
        """After the last update, evaluation and checkpoint; not after an error or Ctrl-C."""


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Raise `UserError` for what is no `Callback`, such as a class in place of an instance."""
    many = isinstance(callbacks, Iterable)
    wrong = [x for x in callbacks if not isinstance(x, Callback)] if many else [callbacks]
    if wrong:
        what = "a list of instances of aaren_rl.Callback"
        raise UserError(f"callbacks: {what} expected, got {wrong[0]!r:.80}")
