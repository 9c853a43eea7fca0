"""The interface of sequence mixers, the recurrent ones' base class, and the registry.

A mixer is a `torch.nn.Module` that mixes each token with the tokens before it. The registry calls
it as

    make(width, **options)                    # and out_std=..., where it has such a parameter

`width` is the size of a token; the options are the fields of the dataclass it was registered with.
`out_std` is the standard deviation at which weights that write to the residual stream should
start. The module draws its weights in its constructor and must have

    forward(x, state=None, mask=None, read=slice(None), cu_seqlens=None) -> (y, state)
    state_type            # class of its state, such as a `TensorState`
    reset_parameters()    # draw its weights anew

with

    x           tokens [batch, time, width]
    state       the past before x, of `state_type`; `None` is the empty past
    mask        bool [batch, time]; a token where it is false leaves no trace
    read        the tokens whose outputs are wanted: y is [batch, tokens in read, width]
    cu_seqlens  int64 [sequences + 1], on the CPU, or `None`: x is a packed batch, [1, time, width],
                of sequences of the cumulated lengths [0, n_1, n_1 + n_2, ...] (as in
                flash-linear-attention), and nothing passes from one to the next

Cutting a sequence anywhere and carrying the state must not change y. A recurrent mixer gets all
that from `RecurrentMixer` and writes `mix` alone. A mixer with the attribute `slides = True` has a
state that grows and has `last(count)`, which keeps the newest tokens: its agents have the mode
`sliding`, and `window` as the default mode.

docs/plugins.md has a mixer with options in a file of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from aaren_rl.layers.state import EVERY_TOKEN, HiddenState, TensorState, check_mask
from aaren_rl.registry import Registry

M = TypeVar("M", bound=Callable[..., nn.Module])
LONGEST_SPAN = 1000  # tokens
MIXERS: Registry[Callable[..., nn.Module]] = Registry("mixer")


def register_mixer(name: str, make: M, *, options: type | None = None) -> M:
    """Add a mixer, for `AgentConfig.mixer`, `--mixer`, `--agent decision-NAME`, `SequenceModel`.

    >>> from aaren_rl.layers import HiddenState, RecurrentMixer
    >>> class Leaky(RecurrentMixer):  # the tokens' average, the older ones with less weight
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
        name: its name in configs and on the command line, in lower case with hyphens.
        make: its class, see the module's text; returned.
        options: a dataclass whose fields are keyword arguments of `make`, each with a default.

    Raises:
        UserError: for a name that belongs to another mixer.
    """
    MIXERS.register(name, make, options=options)
    return make


def each_sequence(
    mix: Callable[[Tensor], tuple[Tensor, Any]], x: Tensor, cu_seqlens: Tensor, read: slice
) -> tuple[Tensor, Any]:
    """Run `mix`, from tokens `[1, length, width]` to outputs and a state, on every packed sequence.

    Returns:
        Outputs `[1, tokens in read, width]`, and the last sequence's state.
    """
    pieces, state = [], None
    for start, end in pairwise(cu_seqlens.tolist()):
        piece, state = mix(x[:, start:end])
        pieces.append(piece)
    return torch.cat(pieces, dim=1)[:, read], state


class RecurrentMixer(nn.Module, ABC):
    """Base class for recurrent mixers: a subclass writes `mix`.

    Packed batches run one sequence after the other, and masked ones one token after the other:
    masks come with the few tokens of acting.
    """

    state_type: ClassVar[type[TensorState]] = HiddenState

    @abstractmethod
    def mix(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mix tokens `[batch, time, width]`, time at least 1, with their past.

        Returns:
            Outputs `[batch, time, width]` and the state after the last token. The state `None` is
            the empty past.
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
        """See the module's text; the state after a packed batch is the last sequence's."""
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
    """Biases `[width]` at which gates keep what was written for 2 to 1,000 tokens, drawn uniformly.

    A gate sigmoid(b) keeps for about exp(b) + 1 tokens: chrono initialisation, Tallec and Ollivier
    2018. With gates that start at a half, no gradient reaches tokens a hundred steps back
    (docs/memory.md has both).
    """
    return torch.empty(width).uniform_(1, LONGEST_SPAN - 1).log()
