"""Results of a training: the agent, its scores, and the summary that is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aaren_rl.agents import Agent, load_agent
from aaren_rl.data import TrajectoryDataset
from aaren_rl.envs import EnvLike
from aaren_rl.errors import UserError
from aaren_rl.evaluation import Evaluation, Score, evaluate, normalized_scores
from aaren_rl.files import read_card, recover_folder, write_card
from aaren_rl.records import convert, finite
from aaren_rl.training.build import is_leader
from aaren_rl.training.config import TrainConfig
from aaren_rl.training.run_folder import RunFolder
from aaren_rl.training.state import Evaluated
from aaren_rl.training.trainer import Trainer


@dataclass(frozen=True)
class TrainedRun:
    """What `train` returns.

    Attributes:
        agent: trained, in evaluation mode.
        scores: of the last evaluation, one for each target return; empty without an environment.
        history: scores of all evaluations.
        folder: the run's folder; `None` for a run that did not touch the disk.
        summary: all results as JSON values, as `summary.json` holds them.
        config: all settings.
        environment: where it was evaluated; `None` for nowhere.
    """

    agent: Agent
    scores: list[Score]
    history: list[Evaluated]
    folder: Path | None
    summary: dict[str, Any]
    config: TrainConfig
    environment: EnvLike | None

    def __repr__(self) -> str:
        name, dataset, updates = self.agent.name, self.agent.spec.dataset, self.config.updates
        scores = ", ".join(f"{each.score_mean:.1f}" for each in self.scores)
        what = f"{name} on {dataset}, {updates} updates, scores [{scores}]"
        return f"<TrainedRun: {what}, folder {self.folder}>"

    def evaluate(self, env: EnvLike | None = None, **settings: Any) -> Evaluation:
        """Act with the trained agent in episodes that the training did not use.

        Args:
            env: where; where it was evaluated in training when `None`.
            settings: as `aaren_rl.evaluate` takes them, such as `episodes=20`.

        Raises:
            UserError: as `aaren_rl.evaluate`.
        """
        return evaluate(self.agent, self.environment if env is None else env, **settings)


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """The `summary.json` of a finished run."""
    summary = read_card(folder.summary)
    if not isinstance(summary, dict) or not isinstance(summary.get("updates"), int):
        raise UserError(f"{folder.summary}: not a training's summary")
    return summary


def run_in(folder: RunFolder, summary: dict[str, Any], config: TrainConfig) -> TrainedRun:
    """The finished run in a folder, from its summary."""
    try:
        scores = convert(summary["scores"], list[Score], str(folder.summary))
        history = [Evaluated.from_json(row, str(folder.summary)) for row in summary["history"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder.summary}: not a training's summary ({error!r})") from None
    return TrainedRun(
        agent=load_agent(recover_folder(folder.last)),
        scores=scores,
        history=history,
        folder=folder.path,
        summary=summary if is_leader() else {},
        config=config,
        environment=None,
    )


def result_of(
    trainer: Trainer, dataset: TrajectoryDataset, environment: Any, **more: Any
) -> TrainedRun:
    """The results of a training, and `summary.json` in its folder; `more` are entries of it."""
    config, agent, state = trainer.config, trainer.agent, trainer.state
    data_scores = normalized_scores(dataset.episode_returns, agent.spec.reference_scores)
    summary = finite(
        {
            "agent": config.agent,
            "dataset": dataset.name,
            "dataset_score": float(data_scores.mean()),
            "seed": config.seed,
            "mode": config.mode or agent.default_mode,
            "parameters": agent.num_parameters,
            "updates": state.update,
            **state.results(),
            **more,
        }
    )
    if trainer.stopped_early:
        summary["updates_asked"] = config.updates
    if trainer.folder is not None and trainer.fabric.is_global_zero:
        write_card(trainer.folder.summary, summary, [])
    trainer.fabric.barrier()
    return TrainedRun(
        agent=agent.eval(),
        scores=state.scores,
        history=state.history,
        folder=None if trainer.folder is None else trainer.folder.path,
        summary=summary if trainer.fabric.is_global_zero else {},
        config=config,
        environment=environment,
    )
