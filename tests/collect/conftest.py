from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from collect_cases import cartpole, dqn, pendulum

from aaren_rl.collect import CollectConfig, collect

MAKERS = {"ppo": cartpole, "dqn": dqn, "sac": pendulum}


class Collections:
    """Finished collections by the algorithm's name, each made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, list[dict[str, Any]]] = {}

    def config(self, kind: str) -> CollectConfig:
        return MAKERS[kind](self._folder / kind)

    def rows(self, kind: str) -> list[dict[str, Any]]:
        if kind not in self._rows:
            self._rows[kind] = collect(self.config(kind))
        return self._rows[kind]

    def root(self, kind: str) -> Path:
        self.rows(kind)
        return self.config(kind).minari_root


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Collections:
    return Collections(tmp_path_factory.mktemp("collections"))
