"""Who acts in `benchmarks.acting`: ours in all their forms, and other people's.

Every contender has the same shape (3 layers, width 128, 1 head, 20 steps of context) and random
weights, on which the time does not depend. Imports are inside the functions: a process that acts
through ONNX Runtime is measured without torch in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from aaren_rl.acting import Policy
    from aaren_rl.agents import Agent

OBSERVATION_SIZE, ACTION_SIZE, CONTEXT, WIDTH, LAYERS = 11, 3, 20, 128, 3
TARGET, SCALE = 3600.0, 1000.0
LONGEST = 20_000  # rows of the timestep tables; of which a step reads two


@dataclass(frozen=True)
class Contender:
    """One way to act in one environment.

    Attributes:
        act: observation `[1, 11]`, reward `[1]`, done `[1]` to an action.
        state_bytes: bytes carried to the next step, now.
    """

    act: Callable[[np.ndarray, np.ndarray, np.ndarray], Any]
    state_bytes: Callable[[], int]


def make(name: str, folder: Path) -> Contender:
    """A contender by its name in `NAMES`; `folder` is for exported files."""
    return NAMES[name](folder)


def make_agent(name: str, rows: int = LONGEST) -> Agent:
    """One of our agents in Hopper's shape."""
    import gymnasium as gym
    import torch

    from aaren_rl.agents import AGENTS, AgentConfig, AgentSpec

    torch.manual_seed(0)
    spec = AgentSpec(
        gym.spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float64),
        gym.spaces.Box(-1, 1, (ACTION_SIZE,), np.float32),
        returns_scale=SCALE,
        target_returns=(TARGET,),
        environment="Hopper-v5",
    )
    config = AgentConfig(max_episode_length=rows, width=WIDTH, layers=LAYERS)
    return AGENTS[name].make(config, spec).eval()


def _of(policy: Policy) -> Contender:
    return Contender(policy.act, lambda: policy.state_bytes)


def _ours(name: str, mode: Any) -> Callable[[Path], Contender]:
    return lambda folder: _of(make_agent(name).policy(1, mode=mode))


def _compiled(folder: Path) -> Contender:
    import torch

    from aaren_rl.agents import DecisionAaren
    from aaren_rl.agents.aaren_step import AarenStep
    from aaren_rl.agents.policy import AarenPolicy

    agent = make_agent("decision-aaren")
    assert isinstance(agent, DecisionAaren)
    step = AarenStep(agent)
    step.predict = torch.compile(step.predict, dynamic=False)  # type: ignore[method-assign]
    return _of(AarenPolicy(agent, step, np.array([TARGET])))


def exported_file(folder: Path) -> Path:
    """Decision Aaren's exported step; made at the first call."""
    file = folder / "acting.onnx"
    if not file.exists():
        from aaren_rl.export.command import write_step

        write_step(make_agent("decision-aaren"), file)
    return file


def _onnx(folder: Path) -> Contender:
    from aaren_rl.runtime import OnnxPolicy

    return _of(OnnxPolicy(exported_file(folder)))


def _hugging_face(folder: Path) -> Contender:
    """As in its own examples: the last 20 steps, padded on the left and masked, at every step."""
    import torch
    from transformers import DecisionTransformerConfig, DecisionTransformerModel

    torch.manual_seed(0)
    config = DecisionTransformerConfig(
        state_dim=OBSERVATION_SIZE,
        act_dim=ACTION_SIZE,
        hidden_size=WIDTH,
        n_layer=LAYERS,
        n_head=1,
        n_inner=4 * WIDTH,
        max_ep_len=LONGEST,
        n_positions=3 * CONTEXT,
    )
    model = DecisionTransformerModel(config).eval()
    observations = torch.zeros(1, CONTEXT, OBSERVATION_SIZE)
    actions, returns = torch.zeros(1, CONTEXT, ACTION_SIZE), torch.zeros(1, CONTEXT, 1)
    timesteps, mask = torch.zeros(1, CONTEXT).long(), torch.zeros(1, CONTEXT).long()
    buffers = (observations, actions, returns, timesteps, mask)
    clock = {"time": -1, "left": TARGET}

    @torch.inference_mode()
    def act(observation: np.ndarray, reward: np.ndarray, done: np.ndarray) -> Any:
        begins = clock["time"] < 0 or bool(done[0])
        clock["time"] = 0 if begins else clock["time"] + 1
        clock["left"] = TARGET if begins else clock["left"] - float(reward[0])
        for buffer in buffers:
            buffer.copy_(buffer.roll(-1, dims=1))
        if begins:
            mask.zero_()
        observations[0, -1] = torch.from_numpy(observation[0])
        actions[0, -1], returns[0, -1] = 0, clock["left"] / SCALE
        timesteps[0, -1], mask[0, -1] = clock["time"], 1
        out = model(
            states=observations,
            actions=actions,
            returns_to_go=returns,
            timesteps=timesteps,
            attention_mask=mask,
            rewards=None,
        )
        actions[0, -1] = out.action_preds[0, -1]
        return actions[0, -1].numpy().copy()

    return Contender(act, lambda: sum(buffer.nbytes for buffer in buffers))


def _d3rlpy(folder: Path) -> Contender:
    """Its `StatefulTransformerWrapper`, as its documentation says to act."""
    import d3rlpy
    from d3rlpy.models.encoders import VectorEncoderFactory

    d3rlpy.seed(0)
    algorithm = d3rlpy.algos.DecisionTransformerConfig(
        context_size=CONTEXT,
        max_timestep=LONGEST,
        num_heads=1,
        num_layers=LAYERS,
        encoder_factory=VectorEncoderFactory([WIDTH], exclude_last_activation=True),
        position_encoding_type=d3rlpy.PositionEncodingType.SIMPLE,
    ).create(device="cpu:0")
    algorithm.create_impl((OBSERVATION_SIZE,), ACTION_SIZE)
    wrapper = algorithm.as_stateful_wrapper(target_return=TARGET)

    def act(observation: np.ndarray, reward: np.ndarray, done: np.ndarray) -> Any:
        if done[0]:
            wrapper.reset()
        return wrapper.predict(observation[0].astype(np.float32), float(reward[0]))

    def state_bytes() -> int:
        kept: list[deque[Any]] = [value for value in vars(wrapper).values() if _is_deque(value)]
        return sum(np.asarray(each).nbytes for queue in kept for each in queue)

    return Contender(act, state_bytes)


def _is_deque(value: object) -> bool:
    return isinstance(value, deque)


NAMES: dict[str, Callable[[Path], Contender]] = {
    "Aaren, ONNX Runtime": _onnx,
    "Aaren, torch.compile": _compiled,
    "Aaren, PyTorch": _ours("decision-aaren", "carry"),
    "Transformer, cache of all": _ours("decision-transformer", "carry"),
    "Transformer, sliding cache": _ours("decision-transformer", "sliding"),
    "Transformer, window recomputed": _ours("decision-transformer", "window"),
    "Hugging Face DT": _hugging_face,
    "d3rlpy DT": _d3rlpy,
}
NEEDS = {"Hugging Face DT": "transformers", "d3rlpy DT": "d3rlpy", "Aaren, ONNX Runtime": "onnx"}
