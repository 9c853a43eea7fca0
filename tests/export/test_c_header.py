"""`aaren-rl export --format c`: a header that compiles, and acts as PyTorch does."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from exported_agents import make_agent

from aaren_rl.agents import Agent, AgentConfig, AgentSpec, DecisionAaren
from aaren_rl.cli import main
from aaren_rl.errors import UserError
from aaren_rl.export.c_header import c_header, c_step
from aaren_rl.export.c_policy import CPolicy, measure_size
from aaren_rl.export.card import make_card
from aaren_rl.export.command import write_export
from aaren_rl.runtime import read_card

pytestmark = pytest.mark.skipif(
    not (shutil.which("gcc") or shutil.which("cc")) or not shutil.which("size"),
    reason="no C compiler, or no `size` (binutils)",
)
CHOICES = gym.spaces.Discrete(4, start=3)
CASES: dict[str, dict[str, Any]] = {
    "one head, learned times": {},
    "heads that forget": {"heads": 4, "recency": (0.0, 0.1, 0.5, 2.0), "activation": "gelu"},
    "large scores, predicted returns": {"query": 10.0, "condition": "max-return", "heads": 2},
    "sinusoidal times, half bounded": {
        "timestep_embedding": "sinusoidal",
        "action_space": gym.spaces.Box(-np.inf, 2.0, (3,)),
    },
    "choices": {"action_space": CHOICES, "condition": "max-return", "timestep_embedding": "none"},
    "whole numbers": {"action_space": gym.spaces.Box(-5, 5, (3,), np.int64)},
    "lstm": {"name": "decision-lstm", "timestep_embedding": "sinusoidal"},
    "min-gru": {"name": "decision-min-gru", "action_space": CHOICES},
}


def written(agent: Agent, folder: Path, *, int8: bool = False) -> Path:
    """A header and its card."""
    file, content = folder / "policy.h", c_header(agent, int8=int8)
    write_export(file, content, make_card(agent, c_step(agent), file, content, "c"))
    return file


def largest_difference(agent: Agent, file: Path, steps: int) -> float:
    """Of PyTorch's actions and the header's in two environments, whose episodes end."""
    pair = agent.policy(2), CPolicy(file, agent, 2)
    rng, worst = np.random.default_rng(0), 0.0
    for t in range(steps):
        call = rng.normal(size=(2, 11)), rng.normal(size=2), np.array([t % 370 == 0, t % 53 == 0])
        ours, theirs = (policy.act(*call) for policy in pair)
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        worst = max(worst, float(np.abs(ours.astype(float) - theirs).max()))
    return worst


@pytest.mark.parametrize("case", CASES)
def test_a_thousand_steps_are_pytorchs(case: str, tmp_path: Path) -> None:
    agent = make_agent(**{"width": 16, **CASES[case]})
    assert largest_difference(agent, written(agent, tmp_path), 1000) <= 1e-5


def test_int8_is_a_quarter_and_near(tmp_path: Path) -> None:
    agent = make_agent(width=64, timestep_embedding="none")
    sizes, apart = [], []
    for int8 in (False, True):
        file = written(agent, tmp_path, int8=int8)
        sizes.append(measure_size(file, asks_return=True))
        apart.append(largest_difference(agent, file, 100))
    assert sizes[1].flash_bytes < 0.4 * sizes[0].flash_bytes
    assert sizes[1].ram_bytes <= sizes[0].ram_bytes + 64
    assert apart[0] <= 1e-5 < apart[1] < 0.2


def test_the_default_agent_fits(tmp_path: Path) -> None:
    """Hopper, 3 layers of width 128: at most 1 MB of flash in 8 bits, and 16 KB of RAM."""
    space = gym.spaces.Box(-np.inf, np.inf, (11,), np.float64)
    spec = AgentSpec(space, gym.spaces.Box(-1, 1, (3,), np.float32))
    agent = DecisionAaren(AgentConfig(), spec, np.zeros(11), np.ones(11))
    size = measure_size(written(agent, tmp_path, int8=True), asks_return=True)
    assert size.flash_bytes <= 1_000_000
    assert size.ram_bytes <= 16_384
    # In float32 every weight that is in 8 bits here takes 4 bytes.
    assert size.flash_bytes + 3 * agent.num_parameters <= 3_000_000


def test_what_was_executed_takes_the_choices_place(tmp_path: Path) -> None:
    agent = make_agent(width=16)
    pair = agent.policy(1), CPolicy(written(agent, tmp_path), agent)
    rng = np.random.default_rng(0)
    for _ in range(20):
        call = rng.normal(size=(1, 11)), rng.normal(size=1)
        done = rng.uniform(-1, 1, size=(1, 3)).astype(np.float32)
        ours, theirs = (policy.act(*call, executed_actions=done) for policy in pair)
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)


def test_bad_numbers_do_nothing(tmp_path: Path) -> None:
    agent = make_agent(width=16, max_episode_length=3)
    policy = CPolicy(written(agent, tmp_path), agent)
    library, state, action = policy._c, policy._states[0], policy._actions[0]

    def step(seen: float, reward: float) -> int:
        observation = np.full(11, seen, np.float32)
        values = (state.ctypes.data, observation.ctypes.data, action.ctypes.data)
        return int(library.step(*map(pointer, values[:2]), c_float(reward), pointer(values[2])))

    from ctypes import c_float
    from ctypes import c_void_p as pointer

    library.reset(pointer(state.ctypes.data), c_float(1.0))
    assert step(0.5, np.nan) == 0  # an episode's first reward is not looked at
    before = state.copy()
    for seen, reward in ((np.nan, 1.0), (np.inf, 1.0), (0.5, np.nan), (0.5, -np.inf)):
        assert step(seen, reward) == 1
        assert np.array_equal(state, before)
    assert [step(0.5, 1.0) for _ in range(3)] == [0, 0, 1]  # the timestep table has ended


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"name": "behavior-cloning"}, "it has no recurrent state"),
        ({"name": "decision-transformer"}, "its mixer is CausalSelfAttention"),
        ({"action_space": gym.spaces.MultiDiscrete([2, 3])}, "its actions are neither a Box nor"),
        ({"observation_space": gym.spaces.Discrete(4)}, "its observations are no Box"),
        ({"head": "tanh-gaussian"}, "its encoder or action head is not the plain linear one"),
        ({"action_chunk": 3}, "its encoder or action head is not the plain linear one"),
    ],
)
def test_others_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=rf"cannot be exported as C: {why}"):
        c_header(make_agent(**settings))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent, out = make_agent(width=16, heads=2), tmp_path / "policy.h"
    agent.save(tmp_path / "run")
    flags = ["--format", "c", "--int8", "--episodes", "1", "--steps", "50"]
    assert main(["export", str(tmp_path / "run"), "--out", str(out), *flags]) == 0
    said = capsys.readouterr().out
    card = read_card(out)
    assert (card.kind, card.precision) == ("c", "int8")
    size = card.checks["size"]
    assert f"flash: {size['flash_bytes']:,} bytes" in said
    assert f"(state {size['state_bytes']:,}, stack at most {size['stack_bytes']:,})" in said
    assert re.search(r"lost, over the same 1 episodes; actions differ by up to \d", said)
    assert "int policy_step(policy_state *state, const float *observation" in out.read_text()


def test_without_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_agent(width=16).save(tmp_path / "run")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    out = tmp_path / "policy.h"
    assert main(["export", str(tmp_path / "run"), "--out", str(out), "--format", "c"]) == 2
    assert "--format c needs a C compiler" in capsys.readouterr().err
    assert not out.exists()
