"""A sweep: everything is done once, whatever stops it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from line_task import line_data
from sweep_cases import SPEC, results, spec, write_spec

from aaren_rl.cli import main
from aaren_rl.errors import UserError
from aaren_rl.experiments import (
    BenchmarkConfig,
    benchmark,
    read_benchmark,
    read_spec,
    report,
    units,
)
from aaren_rl.experiments import sweep as sweep_module
from aaren_rl.experiments.outcome import read_outcome

PLUGIN = """
from aaren_rl import agents
from aaren_rl.agents import AGENTS, BehaviorCloning


class MyCloning(BehaviorCloning):
    name = "my-cloning"


register = getattr(agents, "register_agent", None) or AGENTS.__setitem__
register("my-cloning", MyCloning)
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkConfig:
    """The config of a sweep that ran through."""
    folder = tmp_path_factory.mktemp("sweep")
    config = BenchmarkConfig(write_spec(folder / "tiny.yaml"), out=folder / "out", workers=1)
    sweep = benchmark(config)
    assert (len(sweep.todo), sweep.asked) == (12, 12)
    return config


def test_every_unit_has_its_rows(done: BenchmarkConfig) -> None:
    assert done.out is not None
    found = results(done.out)
    read = read_spec(done.spec)
    assert set(found) == {unit.name for unit in units(read, done.out)}
    for name, result in found.items():
        _, agent, seed = name.split("/")
        scores = [row for row in result["rows"] if row["kind"] == "score"]
        modes = read.agents[agent].modes
        assert [(row["mode"], row["update"]) for row in scores] == [
            (mode, update) for mode in modes for update in (10, 20)
        ]
        assert all(row["episodes"] == 2 and len(row["returns"]) == 2 for row in scores)
        curve = [row for row in result["rows"] if row["kind"] == "curve"]
        asked = () if agent == "bc" else (956.0993865, 2908.84277)
        assert [(row["mode"], row["target_return"]) for row in curve] == [
            (mode, pytest.approx(target)) for mode in modes for target in asked
        ]
        assert [cost["mode"] for cost in result["costs"]] == list(modes)
        assert result["summary"]["seed"] == int(seed.removeprefix("seed-"))


def test_settings_of_the_task_and_the_agent_hold(tmp_path: Path) -> None:
    agents = {
        "a": {"agent": "decision-aaren", "settings": {"learning_rate": "3e-4", "width": 8}},
        "decision-transformer": {},
    }
    file = write_spec(tmp_path / "x.yaml", agents=agents, claim=None)
    read = read_spec(file)
    config = read.train_config("hopper-best", "a", 1)
    assert (config.agent, config.seed, config.mode) == ("decision-aaren", 1, "carry")
    assert (config.learning_rate, config.model.width, config.top_percent) == (3e-4, 8, 50.0)
    assert (config.batch_size, config.model.layers, config.keep_evaluated) == (8, 1, 2)
    other = read.train_config("hopper-all", "decision-transformer", 0)
    assert (other.learning_rate, other.model.width, other.top_percent) == (1e-3, 16, 100.0)
    assert other.mode == "window"


def no_work(*_: Any) -> None:
    raise AssertionError("there is nothing to do")


def test_again_it_does_nothing(done: BenchmarkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "run_one_by_one", no_work)
    sweep = benchmark(done)
    assert (len(sweep.todo), sweep.asked) == (0, 12)


def test_the_command_ends_with_a_report(
    done: BenchmarkConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", str(done.spec), "--out", str(done.out), "--dry-run"]) == 0
    assert capsys.readouterr().out == "0 of 12 runs to do\n"
    assert main(["benchmark", str(done.spec), "--out", str(done.out)]) == 0
    verdict, where, *_ = capsys.readouterr().out.splitlines()
    assert done.out is not None
    assert where.startswith(f"report: {done.out / 'report' / 'report.html'}")
    content = json.loads((done.out / "report" / "report.json").read_text())
    assert content["verdict"] == verdict
    assert "decision-aaren (carry)" in verdict
    assert content["runs"]["missing"] == []
    errors = content["errors_by_position"]["hopper-best"]["bc"]  # real ones, held out
    assert errors[0]["first"] == 0
    assert errors[-1]["last"] == 1000
    assert (done.out / "report" / "report.html").stat().st_size > 50_000


def test_more_episodes_need_no_training(done: BenchmarkConfig, tmp_path: Path) -> None:
    """Another evaluation is another result; what was measured and still fits is kept."""
    assert done.out is not None
    evaluation = {"episodes": 3, "curve_scores": [30, 90], "curve_episodes": 1}
    file = write_spec(tmp_path / "more.yaml", evaluation=evaluation)
    only: dict[str, Any] = {"tasks": ("hopper-all",), "agents": ("bc",), "seeds": (0,)}
    run = done.out / "hopper-all" / "bc" / "seed-0"
    result, weights = run / "result.json", run / "last" / "agent.safetensors"
    before, trained = result.read_text(), weights.stat().st_mtime_ns
    sweep = benchmark(dataclasses.replace(done, spec=file, **only))
    assert (len(sweep.todo), sweep.asked) == (1, 1)
    assert {row["episodes"] for row in json.loads(result.read_text())["rows"]} == {3}
    assert weights.stat().st_mtime_ns == trained
    benchmark(dataclasses.replace(done, **only))
    assert json.loads(result.read_text())["rows"] == json.loads(before)["rows"]
    whole = result.read_text()
    result.write_text(whole.replace('"score_mean": ', '"score_mean": 1', 1))
    with pytest.raises(UserError, match=r"result.json: damaged"):
        read_outcome(done.out)
    result.write_text(whole)


def test_flags_restrict_it(done: BenchmarkConfig, tmp_path: Path) -> None:
    some = dataclasses.replace(
        done, tasks=("hopper-best",), agents=("bc",), seeds=(1,), out=tmp_path / "some"
    )
    assert [unit.name for unit in benchmark(some).todo] == ["hopper-best/bc/seed-1"]
    assert done.out is not None
    assert some.out is not None
    same = "hopper-best/bc/seed-1"
    assert results(some.out) == {same: results(done.out)[same]}
    _, asked = read_benchmark(some.out)
    assert asked == {"tasks": ["hopper-best"], "agents": ["bc"], "seeds": [1]}
    more = dataclasses.replace(some, tasks=(), agents=("bc",), seeds=(1,))
    assert [unit.name for unit in benchmark(more).todo] == ["hopper-all/bc/seed-1"]
    assert read_benchmark(some.out)[1]["tasks"] == ["hopper-all", "hopper-best"]


def test_what_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    tasks = {"gone": {"dataset": "no/such-v0"}, "here": {"dataset": "aaren-rl/hopper-small-v0"}}
    file = write_spec(tmp_path / "x.yaml", tasks=tasks, agents={"behavior-cloning": {}}, claim=None)
    config = BenchmarkConfig(file, out=tmp_path / "out", seeds=(0,), workers=1)
    with pytest.raises(UserError, match=r"1 of 2 runs failed.*gone/behavior-cloning/seed-0: .*no/"):
        benchmark(config)
    assert set(results(tmp_path / "out")) == {"here/behavior-cloning/seed-0"}


def test_bad_flags_and_folders(done: BenchmarkConfig, tmp_path: Path) -> None:
    for changes, words in (
        ({"tasks": ("walker",)}, "--tasks walker: .* has hopper-all, hopper-best"),
        ({"agents": ("x",)}, "--agents x: .* has decision-aaren, decision-transformer, bc"),
        ({"seeds": (7,)}, "--seeds 7: .* has 0, 1"),
        ({"workers": 0}, "--workers must be at least 1"),
        ({"spec": tmp_path / "none.yaml"}, "none.yaml: no such file"),
        ({"out": Path("/proc/x")}, "--out /proc/x: cannot be written"),
    ):
        with pytest.raises(UserError, match=words):
            benchmark(dataclasses.replace(done, **changes))
    settings = {**read_spec(done.spec).settings, "batch_size": 16}
    other = write_spec(tmp_path / "other.yaml", settings=settings)
    with pytest.raises(UserError, match="--batch-size 8 there, 16 here"):
        benchmark(dataclasses.replace(done, spec=other))
    with pytest.raises(UserError, match="not the folder of a benchmark"):
        read_benchmark(tmp_path)


def test_runs_without_scores_and_errors_are_refused_before_any_work(tmp_path: Path) -> None:
    out, words = tmp_path / "out", r"without an environment .*\(--held-out\) there is nothing to"
    nowhere = {**SPEC["settings"], "environment": "none"}
    file = write_spec(tmp_path / "x.yaml", settings=nowhere)
    with pytest.raises(UserError, match=f"{file}: hopper-all, decision-aaren: {words}"):
        benchmark(BenchmarkConfig(file, out=out))
    tasks = {"mine": {"dataset": line_data()}}  # without an environment
    nowhere["environment"] = None
    with pytest.raises(UserError, match=f"the spec: mine, decision-aaren: {words}"):
        benchmark(spec(tasks=tasks, settings=nowhere), out=out)
    assert not out.exists()


def test_from_python_without_a_file_and_with_a_plug_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent from a module outside the package, named by the spec."""
    (tmp_path / "my_agents.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    content = spec(
        agents={"mine": {"agent": "my-cloning"}, "behavior-cloning": {}},
        tasks={"hopper": {"dataset": "aaren-rl/hopper-small-v0"}},
        seeds=[0],
        plugins=["my_agents"],
        claim=None,
    )
    sweep = benchmark(content, out=tmp_path / "out", workers=1)
    assert len(sweep.todo) == 2
    [mine, theirs] = results(tmp_path / "out").values()
    assert mine["unit"]["config"]["agent"] == "behavior-cloning"
    assert theirs["unit"]["config"]["agent"] == "my-cloning"
    assert theirs["summary"]["parameters"] == mine["summary"]["parameters"]
    assert "mine" in report(tmp_path / "out")
    assert benchmark(sweep.spec, out=tmp_path / "out", workers=1).todo == []


def test_without_reference_scores_returns_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(tmp_path / "plant.hdf5", "w") as file:
        rng, ends = np.random.default_rng(0), np.tile([False] * 9 + [True], 20)
        file["observations"] = rng.normal(size=(200, 3)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (200, 1)).astype(np.float32)
        file["rewards"], file["timeouts"] = np.ones(200, np.float32), ends
        file["terminals"] = np.zeros(200, bool)
    tasks = {"plant": {"dataset": str(tmp_path / "plant.hdf5")}}
    settings = {**SPEC["settings"], "environment": "Pendulum-v1?max_episode_steps=10"}
    file = write_spec(
        tmp_path / "x.yaml", tasks=tasks, settings=settings, evaluation={"episodes": 1}, seeds=[0]
    )
    out = tmp_path / "out"
    assert main(["benchmark", str(file), "--out", str(out), "--workers", "1"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert "without reference scores there are only returns" in line
    rows = json.loads((out / "report" / "report.json").read_text())["comparison"]["tasks"]
    assert f"Mean return: plant {rows[0]['ours_mean']:.1f} against" in line
    text = (out / "report" / "report.md").read_text()
    assert "Scores are plain returns: the data have no reference scores" in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("benchmark.json", "[]"),
        ("benchmark.json", '{"spec": {}, "asked": {}}'),
        ("hopper/cloning/seed-0/result.json", "{}"),
        ("hopper/cloning/seed-0/result.json", '{"unit": []}'),
    ],
)
def test_a_damaged_record_is_named(name: str, content: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    tiny = {
        "name": "tiny",
        "tasks": {"hopper": {"dataset": "aaren-rl/hopper-small-v0"}},
        "agents": {"cloning": {"agent": "behavior-cloning"}},
        "seeds": [0],
    }
    with pytest.raises(UserError, match=name):
        benchmark(tiny, out=tmp_path)
    if name == "benchmark.json":
        with pytest.raises(UserError, match=name):
            read_benchmark(tmp_path)


def test_plugins_are_loaded_before_the_spec_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = PLUGIN.replace("my-cloning", "early-cloning")
    (tmp_path / "early_plugin.py").write_text(plugin)
    monkeypatch.syspath_prepend(str(tmp_path))
    tiny = {
        "name": "tiny",
        "tasks": {"hopper": {"dataset": "aaren-rl/hopper-small-v0"}},
        "agents": {"early-cloning": {}},
        "seeds": [0],
    }
    sweep = benchmark(tiny, out=tmp_path / "out", plugin=("early_plugin",), dry_run=True)
    assert sweep.spec.plugins == ("early_plugin",)
