"""One training run from its config to its summary: everything is checked before work begins."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from aaren_rl.agents import AGENTS, Agent, AgentSpec
from aaren_rl.agents.actions import ContinuousActions
from aaren_rl.data import (
    EpisodeSampler,
    Sampler,
    StreamSampler,
    TrajectoryDataset,
    WindowSampler,
    load_dataset,
)
from aaren_rl.data.prefetch import prefetched
from aaren_rl.envs import (
    EnvLike,
    agent_space,
    environment_of,
    limit_episodes,
    make_env,
    reference_scores_of,
    robot_of_dataset,
    saved_name,
)
from aaren_rl.errors import UserError
from aaren_rl.evaluation import normalized_scores, try_environment
from aaren_rl.evaluation.scores import warn_of_far_targets
from aaren_rl.files import (
    locked,
    probe_folder,
    read_json,
    recover_folder,
    remove_leftovers,
    write_json,
)
from aaren_rl.robots import Robot
from aaren_rl.training.allocator import keep_freed_memory
from aaren_rl.training.config import TrainConfig, TrainSettings
from aaren_rl.training.offline import split
from aaren_rl.training.precision import resolved_precision
from aaren_rl.training.trainer import Trainer

CONFIG_FILE, SUMMARY_FILE = "config.json", "summary.json"
LOCK_FILE = ".training.lock"
# On resume: where the arithmetic is done and the data lie, not what is done.
MAY_CHANGE = ("device", "data_on", "data_cache")


def train(config: TrainConfig) -> dict[str, Any]:
    """Train an agent; leaves config, checkpoints, events and summary in the run's folder.

    A finished run that is resumed is left as it is.

    Returns:
        The summary, as `summary.json` holds it; nothing in all processes but the first.

    Raises:
        UserError: for anything wrong with the config, the data, the environment or the folder.
        Interrupted: after Ctrl-C; the run can be resumed.
    """
    config.check()
    config = _with_one_precision(config)
    processes(config)
    if not is_leader():
        return _train(config)
    folder = config.run_folder
    make_folder(folder)
    lock = folder / LOCK_FILE
    with locked(lock, f"--out {folder}: another process is training there"):
        try:
            claim_folder(folder, config)
            return _train(config)
        finally:
            lock.unlink(missing_ok=True)  # before another process can hold it


def _train(config: TrainConfig) -> dict[str, Any]:
    folder = config.run_folder
    if config.resume and (folder / SUMMARY_FILE).exists():
        summary: dict[str, Any] = read_json(folder / SUMMARY_FILE)
        return summary if is_leader() else {}
    dataset = load_data(config).top_percent(config.top_percent)
    environment = evaluation_environment(config, dataset)
    training, held_out = dataset, None
    if config.held_out > 0 and dataset.num_episodes > 1:
        training, held_out = split(dataset, config.held_out)
    torch.manual_seed(config.seed)  # the same first weights in every process
    agent = build_agent(config, training, environment)
    if agent.asks_return:
        warn_of_far_targets(agent.spec.target_returns, dataset.episode_returns.max())
    agent.check_horizon(dataset.max_episode_length, f"an episode of {dataset.name}")
    if environment is not None:
        try_environment(environment, agent)
    fabric = make_fabric(config)
    fabric.seed_everything(config.seed + fabric.global_rank, verbose=False)
    sampler = prefetched(
        make_sampler(config, training, fabric.global_rank, fabric.world_size), fabric.device
    )
    if fabric.device.type == "cpu":
        keep_freed_memory()
    if is_leader():  # not before: what fails above leaves a folder that a corrected call can use
        write_json(folder / CONFIG_FILE, config.to_json())
    trainer = Trainer(
        config,
        agent,
        sampler,
        fabric,
        environment,
        held_out,
        folder,
        longest_episode=dataset.max_episode_length,
    )
    trainer.fit(resume=config.resume and recover_folder(folder / "last").is_dir())
    return finish(trainer, dataset)


def load_data(config: TrainSettings) -> TrajectoryDataset:
    """The data that the settings name, where they say; all episodes.

    The environment's spaces win over the file's, where `--environment` names one.
    """
    name, length = config.environment, config.episode_length
    options: dict[str, Any] = {} if length is None else {"episode_length": length}
    return load_dataset(
        config.dataset,
        env=None if name in (None, "none") else lambda: make_env(str(name)),
        on=config.data_on,
        cache=config.data_cache,
        keep_unfinished_episode=config.keep_unfinished_episode,
        **options,
    )


def _with_one_precision(config: TrainConfig) -> TrainConfig:
    """The config with `--precision auto` decided: by the run that goes on, else by this machine."""
    saved = config.run_folder / CONFIG_FILE
    precision = resolved_precision(config)
    if config.precision == "auto" and config.resume and saved.is_file():
        precision = read_json(saved).get("precision", precision)
    return dataclasses.replace(config, precision=precision)


def make_sampler(
    config: TrainConfig, dataset: TrajectoryDataset, rank: int, world_size: int
) -> Sampler:
    """The sampler that `--sampling` names, for one of several processes."""
    if config.sampling == "episodes":
        steps = config.batch_steps or config.batch_size * config.model.context_length
        return EpisodeSampler(
            dataset, batch_steps=steps, seed=config.seed, rank=rank, world_size=world_size
        )
    shared: dict[str, Any] = {
        "batch_size": config.batch_size,
        "context_length": config.model.context_length,
        "seed": config.seed,
        "rank": rank,
        "world_size": world_size,
    }
    if config.sampling == "streams":
        return StreamSampler(dataset, **shared)
    return WindowSampler(dataset, **shared, inside=config.windows == "inside")


def is_leader() -> bool:
    """Whether this is the first process, or the only one.

    Asked before the processes know each other, so that a mistake is reported before any of them
    starts: launchers (Fabric's, torchrun, SLURM's) number the processes in the environment.
    """
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "NODE_RANK"))


def make_fabric(config: TrainConfig) -> Fabric:
    """Lightning Fabric, launched."""
    devices, hosts = processes(config)
    strategy = "ddp" if devices * hosts > 1 else "auto"
    precision: Any = {"32": "32-true", "bf16": "bf16-mixed"}[config.precision]
    try:
        fabric = Fabric(
            accelerator="gpu" if config.device == "cuda" else config.device,
            devices=devices,
            num_nodes=hosts,
            strategy=strategy,
            precision=precision,
        )
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--device {config.device} --devices {devices}: {reason}") from None
    fabric.launch()
    return fabric


def processes(config: TrainConfig) -> tuple[int, int]:
    """Processes on each host, and hosts: `--devices` on one, or what torchrun has started.

    Raises:
        UserError: when torchrun's processes cannot share the batch equally.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return config.devices, 1
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if config.batch_size % world:
        raise UserError(
            f"torchrun's {world} processes must divide --batch-size ({config.batch_size})"
        )
    return local, world // local


def make_folder(folder: Path) -> None:
    """Make the run's folder, and see that it can be written; a `UserError` names it otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe_folder(folder)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror})") from None


def claim_folder(folder: Path, config: TrainConfig) -> None:
    """See that the run's folder holds no other run; a `UserError` names the flags that differ."""
    if not (folder / CONFIG_FILE).exists():
        return
    check_same_run(folder, config)
    if not config.resume:
        raise UserError(f"--out {folder}: already holds this run; give --resume to go on with it")
    remove_leftovers(folder)


def check_same_run(folder: Path, config: TrainConfig) -> None:
    """Raise `UserError` when the folder holds another run than the config's; names the flags."""
    file = folder / CONFIG_FILE
    differing: list[str] = []
    if file.exists():
        before = TrainConfig.from_json(read_json(file), file)
        differing = _differences(before.to_json(), config.to_json())
    if differing:
        raise UserError(
            f"--out {folder}: already holds a different run ({'; '.join(differing)}); "
            "choose another folder"
        )


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Readable differences between two configs, save those that may change."""
    first, second = (
        {**{k: v for k, v in content.items() if k != "model"}, **content.get("model", {})}
        for content in (before, now)
    )
    return [
        f"--{name.replace('_', '-')} {first.get(name)} there, {second.get(name)} here"
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
        and name not in MAY_CHANGE
        and not (name == "precision" and second.get(name) == "auto")  # the run's own holds
    ]


def evaluation_environment(config: TrainConfig, dataset: TrajectoryDataset) -> EnvLike | None:
    """Where to evaluate; `None` when the user wants none."""
    if config.environment == "none":
        return None
    environment = config.environment or environment_of(dataset)
    return limit_episodes(environment, dataset.max_episode_length)


def build_agent(
    config: TrainConfig, dataset: TrajectoryDataset, environment: EnvLike | None
) -> Agent:
    """A new agent for the dataset's task, with the dataset's statistics."""
    robot = robot_of_dataset(dataset, environment)
    shift, scale = _returns_scale(config, dataset, robot)
    offset = dataset.observation_offset
    spec = AgentSpec(
        observation_space=agent_space(dataset.observation_space),
        action_space=dataset.action_space,  # type: ignore[arg-type]
        returns_scale=scale,
        returns_shift=shift,
        largest_return=dataset.largest_return_to_go,
        target_returns=config.target_return or (_target(dataset, robot),),
        reference_scores=reference_scores_of(dataset, environment),
        environment=saved_name(environment),
        dataset=dataset.name,
        observation_offset=() if offset is None else tuple(offset.tolist()),
    )
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    if config.normalize_observations:
        mean, std = dataset.observation_statistics()
    agent = AGENTS[config.agent].make(config.model, spec, mean, std)
    if isinstance(agent.actions, ContinuousActions) and not agent.actions.bounded:
        agent.actions.standardise(*dataset.action_statistics())
    return agent


def _target(dataset: TrajectoryDataset, robot: Robot | None) -> float:
    """The usual target of the task, else the best return in the data."""
    if robot is not None:
        return robot.target_for(dataset.name)
    return float(dataset.episode_returns.max())


def _returns_scale(
    config: TrainConfig, dataset: TrajectoryDataset, robot: Robot | None
) -> tuple[float, float]:
    """What is taken from returns-to-go, and what the rest is divided by, before the embedding.

    Standardised returns-to-go lie around zero. Divided alone, those of a good episode are all far
    from it, where the layer norm behind the embedding turns them into nearly the same token.
    """
    if config.returns_scale is not None:
        return 0.0, config.returns_scale
    if config.standardize_returns:
        return dataset.returns_to_go_statistics()
    if robot is not None:
        return 0.0, 1000.0
    return 0.0, float(np.abs(dataset.episode_returns).max()) or 1.0


def finish(trainer: Trainer, dataset: TrajectoryDataset) -> dict[str, Any]:
    """Write the summary: the mark of a finished run."""
    config = trainer.config
    summary: dict[str, Any] = {}
    if trainer.fabric.is_global_zero:
        summary = trainer.write_summary(
            {
                "agent": config.agent,
                "dataset": dataset.name,
                "dataset_score": _dataset_score(dataset, trainer.agent.spec.reference_scores),
                "seed": config.seed,
                "mode": config.mode or trainer.agent.default_mode,
                "parameters": trainer.agent.num_parameters,
            }
        )
    trainer.fabric.barrier()
    return summary


def _dataset_score(dataset: TrajectoryDataset, reference: tuple[float, float] | None) -> float:
    """Mean normalised score (or return) of the data's own episodes."""
    return float(normalized_scores(dataset.episode_returns, reference).mean())
