"""Agents that read a trajectory: tokens of return-to-go, observation and action.

Decision Transformer's formulation (Chen et al. 2021, arXiv 2106.01345): three tokens a step, each
with its own linear embedding plus an embedding of the timestep; a layer norm; a sequence model; the
action is read from the features of the step's second token. `AgentConfig.condition` says whether
the return-to-go or the observation comes first, see `aaren_rl.agents.conditioning`. The sequence
agents differ in their mixer alone.
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
from aaren_rl.agents.conditioning import CHUNKS, TokenKind, expectile_loss
from aaren_rl.agents.config import AgentConfig
from aaren_rl.agents.spec import AgentSpec
from aaren_rl.agents.policy import SteppingPolicy, WindowPolicy
from aaren_rl.data.sampling import Batch
from aaren_rl.errors import UserError
from aaren_rl.layers import EVERY_TOKEN, Dropout, SequenceModel, SequenceState
from aaren_rl.layers.start import STD, start_linear

TOKENS_PER_STEP = 3
FIRST_TOKENS = slice(0, None, TOKENS_PER_STEP)  # with max-return, a return is predicted from each
ACTING_TOKENS = slice(1, None, TOKENS_PER_STEP)  # an action is predicted from each


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
        self.asks_return = config.condition == "target"
        self.return_head = None if self.asks_return else nn.Linear(width, 1)
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
        if self.return_head is not None:
            modules.append(self.return_head)
        if start == "gpt2":
            modules += [self.embed_return, self.embed_observation]
        for module in modules:
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=STD)
            elif isinstance(module, nn.Linear) and (
                start == "gpt2" or module is not self.embed_action
            ):
                start_linear(module)

    def scaled(self, returns_to_go: Tensor) -> Tensor:
        """Returns-to-go as they are embedded, of the same shape; see `AgentSpec.returns_scale`."""
        return (returns_to_go - self.spec.returns_shift) / self.spec.returns_scale

    @property
    def chunks(self) -> tuple[tuple[TokenKind, ...], ...]:
        """The tokens that a step of acting reads; see `aaren_rl.agents.conditioning.CHUNKS`."""
        return CHUNKS[self.config.condition]

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
            `[batch, 3 time, width]`: return-to-go, observation, action of each step in turn; with
            the condition `max-return` the observation comes before the return-to-go.
        """
        values = [self.scaled(returns_to_go), self.normalise(observations)]
        embedded = [self.embed_return, self.embed_observation]
        if self.config.condition == "max-return":
            values.reverse()
            embedded.reverse()
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
        chunk: int,
        previous_actions: Tensor,
        returns_to_go: Tensor,
        observations: Tensor,
        timesteps: Tensor,
    ) -> Tensor:
        """One of the chunks that a step of acting reads.

        Args:
            chunk: which of `chunks`.
            previous_actions: `[batch, action_size]` or `[batch]`, raw.
            returns_to_go: `[batch, 1]`, unscaled; not looked at in a chunk without a return.
            observations: `[batch, observation_size]`, raw.
            timesteps: `[batch]`, int64.

        Returns:
            `[batch, tokens of the chunk, width]`.
        """
        now = self.embed_timestep(timesteps)
        tokens = []
        for kind in self.chunks[chunk]:
            if kind == "action":
                before = self.embed_timestep((timesteps - 1).clamp(min=0))
                tokens.append(self.embed_action(self.actions.encode(previous_actions)) + before)
            elif kind == "return":
                tokens.append(self.embed_return(self.scaled(returns_to_go)) + now)
            else:
                tokens.append(self.embed_observation(self.normalise(observations)) + now)
        return self._finish(torch.stack(tokens, dim=1))

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
        features, state = self._features(batch, state, ACTING_TOKENS)
        return self.head(features), state

    def loss_from(
        self, batch: Batch, state: SequenceState | None
    ) -> tuple[Tensor, SequenceState | None]:
        """As `Agent.loss_from`; with `max-return` plus the loss of the returns, of weight 1.

        That loss is in the unit in which returns are embedded, `AgentSpec.returns_scale`.
        """
        if self.return_head is None:
            return super().loss_from(batch, state)
        features, state = self._features(batch, state, EVERY_TOKEN)
        predictions = self.head(features[:, ACTING_TOKENS])
        errors = expectile_loss(
            self._scaled_return(features[:, FIRST_TOKENS]),
            self.scaled(batch.returns_to_go),
            self.config.expectile,
        )
        of_returns = (errors[..., 0] * batch.mask).sum() / batch.mask.sum().clamp(min=1)
        return self.actions.loss(predictions, batch.actions, batch.mask) + of_returns, state

    def _features(
        self, batch: Batch, state: SequenceState | None, read: slice
    ) -> tuple[Tensor, SequenceState]:
        """Features of the tokens in `read`, going on from a state where no episode starts."""
        if state is not None and batch.starts is not None:
            state = state.reset(batch.starts)
        tokens = self.embed(batch.returns_to_go, batch.observations, batch.actions, batch.timesteps)
        lengths = batch.cu_seqlens
        if lengths is not None:
            lengths = lengths * TOKENS_PER_STEP
        return self.read(tokens, state, read=read, cu_seqlens=lengths)

    def predict_return(self, features: Tensor) -> Tensor:
        """The return-to-go to act on, unscaled, with the condition `max-return`.

        It is not larger than any in the data, `AgentSpec.largest_return`: expectile regression
        overshoots, and what the agent does when asked for more than it has seen nobody knows.

        Args:
            features: of the observations' tokens, `[..., width]`.

        Returns:
            `[..., 1]`.
        """
        returns = self._scaled_return(features) * self.spec.returns_scale + self.spec.returns_shift
        largest = self.spec.largest_return
        return returns if largest is None else returns.clamp(max=largest)

    def _scaled_return(self, features: Tensor) -> Tensor:
        """`predict_return` in the unit in which it is embedded, in float32 also under autocast."""
        head = self.return_head
        assert head is not None
        with torch.autocast(features.device.type, enabled=False):
            return linear(features.to(head.weight.dtype), head.weight, head.bias)

    def policy(
        self,
        num_envs: int,
        target_return: float | Sequence[float] | None = None,
        mode: Mode | None = None,
    ) -> Policy:
        """Start acting in `num_envs` environments; see `Agent.policy`.

        Raises:
            UserError: for an unknown mode, or when there is no target return to ask for, or not
                one (finite) for all or for each environment, or one for an agent that takes none.
        """
        mode = mode or self.default_mode
        if mode not in self.modes:
            raise UserError(f"mode must be one of {', '.join(self.modes)}, got {mode!r}")
        targets = self.targets_for(target_return, num_envs)
        self.eval()
        if mode == "window":
            return WindowPolicy(self, targets)
        restart_every = self.config.context_length if mode == "reset" else None
        return self._stepping_policy(targets, restart_every)

    def targets_for(
        self, target_return: float | Sequence[float] | None, num_envs: int
    ) -> np.ndarray:
        """The return to ask each environment for, float64 `[num_envs]`; zeros where none is asked.

        Raises:
            UserError: as `policy`.
        """
        if self.asks_return:
            return check_targets(target_return, self.spec.target_returns, num_envs)
        self.check_request(target_return=target_return, condition=self.config.condition)
        return np.zeros(num_envs)

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
