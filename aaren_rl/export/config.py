"""The settings of `aaren-rl export`, for the command line: no import of PyTorch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from aaren_rl.errors import UserError
from aaren_rl.files import check_file
from aaren_rl.records import check_counts
from aaren_rl.registry import load_plugins


@dataclass(frozen=True)
class ExportConfig:
    """Write a trained agent's acting step to one file, with a JSON card beside it.

    It takes raw observations and rewards and gives raw actions. It is checked against PyTorch
    before it is written: in the agent's environment, or, for an agent that was saved without one,
    on observations drawn from the data's statistics.

    Example: aaren-rl export runs/first --format onnx --out policy.onnx
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a training run (or of a checkpoint)."""
    out: Path
    """File to write; its card is written to the same name with `.json` after it."""
    format: Literal["onnx", "torch-export", "c"] = "onnx"
    """`onnx` for ONNX Runtime (see aaren_rl.runtime), `torch-export` for a torch.export program,
    `c` for a C99 header with the weights, for microcontrollers (checked by a C compiler)."""
    checkpoint: Literal["last", "best"] = "last"
    """Which of the run's checkpoints."""
    dynamic_int8: Annotated[bool, tyro.conf.arg(aliases=("--int8",))] = False
    """Store the blocks' linear layers in 8 bits, and measure what that costs in score (needs an
    environment). In ONNX their inputs are quantised too, as they come; in C they stay float32."""
    environment: str | None = None
    """Gymnasium id of the environment to check in; by default the agent's own."""
    plugin: tuple[str, ...] = ()
    """Module that registers own agents, mixers, encoders, sources or loggers; it is imported first.
    Give the flag again for several."""
    task: str | None = None
    """Of an agent that has learned from several datasets: the one whose task the file acts in."""
    steps: int = 1000
    """Steps over which the exported actions are compared with PyTorch's, in four environments."""
    episodes: int = 10
    """Episodes for the score of 8-bit weights, and as many for full precision."""
    seed: int = 30_000
    """Seed of the first episode."""

    def check(self) -> None:
        """Load the plug-ins; raise `UserError` for a value that cannot work, naming its flag."""
        load_plugins(self.plugin)
        check_counts(self, "steps", "episodes")
        if self.seed < 0:
            raise UserError(f"--seed must not be negative, got {self.seed}")
        if self.dynamic_int8 and self.format == "torch-export":
            raise UserError(f"--dynamic-int8 needs --format onnx or c, got {self.format}")
        check_file(self.out, "--out")
