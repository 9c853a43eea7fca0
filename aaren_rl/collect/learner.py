"""Stable-Baselines3's algorithms, made from a config, and their weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from aaren_rl.collect.config import CollectConfig
from aaren_rl.errors import FAILURES, UserError, one_line

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

ACTIONS: dict[str, Any] = {
    "sac": spaces.Box,
    "ppo": (spaces.Box, spaces.Discrete),
    "dqn": spaces.Discrete,
}
"""The action spaces that each algorithm takes."""
SMALLEST_IMAGE = 36  # pixels a side, for the convolutions of Stable-Baselines3
FIELDS = ("observations", "next_observations", "actions", "rewards", "terminations", "truncations")
PROGRESS_FILE = "progress.json"  # of a run; what it holds is in `aaren_rl.collect.training`
Steps = dict[str, NDArray[Any]]
"""`FIELDS`, each `[steps, ...]`."""


class Recorder(gymnasium.Wrapper):
    """Records every step."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._observation: Any = None
        self._rows: list[tuple[Any, ...]] = []

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._observation, info = self.env.reset(**options)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and record the step."""
        before, taken = np.copy(self._observation), np.copy(action)  # `step` may change the arrays
        result = self.env.step(action)
        self._observation, reward, terminated, truncated, _ = result
        arrays = (before, np.copy(self._observation), taken)
        self._rows.append((*arrays, float(reward), bool(terminated), bool(truncated)))
        return result

    def take(self) -> Steps:
        """The steps since the last call; the episode that is open is cut, so truncated, there."""
        steps = {
            field: np.stack(values)
            for field, values in zip(FIELDS, zip(*self._rows, strict=True), strict=True)
        }
        steps["truncations"][-1] |= not steps["terminations"][-1]
        self._rows = []
        return steps


def make_learner(config: CollectConfig, env: gymnasium.Env[Any, Any]) -> BaseAlgorithm:
    """A new learner in an environment, whose steps are recorded."""
    name = _algorithm_name(config, env.action_space)
    policy = _policy_name(config, env.observation_space)
    try:
        import stable_baselines3
        from stable_baselines3.common.vec_env import DummyVecEnv
    except ImportError:
        raise UserError(
            "aaren-rl collect learns with Stable-Baselines3, which is not installed: "
            "pip install 'aaren-rl[collect]'"
        ) from None
    own: dict[str, Any] = {"seed": config.seed, "device": config.device}
    if name != "ppo":
        own["buffer_size"] = min(config.buffer_size, config.train_steps)  # it is allocated at once
    given = config.algorithm_settings()
    for setting in {"policy", "env", *own} & given.keys():
        raise UserError(f"--settings {setting}: has a flag of its own or is fixed here")
    kind: type[BaseAlgorithm] = getattr(stable_baselines3, name.upper())
    try:
        return kind(policy, DummyVecEnv([lambda: Recorder(env)]), **own, **given)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"--settings {' '.join(config.settings)}: {name.upper()} does not take them: "
            f"{one_line(error)}"
        ) from error


def try_environment(config: CollectConfig, env: gymnasium.Env[Any, Any]) -> None:
    """Reset and step once by Stable-Baselines3's checker; `UserError` when it finds a fault."""
    from stable_baselines3.common.env_checker import check_env

    try:
        check_env(env, warn=False)
    except FAILURES as error:
        raise UserError(
            f"environment {config.environment!r}: does not work: {one_line(error)}"
        ) from error


def recorder_of(model: BaseAlgorithm) -> Recorder:
    """The recorder of a learner that `make_learner` made."""
    recorder: Recorder = model.env.envs[0]  # type: ignore[union-attr]
    return recorder


def random_share(model: BaseAlgorithm) -> float:
    """The share of random actions at the end of DQN's exploration; 0 for the others."""
    return float(getattr(model, "exploration_final_eps", 0.0))


def policy_tensors(model: BaseAlgorithm) -> dict[str, Tensor]:
    """The weights that act: the actor of SAC, the whole policy of the others."""
    prefix = "actor." if hasattr(model.policy, "actor") else ""
    state = model.policy.state_dict()
    return {name: tensor.clone() for name, tensor in state.items() if name.startswith(prefix)}


def load_policy_tensors(model: BaseAlgorithm, tensors: dict[str, Tensor]) -> None:
    """The inverse of `policy_tensors`; the policy's other weights stay as they are."""
    for name, tensor in policy_tensors(model).items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise UserError(f"policy: weights {name!r} of shape {list(tensor.shape)} expected")
    model.policy.load_state_dict({**model.policy.state_dict(), **tensors})


def weights_file(run: Path, step: int) -> Path:
    """Where a run keeps the policy that was evaluated after `step` steps."""
    return run / "policies" / f"{step:012d}.safetensors"


def _algorithm_name(config: CollectConfig, space: spaces.Space[Any]) -> str:
    """The algorithm for these actions; UserError where none, or not the chosen one, takes them."""
    where = f"{config.environment}: actions {space}"
    if not isinstance(space, (spaces.Box, spaces.Discrete)):
        raise UserError(f"{where}: Box or Discrete expected")
    if isinstance(space, spaces.Box) and not space.is_bounded():
        raise UserError(f"{where}: finite bounds expected")
    if isinstance(space, spaces.Discrete) and space.start != 0:
        raise UserError(f"{where}: Discrete from 0 expected")
    if config.algorithm == "auto":
        return "sac" if isinstance(space, spaces.Box) else "ppo"
    if not isinstance(space, ACTIONS[config.algorithm]):
        raise UserError(f"--algorithm {config.algorithm} cannot take the actions {space}")
    return config.algorithm


def _policy_name(config: CollectConfig, space: spaces.Space[Any]) -> str:
    """The policy for these observations: of perceptrons, or with convolutions for images.

    Raises:
        UserError: for other observations.
    """
    shape = space.shape or ()
    picture = space.dtype == np.uint8 and len(shape) > 1
    if isinstance(space, (spaces.Box, spaces.Discrete)) and not picture:
        return "MlpPolicy"
    if picture and len(shape) == 3 and sorted(shape)[1] >= SMALLEST_IMAGE:
        return "CnnPolicy"
    raise UserError(
        f"{config.environment}: observations {space}: a Box of numbers, Discrete, or uint8 images "
        f"of three dimensions and at least {SMALLEST_IMAGE} pixels a side expected"
    )
