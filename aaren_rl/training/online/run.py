"""One fine-tuning from its settings to its results: everything is checked before work begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from aaren_rl.agents import Agent, load_agent
from aaren_rl.agents.loading import checkpoint_folder
from aaren_rl.data import TrajectoryDataset
from aaren_rl.envs import environment_of, limit_episodes, reference_scores_of, saved_name
from aaren_rl.errors import UserError
from aaren_rl.evaluation import try_environment
from aaren_rl.files import read_json, remove_leftovers, write_json
from aaren_rl.records import flag, typed
from aaren_rl.training.allocator import keep_freed_memory
from aaren_rl.training.build import launched, load_data
from aaren_rl.training.callbacks import Callback
from aaren_rl.training.checkpoint import load_progress
from aaren_rl.training.config import TrainConfig
from aaren_rl.training.evaluator import Evaluator
from aaren_rl.training.loggers import Logger, make_logger
from aaren_rl.training.online.buffer import ReplayBuffer
from aaren_rl.training.online.config import FinetuneConfig
from aaren_rl.training.online.sampler import OnlineLearner, OnlineSampler
from aaren_rl.training.online.trainer import OnlineTrainer
from aaren_rl.training.resume import absolute_dataset, check_same_data, fingerprint, saved_config
from aaren_rl.training.run import check_agent, disk_errors
from aaren_rl.training.run_folder import RunFolder
from aaren_rl.training.trained_run import TrainedRun, result_of, run_in


@dataclass(frozen=True)
class _Start:
    """What fine-tuning begins with.

    Attributes:
        agent: trained already.
        config: how it was trained.
        begun: updates that it has had, and the seconds that they took.
    """

    agent: Agent
    config: TrainConfig
    begun: tuple[int, float]


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
            folder, or an agent whose head predicts no distribution to draw from.
        Interrupted: after Ctrl-C; with a folder the run can be resumed.
    """
    if isinstance(run, FinetuneConfig):
        named = [make_logger(name) for name in run.loggers]
        return _finetune(run, RunFolder(run.run_folder), named).summary
    trained = run if isinstance(run, TrainedRun) else None
    place = Path("run") if trained is not None and trained.folder is None else Path(_place(run))
    known = {field.name for field in dataclasses.fields(FinetuneConfig)}
    for name in settings.keys() - (known - {"run", "environment", "loggers"}):
        raise UserError(f"finetune() has no setting {name!r}")
    if isinstance(target := settings.get("target_return"), (int, float)):
        settings["target_return"] = (target,)
    environment = env if isinstance(env, str) else None
    where = None if out is None else Path(out)
    config = FinetuneConfig(run=place, environment=environment, out=where, **settings)
    config = typed(config, "finetune()")
    if config.resume and where is None:
        raise UserError("resume=True needs out=")
    if loggers is None:
        loggers = config.loggers if where is not None else ()
    folder = None if where is None else RunFolder(where)
    own = trained if trained is not None and trained.folder is None else None
    other = None if isinstance(env, str) else env
    made = [make_logger(each) for each in loggers]
    return _finetune(config, folder, made, own, data, other, callbacks)


def _place(run: Path | str | TrainedRun) -> Path:
    place = run.folder if isinstance(run, TrainedRun) else Path(run)
    assert place is not None
    return place


def _finetune(
    config: FinetuneConfig,
    folder: RunFolder | None,
    loggers: Sequence[Logger],
    own: TrainedRun | None = None,
    data: TrajectoryDataset | None = None,
    env: Any = None,
    callbacks: Sequence[Callback] = (),
) -> TrainedRun:
    """Check the settings, claim the folder, train."""
    config.check()
    resume = folder is not None and folder.online.exists() and folder.has_checkpoint
    start, given = _start(config, folder if resume else None, own), config
    config, start = _settled(config, start)
    with nullcontext() if folder is None else folder.claimed():
        if folder is not None:
            _claim(folder, given)
        if resume and folder is not None and folder.summary.exists():
            summary = read_json(folder.summary)
            if summary.get("environment_steps", 0) >= config.steps:
                return run_in(folder, summary, start.config)
        if own is not None and data is None:
            raise UserError("finetune() needs data=: the run that was given has no folder")
        dataset = load_data(start.config) if data is None else data
        if folder is not None and not resume:
            write_json(folder.online, {**given.to_json(), "begun": start.begun})
        return _train(config, start, folder, loggers, dataset, env, callbacks, resume)


def _claim(folder: RunFolder, config: FinetuneConfig) -> None:
    """Raise `UserError` unless the folder is free, or its run can go on as `config` says."""
    where = f"--out {folder.path}"
    if not folder.config.exists():
        if config.resume:
            raise UserError(f"--resume: no run in {folder.path} to go on with")
        return
    if not folder.online.exists():
        raise UserError(f"{where}: already holds a run of aaren-rl train; choose another folder")
    if not config.resume:
        raise UserError(f"{where}: already holds a run; give --resume to go on with it")
    before, now = read_json(folder.online), config.to_json()
    differing = [
        f"{flag(name)} {before.get(name)} there, {now[name]} here"
        for name in now
        if before.get(name) != now[name]
    ]
    if differing:
        raise UserError(f"{where}: already holds a different run ({'; '.join(differing)})")
    remove_leftovers(folder.path)


def _start(config: FinetuneConfig, resumed: RunFolder | None, own: TrainedRun | None) -> _Start:
    """The agent to begin with, or of the run to go on with; see `_Start`."""
    if own is not None and resumed is None:
        begun = own.summary["updates"], own.summary["train_seconds"]
        return _Start(own.agent, dataclasses.replace(own.config, init_from=None), begun)
    place = RunFolder(config.run) if resumed is None else resumed
    trained = saved_config(place)
    if trained is None:
        raise UserError(f"{place.path}: not a training run: it has no {place.config.name}")
    checkpoint = config.checkpoint if resumed is None else "last"
    found = checkpoint_folder(place.path, checkpoint)
    progress = load_progress(found)[1]
    if resumed is not None:
        begun = tuple(read_json(resumed.online)["begun"])
    else:
        begun = progress.get("update", 0), progress.get("train_seconds") or 0.0
        trained = dataclasses.replace(trained, init_from=config.run)
    return _Start(load_agent(found), trained, begun)


def _settled(config: FinetuneConfig, start: _Start) -> tuple[FinetuneConfig, _Start]:
    """Both with all that was left open; the training's config is that of the new run.

    Raises:
        UserError: for settings that mean nothing to the agent.
    """
    agent, before = start.agent, start.config
    agent.check_draws(config.temperature)
    mode = config.mode or before.mode
    agent.check_request(mode, (), agent.config.condition)
    agent.check_request(target_return=config.target_return, condition=agent.config.condition)
    asked = config.exploration_return
    if agent.asks_return:
        usual = agent.usual_target or 0.0
        asked = usual + abs(usual) if asked is None else asked
    elif asked is not None:
        raise UserError(f"--exploration-return: {agent.name} cannot be asked for a return")
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
        mode=mode,
        learning_rate=config.learning_rate,
        schedule="constant",
        warmup=0.0,
        batch_size=config.batch_size or before.batch_size,
        updates=start.begun[0] + config.updates_per_episode,  # until it is known
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
    trained.check(type(agent))
    config = dataclasses.replace(config, exploration_return=asked)
    return config, dataclasses.replace(start, config=trained)


def _train(
    config: FinetuneConfig,
    start: _Start,
    folder: RunFolder | None,
    loggers: Sequence[Logger],
    dataset: TrajectoryDataset,
    env: Any,
    callbacks: Sequence[Callback],
    resume: bool,
) -> TrainedRun:
    agent, trained = start.agent, start.config
    if agent.spec.observation_offset:
        raise UserError(f"{agent.name}: observations that are shifted in float64 cannot be played")
    check_agent(agent, dataset)
    mark = None if folder is None else fingerprint(dataset)
    if folder is not None and mark is not None and resume:
        check_same_data(folder, trained, mark)
    environment = trained.environment if env is None else env
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
    agent.train()
    evaluator = Evaluator(trained, agent, environment, None, dataset.max_episode_length)
    buffer = ReplayBuffer(dataset, config.buffer_episodes)
    with launched(trained) as fabric, disk_errors(folder):
        if folder is not None:
            folder.summary.unlink(missing_ok=True)
            write_json(folder.config, trained.to_json())
        fabric.seed_everything(trained.seed, verbose=False)
        if fabric.device.type == "cpu":
            keep_freed_memory()
        with closing(OnlineSampler(trained, config, agent, environment, buffer)) as sampler:
            learner = OnlineLearner(trained, agent, sampler, fabric, schedule=lambda _: 1.0)
            trainer = OnlineTrainer(
                learner,
                evaluator,
                folder,
                begun=start.begun,
                fingerprint=mark,
                loggers=loggers,
                callbacks=callbacks,
            )
            trainer.fit(resume and folder is not None and folder.has_checkpoint)
            played = sampler.environment_steps, sampler.episodes
            if folder is not None:
                done = dataclasses.replace(trained, updates=trainer.state.update)
                write_json(folder.config, done.to_json())
            return result_of(
                trainer,
                dataset,
                environment,
                environment_steps=played[0],
                episodes_played=played[1],
                updates_before=start.begun[0],
            )
