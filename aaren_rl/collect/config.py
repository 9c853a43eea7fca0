"""Settings of `aaren-rl collect`. The command line is made from them: no heavy import here."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from aaren_rl.errors import UserError
from aaren_rl.records import check_counts, decode, plain, require

Quality = Literal["random", "medium", "medium-replay", "medium-expert", "expert"]
QUALITIES: tuple[Quality, ...] = ("random", "medium", "medium-replay", "medium-expert", "expert")
FROM_EXPERT: tuple[Quality, ...] = ("expert", "medium-expert")


@dataclass(frozen=True)
class CollectConfig:
    """Make Minari datasets of any Gymnasium environment by D4RL's recipe.

    Trains SAC (PPO or DQN where actions are discrete) with Stable-Baselines3, the extra `collect`,
    and writes NAME/random-v0, medium-v0, medium-replay-v0, medium-expert-v0 and expert-v0, each
    with reference scores. Example: aaren-rl collect CartPole-v1 --train-steps 50000 --steps 20000
    """

    environment: Annotated[str, tyro.conf.Positional]
    """Gymnasium id; options go behind it: 'CartPole-v1?sutton_barto_reward=true'."""
    algorithm: Literal["auto", "sac", "ppo", "dqn"] = "auto"
    """Learning algorithm; auto is SAC for Box actions and PPO for Discrete ones."""
    train_steps: int = 1_000_000
    """Steps in the environment to learn from."""
    steps: int = 1_000_000
    """Steps of each of random, medium and expert; medium-expert has both of its parts."""
    datasets: tuple[Quality, ...] = QUALITIES
    """Which datasets to write."""
    medium_score: float = 100 / 3
    """Medium is the first evaluation with at least this normalised score: 0 is the random policy's
    return, 100 the expert's evaluation return."""
    expert: Literal["best", "last"] = "best"
    """Which evaluated policy is the expert: the one of the highest evaluation return (the latest
    such), or the last."""
    expert_return: float | None = None
    """The return that counts as 100. By default the expert's own. With it, training stops at medium
    when no dataset needs an expert."""
    evaluate_every: int | None = None
    """Steps between two evaluations, each with a checkpoint to go on from and then a new episode;
    by default a hundredth of train-steps."""
    evaluation_episodes: int = 10
    """Episodes of each evaluation."""
    evaluation: Literal["stochastic", "deterministic"] = "stochastic"
    """How the policy acts in evaluations: as it does in the data, or by its most likely actions.
    With the latter, often far better, `medium` is found where the data are still poor."""
    reference_episodes: int = 100
    """Episodes, of the random policy and of the expert as it acts in the data, whose mean returns
    become the datasets' reference scores."""
    settings: tuple[str, ...] = ()
    """Arguments of the algorithm in Stable-Baselines3, as name=JSON: learning_rate=1e-3
    'policy_kwargs={"net_arch":[64,64]}'."""
    buffer_size: int = 1_000_000
    """Steps in the replay buffer that SAC and DQN learn from (medium-replay has all steps)."""
    seed: int = 0
    """Seed of weights, environments and actions."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device for training; small networks are faster on a CPU."""
    name: str | None = None
    """Namespace of the datasets; by default collected/ENVIRONMENT."""
    root: Path | None = None
    """Minari root to write into. By default MINARI_DATASETS_PATH, else ~/.minari/datasets."""
    out: Path | None = None
    """Folder of the training: checkpoint, policies, history. By default runs/collect/ENVIRONMENT/
    ALGORITHM-seed-SEED."""
    pixels: int = 0
    """Write each dataset but medium-replay also as QUALITY-pixels-v0: the same episodes, observed
    as rendered frames of so many pixels a side. Give it again with --resume. 0 for none."""
    color: bool = False
    """Frames of three channels, red, green and blue, instead of one of brightness."""
    stack: int = 3
    """Number of latest frames in one observation: one alone shows no velocity (docs/pixels.md)."""
    resume: bool = False
    """Go on from the last checkpoint and keep the datasets that are finished; flags not given are
    taken from the folder."""

    @property
    def evaluation_interval(self) -> int:
        """Steps between two evaluations."""
        return self.evaluate_every or max(1, self.train_steps // 100)

    @property
    def short_name(self) -> str:
        """The environment's name without version and options, in lower case."""
        from aaren_rl.envs.make import environment_spec

        return environment_spec(self.environment).name.lower()

    @property
    def run_folder(self) -> Path:
        """Folder of the training."""
        folder = Path("runs") / "collect" / self.short_name
        return self.out or folder / f"{self.algorithm}-seed-{self.seed}"

    @property
    def minari_root(self) -> Path:
        """Where the datasets go."""
        from aaren_rl.data.sources.minari import local_root

        return local_root() if self.root is None else self.root

    def dataset_id(self, quality: Quality, *, pixels: bool = False) -> str:
        """The Minari id of one dataset, of numbers or of frames."""
        seen = "-pixels" if pixels else ""
        return f"{self.name or f'collected/{self.short_name}'}/{quality}{seen}-v0"

    def algorithm_settings(self) -> dict[str, Any]:
        """`settings` as keyword arguments; `UserError` for one that is not name=JSON."""
        given = {}
        for setting in self.settings:
            key, equals, value = setting.partition("=")
            try:
                given[key] = json.loads(value, parse_constant=int)  # refuses NaN
            except ValueError:
                equals = ""
            if not (key.isidentifier() and equals):
                raise UserError(f"--settings {setting}: name=JSON expected, as learning_rate=1e-3")
        return given

    def check(self) -> None:
        """Raise `UserError` for a value that cannot work, naming its flag."""
        from aaren_rl.data.sources.minari import is_minari_id

        check_counts(self, "train_steps", "steps", "evaluate_every", "evaluation_episodes")
        check_counts(self, "reference_episodes", "buffer_size")
        require(self, "medium_score", 0 < self.medium_score <= 100, "must be in (0, 100]")
        finite = self.expert_return is None or math.isfinite(self.expert_return)
        require(self, "expert_return", finite, "must be finite")
        if not self.datasets:
            raise UserError(f"--datasets: at least one of {', '.join(QUALITIES)} expected")
        require(self, "seed", 0 <= self.seed < 2**31, "must be in [0, 2^31)")
        if not is_minari_id(self.dataset_id("medium")):
            raise UserError(f"--name {self.name}: a namespace such as collected/hopper expected")
        self.algorithm_settings()

    def to_json(self) -> dict[str, Any]:
        """The fields that determine the episodes, as JSON values: no places, no frames."""
        content: dict[str, Any] = plain(self)
        for name in ("out", "root", "resume", "pixels", "color", "stack"):
            del content[name]
        return content

    @staticmethod
    def from_json(content: dict[str, Any], file: Path) -> CollectConfig:
        """The inverse of `to_json`; `UserError` names `file` and an unknown or wrong field."""
        return decode(CollectConfig, content, str(file))
