"""A report's numbers against scores that are known, its files, and its first line."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence
from report_cases import write_results
from sweep_cases import SPEC
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aaren_rl.cli import main
from aaren_rl.errors import UserError
from aaren_rl.evaluation import Estimate
from aaren_rl.evaluation.noninferiority import judge
from aaren_rl.experiments.content import Comparison, Content, report_content
from aaren_rl.experiments.outcome import read_outcome
from aaren_rl.experiments.tensorboard import write_videos
from aaren_rl.experiments.verdict import verdict

CONTENDERS = [
    "decision-aaren (carry)",
    "decision-aaren (window)",
    "decision-transformer (window)",
    "decision-transformer (sliding)",
    "bc",
]


@pytest.fixture(scope="module")
def written(reported: tuple[Path, str]) -> dict[str, Any]:
    folder, line = reported
    content: dict[str, Any] = json.loads((folder / "report" / "report.json").read_text())
    assert content["verdict"] == line
    return content


def test_scores_are_means_over_the_agents_that_count(written: dict[str, Any]) -> None:
    """The spec's rule is the mean of the last two evaluations: one less than the last's score."""
    first, second = written["scores"]
    assert (first["task"], second["task"]) == ("hopper-all", "hopper-best")
    assert list(first["scores"]) == CONTENDERS
    assert first["scores"]["decision-aaren (carry)"]["values"] == [69.0, 72.0]
    assert first["scores"]["decision-aaren (carry)"]["std"] == pytest.approx(3 / np.sqrt(2))
    assert second["scores"]["decision-transformer (sliding)"]["mean"] == pytest.approx(61.5)
    assert written["checkpoint"] == "the mean over the agents of its last 2 evaluations"


def test_the_claim_is_judged_against_the_rivals_best_mode(written: dict[str, Any]) -> None:
    compared = written["comparison"]
    assert compared["best"] == "decision-transformer (window)"
    window, sliding = compared["against"]
    assert window["iqm_difference"]["value"] == pytest.approx(14.0)
    assert sliding["iqm_difference"]["value"] == pytest.approx(19.0)
    assert window["improvement"]["value"] == 1.0
    assert written["standing"] == "no verdict"  # of two seeds, however far apart
    assert written["verdict"] == (
        "No verdict on decision-aaren (carry) against decision-transformer (window), its rival's "
        "best mode (chosen by its result): IQM 75.5 against 61.5, difference +14.0, range +14.0 to "
        "+14.0, paired over 2 seeds of 2 tasks; 2 seeds and 4 runs of each agent, at least 5 and "
        "10 needed."
    )


FIVE = {"seeds": [0, 1, 2, 3, 4]}


def compared(content: Content) -> Comparison:
    assert content.comparison is not None
    return content.comparison


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """The report of five seeds."""
    outcome = read_outcome(write_results(tmp_path_factory.mktemp("five") / "runs", **FIVE))
    return report_content(outcome)


def test_five_seeds_and_ten_runs_have_words(five: Content) -> None:
    """The seeds differ by three points each and the agents by fourteen in all: nothing is open."""
    line, standing = verdict(five)
    assert standing == "better"
    assert line.startswith(
        "decision-aaren (carry) is better than decision-transformer (window), its rival's best "
        "mode (chosen by its result): IQM 80.0 against 66.0, difference +14.0, 95% interval +14.0 "
        "to +14.0, paired over 5 seeds of 2 tasks; the interval lies above 0."
    )
    assert [row.verdict.status for row in compared(five).tasks] == ["better", "better"]
    for row in five.aggregates:
        assert row.iqm.bounds == "95% interval"


def test_a_task_has_words_from_five_seeds_and_all_tasks_from_ten_runs(tmp_path: Path) -> None:
    one = {"hopper-all": SPEC["tasks"]["hopper-all"]}
    content = report_content(read_outcome(write_results(tmp_path / "one", tasks=one, **FIVE)))
    line, standing = verdict(content)
    assert standing == "no verdict"
    assert "5 seeds and 5 runs of each agent, at least 5 and 10 needed" in line
    assert [row.verdict.status for row in compared(content).tasks] == ["better"]
    seeds = list(range(10))
    content = report_content(read_outcome(write_results(tmp_path / "ten", tasks=one, seeds=seeds)))
    assert verdict(content)[1] == "better"


def test_the_verdict_of_each_task_stands_below_the_first_line(tmp_path: Path) -> None:
    """One task of five seeds, one of three; the sides differ by noise on the first alone."""
    skip = [f"hopper-best/decision-aaren/seed-{seed}" for seed in (3, 4)]
    folder = write_results(tmp_path / "runs", tuple(skip), **FIVE)
    for seed, extra in enumerate((-30.0, 15.0, -20.0, 30.0, -60.0)):
        file = folder / "hopper-all" / "decision-aaren" / f"seed-{seed}" / "result.json"
        result = json.loads(file.read_text())
        for row in result["rows"]:
            row["score_mean"] += extra
        file.write_text(json.dumps(result))
    assert main(["report", str(folder)]) == 0
    content = json.loads((folder / "report" / "report.json").read_text())
    noisy, short = content["comparison"]["tasks"]
    assert (noisy["task"], noisy["seeds"], noisy["status"]) == ("hopper-all", 5, "not decided")
    assert noisy["difference"]["value"] == pytest.approx(14 - 13)
    assert noisy["difference"]["bounds"] == "95% interval"
    assert (short["task"], short["seeds"], short["status"]) == ("hopper-best", 3, "no verdict")
    assert short["difference"]["bounds"] == "range"
    # Over all tasks the seeds count that both have on both: the first three.
    assert content["standing"] == "no verdict"
    assert content["comparison"]["against"][0]["seeds"] == 3
    lines = (folder / "report" / "report.md").read_text().splitlines()
    title = lines.index("# tiny")
    needed = noisy["seeds_needed"]
    low, high = noisy["difference"]["low"], noisy["difference"]["high"]
    wanted = (
        f"| hopper-all | 5 | 62.0 | 61.0 | +1.0 [{low:+.1f}, {high:+.1f}] | "
        f"not decided: about {needed} seeds would |",
        "| hopper-best | 3 | 82.0 | 68.0 | +14.0 (range +14.0 to +14.0) | "
        "no verdict: 3 seeds, 5 needed |",
    )
    for row in wanted:
        assert 0 < lines.index(row) < title
    page = (folder / "report" / "report.html").read_text()
    assert page.index('class="verdict no-verdict"') < page.index("about") < page.index("<h1>")
    rule = "a margin of 5 normalised points"
    assert page.index(rule) < page.index("<h1>")
    assert any(rule in line for line in lines[:title])


def test_plain_returns_have_numbers_and_no_words(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "runs", **FIVE)
    for file in folder.glob("hopper-best/*/*/result.json"):
        result = json.loads(file.read_text())
        for row in result["rows"]:
            row["normalized"] = False
        file.write_text(json.dumps(result))
    content = report_content(read_outcome(folder))
    first, second = compared(content).tasks
    assert first.verdict.status == "better"
    assert second.verdict.status == "no verdict"
    assert second.difference.value == pytest.approx(14.0)
    assert "plain returns" in second.verdict.reason


def test_the_margin_is_the_specs(tmp_path: Path) -> None:
    for margin, status, words in (
        (3.0, "worse", "reaches to -3 or below"),
        (20.0, "not worse", "less than the margin"),
    ):
        claim = {"ours": "bc", "mode": "carry", "rival": "decision-transformer", "margin": margin}
        folder = write_results(tmp_path / f"{margin}", claim=claim, **FIVE)
        content = report_content(read_outcome(folder))
        line, standing = verdict(content)
        assert standing == status
        assert words in line
        assert compared(content).margin == margin


def changed(content: Content, low: float, value: float, high: float) -> Content:
    """The content with another difference over all tasks, judged by the rule."""
    assert content.comparison is not None
    difference = Estimate(value, low, high, "95% interval")
    judged = judge(difference, 5.0, seeds=5, runs=10)
    first, *others = content.comparison.against
    row = dataclasses.replace(first, iqm_difference=difference, verdict=judged)
    compared = dataclasses.replace(content.comparison, against=[row, *others])
    return dataclasses.replace(content, comparison=compared)


def test_the_first_line_says_how_it_stands(five: Content) -> None:
    aaren, rival = "decision-aaren (carry)", "decision-transformer (window), its rival's best mode"
    for low, value, high, standing, words in (
        (0.5, 1.0, 2.0, "better", f"{aaren} is better than {rival}"),
        (-3.0, 0.0, 2.0, "not worse", f"{aaren} is not worse (margin 5 points) than {rival}"),
        (-9.0, -5.0, -1.0, "worse", f"{aaren} is WORSE than {rival}"),
        (-9.0, 1.0, 12.0, "not decided", "Not decided (margin 5 points) whether decision-aaren"),
        (-9.0, 1.0, 12.0, "not decided", "about 10 seeds would decide it if the observed"),
    ):
        line, found = verdict(changed(five, low, value, high))
        assert found == standing
        assert words in line
        assert f"difference {value:+.1f}, 95% interval {low:+.1f} to {high:+.1f}" in line


def test_every_range_is_called_so(folder: Path, written: dict[str, Any]) -> None:
    """Of two seeds nothing is called an interval but what says that there is none."""
    text = (folder / "report" / "report.md").read_text()
    assert "95%" not in text
    assert "(range " in text
    assert "Of fewer than 5 seeds there is no interval" in text
    assert "Without bands: fewer than 5 seeds have no interval." in text
    assert all(row["iqm"]["bounds"] == "range" for row in written["aggregates"])
    assert all(profile["low"] is None for profile in written["profiles"].values())


def test_unfinished_and_without_a_claim(tmp_path: Path) -> None:
    skip = ("hopper-all/decision-transformer/seed-1",)
    content = report_content(read_outcome(write_results(tmp_path / "some", skip)))
    assert content.runs.missing == list(skip)
    line, _ = verdict(content)
    assert line.endswith("UNFINISHED: 1 of 12 runs are missing.")
    assert "1 seed and 2 runs of each agent" in line  # seed 1 is not whole, so that 0 is left
    rows = {row.contender: row.runs for row in content.aggregates}
    assert rows["decision-transformer (window)"] == 1
    assert rows["decision-aaren (carry)"] == 2
    content = report_content(read_outcome(write_results(tmp_path / "none", claim=None)))
    assert content.comparison is None
    assert verdict(content)[0].startswith("No claim to decide; the highest IQM is decision-aaren")
    assert verdict(content)[1] == "no verdict"
    skip = tuple(name for name in _all_units() if "decision-transformer" in name)
    content = report_content(read_outcome(write_results(tmp_path / "alone", skip)))
    assert content.comparison is None
    assert verdict(content)[0].startswith(
        "No verdict: the claim's two sides have no seed in common"
    )
    with pytest.raises(UserError, match="no run is finished yet"):
        read_outcome(write_results(tmp_path / "empty", tuple(_all_units())))


def _all_units() -> list[str]:
    return [
        f"{task}/{agent}/seed-{seed}"
        for task in ("hopper-all", "hopper-best")
        for agent in ("decision-aaren", "decision-transformer", "bc")
        for seed in (0, 1)
    ]


def test_curves(written: dict[str, Any]) -> None:
    points = written["learning_curves"]["hopper-all"]["decision-transformer"]
    assert points[1] == {"update": 20, "mean": 57.5, "low": 56.0, "high": 59.0}
    asked = written["conditioning"]["hopper-best"]["decision-aaren (carry)"]
    assert [point["asked"] for point in asked] == [30.0, 90.0]
    assert asked[1] == {"asked": 90.0, "mean": 72.5, "low": 72.0, "high": 73.0}
    assert "bc" not in written["conditioning"]["hopper-best"]
    errors = written["errors_by_position"]["hopper-all"]["decision-aaren (carry)"]
    assert errors[-1] == {"first": 500, "last": 1000, "mean": 0.2, "low": 0.2, "high": 0.2}
    [row] = [row for row in written["costs"] if row["contender"] == "decision-aaren (carry)"]
    assert (row["parameters"], row["train_seconds"], row["state_bytes_last"]) == (1500, 12.5, 64)


class Outside(HTMLParser):
    """Whatever a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")
        ]
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_needs_nothing_else(folder: Path, written: dict[str, Any]) -> None:
    page = (folder / "report" / "report.html").read_text()
    parser = Outside()
    parser.feed(page)
    assert len(parser.found) == 7  # pictures: three kinds for each of two tasks, and the profile
    assert all(link.startswith("data:image/svg+xml;base64,") for link in parser.found)
    assert "url(" not in page
    assert "@import" not in page
    body = [text.strip() for text in parser.text if text.strip()]
    assert written["verdict"] == body[2]  # behind the title and the styles
    for words in ("hopper-best", "decision-transformer (sliding)", "IQM", "peak memory, MiB"):
        assert words in page


def test_markdown_latex_and_pictures(folder: Path, written: dict[str, Any]) -> None:
    text = (folder / "report" / "report.md").read_text()
    assert text.splitlines()[0] == written["verdict"]
    assert "| hopper-all | 55.0 | **70.5 ± 2.1** | 66.5 ± 2.1 |" in text
    pictures = re.findall(r"\]\((.*?)\)", text)
    assert len(pictures) == 4
    for picture in pictures:
        content = (folder / "report" / picture).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000
    latex = (folder / "report" / "scores.tex").read_text()
    assert r"hopper-all & 55.0 & \textbf{70.5 $\pm$ 2.1} & 66.5 $\pm$ 2.1 &" in latex
    assert latex.count(r"\\") == 4  # head, two tasks, average
    assert "average & 55.0" in latex


def test_tensorboard_overlays_agents_by_task(folder: Path, written: dict[str, Any]) -> None:
    for agent, last in (("decision-aaren", 71.5), ("bc", 51.5)):
        events = EventAccumulator(str(folder / "mean" / agent)).Reload()
        tags = {tag for tag in events.Tags()["scalars"] if not tag.endswith(("_low", "_high"))}
        assert tags == {"score by task/hopper-all", "score by task/hopper-best"}
        points = events.Scalars("score by task/hopper-all")
        assert [(point.step, point.value) for point in points][-1] == (20, pytest.approx(last))
    events = EventAccumulator(str(folder / "report")).Reload()
    kinds = ("learning_curves", "conditioning", "profiles", "errors_by_position")
    assert set(events.Tags()["images"]) == {f"report/{kind}" for kind in kinds}


def test_the_command_twice_gives_the_same(
    folder: Path, written: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(folder), "--out", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == written["verdict"]
    for name in ("report.html", "report.md", "report.json", "scores.tex"):
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (folder / "report" / name).read_bytes(), name
    assert main(["report", str(tmp_path)]) == 2
    assert "not the folder of a benchmark" in capsys.readouterr().err


def test_films_are_shown_in_tensorboard(tmp_path: Path) -> None:
    moviepy = pytest.importorskip("moviepy")
    frames = [np.full((64, 64, 3), 12 * number, np.uint8) for number in range(20)]
    film = tmp_path / "episode.mp4"
    moviepy.ImageSequenceClip(frames, fps=10).write_videofile(str(film), logger=None)
    write_videos(tmp_path / "events", {"hopper/bc": film}, frames=8)
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    [image] = events.Images("hopper/bc")
    assert (image.width, image.height) == (32, 32)
    assert image.encoded_image_string.startswith(b"GIF")
    moving = Image.open(io.BytesIO(image.encoded_image_string))
    assert len(list(ImageSequence.Iterator(moving))) == 8
