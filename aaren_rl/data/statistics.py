"""Computed over all steps: means and deviations, returns-to-go, timesteps."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from aaren_rl.data.episode import BLOCK
from aaren_rl.data.rows import row_numbers
from aaren_rl.layout import Layout

BLOCK_NUMBERS = 1 << 24  # float64 numbers in memory at once, where a row is long
WIDE = 1000.0  # bounds say nothing where they are more than this many ranges of the data apart
CONSTANT_STD = 1e-11  # a column counts as constant up to this standard deviation,
CONSTANT_ROUNDINGS = 4 * float(np.finfo(np.float32).eps)  # or up to this share of its mean


def column_statistics(rows: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each column, to standardise by: float32 `[columns]` or `[]`.

    A column counts as constant, and gets a deviation of 1, when its deviation is at most 1e-11, or
    at most four float32 roundings of its mean: that is the noise of a simulator or of float32, not
    information, and dividing by it would make any other value enormous.
    """
    return divisors(*moments(rows))


def moments(rows: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each column, float64 `[columns]` or `[]` each."""
    steps = len(rows)
    block = max(1, min(BLOCK, BLOCK_NUMBERS // math.prod(rows.shape[1:])))
    starts = range(0, steps, block)
    # Deviations from the first row, in float64: they are exactly 0 where a column is constant, and
    # a large mean costs no digits of the deviation.
    first = np.asarray(rows[0:1], dtype=np.float64)[0]
    away = sum((rows[start : start + block] - first).sum(axis=0) for start in starts) / steps
    mean = first + away
    square = sum(
        ((rows[start : start + block] - first - away) ** 2).sum(axis=0) for start in starts
    )
    return mean, np.sqrt(square / steps)


def divisors(
    mean: NDArray[np.float64], std: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation to standardise by: 1 for the deviation of what counts as constant."""
    std = np.where(_constant(mean, std), 1.0, std)
    return mean.astype(np.float32), std.astype(np.float32)


def _constant(mean: NDArray[np.float64], std: NDArray[np.float64]) -> NDArray[np.bool_]:
    constant: NDArray[np.bool_] = std <= np.maximum(CONSTANT_STD, CONSTANT_ROUNDINGS * np.abs(mean))
    return constant


def wide_parts(actions: Any, space: spaces.Space[Any]) -> tuple[bool, ...]:
    """For each part of an action space, whether its bounds are as good as none to these actions.

    They are where a column that is not constant has finite ones more than 2 apart, and more
    than 1,000 times as far as its largest and smallest action. Large numbers are a usual way to
    write "no bound".
    """
    layout = Layout.of(space)
    return tuple(
        not leaf.levels and _is_wide(actions, columns, leaf.space)
        for leaf, columns in zip(layout.leaves, layout.slices, strict=True)
    )


def _is_wide(actions: Any, columns: slice, box: spaces.Box) -> bool:
    if not box.is_bounded():
        return False
    blocks = range(0, len(actions), BLOCK)
    each = [actions[start : start + BLOCK][:, columns] for start in blocks]
    lowest = np.min([rows.min(axis=0) for rows in each], axis=0).astype(np.float64)
    highest = np.max([rows.max(axis=0) for rows in each], axis=0).astype(np.float64)
    # Halves, as a difference of the largest numbers overflows.
    half = box.high.ravel().astype(np.float64) / 2 - box.low.ravel().astype(np.float64) / 2
    # Bounds within [-1, 1] are chosen, not left open, however small the actions are.
    wide = (half > 1) & (half > WIDE / 2 * (highest - lowest))
    return bool(wide.any() and (wide & ~_constant(*moments(actions))[columns]).any())


def returns_to_go(rewards: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Undiscounted rewards from each step to its episode's end, float64 `[steps]`."""
    # Each episode is summed on its own: the difference of two running sums over the whole dataset
    # would cost digits that grow with the dataset.
    result = np.empty_like(rewards)
    for start, stop in pairwise(offsets.tolist()):
        result[start:stop] = np.cumsum(rewards[start:stop][::-1])[::-1]
    return result


def timesteps(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each step's number within its episode, from 0, int64 `[steps]`."""
    return row_numbers(np.zeros_like(lengths), lengths)
