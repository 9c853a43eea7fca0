"""A whole benchmark with one command: what is not done yet is done, on this machine or on Ray."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from filelock import FileLock, Timeout
from rich.console import Console

from aaren_rl.errors import UserError
from aaren_rl.experiments.local import run_locally
from aaren_rl.experiments.on_ray import run_on_ray
from aaren_rl.experiments.spec import BenchmarkSpec, parse_spec, read_spec
from aaren_rl.experiments.unit import Unit, units
from aaren_rl.files import probe_folder, read_json, write_json
from aaren_rl.training.run import check_same_run

BENCHMARK_FILE = "benchmark.json"


@dataclass(frozen=True)
class BenchmarkConfig:
    """Train and evaluate tasks x agents x seeds as a spec says, then write the report.

    The same command again, after whatever stopped it, goes on and repeats nothing that is done.
    Example: aaren-rl benchmark benchmarks/specs/zoo.yaml --tasks hopper-medium-expert --seeds 0 1 2
    """

    spec: Annotated[Path, tyro.conf.Positional]
    """The benchmark, a YAML file; benchmarks/specs holds some."""
    tasks: tuple[str, ...] = ()
    """Only these of its tasks."""
    agents: tuple[str, ...] = ()
    """Only these of its agents."""
    seeds: tuple[int, ...] = ()
    """Only these of its seeds."""
    out: Path | None = None
    """Folder for everything; by default runs/NAME. On a cluster, one that every node sees."""
    workers: int | None = None
    """Runs at the same time; by default one for each GPU, or for each core."""
    ray: str | None = None
    """Run on a Ray cluster: its address, or `auto` (also `--ray` alone) for the one that runs on
    this machine, or `local` for a new one."""
    dry_run: bool = False
    """Only say what there is to do."""

    def check(self) -> None:
        """Raise `UserError` for a value that cannot work, naming its flag."""
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers must be at least 1, got {self.workers}")


@dataclass(frozen=True)
class Sweep:
    """What a call of the benchmark is about.

    Attributes:
        spec: the whole spec.
        out: the folder.
        todo: the units that are asked for and not finished.
        asked: how many are asked for.
    """

    spec: BenchmarkSpec
    out: Path
    todo: list[Unit]
    asked: int


def benchmark(config: BenchmarkConfig) -> Sweep:
    """Do what is left to do.

    Returns:
        What was to do when it began.

    Raises:
        UserError: for anything wrong with the spec, the flags or the folder; or at the end, when
            units failed: the others are done, and the same command tries these again.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; everything is saved.
    """
    config.check()
    spec = read_spec(config.spec)
    chosen = {name: _chosen(spec, config, name) for name in ("tasks", "agents", "seeds")}
    out = config.out or Path("runs") / spec.name
    asked = [unit for unit in units(spec, out) if _is_chosen(unit, chosen)]
    if config.dry_run:
        return Sweep(spec, out, [unit for unit in asked if not unit.finished], len(asked))
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe_folder(out)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
    try:
        with FileLock(out / ".lock", timeout=0):
            _remember(spec, chosen, out)
            for unit in asked:
                check_same_run(unit.folder, unit.config)
            todo = [unit for unit in asked if not unit.finished]
            _run(config, todo, len(asked))
            return Sweep(spec, out, todo, len(asked))
    except Timeout:
        raise UserError(f"--out {out}: another benchmark is at work there") from None


def _chosen(spec: BenchmarkSpec, config: BenchmarkConfig, name: str) -> list[Any]:
    """The tasks, agents or seeds that the flags leave, in the spec's order."""
    known, asked = list(getattr(spec, name)), getattr(config, name)
    for each in asked:
        if each not in known:
            expected = ", ".join(map(str, known))
            raise UserError(f"--{name} {each}: {config.spec} has {expected}")
    return [each for each in known if not asked or each in asked]


def _is_chosen(unit: Unit, chosen: dict[str, list[Any]]) -> bool:
    return (
        unit.task in chosen["tasks"]
        and unit.agent in chosen["agents"]
        and unit.config.seed in chosen["seeds"]
    )


def _remember(spec: BenchmarkSpec, chosen: dict[str, list[Any]], out: Path) -> None:
    """Write down the spec and all that was ever asked for, for the report."""
    file = out / BENCHMARK_FILE
    asked = dict(chosen)
    if file.is_file():
        before = read_json(file)["asked"]
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
    content = read_json(file)
    return parse_spec(content["spec"], str(file)), content["asked"]


def _run(config: BenchmarkConfig, todo: list[Unit], asked: int) -> None:
    console = Console(stderr=True)
    done = asked - len(todo)
    problems: list[str] = []
    console.print(f"{asked} runs, {done} of them done before")

    def ended(unit: Unit, problem: str | None) -> None:
        nonlocal done
        if problem is None:
            done += 1
            console.print(f"[{done}/{asked}] {unit.name}", markup=False, soft_wrap=True)
        else:
            problems.append(f"{unit.name}: {problem}")
            console.print(f"failed: {problems[-1]}", markup=False, soft_wrap=True)

    if todo:
        with _sigterm_as_interrupt():
            if config.ray is not None:
                run_on_ray(config.ray, todo, config.workers, ended)
            else:
                run_locally(todo, config.workers, ended)
    if problems:
        raise UserError(
            f"{len(problems)} of {asked} runs failed, the others are done; the first: {problems[0]}"
        )


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Inside this context SIGTERM is Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
