"""Evaluate a trained run: any mode, any target returns, any number of episodes."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from gymnasium.envs.registration import EnvSpec

from aaren_rl.agents import Agent, Mode, load_agent
from aaren_rl.errors import UserError
from aaren_rl.evaluation.exported import onnx_policies
from aaren_rl.evaluation.rollout import PolicyMaker, rollout
from aaren_rl.evaluation.scores import score
from aaren_rl.evaluation.video import record_video
from aaren_rl.files import probe_folder, recover_folder, write_json


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
    episodes: int = 10
    """Episodes for each row."""
    target_return: tuple[float, ...] = ()
    """Returns to ask for, a row each; by default those that the agent was trained to be asked."""
    environment: str | None = None
    """Gymnasium id of the environment; by default the agent's own. Options go behind it:
    'aaren/PassiveTMaze-v0?length=1000&noise=0.5'."""
    seed: int = 20_000
    """Seed of the first episode; the next ones count up. Every run that is evaluated with the same
    seed meets the same episodes, none of which it met in training."""
    num_envs: int = 16
    """Environments that step together."""
    asynchronous: bool = False
    """Each environment in a process of its own (worth it when they are slow)."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the agent thinks."""
    runtime: Literal["torch", "onnx"] = "torch"
    """What the agent acts through: PyTorch, or its exported step in ONNX Runtime."""
    exported: Path | None = None
    """The exported file for `--runtime onnx`; by default the run is exported for the occasion."""
    json: Path | None = None
    """File to write the rows to, with every episode's return and length."""
    video: Path | None = None
    """Folder to record one episode to, as MP4 (needs the extra `video` and a working OpenGL)."""

    def check(self) -> None:
        """Raise `UserError` for a value that cannot work, naming its flag."""
        if self.episodes < 1:
            raise UserError(f"--episodes must be at least 1, got {self.episodes}")
        if self.num_envs < 1:
            raise UserError(f"--num-envs must be at least 1, got {self.num_envs}")
        if self.seed < 0:
            raise UserError(f"--seed must not be negative, got {self.seed}")
        if not all(math.isfinite(target) for target in self.target_return):
            raise UserError(f"--target-return must be finite, got {self.target_return}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: torch finds no GPU here")
        if self.runtime == "onnx" and self.device != "cpu":
            raise UserError(f"--runtime onnx acts on the CPU: --device cpu, not {self.device}")
        if self.exported is not None and self.runtime != "onnx":
            raise UserError(f"--exported {self.exported} needs --runtime onnx")
        if self.json is not None:
            check_file(self.json)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a run; writes JSON and video where asked.

    Returns:
        The run's name and its rows, as the JSON file holds them.

    Raises:
        UserError: for a folder without an agent, an environment that does not fit it, or target
            returns for an agent that cannot be asked for one.
    """
    config.check()
    agent = load_agent(checkpoint_folder(config.run, config.checkpoint), config.device)
    for mode in config.mode or (None,):
        agent.check_request(mode, config.target_return, agent.config.condition)
    environment = environment_of_agent(agent, config.environment)
    film = None
    if config.video is not None:  # first: what cannot be drawn is said before an hour's evaluation
        target = config.target_return[0] if config.target_return else None
        mode = config.mode[0] if config.mode else None
        film = record_video(agent, environment, config.video, target, mode, config.seed)
    onnx = config.runtime == "onnx"
    with onnx_policies(agent, config.exported) if onnx else nullcontext(agent.policy) as policies:
        rows = evaluate_agent(
            agent,
            environment,
            modes=config.mode,
            targets=config.target_return,
            episodes=config.episodes,
            seed=config.seed,
            num_envs=config.num_envs,
            asynchronous=config.asynchronous,
            make_policy=policies,
        )
    result = {
        "run": str(config.run),
        "checkpoint": config.checkpoint,
        "runtime": config.runtime,
        "rows": rows,
    }
    if config.json is not None:
        write_json(config.json, result)
    if film is not None:
        result["video"] = str(film)
    return result


def check_file(file: Path) -> None:
    """Raise `UserError` when the file of `--json` cannot be written."""
    if not file.parent.is_dir():
        raise UserError(f"--json {file}: no folder {file.parent}")
    if file.is_dir():
        raise UserError(f"--json {file}: a folder; the name of a file expected")
    try:
        probe_folder(file.parent)
    except OSError as error:
        raise UserError(f"--json {file}: cannot be written ({error.strerror})") from None


def checkpoint_folder(run: Path, checkpoint: str) -> Path:
    """The folder of a run's checkpoint; `run` may be such a folder itself.

    Raises:
        UserError: when there is none.
    """
    if (run / "agent.json").is_file():
        return run
    folder = recover_folder(run / checkpoint)
    if not folder.is_dir():
        raise UserError(f"{run}: not a training run: it has no {checkpoint}/ checkpoint")
    return folder


def environment_of_agent(agent: Agent, override: str | None = None) -> EnvSpec | str:
    """Where an agent acts: what the user says, else what was saved with it.

    Raises:
        UserError: when nobody knows.
    """
    if override:
        return override
    name = agent.spec.environment
    if name is None:
        raise UserError("--environment is needed: the agent was saved without one")
    return EnvSpec.from_json(name) if name.lstrip().startswith("{") else name


def evaluate_agent(
    agent: Agent,
    environment: EnvSpec | str,
    *,
    modes: tuple[Mode, ...] = (),
    targets: tuple[float, ...] = (),
    episodes: int = 10,
    seed: int = 0,
    num_envs: int = 16,
    asynchronous: bool = False,
    make_policy: PolicyMaker | None = None,
) -> list[dict[str, Any]]:
    """A row for each mode and target return; see `EvaluateConfig` and `rollout`.

    Raises:
        UserError: as `rollout`, and for modes or targets that mean nothing to this agent.
    """
    asked: list[float | None] = list(targets or agent.spec.target_returns)
    if not agent.asks_return:
        agent.check_request(target_return=targets, condition=agent.config.condition)
        asked = [None]
    rows = []
    for mode in modes or (None,):
        for target in asked:
            played = rollout(
                agent,
                environment,
                episodes=episodes,
                target_return=target,
                mode=mode,
                seed=seed,
                num_envs=num_envs,
                asynchronous=asynchronous,
                make_policy=make_policy,
            )
            result = score(agent, played, target).to_json()
            rows.append({"agent": agent.name, "mode": mode or agent.default_mode, **result})
    return rows
