"""The shape of an agent. The command line is made from it: no import of PyTorch here."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from aaren_rl.errors import UserError
from aaren_rl.layers.mixers.options import AarenOptions, AttentionOptions
from aaren_rl.records import check_counts, flag, require, typed

Mode = Literal["carry", "reset", "window", "sliding"]
Condition = Literal["target", "max-return", "goal"]
MIXER_FLAGS = {each.name for kind in (AarenOptions, AttentionOptions) for each in fields(kind)}
"""Mixer options that are settings of their own."""
LARGEST_RECENCY = 5.0  # a token then weighs 1/150 of the next; more would underflow in acting
Scalar = bool | int | float | str


@dataclass(frozen=True)
class AgentConfig(AarenOptions, AttentionOptions):
    """The shape of an agent.

    The sizes are Decision Transformer's for MuJoCo; docs/learning.md has what differs from it, and
    the measurements.
    """

    context_length: int = 20
    """Environment steps in a training window, in `window` mode and between two resets."""
    layers: int = 3
    """Number of blocks (of hidden layers in behavior cloning)."""
    width: int = 128
    """Size of a token (of a hidden layer in behavior cloning)."""
    dropout: float = 0.1
    """Share of the residual branches' elements dropped in training (of the hidden units in behavior
    cloning)."""
    embedding_dropout: float = 0.0
    """Share of the embedded tokens' elements dropped in training. Decision Transformer drops 0.1:
    an observation is then never seen whole (docs/learning.md)."""
    activation: Literal["relu", "gelu"] = "relu"
    """Activation of the feed-forward layers."""
    timestep_embedding: Literal["learned", "sinusoidal", "none"] = "none"
    """How a token learns its time in the episode. A learned table ends at `max-episode-length`;
    with `sinusoidal` or `none` the agent acts in episodes of any length."""
    max_episode_length: int = 1000
    """Rows of the learned timestep table: no longer episode can be trained on or acted in."""
    embedding_start: Literal["default", "original", "gpt2"] = "default"
    """How the embeddings and the head begin. `default`: PyTorch's start of the linear embeddings,
    tables and head at a standard deviation of 0.02; `original`: PyTorch's start of everything, as
    in Decision Transformer's code (timestep table at 1); `gpt2`: all weights at 0.02 and biases at
    zero, as in CORL and Hugging Face."""
    observation_clip: float = 10.0
    """Standardised observations are clipped at this many standard deviations from the data's mean;
    `inf` for no clipping. Raw observations (`--no-normalize-observations`) are never clipped."""
    condition: Condition = "target"
    """What actions are conditioned on. `target`: a return that the user asks for, as in Decision
    Transformer; `max-return`: the best return that the data support, which the agent predicts
    itself (Reinformer, arXiv 2405.08740), so that none is asked for; its heads forget, see
    `recency`. `goal`: the environment's `desired_goal`, in training goals that were achieved later
    in the episode (docs/goals.md)."""
    expectile: float = 0.99
    """Expectile of the returns-to-go that `max-return` predicts: 0.5 would be their mean, 1 their
    maximum."""

    task_embedding: bool = False
    """Add a vector that is learned for each of several datasets to all of a step's tokens, so that
    the agent knows in which task it acts."""

    mixer: str = ""
    """What mixes a sequence agent's tokens: a registered mixer; by the agent's name if empty."""
    mixer_options: dict[str, Scalar] = field(default_factory=dict)
    """Options of a mixer from a plug-in, by name."""
    encoder: str = "linear"
    """What makes a token of an observation: a registered encoder. `linear` for numbers; `nature`
    and `impala` for uint8 images, which images of at least 16 x 16 pixels get by themselves."""
    encoder_options: dict[str, Scalar] = field(default_factory=dict)
    """Options of the encoder, by name."""
    head: str = ""
    """How actions are predicted: a registered action head; by the action space if empty.
    `squared-error` predicts one action; `tanh-gaussian`, `gaussian-mixture` and `categorical`
    predict a distribution, from which actions can be drawn too (docs/acting.md)."""
    head_options: dict[str, Scalar] = field(default_factory=dict)
    """Options of the action head, by name."""
    action_chunk: int = 1
    """Actions that are predicted together: this step's and those of the next steps."""
    execute: int = 1
    """Actions of a chunk that are executed before the next prediction is used."""
    agent_options: dict[str, Scalar] = field(default_factory=dict)
    """Options of an agent from a plug-in, by name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "recency", tuple(self.recency))  # JSON has lists only
        if self.observation_clip is None:  # JSON has no infinity
            object.__setattr__(self, "observation_clip", math.inf)

    def check(self) -> None:
        """Raise `UserError` for a value that cannot work, naming its flag."""
        check_counts(self, "context_length", "layers", "width", "heads", "max_episode_length")
        check_counts(self, "action_chunk", "execute")
        words = f"must be at most --action-chunk ({self.action_chunk})"
        require(self, "execute", self.execute <= self.action_chunk, words)
        for name in ("dropout", "embedding_dropout", "attention_dropout"):
            require(self, name, 0 <= getattr(self, name) < 1, "must be in [0, 1)")
        require(self, "dilution", 1 <= self.dilution < math.inf, "must be finite and at least 1")
        require(self, "expectile", 0.5 < self.expectile < 1, "must be in (0.5, 1)")
        if self.condition not in get_args(Condition):
            known = ", ".join(get_args(Condition))
            raise UserError(f"--condition must be one of {known}, got {self.condition!r}")
        if self.recency and len(self.recency) != self.heads:
            raise UserError(
                f"--recency must be one number for each of the {self.heads} --heads, "
                f"got {len(self.recency)}"
            )
        if not all(0 <= rate <= LARGEST_RECENCY for rate in self.recency):
            raise UserError(
                f"--recency must be in [0, {LARGEST_RECENCY:g}], got {list(self.recency)}"
            )
        if self.width % self.heads:
            raise UserError(f"--heads ({self.heads}) must divide --width ({self.width})")
        even = self.timestep_embedding != "sinusoidal" or self.width % 2 == 0
        require(self, "width", even, "must be even for sinusoidal embedding")
        words = "must be above 0 (inf for none)"
        require(self, "observation_clip", self.observation_clip > 0, words)

    def settings_of(self, mixer: str) -> dict[str, Any]:
        """The options of a mixer: those settings here that are its own, and `mixer_options`.

        Raises:
            UserError: for an unknown mixer, or an option that is a setting of its own.
        """
        from aaren_rl.layers import MIXERS  # here, so that `--help` does not wait for PyTorch

        for name in MIXER_FLAGS.intersection(self.mixer_options):
            raise UserError(f"--mixer-options {name}: give {flag(name)} instead")
        kind = MIXERS[mixer].options
        known = () if kind is None else (each.name for each in fields(kind))
        flags = {name: getattr(self, name) for name in known if name in MIXER_FLAGS}
        return {**flags, **self.mixer_options}

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; no clipping is null, since JSON has no infinity."""
        content = dataclasses.asdict(self)
        content["recency"] = list(self.recency)
        if math.isinf(self.observation_clip):
            content["observation_clip"] = None
        return content

    @staticmethod
    def from_json(content: dict[str, Any]) -> AgentConfig:
        """The inverse of `to_json`. What older configs do not say stays as it was then.

        Raises:
            TypeError: for a field that this version does not know, or content that is no mapping.
            UserError: for a value of another type.
        """
        given = {"observation_clip": math.inf, **content}
        given.setdefault("embedding_dropout", given.get("dropout", 0.1))
        return typed(AgentConfig(**given), "model")
