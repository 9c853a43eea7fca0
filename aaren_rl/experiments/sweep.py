"""A benchmark: its unfinished runs are done, one by one or by Ray."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from aaren_rl.data import TrajectoryDataset
from aaren_rl.errors import UserError
from aaren_rl.experiments.config import BenchmarkConfig, check_results
from aaren_rl.experiments.parallel import run_one_by_one, run_with_ray, workers_here
from aaren_rl.experiments.spec import BenchmarkSpec, parse_spec, read_spec
from aaren_rl.experiments.unit import Unit, read_record, units
from aaren_rl.files import locked, make_folder, write_json
from aaren_rl.records import typed
from aaren_rl.registry import require_plugins
from aaren_rl.training.resume import check_same_run

BENCHMARK_FILE = "benchmark.json"


@dataclass(frozen=True)
class Asked:
    """The tasks, agents and seeds of all calls."""

    tasks: list[str]
    agents: list[str]
    seeds: list[int]


@dataclass(frozen=True)
class Remembered:
    """What `benchmark.json` holds: the values of the spec, and what was asked for."""

    spec: dict[str, Any]
    asked: Asked


@dataclass(frozen=True)
class Sweep:
    """A call of `benchmark`: the spec, its folder, and of `asked` units those it had `todo`."""

    spec: BenchmarkSpec
    out: Path
    todo: list[Unit]
    asked: int


def benchmark(
    spec: BenchmarkConfig | BenchmarkSpec | dict[str, Any] | Path | str, **options: Any
) -> Sweep:
    """Do what is left to do of a benchmark; `report` then writes its report.

        sweep = benchmark("benchmarks/specs/zoo.yaml", tasks=("hopper-medium",), workers=2)
        print(report(sweep.out))

    Args:
        spec: the benchmark: its YAML file, or the values that such a file holds, where a task's
            `dataset` may be a `TrajectoryDataset`; or all options in one `BenchmarkConfig`.
        options: the other fields of `BenchmarkConfig`.

    Raises:
        UserError: for anything wrong with the spec, the options or the folder; or at the end, when
            units failed: the others are done, and the same call tries these again.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; what is done is kept.
    """
    data: dict[str, TrajectoryDataset] = {}
    content = spec.to_json() if isinstance(spec, BenchmarkSpec) else spec
    if isinstance(content, BenchmarkConfig):
        config = content
    else:
        file = Path("the spec") if isinstance(content, dict) else Path(content)
        config = BenchmarkConfig(file, **options)
    config = typed(config, "benchmark()")
    config.check()
    if isinstance(content, dict):
        content, data = _without_data(content)
        whole = parse_spec(content, "spec")
    else:
        whole = read_spec(config.spec)
    whole = dataclasses.replace(whole, plugins=(*whole.plugins, *config.plugin))
    chosen = {name: _chosen(whole, config, name) for name in ("tasks", "agents", "seeds")}
    out = Path(config.out or Path("runs") / whole.name)
    asked = [unit for unit in units(whole, out, data) if is_asked(unit, chosen)]
    for unit in asked:
        try:
            check_results(unit.config, unit.data)
        except UserError as error:
            raise UserError(f"{config.spec}: {unit.task}, {unit.agent}: {error}") from None
    if config.dry_run:
        return Sweep(whole, out, [unit for unit in asked if not unit.finished], len(asked))
    make_folder(out)
    with locked(out / ".lock", f"--out {out}: another benchmark is at work there"):
        _remember(whole, chosen, out)
        for unit in asked:
            check_same_run(unit.folder, unit.config)
        todo = [unit for unit in asked if not unit.finished]
        _run(config, todo, len(asked))
        return Sweep(whole, out, todo, len(asked))


def _without_data(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, TrajectoryDataset]]:
    """A spec's values with the names of data in memory in the data's place; the data by task."""
    data: dict[str, TrajectoryDataset] = {}
    tasks = content.get("tasks")
    if isinstance(tasks, dict):
        for name, task in tasks.items():
            if isinstance(task, dict) and isinstance(task.get("dataset"), TrajectoryDataset):
                data[name] = task["dataset"]
                tasks = {**tasks, name: {**task, "dataset": data[name].name}}
    return ({**content, "tasks": tasks} if data else content), data


def _chosen(spec: BenchmarkSpec, config: BenchmarkConfig, name: str) -> list[Any]:
    """The tasks, agents or seeds that the flags leave, in the spec's order."""
    known, asked = list(getattr(spec, name)), getattr(config, name)
    for each in asked:
        if each not in known:
            expected = ", ".join(map(str, known))
            raise UserError(f"--{name} {each}: {config.spec} has {expected}")
    return [each for each in known if not asked or each in asked]


def is_asked(unit: Unit, asked: dict[str, list[Any]]) -> bool:
    """Whether a unit's task, agent and seed are among those asked for."""
    place = {"tasks": unit.task, "agents": unit.agent, "seeds": unit.seed}
    return all(each in asked[name] for name, each in place.items())


def _remember(spec: BenchmarkSpec, chosen: dict[str, list[Any]], out: Path) -> None:
    """Write `benchmark.json`, which the report reads."""
    file = out / BENCHMARK_FILE
    asked = dict(chosen)
    if file.is_file():
        before = vars(read_record(file, Remembered).asked)
        for name in asked:
            both = [*before[name], *chosen[name]]
            asked[name] = [each for each in getattr(spec, name) if each in both]
    write_json(file, {"spec": spec.to_json(), "asked": asked})


def read_benchmark(out: Path) -> tuple[BenchmarkSpec, dict[str, list[Any]]]:
    """The spec of a benchmark's folder, and which tasks, agents and seeds were asked for.

    Raises:
        UserError: when the folder is none of a benchmark.
    """
    file = out / BENCHMARK_FILE
    if not file.is_file():
        raise UserError(f"{out}: not the folder of a benchmark: it has no {BENCHMARK_FILE}")
    content = read_record(file, Remembered)
    require_plugins(content.spec.get("plugins", ()), file)
    return parse_spec(content.spec, str(file)), vars(content.asked)


def _run(config: BenchmarkConfig, todo: list[Unit], asked: int) -> None:
    console = Console(stderr=True, markup=False, emoji=False)
    done = asked - len(todo)
    problems: list[str] = []
    console.print(f"{asked} runs, {done} of them done before")
    if not todo:
        return
    workers, why = workers_here(config.workers, config.ray, todo[0].config.device)
    if why:
        console.print(why)
    if config.ray is None and workers == 1:
        ended = run_one_by_one(todo)
    else:
        ended = run_with_ray(config.ray or "local", todo, workers)
    with contextlib.closing(ended):
        for unit, problem in ended:
            if problem is None:
                done += 1
                console.print(f"[{done}/{asked}] {unit.name}", soft_wrap=True)
            else:
                problems.append(f"{unit.name}: {problem}")
                console.print(f"failed: {problems[-1]}", soft_wrap=True)
    if problems:
        raise UserError(
            f"{len(problems)} of {asked} runs failed, the others are done; the first: {problems[0]}"
        )
