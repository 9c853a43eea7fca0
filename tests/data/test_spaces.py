from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate

from aaren_rl.data import flat_size, flatten_batch
from aaren_rl.errors import UserError

SPACES = [
    spaces.Box(-1, 1, (3,), np.float64),
    spaces.Box(-1, 1, (), np.float32),
    spaces.Box(0, 255, (2, 4), np.uint8),
    spaces.Discrete(4, start=-1),
    spaces.MultiDiscrete([2, 3, 4]),
    spaces.MultiBinary(5),
    spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2, 2)))),
    spaces.Dict(z=spaces.Box(-1, 1, (2,)), a=spaces.Dict(b=spaces.Discrete(2))),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_flattens_as_gymnasium_does(space: spaces.Space[Any]) -> None:
    batched = batch_space(space, 7)
    batched.seed(0)
    batch = batched.sample()
    flat = flatten_batch(space, batch)
    one_by_one = [spaces.flatten(space, element) for element in iterate(batched, batch)]
    assert flat.dtype == np.float32
    assert flat.shape == (7, flat_size(space))
    np.testing.assert_array_equal(flat, np.stack(one_by_one).astype(np.float32))


def test_text_is_refused() -> None:
    with pytest.raises(UserError, match="Text"):
        flat_size(spaces.Dict(a=spaces.Discrete(2), b=spaces.Text(5)))


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(UserError, match=r"shape \[5, 2\].*\[3\]"):
        flatten_batch(spaces.Box(-1, 1, (3,)), np.zeros((5, 2)))


def test_discrete_value_out_of_range_is_refused() -> None:
    with pytest.raises(UserError, match="0 to 2"):
        flatten_batch(spaces.Discrete(3), np.array([0, 3]))
    with pytest.raises(UserError, match="0 to 2"):
        flatten_batch(spaces.Discrete(3), np.array([0, np.nan]))


def test_parts_of_different_lengths_are_refused() -> None:
    space = spaces.Tuple((spaces.Discrete(3), spaces.Discrete(3)))
    with pytest.raises(UserError, match="parts of 1 and of 2 rows"):
        flatten_batch(space, (np.zeros(2), np.zeros(1)))


def test_words_are_no_numbers() -> None:
    with pytest.raises(UserError, match="numbers expected"):
        flatten_batch(spaces.Box(-1, 1, (1,)), np.array([["one"]]))
