"""Act with an exported agent on numpy and ONNX Runtime alone: this package is not imported.

aaren-rl export runs/hopper --out step.onnx
python examples/deploy/numpy_policy.py step.onnx
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort


class Policy:
    """One environment's policy: `act(observation, reward)`, and `reset()` before an episode.

    Args:
        file: the exported step; its card lies beside it, `.json` after its name.
        target_return: the return to ask for; the card's first target when `None`.
    """

    def __init__(self, file: Path, target_return: float | None = None) -> None:
        self.card = json.loads(file.with_name(file.name + ".json").read_text())
        self.session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.target = target_return
        if target_return is None and self.card["target_returns"]:
            self.target = self.card["target_returns"][0]
        self.inputs = {each["name"]: each for each in self.card["inputs"]}
        self.reset()

    def reset(self) -> None:
        """Fill the state as the card says: a number, or the target return."""
        values = self.card["reset_state"].items()
        self.state = {
            name: self.array(name, self.target if value == "target_return" else value)
            for name, value in values
        }

    def array(self, name: str, value: object) -> np.ndarray:
        """A value as the input `name` takes it, for one environment."""
        shape = [1 if size == "batch" else size for size in self.inputs[name]["shape"]]
        flat = np.asarray(value, self.inputs[name]["dtype"]).reshape(-1)
        return np.broadcast_to(flat, (int(np.prod(shape)),)).reshape(shape)

    def act(self, observation: np.ndarray, reward: float = 0.0) -> np.ndarray:
        """The next action; `reward` is what the last one earned, 0 at an episode's start."""
        numbers = {"observation": observation, "reward": reward}
        feeds = {name: self.array(name, x) for name, x in numbers.items() if name in self.inputs}
        names = [each["name"] for each in self.card["outputs"]]
        outputs = dict(zip(names, self.session.run(names, {**feeds, **self.state}), strict=True))
        self.state = {into: outputs[name] for name, into in self.card["state"].items()}
        return (
            outputs["action"].reshape(self.card["action_shape"]).astype(self.card["action_dtype"])
        )


if __name__ == "__main__":
    policy = Policy(Path(sys.argv[1]))
    for step in range(3):
        print(policy.act(np.zeros(policy.card["observation_shape"]), 0.0 if step == 0 else 1.0))
