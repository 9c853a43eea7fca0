"""The step that is exported: float32 alone, and what float32 cannot count."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from exported_agents import make_aaren, make_agent

from aaren_rl.errors import UserError
from aaren_rl.export.steps import LARGEST_WHOLE, Step, step_of

DISCRETE = gym.spaces.Discrete(4, start=3)


def inputs_of(step: Step, **values: float) -> list[torch.Tensor]:
    """One environment's inputs at an episode's start, but for these."""
    reset = {
        name: 0.0 if isinstance(fill, str) else fill for name, fill in step.reset_state.items()
    }
    filled = {**reset, **values}
    return [
        torch.full(each.sizes(1), filled.get(each.name, 0.0), dtype=torch.float32)
        for each in step.inputs
    ]


@pytest.mark.parametrize(
    "name", ["decision-aaren", "decision-lstm", "decision-min-gru", "behavior-cloning"]
)
@pytest.mark.parametrize("space", [None, DISCRETE])
@pytest.mark.parametrize("condition", ["target", "max-return"])
def test_all_numbers_are_float32(
    name: str, space: gym.spaces.Discrete | None, condition: str
) -> None:
    settings = {} if space is None else {"action_space": space}
    step = step_of(make_agent(name, condition=condition, **settings))
    assert {each.dtype for each in (*step.inputs, *step.outputs)} == {"float32"}
    outputs = step.module(*inputs_of(step))
    assert {each.dtype for each in outputs} == {torch.float32}
    assert [tuple(each.shape) for each in outputs] == [each.sizes(1) for each in step.outputs]


def test_rewards_that_rounding_swallows_still_count() -> None:
    """0.1 from 2^24 is 2^24 in float32; what is left out is taken off later."""
    step = step_of(make_aaren(timestep_embedding="none"))
    names = [each.name for each in step.outputs]
    values = inputs_of(step, return_to_go=2.0**24, reward=0.1)
    with torch.inference_mode():
        for _ in range(1000):
            named = dict(zip(names, step.module(*values), strict=True))
            carried = {step.state[name]: value for name, value in named.items()}
            values = [
                carried.get(each.name, value)
                for each, value in zip(step.inputs, values, strict=True)
            ]
    assert carried["return_to_go"].item() == 2.0**24 - 100
    rest = carried["return_rest"].item()
    assert rest == pytest.approx(1000 * float(np.float32(0.1)) - 100, abs=1e-4)


@pytest.mark.parametrize("name", ["decision-aaren", "decision-lstm"])
def test_the_counter_stops_where_float32_cannot_count_on(name: str) -> None:
    step = step_of(make_agent(name, timestep_embedding="sinusoidal"))
    index = [each.name for each in step.outputs].index("new_timestep")
    for before, after in (
        (0.0, 1.0),
        (LARGEST_WHOLE - 1.0, float(LARGEST_WHOLE)),
        (float(LARGEST_WHOLE), float(LARGEST_WHOLE)),
    ):
        outputs = step.module(*inputs_of(step, timestep=before))
        assert outputs[index].item() == after
        assert all(bool(each.isfinite().all()) for each in outputs)


@pytest.mark.parametrize(
    ("start", "fits"), [(2**24 - 3, True), (2**24 - 2, False), (-(2**25), False)]
)
def test_discrete_actions_that_float32_does_not_hold(start: int, fits: bool) -> None:
    agent = make_aaren(action_space=gym.spaces.Discrete(4, start=start))
    if fits:
        assert step_of(agent).outputs[0].dtype == "float32"
    else:
        with pytest.raises(UserError, match=rf"its actions are the numbers from {start} to"):
            step_of(agent)
