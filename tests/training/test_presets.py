"""Presets: what they change, what wins over them, and that a run remembers its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aaren_rl.agents import AgentConfig
from aaren_rl.cli import first_look, main, starting_point
from aaren_rl.envs.memory.experts import write_expert_dataset
from aaren_rl.errors import UserError
from aaren_rl.experiments.comparison import CompareConfig
from aaren_rl.training import TrainConfig, from_preset
from aaren_rl.training.presets import PRESETS

TINY = ("--updates", "4", "--evaluate-every", "2", "--episodes", "2", "--width", "16")


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Short corridors in a Minari root of their own."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    name = "memory/short-v0"
    write_expert_dataset(name, "aaren/PassiveTMaze-v0?length=[3,9]", 20, root=tmp_path / "data")
    return name


@pytest.mark.parametrize("kind", [TrainConfig, CompareConfig])
@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_config_that_can_work(kind: type[TrainConfig], name: str) -> None:
    config = from_preset(kind, name)
    config.check()
    assert config.preset == name
    assert config != kind(preset=name)
    assert from_preset(kind, name, updates=7).updates == 7


def test_agents_that_remember_are_trained_on_whole_episodes_and_act_without_end() -> None:
    config = from_preset(TrainConfig, "memory", dataset="memory/short-v0", seed=3)
    assert (config.dataset, config.seed, config.sampling) == ("memory/short-v0", 3, "episodes")
    assert not config.normalize_observations
    assert config.model.timestep_embedding == "none"
    assert config.model.dropout == config.model.attention_dropout == 0
    assert config.model.dilution > 1


def test_agents_for_control_forget_at_several_rates_and_keep_too() -> None:
    model = from_preset(TrainConfig, "control").model
    assert len(set(model.recency)) == model.heads == 4
    assert min(model.recency) == 0


def test_chen2021_is_as_the_authors_code_trains() -> None:
    """Their gym/experiment.py: AdamW at 1e-4, 10,000 updates of warm-up, then a constant rate."""
    config = from_preset(TrainConfig, "chen2021")
    assert (config.updates, config.warmup * config.updates) == (100_000, 10_000)
    assert (config.schedule, config.learning_rate, config.weight_decay) == ("constant", 1e-4, 1e-4)
    assert not config.standardize_returns
    model = config.model
    assert model.dropout == model.embedding_dropout == model.attention_dropout == 0.1
    assert (model.timestep_embedding, model.embedding_start) == ("learned", "original")


def test_a_run_remembers_its_preset_and_flags_win(dataset: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("train", "--dataset", dataset, "--out", str(out), "--learning-rate", "5e-4", *TINY)
    assert main([*words, "--preset", "memory"]) == 0
    saved = json.loads((out / "config.json").read_text())
    assert saved["preset"] == "memory"
    assert saved["learning_rate"] == 5e-4
    assert (saved["updates"], saved["model"]["width"]) == (4, 16)
    rest = PRESETS["memory"]
    assert (saved["sampling"], saved["batch_steps"]) == (rest["sampling"], rest["batch_steps"])
    assert saved["model"]["dilution"] == rest["model"].dilution
    agent = json.loads((out / "last" / "agent.json").read_text())
    assert agent["config"]["dilution"] == rest["model"].dilution


def test_a_run_from_a_preset_is_resumed_with_or_without_naming_it(
    dataset: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", "--dataset", dataset, "--out", str(out), *TINY, "--preset=memory"]
    assert main(words) == 0
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert main(["train", "--resume", "--out", str(out), "--preset", "memory"]) == 0
    assert main([*words, "--resume"]) == 0
    config = starting_point(TrainConfig, first_look(["--resume", "--out", str(out)]))
    assert config.preset == "memory"
    assert config.model == AgentConfig(**{**vars(PRESETS["memory"]["model"]), "width": 16})


def test_a_comparison_starts_from_a_preset(dataset: str, tmp_path: Path) -> None:
    words = ("--dataset", dataset, "--out", str(tmp_path / "all"), "--seeds", "0")
    agents = ("--agents", "decision-aaren", "decision-min-gru")
    assert main(["compare", *words, *agents, *TINY, "--preset", "memory"]) == 0
    for agent in agents[1:]:
        saved = json.loads((tmp_path / "all" / agent / "seed-0" / "config.json").read_text())
        assert (saved["preset"], saved["sampling"]) == ("memory", "episodes")


def test_an_unknown_preset_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"--preset 'memroy': chen2021, control or memory expected"):
        from_preset(TrainConfig, "memroy")
    for command in ("train", "compare"):
        assert main([command, "--preset", "memroy"]) == 2
        assert (
            capfd.readouterr().err
            == "error: --preset 'memroy': chen2021, control or memory expected\n"
        )
