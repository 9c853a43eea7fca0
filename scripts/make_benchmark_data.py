"""Make the data of benchmarks/specs/collected.yaml: Hopper and HalfCheetah in three qualities.

    python scripts/make_benchmark_data.py [--robots Hopper HalfCheetah] [--train-steps N]

Each robot learns by SAC (extra `collect`), and `medium`, `medium-replay` and `medium-expert` are
written as Minari datasets `collected/ROBOT/QUALITY-v0`, by D4RL's recipe (docs/collect.md). A run
that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from aaren_rl.collect import CollectConfig, collect
from aaren_rl.collect.config import Quality
from aaren_rl.errors import UserError

DATASETS: tuple[Quality, ...] = ("medium", "medium-replay", "medium-expert")


@dataclass(frozen=True)
class BenchmarkDataConfig:
    """Make the data of benchmarks/specs/collected.yaml."""

    robots: tuple[str, ...] = ("Hopper", "HalfCheetah")
    """Gymnasium's names, without the version."""
    train_steps: int = 1_000_000
    """Steps to learn from, for each robot."""
    steps: int = 50_000
    """Steps of medium and of expert; medium-expert has both."""
    seed: int = 0
    """Of everything."""
    root: Path | None = None
    """Minari root to write into. By default MINARI_DATASETS_PATH, else ~/.minari/datasets."""
    out: Path = Path("runs/collect")
    """Folder of the trainings."""

    def recipes(self) -> list[CollectConfig]:
        """What is collected, in this order."""
        return [
            CollectConfig(
                f"{robot}-v5",
                algorithm="sac",
                train_steps=self.train_steps,
                steps=self.steps,
                datasets=DATASETS,
                seed=self.seed,
                root=self.root,
                out=self.out / f"{robot.lower()}-sac",
            )
            for robot in self.robots
        ]


def main(config: BenchmarkDataConfig) -> None:
    """Collect, and say what was made."""
    for recipe in config.recipes():
        for row in collect(dataclasses.replace(recipe, resume=recipe.run_folder.exists())):
            print(f"{row['dataset']}: {row['steps']} steps, mean return {row['return_mean']:.1f}")


if __name__ == "__main__":
    try:
        main(tyro.cli(BenchmarkDataConfig))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
