"""What a run says while it works, where there is no terminal to draw a bar on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aaren_rl.cli import print_rows
from aaren_rl.training import train
from aaren_rl.training.progress import TrainingProgress, duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_line_every_half_minute_says_how_much_is_left(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """An update a second, from update 100 of 400 on: after 30 of them 270 are left."""
    now = 1000.0
    with TrainingProgress("run", 400, 100, clock=lambda: now) as progress:
        for update in range(101, 166):
            now += 1.0
            progress.update(update, loss=0.5)
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "run: update 130/400, loss 0.5000, 4 min 30 s left",
        "run: update 160/400, loss 0.5000, 4 min 0 s left",
    ]


def test_names_are_printed_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    """`:x:` is no picture and `[/x]` no markup, neither in a line nor in the bar or in a table."""
    name = "data:x: [/x]"
    with TrainingProgress(name, 1, 0) as progress:
        progress.say("done")
        printed = Console(record=True)
        printed.print(progress._bar.make_tasks_table(progress._bar.tasks))
    assert name in printed.export_text()
    assert capfd.readouterr().err == f"{name}: done\n"
    print_rows(name, [{"agent": name}], ["agent"])
    title, *_, row, _ = capfd.readouterr().out.splitlines()
    assert (title, row) == (name, f"│ {name} │")
    print_rows(name, [{"n": 1}], ["n"])
    assert capfd.readouterr().out.splitlines()[0] == name  # though the table is narrower


def test_a_run_says_at_once_how_long_it_takes(
    tiny: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before the first evaluation, and near the truth for an agent whose episodes are short."""
    train(tiny(tmp_path / "run"))
    first, *rest = capfd.readouterr().err.splitlines()
    said = re.fullmatch(r"decision-aaren on aaren-rl/hopper-small-v0: about (\d+) s in all", first)
    assert said is not None
    assert int(said[1]) < 60
    assert [line for line in rest if "update 15/30" in line]
