"""Computed over all steps: means and deviations, returns-to-go, timesteps."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aaren_rl.data.episode import BLOCK
from aaren_rl.data.rows import row_numbers

BLOCK_NUMBERS = 1 << 24  # float64 numbers in memory at once, where a row is long
CONSTANT_STD = 1e-8  # a column counts as constant up to this standard deviation,
CONSTANT_ROUNDINGS = 4 * float(np.finfo(np.float32).eps)  # or up to this share of its mean


def column_statistics(rows: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each column, to standardise by: float32 `[columns]` or `[]`.

    A column counts as constant, and gets a deviation of 1, when its deviation is at most 1e-8, or
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
    constant = std <= np.maximum(CONSTANT_STD, CONSTANT_ROUNDINGS * np.abs(mean))
    return mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32)


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
