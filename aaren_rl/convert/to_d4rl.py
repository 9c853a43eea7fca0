"""A Minari dataset as a D4RL file: the inverse of `to_minari`.

What D4RL's layout has no place for goes into the group `metadata/minari`: Minari's metadata, the
episodes' attributes, and the infos after each episode's last action.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
from gymnasium import spaces

from aaren_rl.convert.blocks import Compression, Reader, Writer, arrays_below
from aaren_rl.convert.to_minari import ORIGIN, OUTSIDE, OWN_NEXT, REST_FILE
from aaren_rl.data.sources.hdf5 import open_hdf5, read_array
from aaren_rl.data.sources.minari import HDF5_FILE, METADATA, read_metadata
from aaren_rl.errors import UserError
from aaren_rl.files import sync_file, sync_folder

FIELDS = {
    "observations": "observations",
    "next_observations": "observations",
    "actions": "actions",
    "rewards": "rewards",
    "terminals": "terminations",
    "timeouts": "truncations",
}
"""D4RL's array: Minari's."""


def to_d4rl(folder: Path, file: Path, options: Compression) -> Path:
    """Write the file; gives it.

    Args:
        folder: of a Minari dataset in the HDF5 format, with array spaces.
        file: new.
        options: see `compression`.

    Raises:
        UserError: another format, composite spaces or pictures, episodes that do not fit together,
            a file that is there already or cannot be written.
    """
    data = folder / "data" if (folder / "data").is_dir() else folder
    metadata = read_metadata(data / METADATA)
    _check(data, metadata)
    if file.exists():
        raise UserError(f"{file}: there already; remove it to make it anew")
    aside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with open_hdf5(data / HDF5_FILE) as source:
            try:
                target = h5py.File(aside, "w")
            except OSError as error:
                raise UserError(f"{file}: cannot be written ({error})") from None
            with target:
                _ToD4RL(data / HDF5_FILE, source, target, metadata, options).write()
                if (folder / REST_FILE).is_file():
                    _copy_rest(folder / REST_FILE, target)
        sync_file(aside)
        os.link(aside, file)  # where another process made it meanwhile, this fails
    except FileExistsError:
        raise UserError(f"{file}: there already; remove it to make it anew") from None
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(file.parent)
    return file


def _check(data: Path, metadata: dict[str, Any]) -> None:
    """Raise UserError for what does not go into a D4RL file."""
    if metadata["data_format"] != "hdf5":
        raise UserError(f"{data}: format {metadata['data_format']!r}; 'hdf5' expected")
    dataset = minari.MinariDataset(data)
    for name in ("observation_space", "action_space"):
        space = getattr(dataset, name)
        array = isinstance(
            space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
        )
        if not array or (space.dtype == np.uint8 and len(space.shape or ()) > 1):
            raise UserError(f"{data}: {name} {space}: one array of numbers (no picture) expected")


class _ToD4RL:
    def __init__(
        self,
        path: Path,
        source: h5py.File,
        target: h5py.File,
        metadata: dict[str, Any],
        options: Compression,
    ) -> None:
        self.path, self.source, self.target = path, source, target
        self.metadata, self.options = metadata, options
        self.form = metadata.get("d4rl", {"next_observations": True})
        self.episodes, self.steps = metadata["total_episodes"], metadata["total_steps"]
        first = self._group(0)
        infos = arrays_below(first["infos"]) if "infos" in first else {}
        self.infos = {name: node for name, node in infos.items() if name != OWN_NEXT}
        self.last_infos = {
            name: node
            for name, node in self.infos.items()
            if len(node) == len(first["actions"]) + 1
        }

    def write(self) -> None:
        """Write all episodes, and what Minari alone knows."""
        known = self.form["next_observations"]
        fields = [name for name in FIELDS if known or name != "next_observations"]
        writers = {name: self._field_writer(name) for name in fields}
        for name, node in self.infos.items():
            path = f"infos/{name}"
            if "d4rl" in self.metadata and name.startswith(OUTSIDE):
                path = name.removeprefix(OUTSIDE)
            writers[f"infos/{name}"] = self._writer(path, node)
        keeps_minari = "d4rl" not in self.metadata or self.form["was_minari"]
        lasts = {
            name: Writer(
                self.target,
                f"{ORIGIN}/last_infos/{name}",
                (self.episodes, *node.shape[1:]),
                node.dtype,
                {},
            )
            for name, node in self.last_infos.items()
        }
        if keeps_minari:
            self._keep_metadata()
            text = h5py.string_dtype()
            lasts[""] = Writer(
                self.target, f"{ORIGIN}/episode_attributes", (self.episodes,), text, {}
            )
        for number in range(self.episodes):
            self._append(number, writers, lasts)
        for writer in (*writers.values(), *lasts.values()):
            writer.flush()
            if writer.written != len(writer.node):
                raise UserError(
                    f"{self.path}: {writer.written} steps; the metadata's {self.steps} expected"
                )
        if self.form.get("unfinished"):
            self.target["timeouts"][-1] = False

    def _field_writer(self, name: str) -> Writer:
        dtype = self.form.get("dtypes", {}).get(name)
        inner = self.form.get("shapes", {}).get(name)
        return self._writer(name, self._group(0)[FIELDS[name]], dtype, inner)

    def _writer(
        self, path: str, node: h5py.Dataset, dtype: Any = None, inner: Any = None
    ) -> Writer:
        shape = (self.steps, *(node.shape[1:] if inner is None else inner))
        return Writer(self.target, path, shape, dtype or node.dtype, self.options)

    def _append(self, number: int, writers: dict[str, Writer], lasts: dict[str, Writer]) -> None:
        """One episode behind those before it."""
        group = self._group(number)
        steps = len(group["actions"])
        if len(group["observations"]) != steps + 1:
            raise UserError(
                f"{self._where(number)}: {len(group['observations'])} observations for {steps} "
                f"actions; Minari stores {steps + 1}"
            )
        self._check_ends(number, group, steps)
        infos = arrays_below(group["infos"]) if "infos" in group else {}
        after = infos.pop(OWN_NEXT, None)
        if infos.keys() != self.infos.keys():
            raise UserError(
                f"{self._where(number)}: infos {sorted(infos)}; {sorted(self.infos)} expected, "
                "those of episode 0"
            )
        for name, writer in writers.items():
            start = 0
            if name.startswith("infos/"):
                node = infos[name.removeprefix("infos/")]
            elif name == "next_observations":
                node, start = (group["observations"], 1) if after is None else (after, 0)
            else:
                node = group[FIELDS[name]]
            self._copy(number, name, node, start, steps, writer)
        for name, writer in lasts.items():
            value = _attributes(group) if name == "" else infos[name][-1]
            writer.append(np.array([value], writer.node.dtype))

    def _copy(
        self, number: int, name: str, node: h5py.Dataset, start: int, steps: int, writer: Writer
    ) -> None:
        wanted = steps + (name.removeprefix("infos/") in self.last_infos) + start
        if name != "observations" and len(node) != wanted:
            raise UserError(
                f"{self._where(number)}: {len(node)} rows of {name} for {steps} actions; "
                f"{wanted} expected"
            )
        inner = writer.node.shape[1:]
        for piece in Reader(f"{self._where(number)}: {name}", node).pieces(start, start + steps):
            writer.append(piece.reshape(len(piece), *inner).astype(writer.node.dtype, copy=False))

    def _check_ends(self, number: int, group: h5py.Group, steps: int) -> None:
        """An end within an episode would cut it in two in a D4RL file."""
        for field in ("terminations", "truncations"):
            flags = read_array(f"{self._where(number)}: {field}", group[field])
            if flags[: steps - 1].any():
                raise UserError(f"{self._where(number)}: {field} before the last step")

    def _keep_metadata(self) -> None:
        text = (self.path.parent / METADATA).read_text()
        self.target[f"{ORIGIN}/metadata.json"] = text

    def _group(self, number: int) -> h5py.Group:
        group = self.source.get(f"episode_{number}")
        if not isinstance(group, h5py.Group):
            raise UserError(f"{self._where(number)}: no such group")
        for field in set(FIELDS.values()):
            if not isinstance(group.get(field), h5py.Dataset):
                raise UserError(f"{self._where(number)}: array {field!r} missing")
        return group

    def _where(self, number: int) -> str:
        return f"{self.path}: episode {number}"


def _attributes(group: h5py.Group) -> str:
    """An episode's attributes as JSON."""
    return json.dumps({key: np.asarray(value).tolist() for key, value in group.attrs.items()})


def _copy_rest(path: Path, target: h5py.File) -> None:
    """What `to_minari` had kept of a D4RL file."""
    with h5py.File(path) as rest:
        target.attrs.update(dict(rest.attrs))
        for name in arrays_below(rest):
            parent = target.require_group(name.rpartition("/")[0] or "/")
            rest.copy(name, parent, name.rpartition("/")[2])
