"""Files made wrong, in structure and in bytes; what is done is decided by the generator alone."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import yaml

CANARY = "executed-from-a-file"
"""File in the working directory that planted code would make."""
COMMAND = f"touch {CANARY}"


class _Planted:
    def __reduce__(self) -> Any:
        import os

        return os.system, (COMMAND,)


PICKLE = pickle.dumps(_Planted())
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, 1e308, -1e308, 1e-320),
    *(float("nan"), float("inf"), "", "nan", "text", "../../etc/passwd", "é\x00\n", "x" * 5000),
    *([], {}, [[]], [0], ["a"], [1, "a", None], {"a": 1}, {"": {}}, [[0.0] * 3] * 3, [[1, 2], [3]]),
    *(f"!!python/object/apply:os.system ['{COMMAND}']", "os:system", "no_such_module:Env-v0"),
]


def bytewise(random: Random, path: Path) -> str:
    """Flip, cut, insert, repeat or replace bytes."""
    content = bytearray(path.read_bytes())
    kind = random.choice(["flip", "flip", "cut", "insert", "remove", "zero", "repeat", "replace"])
    at = random.randrange(len(content) + 1)
    size = random.choice([1, 2, 8, 64, 1000])
    if kind == "flip" and content:
        for _ in range(random.choice([1, 1, 3, 20])):
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "insert":
        content[at:at] = random.randbytes(size)
    elif kind == "remove":
        del content[at : at + size]
    elif kind == "zero":
        content[at : at + size] = bytes(len(content[at : at + size]))
    elif kind == "repeat":
        content[at:at] = content[at : at + size]
    else:
        content = bytearray(random.choice([b"", PICKLE, b"\x00" * 512, random.randbytes(300)]))
    path.write_bytes(bytes(content))
    return f"{kind} at {at}"


def tree(random: Random, content: Any) -> tuple[Any, str]:
    """A JSON-like value with one place in it changed, and what was done."""
    place = random.choice(_places(content))
    if not place:
        return random.choice(VALUES), "all of it"
    parent = content
    for step in place[:-1]:
        parent = parent[step]
    key, value = place[-1], parent[place[-1]]
    kind = random.choice(["value", "value", "delete", "wrap", "text", "add", "deep", "number"])
    if isinstance(value, str) and value.startswith("{") and random.random() < 0.8:
        inner, what = tree(random, json.loads(value))  # JSON in JSON: spaces, specifications
        parent[key] = _json(inner)
        return content, f"{place}, inside: {what}"
    if kind == "delete":
        del parent[key]
    elif kind == "wrap":
        parent[key] = random.choice([[value], {"value": value}])
    elif kind == "text":
        parent[key] = str(value)
    elif kind == "add" and isinstance(parent, dict):
        parent[random.choice(["unknown", "", "type", "sha256"])] = random.choice(VALUES)
    elif kind == "deep":
        for _ in range(random.choice([50, 3000])):
            value = [value]
        parent[key] = value
    elif kind == "number" and isinstance(value, (int, float)):
        parent[key] = random.choice([value + 1, -value, value * 10**6, value + 0.5, str(value)])
    else:
        parent[key] = random.choice(VALUES)
    return content, f"{kind} {place}"


def _places(content: Any) -> list[tuple[Any, ...]]:
    places: list[tuple[Any, ...]] = [()]
    if isinstance(content, (dict, list)):
        for key in content if isinstance(content, dict) else range(len(content)):
            places += [(key, *place) for place in _places(content[key])]
    return places


def json_file(random: Random, path: Path) -> str:
    """Change the structure of a JSON file."""
    content = json.loads(path.read_text())
    if isinstance(content, dict) and "env_spec" in content and random.random() < 0.05:
        planted = {"entry_point": "os:system", "kwargs": {"command": COMMAND}}
        content["env_spec"] = json.dumps({**json.loads(content["env_spec"]), **planted})
        what = "an entry point planted"
    else:
        content, what = tree(random, content)
    path.write_text(_json(content))
    return what


def _json(content: Any) -> str:
    """JSON of any depth: Python's encoder gives up at a thousand levels."""
    depth = 0
    try:
        return json.dumps(content)
    except RecursionError:
        depth = 3000
        return "[" * depth + "]" * depth


def yaml_file(random: Random, path: Path) -> str:
    """Change the structure of a YAML file, or put in what YAML alone has."""
    if random.random() < 0.15:
        trick = random.choice(["tag", "bomb", "twice", "date", "tab"])
        text = path.read_text()
        bomb = "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 12))
        lines = {
            "tag": f"name: !!python/object/apply:os.system ['{COMMAND}']\n",
            "bomb": f"b0: &b0 [x]\n{bomb}",
            "twice": "name: other\nname: again\n",
            "date": "seeds: 2020-01-01\n",
            "tab": "\tname: x\n",
        }
        path.write_text(text + lines[trick])
        return trick
    content, what = tree(random, yaml.safe_load(path.read_text()))
    try:
        path.write_text(yaml.safe_dump(content))
    except RecursionError:
        path.write_text("[" * 3000)
    return what


def hdf5_file(random: Random, path: Path) -> str:
    """Change datasets, groups, links or attributes of an HDF5 file."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = random.choice(names)
        node = file[name]
        kinds = ["delete", "rename", "link", "attribute"]
        if isinstance(node, h5py.Dataset):
            kinds += ["type", "shape", "values", "length", "huge", "group"] * 2
        kind = random.choice(kinds)
        if kind == "attribute":
            holder = random.choice([file, node])
            key = random.choice([*holder.attrs, "unknown"])
            value = random.choice([0, -1, "text", 2.5, [1, 2], np.nan, 10**18, b"\xff"])
            holder.attrs[key] = value
            return f"attribute {key} of {name}"
        old = node[()] if isinstance(node, h5py.Dataset) else None
        del file[name]
        if kind == "rename":
            file[random.choice(["renamed", "episode_99", "x/y"])] = np.zeros(3)
        elif kind == "link":
            to = random.choice([h5py.SoftLink("/nowhere"), h5py.ExternalLink("/etc/passwd", "/")])
            file[name] = random.choice([to, h5py.SoftLink("/")])
        elif kind == "group":
            file.create_group(name)
        elif kind == "huge":
            file.create_dataset(name, (10**13,), "f8", chunks=(1024,))
        elif old is not None and kind != "delete":
            file[name] = _other_array(random, kind, np.asarray(old))
        return f"{kind} {name}"


def _other_array(random: Random, kind: str, old: np.ndarray) -> Any:
    if kind == "length":
        flat = old.reshape(-1) if old.ndim == 0 else old
        return random.choice([flat[:-1], np.concatenate([flat, flat[:1]]), flat[:0], flat[:1]])
    if kind == "shape":
        shapes = [old.T, old[None], old[..., None], old.reshape(-1), np.zeros(())]
        return random.choice([*shapes, np.zeros((*old.shape, 0))])
    if kind == "values":
        new = old.astype(np.float64) if old.dtype.kind in "biuf" else np.zeros(3)
        value = random.choice([np.nan, np.inf, -np.inf, 1e308, 1e30, 0.0, -1.0])
        if random.random() < 0.3 or not new.size:
            return np.full_like(new, value)
        new.reshape(-1)[random.randrange(new.size)] = value
        return new if old.dtype.kind in "f" or random.random() < 0.5 else new.astype(old.dtype)
    kinds = ["i8", "f2", "f8", "u1", "c16", "bool", "S4"]
    if old.dtype.kind not in "biufc":
        return np.zeros(3)
    with np.errstate(all="ignore"):
        return np.nan_to_num(old.real).astype(random.choice(kinds))


def safetensors_file(random: Random, path: Path) -> str:
    """Change the header of a safetensors file, or the values behind it."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    if random.random() < 0.3:
        value = random.choice([np.nan, np.inf, 1e38, -1.0])
        body = np.full(len(body) // 4, value, "<f4").tobytes() + body[len(body) // 4 * 4 :]
        what = f"all {value}"
    else:
        header, what = tree(random, header)
    new = _json(header).encode()
    told = random.choice([len(new)] * 20 + [0, 2**63, len(new) - 1, len(content) + 1])
    path.write_bytes(struct.pack("<Q", told) + new + body)
    return what


def zip_file(random: Random, path: Path) -> str:
    """Replace a member of a ZIP file (`.npz`, Stable-Baselines3's), or leave it out."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    name = random.choice(list(members))
    kind = random.choice(["delete", "pickle", "array of objects", "array", "bytes", "outside"])
    if kind == "delete":
        del members[name]
    elif kind == "pickle":
        members[name] = PICKLE
    elif kind == "outside":
        members["../outside"] = members.pop(name)
    elif kind == "bytes":
        members[name] = random.randbytes(100)
    else:
        array: Any = np.array([_Planted()], object) if "objects" in kind else np.zeros((2, 3))
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        members[name] = file.getvalue()
    with zipfile.ZipFile(path, "w") as new:
        for member, content in members.items():
            new.writestr(member, content)
    return f"{kind} {name}"


STRUCTURE: dict[str, Callable[[Random, Path], str]] = {
    ".json": json_file,
    ".yaml": yaml_file,
    ".hdf5": hdf5_file,
    ".h5": hdf5_file,
    ".safetensors": safetensors_file,
    ".zip": zip_file,
    ".npz": zip_file,
}


def mutate(random: Random, path: Path) -> str:
    """Change a file; says how."""
    structural = STRUCTURE.get(path.suffix)
    if structural is not None and random.random() < 0.7:
        try:
            return structural(random, path)
        except (TypeError, ValueError):  # what the format cannot hold
            return bytewise(random, path)
    if random.random() < 0.05:
        path.unlink()
        if random.random() < 0.5:
            path.mkdir()
            return "a folder in its place"
        return "removed"
    return bytewise(random, path)
