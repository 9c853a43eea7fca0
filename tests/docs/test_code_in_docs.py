"""Every block of code in README and docs: executed here, or named here with the reason why not.

Python runs page by page, from the first line to the last. Of the commands those of `COMMANDS_RUN`
run; every command of every page is understood (`test_pages.py`), and every block that is not run
is in `NOT_RUN`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import aaren_rl as arl
from aaren_rl.cli import main
from aaren_rl.experiments.quickstart import COLUMNS as QUICKSTART_COLUMNS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = sorted(file.name for file in DOCS.glob("*.md") if "\n```python\n" in file.read_text())
LONG = re.compile(r"\b(updates=|episodes=|range\()(\d+)")
PART = {"updates=": 1000, "episodes=": 10, "range(": 100}
"""So many times less is done than the pages say, for a page to take seconds."""

COMMANDS_RUN = ("start.md",)
SMALL = {
    "train": "--updates 2 --width 16 --layers 1 --episodes 1 --held-out 0",
    "evaluate": "--episodes 1",
    "compare": "--updates 2 --width 16 --layers 1 --episodes 1 --held-out 0 --seeds 0",
}
"""Flags that come after those of the page, which they replace."""

NOT_RUN = {
    "README.md": "make; its Python runs in tests/examples/test_examples.py",
    "CONTRIBUTING.md": "this suite",
    "docs/index.md": "the quickstart and this suite",
    "docs/start.md": "installations; its commands run here",
    "docs/benchmark.md": "hours; sweeps run, small, in tests/experiments; the YAML is read here",
    "docs/collect.md": "minutes of learning; the same commands run, small, in tests/collect",
    "docs/clusters.md": "a cluster; tests/experiments/test_ray.py runs parts",
    "docs/coming-from.md": "lines of other libraries, which are not installed for the tests",
    "docs/control.md": "the command of measurements on data that are not public",
    "docs/deploy.md": "installations; exports, numpy and C run in tests/export and tests/examples",
    "docs/finetune.md": "commands on runs of one's own; its Python runs here",
    "docs/goals.md": "commands on data of one's own; its Python runs here",
    "docs/guide.md": "outputs as they were printed; the same commands run in tests/scripts",
    "docs/learning.md": "an hour, on data that are not public; its words are read here",
    "docs/loggers.md": "the command line with plug-ins runs in tests/plugins",
    "docs/memory.md": "minutes of training; tests/envs/memory and tests/evaluation run the parts",
    "docs/paper.md": "data that are not shipped; with --quick in tests/examples/test_paper.py",
    "docs/pixels.md": "minutes of training on images; tests/layers and tests/collect run parts",
    "docs/plugins.md": "commands with plug-ins run in tests/plugins; an excerpt of TOML",
    "docs/reliability.md": "campaigns of hours; tests/test_kills.py and tests/fuzz run a part",
    "docs/remember.md": "minutes of training; tests/envs/memory run the parts",
    "benchmarks/README.md": "the output of a profiler",
}
"""Pages with blocks that are not executed by this file, and why."""


def blocks(file: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(file.read_text()))


def shorter(code: str) -> str:
    """The code with fewer updates, episodes and steps."""
    return LONG.sub(lambda found: f"{found[1]}{max(1, int(found[2]) // PART[found[1]])}", code)


# What the reader of a page has at hand: made here, since the page is about something else.


def line() -> gym.Env[Any, Any]:
    return gym.make("Pendulum-v1", max_episode_steps=20)


def own_data() -> arl.TrajectoryDataset:
    random, ends = np.random.default_rng(0), np.arange(60) % 20 == 19
    actions, none = random.uniform(-2, 2, (60, 1)), np.zeros(60, bool)
    return arl.TrajectoryDataset.from_arrays(
        random.normal(size=(60, 3)), actions, -np.ones(60), none, ends, env="Pendulum-v1"
    )


def tiny_run(folder: str) -> None:
    arl.train(own_data(), env=line, updates=2, width=16, layers=1, episodes=1, out=folder)


def before_environments() -> dict[str, Any]:
    tiny_run("runs/first")
    return {"MyEnv": line}


def before_guide() -> dict[str, Any]:
    tiny_run("runs/hopper")
    data = own_data()
    names = {name: getattr(data, name) for name in ("observations", "actions", "rewards")}
    more = {"terminals": np.zeros(60, bool), "timeouts": np.arange(60) % 20 == 19, "MyEnv": line}
    return {**names, **more}


def guide_acts(names: dict[str, Any]) -> None:
    """Before its last block: four environments."""
    names |= {"observations": np.zeros((4, 3)), "rewards": np.zeros(4), "dones": np.zeros(4, bool)}


BEFORE: dict[str, Callable[[], dict[str, Any]]] = {
    "environments.md": before_environments,
    "guide.md": before_guide,
}
ELSEWHERE = {
    "benchmark.md": "trains for minutes; tests/experiments/test_sweep.py and test_compare.py",
    "collect.md": "needs a collected policy; tests/collect/test_recipe.py loads one",
}
"""Pages whose Python is tested elsewhere, and where."""


def test_no_block_is_left_out_silently() -> None:
    files = [*DOCS.glob("*.md"), *ROOT.glob("*.md"), ROOT / "benchmarks/README.md"]
    other = {
        file.relative_to(ROOT).as_posix()
        for file in files
        if any(block[1] != "python" for block in blocks(file))
    }
    assert other <= set(NOT_RUN), "run these blocks, or say in NOT_RUN why not"
    assert set(ELSEWHERE) <= set(PAGES)


@pytest.mark.usefixtures("own_registries")
@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
def test_code_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The same graph, without a minute of code generation.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    text = (DOCS / page).read_text()
    names: dict[str, Any] = {"__name__": page, **BEFORE.get(page, dict)()}
    for block in BLOCK.finditer(text):
        if block[1] != "python":
            continue
        if page == "guide.md" and "policy.act" in block[2]:
            guide_acts(names)
        above = "\n" * text[: block.start(2)].count("\n")  # so that a traceback has the page's line
        code = compile(above + shorter(block[2]), DOCS / page, "exec", dont_inherit=True)
        exec(code, names)


HEADER = re.compile(r"^┃ (.*) ┃$", re.MULTILINE)


def headers(text: str) -> list[list[str]]:
    """The columns of each table that was printed."""
    return [re.split(r"\s+┃\s+", found.strip()) for found in HEADER.findall(text)]


@pytest.mark.parametrize("page", COMMANDS_RUN)
def test_commands_run_and_print_the_tables_of_the_guide(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    guide = headers((DOCS / "guide.md").read_text())
    assert [name.replace("_", " ") for name in QUICKSTART_COLUMNS] in guide
    lines = "\n".join(block[2] for block in blocks(DOCS / page)).splitlines()
    run = [shlex.split(each)[1:] for each in lines if each.startswith("aaren-rl")]
    run = [words for words in run if words[0] in SMALL]
    assert {words[0] for words in run} == set(SMALL)
    for words in run:
        assert main([*words, *SMALL[words[0]].split()]) == 0, words
        [columns] = headers(capfd.readouterr().out)
        assert columns in guide or words[0] == "compare", columns


def test_the_example_spec_is_read(tmp_path: Path) -> None:
    from aaren_rl.experiments import read_spec

    [spec] = [block[2] for block in blocks(DOCS / "benchmark.md") if block[1] == "yaml"]
    file = tmp_path / "mine.yaml"
    file.write_text(re.sub(r"^plugins:.*$", "", spec, flags=re.MULTILINE))
    assert list(read_spec(file).tasks) == ["hopper-medium", "cartpole"]


SCRIPT = re.compile(r"^(?:\$ )?python (?:-m )?(\S+\.py|benchmarks\.\S+)", re.MULTILINE)
MAKE = re.compile(r"^(?:\$ )?make ([a-z-]+)", re.MULTILINE)


def test_scripts_and_targets_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in NOT_RUN.keys() - {"docs/coming-from.md"}:  # it has other libraries' scripts
        file = ROOT / name
        text = "\n".join(block[2] for block in (blocks(file) if file.exists() else []))
        assert set(MAKE.findall(text)) <= targets, name
        for script in SCRIPT.findall(text):
            path = script if script.endswith(".py") else script.replace(".", "/") + ".py"
            assert (ROOT / path).is_file(), f"{name}: {script}"
