"""An agent that was saved and loaded is the same agent; a broken folder is a clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_cases import SEQUENCE_AGENTS, SPACES, make_agent, play
from safetensors.torch import load_file, save_file

from aaren_rl.agents import AGENTS, AgentSpec, load_agent
from aaren_rl.errors import UserError

ALL = (*SEQUENCE_AGENTS, "behavior-cloning")
CARD, WEIGHTS = "agent.json", "agent.safetensors"


def rich_spec() -> AgentSpec:
    return AgentSpec(
        observation_space=gym.spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
        action_space=SPACES["continuous"],  # type: ignore[arg-type]
        returns_scale=123.5,
        target_returns=(1.5, -2.0),
        reference_scores=(-20.272305, 3234.3),
        environment=gym.spec("Hopper-v5").to_json(),
        dataset="aaren-rl/hopper-small-v0",
    )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", sorted(SPACES))
def test_a_loaded_agent_acts_alike_to_the_bit(name: str, kind: str, tmp_path: Path) -> None:
    settings = {"timestep_embedding": "sinusoidal", "activation": "gelu", "dropout": 0.25}
    agent = make_agent(name, SPACES[kind], **settings)
    agent.train()
    agent.save(tmp_path / "new" / "folder")
    loaded = load_agent(tmp_path / "new" / "folder")
    assert type(loaded) is type(agent)
    assert not loaded.training
    assert loaded.config == agent.config
    assert loaded.num_parameters == agent.num_parameters
    assert set(loaded.state_dict()) == set(agent.state_dict())
    for key, tensor in agent.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    for mode in agent.modes:
        if name == "behavior-cloning":
            seen = np.random.default_rng(0).normal(size=(3, 4))
            assert np.array_equal(agent.policy(3).act(seen), loaded.policy(3).act(seen))
            continue
        one, other = (play(each, mode, [[12], [5, 7]]).actions for each in (agent, loaded))
        assert np.array_equal(one, other)
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == [CARD, WEIGHTS]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="notes: a file; a folder for the agent expected"):
        make_agent("behavior-cloning").save(tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine"


def test_everything_about_the_task_is_saved(tmp_path: Path) -> None:
    agent = AGENTS["decision-aaren"].make(make_agent("decision-aaren").config, rich_spec())
    agent.save(tmp_path)
    assert load_agent(tmp_path).spec == agent.spec
    spec = AgentSpec(rich_spec().observation_space, gym.spaces.Discrete(4, start=-1))
    assert AgentSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("name", ALL)
def test_saving_twice_writes_the_same_bytes(name: str, tmp_path: Path) -> None:
    agent = make_agent(name)
    agent.save(tmp_path / "one")
    load_agent(tmp_path / "one").save(tmp_path / "two")
    for file in (CARD, WEIGHTS):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_agent("decision-aaren").save(tmp_path)
    return tmp_path


def change_card(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **changes}))


def without_checksums(folder: Path) -> None:
    """Make the card one of an older version."""
    card = json.loads((folder / CARD).read_text())
    del card["sha256"]
    (folder / CARD).write_text(json.dumps(card))


def refused(folder: Path, file: str) -> str:
    """The one-line error of loading; it names the file."""
    with pytest.raises(UserError) as caught:
        load_agent(folder)
    message = str(caught.value)
    assert str(folder / file) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("file", [CARD, WEIGHTS])
def test_a_missing_file(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert "no such file" in refused(folder, file)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights(folder: Path, share: float) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: int(share * len(content))])
    assert "truncated or not a safetensors file" in refused(folder, WEIGHTS)


def test_a_flipped_bit_in_the_weights(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-7] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    assert "damaged: it does not match its SHA-256 checksum in agent.json" in refused(
        folder, WEIGHTS
    )
    without_checksums(folder)
    load_agent(folder)


def test_weights_that_are_something_else(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"\x89HDF\r\n\x1a\n" * 100)
    assert "truncated or not a safetensors file" in refused(folder, WEIGHTS)


@pytest.mark.parametrize("text", ["", "{", "\x00\x01", '{"format": 1'])
def test_a_card_that_is_not_json(folder: Path, text: str) -> None:
    (folder / CARD).write_text(text)
    assert "not readable as JSON" in refused(folder, CARD)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"card"', "{}", '{"format": 1}'])
def test_a_card_that_is_not_a_card(folder: Path, text: str) -> None:
    (folder / CARD).write_text(text)
    assert "not the card of an agent" in refused(folder, CARD)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"agent": "decision-mamba"}, r"agent.json: unknown agent 'decision-mamba'"),
        ({"config": {"width": 16, "depth": 3}}, "not the card of an agent .*depth"),
        ({"config": None}, "not the card of an agent"),
        ({"spec": {}}, "not the card of an agent"),
    ],
)
def test_a_card_of_something_else(folder: Path, changes: dict[str, Any], message: str) -> None:
    change_card(folder, **changes)
    with pytest.raises(UserError, match=message):
        load_agent(folder)
    refused(folder, CARD)


@pytest.mark.parametrize("space", ["", "Box", "{}", '{"type": "Sphere"}', 7, "[" * 10**5])
def test_a_card_with_a_broken_space(folder: Path, space: Any) -> None:
    spec = json.loads((folder / CARD).read_text())["spec"]
    change_card(folder, spec={**spec, "action_space": space})
    assert "not the card of an agent" in refused(folder, CARD)


def test_a_config_that_cannot_be(folder: Path) -> None:
    config = json.loads((folder / CARD).read_text())["config"]
    change_card(folder, config={**config, "heads": 5})
    with pytest.raises(UserError, match=r"--heads \(5\) must divide --width \(16\)"):
        load_agent(folder)


def test_weights_of_other_shapes(folder: Path) -> None:
    config = json.loads((folder / CARD).read_text())["config"]
    change_card(folder, config={**config, "width": 32})
    message = refused(folder, WEIGHTS)
    assert "does not fit" in message
    assert "embed_return.weight" in message


@pytest.mark.parametrize("change", ["remove", "add"])
def test_weights_of_other_names(folder: Path, change: str) -> None:
    weights = load_file(folder / WEIGHTS)
    if change == "remove":
        del weights["embed_norm.bias"]
    else:
        weights["embed_norm.bias2"] = torch.zeros(3)
    save_file(weights, folder / WEIGHTS)
    without_checksums(folder)
    message = refused(folder, WEIGHTS)
    assert "does not fit" in message
    assert "embed_norm.bias" in message
