"""What a dataset's name can mean, decided in one place."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aaren_rl.data.disk import cached, default_cache
from aaren_rl.data.mask_velocity import PREFIX, mask_velocity
from aaren_rl.data.sources.d4rl import find_d4rl, is_d4rl_name, read_d4rl, unfinished_d4rl
from aaren_rl.data.sources.minari import (
    HDF5_FILE,
    download_minari,
    is_minari_folder,
    is_minari_id,
    local_ids,
    local_root,
    read_minari,
    unfinished_minari,
)
from aaren_rl.data.trajectory import Builder, TrajectoryDataset, without_last
from aaren_rl.errors import UserError

SHIPPED_ROOT = Path(__file__).parent.parent / "datasets"  # laid out as a Minari root


@dataclass(frozen=True)
class Source:
    """A dataset that is on this machine.

    Attributes:
        path: a file in D4RL's layout, or the folder of a Minari dataset.
        name: D4RL's name of the file.
        scores: D4RL's reference scores.
    """

    path: Path
    name: str | None = None
    scores: tuple[float, float] | None = None

    def read(self, build: Builder = TrajectoryDataset.from_episodes) -> TrajectoryDataset:
        """Read it, and make a dataset of its episodes."""
        if self.path.is_dir():
            return read_minari(self.path, build=build)
        return read_d4rl(self.path, name=self.name, scores=self.scores, build=build)

    def unfinished(self) -> Literal["last", "only"] | None:
        """Whether D4RL's recording stopped inside the last episode, and whether it has no other."""
        if self.path.is_dir():
            return unfinished_minari(self.path)
        return unfinished_d4rl(self.path)

    def identity(self) -> list[Any]:
        """What changes when the files change, as JSON: names, sizes, times."""
        files = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        stats = [(str(file), file.stat()) for file in files if file.is_file()]
        return [
            self.name,
            self.scores and list(self.scores),
            str(self.path.resolve()),
            [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
        ]


def load_trajectories(
    source: str | Path,
    *,
    on: Literal["memory", "disk"] = "memory",
    cache: Path | None = None,
    keep_unfinished_episode: bool = True,
) -> TrajectoryDataset:
    """Read a dataset from wherever it is.

    `source` is taken for, in this order,

    1. the path of an HDF5 file in D4RL's layout, or of a Minari dataset's folder;
    2. the id of a dataset inside this package, `aaren-rl/hopper-small-v0`;
    3. the id of a Minari dataset on this machine, in `MINARI_DATASETS_PATH` or its default;
    4. the name of a D4RL dataset, `hopper-medium-v2`, in D4RL's cache or else downloaded;
    5. the id of a Minari dataset to download.

    `mask-velocity:` in front of any of these takes the velocities out of a robot's observations:
    see `aaren_rl.data.mask_velocity`.

    Args:
        source: what to read.
        on: where the steps lie while one works with them; `disk` is for datasets that memory does
            not hold (see `aaren_rl.data.disk`).
        cache: folder of the files for `disk`; by default `disk.default_cache()`.
        keep_unfinished_episode: D4RL's recordings stop inside an episode, whose returns-to-go are
            then too low. It is read as it is; training leaves it out (`train` gives False here),
            which is logged as a warning once. A file's only episode is kept in any case.

    Raises:
        UserError: there is no such dataset, or it does not read; one line that says why.
    """
    name = str(source)
    if name.startswith(PREFIX):
        whole = load_trajectories(
            name.removeprefix(PREFIX),
            on=on,
            cache=cache,
            keep_unfinished_episode=keep_unfinished_episode,
        )
        return mask_velocity(whole)
    found = find_source(name)
    unfinished = None if keep_unfinished_episode else found.unfinished()
    if unfinished is not None:
        _warn_once(f"{found.path}: {UNFINISHED[unfinished]}")
    drop = unfinished == "last"
    if on == "memory":
        return _read(found, drop, TrajectoryDataset.from_episodes)
    identity = [*found.identity(), "without the unfinished episode"] if drop else found.identity()
    return cached(lambda build: _read(found, drop, build), identity, cache or default_cache())


UNFINISHED = {
    "last": "the last episode is unfinished, so that its returns-to-go would be too low: it is "
    "left out (--keep-unfinished-episode keeps it)",
    "only": "the only episode is unfinished, so that its returns-to-go are too low: it is kept, "
    "since there is no other",
}
"""What is said of an unfinished episode."""


def _read(source: Source, drop_last: bool, build: Builder) -> TrajectoryDataset:
    """Read the source, with or without its last episode."""
    if not drop_last:
        return source.read(build)
    return source.read(lambda episodes, **about: build(without_last(episodes), **about))


@functools.cache
def _warn_once(message: str) -> None:
    """Log a warning, which goes to stderr by default, once in a process."""
    logging.getLogger(__name__).warning(message)


def find_source(name: str) -> Source:
    """Where a dataset is, after a download if need be; see `load_trajectories`."""
    path = Path(name).expanduser()
    if path.is_file():
        return Source(path.parent if path.name == HDF5_FILE else path)
    if path.is_dir() and is_minari_folder(path):
        return Source(path)
    if not is_minari_id(name):
        expected = "a D4RL file, a Minari folder, a Minari id or a D4RL name"
        raise UserError(f"dataset {name!r}: {_what_is_there(path)}; {expected} expected")
    for root in (SHIPPED_ROOT, local_root()):
        if is_minari_folder(root / name):
            return Source(root / name)
    if is_d4rl_name(name):
        file, scores = find_d4rl(name)
        return Source(file, name, scores)
    return Source(download_minari(name, known=local_ids(SHIPPED_ROOT)))


def _what_is_there(path: Path) -> str:
    """Why a path is no dataset."""
    return "a folder without data/metadata.json" if path.is_dir() else "no such file or folder"
