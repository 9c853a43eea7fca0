"""The settings of `aaren-rl evaluate`. The command line is made from them, without PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from aaren_rl.agents.config import Mode
from aaren_rl.errors import UserError
from aaren_rl.files import check_file
from aaren_rl.records import check_counts
from aaren_rl.registry import load_plugins


@dataclass(frozen=True)
class EvaluateConfig:
    """Act with a trained agent in its Gymnasium environment and print the scores.

    Example: aaren-rl evaluate runs/first --mode carry window --episodes 20 --json scores.json
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a training run (or of a checkpoint)."""
    checkpoint: Literal["last", "best"] = "last"
    """Which of the run's checkpoints; `best` was chosen by its score in training and flatters."""
    mode: tuple[Mode, ...] = ()
    """How to act: carry the state, reset it every context length, recompute the window, or (for the
    Transformer) slide a cache of the last context; several give a row each. By default carry for
    Aaren, window for the Transformer."""
    task: tuple[str, ...] = ()
    """Of an agent that has learned from several datasets: the names of those whose tasks to act in;
    by default all, each in its own environment."""
    episodes: int = 10
    """Episodes for each row."""
    target_return: tuple[float, ...] = ()
    """Returns to ask for, a row each; by default those that the agent was trained to be asked."""
    environment: str | None = None
    """Gymnasium id of the environment, also as MODULE:ID; by default the agent's own. Options go
    behind it: 'aaren/PassiveTMaze-v0?length=1000&noise=0.5'."""
    stochastic: bool = False
    """Draw the actions from the distribution that the agent predicts, seeded with `seed`; by
    default nothing is drawn (docs/acting.md). For agents with such a head (`train --head`)."""
    temperature: float = 1.0
    """Of the draws with `--stochastic`: 1 for the distribution as it was learned, less for actions
    closer to the distribution's middle."""
    seed: int = 20_000
    """Seed of the first episode; the next ones count up. Every run that is evaluated with the same
    seed has the same episodes, none of which was used in training."""
    num_envs: int = 16
    """Environments that step together."""
    asynchronous: bool = False
    """Each environment in a process of its own (worth it when they are slow)."""
    plugin: tuple[str, ...] = ()
    """Module that registers own agents, mixers, encoders, sources or loggers; it is imported first.
    Give the flag again for several."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device for inference."""
    runtime: Literal["torch", "onnx"] = "torch"
    """What the agent acts through: PyTorch, or its exported step in ONNX Runtime."""
    exported: Path | None = None
    """The exported file for `--runtime onnx`; by default the run is exported for the occasion."""
    json: Path | None = None
    """File to write the rows to, with every episode's return and length."""
    video: Path | None = None
    """Folder to record one episode to, as MP4 (needs the extra `video` and a working OpenGL)."""

    def check(self) -> None:
        """Load the plug-ins; raise `UserError` for a value that cannot work, naming its flag."""
        load_plugins(self.plugin)
        check_counts(self, "episodes", "num_envs")
        if self.seed < 0:
            raise UserError(f"--seed must not be negative, got {self.seed}")
        if not all(math.isfinite(target) for target in self.target_return):
            raise UserError(f"--target-return must be finite, got {self.target_return}")
        if self.device == "cuda":
            import torch  # late: `--help` does without

            if not torch.cuda.is_available():
                raise UserError("--device cuda: torch finds no GPU here")
        if self.runtime == "onnx" and self.device != "cpu":
            raise UserError(f"--runtime onnx acts on the CPU: --device cpu, not {self.device}")
        if self.runtime == "onnx" and self.stochastic:
            raise UserError("--stochastic: an exported step draws nothing")
        if self.temperature != 1 and not self.stochastic:
            raise UserError(f"--temperature {self.temperature:g} needs --stochastic")
        if self.exported is not None and self.runtime != "onnx":
            raise UserError(f"--exported {self.exported} needs --runtime onnx")
        if self.json is not None:
            check_file(self.json, "--json")
