"""Evaluate a trained run: any mode, any target returns, any number of episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, chdir, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from aaren_rl.acting import check_count
from aaren_rl.agents import Agent, Mode, load_agent
from aaren_rl.envs.make import EnvLike
from aaren_rl.errors import UserError
from aaren_rl.evaluation.config import EvaluateConfig
from aaren_rl.evaluation.rollouts import PolicyMaker, rollout
from aaren_rl.evaluation.scores import Row, score, warn_of_far_targets
from aaren_rl.evaluation.video import record_video
from aaren_rl.files import write_json
from aaren_rl.records import typed

LARGEST_SEED = 2**62  # NumPy counts the episodes' seeds up in int64

Runtime = Callable[[Agent, Path | None], AbstractContextManager[PolicyMaker]]
"""Gives, for an agent and its exported file (or None), what makes policies in the agent's place."""


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
    deterministic: bool = True,
    temperature: float = 1.0,
    policies: Runtime | None = None,
    task: str | Sequence[str] = (),
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
        deterministic: take means and the most likely choices; else draw actions, seeded with
            `seed`, from the distribution that the agent predicts. See `Agent.policy`.
        temperature: of the draws.
        task: of an agent that has learned from several datasets: which of them; all by default.
        policies: with a config that says `--runtime onnx`, what acts in the agent's place.

    Raises:
        UserError: for a folder without an agent, an environment that does not fit it or fails, or
            a mode or target return that means nothing to the agent, or draws of one whose head
            predicts no distribution.
    """
    if isinstance(run, EvaluateConfig):
        return _evaluate_config(typed(run, "evaluate()"), policies)
    about: dict[str, str] = {}
    given: Any = run
    agent: Agent = getattr(given, "agent", given)
    if isinstance(run, (str, Path)):
        agent, about = load_agent(run), {"run": str(run)}
    for name, count in (("episodes", episodes), ("num_envs", num_envs)):
        check_count(name, count)
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < LARGEST_SEED:
        raise UserError(f"seed must be a whole number from 0 to 2^62, got {seed!r}")
    try:
        targets = () if target_return is None else np.ravel(target_return).astype(float).tolist()
    except (TypeError, ValueError):
        raise UserError(f"target_return must be numbers, got {target_return!r:.80}") from None
    rows = []
    for each in agents_by_task(agent, (task,) if isinstance(task, str) else task):
        rows += score_rows(
            each,
            environment_of_agent(each) if env is None else env,
            modes=(mode,) if mode is None or isinstance(mode, str) else mode,
            targets=tuple(targets),
            episodes=episodes,
            seed=seed,
            num_envs=num_envs,
            asynchronous=asynchronous,
            deterministic=deterministic,
            temperature=temperature,
        )
    return Evaluation(rows, about)


def agents_by_task(agent: Agent, tasks: Sequence[str] = ()) -> list[Agent]:
    """The agent in each of these tasks, or all that it has; itself where it has none."""
    if not tasks and (agent.spec.task is not None or not agent.spec.tasks):
        return [agent]
    return [agent.for_task(task) for task in tasks or range(len(agent.spec.tasks))]


def _evaluate_config(config: EvaluateConfig, policies: Runtime | None) -> Evaluation:
    config.check()
    agent = load_agent(config.run, config.device, checkpoint=config.checkpoint)
    with chdir("."):  # an environment may change the working directory
        tasks = agents_by_task(agent, config.task)
        parts = [_evaluate_task(config, each, policies) for each in tasks]
    result = replace(parts[0], rows=[row for part in parts for row in part.rows])
    if config.json is not None:
        write_json(config.json, result.to_json())
    return result


def _evaluate_task(config: EvaluateConfig, agent: Agent, policies: Runtime | None) -> Evaluation:
    for mode in config.mode or (None,):
        agent.check_request(mode, config.target_return, agent.config.condition)
    if config.stochastic:
        agent.check_draws(config.temperature)
    env = environment_of_agent(agent, config.environment)
    policy: AbstractContextManager[PolicyMaker | None] = nullcontext()
    if config.runtime != "torch":
        if policies is None:
            raise UserError(f"--runtime {config.runtime}: nothing was given that acts with it")
        policy = policies(agent, config.exported)
    video = None
    with policy as make_policy:
        acting: dict[str, Any] = {
            "seed": config.seed,
            "deterministic": not config.stochastic,
            "temperature": config.temperature,
            "make_policy": make_policy,
        }
        if config.video is not None:  # first: before the time that the evaluation takes
            target = config.target_return[0] if config.target_return else None
            mode = config.mode[0] if config.mode else None
            folder = config.video if agent.spec.task is None else config.video / agent.spec.dataset
            video = record_video(agent, env, folder, target, mode, **acting)
        rows = score_rows(
            agent,
            env,
            modes=config.mode or (None,),
            targets=config.target_return,
            episodes=config.episodes,
            num_envs=config.num_envs,
            asynchronous=config.asynchronous,
            **acting,
        )
    about = {"run": str(config.run), "checkpoint": config.checkpoint, "runtime": config.runtime}
    if config.stochastic:
        about["temperature"] = f"{config.temperature:g}"
    return Evaluation(rows, about, video)


def score_rows(
    agent: Agent,
    env: EnvLike,
    *,
    modes: Sequence[Mode | None] = (None,),
    targets: Sequence[float] = (),
    episodes: int = 10,
    **acting: Any,
) -> list[Row]:
    """A row for each mode and target return; `acting` are further arguments of `rollout`."""
    asked: list[float | None] = list(dict.fromkeys(targets or agent.spec.target_returns))
    if not agent.asks_return:
        agent.check_request(target_return=targets, condition=agent.config.condition)
        asked = [None]
    warn_of_far_targets(asked, agent.spec.largest_return)
    other = None if env == agent.spec.environment else env
    rows = []
    for mode in modes:
        for target in asked or [None]:
            played = rollout(
                agent, env, episodes=episodes, target_return=target, mode=mode, **acting
            )
            row = score(agent, played, target, other)
            rows.append(Row(**vars(row), agent=agent.name, mode=mode or agent.default_mode))
    return rows


def environment_of_agent(agent: Agent, override: str | None = None) -> str:
    """What the user says, else the id or the specification that was saved with the agent."""
    name = override or agent.spec.environment
    if name is None:
        raise UserError("--env is needed: the agent was saved without an environment")
    return name
