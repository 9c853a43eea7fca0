"""From a training run to one file that acts: `aaren-rl export`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from aaren_rl.acting import Policy
from aaren_rl.agents import Agent, load_agent
from aaren_rl.errors import UserError
from aaren_rl.evaluation.evaluating import checkpoint_folder, environment_of_agent
from aaren_rl.evaluation.rollouts import rollout
from aaren_rl.evaluation.scores import normalized_scores
from aaren_rl.export.agreement import Agreement, measure_agreement
from aaren_rl.export.card import make_card, provenance_of
from aaren_rl.export.interface import Exportable, check_exportable
from aaren_rl.export.program import program_policy, torch_program
from aaren_rl.files import probe_folder, write_bytes, write_json
from aaren_rl.runtime.card import Card, card_path


@dataclass(frozen=True)
class ExportConfig:
    """Write a trained agent's acting step to one file, with a JSON card beside it.

    The file takes raw observations and rewards and gives raw actions. It is checked against PyTorch
    in the agent's environment before it is written.

    Example: aaren-rl export runs/first --format onnx --out policy.onnx
    """

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a training run (or of a checkpoint)."""
    out: Path
    """File to write; its card is written to the same name with `.json` after it."""
    format: Literal["onnx", "torch-export"] = "onnx"
    """`onnx` for ONNX Runtime (see aaren_rl.runtime), `torch-export` for a torch.export program."""
    checkpoint: Literal["last", "best"] = "last"
    """Which of the run's checkpoints."""
    dynamic_int8: bool = False
    """Store the linear layers in 8 bits, and measure what that costs in score (ONNX only)."""
    environment: str | None = None
    """Gymnasium id of the environment to check in; by default the agent's own."""
    steps: int = 1000
    """Steps over which the exported actions are compared with PyTorch's, in four environments."""
    episodes: int = 10
    """Episodes for the score of 8-bit weights, and as many for full precision."""
    seed: int = 30_000
    """Seed of the first episode."""

    def check(self) -> None:
        """Raise `UserError` for a value that cannot work, naming its flag."""
        if self.steps < 1:
            raise UserError(f"--steps must be at least 1, got {self.steps}")
        if self.episodes < 1:
            raise UserError(f"--episodes must be at least 1, got {self.episodes}")
        if self.seed < 0:
            raise UserError(f"--seed must not be negative, got {self.seed}")
        if self.dynamic_int8 and self.format != "onnx":
            raise UserError(f"--dynamic-int8 needs --format onnx, got {self.format}")
        if not self.out.parent.is_dir():
            raise UserError(f"--out {self.out}: no folder {self.out.parent}")
        if self.out.is_dir():
            raise UserError(f"--out {self.out}: a folder; the name of a file expected")
        try:
            probe_folder(self.out.parent)
        except OSError as error:
            raise UserError(f"--out {self.out}: cannot be written ({error.strerror})") from None


def export(config: ExportConfig) -> Card:
    """Export a run's agent, check the file, and write it and its card, each whole or not at all.

    Returns:
        The card.

    Raises:
        UserError: for a run or flag that does not fit, a missing package, or an exported step that
            does not act as PyTorch does; nothing is written then.
    """
    config.check()
    if config.format == "onnx":
        need_onnx()
    agent = check_exportable(load_agent(checkpoint_folder(config.run, config.checkpoint)))
    with TemporaryDirectory() as folder:
        trial = _Trial(config, agent, Path(folder, config.out.name))
        content = exported_step(agent, config.format)
        card = trial.write(content, "float32")
        agreement = trial.agreement()
        if not agreement.agrees:
            raise UserError(
                f"the exported step's actions differ from PyTorch's by "
                f"{agreement.largest_difference:.3g} within {agreement.steps} steps, more than "
                f"{agreement.tolerance:g}; {config.out} is not written"
            )
        checks = {"agreement": dataclasses.asdict(agreement)}
        if config.dynamic_int8:
            from aaren_rl.export.quantize import quantize_int8

            before = trial.score()
            content = quantize_int8(content)
            card = trial.write(content, "dynamic-int8")
            checks["dynamic_int8"] = _loss(before, trial.score(), trial.agreement(), config)
    card = dataclasses.replace(card, checks=checks)
    write_export(config.out, content, card)
    return card


class _Trial:
    """An exported step in a temporary file, and what it is worth there."""

    def __init__(self, config: ExportConfig, agent: Exportable, file: Path) -> None:
        self.config, self.agent, self.file = config, agent, file
        self.environment = environment_of_agent(agent, config.environment)
        self.provenance = provenance_of(agent, config.run, config.checkpoint)

    def write(self, content: bytes, precision: str) -> Card:
        card = make_card(
            self.agent,
            self.file,
            content,
            kind=self.config.format,
            precision=precision,
            provenance=self.provenance,
        )
        write_export(self.file, content, card)
        return card

    def policy(self, num_envs: int, target: float | None) -> Policy:
        if self.config.format == "torch-export":
            return program_policy(self.agent, self.file, num_envs, target)
        from aaren_rl.runtime import OnnxPolicy

        return OnnxPolicy(self.file, num_envs, target)

    def agreement(self) -> Agreement:
        config = self.config
        return measure_agreement(
            self.agent, self.policy, self.environment, steps=config.steps, seed=config.seed
        )

    def score(self) -> np.ndarray:
        """Of whole episodes, normalised where the agent has reference scores: `[episodes]`."""
        played = rollout(
            self.agent,
            self.environment,
            episodes=self.config.episodes,
            seed=self.config.seed,
            make_policy=lambda num_envs, target, _: self.policy(num_envs, target),
        )
        return normalized_scores(played.returns, self.agent.spec.reference_scores)


def need_onnx() -> None:
    """Raise `UserError` unless onnx and onnxruntime are installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'aaren-rl[export]'") from None


def write_export(file: Path, content: bytes, card: Card) -> None:
    """Write an exported step and its card."""
    write_bytes(file, content)
    write_json(card_path(file), card.to_json())


def write_onnx(agent: Agent, file: Path) -> None:
    """Export an agent that is in memory, unchecked: to act with it at once.

    Raises:
        UserError: when it cannot be exported.
    """
    exportable = check_exportable(agent)
    content = exported_step(exportable, "onnx")
    card = make_card(exportable, file, content, kind="onnx", precision="float32", provenance={})
    write_export(file, content, card)


def exported_step(agent: Exportable, format: str) -> bytes:
    """The content of a file in this format."""
    if format == "torch-export":
        return torch_program(agent)
    from aaren_rl.export.onnx_step import onnx_step

    content: bytes = onnx_step(agent).SerializeToString()
    return content


def _loss(
    before: np.ndarray, after: np.ndarray, agreement: Agreement, config: ExportConfig
) -> dict[str, Any]:
    """What 8 bits cost, from the scores of the same episodes with and without them."""
    return {
        "score_float32": float(before.mean()),
        "score_float32_std": float(before.std()),
        "score_int8": float(after.mean()),
        "score_int8_std": float(after.std()),
        "score_loss": float(before.mean() - after.mean()),
        "episodes": config.episodes,
        "largest_action_difference": agreement.largest_difference,
    }
