"""Online training, evaluated and saved at intervals so that a kill at any moment costs little."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from aaren_rl.collect.acting import greedy_actor, play, stochastic_actor
from aaren_rl.collect.config import CollectConfig
from aaren_rl.collect.history import History
from aaren_rl.collect.learner import (
    buffer_actions,
    learner_state,
    policy_tensors,
    random_share,
    refill_buffer,
    restore_learner,
)
from aaren_rl.collect.policies import weights_file
from aaren_rl.collect.progress import Bar
from aaren_rl.collect.recorder import Recorder
from aaren_rl.files import (
    read_json,
    read_tensors,
    recover_folder,
    remove_leftovers,
    replace_folder,
    write_json,
    write_tensors,
)
from aaren_rl.training.checkpoint import random_state, restore_random_state
from aaren_rl.training.interrupt import Interrupted, StopRequest

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

TENSORS_FILE, PROGRESS_FILE = "learner.safetensors", "progress.json"
EVALUATION_SEED = 10_000  # added to the run's seed


@dataclass(frozen=True)
class Evaluation:
    """Returns of the policy at some point of training.

    Attributes:
        step: steps learned from before.
        return_mean: over the evaluation's episodes.
        return_std: its standard deviation over episodes (population).
    """

    step: int
    return_mean: float
    return_std: float


class Training:
    """Trains, and leaves in the run's folder `snapshot/`, `policies/` and `history/`.

    Args:
        config: what to do.
        model: learns in the recorder's environment.
        recorder: writes down what it does there.
        environment: to evaluate in.
        folder: the run's folder.
        enough: the evaluation return at which training may stop; `None` for never.
    """

    def __init__(
        self,
        config: CollectConfig,
        model: BaseAlgorithm,
        recorder: Recorder,
        environment: EnvSpec,
        folder: Path,
        enough: float | None = None,
    ) -> None:
        self.config, self.model, self.recorder = config, model, recorder
        self.environment, self.folder, self.enough = environment, folder, enough
        self.history = History(folder / "history")
        self.evaluations: list[Evaluation] = []
        self.finished = False
        self._written = 0  # steps in the history's files

    def run(self) -> None:
        """Train to the end, from the last snapshot where there is one.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM; all is saved by then.
        """
        if recover_folder(self.folder / "snapshot").is_dir():
            self._restore()
        if self.finished:
            return
        from aaren_rl.collect.callback import BetweenRollouts

        title = f"{type(self.model).__name__} in {self.environment.id}"
        done = self.model.num_timesteps
        with StopRequest() as stop, Bar(title, self.config.train_steps, done) as bar:
            visitor = BetweenRollouts(
                lambda: self._visit(stop, bar), lambda: bar.step(self.recorder.steps)
            )
            # SB3 adds the steps done before to what it is asked for
            self.model.learn(
                max(self.config.train_steps - done, 0), visitor, reset_num_timesteps=False
            )
            if not self.finished:
                self.finished = True
                self._evaluate(bar)
                self._save()

    def _visit(self, stop: StopRequest, bar: Bar) -> bool:
        """Between two rollouts: evaluate and save where due. Says whether to go on."""
        interval = self.config.evaluation_interval
        last = self.evaluations[-1].step if self.evaluations else 0
        if self.model.num_timesteps >= (last // interval + 1) * interval:
            self._evaluate(bar)
            if self.enough is not None and self.evaluations[-1].return_mean >= self.enough:
                self.finished = True
            self._save()
        if stop.requested:
            self._save()
            raise Interrupted(self.model.num_timesteps)
        return not self.finished

    def _evaluate(self, bar: Bar) -> None:
        step = self.model.num_timesteps
        if self.evaluations and self.evaluations[-1].step == step:
            return
        seed, count = EVALUATION_SEED + self.config.seed, self.config.evaluation_episodes
        with torch.random.fork_rng():  # training goes on as if nobody had looked
            if self.config.evaluation == "stochastic":
                actor = stochastic_actor(self.model.policy, seed, random_share(self.model))
            else:
                actor = greedy_actor(self.model.policy)
            episodes = play(actor, self.environment, seed=seed, episodes=count)
            returns = [float(np.sum(episode.rewards)) for episode in episodes]
        self.evaluations.append(Evaluation(step, float(np.mean(returns)), float(np.std(returns))))
        bar.note(f"step {step}, return {np.mean(returns):.1f} ± {np.std(returns):.1f}")
        write_tensors(weights_file(self.folder, step), policy_tensors(self.model))

    def _save(self) -> None:
        """Write the new steps, then the snapshot; steps without a snapshot are cut on resuming."""
        step = self.model.num_timesteps
        if step > self._written:
            scaled = buffer_actions(self.model, self._written, step)
            self.history.append(self._written, self.recorder.take() | scaled)
            self._written = step
        learner, tensors = learner_state(self.model)
        generators, generator_tensors = random_state()
        tensors |= {f"random/{name}": tensor for name, tensor in generator_tensors.items()}
        new = self.folder / f".snapshot.{os.getpid()}.tmp"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        write_tensors(new / TENSORS_FILE, tensors)
        progress = {
            "finished": self.finished,
            "evaluations": [asdict(row) for row in self.evaluations],
            "learner": learner,
            "environment": self.recorder.state(),
            "random": generators,
        }
        write_json(new / PROGRESS_FILE, progress)
        replace_folder(new, self.folder / "snapshot")

    def _restore(self) -> None:
        """Take up the state that `_save` wrote."""
        remove_leftovers(self.folder)
        found = recover_folder(self.folder / "snapshot")
        progress, tensors = read_json(found / PROGRESS_FILE), read_tensors(found / TENSORS_FILE)
        self.finished = progress["finished"]
        self.evaluations = [Evaluation(**row) for row in progress["evaluations"]]
        self._written = progress["environment"]["steps"]
        self.history.cut(self._written)
        restore_learner(self.model, progress["learner"], tensors)
        if self.finished:
            return
        refill_buffer(self.model, self.history, self._written)
        self._restore_environment(progress["environment"])
        own = {k.removeprefix("random/"): v for k, v in tensors.items() if k.startswith("random/")}
        restore_random_state(progress["random"], own)

    def _restore_environment(self, state: dict[str, Any]) -> None:
        begun = self.history.steps(state["episode_start"], state["steps"])
        nothing = np.empty(0)
        same = self.recorder.restore(
            state, begun.get("actions", nothing), begun.get("next_observations", nothing)
        )
        if not same:
            self.history.mark_truncated(self._written - 1)
            self.model._last_episode_starts = np.ones(1, bool)
        space = self.recorder.observation_space
        observation = np.asarray(self.recorder.observation, dtype=space.dtype)
        self.model._last_obs = observation.reshape(1, *(space.shape or ()))
