"""`examples/deploy/cpp`, built and run where a compiler and ONNX Runtime's C API are there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HEADER = "onnxruntime_c_api.h"
FOLDERS = (
    *filter(None, [os.environ.get("ORT_INCLUDE")]),
    f"{sys.prefix}/include/onnxruntime",
    "/usr/include/onnxruntime",
    "/usr/local/include/onnxruntime",
    "/usr/local/include",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled example; the library is that of the Python package."""
    ort = pytest.importorskip("onnxruntime")
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    headers = next((each for each in FOLDERS if Path(each, HEADER).is_file()), None)
    if headers is None:
        pytest.skip(f"no {HEADER}: set ORT_INCLUDE to its folder (docs/deploy.md)")
    library = next(Path(ort.__file__).parent.glob("capi/libonnxruntime.so.*"), None)
    if library is None:
        pytest.skip("the package onnxruntime has no libonnxruntime.so here")
    folder = tmp_path_factory.mktemp("cpp")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(library)
    source = Path(__file__).parents[2] / "examples/deploy/cpp/policy.cpp"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{headers}", f"-L{folder}"]
    flags += ["-lonnxruntime", f"-Wl,-rpath,{folder}", "-o", str(folder / "policy")]
    subprocess.run([compiler, str(source), *flags], check=True)
    return folder / "policy"


def test_a_thousand_steps_are_pytorchs(program: Path, tmp_path: Path) -> None:
    from exported_agents import make_agent

    from aaren_rl.export.command import write_step

    agent, rng = make_agent(width=16, heads=2, recency=(0.0, 0.3)), np.random.default_rng(0)
    write_step(agent, tmp_path / "step.onnx")
    policy, lines, wanted = agent.policy(1, 250.0), [], []
    for t in range(1000):
        seen, reward, first = rng.normal(size=11), float(rng.normal()), t % 370 == 0
        lines += ["reset"] if first else []
        lines.append(" ".join(map(repr, [0.0 if first else reward, *seen.tolist()])))
        wanted.append(policy.act(seen[None], np.array([reward]), np.array([first]))[0])
    done = subprocess.run(
        [str(program), str(tmp_path / "step.onnx"), "250"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    actions = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(actions, wanted, rtol=0, atol=1e-5)


def test_a_missing_card_is_named(program: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(program), str(tmp_path / "step.onnx")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "step.onnx.json: not readable" in done.stderr
