"""D4RL's recipe from the first step of training to the last dataset."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from aaren_rl.collect.acting import first_steps, play, random_actor, stochastic_actor
from aaren_rl.collect.config import FROM_EXPERT, QUALITIES, CollectConfig, Quality
from aaren_rl.collect.learner import (
    algorithm_class,
    algorithm_name,
    check_observations,
    load_policy_tensors,
    make_learner,
    random_share,
)
from aaren_rl.collect.policies import save_policy, weights_file
from aaren_rl.collect.progress import counted
from aaren_rl.collect.recorder import Recorder
from aaren_rl.collect.training import Evaluation, Training
from aaren_rl.data.sources.hdf5 import open_hdf5
from aaren_rl.data.sources.minari import HDF5_FILE, METADATA
from aaren_rl.data.to_minari import SCRATCH, check_new_dataset, write_minari
from aaren_rl.data.trajectory import Trajectory
from aaren_rl.envs.vector import environment_spec, make_env
from aaren_rl.errors import UserError
from aaren_rl.files import probe_folder, read_json, read_tensors, write_json

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

CONFIG_FILE, REFERENCES_FILE = "config.json", "references.json"
# First seeds of the episodes, apart from each other and from training's.
SEEDS = {"random": 1_000_000, "medium": 2_000_000, "expert": 3_000_000}
REFERENCE_SEEDS = {"random": 4_000_000, "expert": 5_000_000}


def collect(config: CollectConfig) -> list[dict[str, Any]]:
    """Train, and write the datasets; what was finished before is kept with `resume`.

    Returns:
        A row for each dataset: id, steps, episodes, mean return and mean normalised score.

    Raises:
        UserError: for anything wrong with the config, the environment, the folders or the
            training's outcome.
        Interrupted: after Ctrl-C in training; it can be resumed.
    """
    config.check()
    spec = environment_spec(config.environment)
    env = make_env(spec)
    try:
        check_observations(config, env.observation_space)
        algorithm_class(algorithm_name(config, env.action_space))
        model = make_learner(config, recorder := Recorder(env))
        _check_datasets(config)
        _claim_folder(config)
        return Recipe(config, spec, model, recorder).run()
    finally:
        env.close()


def _check_datasets(config: CollectConfig) -> None:
    """Raise UserError for a dataset that is there and not of this run."""
    for quality in config.datasets:
        folder = config.minari_root / config.dataset_id(quality)
        for left in folder.parent.glob(f"{SCRATCH}*") if config.resume else ():
            shutil.rmtree(left)  # of a process that was killed
        if not (config.resume and folder.exists()):
            check_new_dataset(config.dataset_id(quality), config.minari_root)
        elif read_json(folder / "data" / METADATA).get("collection") != config.to_json():
            raise UserError(f"{folder}: there already, and not of this run; give another --name")


def _claim_folder(config: CollectConfig) -> None:
    """Make the run's folder, and see that it can be written and holds no other run."""
    folder = config.run_folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe_folder(folder)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror})") from None
    file = folder / CONFIG_FILE
    if file.exists():
        before, now = read_json(file), config.to_json()
        differing = [key for key in now if before.get(key) != now[key]]
        if differing:
            flag = "--" + differing[0].replace("_", "-")
            raise UserError(
                f"--out {folder}: holds another run ({flag} {before.get(differing[0])} there, "
                f"{now[differing[0]]} here); choose another folder"
            )
        if not config.resume:
            raise UserError(
                f"--out {folder}: already holds this run; give --resume to go on with it"
            )
    write_json(file, config.to_json())


class Recipe:
    """The steps of the recipe, each of which is skipped where its outcome is on the disk.

    Args:
        config: what to do.
        spec: the environment.
        model: learns in the recorder's environment.
        recorder: of that environment.
    """

    def __init__(
        self, config: CollectConfig, spec: EnvSpec, model: BaseAlgorithm, recorder: Recorder
    ) -> None:
        self.config, self.spec, self.model = config, spec, model
        self.folder = config.run_folder
        self.training = Training(config, model, recorder, spec, self.folder)
        self.expert = self.medium = Evaluation(0, 0.0, 0.0)
        self.references: dict[str, float] = {}

    def run(self) -> list[dict[str, Any]]:
        """Everything; see `collect`."""
        file = self.folder / REFERENCES_FILE
        self.references = read_json(file) if file.exists() else {}
        config, wanted = self.config, set(self.config.datasets)
        self._measure("random")
        if config.expert_return is not None and not wanted & set(FROM_EXPERT):
            self.training.enough = self._threshold(config.expert_return)
        if wanted != {"random"} or config.expert_return is None:
            self.training.run()
            self._choose()
        if config.expert_return is None:
            self._measure("expert")
        else:
            self.references["expert"] = config.expert_return
        if self.references["expert"] <= self.references["random"]:
            raise UserError(
                f"the expert's return {self.references['expert']:.1f} is not above the random "
                f"policy's {self.references['random']:.1f}: train longer, in another --out"
            )
        return [self._dataset(quality) for quality in QUALITIES if quality in wanted]

    def _threshold(self, expert_return: float) -> float:
        """The return of the score that makes a policy medium."""
        lowest = self.references["random"]
        return lowest + self.config.medium_score / 100 * (expert_return - lowest)

    def _choose(self) -> None:
        """Which evaluated policies are the expert and the medium one."""
        rows = self.training.evaluations
        best = max(rows, key=lambda row: (row.return_mean, row.step))
        self.expert = rows[-1] if self.config.expert == "last" else best
        top = self.config.expert_return
        top = self.expert.return_mean if top is None else top
        if top <= self.references["random"]:
            raise UserError(
                f"the expert's evaluation return {top:.1f} is not above the random policy's "
                f"{self.references['random']:.1f}: train longer, in another --out"
            )
        threshold = self._threshold(top)
        reached = [row for row in rows if row.return_mean >= threshold]
        if not reached:
            raise UserError(
                f"no evaluation reached the medium return {threshold:.1f}; the highest is "
                f"{best.return_mean:.1f}: train longer, in another --out, or lower --medium-score"
            )
        self.medium = reached[0]

    def _measure(self, who: str) -> None:
        """The mean return of a policy that data are written of, once."""
        if who in self.references:
            return
        count, seed = self.config.reference_episodes, REFERENCE_SEEDS[who] + self.config.seed
        episodes = counted(self._play(who, seed, count), f"reference, {who}", None)
        returns = [float(np.sum(episode.rewards)) for episode in episodes]
        self.references[who] = float(np.mean(returns))
        write_json(self.folder / REFERENCES_FILE, self.references)

    def _play(self, who: str, seed: int, episodes: int | None = None) -> Iterator[Trajectory]:
        """Episodes of the random, the medium or the expert policy; ready when it is asked for."""
        if who == "random":
            actor = random_actor(self.model.action_space, seed)
        else:
            step = (self.expert if who == "expert" else self.medium).step
            load_policy_tensors(self.model, read_tensors(weights_file(self.folder, step)))
            actor = stochastic_actor(self.model.policy, seed, random_share(self.model))
        yield from play(actor, self.spec, seed=seed, episodes=episodes)

    def _rollouts(self, who: str) -> Iterator[Trajectory]:
        """What the dataset of this policy holds; the same each time."""
        yield from first_steps(self._play(who, SEEDS[who] + self.config.seed), self.config.steps)

    def _episodes(self, quality: Quality) -> tuple[Iterator[Trajectory], int]:
        """What a dataset holds, and its number of steps."""
        if quality == "medium-replay":
            return self.training.history.episodes(self.medium.step), self.medium.step
        if quality == "medium-expert":
            both = chain(self._rollouts("medium"), self._rollouts("expert"))
            return both, 2 * self.config.steps
        return self._rollouts(quality), self.config.steps

    def _dataset(self, quality: Quality) -> dict[str, Any]:
        """Write a dataset unless it is there; its row."""
        dataset_id = self.config.dataset_id(quality)
        folder = self.config.minari_root / dataset_id
        if not folder.exists():
            episodes, steps = self._episodes(quality)
            write_minari(
                dataset_id,
                counted(episodes, dataset_id, steps),
                observation_space=self.model.observation_space,
                action_space=self.model.action_space,
                env_spec=self.spec,
                root=self.config.minari_root,
                metadata=self._metadata(quality),
                beside=lambda new: self._keep_policies(quality, new),
            )
        return {"dataset": dataset_id, **self._row(folder / "data")}

    def _row(self, data: Path) -> dict[str, Any]:
        """What a dataset has."""
        content = read_json(data / METADATA)
        with open_hdf5(data / HDF5_FILE) as file:
            groups = [file[f"episode_{index}"] for index in range(content["total_episodes"])]
            returns = [float(np.sum(group["rewards"][()])) for group in groups]
        low, high = content["ref_min_score"], content["ref_max_score"]
        return {
            "steps": content["total_steps"],
            "episodes": content["total_episodes"],
            "return_mean": float(np.mean(returns)),
            "score_mean": 100 * (float(np.mean(returns)) - low) / (high - low),
        }

    def _metadata(self, quality: Quality) -> dict[str, Any]:
        """Minari's further keys."""
        import stable_baselines3

        algorithm = (
            f"{type(self.model).__name__}, Stable-Baselines3 {stable_baselines3.__version__}"
        )
        what = {
            "random": "Uniformly random actions",
            "medium": f"{algorithm} after {self.medium.step} steps, stochastic",
            "medium-replay": f"All {self.medium.step} steps that {algorithm} had learned from "
            "when it reached medium",
            "medium-expert": f"medium-v0 and expert-v0 together, {algorithm}",
            "expert": f"{algorithm} after {self.expert.step} steps, stochastic",
        }
        return {
            "author": {"aaren-rl"},
            "algorithm_name": "random" if quality == "random" else algorithm,
            "description": f"{what[quality]}, in {self.config.environment}; made by aaren-rl "
            "collect",
            "ref_min_score": self.references["random"],
            "ref_max_score": self.references["expert"],
            "num_episodes_average_score": self.config.reference_episodes,
            "collection": self.config.to_json(),
        }

    def _keep_policies(self, quality: Quality, folder: Path) -> None:
        """Put the policies that made a dataset beside its data."""
        chosen = {"medium": self.medium, "medium-replay": self.medium, "expert": self.expert}
        if quality in chosen:
            self._keep_policy(chosen[quality], folder / "policy")
        if quality == "medium-expert":
            self._keep_policy(self.medium, folder / "policy-medium")
            self._keep_policy(self.expert, folder / "policy-expert")

    def _keep_policy(self, evaluation: Evaluation, folder: Path) -> None:
        card = {
            "algorithm": type(self.model).__name__,
            "step": evaluation.step,
            "evaluation_return_mean": evaluation.return_mean,
            "evaluation_return_std": evaluation.return_std,
            "config": self.config.to_json(),
        }
        tensors = read_tensors(weights_file(self.folder, evaluation.step))
        save_policy(folder, tensors, card)
