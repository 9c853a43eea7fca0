"""The same sweep by Ray: on a cluster of two nodes, on this machine alone, stopped, missing."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_cases import SPEC, results, write_spec

from aaren_rl.cli import with_value
from aaren_rl.errors import UserError
from aaren_rl.experiments import BenchmarkConfig, benchmark, parallel, unit
from aaren_rl.experiments.parallel import workers_here

ray = pytest.importorskip("ray")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A head that works not, and two nodes of one core; patient, where the machine is busy."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_worker_register_timeout_seconds"] = "300"  # noqa: SIM112
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


def test_on_two_workers_as_on_this_machine(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(unit, "COST_STEPS", 1000)  # as in the workers' processes
    tasks = {"gone": {"dataset": "no/such-v0"}, "here": {"dataset": "aaren-rl/hopper-small-v0"}}
    file = write_spec(tmp_path / "x.yaml", tasks=tasks)
    some: dict[str, Any] = {"agents": ("bc",), "seeds": (0,)}
    outs = {name: tmp_path / name for name in ("ray", "local")}
    for name, out in outs.items():
        workers = 2 if name == "ray" else 1
        config = BenchmarkConfig(
            file, out=out, ray=address if name == "ray" else None, workers=workers, **some
        )
        with pytest.raises(UserError, match=r"1 of 2 runs failed.*gone/.*no/such-v0"):
            benchmark(config)
    assert results(outs["ray"]) == results(outs["local"])
    assert set(results(outs["ray"])) == {"here/bc/seed-0"}


def test_stopped_runs_are_saved_and_go_on(tmp_path: Path) -> None:
    """On a cluster of its own; SIGTERM while both workers train."""
    settings = {**SPEC["settings"], "updates": 400, "evaluate_every": 200}
    file = write_spec(
        tmp_path / "x.yaml", settings=settings, agents={"decision-aaren": {}}, claim=None
    )
    config = BenchmarkConfig(file, out=tmp_path / "out", tasks=("hopper-all",), workers=2)
    words = [*("benchmark", str(file), "--out", str(config.out), "--tasks", "hopper-all")]
    run = "import sys; from aaren_rl.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", run, *words, "--workers", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    runs = [tmp_path / "out" / "hopper-all" / "decision-aaren" / f"seed-{n}" for n in (0, 1)]
    for _ in range(1200):
        if all(list(run.glob("events.*")) for run in runs):
            break
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(0.3)
    process.terminate()
    assert process.wait(120) == 130
    assert all((run / "last").is_dir() for run in runs)
    benchmark(dataclasses.replace(config, workers=1, seeds=(1,)))
    alone = dataclasses.replace(config, out=tmp_path / "alone", workers=1, seeds=(1,))
    benchmark(alone)
    name = "hopper-all/decision-aaren/seed-1"
    assert results(tmp_path / "out")[name] == results(tmp_path / "alone")[name]


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are done one after the other, unless several at once are asked for."""
    monkeypatch.setattr(parallel, "find_spec", lambda name: None)
    file = write_spec(tmp_path / "x.yaml")
    for flags, words in (({"workers": 2}, "--workers 2"), ({"ray": "auto"}, "--ray auto")):
        with pytest.raises(UserError, match=rf"{words} needs Ray: pip install 'aaren-rl\[ray\]'"):
            benchmark(BenchmarkConfig(file, out=tmp_path / "out", **flags))
    assert workers_here(None, None, "cpu")[0] == 1
    assert "one run after the other" in workers_here(None, None, "cpu")[1]


def test_no_cluster(tmp_path: Path) -> None:
    file = write_spec(tmp_path / "x.yaml")
    for place, words in (
        ("nonsense", "--ray nonsense: auto, local or HOST:PORT expected"),
        ("127.0.0.1:1", "--ray 127.0.0.1:1: no Ray cluster there"),
    ):
        with pytest.raises(UserError, match=words):
            benchmark(BenchmarkConfig(file, out=tmp_path / "out", ray=place))


def test_ray_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray raises a bare Exception when its processes are not up in time."""

    def late(**options: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(UserError, match=r"does not start here .*timed out.* --workers 1 needs"):
        parallel._connect(ray, "local")


def test_the_flag_alone() -> None:
    assert with_value("--ray", "auto", ["x", "--ray", "--out", "y"]) == (
        ["x", "--ray", "auto", "--out", "y"]
    )
    assert with_value("--ray", "auto", ["x", "--ray"]) == ["x", "--ray", "auto"]
    assert with_value("--ray", "auto", ["--ray", "local", "x"]) == ["--ray", "local", "x"]
    assert with_value("--ray", "auto", ["x"]) == ["x"]
