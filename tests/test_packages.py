"""What is released: one version everywhere, and a wheel that works without the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import aaren_rl

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def run(*words: str, folder: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == citation["version"] == aaren_rl.__version__
    assert f"{aaren_rl.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_only_call_the_makefile(file: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    jobs = yaml.safe_load(file.read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        word, *words = command.split()
        assert word == "make"
        assert {each for each in words if "=" not in each} <= targets


def test_the_pure_wheel_works_without_the_repository(tmp_path: Path) -> None:
    """Built from a copy, so that nothing is left in the repository; its dependencies are here."""
    pytest.importorskip("setuptools", minversion="77")
    source, target, work = (tmp_path / name for name in ("source", "target", "work"))
    listed = [
        "git",
        "ls-files",
        "aaren_rl",
        *("setup.py", "pyproject.toml", "README.md", "LICENSE"),
    ]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not files:
        pytest.skip("not a git repository")
    for name in files.split("\n")[:-1]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    run(*build, str(source), folder=tmp_path, AAREN_RL_PURE="1")
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name == f"aaren_rl-{aaren_rl.__version__}-py3-none-any.whl"
    zipfile.ZipFile(wheel).extractall(target)
    work.mkdir()
    code = "import sys, aaren_rl.cli as c; print(c.__file__); sys.exit(c.main(sys.argv[1:]))"
    words = ["train", "--updates", "2", "--env", "none", "--held-out", "0", "--out", "run"]
    output = run("-c", code, *words, "--width", "16", folder=work, PYTHONPATH=str(target))
    assert output.startswith(str(target))
    assert (work / "run/last/agent.safetensors").is_file()
