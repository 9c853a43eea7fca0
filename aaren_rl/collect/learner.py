"""Stable-Baselines3's algorithms: made, and their whole state as tensors and JSON, no pickles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from aaren_rl.collect.config import CollectConfig
from aaren_rl.collect.history import BUFFER_ACTIONS, History, Steps
from aaren_rl.collect.recorder import Recorder
from aaren_rl.errors import UserError, one_line
from aaren_rl.training.checkpoint import optimizer_tensors, restore_optimizer

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

COUNTERS = (
    "num_timesteps",
    "_episode_num",
    "_n_updates",
    "_n_calls",
    "exploration_rate",
    "_current_progress_remaining",
)
KINDS: dict[str, Any] = {
    "sac": spaces.Box,
    "ppo": (spaces.Box, spaces.Discrete),
    "dqn": spaces.Discrete,
}


def algorithm_class(name: str) -> type[BaseAlgorithm]:
    """SAC, PPO or DQN of Stable-Baselines3.

    Raises:
        UserError: it is not installed.
    """
    try:
        import stable_baselines3
    except ImportError:
        raise UserError(
            "aaren-rl collect learns with Stable-Baselines3, which is not installed: "
            "pip install 'aaren-rl[collect]'"
        ) from None
    kind: type[BaseAlgorithm] = getattr(stable_baselines3, name.upper())
    return kind


def algorithm_name(config: CollectConfig, action_space: spaces.Space[Any]) -> str:
    """What `--algorithm auto` means for these actions.

    Raises:
        UserError: an algorithm that cannot take them, or actions that none can.
    """
    if not isinstance(action_space, (spaces.Box, spaces.Discrete)):
        raise UserError(f"{config.environment}: actions {action_space}: Box or Discrete expected")
    if isinstance(action_space, spaces.Box) and not action_space.is_bounded():
        raise UserError(f"{config.environment}: actions {action_space}: finite bounds expected")
    if isinstance(action_space, spaces.Discrete) and action_space.start != 0:
        raise UserError(f"{config.environment}: actions {action_space}: Discrete from 0 expected")
    if config.algorithm == "auto":
        return "sac" if isinstance(action_space, spaces.Box) else "ppo"
    if not isinstance(action_space, KINDS[config.algorithm]):
        raise UserError(f"--algorithm {config.algorithm} cannot take the actions {action_space}")
    return config.algorithm


def check_observations(config: CollectConfig, space: spaces.Space[Any]) -> None:
    """Raise UserError unless one array of numbers, not a picture, is what is seen."""
    if not isinstance(space, (spaces.Box, spaces.Discrete)) or (
        space.dtype == np.uint8 and len(space.shape or ()) > 1
    ):
        raise UserError(
            f"{config.environment}: observations {space}: a Box of numbers (no picture) or "
            "Discrete expected"
        )


def make_learner(config: CollectConfig, recorder: Recorder) -> BaseAlgorithm:
    """A new learner in the recorder's environment.

    Raises:
        UserError: Stable-Baselines3 is missing, or does not take the settings.
    """
    name = algorithm_name(config, recorder.action_space)
    kind = algorithm_class(name)
    from stable_baselines3.common.vec_env import DummyVecEnv

    own: dict[str, Any] = {} if name == "ppo" else {"buffer_size": config.buffer_size}
    given = config.algorithm_settings()
    fixed = {"policy", "env", "seed", "device", *own}
    for setting in fixed & given.keys():
        raise UserError(f"--settings {setting}: has a flag of its own or is fixed here")
    try:
        # not wrapped in SB3's Monitor, which could not go on in the middle of an episode
        return kind(
            "MlpPolicy",
            DummyVecEnv([lambda: recorder]),
            seed=config.seed,
            device=config.device,
            **own,
            **given,
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"--settings {' '.join(config.settings)}: {name.upper()} does not take them: "
            f"{one_line(error)}"
        ) from error


def random_share(model: BaseAlgorithm) -> float:
    """The share of random actions at the end of DQN's exploration; 0 for the others."""
    return float(getattr(model, "exploration_final_eps", 0.0))


def policy_tensors(model: BaseAlgorithm) -> dict[str, Tensor]:
    """What acts, alone: the actor of SAC, the whole policy of the others."""
    prefix = "actor." if hasattr(model.policy, "actor") else ""
    state = model.policy.state_dict()
    return {name: tensor.clone() for name, tensor in state.items() if name.startswith(prefix)}


def load_policy_tensors(model: BaseAlgorithm, tensors: dict[str, Tensor]) -> None:
    """The inverse of `policy_tensors`; what else the policy has stays as it is.

    Raises:
        UserError: tensors of another network.
    """
    state = model.policy.state_dict()
    wanted = policy_tensors(model)
    for name, tensor in wanted.items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise UserError(f"policy: weights {name!r} of shape {list(tensor.shape)} expected")
    model.policy.load_state_dict({**state, **tensors})


def learner_state(model: BaseAlgorithm) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """All of a learner but its replay buffer, which the history gives again.

    Only between two rollouts: PPO's own buffer is empty then.
    """
    values: dict[str, Any] = {key: getattr(model, key) for key in COUNTERS if hasattr(model, key)}
    values["actions_generator"] = model.action_space.np_random.bit_generator.state
    values["episode_starts"] = np.asarray(model._last_episode_starts).tolist()
    tensors: dict[str, Tensor] = {}
    for name, part in _parts(model).items():
        if isinstance(part, torch.optim.Optimizer):
            names = [str(index) for index in range(_size(part))]
            stored = optimizer_tensors(part, names)
        else:
            stored = part.state_dict()
        tensors |= {f"{name}/{key}": tensor for key, tensor in stored.items()}
    for name in model._get_torch_save_params()[1]:
        tensors[f"variable/{name}"] = getattr(model, name).detach()
    return values, tensors


def restore_learner(
    model: BaseAlgorithm, values: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """The inverse of `learner_state`, for a learner made with the same settings."""
    for name, part in _parts(model).items():
        prefix = f"{name}/"
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if isinstance(part, torch.optim.Optimizer):
            restore_optimizer(part, [str(index) for index in range(_size(part))], own)
        else:
            part.load_state_dict(own)
    for name in model._get_torch_save_params()[1]:
        getattr(model, name).data.copy_(tensors[f"variable/{name}"])
    for key in COUNTERS:
        if key in values:
            setattr(model, key, values[key])
    model.action_space.np_random.bit_generator.state = values["actions_generator"]
    model._last_episode_starts = np.array(values["episode_starts"])


def buffer_actions(model: BaseAlgorithm, start: int, stop: int) -> Steps:
    """The actions of steps as the replay buffer has them, scaled; nothing without a buffer."""
    buffer = getattr(model, "replay_buffer", None)
    if buffer is None or start == stop:
        return {}
    return {BUFFER_ACTIONS: buffer.actions[np.arange(start, stop) % buffer.buffer_size, 0]}


def refill_buffer(model: BaseAlgorithm, history: History, steps: int) -> None:
    """Fill the replay buffer with what it held after `steps` steps."""
    buffer = getattr(model, "replay_buffer", None)
    if buffer is None:
        return
    for first, part in history.pieces(max(steps - buffer.buffer_size, 0), steps):
        count = len(part["rewards"])
        rows = np.arange(first, first + count) % buffer.buffer_size
        shape = (count, *buffer.obs_shape)
        buffer.observations[rows, 0] = part["observations"].reshape(shape)
        buffer.next_observations[rows, 0] = part["next_observations"].reshape(shape)
        buffer.actions[rows, 0] = part[BUFFER_ACTIONS]
        buffer.rewards[rows, 0] = part["rewards"]
        buffer.dones[rows, 0] = part["terminations"] | part["truncations"]
        buffer.timeouts[rows, 0] = part["truncations"] & ~part["terminations"]
    buffer.full, buffer.pos = steps >= buffer.buffer_size, steps % buffer.buffer_size


def _parts(model: BaseAlgorithm) -> dict[str, Any]:
    """The learner's networks and optimisers, by SB3's own list."""
    found = {}
    for name in model._get_torch_save_params()[0]:
        part: Any = model
        for word in name.split("."):
            part = getattr(part, word)
        found[name] = part
    return found


def _size(optimizer: torch.optim.Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)
