"""The learner's policies, beside the data that they made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aaren_rl.collect.config import CollectConfig
from aaren_rl.collect.learner import load_policy_tensors, make_learner
from aaren_rl.envs.make import close_env, environment_spec, make_env
from aaren_rl.errors import UserError
from aaren_rl.files import read_card, read_tensors

if TYPE_CHECKING:
    from stable_baselines3.common.policies import BasePolicy

WEIGHTS_FILE, CARD_FILE = "policy.safetensors", "policy.json"


def load_policy(folder: Path | str) -> BasePolicy:
    """The Stable-Baselines3 policy beside a dataset: `NAME/medium-v0/policy`.

    `policy.predict(observations)` gives its actions. Nothing is unpickled: the policy is made
    anew from the settings in `policy.json` and takes the weights of `policy.safetensors`.
    """
    card_file = Path(folder) / CARD_FILE
    card = read_card(card_file)
    if not isinstance(card, dict) or not isinstance(card.get("config"), dict):
        raise UserError(f"{card_file}: not the card of a policy")
    config = CollectConfig.from_json({**card["config"], "device": "cpu"}, card_file)
    env = make_env(environment_spec(config.environment))
    try:
        model = make_learner(config, env)
    finally:
        close_env(env)
    load_policy_tensors(model, read_tensors(Path(folder) / WEIGHTS_FILE))
    return model.policy
