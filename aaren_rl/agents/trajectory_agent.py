"""Agents that read a trajectory: tokens of return-to-go, observation and action, in that order.

Decision Transformer's formulation (Chen et al. 2021, arXiv 2106.01345): three tokens a step, each
with its own linear embedding plus an embedding of the timestep; a layer norm; a sequence model; the
action is read where the observation stood. The two sequence agents differ in their mixer alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from aaren_rl.acting import Policy, beyond_the_table, check_targets
from aaren_rl.agents.base import Agent, Mode
from aaren_rl.agents.config import AgentConfig, AgentSpec
from aaren_rl.agents.policy import SteppingPolicy, WindowPolicy
from aaren_rl.data.sampling import Batch
from aaren_rl.errors import UserError
from aaren_rl.layers import EVERY_TOKEN, Dropout, SequenceModel, SequenceState
from aaren_rl.layers.start import STD, start_linear

TOKENS_PER_STEP = 3
OBSERVATION_TOKEN = 1  # of the three


class TrajectoryAgent(Agent):
    """The shared part of the sequence agents; a subclass names its mixer."""

    mixer: ClassVar[str]
    has_memory = True
    asks_return = True
    tokens_per_step = TOKENS_PER_STEP

    def __init__(
        self,
        config: AgentConfig,
        spec: AgentSpec,
        observation_mean: np.ndarray | None = None,
        observation_std: np.ndarray | None = None,
    ) -> None:
        super().__init__(config, spec, observation_mean, observation_std)
        width = config.width
        self.embed_return = nn.Linear(1, width)
        self.embed_observation = nn.Linear(spec.observation_size, width)
        self.embed_action = self.actions.embedding(width)
        self.embed_timestep = timestep_embedding(config)
        self.embed_norm = nn.LayerNorm(width)
        self.embed_dropout = Dropout(config.embedding_dropout)
        self.sequence_model = SequenceModel(
            self.mixer,
            width,
            layers=config.layers,
            heads=config.heads,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            dilution=config.dilution,
            activation=config.activation,
            recency=config.recency,
        )
        self.head = self.actions.head(width)
        self._start_embeddings()

    def _start_embeddings(self) -> None:
        """Draw the weights outside the sequence model; see `AgentConfig.embedding_start`.

        By default the timestep table begins at 0.02: at PyTorch's standard deviation of 1 the norm
        after the sum leaves a token that is nearly all random time and hardly any observation. The
        linear embeddings keep PyTorch's start, with biases: the norm divides a token by its length,
        so that without a bias a return of 1 and one of 3 would look alike.
        """
        start = self.config.embedding_start
        if start == "original":
            return
        modules = [*self.head.modules(), self.embed_timestep, self.embed_action]
        if start == "gpt2":
            modules += [self.embed_return, self.embed_observation]
        for module in modules:
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=STD)
            elif isinstance(module, nn.Linear) and (
                start == "gpt2" or module is not self.embed_action
            ):
                start_linear(module)

    def embed(
        self, returns_to_go: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor
    ) -> Tensor:
        """Tokens of whole steps.

        Args:
            returns_to_go: `[batch, time, 1]`, unscaled.
            observations: `[batch, time, observation_size]`, raw.
            actions: `[batch, time, action_size]` or `[batch, time]`, raw.
            timesteps: `[batch, time]`, int64, 0 at an episode's start.

        Returns:
            `[batch, 3 time, width]`: return-to-go, observation, action of each step in turn.
        """
        values = [returns_to_go / self.spec.returns_scale, self.normalise(observations)]
        embedded = [self.embed_return, self.embed_observation]
        if isinstance(self.embed_action, nn.Linear):
            values.append(self.actions.encode(actions))
            embedded.append(self.embed_action)
        # In bfloat16, which has 8 bits, returns-to-go of 3600, 3597 and 3594 are one number, and
        # acting, in float32, would show the agent numbers that it has not been trained on.
        with torch.autocast(observations.device.type, enabled=False):
            # One product for all, with a block for each: the tokens lie side by side at once.
            weight = torch.block_diag(*(part.weight for part in embedded))
            bias = torch.cat([part.bias for part in embedded])
            tokens = linear(torch.cat(values, dim=-1), weight, bias)
        if isinstance(self.embed_action, nn.Embedding):
            chosen = self.embed_action(self.actions.encode(actions))
            tokens = torch.cat([tokens, chosen.to(tokens.dtype)], dim=-1)
        tokens = tokens.unflatten(-1, (TOKENS_PER_STEP, -1))
        tokens = tokens + self.embed_timestep(timesteps)[:, :, None]
        return self._finish(tokens.flatten(1, 2))

    def embed_step(
        self,
        previous_actions: Tensor,
        returns_to_go: Tensor,
        observations: Tensor,
        timesteps: Tensor,
    ) -> Tensor:
        """The acting chunk (a_{t-1}, R_t, s_t), `[batch, 3, width]`; arguments `[batch, ...]`."""
        before = self.embed_timestep((timesteps - 1).clamp(min=0))
        now = self.embed_timestep(timesteps)
        tokens = torch.stack(
            [
                self.embed_action(self.actions.encode(previous_actions)) + before,
                self.embed_return(returns_to_go / self.spec.returns_scale) + now,
                self.embed_observation(self.normalise(observations)) + now,
            ],
            dim=1,
        )
        return self._finish(tokens)

    def _finish(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.embed_dropout(self.embed_norm(tokens))
        return out

    def read(
        self,
        tokens: Tensor,
        state: SequenceState | None = None,
        mask: Tensor | None = None,
        read: slice = EVERY_TOKEN,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, SequenceState]:
        """Run the sequence model; see `SequenceModel.forward`."""
        out: tuple[Tensor, SequenceState] = self.sequence_model(
            tokens, state, mask, read, cu_seqlens
        )
        return out

    def predict(self, batch: Batch) -> Tensor:
        """Predictions for every step, `[batch, time, action_size]`, in one parallel pass."""
        return self.predict_from(batch, None)[0]

    def predict_from(
        self, batch: Batch, state: SequenceState | None
    ) -> tuple[Tensor, SequenceState]:
        """As `predict`, going on from a state in the rows that do not start an episode."""
        if state is not None and batch.starts is not None:
            state = state.reset(batch.starts)
        tokens = self.embed(batch.returns_to_go, batch.observations, batch.actions, batch.timesteps)
        observed = slice(OBSERVATION_TOKEN, None, TOKENS_PER_STEP)
        lengths = batch.cu_seqlens
        if lengths is not None:
            lengths = lengths * TOKENS_PER_STEP
        features, state = self.read(tokens, state, read=observed, cu_seqlens=lengths)
        return self.head(features), state

    def policy(
        self,
        num_envs: int,
        target_return: float | Sequence[float] | None = None,
        mode: Mode | None = None,
    ) -> Policy:
        """Start acting in `num_envs` environments; see `Agent.policy`.

        Raises:
            UserError: for an unknown mode, or when there is no target return to ask for, or not
                one (finite) for all or for each environment.
        """
        mode = mode or self.default_mode
        if mode not in self.modes:
            raise UserError(f"mode must be one of {', '.join(self.modes)}, got {mode!r}")
        targets = check_targets(target_return, self.spec.target_returns, num_envs)
        self.eval()
        if mode == "window":
            return WindowPolicy(self, targets)
        restart_every = self.config.context_length if mode == "reset" else None
        return self._stepping_policy(targets, restart_every)

    def _stepping_policy(self, targets: np.ndarray, restart_every: int | None) -> Policy:
        """How this agent carries its state; a subclass may know a faster way."""
        return SteppingPolicy(self, targets, restart_every=restart_every)

    def check_horizon(self, steps: int, what: str) -> None:
        """Raise `UserError` when the learned timestep table ends before `steps`."""
        table = self.config.max_episode_length
        if self.config.timestep_embedding == "learned" and steps > table:
            raise beyond_the_table(what, steps, table)


class SinusoidalEmbedding(nn.Module):
    """The Transformer's fixed sines and cosines (Vaswani et al. 2017), defined at every step."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
        # Not saved: a function of the width. float64, since at step 1e6 float32 is too coarse.
        self.register_buffer("frequencies", torch.exp(-math.log(1e4) * exponents), persistent=False)

    def forward(self, timesteps: Tensor) -> Tensor:
        """`[...]` int64 to `[..., width]` float32."""
        angles = timesteps[..., None].to(self.frequencies.dtype) * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


class NoEmbedding(nn.Module):
    """No notion of time beyond the order of tokens."""

    def forward(self, timesteps: Tensor) -> Tensor:
        """`[...]` to zeros `[..., 1]`, which broadcast."""
        return torch.zeros(*timesteps.shape, 1, device=timesteps.device)


def timestep_embedding(config: AgentConfig) -> nn.Module:
    """The module that `config.timestep_embedding` names."""
    if config.timestep_embedding == "learned":
        return nn.Embedding(config.max_episode_length, config.width)
    if config.timestep_embedding == "sinusoidal":
        return SinusoidalEmbedding(config.width)
    return NoEmbedding()
