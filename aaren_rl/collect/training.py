"""Online training by Stable-Baselines3, in stretches from checkpoint to checkpoint.

A run's folder holds, by the number of steps learned from:

    progress.json               all evaluations; the last one is the newest checkpoint's;
                                checksums of the files below but the first
    learner-STEP.zip            Stable-Baselines3's own file; only its weights are ever read
    history/STEP.safetensors    the steps in the environment from STEP to the next checkpoint
    policies/STEP.safetensors   the policy that was evaluated

At the start of every stretch all generators are seeded by the number of steps done, and the
environment is reset. So a resumed run takes the same steps as one that was never stopped, although
an environment's state cannot be saved.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecTransposeImage

from aaren_rl.collect.config import CollectConfig
from aaren_rl.collect.learner import (
    FIELDS,
    PROGRESS_FILE,
    Steps,
    policy_tensors,
    random_share,
    recorder_of,
    weights_file,
)
from aaren_rl.collect.rollouts import actor_of, play, say
from aaren_rl.data.episode import Trajectory
from aaren_rl.errors import FAILURES, UserError, one_line
from aaren_rl.files import read_card, read_tensors, write_bytes, write_card, write_tensors
from aaren_rl.records import decode
from aaren_rl.training.interrupt import Interrupted

EVALUATION_SEED = 10_000  # added to the run's seed
COUNTERS = ("_n_updates", "_n_calls", "exploration_rate")


@dataclass(frozen=True)
class Evaluation:
    """Returns of the policy after `step` steps: mean and population deviation over episodes."""

    step: int
    return_mean: float
    return_std: float


@dataclass(frozen=True)
class Progress:
    """Content of `progress.json`: evaluations, the last at the checkpoint; those of `COUNTERS`.

    And the settings that it was learned with, since `config.json` may have been edited.
    """

    evaluations: list[Evaluation]
    counters: dict[str, int | float]
    config: dict[str, Any] = field(default_factory=dict)


class _Stretch(BaseCallback):
    """Sets the length of the whole training, which the learner's schedules need."""

    def __init__(self, train_steps: int) -> None:
        super().__init__()
        self._train_steps = train_steps

    def _on_training_start(self) -> None:
        self.model._total_timesteps = self._train_steps

    def _on_step(self) -> bool:
        return True


def train(
    config: CollectConfig,
    model: BaseAlgorithm,
    environment: EnvSpec,
    enough: float | None = None,
) -> list[Evaluation]:
    """Train to the end, from the newest checkpoint where there is one; returns all evaluations.

    Args:
        config: of the run.
        model: the learner, of `make_learner`.
        environment: to evaluate in.
        enough: the evaluation return at which training may stop; `None` for never.

    Raises:
        UserError: a checkpoint that is damaged or of another version.
        Interrupted: after Ctrl-C.
    """
    run, total, interval = config.run_folder, config.train_steps, config.evaluation_interval
    rows = _restore(model, run)
    while not rows or (rows[-1].step < total and (enough is None or rows[-1].return_mean < enough)):
        start = model.num_timesteps
        stop = min((start // interval + 1) * interval, total)
        model.set_random_seed((config.seed + start) % 2**31)
        model._last_obs = None  # makes `learn` reset the environment
        try:
            model.learn(stop - start, _Stretch(total), reset_num_timesteps=False)
            rows.append(evaluation(config, model, environment))
        except KeyboardInterrupt:
            raise Interrupted(start) from None
        except (UserError, OSError):
            raise
        except FAILURES as error:  # of the environment, or of the learner with such settings
            given = f", or --settings {' '.join(config.settings)}" if config.settings else ""
            raise UserError(
                f"environment {environment.id}{given}: learning failed between the steps {start} "
                f"and {stop}: {type(error).__name__}: {one_line(error):.200}"
            ) from error
        new, name = rows[-1], f"{type(model).__name__} in {environment.id}"
        say(f"{name}: step {new.step}, return {new.return_mean:.1f} ± {new.return_std:.1f}")
        _save(model, config, rows, start)
    return rows


def evaluation(config: CollectConfig, model: BaseAlgorithm, environment: EnvSpec) -> Evaluation:
    """The model's policy in the evaluation's episodes, the same ones each time."""
    seed, count = EVALUATION_SEED + config.seed, config.evaluation_episodes
    greedy = config.evaluation == "deterministic"
    actor = actor_of(model.policy, seed, random_share(model), greedy=greedy)
    episodes = play(actor, environment, seed=seed, episodes=count)
    returns = [float(np.sum(episode.rewards)) for episode in episodes]
    return Evaluation(model.num_timesteps, float(np.mean(returns)), float(np.std(returns)))


def history_episodes(model: BaseAlgorithm, run: Path, stop: int) -> Iterator[Trajectory]:
    """The episodes of the first `stop` steps that were learned from."""
    for steps in _history(model, run, stop):
        low = 0
        for end in np.flatnonzero(steps["terminations"] | steps["truncations"]).tolist():
            rows, low = slice(low, end + 1), end + 1
            last = steps["next_observations"][end : end + 1]
            yield Trajectory(
                observations=np.concatenate([steps["observations"][rows], last]),
                actions=steps["actions"][rows],
                rewards=steps["rewards"][rows],
                terminated=bool(steps["terminations"][end]),
                truncated=bool(steps["truncations"][end]),
            )


def _save(model: BaseAlgorithm, config: CollectConfig, rows: list[Evaluation], start: int) -> None:
    """Write a checkpoint; it counts once `progress.json`, which is written last, is there."""
    run = config.run_folder
    steps = recorder_of(model).take()
    tensors = {name: torch.from_numpy(values) for name, values in steps.items()}
    write_tensors(_history_file(run, start), tensors)
    write_tensors(weights_file(run, rows[-1].step), policy_tensors(model))
    learner = io.BytesIO()
    model.save(learner)
    write_bytes(_learner_file(run, rows[-1].step), learner.getvalue())
    steps_and_policies = (*run.glob("history/*.safetensors"), *run.glob("policies/*.safetensors"))
    files = sorted(str(file.relative_to(run)) for file in steps_and_policies)
    progress = Progress(rows, _counters(model), config.to_json())
    write_card(run / PROGRESS_FILE, asdict(progress), files)
    _learner_file(run, start).unlink(missing_ok=True)
    buffer = getattr(model, "replay_buffer", None)
    if buffer is not None:
        # What a resumed run has in its buffer, to the bit: the steps as they were written.
        buffer.pos = (buffer.pos - len(steps["rewards"])) % buffer.buffer_size
        _fill(model, steps)


def _restore(model: BaseAlgorithm, run: Path) -> list[Evaluation]:
    """Take up the newest checkpoint, if there is one; its evaluations."""
    file = run / PROGRESS_FILE
    if (run / "snapshot").exists():
        raise UserError(
            f"{run}: the training of an earlier version of aaren-rl, which cannot go on; begin "
            "anew in another --out"
        )
    if not file.exists():
        return []
    progress = decode(Progress, read_card(file), str(file))
    rows, counters = progress.evaluations, progress.counters
    if not rows or counters.keys() != _counters(model).keys():
        raise UserError(f"{file}: not the progress of this collection")
    _load_learner(model, _learner_file(run, rows[-1].step))
    for key, value in {"num_timesteps": rows[-1].step, **counters}.items():
        setattr(model, key, value)
    if hasattr(model, "replay_buffer"):
        for steps in _history(model, run, rows[-1].step):
            _fill(model, steps)
    return rows


def _counters(model: BaseAlgorithm) -> dict[str, int | float]:
    return {key: getattr(model, key) for key in COUNTERS if hasattr(model, key)}


def _load_learner(model: BaseAlgorithm, file: Path) -> None:
    """Read the weights and optimisers of a Stable-Baselines3 file, none of its pickles."""
    try:
        _, weights, variables = load_from_zip_file(file, load_data=False, device=model.device)
        model.set_parameters(weights, exact_match=True, device=model.device)
        for name, value in (variables or {}).items():
            if value is not None:
                getattr(model, name).data = value.data
    except Exception as error:  # zipfile, its compressions and PyTorch raise many kinds
        raise UserError(f"{file}: damaged, or of another run ({one_line(error)})") from None


def _fill(model: Any, steps: Steps) -> None:
    """Add steps to the learner's replay buffer."""
    actions, terminated = steps["actions"], steps["terminations"]
    if isinstance(model.action_space, spaces.Box):
        actions = model.policy.scale_action(actions)
    seen = [steps["observations"], steps["next_observations"]]
    if isinstance(model.env, VecTransposeImage):  # the buffer has channels first
        seen = [VecTransposeImage.transpose_image(images) for images in seen]
    arrays = (*seen, actions, steps["rewards"])
    cut = steps["truncations"] & ~terminated
    for *row, done, truncated in zip(*arrays, terminated | cut, cut, strict=True):
        infos = [{"TimeLimit.truncated": bool(truncated)}]
        model.replay_buffer.add(*(np.asarray(value)[None] for value in (*row, done)), infos)


def _history(model: BaseAlgorithm, run: Path, stop: int) -> Iterator[Steps]:
    """The steps before `stop`, one stretch after another; a stretch ends there."""
    env = recorder_of(model)  # the model's own space has images with channels first
    seen, taken = (space.shape or () for space in (env.observation_space, env.action_space))
    shapes = dict(zip(FIELDS, (seen, seen, taken, (), (), ()), strict=True))
    start = 0
    while start < stop:
        file = _history_file(run, start)
        try:
            steps = {name: tensor.numpy() for name, tensor in read_tensors(file).items()}
            count = len(steps["rewards"])
            right = {name: steps[name].shape == (count, *shapes[name]) for name in FIELDS}
            flags = steps["terminations"].dtype == steps["truncations"].dtype == bool
        except (KeyError, TypeError):
            count = 0
        if not (count and flags and all(right.values())):
            raise UserError(f"{file}: not the steps of this collection")
        yield steps
        start += count


def _history_file(run: Path, start: int) -> Path:
    return run / "history" / f"{start:012d}.safetensors"


def _learner_file(run: Path, step: int) -> Path:
    return run / f"learner-{step:012d}.zip"
