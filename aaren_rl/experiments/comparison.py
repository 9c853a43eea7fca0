"""Several agents, several seeds, one dataset, one log directory."""

from __future__ import annotations

import dataclasses
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from aaren_rl.agents import AGENTS
from aaren_rl.errors import UserError
from aaren_rl.evaluation import mean_interval
from aaren_rl.evaluation.noninferiority import DEFAULT_MARGIN, judge
from aaren_rl.evaluation.statistics import paired_difference
from aaren_rl.experiments.acting_curves import STEPS, write_acting_curves
from aaren_rl.experiments.comparison_plots import plot_length_errors
from aaren_rl.files import write_bytes, write_json
from aaren_rl.training.config import AgentName, TrainConfig, TrainSettings
from aaren_rl.training.logging import mean_layout, target_tag
from aaren_rl.training.run import is_leader, load_data, train

COMPARISON_FILE = "comparison.json"


@dataclass(frozen=True)
class CompareConfig(TrainSettings):
    """Train several agents with several seeds on one dataset and compare them in TensorBoard.

    Each run is a folder OUT/AGENT/seed-N as `train` makes it; OUT/AGENT/mean holds the mean over
    seeds with its 95% interval (with fewer than 5 seeds, their range), OUT/AGENT/acting-* what
    acting costs by environment step, OUT/comparison.json the table, in which each agent is compared
    with the first, seed by seed. Example: aaren-rl compare --dataset aaren-rl/hopper-small-v0
    --seeds 0 1 2 3 4 --updates 1500 --out runs/comparison
    """

    agents: tuple[AgentName, ...] = ("decision-aaren", "decision-transformer")
    """Agents to compare."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds to train each agent with."""
    out: Path = Path("runs/comparison")
    """Folder of the comparison: point TensorBoard here."""
    margin: float = DEFAULT_MARGIN
    """How many normalised points an agent may lie below the first and still be called not worse;
    words are given from 5 seeds, and only where scores are normalised."""
    resume: bool = False
    """Go on with a comparison that was stopped; finished runs are kept as they are."""

    def check(self) -> None:
        """Raise `UserError` for a value that cannot work, naming its flag."""
        super().check()
        for name in ("agents", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UserError(f"--{name} must be at least one, each once, got {values}")
        if not (math.isfinite(self.margin) and self.margin > 0):
            raise UserError(f"--margin must be positive and finite, got {self.margin}")
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
    rows = with_differences(rows, config.margin)
    write_json(config.out / COMPARISON_FILE, rows)
    write_picture(config.out, summaries)
    return rows


def summarise(agent: str, summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each target return: mean over seeds of the last checkpoint's score, interval."""
    rows = []
    for number, first in enumerate(summaries[0]["scores"]):
        scores = np.array([summary["scores"][number]["score_mean"] for summary in summaries])
        mean = mean_interval(scores)
        rows.append(
            {
                "agent": agent,
                "mode": summaries[0]["mode"],
                "target_return": first["target_return"],
                "normalized": first["normalized"],
                "score_mean": mean.value,
                "score_low": mean.low,
                "score_high": mean.high,
                "bounds": mean.bounds,
                "scores": scores.tolist(),
                "seeds": [summary["seed"] for summary in summaries],
                "parameters": summaries[0]["parameters"],
                "train_seconds": float(np.mean([s["train_seconds"] for s in summaries])),
            }
        )
    return rows


def with_differences(rows: list[dict[str, Any]], margin: float) -> list[dict[str, Any]]:
    """Each row with `difference`: its scores less the first agent's, paired by seed.

    The other row is the first agent's that was asked for the same return, or its first when there
    is none (an agent that cannot be asked for a return has one row). `difference` is `None` in the
    first agent's own rows; else it has `to`, `to_target_return` and `margin` beside the fields of
    `Estimate` and of `Verdict`.
    """
    if not rows:
        return rows
    own = [row for row in rows if row["agent"] == rows[0]["agent"]]
    every = []
    for row in rows:
        same = [first for first in own if first["target_return"] == row["target_return"]]
        other = (same or own)[0]
        judged = None
        if row["agent"] != other["agent"]:
            difference = paired_difference(np.array(row["scores"]), np.array(other["scores"]))
            normalized = row["normalized"] and other["normalized"]
            verdict = judge(difference, margin, seeds=len(row["seeds"]), normalized=normalized)
            judged = {
                "to": other["agent"],
                "to_target_return": other["target_return"],
                "margin": margin,
                **dataclasses.asdict(difference),
                **dataclasses.asdict(verdict),
            }
        every.append({**row, "difference": judged})
    return every


def write_mean(folder: Path, summaries: list[dict[str, Any]]) -> None:
    """TensorBoard curves of the mean over seeds, with its 95% interval or range.

    The ends are `score_interval_low` and `score_interval_high`; with fewer than 5 seeds,
    `score_range_low` and `score_range_high`.
    """
    for old in folder.glob("events.*"):
        old.unlink()
    writer = SummaryWriter(str(folder))
    tags, bounds = [], "interval"
    for entries in zip(*(summary["history"] for summary in summaries), strict=True):
        tag = target_tag(entries[0]["target_return"])
        tags.append(tag)
        mean = mean_interval(np.array([entry["score_mean"] for entry in entries]))
        bounds = "range" if mean.bounds == "range" else "interval"
        names = ("score", f"score_{bounds}_low", f"score_{bounds}_high")
        for name, value in zip(names, (mean.value, mean.low, mean.high), strict=True):
            writer.add_scalar(f"{tag}/{name}", value, entries[0]["update"])
    writer.add_custom_scalars(mean_layout(list(dict.fromkeys(tags)), bounds))
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
