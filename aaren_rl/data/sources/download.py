"""Download one large file so that a broken connection costs only what was not yet there."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from aaren_rl.files import sync_folder

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30.0


def download(address: str, target: Path) -> None:
    """Download `address` to `target`, going on from `target.part` where an earlier try ended.

    A broken connection is taken up again as long as each try brings something. The file takes its
    final name only when it is whole and on the disk. Processes that want the same file wait for
    the first one.

    Raises:
        OSError: the server cannot be reached, refuses, or stops answering; `target.part` stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with FileLock(target.with_name(target.name + ".lock")):
        if target.exists():
            return
        with _progress() as progress:
            task = progress.add_task(target.name, total=None, visible=False)
            while True:
                before = _size(part)
                try:
                    for done, total in _fetch(address, part):
                        progress.update(task, completed=done, total=total, visible=True)
                    break
                except urllib.error.HTTPError as error:
                    raise OSError(f"HTTP {error.code} {error.reason}") from error
                except (OSError, HTTPException) as error:
                    if _size(part) <= before:
                        raise OSError(str(getattr(error, "reason", error))) from error
        os.replace(part, target)
        sync_folder(target.parent)


def _fetch(address: str, part: Path) -> Iterator[tuple[int, int | None]]:
    """Append what is missing to `part`; gives (bytes there, bytes in all) as it goes.

    Raises:
        OSError: the connection broke or the sizes do not agree.
    """
    done = _size(part)
    request = urllib.request.Request(address)
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}":
            return  # everything was there already
        raise
    with response, open(part, "ab") as file:
        if not _continues(response, done):
            file.truncate(0)
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None else None
        yield done, total
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            yield done, total
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done != total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def _continues(response: HTTPResponse, done: int) -> bool:
    """Whether the response goes on after `done` bytes; False: it is the whole file."""
    if response.status != 206:
        return False
    if not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
        raise OSError(f"asked for bytes from {done}, got {response.headers.get('Content-Range')}")
    return True


def _size(path: Path) -> int:
    """Bytes in a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def _progress() -> Progress:
    """A progress bar on standard error: name, share, bytes, speed, time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
