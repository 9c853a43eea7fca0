"""The runner needs numpy and onnxruntime alone, and does not grow."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from exported_agents import exported, make_aaren

from aaren_rl.runtime import OnnxPolicy

PROGRAM = """
import sys
# None makes an import of these fail, as where they are not installed.
for name in ("torch", "gymnasium", "minari", "safetensors", "onnx", "lightning_fabric"):
    sys.modules[name] = None
import numpy as np
from aaren_rl.runtime import OnnxPolicy

policy = OnnxPolicy(sys.argv[1], 2)
for step in range(5):
    observations = np.full((2, 11), step / 10)
    print(policy.act(observations, np.ones(2) if step else None).tolist())
ours = [name for name in sys.modules if name.startswith("aaren_rl")]
print(sorted(ours), file=sys.stderr)
"""

CLEAN = """
import importlib.util, sys
import numpy as np
from aaren_rl.runtime import OnnxPolicy

for name in ("torch", "gymnasium", "safetensors", "scipy"):
    assert importlib.util.find_spec(name) is None, name
policy = OnnxPolicy(sys.argv[1], 2)
for step in range(5):
    observations = np.full((2, 11), step / 10)
    print(policy.act(observations, np.ones(2) if step else None).tolist())
"""
NEEDED = ("numpy", "onnxruntime", "flatbuffers", "packaging", "protobuf")
"""What `pip install numpy onnxruntime` installs."""

MEMORY = """
import sys
import numpy as np
from aaren_rl.runtime import OnnxPolicy

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

policy = OnnxPolicy(sys.argv[1])
observations, rewards, done = np.ones((1, 11)), np.ones(1), np.zeros(1, bool)
for step in range(int(sys.argv[2])):
    if step == 1000:
        before = resident()
    done[0] = step % 700 == 0
    policy.act(observations, rewards, done)
print(resident() - before)
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )


def test_it_acts_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    file = exported(make_aaren(), tmp_path)
    done = run(PROGRAM, str(file))
    policy = OnnxPolicy(file, 2)
    for step, line in enumerate(done.stdout.splitlines()):
        action = policy.act(np.full((2, 11), step / 10), np.ones(2) if step else None)
        assert str(action.tolist()) == line
    assert step == 4
    assert done.stderr.split() == [
        "['aaren_rl',",
        "'aaren_rl.acting',",
        "'aaren_rl.errors',",
        "'aaren_rl.layout',",
        "'aaren_rl.lazy',",
        "'aaren_rl.runtime',",
        "'aaren_rl.runtime.card',",
        "'aaren_rl.runtime.onnx_policy',",
        "'aaren_rl.runtime.step_policy']",
    ]


def clean_environment(folder: Path) -> Path:
    """A new virtual environment with `NEEDED` and this package alone; gives its Python.

    They are linked from where they are installed: a test does not download.
    """
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    (packages,) = folder.glob("[Ll]ib/python*/site-packages")
    for name in NEEDED:
        parts = {file.parts[0] for file in distribution(name).files or () if file.parts[0] != ".."}
        for part in parts:
            found = Path(str(distribution(name).locate_file(part)))
            if found.exists() and not (packages / part).exists():
                (packages / part).symlink_to(found)
    spec = find_spec("aaren_rl")
    assert spec is not None
    assert spec.origin is not None
    (packages / "aaren_rl").symlink_to(Path(spec.origin).parent)
    return folder / "bin" / "python"


@pytest.mark.skipif(os.name == "nt", reason="links packages")
def test_it_acts_in_a_clean_virtual_environment(tmp_path: Path) -> None:
    file = exported(make_aaren(), tmp_path)
    command = [clean_environment(tmp_path / "clean"), "-I", "-c", CLEAN, file]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    policy = OnnxPolicy(file, 2)
    expected = [
        policy.act(np.full((2, 11), step / 10), np.ones(2) if step else None).tolist()
        for step in range(5)
    ]
    assert done.stdout.splitlines() == [str(actions) for actions in expected]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_resident_memory_does_not_grow(tmp_path: Path) -> None:
    file = exported(make_aaren(), tmp_path)
    assert int(run(MEMORY, str(file), "50000").stdout) < 1_000_000
