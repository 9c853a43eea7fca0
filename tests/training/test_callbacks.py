"""Callbacks: when they are called, what they see, and how they end the training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from line_task import LINE, SMALL, line_data

from aaren_rl.errors import UserError
from aaren_rl.training import Callback, StopTraining, TrainerView, train

TEN = {**SMALL, "updates": 10, "evaluate_every": 5}


class Recorder(Callback):
    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def on_start(self, trainer: TrainerView) -> None:
        assert math.isnan(trainer.loss)
        assert trainer.config.updates == 10
        self.calls.append(("start", trainer.update))

    def on_update(self, trainer: TrainerView) -> None:
        assert trainer.loss > 0
        assert 0 < trainer.learning_rate <= 2e-3
        self.calls.append(("update", trainer.update))

    def on_evaluation(self, trainer: TrainerView, scores: Any) -> None:
        assert [score.return_mean for score in scores] == [10.0]
        assert list(trainer.scores) == scores
        assert trainer.history[-1].update == trainer.update
        self.calls.append(("evaluation", trainer.update))

    def on_checkpoint(self, trainer: TrainerView, folder: Path) -> None:
        assert trainer.folder is not None
        assert folder == trainer.folder / "last"
        assert json.loads((folder / "training.json").read_text())["update"] == trainer.update
        self.calls.append(("checkpoint", trainer.update))

    def on_end(self, trainer: TrainerView) -> None:
        assert trainer.agent.num_parameters > 0
        self.calls.append(("end", trainer.update))


def test_the_moments(tmp_path: Path) -> None:
    recorder = Recorder()
    train(line_data(), env=LINE, out=tmp_path / "run", callbacks=[recorder], **TEN)
    evaluated = ["checkpoint", "evaluation", "checkpoint"]  # saved before and after acting
    calls = recorder.calls
    assert [each for each in calls if each[0] != "update"] == [
        ("start", 0),
        *((moment, 5) for moment in evaluated),
        *((moment, 10) for moment in evaluated),
        ("end", 10),
    ]
    assert [update for moment, update in calls if moment == "update"] == list(range(1, 11))


def test_without_a_folder_there_are_no_checkpoints() -> None:
    recorder = Recorder()
    train(line_data(), env=LINE, callbacks=[recorder], **TEN)
    assert not [each for each in recorder.calls if each[0] == "checkpoint"]


class Stopper(Callback):
    def __init__(self, moment: str, way: str) -> None:
        self.moment, self.way = moment, way

    def _stop(self, moment: str, trainer: TrainerView) -> None:
        if self.moment != moment or (moment == "on_update" and trainer.update < 3):
            return
        if self.way == "raise":
            raise StopTraining
        trainer.request_stop()

    def on_update(self, trainer: TrainerView) -> None:
        self._stop("on_update", trainer)

    def on_evaluation(self, trainer: TrainerView, scores: Any) -> None:
        self._stop("on_evaluation", trainer)


@pytest.mark.parametrize("way", ["raise", "request"])
@pytest.mark.parametrize(("moment", "last"), [("on_update", 3), ("on_evaluation", 5)])
def test_stopped_early_is_finished(moment: str, last: int, way: str, tmp_path: Path) -> None:
    """The last update is evaluated and saved, and the run counts as finished."""
    how: dict[str, Any] = {"env": LINE, "out": tmp_path / "run", **TEN}
    recorder = Recorder()
    run = train(line_data(), callbacks=[Stopper(moment, way), recorder], **how)
    assert run.summary["updates"] == last
    assert [row.update for row in run.history] == [last]
    assert recorder.calls[-1] == ("end", last)
    saved = json.loads((tmp_path / "run" / "last" / "training.json").read_text())
    assert (saved["update"], saved["evaluated_at"]) == (last, last)
    assert train(line_data(), resume=True, **how).summary == run.summary


def test_an_error_in_a_callback_ends_the_training() -> None:
    for wrong in ([Callback], [print], [3], Recorder()):
        with pytest.raises(UserError, match="callbacks: a list of instances of"):
            train(line_data(), callbacks=wrong, **TEN)  # type: ignore[arg-type]

    class Broken(Callback):
        def on_update(self, trainer: TrainerView) -> None:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        train(line_data(), callbacks=[Broken()], **TEN)
