"""The training loop: update, log, evaluate, save; on Lightning Fabric."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from aaren_rl.agents import Agent, Carry, TrajectoryAgent, load_agent
from aaren_rl.data import Sampler, TrajectoryDataset
from aaren_rl.errors import UserError
from aaren_rl.evaluation import Score, rollout, score
from aaren_rl.evaluation.rollouts import LARGEST_BATCH, seconds_per_step
from aaren_rl.evaluation.seeds import first_episode_seed
from aaren_rl.files import write_json
from aaren_rl.layers import SequenceState
from aaren_rl.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    random_state,
    restore_optimizer,
    restore_random_state,
    save_checkpoint,
)
from aaren_rl.training.config import TrainConfig
from aaren_rl.training.interrupt import Interrupted, StopRequest
from aaren_rl.training.logging import RunLog, flat_settings
from aaren_rl.training.offline import offline_metrics
from aaren_rl.training.optimizer import make_optimizer
from aaren_rl.training.progress import TrainingProgress, duration
from aaren_rl.training.schedule import learning_rate_factor

TIMED_UPDATES = 10  # after which the expected duration is said


def kept_folder(run: Path, update: int) -> Path:
    """Where a run keeps the agent of an evaluation, see `TrainSettings.keep_evaluated`."""
    return run / "agents" / f"update-{update}"


class Trainer:
    """One run.

    Args:
        config: what to do.
        agent: what to train.
        sampler: gives the batches of this process.
        fabric: launched already.
        environment: where to evaluate; `None` for nowhere.
        held_out: episodes to measure on without acting; `None` for none.
        folder: the run's folder.
        longest_episode: steps of the data's longest episode, for the expected duration.
    """

    def __init__(
        self,
        config: TrainConfig,
        agent: Agent,
        sampler: Sampler,
        fabric: Fabric,
        environment: Any,
        held_out: TrajectoryDataset | None,
        folder: Path,
        longest_episode: int,
    ) -> None:
        self.config, self.agent, self.sampler = config, agent, sampler
        self.fabric, self.environment, self.folder = fabric, environment, folder
        self.held_out, self.longest_episode = held_out, longest_episode
        self.optimizer, self.names = make_optimizer(
            agent, config.learning_rate, config.weight_decay
        )
        self.module, self.wrapped = fabric.setup(agent, self.optimizer)
        self.targets: list[float | None] = list(config.target_return or agent.spec.target_returns)
        if not agent.asks_return:
            self.targets = [None]
        self.carry = Carry() if config.sampling == "streams" else None
        self.update = 0
        self.train_seconds = 0.0
        self._timed_from = (0, 0.0)  # update and training seconds at which this process began
        self.evaluated_at = -1
        self.scores: list[Score] = []
        self.best: dict[str, Any] | None = None
        self.history: list[dict[str, Any]] = []
        self.offline: list[dict[str, Any]] = []
        self._tokens = 0  # real ones, since the clock was started
        self._clock = 0.0

    # ---- the loop

    def fit(self, resume: bool = False) -> None:
        """Run to the last update.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM; all is saved by then.
        """
        if resume:
            self._restore()
        title = f"{self.agent.name} on {self.agent.spec.dataset}"
        leader = self.fabric.is_global_zero
        log = RunLog(self.folder, self.targets, self.update) if leader else None
        bar = TrainingProgress(title, self.config.updates, self.update, quiet=not leader)
        try:
            with StopRequest() as stop, bar:
                self._timed_from = (self.update, self.train_seconds)
                self._loop(stop, bar, log)
            if log is not None:
                log.final(flat_settings(self.config.to_json()), self._metrics(), self.update)
        finally:
            if log is not None:
                log.close()

    def _loop(self, stop: StopRequest, bar: TrainingProgress, log: RunLog | None) -> None:
        config = self.config
        self._start_clock()
        while True:
            at_end = self.update == config.updates
            if self._evaluation_due():
                self._evaluate(stop, bar, log)
            if (self.update and self.update % config.checkpoint_interval == 0) or at_end:
                self._save()
            if at_end:
                return
            self._step(bar, log)
            timed = self.update - self._timed_from[0] == TIMED_UPDATES
            if timed and self.fabric.is_global_zero:
                bar.say(f"about {duration(self._expected_seconds())} in all")
            if self._agreed(stop.requested):
                self._stop()

    def _evaluation_due(self) -> bool:
        at_end = self.update == self.config.updates
        due = at_end or self.update % self.config.evaluation_interval == 0
        return bool(self.update and due and self.evaluated_at != self.update)

    def _expected_seconds(self) -> float:
        """How long all updates and evaluations take, from the first updates and steps of acting.

        The very first update is slower than the others and counts too, so that this is rather too
        long than too short. Episodes are taken to be as long as the longest one of the data.
        """
        config, (first, before) = self.config, self._timed_from
        updates = config.updates * (self.train_seconds - before) / (self.update - first)
        if self.environment is None:
            return updates
        batches = math.ceil(config.episodes / LARGEST_BATCH) * len(self.targets)
        step = seconds_per_step(
            self.agent,
            self.environment,
            episodes=min(config.episodes, LARGEST_BATCH),
            target_return=self.targets[0],
            mode=config.mode,
            seed=first_episode_seed(config.seed, "during training"),
        )
        self.agent.train()
        evaluations = math.ceil(config.updates / config.evaluation_interval)
        return updates + evaluations * batches * self.longest_episode * step

    def _agreed(self, requested: bool) -> bool:
        """Whether any process was asked to stop: all must stop at the same update."""
        if self.fabric.world_size == 1:
            return requested
        total = self.fabric.all_reduce(torch.tensor(float(requested)), reduce_op="sum")
        assert isinstance(total, Tensor)
        return bool(total > 0)

    def _stop(self) -> None:
        self._save()
        raise Interrupted(self.update)

    # ---- one update

    def _step(self, bar: TrainingProgress, log: RunLog | None) -> None:
        config = self.config
        start = time.perf_counter()
        rate = config.learning_rate * learning_rate_factor(
            self.update, config.updates, config.warmup, config.schedule
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.sampler.sample()
        steps = int(batch.mask.sum())  # before it moves: no waiting
        self._tokens += self.agent.tokens_per_step * steps
        batch = batch.to(self.fabric.device)
        loss = self.module(batch) if self.carry is None else self.module(batch, self.carry)
        loss = self._weighted(loss, steps)
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            self.module, self.wrapped, max_norm=config.gradient_clip, error_if_nonfinite=False
        )
        self.wrapped.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.update += 1
        if self.update % config.log_every == 0 or self.update == config.updates:
            value, norm_value = float(self._over_all(loss)), float(torch.as_tensor(norm))
            if not math.isfinite(value):
                raise UserError(
                    f"the loss became {value} at update {self.update}: lower --learning-rate"
                )
            if log is not None:
                speed = self._tokens_per_second()
                log.training(
                    {
                        "loss": value,
                        "learning_rate": rate,
                        "gradient_norm": norm_value,
                        "tokens_per_second": speed,
                    },
                    self.update,
                )
            bar.update(self.update, value)
        else:
            bar.update(self.update)
        self.train_seconds += time.perf_counter() - start

    def _weighted(self, loss: Tensor, steps: int) -> Tensor:
        """A process's mean loss, so that the mean over processes is the mean over all their steps.

        DDP averages gradients over processes, whose shares of a batch may hold unequal numbers of
        steps: windows are cut at an episode's end.
        """
        if self.fabric.world_size == 1:
            return loss
        mean = self.fabric.all_reduce(torch.tensor(float(steps)), reduce_op="mean")
        assert isinstance(mean, Tensor)
        return loss * (steps / mean.clamp(min=1)).to(loss.device)

    def _over_all(self, loss: Tensor) -> Tensor:
        """The mean over processes of their weighted losses: the whole batch's."""
        mean = self.fabric.all_reduce(loss.detach().clone(), reduce_op="mean")  # in its place
        assert isinstance(mean, Tensor)
        return mean

    def _start_clock(self) -> None:
        self._tokens, self._clock = 0, self.train_seconds

    def _tokens_per_second(self) -> float:
        """Of all processes since the last entry; evaluations and checkpoints left out."""
        elapsed = self.train_seconds - self._clock
        tokens = self._tokens * self.fabric.world_size
        self._start_clock()
        return tokens / elapsed if elapsed > 0 else 0.0

    # ---- evaluation

    def _evaluate(self, stop: StopRequest, bar: TrainingProgress, log: RunLog | None) -> None:
        """Act in the environment; the first process does, the others wait for it."""

        def check() -> None:
            if stop.requested and self.fabric.world_size == 1:
                self.agent.train()
                self._stop()

        if self.fabric.is_global_zero:
            if self.environment is not None:
                self.scores = [self._score(target, check) for target in self.targets]
                self._record_scores(bar, log)
            if self.held_out is not None:
                self._measure_offline(self.held_out, log)
            if self.update in self.config.kept_updates:
                self.agent.save(kept_folder(self.folder, self.update))
        self.evaluated_at = self.update
        self.agent.train()
        self.fabric.barrier()

    def _record_scores(self, bar: TrainingProgress, log: RunLog | None) -> None:
        best = max(self.scores, key=lambda row: row.score_mean)
        bar.evaluated(self.update, best.score_mean, best.score_std)
        at = {"update": self.update, "train_seconds": self.train_seconds}
        self.history += [{**at, **row.brief()} for row in self.scores]
        if log is not None:
            log.evaluation(self.scores, self.update)
        self._keep_best(best)

    def _measure_offline(self, held_out: TrajectoryDataset, log: RunLog | None) -> None:
        metrics = offline_metrics(self.agent, held_out)
        self.offline.append({"update": self.update, **metrics.to_json()})
        if log is not None:
            log.offline(metrics, self.update)

    def _score(self, target: float | None, check: Any) -> Score:
        episodes = rollout(
            self.agent,
            self.environment,
            episodes=self.config.episodes,
            target_return=target,
            mode=self.config.mode,
            seed=first_episode_seed(self.config.seed, "during training"),
            on_step=check,
        )
        return score(self.agent, episodes, target)

    def _keep_best(self, row: Score) -> None:
        if self.best is not None and row.score_mean <= self.best["score_mean"]:
            return
        self.best = {"update": self.update, **row.to_json()}
        save_checkpoint(self.folder / "best", self.agent, self.best, {})

    # ---- saving and going on

    def _save(self) -> None:
        """Write all of the run's state to `last`; weights that are not finite are not written."""
        if not all(bool(p.isfinite().all()) for p in self.agent.parameters()):
            raise UserError(
                f"the weights are not finite at update {self.update}: lower --learning-rate"
            )
        values, tensors = random_state()
        tensors |= self._carried()
        everyone: list[Any] = [(values, tensors)]
        if self.fabric.world_size > 1:
            everyone = [None] * self.fabric.world_size
            torch.distributed.all_gather_object(everyone, (values, tensors))
        if self.fabric.is_global_zero:
            stored = optimizer_tensors(self.optimizer, self.names)
            for rank, (_, generators) in enumerate(everyone):
                stored |= {f"random.{rank}.{name}": t for name, t in generators.items()}
            progress = {
                "update": self.update,
                "train_seconds": self.train_seconds,
                "evaluated_at": self.evaluated_at,
                "scores": [row.to_json() for row in self.scores],
                "best": self.best,
                "history": self.history,
                "offline": self.offline,
                "sampler": self.sampler.state_dict(),
                "random": [generators for generators, _ in everyone],
            }
            save_checkpoint(self.folder / "last", self.agent, progress, stored)
        self.fabric.barrier()

    def _carried(self) -> dict[str, Tensor]:
        """The state between two batches of a stream, if there is one, as named tensors."""
        if self.carry is None or self.carry.state is None:
            return {}
        return {f"carry.{name}": t for name, t in self.carry.state.tensors().items()}

    def _take_up(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `_carried`."""
        own = {
            name.removeprefix("carry."): tensor.to(self.fabric.device)
            for name, tensor in tensors.items()
            if name.startswith("carry.")
        }
        if own and self.carry is not None and isinstance(self.agent, TrajectoryAgent):
            kinds = self.agent.sequence_model.state_types
            self.carry.state = SequenceState.from_tensors(kinds, own)

    def _restore(self) -> None:
        """Take up the state that `_save` wrote."""
        found, progress, tensors = load_checkpoint(self.folder / "last")
        self.agent.load_state_dict(load_agent(found).state_dict())
        restore_optimizer(self.optimizer, self.names, tensors)
        rank, before = self.fabric.global_rank, len(progress["random"])
        if before != self.fabric.world_size:
            raise UserError(
                f"{self.folder}: was trained by {before} process(es); resume it with as many, "
                f"not with {self.fabric.world_size}"
            )
        prefix = f"random.{rank}."
        own = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        restore_random_state(progress["random"][rank], own)
        self._take_up(own)
        self.sampler.load_state_dict(progress["sampler"])
        self.update = progress["update"]
        self.train_seconds = progress["train_seconds"]
        self.evaluated_at = progress["evaluated_at"]
        self.scores = [Score(**row) for row in progress["scores"]]
        self.best = progress["best"]
        self.history = progress["history"]
        self.offline = progress["offline"]

    def _metrics(self) -> dict[str, float]:
        """What the HParams tab shows of a finished run."""
        metrics = {"train_seconds": self.train_seconds, "parameters": self.agent.num_parameters}
        if self.scores:
            row = max(self.scores, key=lambda score: score.score_mean)
            metrics |= {"score": row.score_mean, "score_std": row.score_std}
        return metrics

    def write_summary(self, extra: dict[str, Any]) -> dict[str, Any]:
        """Write `summary.json` and return it."""
        summary = {
            **extra,
            "updates": self.update,
            "train_seconds": self.train_seconds,
            "scores": [row.to_json() for row in self.scores],
            "best": self.best,
            "history": self.history,
            "offline": self.offline,
        }
        write_json(self.folder / "summary.json", summary)
        return summary
