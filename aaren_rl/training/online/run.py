"""One fine-tuning: settings are checked before any work is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import chdir, closing, nullcontext
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, overload

import torch

from aaren_rl.agents import Agent, load_agent
from aaren_rl.agents.loading import checkpoint_folder
from aaren_rl.data import TrajectoryDataset
from aaren_rl.envs import environment_of, limit_episodes, reference_scores_of, saved_name
from aaren_rl.errors import UserError
from aaren_rl.evaluation import try_environment
from aaren_rl.files import read_card, remove_leftovers, write_card, write_json
from aaren_rl.records import convert, differences, typed
from aaren_rl.training.build import check_agent, launched, load_data
from aaren_rl.training.callbacks import Callback, check_callbacks
from aaren_rl.training.checkpoint import load_progress
from aaren_rl.training.config import TrainConfig
from aaren_rl.training.evaluator import Evaluator
from aaren_rl.training.loggers import Logger, make_loggers
from aaren_rl.training.online.buffer import ReplayBuffer
from aaren_rl.training.online.config import FinetuneConfig
from aaren_rl.training.online.trainer import OnlineLearner, OnlineSampler, OnlineTrainer
from aaren_rl.training.resume import absolute_dataset, check_same_data, fingerprint, saved_config
from aaren_rl.training.run import disk_errors
from aaren_rl.training.run_folder import RunFolder
from aaren_rl.training.state import RunState
from aaren_rl.training.trained_run import TrainedRun, read_summary, result_of, run_in


@dataclass(frozen=True)
class _Start:
    """What fine-tuning begins with: an agent, how it was trained, and for how many updates."""

    agent: Agent
    config: TrainConfig
    updates: int
    train_seconds: float


@dataclass(frozen=True)
class _Job:
    """Settings, and the things that cannot be written into a config.

    Attributes:
        folder: `None` for a run that does not touch the disk.
        own: the run that is fine-tuned, where it has no folder.
        data: those of the run when `None`.
        environment: that of `config` or of the run when `None`.
    """

    config: FinetuneConfig
    folder: RunFolder | None
    loggers: Sequence[str | Logger]
    own: TrainedRun | None = None
    data: TrajectoryDataset | None = None
    environment: Any = None
    callbacks: Sequence[Callback] = ()


@overload
def finetune(run: FinetuneConfig) -> dict[str, Any]: ...


@overload
def finetune(
    run: Path | str | TrainedRun,
    env: Any = ...,
    *,
    out: Path | str | None = ...,
    data: TrajectoryDataset | None = ...,
    callbacks: Sequence[Callback] = ...,
    loggers: Sequence[str | Logger] | None = ...,
    **settings: Any,
) -> TrainedRun: ...


def finetune(
    run: Path | str | TrainedRun | FinetuneConfig,
    env: Any = None,
    *,
    out: Path | str | None = None,
    data: TrajectoryDataset | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[str | Logger] | None = None,
    **settings: Any,
) -> TrainedRun | dict[str, Any]:
    """Train an agent further by acting, as Online Decision Transformer does (arXiv 2202.05607).

    >>> data, small = "aaren-rl/hopper-small-v0", {"width": 16, "layers": 1, "updates": 2}
    >>> run = arl.train(data, head="tanh-gaussian", env="none", out="runs/first", **small)
    >>> settings = {"steps": 50, "updates_per_episode": 5, "episodes": 1}
    >>> fine = arl.finetune("runs/first", "Hopper-v5", out="runs/fine", **settings)
    >>> fine.summary["environment_steps"] >= 50, fine.folder.name
    (True, 'fine')

    Args:
        run: the folder of a training run, or what `train` returned. Its agent is not changed,
            unless it has no folder: then it is trained in place.
        env: where to play and to be evaluated, as `train` takes it; the run's own when `None`.
        out: the folder of the new run. When `None` nothing is written to the disk, and nothing can
            be resumed.
        data: the run's data; read anew when `None`.
        callbacks: called at fixed moments, see `Callback`.
        loggers: as in `train`.
        settings: fields of `FinetuneConfig`, such as `steps=10_000, explorers=4`.

    Returns:
        The run. For a `FinetuneConfig` (as the command line makes it) the summary.

    Raises:
        UserError: for anything wrong with the settings, the run, the data, the environment or the
            folder, or an agent whose head predicts no distribution to draw from, that was trained
            for goals or on several datasets.
        Interrupted: after Ctrl-C; with a folder the run can be resumed.
    """
    if isinstance(run, FinetuneConfig):
        run = typed(run, "finetune()")
        return _run(_Job(run, RunFolder(run.run_folder), run.loggers)).summary
    own = run if isinstance(run, TrainedRun) and run.folder is None else None
    config = _config_of(run, env, out, settings)
    if loggers is None:
        loggers = () if out is None else config.loggers
    return _run(
        _Job(
            config=config,
            folder=None if config.out is None else RunFolder(config.out),
            loggers=loggers,
            own=own,
            data=data,
            environment=None if isinstance(env, str) else env,
            callbacks=callbacks,
        )
    )


def _config_of(
    run: Path | str | TrainedRun, env: Any, out: Path | str | None, settings: dict[str, Any]
) -> FinetuneConfig:
    """The keywords of `finetune` as a config."""
    known = {field.name for field in dataclasses.fields(FinetuneConfig)}
    for name in settings.keys() - (known - {"run", "environment", "loggers"}):
        raise UserError(f"finetune() has no setting {name!r}")
    if isinstance(target := settings.get("target_return"), Real):
        settings = {**settings, "target_return": (target,)}
    if settings.get("resume") and out is None:
        raise UserError("resume=True needs out=")
    place = run.folder or "run" if isinstance(run, TrainedRun) else run
    config = FinetuneConfig(
        run=Path(place),
        environment=env if isinstance(env, str) else None,
        out=None if out is None else Path(out),
        **settings,
    )
    return typed(config, "finetune()")


@torch.inference_mode(False)  # whatever the caller is in
@torch.enable_grad()
def _run(job: _Job) -> TrainedRun:
    """Check the settings, claim the folder, train."""
    config, folder = job.config, job.folder
    config.check()
    check_callbacks(job.callbacks)
    job = dataclasses.replace(job, loggers=make_loggers(job.loggers))
    resume = folder is not None and folder.online.exists() and folder.has_checkpoint
    start = _start(config, folder if resume else None, job.own)
    start = dataclasses.replace(start, config=_train_config(config, start))
    # An environment may change the working directory.
    with chdir("."), nullcontext() if folder is None else folder.claimed():
        if folder is not None:
            _claim(folder, config)
        if resume and folder is not None and folder.summary.exists():
            summary = read_summary(folder)
            if summary.get("environment_steps", 0) >= config.steps:
                return run_in(folder, summary, start.config)
        if job.own is not None and job.data is None:
            raise UserError("finetune() needs data=: the run that was given has no folder")
        try:
            dataset = load_data(start.config) if job.data is None else job.data
        except UserError as error:
            raise UserError(f"{error}; give the run's data by --dataset, or data=") from None
        if folder is not None and not resume:
            before = (start.updates, start.train_seconds)
            write_card(folder.online, {**config.to_json(), "begun": before}, [])
        return _train(job, start, dataset, resume)


def _claim(folder: RunFolder, config: FinetuneConfig) -> None:
    """Raise `UserError` unless the folder holds no run, or one that `config` resumes."""
    where = f"--out {folder.path}"
    if not folder.config.exists():
        if config.resume:
            raise UserError(f"--resume: no run in {folder.path} to go on with")
        return
    if not folder.online.exists():
        raise UserError(f"{where}: already holds a run of aaren-rl train; choose another folder")
    if not config.resume:
        raise UserError(f"{where}: already holds a run; give --resume to go on with it")
    saved = saved_config(folder)
    begun = None if saved is None else saved.init_from
    if begun is not None and begun.exists() and begun.resolve() != config.run.resolve():
        raise UserError(f"{where}: was begun from {begun}, not from {config.run}")
    # What an older version's file lacks is at its default.
    before = {**FinetuneConfig(config.run).to_json(), **_read_online(folder.online)}
    if which := differences(before, config.to_json(), "begun"):
        raise UserError(f"{where}: already holds a different run ({which})")
    remove_leftovers(folder.path)


def _read_online(file: Path) -> dict[str, Any]:
    """The settings of a fine-tuning, and the updates and seconds of the training before it."""
    content = read_card(file)
    wrong = f"{file}: not the settings of a fine-tuning"
    if not isinstance(content, dict) or "begun" not in content:
        raise UserError(wrong)
    return {**content, "begun": convert(content["begun"], tuple[int, float], f"{wrong}: begun")}


def _start(config: FinetuneConfig, resumed: RunFolder | None, own: TrainedRun | None) -> _Start:
    """The agent to fine-tune, or that of the resumed run."""
    if own is not None and resumed is None:
        trained = dataclasses.replace(own.config, init_from=None)
        return _Start(own.agent, trained, own.summary["updates"], own.summary["train_seconds"])
    place = RunFolder(config.run) if resumed is None else resumed
    saved = saved_config(place)
    if saved is None:
        raise UserError(f"{place.path}: not a training run: it has no {place.config.name}")
    if resumed is not None:
        found = checkpoint_folder(place.path, "last")
        return _Start(load_agent(found), saved, *_read_online(resumed.online)["begun"])
    found = checkpoint_folder(place.path, config.checkpoint)
    progress = load_progress(found)[1]
    before = progress.get("update", 0), progress.get("train_seconds") or 0.0
    return _Start(load_agent(found), dataclasses.replace(saved, init_from=config.run), *before)


def _check_agent(agent: Agent, config: FinetuneConfig) -> None:
    """Raise `UserError` for an agent that cannot be fine-tuned, or not with these settings."""
    if agent.config.condition == "goal":
        raise UserError(
            f"{agent.name} with --condition goal cannot be fine-tuned: the buffer keeps episodes "
            "by their returns; use train --init-from with more data"
        )
    if agent.spec.tasks and agent.spec.task is None:
        raise UserError(f"{agent.name} has learned several tasks: one dataset expected")
    agent.check_draws(config.temperature)
    if agent.spec.observation_offset:
        raise UserError(f"{agent.name}: observations that are shifted in float64 cannot be played")
    if config.exploration_return is not None and not agent.asks_return:
        raise UserError(f"--exploration-return: {agent.name} cannot be asked for a return")


def _train_config(config: FinetuneConfig, start: _Start) -> TrainConfig:
    """The config of the new run: that of the training, with the settings of the fine-tuning."""
    _check_agent(start.agent, config)
    before = start.config
    trained = dataclasses.replace(
        before,
        dataset=absolute_dataset(config.dataset or before.dataset),
        environment=config.environment or before.environment,
        seed=before.seed if config.seed is None else config.seed,
        out=config.out,
        resume=False,
        preset=None,
        device=config.device,
        devices=1,
        mode=config.mode or before.mode,
        learning_rate=config.learning_rate,
        schedule="constant",
        warmup=0.0,
        batch_size=config.batch_size or before.batch_size,
        updates=start.updates + config.updates_per_episode,  # until it is known
        evaluate_every=config.evaluate_every,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        episodes=config.episodes or before.episodes,
        target_return=config.target_return or before.target_return,
        keep_evaluated=0,
        held_out=0.0,
        loggers=config.loggers,
        plugin=(*before.plugin, *config.plugin),
    )
    trained.check(type(start.agent))
    return trained


def _environment(job: _Job, start: _Start, dataset: TrajectoryDataset) -> Any:
    """Where to play and to evaluate; the agent takes it for its own if it has none."""
    agent, environment = start.agent, job.environment
    if environment is None:
        environment = start.config.environment
    if environment == "none":
        raise UserError("--env none: fine-tuning needs an environment to play in")
    environment = environment_of(dataset) if environment is None else environment
    environment = limit_episodes(environment, dataset.max_episode_length)
    try_environment(environment, agent)
    if agent.spec.environment is None:
        scores = agent.spec.reference_scores or reference_scores_of(dataset, environment)
        agent.spec = dataclasses.replace(
            agent.spec, environment=saved_name(environment), reference_scores=scores
        )
    return environment


def _train(job: _Job, start: _Start, dataset: TrajectoryDataset, resume: bool) -> TrainedRun:
    agent, config, folder = start.agent, start.config, job.folder
    check_agent(agent, dataset)
    mark = None if folder is None else fingerprint(dataset)
    if folder is not None and mark is not None and resume:
        check_same_data(folder, config, mark)
    environment = _environment(job, start, dataset)
    agent.train()
    evaluator = Evaluator(config, agent, environment, None, dataset.max_episode_length)
    buffer = ReplayBuffer(dataset, job.config.buffer_episodes)
    sampler = OnlineSampler(config, job.config, agent, environment, buffer)
    with closing(sampler), launched(config) as fabric, disk_errors(folder):
        if folder is not None:
            folder.begin(config.to_json())
        fabric.seed_everything(config.seed, verbose=False)
        trainer = OnlineTrainer(
            OnlineLearner(config, agent, sampler, fabric, schedule=lambda _: 1.0),
            evaluator,
            folder,
            fingerprint=mark,
            loggers=job.loggers,
            callbacks=job.callbacks,
            state=RunState(update=start.updates, train_seconds=start.train_seconds),
        )
        trainer.fit(resume)
        if folder is not None:
            done = dataclasses.replace(config, updates=trainer.state.update)
            write_json(folder.config, done.to_json())
        return result_of(
            trainer,
            dataset,
            environment,
            environment_steps=sampler.environment_steps,
            episodes_played=sampler.episodes,
            updates_before=start.updates,
        )
