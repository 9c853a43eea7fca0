"""Settings of `aaren-rl convert`. The command line is made from them: no import of NumPy here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class ConvertConfig:
    """Write a dataset as a Minari dataset.

    From any source that `train --dataset` takes, and of any size: one episode is in memory at a
    time. Arrays keep their numbers and types; infos are not converted. Example:
    aaren-rl convert hopper_medium-v2.hdf5 d4rl/hopper/medium-v2
    """

    source: Annotated[str, tyro.conf.Positional]
    """D4RL, d3rlpy, .npz or JSON file, LeRobot or Minari folder, Minari id or D4RL name."""
    target: Annotated[str, tyro.conf.Positional]
    """Minari id of the new dataset."""
    root: Path | None = None
    """Minari root to write into. By default MINARI_DATASETS_PATH, else ~/.minari/datasets."""
    environment: str | None = None
    """Gymnasium id to note in the dataset; options go behind it, as in 'Hopper-v5?...'. Its spaces
    become the dataset's. By default none, as no environment of today is quite D4RL's."""
    compression: Literal["none", "gzip"] = "none"
    """How arrays are stored: as they are (fast), or packed as in D4RL's own files."""
    plugin: tuple[str, ...] = ()
    """Module that registers own sources; it is imported first. Give the flag again for several."""
