"""Several agents, several seeds, one dataset, one log directory."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from aaren_rl.agents import AGENTS
from aaren_rl.errors import UserError
from aaren_rl.evaluation import mean_interval
from aaren_rl.storage import write_bytes, write_json
from aaren_rl.training.acting_curves import STEPS, write_acting_curves
from aaren_rl.training.comparison_plots import plot_length_errors
from aaren_rl.training.config import AgentName, TrainConfig, TrainSettings
from aaren_rl.training.logging import custom_layout, target_tag
from aaren_rl.training.run import is_leader, load_data, train

COMPARISON_FILE = "comparison.json"


@dataclass(frozen=True)
class CompareConfig(TrainSettings):
    """Train several agents with several seeds on one dataset and compare them in TensorBoard.

    Each run is a folder OUT/AGENT/seed-N as `train` makes it; OUT/AGENT/mean holds the mean over
    seeds with its 95% interval, OUT/AGENT/acting-* what acting costs by environment step,
    OUT/comparison.json the table. Example: aaren-rl compare --dataset
    aaren-rl/hopper-small-v0 --seeds 0 1 2 --updates 1500 --out runs/comparison
    """

    agents: tuple[AgentName, ...] = ("decision-aaren", "decision-transformer")
    """Agents to compare."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds to train each agent with."""
    out: Path = Path("runs/comparison")
    """Folder of the comparison: point TensorBoard here."""
    resume: bool = False
    """Go on with a comparison that was stopped; finished runs are kept as they are."""

    def check(self) -> None:
        """Raise `UserError` for a value that cannot work, naming its flag."""
        super().check()
        for name in ("agents", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UserError(f"--{name} must be at least one, each once, got {values}")
        # What no agent can use is a mistake, and is said as `train` says it.
        agents = [AGENTS[agent] for agent in self.agents]
        if not any(agent.has_memory for agent in agents):
            agents[0].check_request(mode=self.mode)
        if not any(agent.asks_return for agent in agents):
            agents[0].check_request(target_return=self.target_return)
        for each in self.agents:
            for seed in self.seeds:
                self.run(each, seed).check()

    def run(self, agent: AgentName, seed: int) -> TrainConfig:
        """The config of one of the runs.

        A mode or target returns go to the agents that they mean something to.
        """
        shared = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(TrainSettings)
        }
        if not AGENTS[agent].has_memory:
            shared["mode"] = None
        if not AGENTS[agent].asks_return:
            shared["target_return"] = ()
        folder = self.out / agent / f"seed-{seed}"
        return TrainConfig(**shared, agent=agent, seed=seed, out=folder, resume=self.resume)


def compare(config: CompareConfig) -> list[dict[str, Any]]:
    """Train what is not trained yet, then summarise.

    Returns:
        A row for each agent and target return, as `comparison.json` holds them; none in all
        processes but the first.

    Raises:
        UserError: as `train`.
        Interrupted: after Ctrl-C; what is done is kept, and `--resume` goes on.
    """
    config.check()
    dataset = load_data(config)
    observations = dataset.observations[:STEPS]
    rows: list[dict[str, Any]] = []
    summaries: dict[str, list[dict[str, Any]]] = {}
    for agent in config.agents:
        summaries[agent] = [train(config.run(agent, seed)) for seed in config.seeds]
        if is_leader():
            rows += summarise(agent, summaries[agent])
            write_mean(config.out / agent / "mean", summaries[agent])
            checkpoint = config.run(agent, config.seeds[0]).run_folder / "last"
            write_acting_curves(config.out / agent, checkpoint, observations)
    if not is_leader():
        return []
    write_json(config.out / COMPARISON_FILE, rows)
    write_picture(config.out, summaries)
    return rows


def summarise(agent: str, summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each target return: mean over seeds of the last checkpoint's score, interval."""
    rows = []
    for number, first in enumerate(summaries[0]["scores"]):
        scores = np.array([summary["scores"][number]["score_mean"] for summary in summaries])
        interval = mean_interval(scores)
        rows.append(
            {
                "agent": agent,
                "mode": summaries[0]["mode"],
                "target_return": first["target_return"],
                "score_mean": interval.mean,
                "score_low": interval.low,
                "score_high": interval.high,
                "scores": scores.tolist(),
                "seeds": [summary["seed"] for summary in summaries],
                "parameters": summaries[0]["parameters"],
                "train_seconds": float(np.mean([s["train_seconds"] for s in summaries])),
            }
        )
    return rows


def write_mean(folder: Path, summaries: list[dict[str, Any]]) -> None:
    """TensorBoard curves of the mean over seeds, with its 95% interval as low and high."""
    for old in folder.glob("events.*"):
        old.unlink()
    writer = SummaryWriter(str(folder))
    tags = []
    for entries in zip(*(summary["history"] for summary in summaries), strict=True):
        tag = target_tag(entries[0]["target_return"])
        tags.append(tag)
        interval = mean_interval(np.array([entry["score_mean"] for entry in entries]))
        update = entries[0]["update"]
        for name, value in dataclasses.asdict(interval).items():
            short = "score" if name == "mean" else f"score_{name}"
            writer.add_scalar(f"{tag}/{short}", value, update)
    writer.add_custom_scalars(custom_layout(list(dict.fromkeys(tags))))
    writer.close()


def write_picture(folder: Path, summaries: dict[str, list[dict[str, Any]]]) -> None:
    """Action error by position, as `length_error.png` and on TensorBoard's images page."""
    figure = plot_length_errors(summaries)
    if figure is None:
        return
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_bytes(folder / "length_error.png", content.getvalue())
    for old in (folder / "pictures").glob("events.*"):
        old.unlink()
    with SummaryWriter(str(folder / "pictures")) as writer:
        writer.add_figure("action_error_by_position", figure)
