"""The settings of `aaren-rl finetune`. The command line is made from them, without PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from aaren_rl.agents.config import Mode
from aaren_rl.errors import UserError
from aaren_rl.records import check_counts, plain, require
from aaren_rl.registry import load_plugins

SUFFIX = "-finetuned"
MAY_CHANGE = ("steps", "out", "resume", "run", "plugin", "loggers", "device", "dataset")
"""Settings that may differ when a run is resumed."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Train an agent further by acting, as Online Decision Transformer does.

    Whole episodes are played with actions drawn from what the agent predicts, put into a buffer
    that begins with the best ones of the offline data, and learned from with the returns that they
    really had. The agent needs a head with a distribution, such as `train --head tanh-gaussian`.
    Example: aaren-rl finetune runs/first --steps 100000 --out runs/fine
    """

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "playing": ("buffer_episodes", "explorers", "exploration_return", "temperature", "mode"),
        "training": (
            *("updates_per_episode", "learning_rate", "batch_size"),
            *("checkpoint_every", "log_every", "loggers", "plugin", "device"),
        ),
        "evaluation": ("evaluate_every", "episodes", "target_return"),
    }
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a training run."""
    steps: int = 100_000
    """Environment steps to play; the episode in which they are reached is played to its end."""
    environment: Annotated[str | None, tyro.conf.arg(aliases=("--env",))] = None
    """Gymnasium id of the environment, with options as `Id?length=1000`; by default the run's."""
    out: Path | None = None
    """Folder of the new run, which has the same form. By default RUN-finetuned."""
    checkpoint: Literal["last", "best"] = "last"
    """Which of the run's checkpoints to begin with."""
    dataset: str | None = None
    """The run's data, where they have moved."""
    seed: int | None = None
    """Seed of all that is random; by default the run's."""
    resume: bool = False
    """Go on from the last checkpoint in `out`, with the same settings (`steps` may be more)."""
    buffer_episodes: int = 1000
    """Episodes in the buffer. At first they are the best of the data; of these the worst go first,
    then the oldest of those that were played."""
    explorers: int = 1
    """Environments that play side by side, an episode each, before the next updates."""
    exploration_return: float | None = None
    """Return that is asked for when playing; by default the first target return plus its size, so
    twice a positive one."""
    temperature: float = 1.0
    """Of the draws when playing, see `aaren-rl evaluate`."""
    mode: Mode | None = None
    """How to act, when playing and in evaluations; by default as the run's evaluations did."""
    updates_per_episode: int = 300
    """Gradient updates for each episode that was played."""
    learning_rate: float = 2e-4
    """Learning rate of AdamW, which stays the same throughout."""
    batch_size: int | None = None
    """Windows per update; by default the run's."""
    evaluate_every: int = 3000
    """Updates between two evaluations; there is one before the first."""
    episodes: int | None = None
    """Episodes of each evaluation; by default as many as in the run's."""
    target_return: tuple[float, ...] = ()
    """Returns to ask for in evaluations; by default the agent's own."""
    checkpoint_every: int | None = None
    """Updates between two checkpoints; by default at every evaluation."""
    log_every: int = 50
    """Updates between two log entries."""
    loggers: tuple[str, ...] = ("tensorboard",)
    """Where metrics go, as in `aaren-rl train`."""
    plugin: tuple[str, ...] = ()
    """Module that registers own agents, mixers, encoders or loggers; it is imported first."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train and to act."""

    @property
    def run_folder(self) -> Path:
        """The folder of the new run."""
        return self.out or self.run.with_name(self.run.resolve().name + SUFFIX)

    def check(self) -> None:
        """Load the plug-ins; raise `UserError` for a value that cannot work, naming its flag.

        Settings of the training itself are checked by the `TrainConfig` that is made of them.
        """
        load_plugins(self.plugin)
        check_counts(self, "steps", "buffer_episodes", "explorers", "updates_per_episode")
        check_counts(self, "batch_size", "evaluate_every", "episodes", "checkpoint_every")
        check_counts(self, "log_every")
        asked = self.exploration_return
        fits = asked is None or math.isfinite(asked)
        require(self, "exploration_return", fits, "must be finite")
        if self.run_folder.resolve() == self.run.resolve():
            raise UserError(f"--out {self.run_folder}: is the run itself; another folder expected")

    def to_json(self) -> dict[str, Any]:
        """The settings that a resumed run must have too, as JSON values."""
        content: dict[str, Any] = plain(self)
        return {name: value for name, value in content.items() if name not in MAY_CHANGE}
