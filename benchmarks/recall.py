"""How many facts a fixed query holds side by side: share right against the number of pairs.

    python -m benchmarks.recall [--pairs 1 2 4 8 16] [--json FILE] [--help]

Key-value pairs are shown at random moments, and each key's value is asked for at the end. Aaren and
the Transformer, which sees all, are trained with the preset `memory` on the same episodes of up to
120 steps, and asked after 120 and after 1,000. One thread.
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

from aaren_rl.agents import load_agent
from aaren_rl.envs.memory.experts import write_expert_dataset
from aaren_rl.envs.memory.recall import RECALL
from aaren_rl.training.presets import PRESETS
from benchmarks.memory_agents import share_right, train_to_remember
from benchmarks.timing import describe_machine, save

SHORTEST, LONGEST = 8, 120  # steps of an episode to learn from
LENGTHS = (120, 1_000)
CHANCE = 0.5  # two values
AGENTS: tuple[str, ...] = ("decision-aaren", "decision-transformer")


@dataclass(frozen=True)
class RecallConfig:
    """Train both agents for each number of pairs and ask them."""

    pairs: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Numbers of pairs."""
    agents: tuple[str, ...] = AGENTS
    """Which agents."""
    heads: int = PRESETS["memory"]["model"].heads
    """Heads of a layer."""
    width: int = PRESETS["memory"]["model"].width
    """Width of a token."""
    updates: int = PRESETS["memory"]["updates"]
    """Gradient updates for each agent, of 1,000 steps each."""
    data: int = 20_000
    """Episodes to learn from."""
    episodes: int = 64
    """Episodes to ask in, for each length."""
    seed: int = 0
    """Seed of the training."""
    json: Path | None = None
    """Results; the picture goes beside it. By default benchmarks/results/recall.json."""


def task(pairs: int, length: int | tuple[int, int]) -> str:
    """The environment's name, options included."""
    if isinstance(length, int):
        return f"{RECALL}?pairs={pairs}&length={length}"
    return f"{RECALL}?pairs={pairs}&length=[{length[0]},{length[1]}]&log_uniform=True"


def measure(config: RecallConfig, name: str, pairs: int, data: Path, out: Path) -> dict[str, Any]:
    """Train one agent on one number of pairs, and ask it."""
    model = dataclasses.replace(PRESETS["memory"]["model"], heads=config.heads, width=config.width)
    summary = train_to_remember(
        name, data, out, updates=config.updates, seed=config.seed, model=model
    )
    agent = load_agent(out / "last")
    row: dict[str, Any] = {"agent": name, "pairs": pairs, "parameters": agent.num_parameters}
    row["train_seconds"] = summary["train_seconds"]
    for length in LENGTHS:
        row[str(length)] = share_right(agent, task(pairs, length), "carry", config.episodes)
    return row


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Share right over the number of pairs, a line for each agent and length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    panel = figure.subplots()
    agents = list(dict.fromkeys(row["agent"] for row in rows))
    for agent, colour in zip(agents, ("tab:blue", "tab:orange"), strict=False):
        for length, line in zip(LENGTHS, ("o-", "s--"), strict=True):
            mine = [(row["pairs"], row[str(length)]) for row in rows if row["agent"] == agent]
            label = f"{agent}, {length:,} steps"
            panel.plot(*zip(*mine, strict=True), line, color=colour, label=label, markersize=5)
    panel.axhline(CHANCE, color="tab:gray", linestyle=":", linewidth=1, label="chance")
    counts = sorted({row["pairs"] for row in rows})
    panel.set_xscale("log", base=2)
    panel.set_xticks(counts, [str(count) for count in counts])
    panel.set_ylim(0.4, 1.03)
    panel.set_xlabel("pairs to remember")
    panel.set_ylabel("share of answers right")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def report(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table."""
    table = Table(title="share of answers right", title_justify="left")
    for column in ("agent", "pairs", *(f"{length:,} steps" for length in LENGTHS), "training, s"):
        table.add_column(column, justify="left" if column == "agent" else "right")
    for row in rows:
        shares = (f"{row[str(length)]:.3f}" for length in LENGTHS)
        table.add_row(row["agent"], str(row["pairs"]), *shares, f"{row['train_seconds']:.0f}")
    console.print(table)


def main(config: RecallConfig) -> None:
    """Run the benchmark."""
    torch.set_num_threads(1)
    console = Console(width=120)
    console.print(describe_machine())
    start = time.perf_counter()
    rows = []
    with TemporaryDirectory() as temporary:
        for pairs in config.pairs:
            folder = Path(temporary) / str(pairs)
            lengths = (max(SHORTEST, 2 * pairs), LONGEST)
            root, name = folder / "datasets", "memory/recall-v0"
            data = write_expert_dataset(name, task(pairs, lengths), config.data, root=root)
            for agent in config.agents:
                rows.append(measure(config, agent, pairs, data, folder / agent))
                console.print(rows[-1])
    report(rows, console)
    settings = dataclasses.asdict(config) | {"json": None}
    seconds = time.perf_counter() - start
    results = {"settings": settings, "rows": rows, "wall_seconds": seconds}
    path = save("recall", results, config.json)
    draw(rows, path.with_suffix(".png"))
    console.print(f"{seconds:.0f} s; written to {path}")


if __name__ == "__main__":
    main(tyro.cli(RecallConfig))
