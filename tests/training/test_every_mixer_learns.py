"""Every mixer, through the whole agent, learns what only a memory can know."""

from __future__ import annotations

from pathlib import Path

import pytest

from aaren_rl.agents import AGENTS, AgentConfig, DecisionAgent, load_agent
from aaren_rl.envs.memory.experts import write_expert_dataset
from aaren_rl.evaluation import rollout
from aaren_rl.layers import MIXERS
from aaren_rl.training import TrainConfig, from_preset, train
from aaren_rl.training.presets import PRESETS

MAZE = "aaren/PassiveTMaze-v0?length=[6,12]"


@pytest.fixture(scope="module")
def maze(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corridors of 6 to 12 steps; the cue is seen in the first one and asked for in the last."""
    root = tmp_path_factory.mktemp("data")
    return write_expert_dataset("memory/maze-v0", MAZE, 200, root=root)


AGENT_OF = {
    entry.make.mixer: name
    for name, entry in AGENTS.items()
    if issubclass(entry.make, DecisionAgent)
}


def test_every_mixer_has_an_agent() -> None:
    assert set(AGENT_OF) == set(MIXERS)


@pytest.mark.parametrize("mixer", sorted(MIXERS))
def test_it_remembers_the_cue(mixer: str, maze: Path, tmp_path: Path) -> None:
    """Right in every one of 32 corridors, where a guess is right in half of them.

    A gate that begins half open, as the minGRU's once did inside the agent, halves the cue at every
    token, three times a step.
    """
    config = from_preset(
        TrainConfig,
        "memory",
        dataset=str(maze),
        agent=AGENT_OF[mixer],
        updates=200,
        batch_steps=300,
        learning_rate=3e-3,
        environment="none",
        held_out=0.0,
        device="cpu",
        out=tmp_path / "run",
        model=AgentConfig(**{**vars(PRESETS["memory"]["model"]), "width": 32}),
    )
    train(config)
    agent = load_agent(tmp_path / "run" / "last")
    played = rollout(
        agent, MAZE, episodes=32, num_envs=32, mode="carry", target_return=1.0, seed=5_000
    )
    assert played.returns.mean() == 1.0
