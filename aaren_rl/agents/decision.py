"""Agents that read a trajectory: tokens of return-to-go, observation and action.

Decision Transformer's formulation (Chen et al. 2021, arXiv 2106.01345): three tokens a step, each
with its own linear embedding plus an embedding of the timestep; a layer norm; a sequence model; the
action is read from the features of the step's second token. `AgentConfig.condition` says whether
the return-to-go or the observation comes first, see `aaren_rl.agents.tokens`.

`DecisionAgent` is the one class; the agents of `aaren_rl.agents.sequence_agents` are presets of it
that differ in their mixer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from aaren_rl.acting import check_targets
from aaren_rl.agents.aaren_step import AarenStep
from aaren_rl.agents.base import Agent, check_mode
from aaren_rl.agents.config import AgentConfig, Mode
from aaren_rl.agents.policy import AarenPolicy, AgentPolicy, SteppingPolicy
from aaren_rl.agents.registration import registered_name
from aaren_rl.agents.spec import AgentSpec
from aaren_rl.agents.tokens import (
    CHUNKS,
    TIMESTEP_EMBEDDINGS,
    TokenKind,
    expectile_loss,
    start_embeddings,
    timestep_embedding,
)
from aaren_rl.agents.window_policy import TokenWindowPolicy, WindowPolicy
from aaren_rl.data.hindsight import goal_columns
from aaren_rl.data.sampling import Batch
from aaren_rl.layers import (
    EVERY_TOKEN,
    AarenAttention,
    Block,
    ContinuousActions,
    DiscreteActions,
    Dropout,
    LinearEncoder,
    SequenceModel,
    SequenceState,
    make_encoder,
)
from aaren_rl.layers.heads.base import masked_mean

TOKENS_PER_STEP = 3
FIRST_TOKENS = slice(0, None, TOKENS_PER_STEP)  # with max-return, a return is predicted from each
ACTING_TOKENS = slice(1, None, TOKENS_PER_STEP)  # an action is predicted from each


class DecisionAgent(Agent):
    """A sequence agent; `AgentConfig.mixer` says what mixes its tokens.

    A policy in mode `carry`, `reset` or `sliding` may copy weights when it is made: it does not
    follow later training.
    """

    mixer: ClassVar[str] = "aaren"
    """The mixer when the config does not name one."""
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
        self.asks_return = config.condition == "target"
        self.predicts_return = config.condition == "max-return"
        self.goal_columns: slice | None = None  # of the observation, where it is asked for a goal
        asked = 1
        if config.condition == "goal":
            self.goal_columns = goal_columns(spec.observation_layout)[1]
            asked = self.goal_columns.stop - self.goal_columns.start
        self.embed_return = nn.Linear(asked, width)  # of the return-to-go, or of the goal
        self.embed_observation = make_encoder(
            config.encoder, spec.observation_space, width, config.encoder_options
        )
        self.embed_action = self.actions.embedding(width)
        self.embed_timestep = timestep_embedding(config)
        self.embed_norm = nn.LayerNorm(width)
        self.embed_dropout = Dropout(config.embedding_dropout)
        mixer = config.mixer or self.mixer
        self.sequence_model = SequenceModel(
            mixer,
            width,
            layers=config.layers,
            dropout=config.dropout,
            activation=config.activation,
            **config.settings_of(mixer),
        )
        if mixer != self.mixer:
            if registered_name(type(self)) == f"decision-{self.mixer}":
                self.name = f"decision-{mixer}"
            slides = self.sequence_model.slides
            self.modes, self.default_mode = SLIDING if slides else NOT_SLIDING
        self.head = self.actions.head(width)
        self.return_head = nn.Linear(width, 1) if self.predicts_return else None
        embeddings = (self.embed_action, self.embed_return, self.embed_observation)
        modules = [*self.head.modules(), self.embed_timestep, self.embed_action]
        modules += [] if self.return_head is None else [self.return_head]
        start_embeddings(config.embedding_start, [*modules, *embeddings[1:]], embeddings)

    def parts(self) -> dict[str, str]:
        """See `Agent.parts`."""
        return {**super().parts(), "mixer": self.config.mixer or self.mixer}

    @property
    def horizon(self) -> int | None:
        """Rows of the learned timestep table; `None` without one."""
        config = self.config
        return config.max_episode_length if config.timestep_embedding == "learned" else None

    @property
    def state_types(self) -> list[type]:
        """The class of each layer's state."""
        return self.sequence_model.state_types

    @property
    def folds(self) -> bool:
        """Whether `AarenStep` computes the same: no subclass overrides anything that it copies."""
        head = [type(module) for module in self.head.modules() if not list(module.children())]
        parts = {(type(block), type(block.mixer)) for block in self.sequence_model.blocks}
        return (
            parts == {(Block, AarenAttention)}
            and self.folds_embedding
            and head in ([nn.Linear], [nn.Linear, nn.Tanh])
            and self._inherits("read", "predict_return")
        )

    @property
    def folds_embedding(self) -> bool:
        """Whether `StepEmbedding` computes the same: no subclass overrides anything it copies."""
        plain = type(self.actions).encode in (ContinuousActions.encode, DiscreteActions.encode)
        plain &= type(self.embed_timestep) in TIMESTEP_EMBEDDINGS
        return plain and self._embeds_linearly and self._inherits(*EMBEDDING)

    @property
    def _embeds_linearly(self) -> bool:
        """Whether a step's parts have plain linear embeddings or tables."""
        kinds = type(self.embed_return), type(self.embed_observation)
        plain = type(self.embed_action) in (nn.Linear, nn.Embedding)
        return plain and kinds == (nn.Linear, LinearEncoder)

    def _inherits(self, *methods: str) -> bool:
        """Whether no subclass overrides these methods."""
        return all(getattr(type(self), n) is getattr(DecisionAgent, n) for n in methods)

    def scaled(self, returns_to_go: Tensor) -> Tensor:
        """Returns-to-go as they are embedded, of the same shape; see `AgentSpec.returns_scale`."""
        return (returns_to_go - self.spec.returns_shift) / self.spec.returns_scale

    @property
    def chunks(self) -> tuple[tuple[TokenKind, ...], ...]:
        """The tokens that a step of acting reads; see `aaren_rl.agents.tokens.CHUNKS`."""
        return CHUNKS[self.config.condition]

    @property
    def order(self) -> tuple[TokenKind, ...]:
        """The order of a step's tokens."""
        previous, *now = (kind for chunk in self.chunks for kind in chunk)
        return (*now, previous)

    def embed(
        self,
        returns_to_go: Tensor,
        observations: Tensor,
        actions: Tensor,
        timesteps: Tensor,
        tasks: Tensor | None = None,
    ) -> Tensor:
        """Tokens of whole steps.

        Args:
            returns_to_go: `[batch, time, 1]`, unscaled.
            observations: `[batch, time, observation_size]`, raw.
            actions: `[batch, time, action_size]` or `[batch, time]` (Discrete), raw.
            timesteps: `[batch, time]`, int64, 0 at an episode's start.
            tasks: see `Batch.tasks` and `Agent.task_vector`.

        Returns:
            `[batch, 3 time, width]`: return-to-go, observation, action of each step in turn; with
            the condition `max-return` the observation comes before the return-to-go, and with
            `goal` the observation's desired goal stands in place of the return-to-go.
        """
        if self._embeds_linearly:
            tokens = self._linear_tokens(returns_to_go, observations, actions)
        else:
            given = returns_to_go, observations, actions
            tokens = torch.stack([self._token(kind, *given) for kind in self.order], dim=-2)
        tokens = tokens + self.embed_timestep(timesteps)[:, :, None]
        added = self.task_vector(tasks)
        if added is not None:
            tokens = tokens + (added if tasks is None else added[:, :, None])
        return self._finish(tokens.flatten(1, 2))

    def _linear_tokens(self, returns: Tensor, observations: Tensor, actions: Tensor) -> Tensor:
        """Tokens `[batch, time, 3, width]` of linear embeddings, by one product."""
        normal, goal = self.normalise(observations), self.goal_columns
        values = [self.scaled(returns) if goal is None else normal[..., goal], normal]
        embedded: list[Any] = [self.embed_return, self.embed_observation]
        if self.predicts_return:
            values, embedded = values[::-1], embedded[::-1]
        if isinstance(self.embed_action, nn.Linear):
            values.append(self.actions.encode(actions))
            embedded.append(self.embed_action)
        with torch.autocast(observations.device.type, enabled=False):  # see `exactly`
            # One block-diagonal product writes all tokens side by side, without a copy.
            weight = torch.block_diag(*(part.weight for part in embedded))
            bias = torch.cat([part.bias for part in embedded])
            tokens = linear(torch.cat(values, dim=-1), weight, bias)
        if isinstance(self.embed_action, nn.Embedding):
            chosen = self.embed_action(self.actions.encode(actions))
            tokens = torch.cat([tokens, chosen.to(tokens.dtype)], dim=-1)
        return tokens.unflatten(-1, (TOKENS_PER_STEP, -1))

    def embed_step(
        self,
        chunk: int,
        previous_actions: Tensor,
        returns_to_go: Tensor,
        observations: Tensor,
        timesteps: Tensor,
    ) -> Tensor:
        """One of the chunks that a step of acting reads, `[batch, tokens of the chunk, width]`.

        Where a subclass overrides `embed` alone, its tokens are taken.

        Args:
            chunk: which of `chunks`.
            previous_actions: `[batch, action_size]` or `[batch]`, raw.
            returns_to_go: `[batch, 1]`, unscaled; not used in a chunk without a return.
            observations: `[batch, observation_size]`, raw.
            timesteps: `[batch]`, int64.
        """
        before = (timesteps - 1).clamp(min=0)
        given = returns_to_go, observations, previous_actions
        if not self._inherits("embed"):
            returns, seen, actions = (torch.stack([each, each], dim=1) for each in given)
            whole = self.embed(returns, seen, actions, torch.stack([before, timesteps], dim=1))
            kinds = self.chunks[chunk]
            steps = [0 if kind == "action" else 1 for kind in kinds]
            return whole.unflatten(1, (2, -1))[:, steps, [self.order.index(kind) for kind in kinds]]
        tokens = [
            self._token(kind, *given)
            + self.embed_timestep(before if kind == "action" else timesteps)
            for kind in self.chunks[chunk]
        ]
        added = self.task_vector()
        whole = torch.stack(tokens, dim=1)
        return self._finish(whole if added is None else whole + added)

    def _token(
        self, kind: TokenKind, returns: Tensor, observations: Tensor, actions: Tensor
    ) -> Tensor:
        """A token `[..., width]` from raw numbers `[..., size]` (discrete actions `[...]`)."""
        if kind == "action":
            return self.exactly(self.embed_action, self.actions.encode(actions))
        if kind == "return":
            return self.exactly(self.embed_return, self.scaled(returns.float()))
        normal = self.normalise(observations)
        if kind == "goal":
            return self.exactly(self.embed_return, normal[..., self.goal_columns])
        return self.exactly(self.embed_observation, normal)

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
        out: tuple[Tensor, SequenceState]
        out = self.sequence_model(tokens, state, mask, read, cu_seqlens)
        return out

    def predict(self, batch: Batch) -> Tensor:
        """Predictions for every step, `[batch, time, outputs]`, in one parallel pass."""
        return self._carried(self.predict_from, batch)

    def features(self, batch: Batch) -> Tensor:
        """The input of `head` at every step, `[batch, time, width]`, for heads of one's own.

        In a training step on a stream it continues from the carried state, as `predict` does.
        """
        return self._carried(lambda b, state: self._features(b, state, ACTING_TOKENS), batch)

    def predict_from(
        self, batch: Batch, state: SequenceState | None
    ) -> tuple[Tensor, SequenceState]:
        """As `predict`, continuing from a state in the rows that do not start an episode."""
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
        of_returns = masked_mean(errors[..., 0], batch.mask)
        return self.actions.batch_loss(predictions, batch) + of_returns, state

    def _features(
        self, batch: Batch, state: SequenceState | None, read: slice
    ) -> tuple[Tensor, SequenceState]:
        """Features of the tokens in `read`; the state continues where no episode starts."""
        if state is not None and batch.starts is not None:
            state = state.reset(batch.starts)
        inputs = batch.returns_to_go, batch.observations, batch.actions, batch.timesteps
        # A subclass's `embed` may take four arguments.
        tasks = () if self.embed_task is None else (batch.tasks,)
        tokens = self.embed(*inputs, *tasks)
        lengths = None if batch.cu_seqlens is None else batch.cu_seqlens * TOKENS_PER_STEP
        return self.read(tokens, state, read=read, cu_seqlens=lengths)

    def predict_return(self, features: Tensor) -> Tensor:
        """The return-to-go to act on, unscaled, `[..., 1]`, with the condition `max-return`.

        It is predicted from the features of the observations' tokens, `[..., width]`, and at most
        `AgentSpec.largest_return`, the largest in the data: expectile regression overshoots, and
        actions for returns beyond the data are unknown.
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

    def _policy(
        self, num_envs: int, target_return: float | Sequence[float] | None, mode: Mode | None
    ) -> AgentPolicy:
        mode = mode or self.default_mode
        check_mode(mode, self.modes)
        targets = self.targets_for(target_return, num_envs)
        context = self.config.context_length
        if mode == "window":
            keeps = self._inherits("embed", "embed_step") and not self._embeds_linearly
            return (TokenWindowPolicy if keeps else WindowPolicy)(self, targets)
        if mode == "sliding" and context > 1:
            return SteppingPolicy(self, targets, keep=context)
        # With a context of one step there is no past at all: not even the previous action.
        restart_every = {"reset": context, "sliding": 1}.get(mode)
        if self.folds:
            return AarenPolicy(self, AarenStep(self), targets, restart_every)
        return SteppingPolicy(self, targets, restart_every)

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


EMBEDDING = ("embed", "embed_step", "scaled", "normalise", "chunks")
"""Methods that `StepEmbedding` computes from the weights: not used where one is overridden."""
NOT_SLIDING: tuple[tuple[Mode, ...], Mode] = (Agent.modes, Agent.default_mode)
SLIDING: tuple[tuple[Mode, ...], Mode] = ((*Agent.modes, "sliding"), "window")
"""Modes and default mode, with a mixer whose state grows and can be cut."""
