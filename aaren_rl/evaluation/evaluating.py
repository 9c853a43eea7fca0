"""Evaluate a trained run: any mode, any target returns, any number of episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from aaren_rl.agents import Agent, Mode, load_agent
from aaren_rl.envs.make import EnvLike
from aaren_rl.errors import UserError
from aaren_rl.evaluation.rollouts import PolicyMaker, rollout
from aaren_rl.evaluation.scores import Row, score, warn_of_far_targets
from aaren_rl.evaluation.video import record_video
from aaren_rl.files import probe_folder, recover_folder, write_json

Runtime = Callable[[Agent, Path | None], AbstractContextManager[PolicyMaker]]
"""Gives, for an agent and its exported file (or None), what makes policies in the agent's place."""


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
    """Gymnasium id of the environment, also as MODULE:ID; by default the agent's own. Options go
    behind it: 'aaren/PassiveTMaze-v0?length=1000&noise=0.5'."""
    seed: int = 20_000
    """Seed of the first episode; the next ones count up. Every run that is evaluated with the same
    seed meets the same episodes, none of which it met in training."""
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


@dataclass(frozen=True)
class Evaluation:
    """What an agent did in its environment.

    Attributes:
        rows: a row for each mode and target return.
        about: the run, checkpoint and runtime, where they are known.
        video: the recorded episode.
    """

    rows: list[Row]
    about: dict[str, str] = field(default_factory=dict)
    video: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, with every episode's return and length."""
        return {**self.about, "rows": [row.to_json() for row in self.rows]}


def evaluate(
    run: EvaluateConfig | Agent | Path | str | Any,
    env: EnvLike | None = None,
    *,
    episodes: int = 10,
    mode: Mode | Sequence[Mode] | None = None,
    target_return: float | Sequence[float] | None = None,
    seed: int = 20_000,
    num_envs: int = 16,
    asynchronous: bool = False,
    policies: Runtime | None = None,
) -> Evaluation:
    """Act with a trained agent and score its episodes.

    >>> run = arl.train("aaren-rl/hopper-small-v0", env="none", updates=2)
    >>> result = arl.evaluate(run.agent, "Hopper-v5", episodes=2, target_return=[1800, 3600])
    >>> [(row.target_return, row.episodes) for row in result.rows]
    [(1800.0, 2), (3600.0, 2)]

    Args:
        run: an agent, a finished run with an attribute `agent`, the folder of a run or checkpoint,
            or all that the command line says (the other arguments but `policies` are then
            not looked at).
        env: where to act; the agent's own environment when `None`. See
            `aaren_rl.envs.make_vector_env`.
        episodes: for each row.
        mode: how to act, see `Agent.policy`; several give a row each.
        target_return: returns to ask for, a row each; by default the agent's own.
        seed: of the first episode; the next ones count up.
        num_envs: environments that step together.
        asynchronous: each environment in a process of its own.
        policies: with a config that says `--runtime onnx`, what acts in the agent's place.

    Raises:
        UserError: for a folder without an agent, an environment that does not fit it or fails, or
            a mode or target return that means nothing to the agent.
    """
    if isinstance(run, EvaluateConfig):
        return _evaluate_config(run, policies)
    about: dict[str, str] = {}
    given: Any = run
    agent: Agent = getattr(given, "agent", given)
    if isinstance(run, (str, Path)):
        agent, about = load_agent(checkpoint_folder(Path(run), "last")), {"run": str(run)}
    _at_least_one(episodes=episodes, num_envs=num_envs)
    rows = score_rows(
        agent,
        environment_of_agent(agent) if env is None else env,
        modes=(mode,) if mode is None or isinstance(mode, str) else mode,
        targets=_several(target_return),
        episodes=episodes,
        seed=seed,
        num_envs=num_envs,
        asynchronous=asynchronous,
    )
    return Evaluation(rows, about)


def _evaluate_config(config: EvaluateConfig, policies: Runtime | None) -> Evaluation:
    """As the command line says; writes JSON and video where asked."""
    config.check()
    agent = load_agent(checkpoint_folder(config.run, config.checkpoint), config.device)
    for mode in config.mode or (None,):
        agent.check_request(mode, config.target_return, agent.config.condition)
    env = environment_of_agent(agent, config.environment)
    film = None
    if config.video is not None:  # first: what cannot be drawn is said before an hour's evaluation
        target = config.target_return[0] if config.target_return else None
        mode = config.mode[0] if config.mode else None
        film = record_video(agent, env, config.video, target, mode, config.seed)
    acting: AbstractContextManager[PolicyMaker] = nullcontext(agent.policy)
    if config.runtime != "torch":
        if policies is None:
            raise UserError(f"--runtime {config.runtime}: nothing was given that acts with it")
        acting = policies(agent, config.exported)
    with acting as make_policy:
        rows = score_rows(
            agent,
            env,
            modes=config.mode or (None,),
            targets=config.target_return,
            episodes=config.episodes,
            seed=config.seed,
            num_envs=config.num_envs,
            asynchronous=config.asynchronous,
            make_policy=make_policy,
        )
    about = {"run": str(config.run), "checkpoint": config.checkpoint, "runtime": config.runtime}
    result = Evaluation(rows, about, film)
    if config.json is not None:
        write_json(config.json, result.to_json())
    return result


def score_rows(
    agent: Agent,
    env: EnvLike,
    *,
    modes: Sequence[Mode | None] = (None,),
    targets: Sequence[float] = (),
    episodes: int = 10,
    seed: int = 0,
    num_envs: int = 16,
    asynchronous: bool = False,
    make_policy: PolicyMaker | None = None,
) -> list[Row]:
    """A row for each mode and target return; see `evaluate` and `rollout`."""
    asked: list[float | None] = list(dict.fromkeys(targets or agent.spec.target_returns))
    if not agent.asks_return:
        agent.check_request(target_return=targets, condition=agent.config.condition)
        asked = [None]
    warn_of_far_targets(asked, agent.spec.largest_return)
    rows = []
    for mode in modes:
        for target in asked or [None]:
            played = rollout(
                agent,
                env,
                episodes=episodes,
                target_return=target,
                mode=mode,
                seed=seed,
                num_envs=num_envs,
                asynchronous=asynchronous,
                make_policy=make_policy,
            )
            row = score(agent, played, target)
            rows.append(Row(**vars(row), agent=agent.name, mode=mode or agent.default_mode))
    return rows


def _several(values: float | Sequence[float] | None) -> tuple[float, ...]:
    if values is None:
        return ()
    return tuple(map(float, values)) if isinstance(values, Sequence) else (float(values),)


def _at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name} must be at least 1, got {count}")


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


def environment_of_agent(agent: Agent, override: str | None = None) -> str:
    """Where an agent acts: what the user says, else what was saved with it.

    Gives an id with its options, or a specification as JSON; `make_vector_env` takes both.

    Raises:
        UserError: when nobody knows.
    """
    name = override or agent.spec.environment
    if name is None:
        raise UserError("--env is needed: the agent was saved without an environment")
    return name
