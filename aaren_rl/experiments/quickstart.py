"""The first minutes with the library: both sequence agents on the shipped data, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from aaren_rl.agents import Agent, Mode, load_agent
from aaren_rl.data import load_trajectories
from aaren_rl.evaluation import acting_cost, evaluate_agent
from aaren_rl.evaluation.evaluate import checkpoint_folder, environment_of_agent
from aaren_rl.evaluation.seeds import first_episode_seed
from aaren_rl.experiments.comparison import CompareConfig
from aaren_rl.files import write_json
from aaren_rl.training.run import SUMMARY_FILE, train

QUICKSTART_DATASET = "aaren-rl/hopper-small-v0"
MODES: dict[str, tuple[Mode, ...]] = {
    "decision-aaren": ("carry", "reset", "window"),
    "decision-transformer": ("window", "carry"),
}
COLUMNS = (
    "agent",
    "mode",
    "score_mean",
    "score_std",
    "episodes",
    "train_seconds",
    "act_microseconds",
    "state_bytes_step_1",
    "state_bytes_step_1000",
)


@dataclass(frozen=True)
class QuickstartConfig:
    """Train Decision Aaren and Decision Transformer on the Hopper data inside the package.

    Then act with both and print what came of it. A second call goes on where a first was stopped,
    and trains nothing twice.
    """

    out: Path = Path("runs/quickstart")
    """Folder to leave the runs and summary.json in."""
    updates: int = 600
    """Gradient updates for each agent."""
    episodes: int = 10
    """Episodes for each row of the table."""
    seed: int = 0
    """Seed of everything random."""

    def comparison(self) -> CompareConfig:
        """The two training runs."""
        return CompareConfig(
            dataset=QUICKSTART_DATASET,
            updates=self.updates,
            device="cpu",
            evaluate_every=max(1, self.updates // 2),
            episodes=4,
            seeds=(self.seed,),
            out=self.out,
            resume=True,
        )


def quickstart(config: QuickstartConfig) -> list[dict[str, Any]]:
    """Train, act, measure; writes `summary.json`.

    Returns:
        A row for each agent and mode, with the fields of `COLUMNS`.
    """
    comparison = config.comparison()
    comparison.check()
    observations = load_trajectories(comparison.dataset).episode(0).observations
    console = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    for name in comparison.agents:
        run = comparison.run(name, config.seed)
        summary = train(run)
        agent = load_agent(checkpoint_folder(run.run_folder, "last"))
        for mode in MODES[name]:
            with console.status(f"{name} acts in {config.episodes} episodes, mode {mode}"):
                rows.append(_row(agent, mode, config, summary["train_seconds"], observations))
    write_json(config.out / SUMMARY_FILE, rows)
    return rows


def _row(
    agent: Agent, mode: Mode, config: QuickstartConfig, train_seconds: float, observations: Any
) -> dict[str, Any]:
    environment = environment_of_agent(agent)
    [score] = evaluate_agent(
        agent,
        environment,
        modes=(mode,),
        episodes=config.episodes,
        seed=first_episode_seed(config.seed, "after training"),
    )
    cost = acting_cost(agent, observations, mode=mode, steps=1000)
    measured = {
        **score,
        "train_seconds": train_seconds,
        "act_microseconds": cost.act_microseconds,
        "state_bytes_step_1": cost.state_bytes[0],
        "state_bytes_step_1000": cost.state_bytes[999],
    }
    return {name: measured[name] for name in COLUMNS}
