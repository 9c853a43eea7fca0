"""`aaren-rl export`: a trained agent's step as a file; and acting with an ONNX file."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from aaren_rl.acting import Policy
from aaren_rl.agents import Agent, Mode, load_agent
from aaren_rl.errors import UserError
from aaren_rl.evaluation.evaluating import environment_of_agent
from aaren_rl.evaluation.rollouts import PolicyMaker, rollout
from aaren_rl.evaluation.scores import normalized_scores
from aaren_rl.export.agreement import Agreement, measure_agreement
from aaren_rl.export.c_header import c_header, c_step
from aaren_rl.export.c_policy import CPolicy, measure_size, need_compiler
from aaren_rl.export.card import check_card, make_card, provenance_of
from aaren_rl.export.config import ExportConfig
from aaren_rl.export.formats import ProgramPolicy, onnx_graph, quantize_int8, torch_program
from aaren_rl.export.steps import Step, step_of
from aaren_rl.files import write_bytes, write_json
from aaren_rl.records import typed
from aaren_rl.runtime.card import Card, card_path, read_card


def export(config: ExportConfig) -> Card:
    """Export a run's agent, check the file, and write it and its card, each whole or not at all.

    Returns:
        The card.

    Raises:
        UserError: for a run or flag that does not fit, a missing package, or an exported step that
            does not act as PyTorch does; nothing is written then.
    """
    config = typed(config, "export()")
    config.check()
    if config.format == "onnx":
        need_packages("onnx", "onnxscript", "onnxruntime")
    if config.format == "c":
        need_compiler()
    agent = load_agent(config.run, checkpoint=config.checkpoint)
    agent = agent if config.task is None else agent.for_task(config.task)
    agent.check_task()
    environment = None
    if config.dynamic_int8 or config.environment or agent.spec.environment:
        environment = environment_of_agent(agent, config.environment)
    provenance = provenance_of(agent, config.run, config.checkpoint)
    step = c_step(agent) if config.format == "c" else step_of(agent)
    with TemporaryDirectory() as folder:
        trial = _Trial(config, agent, environment, Path(folder, config.out.name))
        content = step_content(step, config.format)
        card = make_card(agent, step, trial.file, content, config.format, provenance)
        write_export(trial.file, content, card)
        agreement = trial.agreement()
        if not agreement.agrees:
            raise UserError(
                f"the exported step's actions differ from PyTorch's by "
                f"{agreement.largest_difference:.3g} within {agreement.steps} steps, more than "
                f"{agreement.tolerance:g}; {config.out} is not written"
            )
        checks = {"agreement": dataclasses.asdict(agreement)}
        if config.dynamic_int8:
            before = trial.scores()
            content = in_8_bits(step, config.format, content)
            card = make_card(agent, step, trial.file, content, config.format, provenance)
            precision = "int8" if config.format == "c" else "dynamic-int8"
            card = dataclasses.replace(card, precision=precision)
            write_export(trial.file, content, card)
            checks["dynamic_int8"] = _loss(before, trial.scores(), trial.agreement())
        if config.format == "c":
            size = measure_size(trial.file, asks_return=agent.asks_return)
            checks["size"] = dataclasses.asdict(size)
    card = dataclasses.replace(card, checks=checks)
    write_export(config.out, content, card)
    return card


@dataclass(frozen=True)
class _Trial:
    """An exported step in a temporary file, to be checked."""

    config: ExportConfig
    agent: Agent
    environment: Any
    file: Path

    def policy(self, num_envs: int, target: float | None, *_: object) -> Policy:
        if self.config.format == "torch-export":
            return ProgramPolicy(self.file, num_envs, target)
        if self.config.format == "c":
            return CPolicy(self.file, self.agent, num_envs, target)
        from aaren_rl.runtime import OnnxPolicy

        return OnnxPolicy(self.file, num_envs, target)

    def agreement(self) -> Agreement:
        where, how = self.environment, {"steps": self.config.steps, "seed": self.config.seed}
        return measure_agreement(self.agent, self.policy, where, **how)

    def scores(self) -> np.ndarray:
        """Of whole episodes, normalised where the agent has reference scores: `[episodes]`."""
        how: dict[str, Any] = {"episodes": self.config.episodes, "seed": self.config.seed}
        played = rollout(self.agent, self.environment, make_policy=self.policy, **how)
        return normalized_scores(played.returns, self.agent.spec.reference_scores)


def need_packages(*names: str) -> None:
    """Raise `UserError` unless these packages of the extra `export` are installed."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            missing = error.name or name
            raise UserError(f"{missing} is not installed: pip install 'aaren-rl[export]'") from None


def write_export(file: Path, content: bytes, card: Card) -> None:
    """Write an exported step and its card."""
    write_bytes(file, content)
    write_json(card_path(file), card.to_json())


def write_step(agent: Agent, file: Path, format: str = "onnx") -> None:
    """Export an agent that is in memory, unchecked: to act with it at once.

    Raises:
        UserError: when it cannot be exported, or a package is missing.
    """
    if format == "onnx":
        need_packages("onnx", "onnxscript")
    step = step_of(agent)
    content = step_content(step, format)
    write_export(file, content, make_card(agent, step, file, content, format))


def step_content(step: Step, format: str) -> bytes:
    """The content of a file in this format, `torch-export`, `onnx` or `c` (of a `c_step`)."""
    if format == "c":
        agent: Any = step.module
        return c_header(agent)
    return torch_program(step) if format == "torch-export" else onnx_graph(step)


def in_8_bits(step: Step, format: str, content: bytes) -> bytes:
    """The same step with weights of 8 bits; `content` is its file of the format `onnx` or `c`."""
    if format == "c":
        agent: Any = step.module
        return c_header(agent, int8=True)
    return quantize_int8(content)


def _loss(before: np.ndarray, after: np.ndarray, agreement: Agreement) -> dict[str, Any]:
    """The loss by 8 bits, from the scores of the same episodes with and without them."""
    return {
        "score_float32": float(before.mean()),
        "score_float32_std": float(before.std()),
        "score_int8": float(after.mean()),
        "score_int8_std": float(after.std()),
        "score_loss": float(before.mean() - after.mean()),
        "episodes": len(before),
        "largest_action_difference": agreement.largest_difference,
    }


@contextmanager
def onnx_policies(agent: Agent, file: Path | None = None) -> Iterator[PolicyMaker]:
    """A maker of policies that act through ONNX Runtime.

    Args:
        agent: is exported to a temporary file if there is no `file`.
        file: what `aaren-rl export --format onnx` wrote.

    Raises:
        UserError: when packages are missing, the agent cannot be exported, the file is not one of
            such an agent, or another mode than `carry` is asked for.
    """
    need_packages("onnxruntime")
    from aaren_rl.runtime import OnnxPolicy  # of an optional extra

    with TemporaryDirectory() as folder:
        if file is None:
            exported = Path(folder, "step.onnx")
            write_step(agent, exported)
        else:
            exported = file
            check_card(agent, read_card(file), file)

        def make(num_envs: int, target: float | None, mode: Mode | None) -> Policy:
            if mode not in (None, "carry"):
                raise UserError(f"--runtime onnx carries the state: --mode carry, not {mode}")
            return OnnxPolicy(exported, num_envs, target)

        yield make
