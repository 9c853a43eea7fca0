"""Shared fixtures; one thread a process, since the suite runs in two.

Processes that tests start have one too: with more than the cores hold, threads wait for each other.
(The notebook took 113 s of the suite, and 34 s with one thread.)
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background jobs so
    signal.signal(signal.SIGINT, signal.default_int_handler)


def tiny_config(out: Path, **changes: Any) -> Any:
    """A run of a third of a second on the shipped Hopper data, evaluation in MuJoCo included."""
    from aaren_rl.agents import AgentConfig
    from aaren_rl.training import TrainConfig

    shape = {"width": 16, "layers": 1, "context_length": 5, **changes.pop("model", {})}
    settings = {
        "updates": 30,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "evaluate_every": 15,
        "episodes": 2,
        "log_every": 5,
        "held_out": 0.0,
        "device": "cpu",
        "precision": "32",
    }
    return TrainConfig(out=out, model=AgentConfig(**shape), **{**settings, **changes})


@pytest.fixture
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it: others walk through all agents and mixers."""
    from aaren_rl.agents import AGENTS
    from aaren_rl.layers import MIXERS

    for registry in (AGENTS, MIXERS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Any]:
    return tiny_config


@pytest.fixture(scope="session")
def hopper_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished runs, by the agent's name."""
    from aaren_rl.agents import AGENTS
    from aaren_rl.training import train

    root = tmp_path_factory.mktemp("runs")
    for name in AGENTS:
        train(tiny_config(root / name, agent=name))
    return {name: root / name for name in AGENTS}


@pytest.fixture
def own_registries() -> Iterator[None]:
    """What the test registers from outside the package is forgotten after it."""
    from aaren_rl.registry import REGISTRIES

    before = {kind: registry.from_plugins() for kind, registry in REGISTRIES.items()}
    yield
    for kind, registry in REGISTRIES.items():
        for name in registry.from_plugins().keys() - before.get(kind, {}).keys():
            del registry._entries[name]
