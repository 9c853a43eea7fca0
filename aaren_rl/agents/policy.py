"""Acting: the ways in which a trajectory agent goes through an episode.

`SteppingPolicy` carries the sequence model's state from step to step (modes `carry`, `reset`, and
`sliding` for a Transformer, whose cache it keeps short); Decision Aaren has a faster one, in
`aaren_policy`. `WindowPolicy` keeps the last steps and recomputes them (mode `window`). Each holds
one past for each environment and starts it afresh for that one alone when its episode has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from aaren_rl.acting import Policy, check_outcome, copy_observations
from aaren_rl.layers import KeyValueCache, SequenceState

if TYPE_CHECKING:
    from aaren_rl.agents.base import Agent
    from aaren_rl.agents.trajectory_agent import TrajectoryAgent
    from aaren_rl.agents.transformer_step import TransformerStep

NEWEST = slice(-1, None)  # the observation's token, from which the action is read


def as_observations(observations: np.ndarray, num_envs: int, agent: Agent) -> Tensor:
    """Check observations and flatten them to float32 `[num_envs, observation_size]`.

    Raises:
        UserError: for a wrong shape (both are named) or a number that is not finite.
    """
    array = np.empty((num_envs, agent.spec.observation_size), np.float32)
    copy_observations(observations, array, (num_envs, *agent.spec.observation_space.shape))
    return torch.from_numpy(array).to(agent.observation_mean.device)


class _Episodes:
    """Where each environment stands in its episode: timestep and return-to-go."""

    def __init__(self, targets: np.ndarray) -> None:
        self.targets = targets
        self.returns_to_go = targets.copy()
        self.timesteps = np.full(len(targets), -1, dtype=np.int64)

    @property
    def nbytes(self) -> int:
        return self.returns_to_go.nbytes + self.timesteps.nbytes

    def done(self, timesteps: np.ndarray, returns_to_go: np.ndarray) -> None:
        """The step was taken, on these returns-to-go."""
        self.timesteps, self.returns_to_go = timesteps, returns_to_go

    def advance(
        self, rewards: np.ndarray | None, dones: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The next timesteps, returns-to-go and who starts (bool); changes nothing."""
        rewards, starts = check_outcome(self.timesteps < 0, rewards, dones)
        timesteps = np.where(starts, 0, self.timesteps + 1)
        return timesteps, np.where(starts, self.targets, self.returns_to_go - rewards), starts


class SteppingPolicy(Policy):
    """One forward pass of three tokens (a_{t-1}, R_t, s_t) a step, the state carried between.

    With the condition `max-return` two: (a_{t-1}, s_t), then R_t, which was predicted from s_t.

    Args:
        agent: the agent.
        targets: returns to ask for, float64 `[num_envs]`; not looked at with `max-return`.
        restart_every: start the state afresh every so many steps; `None` carries it to the end.
        keep: let a step read the last so many steps' tokens only (its own are one of them), each
            as it was computed when it was new; at least 2, and only for a mixer whose state is a
            `KeyValueCache`.
        step: what embeds, reads and predicts in the agent's place: a leaner form of it.
    """

    def __init__(
        self,
        agent: TrajectoryAgent,
        targets: np.ndarray,
        restart_every: int | None = None,
        keep: int | None = None,
        step: TransformerStep | None = None,
    ) -> None:
        self._agent, self._step = agent, step or agent
        self._restart_every, self._keep = restart_every, keep
        self._episodes = _Episodes(targets)
        self._state: SequenceState | None = None
        self._actions = _no_actions(agent, (len(targets),))

    @property
    def returns_to_go(self) -> np.ndarray:
        """The return-to-go that each environment's last action was taken on, `[num_envs]`."""
        return self._episodes.returns_to_go.copy()

    @property
    def state_bytes(self) -> int:
        """Model state, previous action, timestep and return-to-go."""
        state = 0 if self._state is None else self._state.nbytes
        return state + self._actions.nbytes + self._episodes.nbytes

    @torch.inference_mode()
    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        dones: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `Policy.act`."""
        agent, device = self._agent, self._agent.observation_mean.device
        seen = as_observations(observations, len(self._episodes.targets), agent)
        timesteps, returns_to_go, starts = self._episodes.advance(rewards, dones)
        agent.check_horizon(int(timesteps.max()) + 1, "the episode that is acted in")
        if self._restart_every is not None:
            starts = starts | (timesteps % self._restart_every == 0)
        returns = torch.from_numpy(returns_to_go.astype(np.float32))[:, None].to(device)
        times = torch.from_numpy(timesteps).to(device)
        tokens = self._step.embed_step(0, self._actions, returns, seen, times)
        features, state = self._read(tokens, starts)
        if not agent.asks_return:
            returns = self._step.predict_return(features[:, -1])
            returns_to_go = as_doubles(returns)
            tokens = self._step.embed_step(1, self._actions, returns, seen, times)
            features, state = self._step.read(tokens, state, read=NEWEST)
        actions = agent.actions.decide(self._step.head(features[:, -1]))
        self._state, self._actions = state, actions
        self._episodes.done(timesteps, returns_to_go)
        return agent.actions.to_numpy(actions)

    def _read(self, tokens: Tensor, starts: np.ndarray) -> tuple[Tensor, SequenceState]:
        """An environment that starts has no previous action: its first token is masked out."""
        if starts.all() or self._state is None:
            return self._step.read(tokens[:, 1:], read=NEWEST)
        if self._keep is not None:
            # From the first token of the steps before up to the last one of this step.
            self._state = last_tokens(self._state, 3 * self._keep - 4)
        if not starts.any():
            return self._step.read(tokens, self._state, read=NEWEST)
        restart = torch.from_numpy(starts).to(tokens.device)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        mask[:, 0] = ~restart
        return self._step.read(tokens, self._state.reset(restart), mask, NEWEST)


def as_doubles(returns: Tensor) -> np.ndarray:
    """Predicted returns `[num_envs, 1]` as float64 `[num_envs]`."""
    array: np.ndarray = returns[:, 0].double().cpu().numpy()
    return array


def last_tokens(state: SequenceState, count: int) -> SequenceState:
    """A Transformer's state with only the last `count` tokens."""
    caches = (layer for layer in state.layers if isinstance(layer, KeyValueCache))
    return SequenceState(tuple(cache.last(count) for cache in caches))


class WindowPolicy(Policy):
    """Recompute the last `context_length` steps at every step, as Decision Transformer code does.

    With the condition `max-return` the window holds the returns on which the past actions were
    taken.

    Args:
        agent: the agent.
        targets: returns to ask for, float64 `[num_envs]`; not looked at with `max-return`.
    """

    def __init__(self, agent: TrajectoryAgent, targets: np.ndarray) -> None:
        self._agent = agent
        self._episodes = _Episodes(targets)
        device = agent.observation_mean.device
        shape = (len(targets), agent.config.context_length)
        # The newest step stands last; what a short past leaves free, at the left, is masked out.
        self._returns_to_go = torch.zeros(*shape, 1, device=device)
        self._observations = torch.zeros(*shape, agent.spec.observation_size, device=device)
        self._actions = _no_actions(agent, shape)
        self._timesteps = torch.zeros(shape, dtype=torch.int64, device=device)

    @property
    def returns_to_go(self) -> np.ndarray:
        """The return-to-go that each environment's last action was taken on, `[num_envs]`."""
        return self._episodes.returns_to_go.copy()

    @property
    def state_bytes(self) -> int:
        """The window's buffers, timestep and return-to-go."""
        buffers = (self._returns_to_go, self._observations, self._actions, self._timesteps)
        return sum(buffer.nbytes for buffer in buffers) + self._episodes.nbytes

    @torch.inference_mode()
    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        dones: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `Policy.act`."""
        agent, device = self._agent, self._agent.observation_mean.device
        seen = as_observations(observations, len(self._episodes.targets), agent)
        timesteps, returns_to_go, _ = self._episodes.advance(rewards, dones)
        agent.check_horizon(int(timesteps.max()) + 1, "the episode that is acted in")
        self._push(seen, timesteps, returns_to_go)
        lengths = np.minimum(timesteps + 1, agent.config.context_length)
        predictions = self._recompute(torch.from_numpy(lengths).to(device), int(lengths.max()))
        actions = agent.actions.decide(predictions)
        self._actions[:, -1] = actions
        if not agent.asks_return:
            returns_to_go = as_doubles(self._returns_to_go[:, -1])
        self._episodes.done(timesteps, returns_to_go)
        return agent.actions.to_numpy(actions)

    def _push(self, seen: Tensor, timesteps: np.ndarray, returns_to_go: np.ndarray) -> None:
        device = seen.device
        new = (
            torch.from_numpy(returns_to_go.astype(np.float32))[:, None].to(device),
            seen,
            torch.from_numpy(timesteps).to(device),
        )
        buffers = (self._returns_to_go, self._observations, self._timesteps)
        for buffer, value in zip(buffers, new, strict=True):
            buffer.copy_(buffer.roll(-1, dims=1))
            buffer[:, -1] = value
        self._actions.copy_(self._actions.roll(-1, dims=1))

    def _recompute(self, lengths: Tensor, longest: int) -> Tensor:
        """Predictions for the newest step, `[num_envs, action_size]`; fills in its return."""
        agent = self._agent
        tokens = agent.embed(
            self._returns_to_go[:, -longest:],
            self._observations[:, -longest:],
            self._actions[:, -longest:],
            self._timesteps[:, -longest:],
        )
        # The newest action is what is asked for, and with max-return the newest return before it.
        unknown = 1 if agent.asks_return else 2
        tokens = tokens[:, :-unknown]
        mask = None
        if bool((lengths < longest).any()):
            age = torch.arange(longest - 1, -1, -1, device=tokens.device)
            mask = (age < lengths[:, None]).repeat_interleave(3, dim=1)[:, :-unknown]
        features, state = agent.read(tokens, mask=mask, read=NEWEST)
        if not agent.asks_return:
            self._returns_to_go[:, -1] = returns = agent.predict_return(features[:, -1])
            newest = self._actions[:, -1], returns, self._observations[:, -1]
            token = agent.embed_step(1, *newest, self._timesteps[:, -1])
            features, _ = agent.read(token, state, read=NEWEST)
        out: Tensor = agent.head(features[:, -1])
        return out


def _no_actions(agent: TrajectoryAgent, shape: tuple[int, ...]) -> Tensor:
    """A buffer for raw actions, filled with one that is valid (it is masked out wherever read)."""
    device = agent.observation_mean.device
    space = agent.spec.action_space
    if isinstance(space, gym.spaces.Discrete):
        return torch.full(shape, int(space.start), dtype=torch.int64, device=device)
    return torch.zeros(*shape, agent.spec.action_size, device=device)
