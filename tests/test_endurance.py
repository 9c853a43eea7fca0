"""A small part of `make endurance`: it runs, and acting does not take more and more memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("only", ["decision-aaren carry", "behavior-cloning"])
def test_acting(only: str) -> None:
    words = [sys.executable, Path(__file__).with_name("endurance.py"), "--steps", "40000"]
    done = subprocess.run(
        [*words, "--only", *only.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"[+-]\d+\.\d\d MB", done.stdout)) == 3, done.stdout
