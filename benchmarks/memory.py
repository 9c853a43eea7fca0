"""Who remembers: success against a corridor's length, bytes of state and time per step.

    python -m benchmarks.memory [--quick] [--json FILE] [--help]

A passive T-maze: the cue is seen at the first step, the junction at the end asks for it. All agents
are equal save in their mixer, are trained here with the preset `memory` on the same whole episodes
of 5 to 120 steps, and meet the same mazes. One Transformer acts in three ways. One thread.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from aaren_rl.agents import DecisionAgent, Mode, load_agent
from aaren_rl.envs.memory.experts import write_expert_dataset
from aaren_rl.training.presets import PRESETS
from benchmarks.memory_agents import TEST_SEED, train_to_remember
from benchmarks.memory_corridor import (
    cost_of_steps,
    maze,
    success_by_stepping,
    success_by_stretches,
)
from benchmarks.memory_picture import draw
from benchmarks.timing import describe_machine, save

TRAINED_ON = (5, 120)  # steps of an episode
LENGTHS = (20, 100, 1_000, 10_000, 100_000)
QUICK_MAZES, QUICK_UPDATES = 32, 1_600


@dataclass(frozen=True)
class Contender:
    """An agent and how it acts."""

    name: str
    agent: str
    mode: Mode = "carry"
    window: int | None = None
    """Steps that it sees when it acts in mode `window`."""
    longest: int = LENGTHS[-1]
    """Steps up to which it is measured: what its time or its memory allows."""
    stepped: int = 10_000
    """Steps up to which it is stepped one by one, for its time and its bytes."""
    quick: int = 0
    """As `longest`, with `--quick`; 0 leaves it out."""


CONTENDERS = (
    Contender("Aaren, carry", "decision-aaren", stepped=LENGTHS[-1], quick=10_000),
    Contender(
        "Transformer, window 20", "decision-transformer", "window", 20, longest=10_000, quick=1_000
    ),
    Contender("Transformer, window 100", "decision-transformer", "window", 100, longest=1_000),
    Contender("Transformer, full cache", "decision-transformer", longest=10_000),
    Contender("LSTM, carry", "decision-lstm"),
    Contender("minGRU, carry", "decision-min-gru"),
)


@dataclass(frozen=True)
class MemoryConfig:
    """Train agents of equal size on short corridors and send them through long ones."""

    quick: bool = False
    """Aaren and the Transformer's window of 20 only, fewer mazes and updates, shorter corridors."""
    agents: tuple[str, ...] = ()
    """Agents to train and measure; all by default."""
    longest: int = LENGTHS[-1]
    """Steps of the longest corridor."""
    noise: float = 0.5
    """Standard deviation of the noise in the cue's own channels, all along the corridor."""
    mazes: int = 64
    """Mazes for each length."""
    episodes: int = 2_000
    """Episodes to learn from."""
    updates: int = PRESETS["memory"]["updates"]
    """Gradient updates for each agent, of 1,000 steps each."""
    seed: int = 0
    """Seed of the training."""
    json: Path | None = None
    """File for the results; the picture goes beside it. By default benchmarks/results/memory.json,
    with `--quick` memory-quick.json."""

    def reduced(self) -> MemoryConfig:
        """What `--quick` makes of it."""
        if not self.quick:
            return self
        mazes, updates = min(self.mazes, QUICK_MAZES), min(self.updates, QUICK_UPDATES)
        return dataclasses.replace(self, mazes=mazes, updates=updates)


def load_contender(who: Contender, folder: Path) -> DecisionAgent:
    """The trained agent, with the window that it is to act on."""
    agent = load_agent(folder)
    assert isinstance(agent, DecisionAgent)
    if who.window is not None:
        agent.config = dataclasses.replace(agent.config, context_length=who.window)
    return agent


def measure(config: MemoryConfig, who: Contender, agent: DecisionAgent) -> list[dict[str, Any]]:
    """A row for each length that this contender can do."""
    longest = min(who.quick if config.quick else who.longest, config.longest)
    lengths = [length for length in LENGTHS if length <= longest]
    stepped = [length for length in lengths if length <= who.stepped]
    costs = cost_of_steps(agent, who.mode, stepped, config.noise)
    rows = []
    for length in lengths:
        start = time.perf_counter()
        if who.mode == "carry":
            share = success_by_stretches(agent, length, config.mazes, config.noise, TEST_SEED)
        else:
            share = success_by_stepping(
                agent, who.mode, length, config.mazes, config.noise, TEST_SEED
            )
        seconds = time.perf_counter() - start
        row = {"length": length, "success": share, "mazes": config.mazes, "seconds": seconds}
        rows.append({**row, **costs.get(length, {})})
    return rows


def run(config: MemoryConfig, console: Console) -> dict[str, Any]:
    """Train and measure every contender."""
    results: dict[str, Any] = {"settings": dataclasses.asdict(config) | {"json": None}}
    results["contenders"] = {}
    trained: dict[str, dict[str, Any]] = {}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = write_expert_dataset(
            "memory/passive-tmaze-v0",
            maze(TRAINED_ON, config.noise),
            config.episodes,
            root=folder / "datasets",
        )
        for who in CONTENDERS:
            if (config.quick and not who.quick) or (
                config.agents and who.agent not in config.agents
            ):
                continue
            if who.agent not in trained:
                trained[who.agent] = train_to_remember(
                    who.agent, data, folder / who.agent, updates=config.updates, seed=config.seed
                )
                seconds = trained[who.agent]["train_seconds"]
                console.print(f"{who.agent}: trained in {seconds:.0f} s")
            agent = load_contender(who, folder / who.agent / "last")
            results["contenders"][who.name] = {
                "parameters": agent.num_parameters,
                "train_seconds": trained[who.agent]["train_seconds"],
                "rows": measure(config, who, agent),
            }
    return results


def report(results: dict[str, Any], console: Console) -> None:
    """Print the table; bytes and microseconds at the shortest and the longest that was stepped."""
    table = Table(title="share of cues recalled, by the corridor's length", title_justify="left")
    found = results["contenders"]
    lengths = sorted({row["length"] for each in found.values() for row in each["rows"]})
    table.add_column("who")
    for name in (*(f"{length:,}" for length in lengths), "parameters", "training, s"):
        table.add_column(name, justify="right")
    for name in ("bytes first", "last", "us a step first", "last"):
        table.add_column(name, justify="right")
    for name, each in found.items():
        rows = {row["length"]: row for row in each["rows"]}
        shares = (f"{rows[n]['success']:.2f}" if n in rows else "-" for n in lengths)
        stepped = [row for row in each["rows"] if "microseconds" in row]
        first, last = stepped[0], stepped[-1]
        table.add_row(
            name,
            *shares,
            f"{each['parameters']:,}",
            f"{each['train_seconds']:.0f}",
            *(f"{row['state_bytes']:,}" for row in (first, last)),
            *(f"{row['microseconds']:,.0f}" for row in (first, last)),
        )
    console.print(table)


def main(config: MemoryConfig) -> None:
    """Run the benchmark."""
    torch.set_num_threads(1)
    console = Console(width=160)
    console.print(describe_machine())
    config = config.reduced()
    start = time.perf_counter()
    results = run(config, console)
    results["wall_seconds"] = time.perf_counter() - start
    report(results, console)
    path = save("memory-quick" if config.quick else "memory", results, config.json)
    draw(results["contenders"], path.with_suffix(".png"))
    console.print(f"{results['wall_seconds']:.0f} s; written to {path}")


if __name__ == "__main__":
    main(tyro.cli(MemoryConfig))
