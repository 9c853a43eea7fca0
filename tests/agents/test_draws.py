"""Acting by chance: seeded, in every mode, and without chance in the limit of the cold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

import aaren_rl as arl
from aaren_rl.agents import Agent, load_agent
from aaren_rl.agents.policy import AarenPolicy
from aaren_rl.cli import main
from aaren_rl.errors import UserError
from aaren_rl.evaluation.rollouts import rollout
from aaren_rl.export.c_header import c_step
from tests.agents.agent_cases import SPACES, make_agent

HEADS = {"continuous": "tanh-gaussian", "discrete": "categorical"}
ENVS = 3


def acted(agent: Agent, steps: int = 6, **how: Any) -> np.ndarray:
    """Actions `[steps, ENVS, ...]` on the same observations; one environment restarts."""
    policy, rng = agent.policy(ENVS, **how), np.random.default_rng(0)
    actions = []
    for step in range(steps):
        seen = rng.normal(size=(ENVS, 4)).astype(np.float32)
        dones = np.array([False, step == 3, False])
        actions.append(policy.act(seen, None if step == 0 else np.ones(ENVS), dones))
    return np.stack(actions)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("decision-aaren", "carry"),
        ("decision-aaren", "reset"),
        ("decision-transformer", "window"),
        ("decision-transformer", "sliding"),
        ("behavior-cloning", None),
    ],
)
def test_draws_are_seeded_and_cold_ones_are_alike(name: str, mode: Any, space: str) -> None:
    agent = make_agent(name, SPACES[space], head=HEADS[space])
    plain = acted(agent, mode=mode)
    draw: dict[str, Any] = {"mode": mode, "deterministic": False}
    drawn = acted(agent, **draw, seed=1)
    np.testing.assert_array_equal(drawn, acted(agent, **draw, seed=1))
    assert (drawn != acted(agent, **draw, seed=2)).any()
    assert (drawn[:, 0] != drawn[:, 1]).any()  # environments of one policy differ
    assert all(SPACES[space].contains(action) for action in drawn.reshape(-1, *plain.shape[2:]))
    cold = [acted(agent, **draw, temperature=1e-20, seed=seed) for seed in (1, 2)]
    np.testing.assert_allclose(*cold, atol=1e-6)
    if space == "discrete":
        np.testing.assert_array_equal(cold[0], plain)


def test_the_folded_step_acts_for_a_distribution_too() -> None:
    """Carry and window know the same within one window, and so draw the same."""
    agent = make_agent("decision-aaren", head="gaussian-mixture", head_options={"components": 3})
    assert isinstance(agent.policy(1), AarenPolicy)
    for deterministic in (True, False):
        how: dict[str, Any] = {"deterministic": deterministic, "steps": 5}
        carry, window = (acted(agent, mode=mode, **how) for mode in ("carry", "window"))
        np.testing.assert_allclose(carry, window, atol=1e-4)
    with pytest.raises(UserError, match="as C: its encoder or action head"):
        c_step(agent)


def test_a_head_without_distribution_refuses() -> None:
    agent = make_agent("decision-aaren")
    for act in (
        lambda: agent.policy(1, deterministic=False),
        lambda: rollout(agent, "Pendulum-v1", episodes=1, deterministic=False),
        lambda: arl.evaluate(agent, "Pendulum-v1", episodes=1, deterministic=False),
    ):
        with pytest.raises(UserError, match="'continuous' predicts one action and no distribution"):
            act()
    agent = make_agent("behavior-cloning", head="squared-error")
    with pytest.raises(UserError, match="'squared-error' predicts one action"):
        agent.policy(1, deterministic=False)
    agent = make_agent("behavior-cloning", head="tanh-gaussian")
    for wrong in (-1.0, 0.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="--temperature must be positive and finite"):
            agent.policy(1, deterministic=False, temperature=wrong)


def test_trained_saved_and_evaluated_by_chance(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"updates": 2, "width": 8, "layers": 1, "episodes": 1}
    options = {"components": 2, "entropy_weight": 0.5}
    run = arl.train(
        "aaren-rl/hopper-small-v0",
        env="none",
        head="gaussian-mixture",
        head_options=options,
        out=tmp_path / "run",
        loggers=["csv"],
        log_every=1,
        **settings,
    )
    loaded = load_agent(tmp_path / "run")
    assert loaded.config.head_options == options
    weight = loaded.actions.constraint.log_weight.item()  # type: ignore[union-attr, operator]
    assert weight != pytest.approx(np.log(0.5), abs=1e-6)  # it was trained
    assert "training/entropy_weight" in (tmp_path / "run" / "metrics.csv").read_text()
    how: dict[str, Any] = {"episodes": 2, "deterministic": False, "seed": 3}
    returns = [
        arl.evaluate(agent, "Hopper-v5", **how, temperature=t).rows[0].returns
        for agent, t in ((run.agent, 1.0), (loaded, 1.0), (loaded, 0.5))
    ]
    assert returns[0] == returns[1] != returns[2]


def test_parts_of_an_action_have_a_head_each() -> None:
    space = spaces.Dict(
        go=spaces.Box(-2, 2, (2,)), press=spaces.Discrete(3, start=1), pull=spaces.Box(0, 9, ())
    )
    agent = make_agent("decision-aaren", space, head="gaussian-mixture")
    constraints = [name for name, _ in agent.named_parameters() if name.endswith("log_weight")]
    assert len(constraints) == 2
    policy = agent.policy(2, deterministic=False, seed=0)
    actions = policy.act(np.zeros((2, 4), np.float32))
    assert space.contains({key: part[1] for key, part in actions.items()})
    assert sorted(agent.actions.logged()) == []


def test_options_of_a_head_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--updates", "1", "--width", "8", "--layers", "1", "--env", "none", "--loggers", "csv"]
    words = ["--head", "gaussian-mixture", "--out", str(tmp_path / "run"), *small]
    assert main(["train", *words, "--head-options.components", "3"]) == 0
    agent = load_agent(tmp_path / "run")
    assert agent.config.head_options["components"] == 3
    assert agent.actions.components == 3  # type: ignore[comparison-overlap]
    assert main(["train", *words, "--resume", "--updates", "2"]) == 0  # it keeps its options
    capsys.readouterr()
    for wrong, message in (
        (["--head-options.components", "0"], "--head-options.components must be at least 1, got 0"),
        (["--head-options.component", "3"], "--head-options.component"),
    ):
        other = [word.replace("run", "other") for word in words]
        assert main(["train", *other, *wrong]) == 2
        assert message in capsys.readouterr().err
    evaluation = ["evaluate", str(tmp_path / "run"), "--env", "Hopper-v5", "--episodes", "1"]
    assert main([*evaluation, "--stochastic", "--temperature", "0.3"]) == 0
    for wrong, message in (
        (["--temperature", "0.3"], "--temperature 0.3 needs --stochastic"),
        (["--stochastic", "--temperature", "-1"], "--temperature must be positive"),
        (["--stochastic", "--runtime", "onnx"], "draws nothing"),
    ):
        assert main([*evaluation, *wrong]) == 2
        assert message in capsys.readouterr().err
