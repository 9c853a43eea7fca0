"""Checks before a run is resumed: same settings, same data, as many processes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from aaren_rl.data import TrajectoryDataset
from aaren_rl.data.mixture import BETWEEN, weighted_names
from aaren_rl.errors import UserError
from aaren_rl.files import read_card, read_json, recover_folder, remove_leftovers
from aaren_rl.records import differences
from aaren_rl.training.checkpoint import PROGRESS_FILE, load_progress
from aaren_rl.training.config import TrainConfig
from aaren_rl.training.loggers import flattened
from aaren_rl.training.run_folder import RunFolder

MAY_CHANGE = (
    *("device", "data_on", "data_cache"),  # where the arithmetic is done and the data lie
    *("num_envs", "loggers", "plugin", "on_evaluation_error"),
)
"""Settings that do not decide what is learned."""
SAMPLED_ROWS = 4096


def check_same_run(folder: Path, config: TrainConfig, *more: str) -> None:
    """Raise `UserError` when the folder holds another run than the config's; names the flags.

    The settings in `MAY_CHANGE` and in `more` may differ.
    """
    before = saved_config(RunFolder(folder))
    if before is None:
        return
    first, second = (
        {**flattened(each.to_json()), "dataset": absolute_dataset(each.dataset)}
        for each in (before, config)
    )
    if second["precision"] == "auto":  # the run's own holds
        more = (*more, "precision")
    if which := differences(first, second, *MAY_CHANGE, *more):
        raise UserError(
            f"--out {folder}: already holds a different run ({which}); choose another folder"
        )


def claim_folder(folder: RunFolder, config: TrainConfig) -> None:
    """Raise `UserError` unless the folder holds no run, or one that `config` resumes."""
    if not (folder.config.exists() or folder.has_checkpoint):
        return
    if folder.online.exists():
        raise UserError(
            f"--out {folder.path}: was fine-tuned by acting; aaren-rl finetune --resume goes on"
        )
    check_same_run(folder.path, config, *(("updates", "dataset") if config.resume else ()))
    if not config.resume:
        raise UserError(
            f"--out {folder.path}: already holds this run; give --resume to go on with it"
        )
    if not folder.has_checkpoint and (folder.summary.exists() or folder.best.exists()):
        raise UserError(
            f"--resume --out {folder.path}: was trained, but its checkpoint {folder.last.name}/ is "
            "missing; another run can begin with a saved agent (--init-from)"
        )
    remove_leftovers(folder.path)


def check_progress(folder: RunFolder, config: TrainConfig, processes: int) -> None:
    """Raise `UserError` when the checkpoint cannot be resumed with these settings."""
    _, progress = load_progress(folder.last)
    try:
        done, before = int(progress["update"]), len(progress["random"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder.last}: not a training's checkpoint ({error!r})") from None
    if config.updates < done:
        raise UserError(f"--updates {config.updates}: the run has done {done} already")
    if before != processes:
        raise UserError(
            f"{folder.path}: was trained by {before} process(es); resume it with as many, "
            f"not with {processes}"
        )


def check_same_data(folder: RunFolder, config: TrainConfig, fingerprint: str) -> None:
    """Raise `UserError` unless the data are those that the run has learned from until now.

    They may have moved: their contents are compared. Checkpoints of older versions say nothing
    about them; with those the name has to be the same.
    """
    saved = saved_config(folder)
    before = load_progress(folder.last)[1].get("data") if folder.has_checkpoint else None
    if before is None and saved is not None:
        same = absolute_dataset(saved.dataset) == absolute_dataset(config.dataset)
    else:
        same = before in (None, fingerprint)
    if not same:
        there = "" if saved is None else f"; the run began with {saved.dataset}"
        raise UserError(
            f"--dataset {config.dataset}: not the data that the run in {folder.path} has learned "
            f"from{there}"
        )


def saved_config(folder: RunFolder) -> TrainConfig | None:
    """The config of the run in a folder, if there is one.

    It is the checkpoint's, where there is one: `config.json` may have been edited since.
    """
    if folder.has_checkpoint:
        file = recover_folder(folder.last) / PROGRESS_FILE
        progress = read_card(file, beside=False)
        if isinstance(progress, dict) and "config" in progress:
            return TrainConfig.from_json(progress["config"], file)
    if not folder.config.exists():
        return None
    return TrainConfig.from_json(read_json(folder.config), folder.config)


def fingerprint(data: TrajectoryDataset) -> str:
    """A checksum of episodes, returns and evenly spaced steps; the same in memory and on disk."""
    rows = np.unique(np.linspace(0, data.num_steps - 1, SAMPLED_ROWS).astype(np.int64))
    digest = hashlib.sha256()
    for part in (data.offsets, data.terminated, data.episode_returns):
        digest.update(np.ascontiguousarray(part).tobytes())
    for steps in (data.observations, data.actions, data.rewards):
        digest.update(np.ascontiguousarray(steps.take(rows, axis=0)).tobytes())
    return digest.hexdigest()


def absolute_dataset(name: str) -> str:
    """The name with an absolute path, if it is one of a file or folder (`PREFIX:` may precede)."""
    several = weighted_names(name)
    if len(several) > 1:
        return BETWEEN.join(f"{absolute_dataset(one)}:{weight:g}" for one, weight in several)
    before, colon, path = name.rpartition(":")
    return f"{before}{colon}{Path(path).resolve()}" if path and Path(path).exists() else name
