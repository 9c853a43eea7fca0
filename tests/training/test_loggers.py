"""Loggers: the table of numbers, loggers of the user's own, and adapters behind extras."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from line_task import LINE, SMALL, line_data
from run_cases import scalars, signal_at_batch

from aaren_rl.errors import UserError
from aaren_rl.training import (
    LOGGERS,
    CSVLogger,
    Interrupted,
    Logger,
    MLflowLogger,
    RunInfo,
    WandbLogger,
    register_logger,
    train,
)
from aaren_rl.training.loggers import flat_settings, target_tag


def table(file: Path) -> dict[str, list[tuple[int, float]]]:
    with file.open(newline="") as lines:
        header, *rows = csv.reader(lines)
    assert header == ["step", "tag", "value"]
    entries: dict[str, list[tuple[int, float]]] = {}
    for step, tag, value in rows:
        entries.setdefault(tag, []).append((int(step), float(value)))
    return entries


def test_csv_holds_what_tensorboard_holds(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """Also of a run that was stopped, and whose last line was cut short by a kill."""
    config = tiny(tmp_path / "run", loggers=("tensorboard", "csv"), held_out=0.05)
    with pytest.MonkeyPatch.context() as patch:
        signal_at_batch(patch, "windows", 18)
        with pytest.raises(Interrupted):
            train(config)
    file = tmp_path / "run" / "metrics.csv"
    with file.open("a") as lines:
        lines.write("20,training/loss,0.5\n21,training/lo")
    with file.open("ab") as damaged:
        damaged.write(b'\xff"\x00\n"')
    train(dataclasses.replace(config, resume=True))
    ours, theirs = table(file), scalars(tmp_path / "run")
    assert ours.keys() == theirs.keys()
    for tag, values in ours.items():
        assert [step for step, _ in values] == [step for step, _ in theirs[tag]], tag
        numbers = [[value for _, value in entries] for entries in (values, theirs[tag])]
        np.testing.assert_allclose(*numbers, rtol=1e-6)


class Recorder(Logger):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self, run: RunInfo) -> None:
        assert run.folder is None
        assert run.settings["updates"] == 20
        self.calls.append(("start", run.name, list(run.groups), run.done))

    def scalars(self, values: dict[str, float], step: int) -> None:
        self.calls.append(("scalars", sorted(values), step))

    def finish(self, metrics: dict[str, float], step: int) -> None:
        self.calls.append(("finish", metrics["final/score"], step))

    def close(self) -> None:
        self.calls.append("close")


def test_a_logger_of_ones_own() -> None:
    logger = Recorder()
    train(line_data(), env=LINE, loggers=[logger], **SMALL | {"evaluate_every": 20})
    start, *entries, finish, close = logger.calls
    assert start == ("start", "decision-aaren on line", ["evaluation", "evaluation/target_10"], 0)
    assert [step for kind, _, step in entries if kind == "scalars"] == [5, 10, 15, 20, 20]
    assert entries[-1][1][0] == "evaluation/episode_length"
    assert finish == ("finish", 10.0, 20)
    assert close == "close"


def test_it_is_closed_after_an_error_and_not_finished() -> None:
    logger = Recorder()
    with pytest.raises(UserError, match="the weights are not finite"):
        train(line_data(), loggers=[logger], **SMALL | {"schedule": lambda _: float("nan")})
    assert [call[0] if call != "close" else call for call in logger.calls] == ["start", "close"]


def test_registered_names() -> None:
    assert {"tensorboard", "csv", "wandb", "mlflow"} <= set(LOGGERS)
    made: list[Recorder] = []

    @dataclasses.dataclass(frozen=True)
    class Options:
        label: str = "usual"

    class Remembered(Recorder):
        def __init__(self, label: str) -> None:
            super().__init__()
            assert label == "usual"
            made.append(self)

    register_logger("tests-remembered", Remembered, options=Options)
    train(line_data(), env=LINE, loggers=["tests-remembered"], **SMALL)
    assert made[0].calls[-1] == "close"
    with pytest.raises(UserError, match="registered already"):
        register_logger("csv", Remembered)
    train(line_data(), env=LINE, loggers="tests-remembered", **SMALL)  # alone, without a list
    assert len(made) == 2
    with pytest.raises(UserError, match="names or instances of Logger expected, got <class"):
        train(line_data(), env=LINE, loggers=[Recorder], **SMALL)  # type: ignore[list-item]


def test_a_plug_in_of_train_registers_a_logger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["from aaren_rl.training import Logger, register_logger"]
    lines += ["register_logger('tests-late', type('Late', (Logger,), {}))"]
    (tmp_path / "tests_late_logger.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {**SMALL, "updates": 1, "plugin": ("tests_late_logger",)}
    train(line_data(), env="none", loggers=["tests-late"], **settings)
    assert "tests-late" in LOGGERS


def test_targets_that_print_alike_have_tags_of_their_own() -> None:
    assert target_tag(None) == "evaluation"
    assert target_tag(3600.0) == "evaluation/target_3600"
    assert target_tag(1800.5) == "evaluation/target_1800.5"
    tags = {target_tag(value) for value in (3600.00001, 3600.00002, 3600.0)}
    assert tags == {f"evaluation/target_{text}" for text in ("3600.00001", "3600.00002", "3600")}


def test_settings_on_one_level() -> None:
    """None is left out: a column of TensorBoard's holds values of one type."""
    content = {"a": None, "b": True, "c": 1.5, "d": (1, 2), "model": {"e": "x", "f": None}}
    assert flat_settings(content) == {"b": True, "c": 1.5, "d": "(1, 2)", "e": "x"}


def small_log(logger: Logger, folder: Path | None) -> None:
    """What the trainer does with a logger."""
    import matplotlib.figure

    logger.start(RunInfo("name", folder, {"updates": 3, "agent": "x"}, ["evaluation"]))
    logger.scalars({"training/loss": 0.5, "training/learning_rate": 1e-3}, 1)
    logger.scalars({"training/loss": 0.25}, 2)
    figure = matplotlib.figure.Figure()
    figure.subplots().plot([1, 2])
    logger.figure("memory/held", figure, 2)
    logger.finish({"final/score": 7.0}, 2)
    logger.close()


@pytest.mark.skipif(not importlib.util.find_spec("mlflow"), reason="needs the extra mlflow")
def test_mlflow_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs more than the client
    from mlflow import MlflowClient

    uri = tmp_path.joinpath("store").as_uri()
    for _ in range(2):  # the second finds the experiment
        small_log(MLflowLogger("tests", tracking_uri=uri), None)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    run, _ = client.search_runs([experiment.experiment_id])
    assert run.data.params == {"updates": "3", "agent": "x"}
    assert run.data.metrics["final/score"] == 7.0
    losses = client.get_metric_history(run.info.run_id, "training/loss")
    assert [(each.step, each.value) for each in losses] == [(1, 0.5), (2, 0.25)]
    assert run.info.status == "FINISHED"


@pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="needs the extra wandb")
def test_wandb_offline(tmp_path: Path) -> None:
    logger = WandbLogger(mode="offline", settings={"silent": True})
    small_log(logger, tmp_path)
    [run] = (tmp_path / "wandb").glob("offline-run-*")
    assert list(run.glob("run-*.wandb"))


def test_wandb_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Against the interface that is used, recorded: which calls Weights & Biases gets."""
    calls: list[Any] = []
    run = SimpleNamespace(
        define_metric=lambda *args, **names: calls.append(("define", args, names)),
        log=lambda values: calls.append(("log", values)),
        summary={},
        finish=lambda: calls.append("finish"),
    )

    def init(**settings: Any) -> Any:
        calls.append(("init", settings))
        return run

    fake = SimpleNamespace(init=init, Image=lambda figure: "image")
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    small_log(WandbLogger(project="robots"), tmp_path)
    settings = {"project": "robots", "dir": str(tmp_path)}
    config = {"updates": 3, "agent": "x"}
    assert calls[0] == ("init", {"config": config, "name": "name", **settings})
    assert calls[1] == ("define", ("*",), {"step_metric": "update"})
    assert calls[2:] == [
        ("log", {"training/loss": 0.5, "training/learning_rate": 1e-3, "update": 1}),
        ("log", {"training/loss": 0.25, "update": 2}),
        ("log", {"memory/held": "image", "update": 2}),
        "finish",
    ]
    assert run.summary == {"final/score": 7.0}


@pytest.mark.parametrize(("name", "logger"), [("wandb", WandbLogger), ("mlflow", MLflowLogger)])
def test_an_extra_that_is_missing(
    name: str, logger: type[Logger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"logger '{name}'.*pip install 'aaren-rl\[{name}\]'"):
        logger().start(RunInfo("name", None, {}, []))


def test_csv_needs_a_place(tmp_path: Path) -> None:
    train(line_data(), loggers=[CSVLogger(tmp_path / "a" / "table.csv")], **SMALL)
    assert [step for step, _ in table(tmp_path / "a" / "table.csv")["training/loss"]] == [
        *(5, 10, 15, 20)
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
