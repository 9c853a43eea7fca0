"""The events that a run writes, read back as TensorBoard reads them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_cases import scalars, signal_at_batch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.summary.writer import event_file_writer

from aaren_rl.training import Interrupted, TensorBoardLogger, train
from aaren_rl.training.loggers import RunInfo

TRAINING = {
    f"training/{name}" for name in ("loss", "learning_rate", "gradient_norm", "tokens_per_second")
}
EVALUATION = ("score", "score_low", "score_high", "return", "episode_length")
GROUPS = ("evaluation", "evaluation/target_3600", "evaluation/target_1800.5")


@pytest.fixture(scope="module")
def run(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The config of a finished run with two targets that was stopped and resumed."""
    config = tiny(tmp_path_factory.mktemp("events") / "run", target_return=(3600.0, 1800.5))
    with pytest.MonkeyPatch.context() as patch:
        signal_at_batch(patch, "windows", 18)
        with pytest.raises(Interrupted):
            train(config)
    train(dataclasses.replace(config, resume=True))
    return config


def test_tags_and_steps(run: Any) -> None:
    entries = scalars(run.out)
    groups = {f"{group}/{name}" for group in GROUPS for name in EVALUATION}
    final = {f"final/{name}" for name in ("score", "score_std", "train_seconds", "parameters")}
    assert set(entries) == TRAINING | groups | final
    for tag, values in entries.items():
        wanted = [5, 10, 15, 20, 25, 30] if tag in TRAINING else [15, 30]
        assert [step for step, _ in values] == (wanted if tag not in final else [30]), tag


def test_values_are_those_of_the_summary(run: Any) -> None:
    entries = scalars(run.out)
    summary = json.loads((run.out / "summary.json").read_text())
    assert len(summary["history"]) == 4
    for row in summary["history"]:
        targets = [f"evaluation/target_{row['target_return']:g}"]
        targets += ["evaluation"] if row["target_return"] == 3600 else []
        wanted = {
            "score": row["score_mean"],
            "score_low": row["score_mean"] - row["score_std"],
            "score_high": row["score_mean"] + row["score_std"],
            "return": row["return_mean"],
            "episode_length": row["length_mean"],
        }
        for tag, (name, value) in itertools.product(targets, wanted.items()):
            assert dict(entries[f"{tag}/{name}"])[row["update"]] == pytest.approx(value, rel=1e-6)
    best = max(summary["scores"], key=lambda row: row["score_mean"])
    assert entries["final/score"] == [(30, pytest.approx(best["score_mean"], rel=1e-6))]
    assert entries["final/score_std"] == [(30, pytest.approx(best["score_std"], rel=1e-6))]
    assert entries["final/parameters"] == [(30, summary["parameters"])]
    assert all(value > 0 for _, value in entries["training/tokens_per_second"])


def test_a_row_in_the_hparams_tab(run: Any) -> None:
    events = EventAccumulator(str(run.out))
    events.Reload()
    content = events.summary_metadata
    experiment, start, end = (
        plugin_data_pb2.HParamsPluginData.FromString(
            content[f"_hparams_/{tag}"].plugin_data.content
        )
        for tag in ("experiment", "session_start_info", "session_end_info")
    )
    shown = {name: value for name, value in start.session_start_info.hparams.items()}
    assert shown["agent"].string_value == "decision-aaren"
    assert shown["learning_rate"].number_value == 1e-3
    assert shown["updates"].number_value == 30
    assert shown["width"].number_value == 16
    assert shown["normalize_observations"].number_value == 1  # torch writes a bool so
    assert shown["timestep_embedding"].string_value == "none"
    assert "model" not in shown
    assert {info.name for info in experiment.experiment.hparam_infos} == set(shown)
    metrics = [info.name.tag for info in experiment.experiment.metric_infos]
    assert metrics[0] == "final/score"
    assert set(metrics) == {tag for tag in scalars(run.out) if tag.startswith("final/")}
    assert end.session_end_info.status == 1  # success


def test_one_page_with_all_runs_in_each_chart(run: Any) -> None:
    events = EventAccumulator(str(run.out))
    events.Reload()
    [*_, event] = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    [category] = layout.category
    assert category.title == "agents side by side"
    charts = {chart.title: chart for chart in category.chart}
    present = set(scalars(run.out))
    for group, title in zip(GROUPS, ("", ", target_3600", ", target_1800.5"), strict=True):
        [series] = charts[f"score{title}"].margin.series
        tags = [series.value, series.lower, series.upper]
        assert tags == [f"{group}/{name}" for name in EVALUATION[:3]]
        assert list(charts[f"episode length{title}"].multiline.tag) == [f"{group}/episode_length"]
        assert set(tags) <= present
    assert list(charts["loss"].multiline.tag) == ["training/loss"]
    assert list(charts["tokens per second"].multiline.tag) == ["training/tokens_per_second"]
    assert len(charts) == 8


def test_agents_overlay(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """The same tags whoever is trained, so that one chart holds them all."""
    tags = []
    for name in ("decision-aaren", "decision-transformer"):
        train(tiny(tmp_path / name, agent=name, episodes=1))
        tags.append(set(scalars(tmp_path / name)))
    assert tags[0] == tags[1]


def test_an_agent_without_targets_logs_under_evaluation(
    tiny: Callable[..., Any], tmp_path: Path
) -> None:
    train(tiny(tmp_path, agent="behavior-cloning", episodes=1))
    tags = {tag for tag in scalars(tmp_path) if tag.startswith("evaluation")}
    assert tags == {f"evaluation/{name}" for name in EVALUATION}


def test_no_evaluation_no_scores(tiny: Callable[..., Any], tmp_path: Path) -> None:
    train(tiny(tmp_path, environment="none"))
    assert set(scalars(tmp_path)) == TRAINING | {"final/train_seconds", "final/parameters"}


def test_errors_on_held_out_episodes(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """By position for each agent; what Aaren's memory holds for Aaren alone, with a picture."""
    for name in ("decision-aaren", "decision-transformer"):
        run = tmp_path / name
        train(tiny(run, agent=name, environment="none", held_out=0.05))
        entries = scalars(run)
        memory = {tag for tag in entries if tag.startswith("memory/")}
        aarens = {"memory/margin/layer_0_head_0", "memory/horizon/layer_0_head_0"}
        assert memory == (aarens if name == "decision-aaren" else set())
        content = json.loads((run / "summary.json").read_text())["offline"]
        assert [row["update"] for row in content] == [15, 30]
        for row in content:
            assert row["lengths"][-1]["last"] == 1000
            for part in row["lengths"]:
                place = f"steps_{part['first']}_{part['last']}"
                for mode in ("carry", "window"):
                    logged = dict(entries[f"held_out/error_{mode}/{place}"])
                    assert logged[row["update"]] == pytest.approx(part[mode], rel=1e-6)
        events = EventAccumulator(str(run))
        events.Reload()
        pictures = events.Tags()["images"]
        assert pictures == (["memory/held_at_the_end"] if name == "decision-aaren" else [])


@pytest.mark.parametrize("back", [0, 86_400])
def test_event_files_are_read_in_the_order_in_which_they_were_begun(
    back: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of one second, and those that are begun after the clock was set back."""
    now = 1_700_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(8))
    for done in range(0, 8, 2):  # the numbers that end the names become longer
        logger = TensorBoardLogger(tmp_path)
        logger.start(RunInfo("a run", None, {}, [], done))
        for step in (done + 1, done + 2, done + 3):  # the last one is done anew by the next
            logger.scalars({"training/loss": float(done)}, step)
        logger.close()
        now -= back
    assert len(list(tmp_path.iterdir())) == 4
    steps = [(step, step - 1 - (step - 1) % 2) for step in range(1, 9)]
    assert scalars(tmp_path)["training/loss"] == [*steps, (9, 6)]
