"""Acting: the policies of all agents.

`SteppingPolicy` carries the sequence model's state from step to step (modes `carry`, `reset`, and
`sliding` for a Transformer, whose cache it keeps short); `AarenPolicy` does so faster with an
`AarenStep`. Those of mode `window` are in `aaren_rl.agents.window_policy`. Each holds the past of
every environment, and forgets that of one alone when its episode has ended.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aaren_rl.acting import Policy, StepInputs, check_actions, check_starts
from aaren_rl.agents.step_parts import StepEmbedding, as_column
from aaren_rl.errors import UserError
from aaren_rl.layers import SequenceState

if TYPE_CHECKING:
    from aaren_rl.agents.aaren_step import AarenStep
    from aaren_rl.agents.base import Agent
    from aaren_rl.agents.decision import DecisionAgent

NEWEST = slice(-1, None)  # the observation's token, from which the action is read


def check_float32(agent: Agent) -> None:
    """Raise `UserError` for weights of another dtype than data and observations have."""
    for weights in agent.parameters():
        if weights.dtype != torch.float32:
            raise UserError(
                f"{agent.name} has weights of {weights.dtype}, torch.float32 expected: "
                "agent.float() makes them so, and torch.set_default_dtype(torch.float32) those "
                "of the next agent"
            )


class AgentPolicy(Policy):
    """The base of all agents' policies: checks the inputs and executes chunks of actions.

    Args:
        agent: the agent.
        targets: returns to ask for, float64 `[num_envs]`; unused where none is asked.

    Attributes:
        choose: predictions of one action to the actions that are taken; by default by
            `actions.decide`.
    """

    def __init__(self, agent: Agent, targets: np.ndarray) -> None:
        check_float32(agent)
        self.choose: Callable[[Tensor], Tensor] = agent.actions.single.decide
        self._spec, self._codec = agent.spec, agent.actions
        self._device = agent.observation_mean.device
        self._execute = agent.config.execute
        self._plan: Tensor | None = None  # the chunk that is executed, [num_envs, execute, ...]
        self._place = np.zeros(len(targets), np.int64)  # index of the next action in it
        layout, offset = agent.spec.observation_layout, agent.spec.observation_offset
        self._inputs = StepInputs(layout, targets, agent.horizon, offset)
        self._timesteps = np.zeros((len(targets), 1), dtype=np.int64)  # of the next step
        # On the CPU these share the arrays' memory.
        self._observation = torch.from_numpy(self._inputs.observation)
        self._reward = torch.from_numpy(self._inputs.reward)

    def draw(self, temperature: float, seed: int) -> None:
        """Draw actions from now on, see `Agent.policy`: one generator for all environments."""
        generator = torch.Generator(self._device).manual_seed(seed)
        self.choose = lambda given: self._codec.single.sample(given, temperature, generator)

    def reset(self, mask: np.ndarray | None = None) -> None:
        """See `Policy.reset`."""
        self._inputs.reset(mask)
        self._place[check_starts(mask, len(self._place))] = 0

    @torch.inference_mode()
    def act(
        self,
        observations: Any,
        rewards: np.ndarray | None = None,
        dones: np.ndarray | None = None,
        executed_actions: Any = None,
    ) -> Any:
        """See `Policy.act`."""
        starts = self._update(observations, rewards, dones)
        executed = None if executed_actions is None else self._as_decided(executed_actions)
        if starts is not None:
            self._place[starts] = 0
        actions = self._act(self._observation.to(self._device), starts, executed)
        self._inputs.advance()
        return self._codec.to_numpy(actions)

    def _update(self, observations: object, rewards: object, dones: object) -> np.ndarray | None:
        """Check and keep the inputs; the environments that start an episode, `None` for none."""
        return self._inputs.update(observations, rewards, dones, self._timesteps)

    def _as_decided(self, executed: object) -> Tensor:
        """Executed actions as `actions.decide` gives them."""
        spec = self._spec
        shape = (len(self._timesteps), *(spec.action_space.shape or ()))
        layout = spec.action_layout if spec.in_parts else None
        array = check_actions(executed, shape, spec.choices, layout)
        tensor = torch.from_numpy(array).to(self._device)
        return tensor[:, 0] if spec.discrete else tensor

    def _chosen(self, predictions: Tensor) -> Tensor:
        """The actions to take: of a new chunk the first, else the next of the last chunk."""
        parts = self._codec.chunk(predictions)[: self._execute]
        if len(parts) == 1:
            return self.choose(parts[0])
        new = torch.stack([self.choose(each) for each in parts], dim=1)
        at_start = torch.from_numpy(self._place == 0).to(new.device)
        at_start = at_start.view(-1, *[1] * (new.dim() - 1))
        self._plan = new if self._plan is None else torch.where(at_start, new, self._plan)
        actions = self._plan[torch.arange(len(new)), torch.from_numpy(self._place)]
        self._place = (self._place + 1) % self._execute
        return actions

    @property
    def plan_bytes(self) -> int:
        """Bytes of the chunk that is executed; 0 where each prediction counts."""
        return 0 if self._plan is None else self._plan.nbytes + self._place.nbytes

    @abstractmethod
    def _act(
        self, observations: Tensor, starts: np.ndarray | None, executed: Tensor | None
    ) -> Tensor:
        """One step's actions, as `actions.decide` gives them; updates the state.

        `observations` are raw, `[num_envs, observation_size]`; `starts` bool `[num_envs]`, the
        environments that start an episode (`None` for none); `executed` the last step's actions,
        where they are not those chosen.
        """


class HistoryPolicy(AgentPolicy):
    """The base of the sequence agents' policies, which counts timesteps and returns-to-go.

    Args:
        agent: the agent.
        targets: as in `AgentPolicy`.
        restart_every: clear the state every N steps; `None` carries it to the episode's end.
    """

    def __init__(
        self, agent: DecisionAgent, targets: np.ndarray, restart_every: int | None = None
    ) -> None:
        super().__init__(agent, targets)
        self._agent, self._returns_to_go = agent, targets.astype(np.float64)
        self._restart_every = restart_every

    @property
    def returns_to_go(self) -> np.ndarray:
        """The return-to-go that each environment's last action was taken on, `[num_envs]`."""
        return self._returns_to_go.copy()

    @property
    def state_bytes(self) -> int:
        """Timestep, return-to-go and chunk; a subclass adds its own."""
        return self._returns_to_go.nbytes + self._timesteps.nbytes + self.plan_bytes

    def _act(
        self, observations: Tensor, starts: np.ndarray | None, executed: Tensor | None
    ) -> Tensor:
        timesteps = self._timesteps[:, 0]
        returns = self._returns_to_go - self._inputs.reward[:, 0]
        if starts is not None:
            timesteps = np.where(starts, 0, timesteps)
            returns = np.where(starts, self._inputs.targets, returns)
        if self._restart_every is not None:
            restarts = timesteps % self._restart_every == 0
            starts = restarts if restarts.any() else None
        asked = torch.from_numpy(returns.astype(np.float32))[:, None].to(self._device)
        times = torch.from_numpy(timesteps).to(self._device)
        actions, predicted = self._decide(asked, observations, times, starts, executed)
        if predicted is not None:
            returns = predicted[:, 0].double().cpu().numpy()
        self._returns_to_go, self._timesteps = returns, timesteps[:, None] + 1
        return actions

    @abstractmethod
    def _decide(
        self,
        returns: Tensor,
        observations: Tensor,
        timesteps: Tensor,
        starts: np.ndarray | None,
        executed: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The actions, and the predicted returns-to-go `[num_envs, 1]` with `max-return`.

        `returns` is `[num_envs, 1]`, `timesteps` int64 `[num_envs]`; `starts` are the environments
        whose state is to be cleared; the others as in `_act`.
        """


class SteppingPolicy(HistoryPolicy):
    """One forward pass of three tokens (a_{t-1}, R_t, s_t) a step, the state carried between.

    With the condition `max-return` two: (a_{t-1}, s_t), then R_t, which was predicted from s_t.

    Args:
        agent: the agent.
        targets: as in `AgentPolicy`.
        restart_every: as in `HistoryPolicy`.
        keep: a step reads the tokens of the last N steps only, its own included, each as it was
            computed when it was new; at least 2, and only for a mixer that `slides`.
    """

    def __init__(
        self,
        agent: DecisionAgent,
        targets: np.ndarray,
        restart_every: int | None = None,
        keep: int | None = None,
    ) -> None:
        super().__init__(agent, targets, restart_every)
        self._keep = keep
        self._state: SequenceState | None = None
        self._actions = agent.actions.blank(len(targets)).to(self._device)
        self._embeddings: list[StepEmbedding] = []
        if agent.folds_embedding:  # a step of the Transformer then takes 0.90 of the time
            made = (StepEmbedding(agent, kinds) for kinds in agent.chunks)
            self._embeddings = [each.to(self._device) for each in made]

    @property
    def state_bytes(self) -> int:
        """Model state, previous action, timestep and return-to-go."""
        state = 0 if self._state is None else self._state.nbytes
        return state + self._actions.nbytes + super().state_bytes

    def _decide(
        self,
        returns: Tensor,
        observations: Tensor,
        timesteps: Tensor,
        starts: np.ndarray | None,
        executed: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        agent, predicted = self._agent, None
        previous = self._actions if executed is None else executed
        tokens = self._embed(0, previous, returns, observations, timesteps)
        features, state = self._read(tokens, starts)
        if agent.predicts_return:
            predicted = agent.predict_return(features[:, -1])
            tokens = self._embed(1, previous, predicted, observations, timesteps)
            features, state = agent.read(tokens, state, read=NEWEST)
        self._state, self._actions = state, self._chosen(agent.head(features[:, -1]))
        return self._actions, predicted

    def _embed(
        self, chunk: int, actions: Tensor, returns: Tensor, observations: Tensor, times: Tensor
    ) -> Tensor:
        """As `DecisionAgent.embed_step`."""
        if not self._embeddings:
            return self._agent.embed_step(chunk, actions, returns, observations, times)
        batch = len(times)
        tokens: Tensor = self._embeddings[chunk](
            observations, returns, actions.reshape(batch, -1), times[:, None]
        )
        return tokens.view(batch, -1, tokens.shape[-1])

    def _read(self, tokens: Tensor, starts: np.ndarray | None) -> tuple[Tensor, SequenceState]:
        """Features of the newest token; a first step's previous action is masked out."""
        agent, state = self._agent, self._state
        if state is None or (starts is not None and starts.all()):
            return agent.read(tokens[:, 1:], read=NEWEST)
        if self._keep is not None:
            # From the first token of the steps before up to the last one of this step.
            state = state.last(agent.tokens_per_step * (self._keep - 1) - 1)
        if starts is None:
            return agent.read(tokens, state, read=NEWEST)
        restart = torch.from_numpy(starts).to(tokens.device)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        mask[:, 0] = ~restart
        return agent.read(tokens, state.reset(restart), mask, NEWEST)


class AarenPolicy(HistoryPolicy):
    """One call of the agent's `AarenStep` a step, the state carried between."""

    def __init__(
        self,
        agent: DecisionAgent,
        step: AarenStep,
        targets: np.ndarray,
        restart_every: int | None = None,
    ) -> None:
        super().__init__(agent, targets, restart_every)
        size = len(targets)
        self._step, self._empty = step, step.empty_state(size)
        self._state = self._empty
        self._actions = agent.actions.blank(size).reshape(size, -1).to(self._device)

    @property
    def state_bytes(self) -> int:
        """Model state, previous action, timestep, return-to-go and chunk."""
        state = sum(each.nbytes for each in self._state)
        return state + self._actions.nbytes + super().state_bytes

    def _decide(
        self,
        returns: Tensor,
        observations: Tensor,
        timesteps: Tensor,
        starts: np.ndarray | None,
        executed: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        previous = self._actions if executed is None else executed.view_as(self._actions)
        state, first = self._state, None
        if starts is not None:
            first = torch.from_numpy(starts[:, None]).to(self._device)
            pairs = zip(self._empty, state, strict=True)
            state = tuple(torch.where(first[..., None], empty, own) for empty, own in pairs)
        predictions, returns, self._state = self._step.predict(
            observations, returns, previous, timesteps[:, None], first, state
        )
        chosen = self._chosen(predictions)
        self._actions = as_column(chosen)
        return chosen, returns if self._agent.predicts_return else None
