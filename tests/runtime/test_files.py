"""A file that is not what its card says is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from exported_agents import exported, make_aaren

from aaren_rl.errors import UserError
from aaren_rl.runtime import OnnxPolicy, read_card


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return exported(make_aaren(), tmp_path)


def card_of(file: Path) -> Path:
    return file.with_name(file.name + ".json")


def test_truncated(file: Path) -> None:
    content = file.read_bytes()
    for size in (0, 100, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(UserError, match=rf"step.onnx: has {size} bytes, its card says"):
            OnnxPolicy(file)


def test_one_bit_changed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"step.onnx: checksum .* is not the card's"):
        OnnxPolicy(file)


def test_another_exports_card(file: Path, tmp_path: Path) -> None:
    other = exported(make_aaren(seed=1), tmp_path, "other.onnx")
    card_of(file).write_text(card_of(other).read_text())
    with pytest.raises(UserError, match=r"step.onnx: checksum"):
        OnnxPolicy(file)


def test_a_missing_file_or_card(file: Path) -> None:
    file.rename(file.with_name("moved.onnx"))
    with pytest.raises(UserError, match=r"step.onnx: not readable \(No such file"):
        OnnxPolicy(file)
    with pytest.raises(UserError, match=r"moved.onnx.json: no such file"):
        OnnxPolicy(file.with_name("moved.onnx"))


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"format": 1}', '{"format": 2}'])
def test_a_broken_card(file: Path, content: str) -> None:
    card_of(file).write_text(content)
    with pytest.raises(UserError, match=r"step.onnx.json: not the card of an exported agent"):
        read_card(file)


LEAF = {"path": ["a"], "shape": [2], "dtype": "float32", "levels": [], "starts": []}


@pytest.mark.parametrize(
    "parts",
    [
        *("text", [], {}, [[]], [{}], [{"path": 1}], [1]),
        *([{**LEAF, "shape": [-2]}], [{**LEAF, "dtype": "text"}], [{**LEAF, "levels": [3]}]),
        *([LEAF, {**LEAF, "path": ["a", "b"]}], [LEAF, {**LEAF, "path": [0]}]),
        *([{**LEAF, "path": [1]}], [{**LEAF, "shape": [99]}], [LEAF, {**LEAF, "path": []}]),
    ],
)
def test_a_card_whose_parts_are_none(file: Path, parts: object) -> None:
    whole = json.loads(card_of(file).read_text())
    for name in ("observation_parts", "action_parts"):
        card_of(file).write_text(json.dumps({**whole, name: parts}))
        with pytest.raises(UserError, match=r"step.onnx.json: not the card of an exported agent"):
            read_card(file)


def test_a_card_that_contradicts_itself_or_the_file(file: Path) -> None:
    whole = json.loads(card_of(file).read_text())

    def spoil(**changes: object) -> None:
        card_of(file).write_text(json.dumps({**whole, **changes}))

    spoil(state={**whole["state"], "new_state_0": "state_9"})
    with pytest.raises(UserError, match="do not fit together"):
        OnnxPolicy(file)
    spoil(reset_state={})
    with pytest.raises(UserError, match="do not fit together"):
        OnnxPolicy(file)
    inputs = [dict(each) for each in whole["inputs"]]
    inputs[0]["shape"] = ["batch", 12]
    spoil(inputs=inputs)
    with pytest.raises(UserError, match=r"its card says inputs .*12.* the file has .*11"):
        OnnxPolicy(file)
    inputs[0]["shape"] = ["batch", 10**18]
    spoil(inputs=inputs)
    with pytest.raises(UserError, match=r"not the card of .*more than 268435456 numbers"):
        OnnxPolicy(file)
    for shape in ([], [0, 11], [1, 11], ["batch", "batch"]):
        inputs[0]["shape"] = shape
        spoil(inputs=inputs)
        with pytest.raises(UserError, match="a row for each environment expected"):
            OnnxPolicy(file)
    spoil(inputs=[*whole["inputs"], {**whole["inputs"][0], "name": "weather"}])
    with pytest.raises(UserError, match=r"needs inputs that nobody here fills: \['weather'\]"):
        OnnxPolicy(file)
    for name in ("kind", "sha256", "precision", "agent", "file"):
        spoil(**{name: 7})
        with pytest.raises(UserError, match=r"not the card of .*7: a text expected"):
            OnnxPolicy(file)
    spoil(kind="torch-export")
    with pytest.raises(UserError, match="is a torch-export export"):
        OnnxPolicy(file)


def test_a_card_of_the_first_edition(file: Path) -> None:
    """It does not tell a discrete space's choices."""
    whole = json.loads(card_of(file).read_text())
    del whole["choices"]
    whole["provenance"] = {}
    card_of(file).write_text(json.dumps(whole))
    assert OnnxPolicy(file).act(np.ones((1, 11))).shape == (1, 3)


def test_a_file_that_is_no_graph_with_a_card_that_fits(file: Path) -> None:
    import hashlib

    content = b"not a graph at all"
    file.write_bytes(content)
    card = json.loads(card_of(file).read_text())
    card.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    card_of(file).write_text(json.dumps(card))
    with pytest.raises(UserError, match="ONNX Runtime does not load it"):
        OnnxPolicy(file)


def test_a_file_of_before_every_number_was_float32() -> None:
    """Exported with float64 rewards and int64 actions and timesteps; the actions are from then."""
    policy = OnnxPolicy(Path(__file__).parent / "older/discrete.onnx")
    assert {each.dtype for each in policy.card.inputs} == {"float32", "float64", "int64"}
    rng, actions = np.random.default_rng(0), []
    for t in range(40):
        seen = rng.normal(size=(1, 11))
        actions.append(int(policy.act(seen, rng.normal(size=1) if t else None)[0]))
    assert "".join(map(str, actions)) == "3435366365336336365636353363633366533333"
