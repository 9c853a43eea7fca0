"""Files that are whole or not there: write aside, flush to the disk, rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aaren_rl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

RUN_FILES = frozenset(
    [
        *("config.json", "finetune.json", "metrics.csv", "summary.json"),
        *("agent.json", "agent.safetensors", "training.json", "training.safetensors"),
    ]
)
"""Names of what a training writes, which no other result may take the place of."""
CHECKSUMS = "sha256"  # a card's entry with the checksums of files beside it, by name


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one, whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # as when the folder was removed
            aside.unlink()
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # not the name aside
        raise
    flush_to_disk(path.parent)


def _probe_folder(folder: Path, what: str) -> None:
    """Raise `UserError`, which begins with `what`, when no file can be made in the folder."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{what}: cannot be written ({error.strerror})") from None


def make_folder(folder: Path) -> None:
    """Make a folder for results; `UserError`, with `--out`, when it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror})") from None
    _probe_folder(folder, f"--out {folder}")


def check_file(file: Path, flag: str) -> None:
    """Raise `UserError`, which begins with the flag, when a file cannot be written.

    Files that a run has written are not overwritten by others.
    """
    if file.name in RUN_FILES and file.exists():
        raise UserError(f"{flag} {file}: is a file of a run; another name expected")
    if not file.parent.is_dir():
        raise UserError(f"{flag} {file}: no folder {file.parent}")
    if file.is_dir():
        raise UserError(f"{flag} {file}: a folder; the name of a file expected")
    _probe_folder(file.parent, f"{flag} {file}")


@contextlib.contextmanager
def locked(file: Path, busy: str, seconds: float = 0.0) -> Iterator[None]:
    """Hold a lock between processes; it is released when the process dies, the file stays.

    Raises:
        UserError: with the text `busy`, when another process holds it after `seconds` of waiting.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        raise UserError(busy) from None
    try:
        yield
    finally:
        lock.release()


def flush_to_disk(path: Path) -> None:
    """Flush a file that another library has written, or a folder's entries after a rename."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically; numbers keep full precision, NaN is refused."""
    text = json.dumps(content, indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_bytes(path: Path) -> bytes:
    """Read a file; `UserError` names one that is missing or cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def user_path(name: str | Path) -> Path:
    """A path as the user wrote it, `~` replaced; `UserError` for a user that there is not."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise UserError(f"{name}: {error}") from None


def check_permission(path: Path) -> None:
    """Raise `UserError` for what may not be read, which every library says differently."""
    try:
        if path.is_file():
            path.open("rb").close()
        elif path.is_dir():
            os.stat(f"{path}/.")  # asks for the right to look at what is in it
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _refused(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refused(text)


def read_json(path: Path) -> Any:
    """Read a JSON file; `UserError` names one that is missing, broken or holds NaN or infinity."""
    content = read_bytes(path)
    try:
        return json.loads(content, parse_constant=_refused, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from None


def write_card(
    path: Path, content: dict[str, Any], files: Sequence[str], *, itself: bool = True
) -> None:
    """Write a JSON object that holds the checksums of files beside it, which are written already.

    Without `itself` it holds no checksum of its own content, and may be edited.
    """
    sums = {name: _sha256((path.parent / name).read_bytes()) for name in files}
    if itself:
        sums[path.name] = _sha256(json.dumps(content).encode())
    write_json(path, {**content, CHECKSUMS: sums})


def read_card(path: Path, *, beside: bool = True) -> Any:
    """The content of `write_card`, without the checksums; JSON without them is not checked.

    `UserError` names the card or the file beside it that is missing or not as it was written.
    Without `beside` the card alone is read and checked.
    """
    content = read_json(path)
    sums = content.pop(CHECKSUMS, {}) if isinstance(content, dict) else {}
    if not isinstance(sums, dict):
        raise UserError(f"{path}: {CHECKSUMS}: a JSON object expected")
    for name, expected in sums.items():
        if not beside and name != path.name:
            continue
        file = path.parent / name
        found = json.dumps(content).encode() if name == path.name else read_bytes(file)
        if _sha256(found) != expected:
            if file.suffix == ".safetensors":
                read_tensors(file)  # says what is wrong with a truncated one
            raise UserError(
                f"{file}: damaged: it does not match its SHA-256 checksum in {path.name} "
                f"(a file that was edited on purpose is taken without the entry {CHECKSUMS!r})"
            )
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically."""
    write_bytes(path, tensor_bytes(tensors))


def tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    """The content of a safetensors file."""
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; `UserError` names one that is missing, truncated or no such file."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: truncated or not a safetensors file ({error})") from None


def check_replaceable(target: Path) -> None:
    """Raise `UserError` when `replace_folder` could not remove the folder `target`, if there."""
    for folder in (target, _aside(target)):
        if folder.is_dir():
            _probe_folder(folder, f"{folder}: a checkpoint that is to be replaced")


def _aside(target: Path) -> Path:
    return target.with_name(target.name + ".old")


def replace_folder(new: Path, target: Path) -> None:
    """Put the finished folder `new` in `target`'s place.

    A rename cannot replace a folder that is not empty, so the old one is renamed first. After a
    kill between the two renames both still exist, whole, and `recover_folder` finds the old one.
    """
    aside = _aside(target)
    if target.exists():  # else the one aside is all that an earlier crash has left
        try:
            if aside.exists():
                shutil.rmtree(aside)
            os.rename(target, aside)
        except OSError as error:
            raise UserError(
                f"{target}: cannot be replaced ({error.filename}: {error.strerror}); the new "
                f"checkpoint is {new}"
            ) from None
    os.rename(new, target)
    flush_to_disk(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes have left in a folder."""
    for path in folder.glob(".*.[0-9]*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def recover_folder(target: Path) -> Path:
    """The folder `target`, or, after a crash inside `replace_folder`, the old one that it had."""
    aside = _aside(target)
    return aside if aside.is_dir() and not target.is_dir() else target
