"""One episode, and a recording of many that is read one after the other."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

BLOCK = 1 << 14
"""Steps that are summed together where all steps are."""
READ_STEPS = 1 << 12
"""Steps that are read and checked together; some copies of them are in memory at once."""
READ_BYTES = 1 << 24
"""The most bytes of their observations; an image of 84 x 84 x 4 has 28 kB."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One episode of T steps, as it was recorded or as a view into a dataset.

    Attributes:
        observations: `[T + 1 or T, ...]`; the row after the last action is kept by some formats.
            A dictionary or tuple of arrays for a Dict or Tuple space.
        actions: `[T, ...]`; likewise.
        rewards: `[T]`.
        terminated: the episode ended in a final state.
        truncated: the episode was cut short, by a time limit or by the end of the recording. A
            recorded episode with neither flag is unfinished: its recording stopped inside it.
    """

    observations: Any
    actions: Any
    rewards: NDArray[Any]
    terminated: bool
    truncated: bool


@dataclass(frozen=True)
class Recording:
    """A stored dataset, opened and not yet read: what a data source returns.

    Attributes:
        name: the dataset's id, or the name of its file.
        episodes: gives all episodes, in order, each time it is called.
        kind: the format, as errors name it: `a D4RL file`.
        where: the file or folder, as errors name it.
        observation_space: of one observation, where the recording says so. Else a Box of any
            numbers is taken.
        action_space: of one action, where the recording says so. Else it is taken from the data.
        env_spec: how to make the environment, where the recording says so.
        reference_scores: returns that count as 0 and 100 in the normalised score, or None.
        files: the source of a copy in the cache, which is made anew when one of them changes.
        to_the_end: as `episodes`, with T + 1 observations where the format stores the last one in
            another array (for converting; learning needs T).
    """

    name: str
    episodes: Callable[[], Iterator[Trajectory]]
    kind: str
    where: str
    observation_space: spaces.Space[Any] | None = None
    action_space: spaces.Space[Any] | None = None
    env_spec: EnvSpec | None = None
    reference_scores: tuple[float, float] | None = None
    files: Sequence[Path] = ()
    to_the_end: Callable[[], Iterator[Trajectory]] | None = None


_kept: list[list[str]] = []  # of the blocks of `warnings_kept` that run


def warn_once(message: str) -> None:
    """Log a warning, which goes to stderr by default, once in a process."""
    for messages in _kept:
        messages.append(message)
    _log_once(message)


@functools.cache
def _log_once(message: str) -> None:
    logging.getLogger("aaren_rl.data").warning(message)


@contextmanager
def warnings_kept() -> Iterator[list[str]]:
    """The messages of `warn_once` in the block, those too that were logged before."""
    messages: list[str] = []
    _kept.append(messages)
    try:
        yield messages
    finally:
        _kept.pop()
