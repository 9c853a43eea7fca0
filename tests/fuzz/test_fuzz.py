"""A part of the fuzzing campaign: its first 100 cases."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pytest
from campaign import SPEC, TARGETS, Case, Started, prepared, run
from mutations import STRUCTURE, mutate

CASES = 100


@pytest.mark.timeout(600)
def test_files_made_wrong() -> None:
    """No traceback, no crash, no hang, nothing executed, nothing else changed."""
    told: list[Case] = []
    with prepared() as (base, scratch):
        run(iter(range(CASES)), base, scratch, 1, told.append)
    assert len(told) == CASES
    bad = [f"{case.number}, {case.target}: {case.problems}" for case in told if case.problems]
    assert not bad, "\n".join([*bad, "see `python tests/fuzz/campaign.py --only NUMBER`"])


BAD = {
    "exit status 1: ValueError: told so": "raise ValueError('told so')",
    "killed by SIGKILL": "os.kill(os.getpid(), 9)",
    "executed what a file said": "open('executed-from-a-file', 'w'); sys.exit(0)",
    "left processes running": "os.fork() or time.sleep(60); sys.exit(0)",
    "changed kept": "open('kept', 'w').write('other'); sys.exit(0)",
    "removed kept": "os.unlink('kept'); print('error: so'); sys.exit(2)",
    "exit status 2 without one line of error": "sys.exit(2)",
}
"""What programs that are no good do, by what should be said of them."""


@pytest.mark.parametrize("problem", BAD)
def test_the_judge(problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "kept").write_text("as it was")
    monkeypatch.setattr(
        "aaren_rl.cli.main", lambda words: exec("import os, sys, time; " + BAD[problem])
    )
    started = Started(Case(0, next(iter(TARGETS)), "", "", []), folder)
    while not started.ended():
        time.sleep(0.01)
    started.judge()
    assert any(found.startswith(problem) for found in started.case.problems)


@pytest.mark.parametrize("suffix", STRUCTURE)
def test_mutations_are_decided_by_the_generator(suffix: str, tmp_path: Path) -> None:
    def make(path: Path) -> None:
        if suffix in (".hdf5", ".h5"):
            with h5py.File(path, "w") as file:
                file["a/b"], file["c"] = np.arange(5.0), np.arange(3)
        elif suffix == ".safetensors":
            header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})
            path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8))
        elif suffix in (".zip", ".npz"):
            np.savez(path.with_suffix(".npz"), a=np.arange(4), b=np.zeros(2))
            path.with_suffix(".npz").rename(path)
        else:
            path.write_text(json.dumps(SPEC))

    kinds = set()
    for number in range(60):
        files = [tmp_path / f"{side}{suffix}" for side in "ab"]
        for file in files:
            make(file)
        before = files[0].read_bytes()
        said = [mutate(Random(number), file) for file in files]
        assert said[0] == said[1]
        changed = [file.read_bytes() if file.is_file() else None for file in files]
        if suffix not in (".hdf5", ".h5", ".zip", ".npz"):  # dates and addresses in them
            assert changed[0] == changed[1]
        kinds.add(changed[0] != before)
        for file in files:
            if file.is_dir():
                file.rmdir()
    assert True in kinds
