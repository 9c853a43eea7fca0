"""The acting step as a `torch.export` program, for C++, ExecuTorch or plain torch."""

from __future__ import annotations

import io
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from aaren_rl.acting import Policy
from aaren_rl.agents import BehaviorCloning, DecisionAaren
from aaren_rl.agents.aaren_policy import AarenPolicy
from aaren_rl.agents.aaren_step import AarenStep
from aaren_rl.agents.actions import DiscreteActions
from aaren_rl.export.interface import Exportable, interface_of

SIGNATURE = ("observation", "reward", "previous_action", "return_to_go", "timestep")
"""Of `AarenStep.forward`, before the layers' state."""
BATCH = 2  # of the example; a batch of one would be taken for a constant


class CloningStep(nn.Module):
    """Behavior cloning from raw observations to raw actions."""

    def __init__(self, agent: BehaviorCloning) -> None:
        super().__init__()
        self.agent = deepcopy(agent).requires_grad_(False)

    def forward(self, observation: Tensor) -> tuple[Tensor]:
        """Observations `[batch, observation_size]` to actions `[batch, ..]`."""
        agent = self.agent
        actions = agent.actions.decide(agent.head(agent.body(agent.normalise(observation))))
        return (actions[:, None] if isinstance(agent.actions, DiscreteActions) else actions,)


def torch_program(agent: Exportable) -> bytes:
    """A `.pt2` file's content; inputs and outputs as `interface_of` says, in that order."""
    agent.eval()
    step = AarenStep(agent) if isinstance(agent, DecisionAaren) else CloningStep(agent)
    inputs = interface_of(agent).inputs
    example = tuple(
        torch.from_numpy(np.zeros(each.sizes(BATCH), dtype=each.dtype)) for each in inputs
    )
    batch = {0: torch.export.Dim("batch", min=1)}
    layers = len(inputs) - len(SIGNATURE) if isinstance(agent, DecisionAaren) else 0
    shapes: dict[str, object] = {each.name: batch for each in inputs[: len(inputs) - layers]}
    if layers:
        shapes["state"] = (batch,) * layers
    with torch.no_grad():
        program = torch.export.export(step.eval(), example, dynamic_shapes=shapes)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def program_policy(
    agent: Exportable, file: Path, num_envs: int, target_return: float | None
) -> Policy:
    """Act with an exported program in its agent's place."""
    run = torch.export.load(file).module()
    if isinstance(agent, BehaviorCloning):
        return _ProgramCloning(agent, run, num_envs)
    targets = agent.targets_for(target_return, num_envs)
    return AarenPolicy(agent, AarenStep(agent), targets, run=run)


class _ProgramCloning(Policy):
    def __init__(self, agent: BehaviorCloning, run: nn.Module, num_envs: int) -> None:
        self._agent, self._run, self._num_envs = agent, run, num_envs

    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        dones: np.ndarray | None = None,
        executed_actions: np.ndarray | None = None,
    ) -> np.ndarray:
        flat = np.asarray(observations, np.float32).reshape(self._num_envs, -1)
        (action,) = self._run(torch.from_numpy(flat))
        discrete = action.dtype == torch.int64
        return self._agent.actions.to_numpy(action[:, 0] if discrete else action)

    def reset(self, mask: np.ndarray | None = None) -> None:
        """Nothing to forget."""

    @property
    def state_bytes(self) -> int:
        return 0
