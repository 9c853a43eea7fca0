"""A D4RL file as a Minari dataset.

What Minari has no place for is kept beside it, so that `to_d4rl` gives the same file again:
`d4rl/rest.hdf5` holds what is not an array of steps, and the metadata's key `d4rl` says what
Minari's form does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minari.serialization import deserialize_space

from aaren_rl.convert.blocks import Compression, Reader, arrays_below, write_rows
from aaren_rl.data.sources.d4rl import FIELDS, check_d4rl, d4rl_action_space
from aaren_rl.data.sources.hdf5 import open_hdf5
from aaren_rl.data.sources.minari import HDF5_FILE
from aaren_rl.data.to_minari import new_minari
from aaren_rl.errors import UserError
from aaren_rl.files import sync_file
from aaren_rl.robots import reference_scores

ORIGIN = "metadata/minari"  # group of a D4RL file that was a Minari dataset before
REST_FILE = Path("d4rl") / "rest.hdf5"
OUTSIDE = "d4rl/"  # begins the names of infos that were no infos in the D4RL file
OWN_NEXT = f"{OUTSIDE}next_observations"  # in episodes where they are not the next step's
FLAGS = 1 << 16  # steps whose flags are looked at together
COMPARED = 1 << 12  # steps whose observations are
NOT_COPIED = (
    *("dataset_id", "observation_space", "action_space", "env_spec", "data_format"),
    *("jpeg_encoding", "minari_version", "total_episodes", "total_steps", "dataset_size", "d4rl"),
)


class Span(NamedTuple):
    """An episode's rows in the file, and whether an end was recorded there."""

    start: int
    stop: int
    finished: bool


def to_minari(
    file: Path,
    dataset_id: str,
    root: Path,
    *,
    scores: tuple[float, float] | None,
    env_spec: EnvSpec | None,
    options: Compression,
) -> Path:
    """Write the dataset; gives its folder.

    Args:
        file: in D4RL's layout.
        dataset_id: of the new dataset.
        root: the Minari root to write into.
        scores: reference (minimum, maximum) returns; D4RL's by the names if left out.
        env_spec: what the data come from, where it is known.
        options: see `compression`.

    Raises:
        UserError: a broken file, pictures, a dataset that is there already, or a root that cannot
            be written.
    """
    with open_hdf5(file) as source:
        converter = _ToMinari(file, source, options)
        about = converter.about(scores or reference_scores(file.stem), env_spec)
        with new_minari(dataset_id, root, **about["spaces"]) as new:
            with h5py.File(new.folder / "data" / HDF5_FILE, "w", libver=("v110", "v110")) as target:
                new.count(*converter.write(target))
            sync_file(new.folder / "data" / HDF5_FILE)
            converter.write_rest(new.folder / REST_FILE)
            new.metadata.update(about["metadata"], d4rl=converter.form())
        return new.target


class _ToMinari:
    def __init__(self, path: Path, file: h5py.File, options: Compression) -> None:
        self.path, self.file, self.options = path, file, options
        self.steps = check_d4rl(path, file)
        if self.steps == 0:
            raise UserError(f"{path}: no steps; a dataset needs at least one")
        arrays = arrays_below(file)
        per_step = {
            name: Reader(f"{path}: {name}", node)
            for name, node in arrays.items()
            if node.shape and len(node) == self.steps and not name.startswith("metadata/")
        }
        self.fields = {name: per_step.pop(name) for name in FIELDS}
        self.after = per_step.pop("next_observations", None)
        # for reading twice at different places
        self.again = Reader(f"{path}: observations", file["observations"])
        if self.after is not None and self.after.node.shape != self.again.node.shape:
            raise UserError(
                f"{path}: next_observations of shape {list(self.after.node.shape)}; "
                f"{list(self.again.node.shape)} expected, that of the observations"
            )
        self.infos = {_info(name): reader for name, reader in per_step.items()}
        self.origin = file.get(ORIGIN)
        self.rest = [
            name
            for name in arrays
            if name not in (*FIELDS, "next_observations", *per_step)
            and not name.startswith(f"{ORIGIN}/")
        ]
        self.unfinished = False

    def about(
        self, scores: tuple[float, float] | None, env_spec: EnvSpec | None
    ) -> dict[str, dict[str, Any]]:
        """Spaces and metadata: those that the data had in Minari before, else D4RL's."""
        if self.origin is not None:
            before = json.loads(self.origin["metadata.json"][()])
            spec = before.get("env_spec")
            kept = {key: value for key, value in before.items() if key not in NOT_COPIED}
            for key in ("author", "author_email"):
                if key in kept:
                    kept[key] = set(kept[key])
            space = {key: deserialize_space(before[key]) for key in SPACES}
            own = EnvSpec.from_json(spec) if spec else None
            return {"spaces": {**space, "env_spec": env_spec or own}, "metadata": kept}
        observations = self.fields["observations"].node
        where = f"{self.path}: actions"
        space = {
            "observation_space": _box(self.path, observations),
            "action_space": d4rl_action_space(where, self.fields["actions"].node),
        }
        metadata: dict[str, Any] = {
            "description": f"Converted from {self.path.name} by aaren-rl convert",
        }
        if scores is not None:
            metadata |= {"ref_min_score": scores[0], "ref_max_score": scores[1]}
            metadata["num_episodes_average_score"] = 100
        return {"spaces": {**space, "env_spec": env_spec}, "metadata": metadata}

    def form(self) -> dict[str, Any]:
        """What `to_d4rl` must know to give the same arrays again."""
        ends = {field: self.fields[field].node for field in ("rewards", "terminals", "timeouts")}
        return {
            "next_observations": self.after is not None,
            "dtypes": {field: node.dtype.str for field, node in ends.items()},
            "shapes": {field: list(node.shape[1:]) for field, node in ends.items()},
            "unfinished": self.unfinished,
            "was_minari": self.origin is not None,
        }

    def spans(self) -> Iterator[Span]:
        """The episodes; they end at a terminal or timeout, the last one with the file."""
        flags = [Reader(f"{self.path}: {name}", self.file[name]) for name in ENDS]
        start = row = 0
        while row < self.steps:
            stop = min(row + FLAGS, self.steps)
            ends = np.zeros(stop - row, bool)
            for reader in flags:
                ends |= reader.rows(row, stop).reshape(-1).astype(bool)
            for end in (np.flatnonzero(ends) + row + 1).tolist():
                yield Span(start, end, True)
                start = end
            row = stop
        if start < self.steps:
            yield Span(start, self.steps, False)

    def write(self, target: h5py.File) -> tuple[int, int]:
        """Write all episodes; gives their number and that of their steps."""
        number = 0
        for number, span in enumerate(self.spans(), start=1):
            self._write_episode(target, number - 1, span)
        return number, self.steps

    def _write_episode(self, target: h5py.File, number: int, span: Span) -> None:
        group = target.create_group(f"episode_{number}")
        rows, options = (span.start, span.stop), self.options
        self._attributes(group, number, span)
        observations = self.fields["observations"]
        # a file without them does not know what came after an episode's last action
        last = (observations if self.after is None else self.after).row(span.stop - 1)
        write_rows(group, "observations", observations, rows, options, last)
        write_rows(group, "actions", self.fields["actions"], rows, options)
        rewards = self.fields["rewards"]
        write_rows(group, "rewards", rewards, rows, options, dtype=rewards.node.dtype)
        write_rows(group, "terminations", self.fields["terminals"], rows, options, dtype=bool)
        write_rows(group, "truncations", self.fields["timeouts"], rows, options, dtype=bool)
        if not span.finished:
            self.unfinished = True
            group["truncations"][-1] = True  # Minari's episodes end with a flag
        infos = dict(self.infos)
        if self.after is not None and not self._follow(self.after, span):
            infos[OWN_NEXT] = self.after
        for name, reader in infos.items():
            kept = self.origin.get(f"last_infos/{name}") if self.origin is not None else None
            last_info = None if kept is None else np.asarray(kept[number])
            write_rows(group, f"infos/{name}", reader, rows, options, last_info)

    def _attributes(self, group: h5py.Group, number: int, span: Span) -> None:
        attributes: dict[str, Any] = {"id": number, "total_steps": span.stop - span.start}
        if self.origin is not None and "episode_attributes" in self.origin:
            attributes |= json.loads(self.origin["episode_attributes"][number])
        group.attrs.update(attributes)

    def _follow(self, after: Reader, span: Span) -> bool:
        """Whether each next observation of an episode is the observation of the next step."""
        start, stop = span.start, span.stop - 1
        while start < stop:
            end = min(start + COMPARED, stop)
            one, other = after.rows(start, end), self.again.rows(start + 1, end + 1)
            if one.tobytes() != other.tobytes():
                return False
            start = end
        return True

    def write_rest(self, path: Path) -> None:
        """Keep what is not an array of steps, with the file's own attributes."""
        if not self.rest and not self.file.attrs:
            return
        path.parent.mkdir()
        with h5py.File(path, "w") as rest:
            rest.attrs.update(dict(self.file.attrs))
            for name in self.rest:
                parent = rest.require_group(name.rpartition("/")[0] or "/")
                self.file.copy(name, parent, name.rpartition("/")[2])
        sync_file(path)


SPACES = ("observation_space", "action_space")
ENDS = ("terminals", "timeouts")


def _info(name: str) -> str:
    """What an array of steps is called among Minari's infos."""
    return name.removeprefix("infos/") if name.startswith("infos/") else OUTSIDE + name


def _box(path: Path, node: h5py.Dataset) -> spaces.Box:
    """Any values of the array's type."""
    if node.dtype == np.uint8 and node.ndim > 2:
        raise UserError(
            f"{path}: observations of shape {list(node.shape)}: pictures; not converted"
        )
    if np.issubdtype(node.dtype, np.integer):
        limits = np.iinfo(node.dtype)
        return spaces.Box(limits.min, limits.max, node.shape[1:], node.dtype.type)
    return spaces.Box(-np.inf, np.inf, node.shape[1:], node.dtype.type)
