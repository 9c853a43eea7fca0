"""What the command line says before it does anything: help, version, unknown commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from aaren_rl import __version__
from aaren_rl.cli import COMMANDS, main

Capture = pytest.CaptureFixture[str]
SCREEN = 45
"""Lines of a terminal; the options that are needed most often must fit on it."""
HELP = """
import contextlib, sys
from aaren_rl.cli import COMMANDS, main
for words in ([], *([command] for command in COMMANDS)):
    with contextlib.suppress(SystemExit):
        main([*words, "--help"])
    heavy = {"torch", "gymnasium", "minari", "pandas", "matplotlib"} & sys.modules.keys()
    assert not heavy, (words, heavy)
"""


def python(*words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_version_and_help_of_all(capfd: Capture) -> None:
    assert python("-m", "aaren_rl", "--version").stdout == f"aaren-rl {__version__}\n"
    assert main(["--help"]) == 0
    lines = capfd.readouterr().out.splitlines()
    for name in COMMANDS:
        [line] = [line for line in lines if line.startswith(f"  {name} ")]
        assert line.endswith(".")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trian", "unknown command 'trian'; did you mean train?"),
        ("exprot", "unknown command 'exprot'; did you mean export?"),
        ("zzz", "unknown command 'zzz'. Known: benchmark, collect"),
    ],
)
def test_an_unknown_command_names_the_nearest(word: str, message: str, capfd: Capture) -> None:
    assert main([word]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--updtes", "5"], "--updtes, 5: did you mean --updates?; see aaren-rl train -"),
        (["evaluate", "run", "--epsodes", "5"], "--epsodes, 5: did you mean --episodes?"),
        (["train", "--zzzzzzz", "5"], "--zzzzzzz, 5; see aaren-rl train --help"),
    ],
)
def test_an_unknown_flag_names_the_nearest(words: list[str], message: str, capfd: Capture) -> None:
    assert main(words) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"error: Unrecognized options: {message}")
    assert error.count("\n") == 1


def test_errors_in_a_terminal_without_box_drawing_characters() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aaren_rl", "train", "--updtes", "5"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: Unrecognized options: --updtes, 5: did you mean --upd")


def test_no_help_waits_for_heavy_imports() -> None:
    """One process asks for all: a module that one help imports stays."""
    text = python("-c", HELP).stdout
    assert text.count("usage: ") == 1 + len(COMMANDS)


@pytest.mark.parametrize("command", ["train", "compare"])
def test_what_is_needed_most_often_fits_on_a_screen(command: str, capfd: Capture) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capfd.readouterr().out
    assert re.findall(r"╭─ (\w*) ?options", text) == ["", "data", "training", "evaluation", "model"]
    first, *_ = text.split("\n╰")
    assert all(flag in first for flag in ("--dataset", "--env", "--updates", "--out", "--resume"))
    assert len(first.splitlines()) <= SCREEN


def test_completion_is_written_for_every_command(capfd: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--tyro-print-completion", "bash"])
    assert not stop.value.code
    script = capfd.readouterr().out
    for name in COMMANDS:
        assert name in script
