"""A plug-in that is installed beside the package, and one that is a file in the working directory.

Each process runs several commands, since starting one takes seconds. Where nothing is installed, it
is forked from this one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forked import forked_code

ROOT = Path(__file__).parents[2]
PLUGIN = Path(__file__).parent / "everything"
COMMANDS = """
import json, sys
from aaren_rl.cli import main

for words in json.loads(sys.argv[1]):
    print("$", *words, flush=True)
    try:
        code = main(words)
    except SystemExit as stop:  # --help
        code = stop.code
    if code:
        sys.exit(code)
"""
TINY = (
    *("--updates", "6", "--batch-size", "4", "--context-length", "4", "--width", "16"),
    *("--layers", "1", "--evaluate-every", "6", "--episodes", "1", "--log-every", "2"),
    *("--device", "cpu", "--precision", "32", "--env", "Pendulum-v1", "--dataset", "pendulum:6"),
)
PARTS = (
    *("--mixer", "leaky", "--mixer-options.keep", "0.5"),
    *("--encoder", "gain", "--encoder-options.gain", "2"),
)
OWN = ("--agent", "gaussian", "--agent-options.spread", "0.25", *PARTS, "--loggers", "lines")
SPEC = """
name: small
tasks: {pendulum: {dataset: "pendulum:6", settings: {environment: Pendulum-v1}}}
agents: {decision-leaky: , gaussian: }
seeds: [0]
"""


def aaren_rl(
    *commands: tuple[str, ...], path: Path | None, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run commands in one process in which Python also finds what is installed in `path`."""
    if path is None:
        return forked_code(COMMANDS, json.dumps(commands), folder=folder)
    places = os.pathsep.join([str(ROOT), str(path)])
    return subprocess.run(
        [sys.executable, "-P", "-c", COMMANDS, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the plug-in is installed in, with its entry point."""
    source = tmp_path_factory.mktemp("source") / "everything"
    shutil.copytree(PLUGIN, source)  # building leaves files there
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    options = ["--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([*pip, *options, str(source)], check=True)
    return target


@pytest.fixture(scope="module")
def trained(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which everything was trained and tried, and what was printed."""
    folder = tmp_path_factory.mktemp("work")
    done = aaren_rl(
        ("train", "--mixer", "leaky", "--agent", "gaussian", "--encoder", "gain", "--help"),
        ("train", *TINY, *OWN, "--out", "own"),
        ("train", "--resume", "--out", "own", "--updates", "8"),
        ("evaluate", "own", "--episodes", "2", "--json", "scores.json"),
        ("compare", *TINY, *PARTS, "--agents", "decision-leaky", "gaussian", "--seeds", "0"),
        ("train", *TINY, "--agent", "decision-leaky", *PARTS[2:4], "--out", "recurrent"),
        ("export", "recurrent", "--out", "step.onnx", "--steps", "20"),
        path=installed,
        folder=folder,
    )
    return folder, succeeded(done)


def test_the_help_shows_it_with_its_options(trained: tuple[Path, str]) -> None:
    words = " ".join(trained[1].partition("$ train --dataset")[0].replace("│", " ").split())
    for name in ("leaky", "gaussian", "gain", "lines", "pendulum"):
        assert f"From plug-ins: {name}." in words
    for flag, help in (
        ("--mixer-options.keep", "Share of the average that is kept at each token."),
        ("--agent-options.spread", "Standard deviation at the start."),
        ("--encoder-options.gain", "Observations are multiplied by this."),
    ):
        assert f"{flag} FLOAT {help}" in words


def test_it_trains_is_saved_and_goes_on_with_its_options(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    card = json.loads((folder / "own" / "last" / "agent.json").read_text())
    assert card["agent"] == "gaussian"
    assert card["config"]["mixer_options"] == {"keep": 0.5}
    assert card["config"]["agent_options"] == {"spread": 0.25}
    assert set(card["plugins"].values()) == {"arl_everything"}
    lines = (folder / "own" / "lines.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines][-1] == 8
    assert json.loads((folder / "own" / "summary.json").read_text())["updates"] == 8


def test_it_acts_compares_and_exports(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    [row] = json.loads((folder / "scores.json").read_text())["rows"]
    assert (row["agent"], row["episodes"]) == ("gaussian", 2)
    rows = json.loads((folder / "runs/comparison/comparison.json").read_text())
    assert {row["agent"] for row in rows} == {"decision-leaky", "gaussian"}
    assert (folder / "step.onnx").stat().st_size > 0


def test_python_finds_it_too(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import aaren_rl\naaren_rl.register_logger('mine', print)")
    program = """
import aaren_rl as arl
settings = {"mixer": "leaky", "env": "none", "updates": 2, "width": 16}
run = arl.train("pendulum:6", "gaussian", plugin=("mine",), **settings)
assert run.agent.name == "gaussian"
from aaren_rl.training import LOGGERS
assert "mine" in LOGGERS
run.agent.save("saved")
from pathlib import Path
from aaren_rl.export import ExportConfig, export
Path("later.py").write_text("print('imported')")
where = {"run": Path("saved"), "out": Path("step.pt2"), "format": "torch-export", "steps": 5}
export(ExportConfig(**where, plugin=("later",)))
"""
    places = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(installed)])}
    command = [sys.executable, "-P", "-c", program]
    environment = {**os.environ, **places}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert b"imported" in done.stdout


def test_a_missing_plugin_is_named(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    runs = ("evaluate", "own"), ("export", "own", "--out", "x.onnx"), ("evaluate", "recurrent")
    for words in runs:
        done = aaren_rl(words, path=None, folder=folder)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert "arl_everything" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_file_in_the_working_directory_is_a_plugin_too(tmp_path: Path) -> None:
    shutil.copy(PLUGIN / "arl_everything.py", tmp_path / "mine.py")
    (tmp_path / "broken.py").write_text("import no_such_module")
    (tmp_path / "small.yaml").write_text(SPEC)
    succeeded(
        aaren_rl(
            ("train", "--plugin", "mine", *TINY, *OWN, "--out", "own"),
            ("evaluate", "--plugin", "mine", "own", "--episodes", "1"),
            ("benchmark", "--plugin", "mine", "small.yaml", "--dry-run"),
            path=None,
            folder=tmp_path,
        )
    )
    resumed = ("train", "--resume", "--out", "own", "--updates", "8")
    refused = aaren_rl(resumed, path=None, folder=tmp_path)  # the file may name any module
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--resume --out own: made with a plug-in that is not loaded; give --plugin mine" in (
        refused.stderr
    )
    succeeded(aaren_rl((*resumed, "--plugin", "mine"), path=None, folder=tmp_path))
    assert json.loads((tmp_path / "own" / "config.json").read_text())["plugin"] == ["mine"]
    for name, message in (("broken", "no_such_module"), ("absent", "absent")):
        done = aaren_rl(("train", "--plugin", name), path=None, folder=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: --plugin {name}: ")
        assert message in done.stderr
