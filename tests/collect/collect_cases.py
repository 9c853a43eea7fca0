"""Collections of seconds, and what two of them must share to be the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aaren_rl.collect import CollectConfig, collect

SMALL_NETS = 'policy_kwargs={"net_arch":[16,16]}'


def cartpole(folder: Path, **changes: Any) -> CollectConfig:
    """PPO in CartPole: six evaluations, the first of which are medium."""
    settings: dict[str, Any] = {
        "environment": "CartPole-v1",
        "train_steps": 1200,
        "evaluate_every": 300,
        "evaluation_episodes": 2,
        "reference_episodes": 4,
        "steps": 300,
        "settings": ("n_steps=128", "learning_rate=3e-3", SMALL_NETS),
        "root": folder / "minari",
        "out": folder / "run",
    }
    return CollectConfig(**{**settings, **changes})


def dqn(folder: Path, **changes: Any) -> CollectConfig:
    """DQN in CartPole, with a replay buffer that runs full."""
    settings = (
        *("learning_rate=1e-3", "learning_starts=100", "target_update_interval=20", "gamma=0.9"),
        *("batch_size=64", "train_freq=3", "gradient_steps=3"),
        'policy_kwargs={"net_arch":[32,32]}',
    )
    more: dict[str, Any] = {"algorithm": "dqn", "buffer_size": 700, "settings": settings}
    return cartpole(folder, **{**more, **changes})


def pendulum(folder: Path, **changes: Any) -> CollectConfig:
    """SAC in Pendulum, too short to be an expert; its buffer runs full too."""
    settings: dict[str, Any] = {
        "environment": "Pendulum-v1",
        "train_steps": 500,
        "evaluate_every": 230,
        "expert_return": -1000.0,
        "medium_score": 5.0,
        "buffer_size": 300,
        "settings": ("batch_size=32", "learning_rate=3e-3", "gamma=0.95", SMALL_NETS),
    }
    return cartpole(folder, **{**settings, **changes})


MAKERS = {"ppo": cartpole, "dqn": dqn, "sac": pendulum}


class Collections:
    """Finished collections by the algorithm's name, each made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, list[dict[str, Any]]] = {}

    def config(self, kind: str) -> CollectConfig:
        return MAKERS[kind](self._folder / kind)

    def rows(self, kind: str) -> list[dict[str, Any]]:
        if kind not in self._rows:
            self._rows[kind] = collect(self.config(kind))
        return self._rows[kind]

    def root(self, kind: str) -> Path:
        self.rows(kind)
        return self.config(kind).minari_root


def arrays(root: Path) -> dict[str, np.ndarray]:
    """All arrays of all datasets under a Minari root, by file and name."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(root.rglob("*.hdf5")):
        with h5py.File(path) as file:

            def keep(name: str, node: Any, path: Path = path) -> None:
                if isinstance(node, h5py.Dataset):
                    found[f"{path.relative_to(root)}:{name}"] = node[()]

            file.visititems(keep)
    return found


def assert_same_datasets(root: Path, wanted: Path) -> None:
    """The same arrays to the bit, the same policies and the same files."""
    ours, theirs = arrays(root), arrays(wanted)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert values.dtype == theirs[name].dtype, name
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)
    files = {file.relative_to(root) for file in root.rglob("*") if file.is_file()}
    assert files == {file.relative_to(wanted) for file in wanted.rglob("*") if file.is_file()}
    for file in files:
        if file.suffix in (".safetensors", ".json"):
            assert (root / file).read_bytes() == (wanted / file).read_bytes(), file
