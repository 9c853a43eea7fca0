"""Real data in every layout, all made of the dataset that ships in the package."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest

from aaren_rl.data import TrajectoryDataset, load_trajectories
from aaren_rl.data.sources.minari import SHIPPED_ROOT, open_minari
from aaren_rl.data.to_minari import write_minari

SHIPPED_ID = "aaren-rl/hopper-small-v0"


class D4RLFile(NamedTuple):
    """A file in D4RL's layout: whole episodes, then the beginning of one more."""

    path: Path
    episodes: int = 6
    unfinished_steps: int = 100


@pytest.fixture(scope="session")
def shipped() -> TrajectoryDataset:
    return load_trajectories(SHIPPED_ID)


@pytest.fixture(scope="session")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Minari root with one dataset, `test/hopper-v3`: the first few episodes."""
    root = tmp_path_factory.mktemp("minari")
    source = open_minari(SHIPPED_ROOT / SHIPPED_ID)
    write_minari(
        "test/hopper-v3",
        islice(source.episodes(), 6),
        observation_space=source.observation_space,
        action_space=source.action_space,
        env_spec=source.env_spec,
        root=root,
        metadata={"author": {"tests"}, "description": "a few episodes"},
    )
    return root


@pytest.fixture(scope="session")
def d4rl_file(tmp_path_factory: pytest.TempPathFactory, shipped: TrajectoryDataset) -> D4RLFile:
    file = D4RLFile(tmp_path_factory.mktemp("d4rl") / "hopper_medium-v2.hdf5")
    write_d4rl(file, shipped)
    return file


def write_d4rl(file: D4RLFile, data: TrajectoryDataset) -> None:
    """Write the first episodes as D4RL does."""
    steps = int(data.offsets[file.episodes]) + file.unfinished_steps
    ends = data.offsets[1 : file.episodes + 1] - 1
    terminals, timeouts = np.zeros(steps, bool), np.zeros(steps, bool)
    terminals[ends] = data.terminated[: file.episodes]
    timeouts[ends] = data.truncated[: file.episodes]
    observations = data.observations[: steps + 1]
    arrays = {
        "observations": observations[:-1],
        "next_observations": observations[1:],
        "actions": data.actions[:steps],
        "rewards": data.rewards[:steps].astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
        "infos/action_log_probs": np.zeros(steps, np.float32),
        "infos/qpos": np.pad(observations[:-1, :5], ((0, 0), (1, 0))),
        "infos/qvel": observations[:-1, 5:],
        "metadata/algorithm": np.bytes_("SAC"),
        "metadata/iteration": np.int64(599),
        "metadata/policy/fc0/bias": np.zeros(256, np.float32),
    }
    with h5py.File(file.path, "w") as target:
        for name, values in arrays.items():
            compression = "gzip" if np.ndim(values) else None
            target.create_dataset(name, data=values, compression=compression)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers, with `Server`'s arguments; they stop with the test."""
    servers: list[Server] = []

    def start(*args: Any, **options: Any) -> Server:
        servers.append(Server(*args, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


class Server:
    """One file on the loopback interface, by a server that hangs up when told to.

    `dies_at[i]` is the byte of the file at which answer i ends; None, or none left: it is whole.
    `ranges` collects the Range headers of all requests.
    """

    def __init__(
        self, content: bytes, dies_at: list[int | None] | None = None, *, resumes: bool = True
    ) -> None:
        self.content, self.dies_at, self.resumes = content, list(dies_at or []), resumes
        self.ranges: list[str | None] = []
        self.status = 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        start, size = 0, len(self.content)
        if wanted and self.resumes:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1))  # type: ignore[union-attr]
        if self.status != 200 or start >= size:
            request.send_response(self.status if self.status != 200 else 416)
            request.send_header("Content-Range", f"bytes */{size}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        request.send_header("Content-Length", str(size - start))
        request.end_headers()
        stop = self.dies_at.pop(0) if self.dies_at else None
        request.wfile.write(self.content[start:stop])

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
