"""`aaren-rl export`: checks itself, writes a file and its card, or nothing."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from exported_agents import make_aaren, make_agent

from aaren_rl.agents import Agent
from aaren_rl.cli import main
from aaren_rl.export import command
from aaren_rl.export.steps import step_of
from aaren_rl.runtime import OnnxPolicy, read_card


def saved(agent: Agent, folder: Path) -> Path:
    """A run folder with this agent as its last checkpoint."""
    run = folder / "run"
    (run / "last").mkdir(parents=True)
    agent.save(run / "last")
    (run / "last" / "training.json").write_text('{"update": 7}')
    (run / "config.json").write_text('{"seed": 3, "updates": 30}')
    return run


def export(run: Path, out: Path, *flags: str) -> int:
    return main(["export", str(run), "--out", str(out), *flags])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_writes_a_file_and_its_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent, out = make_aaren(), tmp_path / "policy.onnx"
    run = saved(agent, tmp_path)
    assert export(run, out) == 0
    said = capsys.readouterr().out
    assert "policy.onnx: onnx, float32" in said
    assert "over 1000 steps" in said
    assert files(tmp_path) == {"policy.onnx", "policy.onnx.json"}
    card = json.loads((tmp_path / "policy.onnx.json").read_text())
    content = out.read_bytes()
    assert card["sha256"] == hashlib.sha256(content).hexdigest()
    assert card["bytes"] == len(content)
    assert card["checks"]["agreement"]["largest_difference"] <= 1e-5
    assert card["checks"]["agreement"]["steps"] == 1000
    assert card["checks"]["agreement"]["episodes"] > 4
    origin = card["provenance"]
    assert (origin["run"], origin["checkpoint"]) == (str(run), "last")
    assert (origin["dataset"], origin["environment"]) == ("made-up", "Hopper-v5")
    assert (origin["update"], origin["seed"]) == (7, 3)
    assert origin["agent"]["config"]["width"] == 32
    assert (
        origin["weights_sha256"]
        == hashlib.sha256((run / "last" / "agent.safetensors").read_bytes()).hexdigest()
    )
    assert OnnxPolicy(out).act(np.zeros((1, 11))).shape == (1, 3)
    assert export(run, out, "--steps", "5") == 0  # again, over the old one
    assert read_card(out).checks["agreement"]["steps"] == 5


def test_the_card_says_all_that_a_stranger_needs(tmp_path: Path) -> None:
    """Act by the card and the graph alone, without this package's runner."""
    import onnxruntime

    agent, out = make_aaren(heads=2), tmp_path / "policy.onnx"
    assert export(saved(agent, tmp_path), out, "--steps", "20") == 0
    card = json.loads((tmp_path / "policy.onnx.json").read_text())
    session = onnxruntime.InferenceSession(str(out))
    feeds: dict[str, Any] = {}

    def begin() -> None:
        for each in card["inputs"]:
            assert each["meaning"]
            value = card["reset_state"].get(each["name"], 0)
            value = card["target_returns"][0] if value == "target_return" else value
            shape = [1 if size == "batch" else size for size in each["shape"]]
            feeds[each["name"]] = np.full(shape, value, each["dtype"])

    names = [each["name"] for each in card["outputs"]]
    policy, rng = agent.policy(1), np.random.default_rng(0)
    for step in range(30):
        observation, reward = rng.normal(size=(1, 11)), rng.normal(size=1)
        if step in (0, 17):
            begin()
        else:
            feeds["reward"][:] = reward
        feeds["observation"][:] = observation
        given = dict(zip(names, session.run(names, feeds), strict=True))
        feeds.update({card["state"][name]: given[name] for name in card["state"]})
        wanted = policy.act(observation, reward, np.array([step == 17]))
        np.testing.assert_allclose(given["action"], wanted, rtol=0, atol=1e-5)


def test_a_step_that_acts_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest, other = command.step_content, make_aaren(seed=1)
    monkeypatch.setattr(command, "step_content", lambda _, kind: honest(step_of(other), kind))
    assert export(saved(make_aaren(), tmp_path), tmp_path / "policy.onnx") == 2
    message = capsys.readouterr().err
    assert "the exported step's actions differ from PyTorch's by" in message
    assert message.count("\n") == 1
    assert files(tmp_path) == set()


def test_a_step_that_gives_no_numbers_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest, broken = command.step_content, make_aaren()
    with torch.no_grad():
        broken.head[0].bias.fill_(torch.nan)
    monkeypatch.setattr(command, "step_content", lambda _, kind: honest(step_of(broken), kind))
    run, out = saved(make_aaren(), tmp_path), tmp_path / "policy.onnx"
    out.write_text("an older export")
    assert export(run, out) == 2
    assert "differ from PyTorch's by nan" in capsys.readouterr().err
    assert out.read_text() == "an older export"
    assert files(tmp_path) == {"policy.onnx"}


def test_int8_is_smaller_and_says_what_it_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved(make_aaren(width=64, layers=2, timestep_embedding="none"), tmp_path)
    whole, small = tmp_path / "policy.onnx", tmp_path / "int8.onnx"
    assert export(run, whole, "--steps", "5") == 0
    assert export(run, small, "--steps", "50", "--dynamic-int8", "--episodes", "3") == 0
    assert "lost, over the same 3 episodes" in capsys.readouterr().out
    assert small.stat().st_size < 0.4 * whole.stat().st_size
    card = read_card(small)
    assert card.precision == "dynamic-int8"
    loss = card.checks["dynamic_int8"]
    assert loss["score_loss"] == loss["score_float32"] - loss["score_int8"]
    assert 0 < loss["largest_action_difference"] < 0.5
    assert card.checks["agreement"]["largest_difference"] <= 1e-5  # before quantising
    kinds = [node.op_type for node in onnx.load(small).graph.node]
    assert kinds.count("MatMulInteger") == 2 * 3
    assert OnnxPolicy(small, 5).act(np.zeros((5, 11))).shape == (5, 3)


def test_predicted_returns(tmp_path: Path) -> None:
    """The condition `max-return`, in 8 bits too; `--dynamic-int8` plays whole episodes."""
    agent, out = make_agent(condition="max-return"), tmp_path / "policy.onnx"
    flags = ("--dynamic-int8", "--episodes", "1", "--steps", "50")
    assert export(saved(agent, tmp_path), out, *flags) == 0
    card = read_card(out)
    assert card.checks["agreement"]["largest_difference"] <= 1e-5
    assert card.target_returns == ()
    assert card.reset_state["return_to_go"] == 0
    kinds = [node.op_type for node in onnx.load(out).graph.node]
    assert kinds.count("MatMulInteger") == 2 * 3  # two chunks, three maps each


@pytest.mark.parametrize("name", ["decision-aaren", "max-return", "behavior-cloning"])
def test_torch_export(tmp_path: Path, name: str) -> None:
    out = tmp_path / "policy.pt2"
    agent = make_agent(condition=name) if name == "max-return" else make_agent(name)
    assert export(saved(agent, tmp_path), out, "--format", "torch-export", "--steps", "100") == 0
    assert files(tmp_path) == {"policy.pt2", "policy.pt2.json"}
    card = read_card(out)
    assert card.kind == "torch-export"
    program = torch.export.load(out).module()
    for batch in (1, 2, 5):  # the same file for every batch
        inputs = [torch.from_numpy(np.ones(t.sizes(batch), t.dtype)) for t in card.inputs]
        outputs = program(*inputs)
        assert [tuple(each.shape) for each in outputs] == [t.sizes(batch) for t in card.outputs]
        assert [str(each.numpy().dtype) for each in outputs] == [t.dtype for t in card.outputs]


@pytest.mark.parametrize("name", ["decision-lstm", "decision-min-gru"])
def test_other_recurrent_agents(tmp_path: Path, name: str) -> None:
    """Checked against PyTorch by the export itself; in 8 bits their blocks too."""
    out = tmp_path / "policy.onnx"
    run = saved(make_agent(name), tmp_path)
    assert export(run, out, "--dynamic-int8", "--episodes", "1", "--steps", "60") == 0
    assert read_card(out).checks["agreement"]["largest_difference"] <= 1e-5
    kinds = [node.op_type for node in onnx.load(out).graph.node]
    assert kinds.count("MatMulInteger") >= 2  # at least the feed-forward part


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_an_agent_that_was_saved_without_an_environment(
    tmp_path: Path, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved(make_aaren(environment=None), tmp_path)
    out = tmp_path / "policy"
    assert export(run, out, "--format", format, "--steps", "60") == 0
    agreement = read_card(out).checks["agreement"]
    assert agreement["largest_difference"] <= 1e-5
    assert agreement["episodes"] > 4
    assert not agreement["in_environment"]
    assert export(run, out, "--dynamic-int8") == 2  # a score is of an environment
    assert "saved without" in capsys.readouterr().err


def test_a_transformer_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = saved(make_agent("decision-transformer"), tmp_path)
    assert export(run, tmp_path / "policy.onnx") == 2
    message = capsys.readouterr().err
    assert "decision-transformer cannot be exported: its state grows with every step" in message
    assert message.count("\n") == 1
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dynamic-int8", "--format", "torch-export"], "--dynamic-int8 needs --format onnx"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--episodes", "0"], "--episodes must be at least 1, got 0"),
        (["--seed", "-1"], "--seed must not be negative, got -1"),
        (["--format", "tflite"], "--format"),
        (["--environment", "NoSuch-v9"], "environment 'NoSuch-v9': Environment `NoSuch`"),
        (["--environment", "Pendulum-v1"], "observations: the environment's"),
        (["--checkpoint", "best"], "it has no best/ checkpoint"),
        (["--out", "/nowhere/policy.onnx"], "--out /nowhere/policy.onnx: no folder /nowhere"),
        (["--out", "/tmp"], "--out /tmp: a folder"),
    ],
)
def test_wrong_flags(
    tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved(make_aaren(), tmp_path)
    assert export(run, tmp_path / "policy.onnx", *flags) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert files(tmp_path) == set()


def test_no_such_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tmp_path / "nothing", tmp_path / "policy.onnx") == 2
    assert "nothing: not a training run" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package(
    tmp_path: Path,
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = saved(make_aaren(), tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    assert export(run, tmp_path / "policy.onnx") == 2
    assert "is not installed: pip install 'aaren-rl[export]'" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--runtime", "onnx"]) == 2
    assert "pip install 'aaren-rl[export]'" in capsys.readouterr().err
