"""A state from another model is refused, with both shapes named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aaren_rl.errors import UserError
from aaren_rl.layers import SequenceModel


@pytest.mark.parametrize(
    ("mixer", "other", "message"),
    [
        ("aaren", {"layers": 1}, "a state of 2 layers expected, got one of 1"),
        ("attention", {"layers": 3}, "a state of 2 layers expected, got one of 3"),
        ("aaren", {"heads": 4}, r"\[1, 2, 8\] .*expected, got \[1, 4, 4\]"),
        ("aaren", {"width": 32}, r"\[1, 2, 8\] .*expected, got \[1, 2, 16\]"),
        ("attention", {"heads": 4}, r"\[1, 2, .*, 8\] expected, got \[1, 4, .*, 4\]"),
        ("attention", {"width": 32}, r"\[1, 2, .*, 8\] expected, got \[1, 2, .*, 16\]"),
    ],
)
def test_the_state_of_another_model(mixer: str, other: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"width": 16, "layers": 2, "heads": 2}
    model = SequenceModel(mixer, **settings).eval()
    stranger = SequenceModel(mixer, **{**settings, **other}).eval()
    with torch.no_grad():
        _, state = stranger(torch.randn(1, 3, stranger.width))
        with pytest.raises(UserError, match=message):
            model(torch.randn(1, 3, 16), state)


@torch.no_grad()
def test_the_state_of_another_batch() -> None:
    model = SequenceModel("attention", 16, layers=2, heads=2).eval()
    _, state = model(torch.randn(2, 3, 16))
    with pytest.raises(UserError, match=r"\[1, 2, .* expected, got \[2, 2, "):
        model(torch.randn(1, 3, 16), state)
