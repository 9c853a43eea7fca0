"""From a config dataclass to options and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import tyro

from aaren_rl.collect import CollectConfig, collect
from aaren_rl.convert import ConvertConfig, convert
from aaren_rl.errors import UserError
from aaren_rl.evaluation import evaluate
from aaren_rl.evaluation.config import EvaluateConfig
from aaren_rl.experiments import BenchmarkConfig, ReportConfig, benchmark, report
from aaren_rl.experiments.comparison import compare
from aaren_rl.experiments.config import CompareConfig
from aaren_rl.export import ExportConfig, export
from aaren_rl.options import parse
from aaren_rl.registry import REGISTRIES, Registry
from aaren_rl.training import TrainConfig, finetune, train
from aaren_rl.training.online.config import FinetuneConfig


@dataclass(frozen=True)
class Shape:
    """A config inside the config."""

    width: int = 4
    """Size of a
    token."""
    mixer: str = ""
    """What mixes."""
    mixer_options: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """What two configs share."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"training": ("rates", "warm")}
    rates: tuple[float, ...] = (0.5,)
    """Learning rates."""
    environment: str | None = None
    """Where to act."""
    plugin: tuple[str, ...] = ()
    """Modules to import."""
    shape: Annotated[Shape, tyro.conf.arg(name="")] = field(default_factory=Shape)


@dataclass(frozen=True)
class Config(Settings):
    """Do a thing.

    At length.
    """

    run: Annotated[Path, tyro.conf.Positional] = Path("here")
    """Folder of the run."""
    warm: bool = True
    """Whether to warm up."""


def read(*words: str, default: Config | None = None) -> Config:
    return parse(Config, words, prog="aaren-rl thing", default=default)


def test_options_that_are_not_given_are_the_configs_own() -> None:
    assert read() == Config()


def test_options_come_from_every_group_and_from_the_config_inside() -> None:
    words = ["there", "--rates", "1", "2", "--no-warm", "--width", "7", "--env", "Hopper-v5"]
    assert read(*words) == Config(
        rates=(1, 2), environment="Hopper-v5", shape=Shape(7), run=Path("there"), warm=False
    )
    assert read("--environment", "Hopper-v5") == read("--env", "Hopper-v5")


def test_options_that_are_not_given_are_another_configs() -> None:
    default = Config(rates=(), environment="Ant-v5", shape=Shape(9), warm=False)
    assert read(default=default) == default
    assert read("--width", "3", "--warm", default=default) == Config(
        rates=(), environment="Ant-v5", shape=Shape(3), warm=True
    )


def test_the_help_has_the_groups_below_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        read("--help")
    assert stop.value.code == 0
    words = capsys.readouterr().out
    assert "At length." in words
    places = [
        words.index(part)
        for part in ("Folder of the run.", "--env STR", "training options", "--rates [FLOAT")
    ]
    places += [words.index(part) for part in ("--warm, --no-warm", "shape options", "--width INT")]
    assert places == sorted(places)
    assert "Size of a token. (default: 4)" in words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--width", "wide"], "--width"),
        (["--wdith", "3"], "Unrecognized options: --wdith"),
        (["a", "b"], "b"),
        (["--rates", "fast"], "--rates"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        read(*words)
    assert message in str(error.value)
    assert str(error.value).endswith("; see aaren-rl thing --help")
    assert not set("│─╭\n") & set(str(error.value))


@dataclass(frozen=True)
class LeakyOptions:
    """Options of a mixer from outside."""

    keep: float = 0.9
    """Share that is kept."""
    taps: int = 3


@pytest.fixture
def leaky(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRIES, "mixer", Registry("mixer"))
    REGISTRIES["mixer"].register("leaky", lambda: None, options=LeakyOptions)
    REGISTRIES["mixer"].register("plain", lambda: None)


def plug(*words: str, default: Config | None = None, **chosen: str) -> Config:
    return parse(Config, words, prog="aaren-rl thing", default=default, chosen=chosen)


@pytest.mark.usefixtures("leaky")
def test_a_chosen_plugin_has_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--plugin", "a", "--mixer", "leaky", "--mixer-options.keep", "0.3", "--plugin", "b")
    config = plug(*words, mixer="leaky")
    assert config.plugin == ("a", "b")
    assert config.shape == Shape(mixer="leaky", mixer_options={"keep": 0.3, "taps": 3})
    with pytest.raises(UserError, match=r"--mixer-options\.keep"):
        plug("--mixer", "plain", "--mixer-options.keep", "0.3", mixer="plain")
    with pytest.raises(UserError, match=r"--mixer-options\.keep"):
        plug("--mixer-options.keep", "much", mixer="leaky")
    with pytest.raises(SystemExit):
        plug("--help", mixer="leaky")
    words = capsys.readouterr().out
    assert "What mixes. From plug-ins: leaky, plain." in words
    assert "--mixer-options.keep FLOAT" in words
    assert "Share that is kept. (default: 0.9)" in words


@pytest.mark.usefixtures("leaky")
def test_a_plugins_options_go_on_from_another_config() -> None:
    options: dict[str, Any] = {"keep": 0.5, "taps": 1}
    default = Config(shape=Shape(mixer="leaky", mixer_options=options))
    assert plug(default=default, mixer="leaky") == default
    changed = plug("--mixer-options.taps", "2", default=default, mixer="leaky")
    assert changed.shape.mixer_options == {"keep": 0.5, "taps": 2}
    assert plug("--plugin", "b", default=Config(plugin=("a",))).plugin == ("a", "b")
    assert plug(default=default) == default  # options that are not shown stay


@pytest.mark.parametrize(
    ("command", "config"),
    [
        (train, TrainConfig(dataset="nowhere", out="out")),  # type: ignore[arg-type]
        (compare, CompareConfig(dataset="nowhere", out="out")),  # type: ignore[arg-type]
        (finetune, FinetuneConfig(run="nowhere", out="out")),  # type: ignore[arg-type]
        (evaluate, EvaluateConfig(run="nowhere", json="out")),  # type: ignore[arg-type]
        (export, ExportConfig(run="nowhere", out="out.onnx")),  # type: ignore[arg-type]
        (collect, CollectConfig("nowhere", out="out", root="root")),  # type: ignore[arg-type]
        (convert, ConvertConfig("nowhere", "own/data-v0", root="root")),  # type: ignore[arg-type]
        (benchmark, BenchmarkConfig("nowhere")),  # type: ignore[arg-type]
        (report, ReportConfig("nowhere")),  # type: ignore[arg-type]
    ],
)
def test_configs_in_python_may_have_text_for_paths(
    command: Any, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        command(config)
