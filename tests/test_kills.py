"""A part of the campaign of kills."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from forked import forked


@pytest.mark.timeout(600)
def test_killed_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """Training, saving, sweep, comparison, conversion and collection, each killed at least once."""

    def campaign() -> None:
        sys.modules.pop("conftest", None)  # any folder's; it wants this one's
        sys.path.insert(0, str(Path(__file__).parent))
        import kills

        sys.argv = ["kills.py", "--kills", "14"]
        kills.main()

    process = forked(campaign, tmp_path)
    assert process.returncode == 0, process.stderr[-5000:]
    killed, in_saving = map(int, re.findall(r"\d+", process.stdout.splitlines()[-1]))
    assert killed >= 8
    assert in_saving >= 1
