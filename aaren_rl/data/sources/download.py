"""Download a large file, continuing after a broken connection."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from filelock import FileLock

from aaren_rl.files import flush_to_disk

CHUNK_BYTES = 1 << 16  # at most this is lost where a connection breaks
TIMEOUT_SECONDS = 30.0


def download(address: str, target: Path, checksum: str | None = None) -> None:
    """Download `address` (http or https) to `target`, if that does not exist.

    `target.part` of an earlier try is continued, and so is a broken connection as long as each try
    adds something. The file takes its final name only when it is whole. Processes that want the
    same file wait for the first one.

    Raises:
        OSError: the server cannot be reached, refuses, or stops answering; `target.part` stays.
        ValueError: the file does not have the checksum `sha256:...`; it is removed.
    """
    import pooch  # only here: it takes a while to import

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    pooch.get_logger().setLevel("WARNING")
    with FileLock(target.with_name(target.name + ".lock")):
        if not target.exists():
            downloader = functools.partial(_resume, part)
            pooch.retrieve(address, checksum, target.name, target.parent, downloader=downloader)
            flush_to_disk(target.parent)


def _resume(part: Path, address: str, output: str, _: Any) -> None:
    """Fetch what is missing of `part`, and move it to `output`: a downloader for pooch."""
    import requests

    while True:
        before = _size(part)
        try:
            _append(address, part)
            break
        except requests.RequestException:
            if _size(part) <= before:
                raise
    os.replace(part, output)


def _append(address: str, part: Path) -> None:
    """Append to `part` what the server has behind it; the whole file where it cannot do that."""
    import requests
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TimeRemainingColumn

    done = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        if answer.status_code == 416 and answer.headers.get("Content-Range") == f"bytes */{done}":
            return  # the part was complete
        answer.raise_for_status()
        continued = answer.status_code == 206
        size = answer.headers.get("Content-Length")
        total = None if size is None else int(size) + done * continued
        columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TimeRemainingColumn())
        with (
            open(part, "ab" if continued else "wb") as file,
            Progress(*columns, console=Console(stderr=True)) as progress,
        ):
            task = progress.add_task(part.stem, total=total, completed=done * continued)
            for chunk in answer.iter_content(CHUNK_BYTES):
                file.write(chunk)
                progress.advance(task, len(chunk))
            file.flush()
            os.fsync(file.fileno())


def _size(path: Path) -> int:
    """Bytes in a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0
