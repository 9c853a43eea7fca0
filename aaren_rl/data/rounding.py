"""Columns of numbers whose values float32, in which they are stored, cannot tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aaren_rl.data.episode import READ_BYTES, warn_once

LEAST_RANGE = 1e-6  # columns that vary by less are noise, however they are rounded
SAMPLE = 10_000  # rows that are looked at
KEPT_SHARE = 0.9  # of a column's distinct values


class Rounding:
    """Holds the first rows of float64 columns, and finds those that float32 would blur."""

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.float64]] = []
        self._rows = 0

    def add(self, values: NDArray[Any]) -> None:
        """Take `[rows, columns]` into the sample while it is not full."""
        most = min(SAMPLE, max(1, READ_BYTES // (8 * max(1, values.shape[1]))))
        taken = values[: most - self._rows].astype(np.float64)
        if self._rows < most:
            self._blocks.append(taken)
            self._rows += len(taken)

    def blurred(self, offset: NDArray[np.float64] | float = 0.0) -> NDArray[np.bool_]:
        """Whether float32 keeps too few of the distinct values of each column minus `offset`."""
        values = np.sort(np.concatenate(self._blocks), axis=0)  # rounding keeps the order
        before, after = (
            1 + np.count_nonzero(np.diff(each, axis=0), axis=0)
            for each in (values, (values - offset).astype(np.float32))
        )
        return (after < KEPT_SHARE * before) & (values[-1] - values[0] > LEAST_RANGE)


def warn_of_blurred(where: str, columns: NDArray[np.bool_]) -> None:
    """Log a warning that names the columns, if there are any."""
    places = np.flatnonzero(columns).tolist()
    if places:
        more = ", ..." if len(places) > 8 else ""
        warn_once(
            f"{where}: float32, in which they are stored, keeps fewer than {KEPT_SHARE:.0%} of the "
            f"distinct values of column(s) {', '.join(map(str, places[:8]))}{more}"
        )
