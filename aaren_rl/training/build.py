"""What a training needs, made from its config: data, agent, sampler, processes."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from aaren_rl.agents import Agent, AgentConfig, AgentSpec, load_agent
from aaren_rl.agents.policy import check_float32
from aaren_rl.agents.spec import TaskSpec
from aaren_rl.data import (
    EpisodeSampler,
    Sampler,
    StreamSampler,
    TrajectoryDataset,
    WindowSampler,
    load_dataset,
)
from aaren_rl.data.episode import warn_once
from aaren_rl.data.hindsight import HindsightGoals, goal_columns
from aaren_rl.data.mixture import MixedDataset, mix, weighted_names
from aaren_rl.data.sources.load import with_spaces_of
from aaren_rl.data.statistics import WIDE, wide_parts
from aaren_rl.envs import (
    EnvLike,
    make_env,
    reference_scores_of,
    robot_of_dataset,
    saved_name,
)
from aaren_rl.errors import UserError, one_line
from aaren_rl.layers import sees_images, usual_image_encoder
from aaren_rl.layout import Layout
from aaren_rl.robots import Robot
from aaren_rl.training.allocator import give_freed_memory_back, keep_freed_memory
from aaren_rl.training.config import TrainConfig, TrainSettings, agent_class
from aaren_rl.training.presets import PRESETS

SMALLEST_IMAGE = 16  # pixels a side


def load_data(config: TrainSettings, env: EnvLike | None = None) -> TrajectoryDataset:
    """The data that the settings name, with the spaces of the environment, if one is given.

    It is `env`, else the one that the settings name.
    """
    names = weighted_names(config.dataset)
    if len(names) > 1 and config.data_on == "disk":
        raise UserError("--data-on disk: several datasets are mixed in memory only")
    options: dict[str, Any] = {
        "on": config.data_on,
        "cache": config.data_cache,
        "keep_unfinished_episode": config.keep_unfinished_episode,
    }
    if config.episode_length is not None:
        options["episode_length"] = config.episode_length
    env = config.environment if env is None else env
    if env not in (None, "none"):
        options["env"] = _as_source(env)
    parts = [(load_dataset(name, **options), weight) for name, weight in names]
    return parts[0][0] if len(parts) == 1 else mix(parts)


def _as_source(env: EnvLike) -> Any:
    """An environment as `load_dataset` takes it, with the checks and the wrappers of `make_env`."""
    return env if isinstance(env, VectorEnv) else lambda: make_env(env)


def in_spaces_of(env: EnvLike | None, data: TrajectoryDataset) -> TrajectoryDataset:
    """Data in memory with the environment's spaces, unless they name an environment themselves."""
    if env is None or env == "none":
        return data
    if isinstance(data, MixedDataset):
        return data.each(lambda part: in_spaces_of(env, part))
    return data if data.env_spec is not None else with_spaces_of(data, _as_source(env))


def make_sampler(
    config: TrainConfig, dataset: TrajectoryDataset, rank: int, world_size: int
) -> Sampler:
    """The sampler that `--sampling` names, for one of several processes."""
    goals = None
    if config.model.condition == "goal":
        goals = HindsightGoals(dataset, config.seed)
    shared: dict[str, Any] = {"seed": config.seed, "goals": goals}
    shared |= {"rank": rank, "world_size": world_size}
    if config.sampling == "episodes":
        steps = config.batch_steps or config.batch_size * config.model.context_length
        return EpisodeSampler(dataset, batch_steps=steps, **shared)
    shared["context_length"] = config.model.context_length
    shared["batch_size"] = config.batch_size
    if config.sampling == "streams":
        return StreamSampler(dataset, **shared)
    return WindowSampler(dataset, **shared, inside=config.windows == "inside")


def is_leader() -> bool:
    """Whether this is the first process, or the only one: launchers set these variables."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "NODE_RANK"))


def resolved_precision(config: TrainSettings) -> Literal["32", "bf16"]:
    """`--precision`, with `auto` as `bf16` where matrix units multiply it, else `32`.

    On a CPU these are Intel's AMX tiles: with them an update takes half as long. With vector
    instructions alone bfloat16 was slower than float32 on one machine (benchmarks/README.md).
    """
    if config.precision != "auto":
        return config.precision
    if config.device != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "32"


class Autocast(MixedPrecision):
    """bfloat16 arithmetic on batches that stay float32.

    Fabric would round returns-to-go, observations and actions to bfloat16, whose integers are exact
    up to 256 only.
    """

    def convert_input(self, data: Any) -> Any:
        """The batch, unchanged."""
        return data


def check_agent(agent: Agent, data: TrajectoryDataset) -> None:
    """Raise `UserError` when the agent cannot learn from these data."""
    if any(parameter.is_inference() for parameter in agent.parameters()):
        raise UserError(
            f"{agent.name} was made inside torch.inference_mode(), so it cannot learn: make it "
            "outside"
        )
    agent.check_horizon(data.max_episode_length, f"an episode of {data.name}")
    for kind in ("observation_space", "action_space"):
        own, theirs = getattr(agent.spec, kind), getattr(data, kind)
        if Layout.of(own).form != Layout.of(theirs).form:
            raise UserError(f"{kind}: the agent was made for {own}, the data have {theirs}")
    check_float32(agent)


@contextmanager
def launched(config: TrainConfig) -> Iterator[Fabric]:
    """Lightning Fabric with its processes started; an error ends those that still run."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    devices, hosts = processes(config)
    strategy = "ddp" if devices * hosts > 1 else "auto"
    autocast = "cpu" if config.device == "cpu" or not torch.cuda.is_available() else "cuda"
    try:
        fabric = Fabric(
            accelerator="gpu" if config.device == "cuda" else config.device,
            devices=devices,
            num_nodes=hosts,
            strategy=strategy,
            plugins=[Autocast("bf16-mixed", autocast)] if config.precision == "bf16" else None,
        )
    except Exception as error:
        reason = one_line(error)
        raise UserError(f"--device {config.device} --devices {devices}: {reason}") from None
    try:
        fabric.launch()
        if fabric.device.type == "cpu":
            keep_freed_memory()
        yield fabric
    except BaseException:  # the others would wait for this process for ever
        for process in getattr(fabric.strategy.launcher, "procs", ()):
            process.kill()
        raise
    finally:
        give_freed_memory_back()


def processes(config: TrainConfig) -> tuple[int, int]:
    """Processes on each host, and hosts: `--devices` on one, or what torchrun has started."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return config.devices, 1
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if config.batch_size % world:
        raise UserError(
            f"torchrun's {world} processes must divide --batch-size ({config.batch_size})"
        )
    return local, world // local


def split(data: TrajectoryDataset, share: float) -> tuple[TrajectoryDataset, TrajectoryDataset]:
    """Training and held-out episodes; the same split for every seed and agent.

    Of at least two episodes, at least one is held out, and one stays.
    """
    order = np.random.default_rng(0).permutation(data.num_episodes)
    count = min(max(1, round(share * data.num_episodes)), data.num_episodes - 1)
    return data.subset(np.sort(order[count:])), data.subset(np.sort(order[:count]))


def build_agent(
    config: TrainConfig,
    dataset: TrajectoryDataset,
    environment: EnvLike | None,
    source: Agent | None = None,
    saved: Agent | None = None,
) -> Agent:
    """A new agent for the dataset's task, with the dataset's statistics.

    With `config.init_from` the first weights are that agent's, and so are the scales of
    observations and returns, which belong to the weights.

    Args:
        config: all settings.
        dataset: what it will learn from.
        environment: where it will act; `None` for nowhere. One for each task of several datasets.
        source: the agent of `config.init_from`, if it is loaded already.
        saved: the agent whose weights will be loaded, which gives its shape and the units of its
            actions; else `config.model`, with what suits the task, and what suits the data.

    Raises:
        UserError: settings that do not fit the data, or an agent that cannot be started from.
    """
    if config.init_from is not None and source is None:
        source = load_agent(config.init_from)
    if not isinstance(dataset, MixedDataset):
        spec = _spec_of(config, dataset, environment, source)
    elif source is None:
        spec = _spec_of_tasks(config, dataset, environment)
    else:
        raise UserError(f"--init-from {config.init_from}: not with several datasets")
    spec = dataclasses.replace(spec, wide_actions=_wide_actions(dataset, saved or source))
    if config.model.task_embedding and not spec.tasks:
        raise UserError("--task-embedding needs several datasets, see --dataset")
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    start = None if source is None else source.config
    model = suited(config.model, spec, start) if saved is None else saved.config
    if config.normalize_observations:
        mean, std = dataset.observation_statistics(pixels=not sees_images(model.encoder))
        if model.condition == "goal":
            goals_as_achieved(spec, mean, std)
    agent = agent_class(config.agent)(model, spec, mean, std)
    if not agent.actions.bounded:
        agent.actions.standardise(*dataset.action_statistics())
    if source is not None:
        _start_from(agent, source, f"--init-from {config.init_from}")
    return agent


def _wide_actions(data: TrajectoryDataset, source: Agent | None) -> tuple[bool, ...]:
    """`AgentSpec.wide_actions`: by the data, or as the weights that are loaded were trained."""
    if source is not None:
        return source.spec.wide_actions
    wide = wide_parts(data.actions, data.action_space)
    leaves = Layout.of(data.action_space).leaves
    for leaf in (leaf for leaf, own in zip(leaves, wide, strict=True) if own):
        where = f"actions {leaf.name}" if leaf.path else "actions"
        warn_once(
            f"{data.name}: {where}: the bounds of {' '.join(str(leaf.space).split()):.90} are over "
            f"{WIDE:,g} times as wide as the data: they are learned in units of the data instead"
        )
    return wide if any(wide) else ()


def _spec_of_tasks(config: TrainConfig, data: MixedDataset, environments: Any) -> AgentSpec:
    """The spec of an agent that learns from several datasets, each with its own returns' scale."""
    where = environments if environments is not None else [None] * len(data.parts)
    specs = [_spec_of(config, part, env) for part, env in zip(data.parts, where, strict=True)]
    names = [each.name for each in dataclasses.fields(TaskSpec)]
    tasks = tuple(TaskSpec(**{name: getattr(spec, name) for name in names}) for spec in specs)
    alone: dict[str, Any] = {"returns_scale": 1.0, "returns_shift": 0.0, "largest_return": None}
    alone |= {"target_returns": (), "reference_scores": None, "environment": None}
    return dataclasses.replace(specs[0], **alone, dataset=data.name, tasks=tasks)


def _spec_of(
    config: TrainConfig,
    dataset: TrajectoryDataset,
    environment: EnvLike | None,
    source: Agent | None = None,
) -> AgentSpec:
    robot = robot_of_dataset(dataset, environment)
    shift, scale = _returns_scale(config, dataset, robot)
    if source is not None:
        shift, scale = source.spec.returns_shift, source.spec.returns_scale
    offset = dataset.observation_offset
    offsets = () if offset is None else tuple(offset.tolist())
    if source is not None and source.spec.observation_offset != offsets:
        raise UserError(
            f"--init-from {config.init_from}: it was trained on observations with another offset "
            "(see TrajectoryDataset.observation_offset)"
        )
    usual = robot.target_for(dataset.name) if robot else float(dataset.episode_returns.max())
    return AgentSpec(
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        returns_scale=scale,
        returns_shift=shift,
        largest_return=dataset.largest_return_to_go,
        target_returns=config.target_return or (usual,),
        reference_scores=reference_scores_of(dataset, environment),
        environment=saved_name(environment),
        dataset=dataset.name,
        longest_episode=dataset.max_episode_length,
        observation_offset=offsets,
    )


def goals_as_achieved(spec: AgentSpec, mean: np.ndarray, std: np.ndarray) -> None:
    """Give desired goals the statistics of the achieved ones, which replace them in training."""
    achieved, desired = goal_columns(spec.observation_layout)
    std[desired], mean[desired] = std[achieved], mean[achieved]
    if spec.observation_offset:
        offset = np.array(spec.observation_offset)
        mean[desired] += (offset[achieved] - offset[desired]).astype(np.float32)


def suited(model: AgentConfig, spec: AgentSpec, source: AgentConfig | None = None) -> AgentConfig:
    """The config with what images and the condition need, where nothing else is named.

    Images get an encoder; below 16 pixels a side, as MiniGrid's 7 x 7 cells, they may be codes and
    keep `linear`. Agents that see images, or predict the return they act on, get heads that forget:
    one frame shows no velocity, and the next return follows from the last ones, but to a mean over
    all steps so far the last two count as little as any (docs/control.md).

    Args:
        model: the config; a `recency` that is not empty, and several heads, stay as they are.
        spec: the observations.
        source: the config of the agent to start from, whose heads are taken.
    """
    leaves = [leaf for leaf in spec.observation_layout.leaves if leaf.is_image]
    large = [leaf.shape for leaf in leaves if sorted(leaf.shape)[-2] >= SMALLEST_IMAGE]
    if large and model.encoder == "linear":
        name = usual_image_encoder(min(large, key=lambda shape: sorted(shape)[-2:]))
        model = dataclasses.replace(model, encoder=name)
    usual: AgentConfig = source or PRESETS["control"]["model"]
    named = model.heads > 1 or model.recency or model.width % usual.heads
    if (large or model.condition == "max-return") and not named:
        model = dataclasses.replace(model, heads=usual.heads, recency=usual.recency)
    return model


def _start_from(agent: Agent, source: Agent, flag: str) -> None:
    if source.name != agent.name:
        raise UserError(f"{flag}: holds a {source.name}; --agent {agent.name} was asked for")
    try:
        agent.load_state_dict(source.state_dict())
    except RuntimeError as error:
        raise UserError(f"{flag}: its shape does not fit ({one_line(error)})") from None


def _returns_scale(
    config: TrainConfig, dataset: TrajectoryDataset, robot: Robot | None
) -> tuple[float, float]:
    """Shift and scale of returns-to-go before their embedding.

    Without a shift those of a good episode are all far from zero, where the layer norm behind the
    embedding turns them into nearly the same token.
    """
    if config.returns_scale is not None:
        return 0.0, config.returns_scale
    if config.standardize_returns:
        return dataset.returns_to_go_statistics()
    if robot is not None:
        return 0.0, 1000.0
    return 0.0, float(np.abs(dataset.episode_returns).max()) or 1.0
