"""The learner's policies, kept at every evaluation and beside the data that they made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from aaren_rl.collect.config import CollectConfig
from aaren_rl.collect.learner import load_policy_tensors, make_learner
from aaren_rl.collect.recorder import Recorder
from aaren_rl.envs.vector import environment_spec, make_env
from aaren_rl.files import read_json, read_tensors, write_json, write_tensors

if TYPE_CHECKING:
    from stable_baselines3.common.policies import BasePolicy

WEIGHTS_FILE, CARD_FILE = "policy.safetensors", "policy.json"


def weights_file(run: Path, step: int) -> Path:
    """Where a run keeps the policy that was evaluated after `step` steps."""
    return run / "policies" / f"{step:012d}.safetensors"


def save_policy(folder: Path, tensors: dict[str, Tensor], card: dict[str, Any]) -> None:
    """Write a policy with its card, which says how to build it again.

    Args:
        folder: new, or there already.
        tensors: of `policy_tensors`.
        card: at least `config`, a `CollectConfig` as JSON.
    """
    folder.mkdir(exist_ok=True)
    write_tensors(folder / WEIGHTS_FILE, tensors)
    write_json(folder / CARD_FILE, card)


def load_policy(folder: Path | str) -> BasePolicy:
    """The Stable-Baselines3 policy beside a dataset: `NAME/medium-v0/policy`.

    `policy.predict(observations)` gives its actions.

    Raises:
        UserError: no policy there, or Stable-Baselines3 is not installed.
    """
    folder = Path(folder)
    card = read_json(folder / CARD_FILE)
    config = CollectConfig.from_json({**card["config"], "device": "cpu"}, folder / CARD_FILE)
    env = make_env(environment_spec(config.environment))
    try:
        model = make_learner(config, Recorder(env))
    finally:
        env.close()
    load_policy_tensors(model, read_tensors(folder / WEIGHTS_FILE))
    return model.policy
