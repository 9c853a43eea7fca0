"""A part of the campaign of kills."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(600)
def test_killed_it_ends_in_the_same_bytes() -> None:
    """Training, saving, sweep, comparison, conversion and collection, each killed at least once."""
    process = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("kills.py")), "--kills", "14"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-5000:]
    killed, in_saving = map(int, re.findall(r"\d+", process.stdout.splitlines()[-1]))
    assert killed >= 8
    assert in_saving >= 1
