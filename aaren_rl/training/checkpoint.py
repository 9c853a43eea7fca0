"""All of a run's state in two folders, `last` and `best`; safetensors and JSON, no pickles."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aaren_rl.agents import Agent
from aaren_rl.agents.base import CARD_FILE, WEIGHTS_FILE
from aaren_rl.errors import UserError
from aaren_rl.files import (
    read_card,
    read_tensors,
    recover_folder,
    replace_folder,
    write_card,
    write_tensors,
)
from aaren_rl.records import finite

TENSORS_FILE, PROGRESS_FILE = "training.safetensors", "training.json"


def save_checkpoint(
    folder: Path, agent: Agent, progress: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Write a checkpoint so that `folder` holds the old one or the new one, whole."""
    new = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        agent.save(new)
        files = [WEIGHTS_FILE, CARD_FILE]
        if tensors:
            write_tensors(new / TENSORS_FILE, tensors)
            files.append(TENSORS_FILE)
        write_card(new / PROGRESS_FILE, finite(progress), files)
    except Exception:  # such as a full disk: free the space again
        shutil.rmtree(new, ignore_errors=True)
        raise
    replace_folder(new, folder)


def load_checkpoint(folder: Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint: the folder that holds it, its progress and its tensors."""
    found, progress = load_progress(folder)
    return found, progress, read_tensors(found / TENSORS_FILE)


def load_progress(folder: Path) -> tuple[Path, dict[str, Any]]:
    """As `load_checkpoint`, without the tensors."""
    found = recover_folder(folder)
    if not found.is_dir():
        raise UserError(f"{folder}: no checkpoint to resume from")
    return found, read_card(found / PROGRESS_FILE)


def parameter_names(agent: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The names of an optimiser's parameters, in the order in which it numbers them."""
    names = {parameter: name for name, parameter in agent.named_parameters()}
    return [names[each] for group in optimizer.param_groups for each in group["params"]]


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """The optimiser's state as named tensors, `optimizer.<key>.<parameter name>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{key}.{names[index]}": torch.as_tensor(value)
        for index, entry in state.items()
        for key, value in entry.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: list[str], tensors: dict[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`; hyperparameters stay as the optimiser has them."""
    content = optimizer.state_dict()
    index = {name: number for number, name in enumerate(names)}
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        if full_name.startswith("optimizer."):
            _, key, name = full_name.split(".", 2)
            state.setdefault(index[name], {})[key] = tensor
    content["state"] = state
    optimizer.load_state_dict(content)


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with `prefix` before each name."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `with_prefix`, of the tensors whose names begin so."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def random_state() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Every global random generator of this process, as JSON values and as tensors."""
    version, numbers, gauss = random.getstate()
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002
    assert isinstance(legacy, dict)
    inner = {"key": legacy["state"]["key"].tolist(), "pos": legacy["state"]["pos"]}
    values = {
        "python": [version, list(numbers), gauss],
        "numpy": {**legacy, "state": inner},
    }
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return values, tensors


def restore_random_state(values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """The inverse of `random_state`."""
    version, numbers, gauss = values["python"]
    random.setstate((version, tuple(numbers), gauss))
    legacy = dict(values["numpy"])
    key = np.asarray(legacy["state"]["key"], dtype=np.uint32)
    legacy["state"] = {"key": key, "pos": legacy["state"]["pos"]}
    np.random.set_state(legacy)  # noqa: NPY002
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
