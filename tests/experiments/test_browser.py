"""What a person sees: TensorBoard and the report's page in a real browser, when there is one."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed"),
]


def chromium(folder: Path, address: str, *flags: str, wait: int = 1000) -> str:
    """Open a page, wait `wait` virtual milliseconds; what the browser prints."""
    assert BROWSER is not None
    process = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}"),
            *(f"--virtual-time-budget={wait}", *flags, address),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout


def colours(picture: Path) -> tuple[tuple[int, int], int]:
    """The size of a screenshot, and how many colours it has."""
    image = Image.open(picture).convert("RGB")
    return image.size, len(np.unique(np.asarray(image).reshape(-1, 3), axis=0))


@pytest.fixture(scope="module")
def tensorboard(reported: tuple[Path, str]) -> Iterator[str]:
    """The address of a TensorBoard that shows the benchmark."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tensorboard.main",
            "--logdir",
            str(reported[0]),
            "--port",
            str(port),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                runs = json.loads(urllib.request.urlopen(f"{address}/data/runs").read())
            except OSError:
                runs = []
            if len(runs) >= 4:  # three agents and the report
                break
            assert server.poll() is None
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


def test_tensorboard_shows_each_task_with_all_agents(tensorboard: str, tmp_path: Path) -> None:
    page = chromium(tmp_path, f"{tensorboard}/#timeseries", "--dump-dom", wait=30_000)
    for words in ("score by task", "mean/decision-aaren", "mean/decision-transformer", "mean/bc"):
        assert words in page
    picture = tmp_path / "tensorboard.png"
    flags = ["--window-size=1280,1000", f"--screenshot={picture}"]
    chromium(tmp_path, f"{tensorboard}/#timeseries", *flags, wait=30_000)
    size, different = colours(picture)
    assert size == (1280, 1000)
    assert different > 200  # lines, letters and pictures, not an empty page


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_fits_a_desk_and_a_phone(
    width: int, reported: tuple[Path, str], tmp_path: Path
) -> None:
    """In a frame of the given width nothing but the tables' own boxes scrolls sideways."""
    content = (reported[0] / "report" / "report.html").read_text()
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><body style="margin:0"><iframe id="f" style="border:0;width:{width}px;'
        f'height:900px"></iframe><output id="o"></output><script>const f = document.getElementById'
        f'("f"); f.onload = () => {{ const page = f.contentDocument.documentElement; '
        'const images = [...f.contentDocument.images]; document.getElementById("o").textContent = '
        "`measured ${page.scrollWidth} ${page.scrollHeight} ${images.length} "
        "${images.filter(i => i.naturalWidth > 0).length}`; }; "
        f"f.srcdoc = {json.dumps(content).replace('</', '<' + chr(92) + '/')};</script>"
    )
    page = chromium(tmp_path, frame.as_uri(), "--dump-dom", wait=5000)
    found = re.search(r">measured (\d+) (\d+) (\d+) (\d+)<", page)
    assert found is not None
    across, down, pictures, drawn = map(int, found.groups())
    assert across <= width
    assert down > 1500
    assert pictures == drawn == 7
    picture = tmp_path / "page.png"
    chromium(tmp_path, frame.as_uri(), f"--window-size={width},900", f"--screenshot={picture}")
    assert colours(picture)[1] > 50
