"""Let a scripted expert write a Minari dataset of a task that needs memory; see `--help`."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from gymnasium.envs.registration import EnvSpec

from aaren_rl.data.sources.minari import METADATA
from aaren_rl.envs import environment_spec
from aaren_rl.envs.memory.experts import write_expert_dataset
from aaren_rl.envs.memory.minigrid import MINIGRID_MEMORY
from aaren_rl.envs.memory.recall import RECALL
from aaren_rl.envs.memory.tmaze import PASSIVE_TMAZE
from aaren_rl.errors import UserError
from aaren_rl.files import read_json

ENVIRONMENTS = {
    "passive-tmaze": PASSIVE_TMAZE,
    "recall": RECALL,
    "minigrid-memory": f"{MINIGRID_MEMORY}S13-v0",
}
OPTIONS = {
    "passive-tmaze": ("length", "log_uniform", "noise", "cues"),
    "recall": ("length", "log_uniform", "noise", "pairs", "values"),
    "minigrid-memory": ("size", "random_length", "tile_size"),
}


@dataclass(frozen=True)
class MemoryDataConfig:
    """Let a scripted expert act in a task that needs memory, and write a Minari dataset of it.

    Example: python scripts/make_memory_data.py --task passive-tmaze --noise 0.5
    """

    task: Literal["passive-tmaze", "recall", "minigrid-memory"]
    """A cue at the beginning of a corridor; key-value pairs to be recalled; MiniGrid's Memory."""
    dataset_id: str | None = None
    """Minari id of the new dataset. By default memory/TASK-v0."""
    root: Path | None = None
    """Minari root to write into. By default MINARI_DATASETS_PATH, else ~/.minari/datasets."""
    episodes: int = 2000
    """How many episodes."""
    seed: int = 0
    """Seed of the first episode; the next ones count up."""
    length: tuple[int, ...] = ()
    """Steps of an episode, or the shortest and the longest (passive-tmaze, recall). By default 5 to
    120, and 20 to 120."""
    log_uniform: bool = False
    """Draw lengths log-uniformly, not uniformly (passive-tmaze, recall)."""
    noise: float | None = None
    """Standard deviation of the noise between what is to be remembered (passive-tmaze, recall). By
    default none."""
    cues: int | None = None
    """How many cues, and sides to choose from (passive-tmaze). By default 2."""
    pairs: int | None = None
    """How many key-value pairs (recall). By default 4."""
    values: int | None = None
    """How many different values (recall). By default 2."""
    size: int | None = None
    """Cells of the map's side, odd, 7 or more (minigrid-memory). By default 13."""
    random_length: bool = False
    """Corridors of random length (minigrid-memory)."""
    tile_size: int | None = None
    """Observe images of so many pixels a side of a cell, 7 cells a side (minigrid-memory). By
    default numbers."""

    def environment(self) -> EnvSpec:
        """The environment that the flags ask for.

        Raises:
            UserError: for a flag that does not belong to the task.
        """
        spec = environment_spec(ENVIRONMENTS[self.task])
        for name in dict.fromkeys(itertools.chain(*OPTIONS.values())):
            value: Any = getattr(self, name)
            if value in (None, False, ()):
                continue
            if name not in OPTIONS[self.task]:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag}: not an option of --task {self.task}")
            if isinstance(value, tuple):
                value = value[0] if len(value) == 1 else list(value)
            spec.kwargs[name] = value
        return spec


def make_memory_data(config: MemoryDataConfig) -> Path:
    """Write the dataset; gives its folder.

    Raises:
        UserError: for a flag that does not fit, or a dataset that is there already.
    """
    if config.episodes < 1:
        raise UserError(f"--episodes must be at least 1, got {config.episodes}")
    if config.seed < 0:
        raise UserError(f"--seed must not be negative, got {config.seed}")
    return write_expert_dataset(
        config.dataset_id or f"memory/{config.task}-v0",
        config.environment(),
        config.episodes,
        seed=config.seed,
        root=config.root,
    )


def main() -> int:
    """Write the dataset and say what is in it; gives the exit code."""
    try:
        folder = make_memory_data(tyro.cli(MemoryDataConfig))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    content = read_json(folder / "data" / METADATA)
    print(f"{folder}: {content['total_episodes']} episodes, {content['total_steps']} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
