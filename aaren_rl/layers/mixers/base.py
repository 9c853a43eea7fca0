"""What a sequence mixer is, and how one from outside the package is added.

A mixer is a `torch.nn.Module` that mixes each token with the tokens before it. The registry calls
it as

    make(width, **options)                    # and out_std=..., where it has such a parameter

`width` is the size of a token; the options are the fields of the dataclass it was registered with.
`out_std` is the standard deviation at which weights that write to the residual stream should
start. The module must have

    forward(x, state, mask, read, cu_seqlens) -> (y, state)    # as `Mixer.forward` says
    state_type                                                 # class of its state
    reset_parameters()                                         # draw its weights anew

and draw its weights in its constructor: nobody else touches them. A recurrent mixer gets all that
from `RecurrentMixer` and writes `mix` alone. It may also have the attributes

    slides = True    # its state has `last(count)`, which keeps the newest tokens: mode `sliding`,
                     # and, since such a state grows, `window` as the default mode
    folds = True     # it is an `AarenAttention`, for which `AarenStep` is a faster step

A mixer in a file of its own, for `--plugin my_mixer --mixer leaky`:

    @dataclass(frozen=True)
    class LeakyOptions:
        keep: float = 0.9
        '''Share of the average that is kept at each token.'''

    class Leaky(RecurrentMixer):
        def __init__(self, width: int, keep: float = 0.9) -> None:
            super().__init__()
            self.keep, self.out = keep, nn.Linear(width, width)

        def mix(self, x, state):
            average, outputs = 0.0 if state is None else state.vectors[:, 0], []
            for token in x.unbind(1):
                average = self.keep * average + (1 - self.keep) * token
                outputs.append(average)
            return self.out(torch.stack(outputs, 1)), HiddenState(average[:, None])

    register_mixer("leaky", Leaky, options=LeakyOptions)
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from aaren_rl.layers.packed import each_sequence
from aaren_rl.layers.state import EVERY_TOKEN, MixerState, check_mask
from aaren_rl.registry import Registry

S = TypeVar("S", bound="TensorState")
M = TypeVar("M", bound=Callable[..., nn.Module])
LONGEST_SPAN = 1000  # tokens

MIXERS: Registry[Callable[..., nn.Module]] = Registry("mixer")


def register_mixer(name: str, make: M, *, options: type | None = None) -> M:
    """Add a mixer, for `AgentConfig.mixer`, `--mixer`, `--agent decision-NAME`, `SequenceModel`.

    >>> from aaren_rl.layers import HiddenState, RecurrentMixer
    >>> class Leaky(RecurrentMixer):  # the tokens' average, the older ones ever lighter
    ...     def mix(self, x, state):
    ...         average, outputs = 0.0 if state is None else state.vectors[:, 0], []
    ...         for token in x.unbind(1):
    ...             average = 0.9 * average + 0.1 * token
    ...             outputs.append(average)
    ...         return torch.stack(outputs, 1), HiddenState(average[:, None])
    >>> _ = arl.register_mixer("leaky-example", lambda width: Leaky())
    >>> data = arl.load_dataset("aaren-rl/hopper-small-v0")
    >>> arl.train(data, "decision-leaky-example", env="none", updates=2).agent.name
    'decision-leaky-example'

    Args:
        name: how it is called in configs and on the command line.
        make: its class; see the module's text for what it must have.
        options: a dataclass whose fields are keyword arguments of `make`, each with a default.

    Returns:
        `make`.

    Raises:
        UserError: for a name that belongs to another mixer.
    """
    MIXERS.register(name, make, options=options)
    return make


def make_mixer(name: str, width: int, out_std: float, options: Mapping[str, Any]) -> nn.Module:
    """A new mixer.

    Args:
        name: in `MIXERS`.
        width: size of a token.
        out_std: standard deviation of the weights that write to the residual stream.
        options: its settings; what is not given has the registered default.

    Raises:
        UserError: for an unknown mixer or option.
    """
    make = MIXERS[name].make
    arguments = MIXERS.options(name, options)
    if "out_std" in inspect.signature(make).parameters:
        arguments["out_std"] = out_std
    return make(width, **arguments)


class Mixer(Protocol):
    """The interface of every mixer; see the module's text."""

    state_type: ClassVar[type]

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        mask: Tensor | None = None,
        read: slice = EVERY_TOKEN,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, MixerState]:
        """Mix tokens with their past.

        Args:
            x: tokens `[batch, time, width]`.
            state: the past before `x`, of `state_type`; `None` is the empty past.
            mask: bool `[batch, time]`; a token where it is false leaves no trace.
            read: the tokens whose outputs are wanted.
            cu_seqlens: for a packed batch (`aaren_rl.layers.packed`), the cumulated lengths.

        Returns:
            Outputs `[batch, tokens in read, width]` and the state after the last token. Cutting a
            sequence anywhere and carrying the state must not change the outputs.
        """
        ...

    def reset_parameters(self) -> None:
        """Draw the weights."""
        ...


@dataclass(frozen=True)
class TensorState:
    """Base class for states: a frozen dataclass whose fields are tensors `[batch, ...]` or `None`.

    The empty past is zero in every field; a subclass for which it is something else overrides
    `reset`.
    """

    def _each(self: S, change: Callable[[Tensor], Tensor]) -> S:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{n: None if t is None else change(t) for n, t in tensors.items()})

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors together."""
        tensors = (getattr(self, field.name) for field in fields(self))
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def reset(self: S, mask: Tensor) -> S:
        """Forget everything in the sequences where `mask` (`[batch]`, bool) is true."""
        return self._each(lambda t: t.masked_fill(mask.view(-1, *[1] * (t.dim() - 1)), 0))

    def detach(self: S) -> S:
        """The same values, cut off from the graph."""
        return self._each(Tensor.detach)

    def __getitem__(self: S, index: Any) -> S:
        """The states of some of the sequences."""
        return self._each(lambda tensor: tensor[index])

    def where(self: S, mask: Tensor, other: S) -> S:
        """This state in the sequences where `mask` (`[batch]`, bool) is true, else `other`."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return replace(
            self,
            **{
                name: torch.where(mask.view(-1, *[1] * (mine.dim() - 1)), mine, others)
                for name, (mine, others) in pairs.items()
                if mine is not None
            },
        )


@dataclass(frozen=True)
class HiddenState(TensorState):
    """Hidden vectors `[batch, vectors, width]`: one for a minGRU, hidden and cell for an LSTM."""

    vectors: Tensor


class RecurrentMixer(nn.Module, ABC):
    """Base class for recurrent mixers: a subclass writes `mix`.

    Packed batches run one sequence after the other, and masked ones one token after the other:
    masks come with the few tokens of acting.
    """

    state_type: ClassVar[type[TensorState]] = HiddenState

    @abstractmethod
    def mix(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mix tokens with their past.

        Args:
            x: tokens `[batch, time, width]`, time at least 1.
            state: the past before `x`, of `state_type`; `None` means the same as the empty past.

        Returns:
            Outputs `[batch, time, width]` and the state after the last token.
        """

    def reset_parameters(self) -> None:
        """Draw the weights anew: those of each part, as that part does."""
        for part in self.children():
            reset = getattr(part, "reset_parameters", None)
            if reset is not None:
                reset()

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        mask: Tensor | None = None,
        read: slice = EVERY_TOKEN,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """See `Mixer.forward`; the state after a packed batch is the last sequence's."""
        if cu_seqlens is not None:
            return each_sequence(self, x, cu_seqlens, read)
        check_mask(x, mask)
        if mask is None:
            outputs, state = self.mix(x, state)
        else:
            outputs, state = self.mix_masked(x, state, mask)
        return self.project(outputs[:, read]), state

    def project(self, mixed: Tensor) -> Tensor:
        """From what `mix` gives to the outputs, of the wanted tokens alone; as it is by default."""
        return mixed

    def mix_masked(self, x: Tensor, state: Any, mask: Tensor) -> tuple[Tensor, Any]:
        """As `mix`; a token where `mask` (bool `[batch, time]`) is false leaves no trace."""
        pieces = []
        for token, present in zip(x.split(1, dim=1), mask.unbind(1), strict=True):
            output, new = self.mix(token, state)
            state = new.reset(~present) if state is None else new.where(present, state)
            pieces.append(output)
        return torch.cat(pieces, dim=1), state


def keep_biases(width: int) -> Tensor:
    """Biases at which gates keep what was written for 2 to 1,000 tokens, drawn uniformly.

    A gate sigmoid(b) keeps for about exp(b) + 1 tokens: chrono initialisation, Tallec and Ollivier
    2018. With gates that begin at a half, no gradient reaches what was seen a hundred tokens ago
    (docs/memory.md has both).

    Returns:
        float `[width]`.
    """
    return torch.empty(width).uniform_(1, LONGEST_SPAN - 1).log()
