"""D4RL's recipe from the first step of training to the last dataset."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from aaren_rl.collect.config import FROM_EXPERT, QUALITIES, CollectConfig, Quality
from aaren_rl.collect.learner import (
    PROGRESS_FILE,
    load_policy_tensors,
    make_learner,
    random_share,
    try_environment,
    weights_file,
)
from aaren_rl.collect.policies import CARD_FILE, WEIGHTS_FILE
from aaren_rl.collect.rollouts import (
    actor_of,
    counted,
    first_steps,
    play,
    play_in_pixels,
    random_actor,
)
from aaren_rl.data import load_dataset
from aaren_rl.data.episode import Trajectory
from aaren_rl.data.sources.minari import METADATA, read_metadata
from aaren_rl.data.to_minari import check_new_dataset, write_minari
from aaren_rl.envs.make import environment_spec, make_env
from aaren_rl.envs.pixels import pixels_spec
from aaren_rl.errors import UserError
from aaren_rl.files import (
    locked,
    make_folder,
    read_card,
    read_json,
    read_tensors,
    write_card,
    write_json,
    write_tensors,
)
from aaren_rl.records import differences, typed

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from aaren_rl.collect.training import Evaluation

CONFIG_FILE, REFERENCES_FILE = "config.json", "references.json"
LOCK_FILE = ".collecting.lock"
# First seeds of the episodes, apart from each other and from training's.
SEEDS = {"random": 1_000_000, "medium": 2_000_000, "expert": 3_000_000}
REFERENCE_SEEDS = {"random": 4_000_000, "expert": 5_000_000}
POLICIES: dict[Quality, dict[str, str]] = {
    "random": {},
    "medium": {"policy": "medium"},
    "medium-replay": {"policy": "medium"},
    "medium-expert": {"policy-medium": "medium", "policy-expert": "expert"},
    "expert": {"policy": "expert"},
}
"""Folders of policies beside each dataset's data, and which policy each holds."""


def collect(config: CollectConfig) -> list[dict[str, Any]]:
    """Train, and write the datasets; what was finished before is kept with `resume`.

    Returns:
        A row for each dataset, those of frames last: id, steps, episodes, mean return and mean
        normalised score.

    Raises:
        UserError: for anything wrong with the config, the environment, the folders or the
            training's outcome.
        Interrupted: after Ctrl-C in training; it can be resumed.
    """
    config = typed(config, "collect()")
    config.check()
    spec = environment_spec(config.environment)
    with contextlib.closing(make_env(spec)) as env:
        model = make_learner(config, env)
        try_environment(config, env)
        recipe = Recipe(config, spec, model)
        recipe.check_datasets()
        _claim_folder(config)
        busy = f"--out {config.run_folder}: another process is collecting there"
        with locked(config.run_folder / LOCK_FILE, busy):
            recipe.write_missing()
    return recipe.rows()


def _claim_folder(config: CollectConfig) -> None:
    """Make the run's folder, and check that it can be written and holds no other run."""
    folder, now = config.run_folder, config.to_json()
    make_folder(folder)
    file = folder / CONFIG_FILE
    if file.exists():
        if which := differences(_settings_before(folder).to_json(), now):
            raise UserError(f"--out {folder}: holds another run ({which}); choose another folder")
        if not config.resume:
            raise UserError(
                f"--out {folder}: already holds this run; give --resume to go on with it"
            )
    else:
        write_json(file, now)


def _settings_before(folder: Path) -> CollectConfig:
    """The settings of the run in a folder: its checkpoint's, for `config.json` may be edited."""
    file, progress_file = folder / CONFIG_FILE, folder / PROGRESS_FILE
    config = CollectConfig.from_json(read_json(file), file)
    progress = read_card(progress_file, beside=False) if progress_file.exists() else None
    if isinstance(progress, dict) and progress.get("config"):
        return CollectConfig.from_json(progress["config"], progress_file)
    return config


def _read_references(file: Path) -> dict[str, float]:
    found = read_card(file) if file.exists() else {}
    numbers = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        raise UserError(f"{file}: mean returns by name expected")
    return dict(found)


class Recipe:
    """Trains and chooses the policies, and writes datasets of them."""

    def __init__(self, config: CollectConfig, spec: EnvSpec, model: BaseAlgorithm) -> None:
        self.config, self.model, self.folder = config, model, config.run_folder
        self.forms = {False: (spec, model.observation_space)}  # by whether observed as frames
        wanted = [quality for quality in QUALITIES if quality in config.datasets]
        self.datasets = [(quality, False) for quality in wanted]
        if config.pixels:
            shape: dict[str, Any] = {"color": config.color, "stack": config.stack}
            frames = pixels_spec(config.environment, config.pixels, **shape)
            with contextlib.closing(make_env(frames)) as env:
                env.reset(seed=0)
                self.forms[True] = frames, env.observation_space
            self.datasets += [(each, True) for each in wanted if each != "medium-replay"]
        self.chosen: dict[str, Evaluation] = {}  # "medium" and "expert"
        self.references: dict[str, float] = {}  # mean returns of "random" and "expert"

    def _target(self, quality: Quality, pixels: bool) -> Path:
        return self.config.minari_root / self.config.dataset_id(quality, pixels=pixels)

    def _collection(self, pixels: bool) -> dict[str, Any]:
        """The settings of the run in a dataset's metadata."""
        frames = {name: getattr(self.config, name) for name in ("pixels", "color", "stack")}
        return self.config.to_json() | (frames if pixels else {})

    def check_datasets(self) -> None:
        """Raise UserError for a dataset that exists and is not of this run."""
        for quality, pixels in self.datasets:
            folder = self._target(quality, pixels)
            if not (self.config.resume and folder.exists()):
                dataset_id = self.config.dataset_id(quality, pixels=pixels)
                check_new_dataset(dataset_id, self.config.minari_root)
                continue
            collection = read_metadata(folder / "data" / METADATA).get("collection")
            own = self._collection(pixels)
            if collection != own:
                there = collection if isinstance(collection, dict) else {}
                which = differences({**own, **there}, own, *(there.keys() - own.keys()))
                raise UserError(
                    f"{folder}: there already, and not of this run{which and f'; {which}'}; "
                    "give another --name"
                )

    def write_missing(self) -> None:
        """Train if need be, and write the datasets that do not exist."""
        missing = [each for each in self.datasets if not self._target(*each).exists()]
        if missing:
            self.prepare()
        for quality, pixels in missing:
            self.write(quality, pixels=pixels)

    def rows(self) -> list[dict[str, Any]]:
        """See `collect`."""
        found = []
        for quality, pixels in self.datasets:
            data = load_dataset(self._target(quality, pixels))
            scores = data.normalized_score(data.episode_returns)
            row = {
                "dataset": self.config.dataset_id(quality, pixels=pixels),
                "steps": data.num_steps,
                "episodes": data.num_episodes,
                "return_mean": float(np.mean(data.episode_returns)),
                "score_mean": None if scores is None else float(np.mean(scores)),
            }
            found.append(row)
        return found

    def prepare(self) -> None:
        """Train, choose and measure what the datasets need and an earlier run has not done."""
        top = self.config.expert_return
        self.references = _read_references(self.folder / REFERENCES_FILE)
        self._measure("random")
        wanted = set(self.config.datasets)
        if top is None or wanted != {"random"}:
            from aaren_rl.collect.training import train

            needs_expert = top is None or wanted & set(FROM_EXPERT)
            enough = None if top is None or needs_expert else self._threshold(top)
            self._choose(train(self.config, self.model, self.forms[False][0], enough))
        if top is None:
            self._measure("expert")
        else:
            self.references["expert"] = top
        self._check_expert("return", self.references["expert"])

    def _threshold(self, expert_return: float) -> float:
        """The return of the score that makes a policy medium."""
        lowest = self.references["random"]
        return lowest + self.config.medium_score / 100 * (expert_return - lowest)

    def _check_expert(self, what: str, expert_return: float) -> None:
        lowest = self.references["random"]
        if expert_return <= lowest:
            raise UserError(
                f"the expert's {what} {expert_return:.1f} is not above the random policy's "
                f"{lowest:.1f}: train longer, in another --out"
            )

    def _choose(self, rows: list[Evaluation]) -> None:
        """Which evaluated policies are the expert and the medium one."""
        best = max(rows, key=lambda row: (row.return_mean, row.step))
        self.chosen["expert"] = rows[-1] if self.config.expert == "last" else best
        top = self.config.expert_return
        top = self.chosen["expert"].return_mean if top is None else top
        self._check_expert("evaluation return", top)
        threshold = self._threshold(top)
        reached = [row for row in rows if row.return_mean >= threshold]
        if not reached:
            raise UserError(
                f"no evaluation reached the medium return {threshold:.1f}; the highest is "
                f"{best.return_mean:.1f}: train longer, in another --out, or lower --medium-score"
            )
        self.chosen["medium"] = reached[0]

    def _measure(self, who: str) -> None:
        """The mean return of a policy that data are written of, once."""
        if who in self.references:
            return
        count, seed = self.config.reference_episodes, REFERENCE_SEEDS[who] + self.config.seed
        episodes = counted(self._play(who, seed, count), f"reference, {who}")
        self.references[who] = float(np.mean([np.sum(episode.rewards) for episode in episodes]))
        write_card(self.folder / REFERENCES_FILE, self.references, [])

    def _play(
        self, who: str, seed: int, episodes: int | None = None, *, pixels: bool = False
    ) -> Iterator[Trajectory]:
        """Episodes of the random, the medium or the expert policy, whose weights are loaded."""
        if who == "random":
            actor = random_actor(self.model.action_space, seed)
        else:
            load_policy_tensors(self.model, self._weights(who))
            actor = actor_of(self.model.policy, seed, random_share(self.model))
        function = play_in_pixels if pixels else play
        yield from function(actor, self.forms[pixels][0], seed=seed, episodes=episodes)

    def _weights(self, who: str) -> dict[str, Any]:
        return read_tensors(weights_file(self.folder, self.chosen[who].step))

    def _rollouts(self, who: str, pixels: bool) -> Iterator[Trajectory]:
        """The episodes in the dataset of this policy, the same each time."""
        episodes = self._play(who, SEEDS[who] + self.config.seed, pixels=pixels)
        return first_steps(episodes, self.config.steps)

    def write(self, quality: Quality, *, pixels: bool = False) -> None:
        """Write a dataset, of frames or numbers, and the policies that made it beside the data."""
        dataset_id = self.config.dataset_id(quality, pixels=pixels)
        spec, observation_space = self.forms[pixels]
        if quality == "medium-replay":
            from aaren_rl.collect.training import history_episodes

            episodes = history_episodes(self.model, self.folder, self.chosen["medium"].step)
        elif quality == "medium-expert":
            episodes = chain(self._rollouts("medium", pixels), self._rollouts("expert", pixels))
        else:
            episodes = self._rollouts(quality, pixels)
        write_minari(
            dataset_id,
            counted(episodes, dataset_id),
            observation_space=observation_space,
            action_space=self.model.action_space,
            env_spec=spec,
            root=self.config.minari_root,
            metadata=self._metadata(quality, pixels),
            beside=lambda new: self._keep_policies(quality, new),
        )

    def _metadata(self, quality: Quality, pixels: bool) -> dict[str, Any]:
        """Minari's further keys."""
        import stable_baselines3

        version = stable_baselines3.__version__
        algorithm = f"{type(self.model).__name__}, Stable-Baselines3 {version}"
        after = {who: f"{algorithm} after {row.step} steps" for who, row in self.chosen.items()}
        what = {
            "random": "Uniformly random actions",
            "medium": f"{after.get('medium')}, stochastic",
            "medium-replay": f"All steps learned from by {after.get('medium')}, when it was medium",
            "medium-expert": f"medium-v0 and expert-v0 together, {algorithm}",
            "expert": f"{after.get('expert')}, stochastic",
        }
        made = f"in {self.config.environment}; made by aaren-rl collect"
        return {
            "author": {"aaren-rl"},
            "algorithm_name": "random" if quality == "random" else algorithm,
            "description": f"{what[quality]}, {made}",
            "ref_min_score": self.references["random"],
            "ref_max_score": self.references["expert"],
            "num_episodes_average_score": self.config.reference_episodes,
            "collection": self._collection(pixels),
        }

    def _keep_policies(self, quality: Quality, folder: Path) -> None:
        for name, who in POLICIES[quality].items():
            row = self.chosen[who]
            (folder / name).mkdir()
            write_tensors(folder / name / WEIGHTS_FILE, self._weights(who))
            card = {
                "algorithm": type(self.model).__name__,
                "step": row.step,
                "evaluation_return_mean": row.return_mean,
                "evaluation_return_std": row.return_std,
                "config": self.config.to_json(),
            }
            write_card(folder / name / CARD_FILE, card, [WEIGHTS_FILE])
