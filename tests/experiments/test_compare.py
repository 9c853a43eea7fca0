"""Several agents and seeds in one log directory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line_task import line_data
from run_cases import assert_same_run, scalars, signal_at_batch, summary, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from aaren_rl import cli
from aaren_rl.agents import load_agent
from aaren_rl.errors import UserError
from aaren_rl.evaluation import mean_interval
from aaren_rl.experiments import CompareConfig, compare
from aaren_rl.experiments import comparison as comparison_module
from aaren_rl.experiments.comparison import summarise, with_differences
from aaren_rl.experiments.content import to_json
from aaren_rl.experiments.tensorboard import write_mean_curves
from aaren_rl.experiments.unit import Evaluated, Summary
from aaren_rl.training import Interrupted, train

AGENTS = ("decision-aaren", "decision-transformer")
SEEDS = (3, 4, 5)


def comparison(tiny: Callable[..., Any], out: Path, **changes: Any) -> CompareConfig:
    plain = tiny(out, evaluate_every=15, episodes=1)
    kept = {field.name for field in dataclasses.fields(CompareConfig)} - {"agents", "seeds"}
    settings = {
        field.name: getattr(plain, field.name)
        for field in dataclasses.fields(plain)
        if field.name in kept
    }
    return CompareConfig(**{**settings, "agents": AGENTS, "seeds": SEEDS, **changes})


@pytest.fixture(scope="module")
def done(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A comparison that was stopped in its third run, resumed, and its rows."""
    config = comparison(tiny, tmp_path_factory.mktemp("compare") / "all")
    with pytest.MonkeyPatch.context() as patch:
        signal_at_batch(patch, "windows", 70)
        with pytest.raises(Interrupted):
            compare(config)
    first = {path: path.read_bytes() for path in config.out.rglob("summary.json")}
    assert len(first) == 2
    rows = compare(dataclasses.replace(config, resume=True))
    assert all(path.read_bytes() == content for path, content in first.items())  # kept
    return config, rows


def test_each_run_is_what_train_makes(done: Any, tiny: Callable[..., Any], tmp_path: Path) -> None:
    config, _ = done
    for agent, seed in (("decision-aaren", 3), ("decision-aaren", 5), ("decision-transformer", 4)):
        alone = tmp_path / f"{agent}-{seed}"
        train(tiny(alone, agent=agent, seed=seed, evaluate_every=15, episodes=1))
        assert_same_run(config.out / agent / f"seed-{seed}", alone)


def test_rows_summarise_the_seeds(done: Any) -> None:
    config, rows = done
    assert json.loads((config.out / "comparison.json").read_text()) == to_json(rows)
    assert [row.agent for row in rows] == list(AGENTS)
    assert [row.mode for row in rows] == ["carry", "window"]
    for row in rows:
        runs = [config.out / row.agent / f"seed-{seed}" for seed in SEEDS]
        scores = [summary(run)["scores"][0]["score_mean"] for run in runs]
        assert row.scores == scores
        assert row.seeds == list(SEEDS)
        assert row.score_mean == pytest.approx(np.mean(scores))
        assert (row.score_low, row.score_high) == (min(scores), max(scores))
        assert row.bounds == "range"  # of three seeds
        assert row.score_low < row.score_mean < row.score_high
        assert row.target_return == 3600.0
        assert row.parameters == load_agent(runs[0] / "last").num_parameters
        seconds = [json.loads((run / "summary.json").read_text())["train_seconds"] for run in runs]
        assert row.train_seconds == pytest.approx(np.mean(seconds))
    assert rows[0].parameters == rows[1].parameters + 16  # one layer's query token
    assert rows[0].difference is None
    pairs = np.subtract(rows[1].scores, rows[0].scores)
    found = to_json(rows[1].difference)
    assert (found["to"], found["to_target_return"], found["margin"]) == (AGENTS[0], 3600.0, 5.0)
    assert found["value"] == pytest.approx(pairs.mean())
    assert (found["low"], found["high"]) == (pairs.min(), pairs.max())
    assert (found["bounds"], found["status"]) == ("range", "no verdict")
    assert found["reason"] == "3 seeds, 5 needed"


def test_the_mean_over_seeds_is_a_curve_of_its_own(done: Any) -> None:
    config, _ = done
    for agent in AGENTS:
        curves = scalars(config.out / agent / "mean")
        assert set(curves) == {
            f"{tag}/{name}"
            for tag in ("evaluation", "evaluation/target_3600")
            for name in ("score", "score_range_low", "score_range_high")
        }
        histories = [summary(config.out / agent / f"seed-{seed}")["history"] for seed in SEEDS]
        for number, update in enumerate((15, 30)):
            scores = [each[number]["score_mean"] for each in histories]
            for name, value in (
                ("score", np.mean(scores)),
                ("score_range_low", min(scores)),
                ("score_range_high", max(scores)),
            ):
                step, logged = curves[f"evaluation/target_3600/{name}"][number]
                assert step == update
                assert logged == pytest.approx(value, rel=1e-6)


def summaries(
    scores: list[float], target: float | None = 3600.0, normalized: bool = True
) -> list[Summary]:
    """What the runs of an agent leave, as far as a comparison reads it."""
    rows = [Evaluated(score, target, normalized, update=15) for score in scores]
    return [Summary(seed, 7, 1.0, scores=[row], history=[row]) for seed, row in enumerate(rows)]


def test_five_seeds_have_an_interval_and_words(tmp_path: Path) -> None:
    first = [10.0, 90.0, 40.0, 70.0, 25.0, 55.0]
    for second, margin, status in (
        ([score + 1 for score in first], 5.0, "better"),
        ([score - 1 for score in first], 5.0, "not worse"),
        ([score - 6 for score in first], 5.0, "worse"),
        ([score - 6 for score in first], 7.0, "not worse"),
        (first[::-1], 5.0, "not decided"),
    ):
        rows = summarise("one", summaries(first)) + summarise("two", summaries(second))
        [own, other] = with_differences(rows, margin)
        assert own.bounds == other.bounds == "95% interval"
        assert own.difference is None
        assert other.difference is not None
        assert other.difference.verdict.status == status
        assert other.difference.estimate == mean_interval(np.subtract(second, first))
        if status == "not decided":
            assert (other.difference.verdict.seeds_needed or 0) > 6
    write_mean_curves(tmp_path, {"one": summaries(first)})
    curves = scalars(tmp_path / "one" / "mean")
    interval = mean_interval(np.array(first))
    for name, value in (("low", interval.low), ("high", interval.high)):
        [(step, logged)] = curves[f"evaluation/target_3600/score_interval_{name}"]
        assert (step, logged) == (15, pytest.approx(value, rel=1e-6))


def test_returns_without_a_reference_have_no_words() -> None:
    rows = summarise("one", summaries([1.0, 2.0, 3.0, 4.0, 5.0], normalized=False))
    rows += summarise("two", summaries([2.0, 3.0, 4.0, 5.0, 6.0], target=None, normalized=False))
    found = to_json(with_differences(rows, 5.0)[1].difference)
    assert (found["value"], found["to_target_return"]) == (1.0, 3600.0)
    assert (found["bounds"], found["status"]) == ("95% interval", "no verdict")


def test_a_seed_without_scores_is_left_out_of_means_and_pairs(tmp_path: Path) -> None:
    """Its last evaluation failed, and training went on."""
    scores = [10.0, 90.0, 40.0]
    whole, short = summaries(scores), summaries([score + 1 for score in scores])
    short[1] = dataclasses.replace(short[1], scores=[], history=[])
    rows = summarise("one", whole) + summarise("two", short)
    [_, row] = with_differences(rows, 5.0)
    assert (row.seeds, row.scores) == ([0, 2], [11.0, 41.0])
    assert row.difference is not None
    assert row.difference.estimate.value == pytest.approx(1.0)
    assert "2 seeds, 5 needed" in row.difference.verdict.reason
    write_mean_curves(tmp_path, {"one": whole, "two": short})
    assert "evaluation/target_3600/score" in scalars(tmp_path / "one" / "mean")


def test_the_table_names_ranges_and_intervals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = [10.0, 90.0, 40.0, 70.0, 25.0, 55.0]
    for seeds, words in (
        (3, ("mean and range", "10.0 to 90.0", "+1.0, range +1.0 to +1.0", "3 seeds, 5")),
        (6, ("mean and 95% interval", "+1.0, 95% interval +1.0 to +1.0", "better")),
    ):
        rows = summarise("one", summaries(scores[:seeds]))
        rows += summarise("two", summaries([score + 1 for score in scores[:seeds]]))
        done_rows = with_differences(rows, 5.0)
        monkeypatch.setattr(comparison_module, "compare", lambda _, rows=done_rows: rows)
        cli.COMMANDS["compare"].action(CompareConfig(agents=AGENTS, seeds=tuple(range(seeds))))
        output = " ".join(capsys.readouterr().out.split())
        for each in words:
            assert each in output
        assert ("range" in output) == (seeds < 5)
        assert ("interval" in output) == (seeds >= 5)


@pytest.mark.parametrize("margin", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_margins(margin: float, tiny: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--margin must be positive and finite, got"):
        comparison(tiny, tmp_path, margin=margin).check()


def test_several_datasets_are_refused_before_any_training() -> None:
    with pytest.raises(UserError, match=r"--dataset a \+ b: one dataset expected"):
        CompareConfig("a + b").check()


def test_again_it_trains_nothing(done: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config, rows = done
    signal_at_batch(monkeypatch, "windows", 1)
    assert compare(dataclasses.replace(config, resume=True)) == rows
    for agent in AGENTS:  # the curve is written anew, not once more
        steps = [
            step for step, _ in scalars(config.out / agent / "mean")["evaluation/target_3600/score"]
        ]
        assert steps == [15, 30]


def test_another_comparison_in_the_same_folder_is_refused(done: Any) -> None:
    config, _ = done
    before = weights(config.out / "decision-aaren" / "seed-3")
    with pytest.raises(UserError, match="already holds this run; give --resume"):
        compare(config)
    for resume in (False, True):
        other = dataclasses.replace(config, batch_size=16, resume=resume)
        with pytest.raises(UserError, match="--batch-size 8 there, 16 here"):
            compare(other)
    assert weights(config.out / "decision-aaren" / "seed-3") == before


def test_seeds_can_be_added(done: Any, tiny: Callable[..., Any]) -> None:
    config, rows = done
    more = dataclasses.replace(config, agents=("decision-aaren",), seeds=(*SEEDS, 6), resume=True)
    [row] = compare(more)
    assert row.scores[:3] == rows[0].scores
    assert len(row.scores) == 4


def test_an_agent_without_targets_stands_in_the_chart_of_all(
    tiny: Callable[..., Any], tmp_path: Path
) -> None:
    agents = ("behavior-cloning", "decision-aaren")
    first, second = compare(comparison(tiny, tmp_path, agents=agents, seeds=(0,)))
    assert (first.agent, first.target_return) == ("behavior-cloning", None)
    assert first.score_low == first.score_mean == first.score_high
    assert second.difference is not None
    assert second.difference.to_target_return is None
    assert second.target_return == 3600.0
    for agent in agents:
        for run in ("mean", "seed-0"):
            assert "evaluation/score" in scalars(tmp_path / agent / run)
    assert (tmp_path / "decision-aaren" / "acting-carry-seed-0").is_dir()


def test_without_an_environment_errors_are_compared(
    tiny: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = comparison(tiny, tmp_path, environment="none", seeds=(0, 1), held_out=0.05)
    cli.COMMANDS["compare"].action(config)
    output = " ".join(capsys.readouterr().out.split())
    assert "no environment, so no scores: mean action error on held-out episodes" in output
    rows = json.loads((tmp_path / "comparison.json").read_text())
    assert [(row["agent"], row["scores"], row["score_mean"]) for row in rows] == [
        (agent, [], None) for agent in AGENTS
    ]
    for row in rows:
        [*lengths] = summary(tmp_path / row["agent"] / "seed-1")["offline"][-1]["lengths"]
        steps = [each["steps"] for each in lengths]
        errors = [each[row["mode"]] for each in lengths]
        assert row["held_out_errors"][1] == pytest.approx(np.average(errors, weights=steps))
        assert f"{np.mean(row['held_out_errors']):.4f}" in output
    assert (tmp_path / "length_error.png").stat().st_size > 5000


def test_runs_without_scores_and_errors_are_refused_before_any_work(
    tiny: Callable[..., Any], tmp_path: Path
) -> None:
    config = comparison(tiny, tmp_path / "all", environment="none", held_out=0.0)
    words = r"\(--environment\) .* \(--held-out\) there is nothing to compare"
    with pytest.raises(UserError, match=words):
        compare(config)
    data = line_data()  # it has no environment
    with pytest.raises(UserError, match=words):
        compare(data, held_out=0.0, out=tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_shared_flags_go_to_the_agents_that_have_a_use_for_them(
    tiny: Callable[..., Any], tmp_path: Path
) -> None:
    agents = ("behavior-cloning", "decision-aaren")
    settings = {"agents": agents, "seeds": (0,), "mode": "reset", "target_return": (7.0, 9.0)}
    config = comparison(tiny, tmp_path, **settings, updates=2, evaluate_every=2)
    rows = compare(config)
    assert [(row.agent, row.mode, row.target_return) for row in rows] == [
        ("behavior-cloning", "carry", None),
        ("decision-aaren", "reset", 7.0),
        ("decision-aaren", "reset", 9.0),
    ]


def test_a_mode_that_one_of_the_agents_lacks_is_refused_before_any_work(
    tiny: Callable[..., Any], tmp_path: Path
) -> None:
    agents = ("decision-transformer", "decision-aaren")
    config = comparison(tiny, tmp_path / "all", agents=agents, seeds=(0,), mode="sliding")
    with pytest.raises(UserError, match="--mode sliding: decision-aaren knows carry"):
        compare(config)
    assert not (tmp_path / "all").exists()


def test_from_python_with_flat_settings(tmp_path: Path) -> None:
    shape = {"width": 16, "layers": 1, "context_length": 5}
    plain = {"updates": 4, "batch_size": 8, "episodes": 1, "device": "cpu", "held_out": 0.0}
    [row] = compare(
        "aaren-rl/hopper-small-v0",
        agents=("behavior-cloning",),
        seeds=(0,),
        out=str(tmp_path / "out"),
        environment="Hopper-v5?max_episode_steps=20",
        **shape,
        **plain,
    )
    assert row.seeds == [0]
    saved = json.loads((tmp_path / "out/behavior-cloning/seed-0/config.json").read_text())
    assert (saved["updates"], saved["model"]["width"]) == (4, 16)
    with pytest.raises(UserError, match=r"unknown setting 'widht'; did you mean width\?"):
        compare("aaren-rl/hopper-small-v0", widht=16)


def test_data_in_memory(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Lines name their seed, and HParams show the settings that differ, no others."""
    agents = ("decision-aaren", "behavior-cloning")
    small = {"updates": 10, "batch_size": 4, "context_length": 2, "layers": 1, "width": 8}
    settings = {**small, "environment": "none", "held_out": 0.1, "agents": agents}
    rows = compare(line_data(), seeds=(0, 1), out=tmp_path, **settings)
    assert [row.agent for row in rows] == list(agents)
    assert "behavior-cloning, seed 1, on line: " in capfd.readouterr().err
    events = EventAccumulator(str(tmp_path / "behavior-cloning" / "seed-1"))
    events.Reload()
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert set(start.hparams) == {"agent", "seed"}
    more = {**settings, "seeds": (0, 1), "out": tmp_path, "resume": True}
    with pytest.raises(UserError, match="not the data that the run"):
        compare(line_data(episodes=9), **{**more, "updates": 11})
