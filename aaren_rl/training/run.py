"""One training run: settings are checked before any work is done."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from lightning_fabric import Fabric

from aaren_rl.agents import Agent, AgentConfig, load_agent
from aaren_rl.data import TrajectoryDataset
from aaren_rl.data.mixture import BETWEEN, MixedDataset, mix
from aaren_rl.data.prefetch import prefetched
from aaren_rl.envs import environment_of, limit_episodes
from aaren_rl.errors import UserError, system_error
from aaren_rl.evaluation import try_environment
from aaren_rl.evaluation.evaluating import agents_by_task
from aaren_rl.evaluation.scores import warn_of_far_targets
from aaren_rl.records import typed
from aaren_rl.training.build import (
    build_agent,
    check_agent,
    in_spaces_of,
    is_leader,
    launched,
    load_data,
    make_sampler,
    processes,
    resolved_precision,
    split,
)
from aaren_rl.training.callbacks import Callback, check_callbacks
from aaren_rl.training.config import TrainConfig
from aaren_rl.training.evaluator import Evaluator
from aaren_rl.training.learner import Learner, OptimizerMaker, Schedule
from aaren_rl.training.loggers import Logger, make_loggers
from aaren_rl.training.presets import SHAPE, from_settings
from aaren_rl.training.resume import (
    absolute_dataset,
    check_progress,
    check_same_data,
    claim_folder,
    fingerprint,
    saved_config,
)
from aaren_rl.training.run_folder import RunFolder
from aaren_rl.training.trained_run import TrainedRun, read_summary, result_of, run_in
from aaren_rl.training.trainer import Trainer

ARGUMENTS = ("agent", "dataset", "environment", "preset")  # of `train` itself, not `settings`


@dataclass(frozen=True)
class _Job:
    """Settings, and the things that cannot be written into a config.

    Attributes:
        folder: `None` for a run that does not touch the disk.
        data: those that `config.dataset` names when `None`.
        agent: a new one as `config` says when `None`.
        source: the agent of `config.init_from`, once it is loaded.
        environment: that of `config` or of the data when `None`.
    """

    config: TrainConfig
    folder: RunFolder | None
    loggers: Sequence[str | Logger]
    data: TrajectoryDataset | None = None
    agent: Agent | None = None
    source: Agent | None = None
    environment: Any = None
    callbacks: Sequence[Callback] = ()
    optimizer: OptimizerMaker | None = None
    schedule: Schedule | None = None
    title: str = ""
    varying: frozenset[str] | None = None


Data = TrajectoryDataset | str | Path
"""One dataset, or what `load_dataset` finds one by."""
Several = Sequence[Data | tuple[Data, float]]
"""Datasets to mix, each with a weight or of weight 1."""


@overload
def train(data: TrainConfig) -> dict[str, Any]: ...


@overload
def train(
    data: Data | Several,
    agent: str | Agent = ...,
    *,
    preset: str | None = ...,
    env: Any = ...,
    out: Path | str | None = ...,
    callbacks: Sequence[Callback] = ...,
    loggers: Sequence[str | Logger] | None = ...,
    optimizer: OptimizerMaker | None = ...,
    schedule: Schedule | None = ...,
    **settings: Any,
) -> TrainedRun: ...


def train(
    data: Data | Several | TrainConfig,
    agent: str | Agent = "decision-aaren",
    *,
    preset: str | None = None,
    env: Any = None,
    out: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[str | Logger] | None = None,
    optimizer: OptimizerMaker | None = None,
    schedule: Schedule | None = None,
    **settings: Any,
) -> TrainedRun | dict[str, Any]:
    """Train an agent offline.

    >>> data = arl.load_dataset("aaren-rl/hopper-small-v0")
    >>> run = arl.train(data, env="Hopper-v5", updates=2, episodes=2)  # 3,000 updates learn it
    >>> len(run.scores), len(run.history), run.folder
    (1, 2, None)

    Own arrays and environments: `examples/own_data.py`, `examples/own_environment.py`.

    Args:
        data: a dataset, its name or path as `load_dataset` takes it, or a list of `(data, weight)`.
        agent: the name of a registered agent, or an agent that is made already; that one is
            trained in place.
        preset: settings to start from, a key of `aaren_rl.training.presets.PRESETS`.
        env: where to evaluate: a Gymnasium id, a spec, or whatever else `rollout` takes; `"none"`
            for nowhere. When `None` the data's own environment, if they have one.
        out: the run's folder: config, checkpoints, summary, metrics. When `None` nothing is written
            to the disk, and nothing can be resumed.
        callbacks: called at fixed moments, see `Callback`.
        loggers: where metrics go, by name or made already. When `None` TensorBoard with a folder,
            nothing without.
        optimizer: a function that makes the optimiser of the agent; AdamW when `None`.
        schedule: from the updates done to the share of the optimiser's learning rate; the setting
            `schedule` may name one instead.
        settings: fields of `TrainConfig` and `AgentConfig`, such as `updates=1500, width=64`.

    Returns:
        The run. For a `TrainConfig` as the only argument (as the command line makes it) the
        summary as a dictionary, empty in all processes but the first; its folder is
        `config.run_folder`. A finished run that is resumed is left as it is.

    Raises:
        UserError: for anything wrong with the settings, the data, the environment or the folder.
        Interrupted: after Ctrl-C; with a folder the run can be resumed.
    """
    if isinstance(data, TrainConfig):
        return train_config(typed(data, "train()")).summary
    if not isinstance(data, (TrajectoryDataset, str, Path)):
        data = _mixture(data if isinstance(data, Iterable) else [data], env)
    elif isinstance(data, TrajectoryDataset):
        data = in_spaces_of(env, data)
    if isinstance(schedule, str):
        settings, schedule = {**settings, "schedule": schedule}, None
    if out is not None:
        settings["out"] = Path(out)
    config = _config_of(data, agent, preset, env, settings)
    if loggers is None:
        loggers = config.loggers if out is not None else ()
    return _run(
        _Job(
            config=config,
            folder=None if config.out is None else RunFolder(config.out),
            loggers=loggers,
            data=data if isinstance(data, TrajectoryDataset) else None,
            agent=agent if isinstance(agent, Agent) else None,
            environment=None if isinstance(env, str) else env,
            callbacks=callbacks,
            optimizer=optimizer,
            schedule=schedule,
        )
    )


def train_config(
    config: TrainConfig,
    data: TrajectoryDataset | None = None,
    *,
    title: str = "",
    varying: frozenset[str] | None = None,
) -> TrainedRun:
    """Train as a config says; on `data` if they are in memory. Further arguments as `Trainer`'s."""
    folder = RunFolder(config.run_folder)
    return _run(_Job(config, folder, config.loggers, data, title=title, varying=varying))


def _mixture(several: Several, env: Any) -> TrajectoryDataset | str:
    """Several datasets as one: mixed, or their names and weights as `TrainConfig.dataset`."""
    pairs = [each if isinstance(each, tuple) else (each, 1.0) for each in several]
    if isinstance(several, dict) or not all(isinstance(pair[0], Data) for pair in pairs):
        raise UserError(
            "data: a dataset, its name or path, or several expected: make one of episodes with "
            "TrajectoryDataset.from_episodes, of arrays with TrajectoryDataset.from_arrays"
        )
    loaded = [(data, weight) for data, weight in pairs if isinstance(data, TrajectoryDataset)]
    if not pairs or 0 < len(loaded) < len(pairs):
        raise UserError("several datasets: all must be in memory, or all names; at least one")
    if loaded:
        return mix([(in_spaces_of(env, data), weight) for data, weight in loaded])
    return BETWEEN.join(f"{data}:{weight:g}" for data, weight in pairs)


def _config_of(
    data: TrajectoryDataset | str | Path,
    agent: str | Agent,
    preset: str | None,
    env: Any,
    settings: dict[str, Any],
) -> TrainConfig:
    """The keywords of `train` as a config."""
    for name in settings.keys() & ARGUMENTS:
        raise UserError(f"train() has no setting {name!r}")
    if isinstance(agent, type):
        raise UserError(f"agent: {agent.__name__} is a class; give the name of register_agent")
    of_agent = sorted(SHAPE & settings.keys())
    if isinstance(agent, Agent) and of_agent:
        raise UserError(f"{', '.join(of_agent)}: the agent that was given is made already")
    config = from_settings(TrainConfig, {**settings, "preset": preset})
    config = dataclasses.replace(
        config,
        dataset=data.name if isinstance(data, TrajectoryDataset) else str(data),
        agent=agent.name if isinstance(agent, Agent) else agent,
        environment=env if isinstance(env, str) else None,
        model=agent.config if isinstance(agent, Agent) else config.model,
    )
    return typed(config, "train()")


@torch.inference_mode(False)  # whatever the caller is in
@torch.enable_grad()
def _run(job: _Job) -> TrainedRun:
    """Check the settings, claim the folder, train."""
    job.config.check(None if job.agent is None else type(job.agent))
    job = _settled(job)
    processes(job.config)
    with chdir("."):  # an environment may change the working directory
        if job.folder is None or not is_leader():
            return _train(job)
        with job.folder.claimed():
            claim_folder(job.folder, job.config)
            return _train(job)


def _settled(job: _Job) -> _Job:
    """The job with what depends on the machine, the folder, `init_from` and a resumed run."""
    config, folder, source = job.config, job.folder, None
    precision: Any = resolved_precision(config)
    model = config.model
    saved = saved_config(folder) if folder is not None and config.resume else None
    if saved is not None and config.precision == "auto":
        precision = saved.precision
    if config.init_from is not None:
        if saved is None:
            source = load_agent(config.init_from)
            shape = source.config
        else:
            shape = saved.model
        if model == AgentConfig():
            model = shape
    dataset = absolute_dataset(config.dataset) if job.data is None else config.dataset
    config = dataclasses.replace(config, precision=precision, model=model, dataset=dataset)
    check_callbacks(job.callbacks)
    loggers = make_loggers(job.loggers)
    return dataclasses.replace(job, config=config, source=source, loggers=loggers)


def _train(job: _Job) -> TrainedRun:
    config, folder = job.config, job.folder
    resume = folder is not None and config.resume and folder.has_checkpoint
    if folder is not None and resume:
        check_progress(folder, config, math.prod(processes(config)))
    if folder is not None and (finished := _finished(job, folder)) is not None:
        return finished
    dataset = job.data or _data(job)
    mark = None if folder is None else fingerprint(dataset)
    if folder is not None and mark is not None and config.resume:
        check_same_data(folder, config, mark)
    dataset = dataset.top_percent(config.top_percent)
    mixed = isinstance(dataset, MixedDataset)
    parts = dataset.parts if isinstance(dataset, MixedDataset) else (dataset,)
    environments = [_environment(job, part) for part in parts]
    environment = environments if mixed else environments[0]
    training, held_out = dataset, None
    if config.held_out > 0 and dataset.num_episodes > 1 and not mixed:
        training, held_out = split(dataset, config.held_out)
    agent = _agent(job, training, environment, resume)
    if isinstance(training, MixedDataset):
        training = training.in_units(_units(agent, training))
    check_agent(agent, dataset)
    for each, part, env in zip(agents_by_task(agent), parts, environments, strict=True):
        if agent.asks_return:
            warn_of_far_targets(each.spec.target_returns, part.episode_returns.max())
        if env is not None:
            try_environment(env, each)
    evaluator = Evaluator(config, agent, environment, held_out, dataset.max_episode_length)
    with launched(config) as fabric, disk_errors(folder):
        learner = _learner(job, agent, training, fabric)
        if folder is not None and is_leader():  # an error above leaves no config behind
            folder.begin(config.to_json())
        trainer = Trainer(
            learner,
            evaluator,
            folder,
            title=job.title,
            fingerprint=mark,
            loggers=job.loggers,
            callbacks=job.callbacks,
            varying=job.varying,
        )
        trainer.fit(resume)
        return result_of(trainer, dataset, None if mixed else environment)


def _units(agent: Agent, data: MixedDataset) -> list[tuple[float, float]]:
    """Shift and scale of each dataset's returns; `UserError` unless they are the agent's tasks."""
    tasks, names = agent.spec.tasks, [part.name for part in data.parts]
    if [task.dataset for task in tasks] != names or agent.spec.task is not None:
        raise UserError(f"{data.name}: the agent that was given was not made for these tasks")
    return [(task.returns_shift, task.returns_scale) for task in tasks]


def _agent(job: _Job, data: TrajectoryDataset, environment: Any, resume: bool) -> Agent:
    """The agent that was given, else a new one; weights of a resumed run are loaded later."""
    config, folder, source, saved = job.config, job.folder, job.source, None
    if folder is not None and resume and job.agent is None:
        saved = load_agent(folder.path)
        if config.init_from is not None:
            source = saved  # the other run need not be there any more
    torch.manual_seed(config.seed)  # the same first weights in every process
    if job.agent is not None:
        spec = job.agent.spec
        job.agent.spec = dataclasses.replace(spec, dataset=spec.dataset or data.name)
        return job.agent
    return build_agent(config, data, environment, source, saved)


def _learner(job: _Job, agent: Agent, data: TrajectoryDataset, fabric: Fabric) -> Learner:
    """The learner; the random generators of this process are seeded first."""
    fabric.seed_everything(job.config.seed + fabric.global_rank, verbose=False)
    sampler = make_sampler(job.config, data, fabric.global_rank, fabric.world_size)
    sampler = prefetched(sampler, fabric.device)
    return Learner(job.config, agent, sampler, fabric, job.optimizer, job.schedule)


@contextmanager
def disk_errors(folder: RunFolder | None) -> Iterator[None]:
    """Raise `UserError` for errors of the operating system, such as a full disk."""
    try:
        yield
    except OSError as error:
        raise system_error(error, "training" if folder is None else folder.path) from error


def _data(job: _Job) -> TrajectoryDataset:
    try:
        return load_data(job.config, job.environment)
    except UserError as error:
        hint = "; if the data have moved, give --dataset with their new place"
        raise UserError(f"{error}{hint if job.config.resume else ''}") from None


def _environment(job: _Job, dataset: TrajectoryDataset) -> Any:
    """Where to evaluate; `None` for nowhere. Data from memory need not have an environment."""
    environment = job.config.environment if job.environment is None else job.environment
    if isinstance(environment, str) and environment == "none":
        return None
    try:
        environment = environment_of(dataset) if environment is None else environment
    except UserError:
        if job.data is None:
            raise
        return None
    return limit_episodes(environment, dataset.max_episode_length)


def _finished(job: _Job, folder: RunFolder) -> TrainedRun | None:
    """The run in the folder, if it has done all updates that are asked for, on these data."""
    config, saved = job.config, saved_config(folder)
    if not config.resume or not folder.summary.exists():
        return None
    summary = read_summary(folder)
    if config.updates > max(summary["updates"], summary.get("updates_asked", 0)):
        return None
    if saved and absolute_dataset(saved.dataset) != config.dataset:
        check_same_data(folder, config, fingerprint(job.data or _data(job)))
    return run_in(folder, summary, config)
