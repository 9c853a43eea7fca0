"""The contenders of `benchmarks.learning`: how each is set up, trained and evaluated.

Our agents and CORL's recipe run in this process through `aaren_rl.training.train`; d3rlpy runs in
an environment of its own, through `benchmarks/d3rlpy_worker.py`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import gymnasium
import numpy as np

from aaren_rl.data import TrajectoryDataset, load_trajectories
from aaren_rl.envs import environment_of, robot_of_dataset
from aaren_rl.envs.make import environment_spec
from aaren_rl.errors import UserError
from aaren_rl.evaluation.scores import normalized_scores
from aaren_rl.evaluation.seeds import first_episode_seed
from aaren_rl.files import read_json, write_json
from aaren_rl.training import TrainConfig, from_preset, train

OurName = Literal["decision-aaren", "decision-transformer"]
Name = Literal[
    "decision-aaren",
    "decision-transformer",
    "d3rlpy",
    "d3rlpy-tuned",
    "d3rlpy-defaults",
    "corl",
    "corl-tuned",
]
WORKER = Path(__file__).with_name("d3rlpy_worker.py")

# d3rlpy's published settings: `reproductions/offline/decision_transformer.py` of its repository.
# What is not named here (1 head, 3 layers, dropout 0.1 everywhere) is a default of its class.
D3RLPY_PUBLISHED: dict[str, Any] = {
    "batch_size": 64, "context_length": 20, "width": 128, "learning_rate": 1e-4,
    "warmup_updates": 10_000, "weight_decay": 1e-4, "gradient_clip": 0.25, "reward_scale": 0.001,
}  # fmt: skip
# CORL's published settings: the defaults in `algorithms/offline/dt.py` of its repository, with its
# warm-up of 10,000 of 100,000 updates as a share of the updates.
CORL_TRAINING: dict[str, Any] = {
    "sampling": "windows", "batch_size": 64, "learning_rate": 1e-4, "weight_decay": 1e-4,
    "warmup": 0.1, "schedule": "constant", "gradient_clip": 0.25, "precision": "32",
    "normalize_observations": True, "returns_scale": 1000.0, "mode": "window",
}  # fmt: skip
CORL_MODEL: dict[str, Any] = {
    "context_length": 20, "layers": 3, "width": 128, "heads": 1, "dropout": 0.1,
    "embedding_dropout": 0.1, "attention_dropout": 0.1, "activation": "gelu", "recency": (),
    "timestep_embedding": "learned", "max_episode_length": 1000, "embedding_start": "gpt2",
    "observation_clip": math.inf,
}  # fmt: skip
CORL_MUJOCO_RATE = 8e-4  # in its MuJoCo config files, which pair it with a batch size of 4096


@dataclass(frozen=True)
class Plan:
    """What all contenders have in common.

    Attributes:
        updates: gradient updates; a multiple of `evaluate_every`.
        evaluate_every: updates between two evaluations.
        episodes: episodes of each evaluation.
        threads: CPU threads.
    """

    updates: int
    evaluate_every: int
    episodes: int
    threads: int


class Contender(Protocol):
    """One training that can be described before it is done."""

    def settings(self) -> dict[str, Any]:
        """All that decides the result, as JSON; a stored result with other settings is stale."""

    def run(self, folder: Path) -> dict[str, Any]:
        """Train and evaluate; `folder` is empty and for files that nobody needs later.

        Returns:
            `curve`, a list of evaluations (`update`, `train_seconds`, `score`), `parameters`, and
            `cpu_share`, the process's processor time over elapsed time, evaluations included: less
            than 1 on one thread where other processes took the core.
        """


@dataclass(frozen=True)
class Ours:
    """A training with this library's own trainer; `train` leaves evaluations out of its clock."""

    config: TrainConfig

    def settings(self) -> dict[str, Any]:
        """See `Contender`."""
        return self.config.to_json()

    def run(self, folder: Path) -> dict[str, Any]:
        """See `Contender`."""
        start, processor = time.perf_counter(), time.process_time()
        summary = train(dataclasses.replace(self.config, out=folder / "run"))
        share = (time.process_time() - processor) / (time.perf_counter() - start)
        first_targets = {row["update"]: row for row in reversed(summary["history"])}
        curve = [
            {"update": update, "train_seconds": row["train_seconds"], "score": row["score_mean"]}
            for update, row in sorted(first_targets.items())
        ]
        return {"curve": curve, "parameters": summary["parameters"], "cpu_share": share}


@dataclass(frozen=True)
class D3rlpy:
    """A training with d3rlpy's own `fit`, evaluated with its own stateful wrapper."""

    python: Path
    dataset: str
    seed: int
    plan: Plan
    algorithm: dict[str, Any] | None
    """Settings of its config, as `D3RLPY_PUBLISHED`; None for the defaults of its class."""

    def settings(self) -> dict[str, Any]:
        """See `Contender`."""
        return {
            "dataset": self.dataset,
            "environment": plain_environment(self.dataset),
            "target_return": published_target(self.dataset),
            "seed": self.seed,
            "first_seed": first_episode_seed(self.seed, "during training"),
            **dataclasses.asdict(self.plan),
            "settings": self.algorithm,
            "versions": d3rlpy_versions(self.python),
        }

    def run(self, folder: Path) -> dict[str, Any]:
        """See `Contender`."""
        data, job, out, log = (folder / name for name in ("data.npz", "job", "result", "log"))
        write_episodes(self.dataset, data)
        write_json(job, {**self.settings(), "data": str(data)})
        command = [str(self.python), str(WORKER), str(job), str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.plan.threads)}
        environment.pop("PYTHONPATH", None)
        with open(log, "w") as file:
            code = subprocess.run(command, env=environment, stdout=file, stderr=file).returncode
        if code:
            last = log.read_text().strip().splitlines()[-1:]
            raise UserError(f"d3rlpy's training: exit code {code}, {''.join(last)} (see {log})")
        result: dict[str, Any] = read_json(out)
        for row in result["curve"]:
            scores = normalized_scores(
                np.array(row["returns"]), read_dataset(self.dataset).reference_scores
            )
            row["score"] = float(scores.mean())
        return result


def make_contender(
    name: Name, dataset: str, seed: int, plan: Plan, d3rlpy_python: Path | None
) -> Contender:
    """Set up one training.

    Raises:
        UserError: d3rlpy without an interpreter that has it, a dataset that it cannot be given, or
            settings that the trainer refuses.
    """
    if name.startswith("d3rlpy"):
        if d3rlpy_python is None:
            raise UserError(f"contender {name} needs --d3rlpy-python")
        d3rlpy_versions(d3rlpy_python)
        check_for_d3rlpy(dataset)
        return D3rlpy(d3rlpy_python, dataset, seed, plan, d3rlpy_settings(name, plan))
    common: dict[str, Any] = {
        "dataset": dataset,
        "seed": seed,
        "updates": plan.updates,
        "evaluate_every": plan.evaluate_every,
        "episodes": plan.episodes,
        "held_out": 0.0,  # all contenders learn from all episodes
        "device": "cpu",
    }
    if name in get_args(OurName):
        config = TrainConfig(agent=name, **common)
    else:
        config = corl_config(name, dataset, common)
    config.check()
    return Ours(config)


def corl_config(name: Name, dataset: str, common: dict[str, Any]) -> TrainConfig:
    """CORL's recipe: the preset of Chen et al.'s settings, and what CORL does otherwise.

    Unlike CORL's, our weights that write to the residual stream start below 0.02 (as GPT-2's do),
    and the loss is a mean over real steps only.
    """
    settings = {**CORL_TRAINING, "target_return": (published_target(dataset),), **common}
    if name == "corl-tuned":
        settings["learning_rate"] = CORL_MUJOCO_RATE
    config = from_preset(TrainConfig, "chen2021", agent="decision-transformer", **settings)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **CORL_MODEL))


def d3rlpy_settings(name: Name, plan: Plan) -> dict[str, Any] | None:
    """The published settings, those with our learning rate and warm-up, or None for its class's."""
    if name == "d3rlpy-defaults":
        return None
    if name == "d3rlpy":
        return dict(D3RLPY_PUBLISHED)
    ours = TrainConfig()
    warmup = max(1, round(ours.warmup * plan.updates))
    rate = ours.learning_rate
    return {**D3RLPY_PUBLISHED, "learning_rate": rate, "warmup_updates": warmup}


@cache
def read_dataset(dataset: str) -> TrajectoryDataset:
    """The dataset, read once."""
    return load_trajectories(dataset)


def published_target(dataset: str) -> float:
    """The return that rivals are asked for: the paper's for the task, else the data's best."""
    data = read_dataset(dataset)
    robot = robot_of_dataset(data)
    return float(data.episode_returns.max()) if robot is None else robot.target_for(data.name)


def write_episodes(dataset: str, file: Path) -> None:
    """The arguments of d3rlpy's `MDPDataset`: flat arrays, the last step of an episode marked."""
    data = read_dataset(dataset)
    last = data.offsets[1:] - 1
    terminals, timeouts = (np.zeros(data.num_steps, np.float32) for _ in range(2))
    terminals[last] = data.terminated
    timeouts[last] = ~data.terminated
    np.savez(
        file,
        observations=data.observations,
        actions=data.actions,
        rewards=data.rewards.astype(np.float32),
        terminals=terminals,
        timeouts=timeouts,
    )


def check_for_d3rlpy(dataset: str) -> None:
    """Raise `UserError` unless the actions are in [-1, 1], which d3rlpy's network assumes."""
    space = read_dataset(dataset).action_space
    if not (
        isinstance(space, gymnasium.spaces.Box)
        and (space.low == -1).all()
        and (space.high == 1).all()
    ):
        raise UserError(f"--datasets {dataset}: d3rlpy needs actions in [-1, 1], got {space}")
    plain_environment(dataset)


def plain_environment(dataset: str) -> dict[str, Any]:
    """Keyword arguments of `gymnasium.make` in another environment.

    Raises:
        UserError: when the evaluation environment is not one of Gymnasium's own.
    """
    found = environment_of(read_dataset(dataset))
    spec = environment_spec(found) if isinstance(found, str) else found
    if spec.additional_wrappers or not str(spec.entry_point).startswith("gymnasium.envs."):
        raise UserError(f"--datasets {dataset}: d3rlpy's environment cannot make {spec.id}")
    return {"id": spec.id, "max_episode_steps": spec.max_episode_steps, **spec.kwargs}


@cache
def d3rlpy_versions(python: Path) -> dict[str, str]:
    """Versions of what the worker needs, by package.

    Raises:
        UserError: the interpreter does not start or lacks a package.
    """
    packages = ("d3rlpy", "gymnasium", "mujoco", "numpy", "torch")
    code = "import json, sys; from importlib.metadata import version; "
    code += "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    try:
        done = subprocess.run([str(python), "-c", code, *packages], capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"--d3rlpy-python {python}: {error.strerror}") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it does not start"])[-1]
        raise UserError(f"--d3rlpy-python {python}: {reason}")
    versions: dict[str, str] = json.loads(done.stdout)
    return versions
