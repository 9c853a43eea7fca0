"""The training loop: update, log, save, evaluate; on Lightning Fabric."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from aaren_rl.agents.loading import load_weights
from aaren_rl.errors import UserError, one_line
from aaren_rl.evaluation import Score
from aaren_rl.evaluation.memory import plot_memory
from aaren_rl.evaluation.scores import best_score
from aaren_rl.training.callbacks import Callback, StopTraining, TrainerView
from aaren_rl.training.checkpoint import (
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
    with_prefix,
    without_prefix,
)
from aaren_rl.training.evaluator import Evaluator, OfflineMetrics
from aaren_rl.training.interrupt import Interrupted, StopRequest
from aaren_rl.training.learner import Learner
from aaren_rl.training.loggers import (
    Logger,
    RunInfo,
    flat_settings,
    make_loggers,
    score_scalars,
)
from aaren_rl.training.progress import TrainingProgress, duration
from aaren_rl.training.run_folder import RunFolder
from aaren_rl.training.state import Evaluated, EvaluationError, HeldOut, RunState

T = TypeVar("T")
TIMED_UPDATES = 10  # after which the expected duration is printed


class Trainer:
    """One run.

    Args:
        learner: makes the updates.
        evaluator: acts and measures in evaluations.
        folder: where checkpoints go; `None` for nowhere.
        title: begins the lines that are printed; agent and data when empty.
        fingerprint: of the data, kept in checkpoints.
        loggers: used in the first process, as `callbacks` are.
        callbacks: called at fixed moments.
        varying: see `RunInfo`.
        state: what the run has done before; nothing when `None`.
    """

    _bar: TrainingProgress

    def __init__(
        self,
        learner: Learner,
        evaluator: Evaluator,
        folder: RunFolder | None,
        *,
        title: str = "",
        fingerprint: str | None = None,
        loggers: Sequence[str | Logger] = (),
        callbacks: Sequence[Callback] = (),
        varying: frozenset[str] | None = None,
        state: RunState | None = None,
    ) -> None:
        self.config, self.agent, self.fabric = learner.config, learner.agent, learner.fabric
        self.learner, self.evaluator = learner, evaluator
        self.folder, self.fingerprint, self.varying = folder, fingerprint, varying
        self.title = title or f"{self.agent.name} on {self.agent.spec.dataset}"
        self._leads = self.fabric.is_global_zero
        self._loggers = make_loggers(loggers) if self._leads else []
        self._callbacks = tuple(callbacks) if self._leads else ()
        self.state = state or RunState()
        self.stopped_early = False
        self._saved: tuple[int, int] | None = None  # update and evaluation of the last checkpoint
        self._timed_from = (0, 0.0)  # update and training seconds at which this process began
        self._stop = StopRequest()

    def _progress(self) -> tuple[int, int, str]:
        """What the progress bar shows: how much is done, of how much, and the unit."""
        return self.state.update, self.config.updates, "update"

    def fit(self, resume: bool = False) -> None:
        """Run to the last update."""
        if resume:
            self._restore()
        done, total, unit = self._progress()
        self._bar = TrainingProgress(self.title, total, done, quiet=not self._leads, unit=unit)
        with contextlib.ExitStack() as open_loggers:
            self._start_log(open_loggers)
            with self._stop, self._bar:
                self._timed_from = (self.state.update, self.state.train_seconds)
                self._call("on_start")
                self._loop()
                self._call("on_end")
            for logger in self._loggers:
                logger.finish(_loggable(self._final()), self.state.update)

    def _loop(self) -> None:
        while True:
            ended = self.stopped_early or self._at_end
            evaluates = ended or self._due(self.config.evaluation_interval)
            evaluates &= self.state.evaluated_at != self.state.update
            if ended or evaluates or self._due(self.config.checkpoint_interval):
                self._save()  # before acting, which may fail or crash the process
                if evaluates:
                    self._evaluate()
                    self._save()
                self._check_requests()
            if not (ended or self.stopped_early):
                self._step()
                self._call("on_update")
                self._say_duration()
                self._check_requests()
            elif self.state.evaluated_at == self.state.update:
                return

    @property
    def _at_end(self) -> bool:
        return self.state.update >= self.config.updates

    def _due(self, interval: int) -> bool:
        return self.state.update > 0 and self.state.update % interval == 0

    def request_stop(self) -> None:
        """Let the training end after this update as if it were the last one."""
        self._stop.ending = True

    def _call(self, moment: str, *arguments: Any) -> None:
        """Call a method of all callbacks."""
        for callback in self._callbacks:
            try:
                getattr(callback, moment)(TrainerView(self), *arguments)
            except StopTraining:
                self.request_stop()

    def _check_requests(self) -> None:
        """End or stop the training when any process was asked to: all do at the same update."""
        requests = [self._stop.requested, self._stop.ending]
        if self.fabric.world_size > 1:
            total = self.fabric.all_reduce(torch.tensor(requests).float(), reduce_op="sum")
            assert isinstance(total, Tensor)
            requests = (total > 0).tolist()
        if requests[0]:
            self._interrupt()
        self.stopped_early = requests[1] and not self._at_end

    def _interrupt(self) -> None:
        self._save()
        raise Interrupted(self.state.update)

    def _say_duration(self) -> None:
        """Say once how long the run will take; an upper bound, since the first updates are slow."""
        first, before = self._timed_from
        if not self._leads or self.state.update - first != TIMED_UPDATES:
            return
        updates = self.config.updates * (self.state.train_seconds - before) / TIMED_UPDATES
        evaluations = self.evaluator.expected_seconds()
        if evaluations is not None:
            self._bar.say(f"about {duration(updates + evaluations)} in all")

    def _step(self) -> None:
        start = time.perf_counter()
        norm = self.learner.step(self.state.update)
        self.state.update += 1
        if self._due(self.config.log_every) or self._at_end:
            self._log_training(norm)
        else:
            self._bar.update(self._progress()[0])
        self.state.train_seconds += time.perf_counter() - start

    def _log_training(self, gradient_norm: Any) -> None:
        update, loss = self.state.update, self.learner.loss_over_all()
        if not math.isfinite(loss):
            raise UserError(f"the loss became {loss} at update {update}: lower --learning-rate")
        values: dict[str, float | None] = {
            "training/loss": loss,
            "training/learning_rate": self.learner.learning_rate,
            "training/gradient_norm": float(torch.as_tensor(gradient_norm)),
            "training/tokens_per_second": self.learner.tokens_per_second(),
            **self.learner.metrics(),
        }
        self.state.logged_at, self.state.logged = update, values
        try:
            self._scalars(values)
        except Exception:  # a full disk, or a server that does not answer
            if self.fabric.world_size == 1:  # else all processes would have to save
                with contextlib.suppress(OSError, UserError):
                    self._save()
            raise
        self._bar.update(self._progress()[0], loss)

    def _evaluate(self) -> None:
        """Act and measure; the first process does, the others wait for it."""
        if self._leads:
            self._record_scores(self._guarded(lambda: self.evaluator.act(self._on_step)) or [])
            offline = self._guarded(self.evaluator.measure)
            if offline is not None:
                self._record_offline(offline)
            if self.folder is not None and self.state.update in self.config.kept_updates:
                self.agent.save(self.folder.kept(self.state.update))
        self.state.evaluated_at = self.state.update
        self.agent.train()
        self.fabric.barrier()

    def _guarded(self, measure: Callable[[], T]) -> T | None:
        """What `measure` returns; `None` when it fails and training continues."""
        try:
            return measure()
        except Interrupted:
            raise
        except Exception as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            reason = f"{kind}{one_line(error)}"
            what = f"evaluation after update {self.state.update} failed: {reason}"
            if self.config.on_evaluation_error == "stop":
                raise UserError(f"{what}; what is learned is saved") from error
            self._bar.say(f"{what}; training goes on")
            self.state.evaluation_errors.append(EvaluationError(self.state.update, reason))
            return None

    def _on_step(self) -> None:
        """Called after each step of acting."""
        if self._stop.requested and self.fabric.world_size == 1:
            self._interrupt()

    def _record_scores(self, scores: list[Score]) -> None:
        self.state.scores = scores
        if not scores:
            return
        update, seconds = self.state.update, self.state.train_seconds
        brief = [dataclasses.replace(score, returns=[], lengths=[]) for score in scores]
        self.state.history += [Evaluated(update, seconds, score) for score in brief]
        top = best_score(scores)
        self._bar.evaluated(self._progress()[0], top.score_mean, top.score_std)
        self._scalars(score_scalars(scores))
        if self.state.best is None or top.score_mean > self.state.best.score.score_mean:
            self.state.best = Evaluated(update, None, top)
            if self.folder is not None:
                save_checkpoint(self.folder.best, self.agent, self.state.best.to_json(), {})
        self._call("on_evaluation", scores)

    def _record_offline(self, offline: OfflineMetrics) -> None:
        self.state.offline.append(HeldOut(self.state.update, offline.lengths, {**offline.margin}))
        self._scalars(offline.scalars())
        if offline.memory is not None and self._loggers:
            figure = plot_memory(offline.memory)
            for logger in self._loggers:
                logger.figure("memory/held_at_the_end", figure, self.state.update)

    def _start_log(self, open_loggers: contextlib.ExitStack) -> None:
        """Begin to log, after the last update whose entries are complete."""
        state = self.state
        unfinished = state.update > 0 and state.evaluated_at != state.update
        info = RunInfo(
            name=self.title,
            folder=None if self.folder is None else self.folder.path,
            settings=flat_settings(self.config.to_json()),
            groups=list(dict.fromkeys(["evaluation", *self.evaluator.groups])),
            done=state.update - unfinished,
            varying=self.varying,
        )
        for logger in self._loggers:
            logger.start(info)
            open_loggers.callback(logger.close)
        if unfinished and state.logged_at == state.update:
            self._scalars(state.logged)

    def _scalars(self, values: Mapping[str, float | None]) -> None:
        for logger in self._loggers:
            logger.scalars(_loggable(values), self.state.update)

    def _final(self) -> dict[str, float]:
        """The results that the HParams tab shows, in this order."""
        top = best_score(self.state.scores) if self.state.scores else None
        scores = {"final/score": top.score_mean, "final/score_std": top.score_std} if top else {}
        return {
            **scores,
            "final/train_seconds": self.state.train_seconds,
            "final/parameters": self.agent.num_parameters,
        }

    def _save(self) -> None:
        """Write all of the run's state to `last`, unless it is there already."""
        if (self.state.update, self.state.evaluated_at) == self._saved:
            return
        if not all(bool(p.isfinite().all()) for p in self.agent.parameters()):
            raise UserError(
                f"the weights are not finite at update {self.state.update}: lower --learning-rate"
            )
        if self.folder is not None:
            self._write_checkpoint(self.folder)
        self._saved = (self.state.update, self.state.evaluated_at)

    def _write_checkpoint(self, folder: RunFolder) -> None:
        values, generators = random_state()
        shared, own = self.learner.tensors()
        everyone: list[Any] = [(values, generators | own)]
        if self.fabric.world_size > 1:
            everyone = [None] * self.fabric.world_size
            torch.distributed.all_gather_object(everyone, (values, generators | own))
        if self._leads:
            for rank, (_, tensors) in enumerate(everyone):
                shared |= with_prefix(f"random.{rank}.", tensors)
            progress = {
                **self.state.to_json(),
                "config": self.config.to_json(),
                "data": self.fingerprint,
                "sampler": self.learner.sampler.state_dict(),
                "random": [values for values, _ in everyone],
            }
            folder.restore_settings()  # someone may have removed the folder
            save_checkpoint(folder.last, self.agent, progress, shared)
            self._call("on_checkpoint", folder.last)
        self.fabric.barrier()

    def _restore(self) -> None:
        """Load the state that `_save` wrote."""
        assert self.folder is not None
        found, progress, tensors = load_checkpoint(self.folder.last)
        load_weights(self.agent, found)
        rank = self.fabric.global_rank
        own = without_prefix(f"random.{rank}.", tensors)
        try:
            self.learner.restore(tensors, own)
            restore_random_state(progress["random"][rank], own)
            self.learner.sampler.load_state_dict(progress["sampler"])
            self.state = RunState.from_json(progress, str(found))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{found}: does not fit this training ({error!r})") from None
        self._saved = (self.state.update, self.state.evaluated_at)


def _loggable(values: Mapping[str, float | None]) -> dict[str, float]:
    """The values that every logger's destination holds: NaN and infinities are left out."""
    return {tag: v for tag, v in values.items() if v is not None and math.isfinite(v)}
