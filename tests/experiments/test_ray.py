"""The same sweep on a Ray cluster of two workers on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_cases import results, write_spec

from aaren_rl.cli import with_value
from aaren_rl.errors import UserError
from aaren_rl.experiments import BenchmarkConfig, benchmark

ray = pytest.importorskip("ray")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A head that works not, and two nodes of one core; patient, where the machine is busy."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_worker_register_timeout_seconds"] = "300"  # noqa: SIM112
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
    tasks = {"gone": {"dataset": "no/such-v0"}, "here": {"dataset": "aaren-rl/hopper-small-v0"}}
    file = write_spec(tmp_path / "x.yaml", tasks=tasks)
    some: dict[str, Any] = {"agents": ("bc",), "seeds": (0,)}
    outs = {name: tmp_path / name for name in ("ray", "local")}
    for name, out in outs.items():
        config = BenchmarkConfig(
            file, out=out, ray=address if name == "ray" else None, workers=2, **some
        )
        with pytest.raises(UserError, match=r"1 of 2 runs failed.*gone/.*no/such-v0"):
            benchmark(config)
    assert results(outs["ray"]) == results(outs["local"])
    assert set(results(outs["ray"])) == {"here/bc/seed-0"}


def test_no_cluster(tmp_path: Path) -> None:
    file = write_spec(tmp_path / "x.yaml")
    for place, words in (
        ("nonsense", "--ray nonsense: auto, local or HOST:PORT expected"),
        ("127.0.0.1:1", "--ray 127.0.0.1:1: no Ray cluster there"),
    ):
        with pytest.raises(UserError, match=words):
            benchmark(BenchmarkConfig(file, out=tmp_path / "out", ray=place))


def test_the_flag_alone() -> None:
    assert with_value("--ray", "auto", ["x", "--ray", "--out", "y"]) == (
        ["x", "--ray", "auto", "--out", "y"]
    )
    assert with_value("--ray", "auto", ["x", "--ray"]) == ["x", "--ray", "auto"]
    assert with_value("--ray", "auto", ["--ray", "local", "x"]) == ["--ray", "local", "x"]
    assert with_value("--ray", "auto", ["x"]) == ["x"]
