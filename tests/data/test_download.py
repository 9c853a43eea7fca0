from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aaren_rl.data.sources.download import CHUNK_BYTES, download

Serve = Callable[..., Any]
CONTENT = np.random.default_rng(0).bytes(3_000_001)


def test_a_whole_file(serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new" / "folder" / "file.hdf5"
    server = serve(CONTENT)
    download(f"{server.address}/file.hdf5", target)
    assert target.read_bytes() == CONTENT
    assert not list(target.parent.glob("*.part"))
    assert "file.hdf5" in capfd.readouterr().err


def test_a_broken_connection_is_taken_up_again(serve: Serve, tmp_path: Path) -> None:
    server = serve(CONTENT, dies_at=[1_000_000, 2_000_000])
    download(f"{server.address}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    first = 1_000_000 // CHUNK_BYTES * CHUNK_BYTES
    second = first + (2_000_000 - first) // CHUNK_BYTES * CHUNK_BYTES
    assert server.ranges == [None, f"bytes={first}-", f"bytes={second}-"]


def test_what_arrived_is_kept_for_the_next_call(serve: Serve, tmp_path: Path) -> None:
    target, part = tmp_path / "file", tmp_path / "file.part"
    server = serve(CONTENT, dies_at=[1_500_000, 1_500_000])
    with pytest.raises(OSError, match="1500001 more expected"):
        download(f"{server.address}/file", target)
    assert not target.exists()
    kept = 1_500_000 // CHUNK_BYTES * CHUNK_BYTES
    assert part.read_bytes() == CONTENT[:kept]
    download(f"{server.address}/file", target)
    assert target.read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={kept}-"
    assert not part.exists()


def test_a_server_that_cannot_resume_starts_again(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    server = serve(CONTENT, resumes=False)
    download(f"{server.address}/file", tmp_path / "file")
    assert server.ranges == ["bytes=1000-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_killed_between_the_last_byte_and_the_rename(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    server = serve(CONTENT)
    download(f"{server.address}/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_no_file(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    server = serve(CONTENT)
    with pytest.raises(OSError, match="416"):
        download(f"{server.address}/file", tmp_path / "file")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_is_an_error_at_once(serve: Serve, tmp_path: Path, status: int) -> None:
    server = serve(CONTENT)
    server.status = status
    with pytest.raises(OSError, match=str(status)):
        download(f"{server.address}/file", tmp_path / "file")
    assert len(server.ranges) == 1
    assert not (tmp_path / "file").exists()


def test_a_checksum_that_differs(serve: Serve, tmp_path: Path) -> None:
    server = serve(CONTENT)
    with pytest.raises(ValueError, match="hash"):
        download(f"{server.address}/file", tmp_path / "file", "sha256:" + 64 * "0")
    assert not (tmp_path / "file").exists()
    right = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    download(f"{server.address}/file", tmp_path / "file", right)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_asked_for(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"here")
    server = serve(CONTENT)
    download(f"{server.address}/file", tmp_path / "file")
    assert server.ranges == []
