"""Options of the mixers that come with the library: no import of PyTorch here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HeadOptions:
    """Options of every mixer with heads."""

    heads: int = 1
    """Attention heads a layer; must divide the width."""


@dataclass(frozen=True)
class AarenOptions(HeadOptions):
    """Options of `AarenAttention`."""

    recency: tuple[float, ...] = ()
    """Aaren only, one number a head: its scores rise by so much a token, so that it forgets older
    tokens at that rate (half in 0.69 / rate tokens; three tokens are a step), and 0 keeps for ever.
    Nothing is as in the paper: all keep. Agents that see images, or have `--condition
    max-return`, have the heads of `--preset control` by themselves (`--recency 0` for none)."""
    dilution: float = 1.0
    """In training let each token count as 1 to this many, drawn anew for every token and head, as
    if there were far more of them: what is to be kept must then stand out far more (Aaren only; 1
    is off; see docs/memory.md)."""


@dataclass(frozen=True)
class AttentionOptions(HeadOptions):
    """Options of `CausalSelfAttention`."""

    attention_dropout: float = 0.1
    """Share of attention weights dropped in training (Transformer only: Aaren never forms them)."""
