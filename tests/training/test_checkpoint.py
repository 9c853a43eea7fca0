"""What goes into a checkpoint comes out of it; a broken one is said to be broken."""

from __future__ import annotations

import errno
import json
import random
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from aaren_rl.agents import AGENTS, Agent, AgentConfig, AgentSpec
from aaren_rl.errors import UserError
from aaren_rl.files import (
    read_json,
    read_tensors,
    recover_folder,
    replace_folder,
    write_bytes,
    write_json,
    write_tensors,
)
from aaren_rl.training.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    random_state,
    restore_optimizer,
    restore_random_state,
    save_checkpoint,
)


def small_agent() -> Agent:
    spec = AgentSpec(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (2,)))
    torch.manual_seed(0)
    return AGENTS["behavior-cloning"].make(AgentConfig(width=4, layers=1), spec)


def train_steps(agent: Agent, optimizer: torch.optim.Optimizer, count: int) -> None:
    for step in range(count):
        generator = torch.Generator().manual_seed(step)
        for parameter in agent.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimiser_goes_on_where_it_was(fused: bool, tmp_path: Path) -> None:
    agents = [small_agent(), small_agent()]
    optimizers = [
        torch.optim.AdamW(agent.parameters(), lr=0.1, weight_decay=0.1, fused=fused)
        for agent in agents
    ]
    names = [name for name, _ in agents[0].named_parameters()]
    train_steps(agents[0], optimizers[0], 3)
    write_tensors(tmp_path / "optimizer", optimizer_tensors(optimizers[0], names))
    stored = read_tensors(tmp_path / "optimizer")
    assert set(stored) == {
        f"optimizer.{key}.{name}" for key in ("step", "exp_avg", "exp_avg_sq") for name in names
    }
    agents[1].load_state_dict(agents[0].state_dict())
    restore_optimizer(optimizers[1], names, {**stored, "random.0.torch": torch.zeros(1)})
    for agent, optimizer in zip(agents, optimizers, strict=True):
        train_steps(agent, optimizer, 5)
    for one, other in zip(agents[0].parameters(), agents[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_hyperparameters_stay_as_the_optimiser_has_them() -> None:
    agent = small_agent()
    names = [name for name, _ in agent.named_parameters()]
    old = torch.optim.AdamW(agent.parameters(), lr=0.1, weight_decay=0.1)
    train_steps(agent, old, 1)
    new = torch.optim.AdamW(agent.parameters(), lr=0.5, weight_decay=0.25)
    restore_optimizer(new, names, optimizer_tensors(old, names))
    assert (new.param_groups[0]["lr"], new.param_groups[0]["weight_decay"]) == (0.5, 0.25)


def draws() -> list[float]:
    """From every global generator, the normal ones too: they keep a second number back."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.random()),  # noqa: NPY002
        float(np.random.standard_normal()),  # noqa: NPY002
        float(torch.rand(())),
        float(torch.randn(())),
    ]


def test_random_generators_go_on_where_they_were(tmp_path: Path) -> None:
    draws()
    values, tensors = random_state()
    write_json(tmp_path / "values.json", values)
    write_tensors(tmp_path / "tensors", tensors)
    wanted = [draws() for _ in range(3)]
    random.seed(9)
    np.random.seed(9)  # noqa: NPY002
    torch.manual_seed(9)
    assert draws() != wanted[0]
    restore_random_state(read_json(tmp_path / "values.json"), read_tensors(tmp_path / "tensors"))
    assert [draws() for _ in range(3)] == wanted


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "last"
    for update in (1, 2):  # the second takes the first one's place
        content = {"update": update, "loss": 0.1 + 0.2, "list": [1, None, "x"]}
        tensors = {"a": torch.full((2, 3), float(update)), "b.c": torch.arange(4)}
        save_checkpoint(folder, small_agent(), content, tensors)
        found, progress, stored = load_checkpoint(folder)
        assert found == folder
        assert progress == content
        assert set(stored) == {"a", "b.c"}
        assert all(torch.equal(stored[name], tensors[name]) for name in tensors)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["last"]


def test_no_checkpoint_and_broken_ones(tmp_path: Path) -> None:
    folder = tmp_path / "last"
    with pytest.raises(UserError, match="last: no checkpoint to resume from"):
        load_checkpoint(folder)
    save_checkpoint(folder, small_agent(), {"update": 1}, {"a": torch.zeros(3)})
    for file in ("training.json", "training.safetensors"):
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match=file):
            load_checkpoint(folder)
        (folder / file).unlink()
        with pytest.raises(UserError, match=f"{file}: no such file"):
            load_checkpoint(folder)
        (folder / file).write_bytes(content)


def make(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "file").write_text(content)
    return folder


def test_a_folder_is_replaced_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "last"
    replace_folder(make(tmp_path / "new", "first"), target)
    assert (target / "file").read_text() == "first"
    replace_folder(make(tmp_path / "new", "second"), target)
    assert (target / "file").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert recover_folder(target) == target

    renames: list[Any] = []
    original = __import__("os").rename

    def once(source: Any, destination: Any) -> None:
        renames.append(destination)
        if len(renames) == 2:
            raise KeyboardInterrupt
        original(source, destination)

    monkeypatch.setattr("aaren_rl.files.os.rename", once)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(make(tmp_path / "new", "third"), target)
    assert not target.exists()
    assert (recover_folder(target) / "file").read_text() == "second"
    # and the next save, by another process, is whole again
    monkeypatch.undo()
    replace_folder(make(tmp_path / "newer", "fourth"), target)
    assert (recover_folder(target) / "file").read_text() == "fourth"
    assert not (tmp_path / "last.old").exists()


def test_a_crash_in_the_save_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one crash only `last.old` is there: it must outlive a second crash."""
    target = tmp_path / "last"
    make(tmp_path / "last.old", "precious")

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("aaren_rl.files.os.rename", crash)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(make(tmp_path / "new", "next"), target)
    assert (recover_folder(target) / "file").read_text() == "precious"


def test_a_folder_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is told, and where the new one is."""
    target, new = make(tmp_path / "last", "old"), make(tmp_path / "new", "next")
    make(tmp_path / "last.old", "older")

    def refuse(path: Any, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("aaren_rl.files.shutil.rmtree", refuse)
    words = f"{target}: cannot be replaced ({target}.old: Permission denied); the new checkpoint is"
    with pytest.raises(UserError, match=re.escape(f"{words} {new}")):
        replace_folder(new, target)
    assert (target / "file").read_text() == "old"
    assert (new / "file").read_text() == "next"


def test_a_file_is_replaced_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deep" / "file"
    write_bytes(file, b"old")

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("aaren_rl.files.os.replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in file.parent.iterdir()] == ["file"]


def test_json_keeps_every_digit_and_has_no_nan(tmp_path: Path) -> None:
    content = {"x": [0.1 + 0.2, 1e-300, 3234.3, 2**60], "y": None}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == content
