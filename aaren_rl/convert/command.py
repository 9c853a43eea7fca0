"""The command that converts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from aaren_rl.convert.blocks import compression
from aaren_rl.convert.to_d4rl import to_d4rl
from aaren_rl.convert.to_minari import to_minari
from aaren_rl.data.sources.load import find_source
from aaren_rl.data.sources.minari import is_minari_id, local_root
from aaren_rl.envs.make import environment_spec
from aaren_rl.errors import UserError


@dataclass(frozen=True)
class ConvertConfig:
    """Convert a D4RL file to a Minari dataset, or a Minari dataset to a D4RL file.

    Nothing is lost either way, and files of any size are converted in little memory. Examples:
    aaren-rl convert hopper_medium-v2.hdf5 d4rl/hopper/medium-v2
    aaren-rl convert d4rl/hopper/medium-v2 hopper_medium-v2.hdf5
    """

    source: Annotated[str, tyro.conf.Positional]
    """D4RL file or name, or Minari id or folder."""
    target: Annotated[str, tyro.conf.Positional]
    """Minari id of the new dataset, or the new file (.hdf5)."""
    root: Path | None = None
    """Minari root to write into. By default MINARI_DATASETS_PATH, else ~/.minari/datasets."""
    environment: str | None = None
    """Gymnasium id to note in a Minari dataset; options go behind it, as in 'Hopper-v5?...'. By
    default none, as no environment of today is quite D4RL's."""
    compression: Literal["none", "gzip"] = "none"
    """How arrays are stored: as they are (fast), or packed as in D4RL's own files."""


def convert(config: ConvertConfig) -> Path:
    """Convert; gives the new folder or file.

    Raises:
        UserError: a source that does not read, a target that is there, or that cannot be written.
    """
    file = config.target.endswith((".hdf5", ".h5"))
    if not (file or is_minari_id(config.target)):
        raise UserError(
            f"target {config.target!r}: a Minari id such as d4rl/hopper/medium-v2, or a file that "
            "ends in .hdf5 expected"
        )
    source = find_source(config.source)
    options = compression(config.compression)
    if source.path.is_dir() != file:
        kind = "a Minari dataset" if source.path.is_dir() else "a D4RL file"
        raise UserError(f"{config.source} is {kind} already, and so would be {config.target}")
    if file:
        for flag, value in (("--root", config.root), ("--environment", config.environment)):
            if value is not None:
                raise UserError(f"{flag} {value}: belongs to a Minari dataset, not to a D4RL file")
        return to_d4rl(source.path, Path(config.target), options)
    return to_minari(
        source.path,
        config.target,
        config.root or local_root(),
        scores=source.scores,
        env_spec=None if config.environment is None else environment_spec(config.environment),
        options=options,
    )
