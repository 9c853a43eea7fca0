"""A campaign of SIGKILLs at random moments: begun again, the work ends as if nothing had happened.

    python tests/kills.py --kills 50
    python tests/kills.py --kills 10 --works saving conversion

Each work is first done undisturbed. Then it runs in child processes that are killed, each going on
from what the last one left, until it is through; its files must be those of the undisturbed one, to
the bit. After each kill the checkpoints must be there, whole, and none older than before.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import stable_baselines3  # noqa: F401  (imported before the forks)
import torch

sys.path.append(str(Path(__file__).parent / "training"))
sys.path.append(str(Path(__file__).parent / "experiments"))
sys.path.append(str(Path(__file__).parent / "collect"))

from collect_cases import MAKERS, assert_same_datasets
from conftest import tiny_config
from killing import Ended, attempt, never
from run_cases import assert_same_run
from sweep_cases import results, write_spec

from aaren_rl.collect import collect
from aaren_rl.convert import ConvertConfig, convert
from aaren_rl.experiments import BenchmarkConfig, CompareConfig, benchmark, compare
from aaren_rl.training import train, trainer
from aaren_rl.training.checkpoint import load_checkpoint

AGENTS, SEEDS = ("decision-aaren", "decision-transformer"), (0,)


@dataclasses.dataclass(frozen=True)
class Work:
    """Something that can be killed and begun again.

    Attributes:
        do: works in a folder, or goes on there.
        check: raises AssertionError unless the first folder holds what the second does.
        share: of the kills, beside the others'.
        aimed: kill only while a checkpoint is being written.
    """

    do: Callable[[Path], object]
    check: Callable[[Path, Path], object]
    share: int
    aimed: bool = False


def training(out: Path, **changes: Any) -> None:
    settings = {"updates": 150, "evaluate_every": 50, "checkpoint_every": 9, "episodes": 1}
    train(tiny_config(out, resume=True, **{**settings, **changes}))


def saving(out: Path) -> None:
    training(out, updates=60, evaluate_every=30, checkpoint_every=1)


def sweep(out: Path) -> None:
    spec = out.with_name("spec.yaml")
    if not spec.exists():
        agents = {"decision-aaren": {"modes": ["carry"]}, "bc": {"agent": "behavior-cloning"}}
        write_spec(spec, seeds=[0], agents=agents, claim=None)
    benchmark(BenchmarkConfig(spec, out=out, workers=1))


def check_sweep(out: Path, wanted: Path) -> None:
    assert results(out) == results(wanted)


def comparison(out: Path) -> None:
    plain = tiny_config(out, updates=60, evaluate_every=20, episodes=1, checkpoint_every=10)
    names = {field.name for field in dataclasses.fields(CompareConfig)} - {"agents", "seeds"}
    settings = {name: getattr(plain, name) for name in names if hasattr(plain, name)}
    compare(CompareConfig(**{**settings, "agents": AGENTS, "seeds": SEEDS, "resume": True}))


def check_comparison(out: Path, wanted: Path) -> None:
    assert (out / "comparison.json").is_file()
    for agent in AGENTS:
        for seed in SEEDS:
            assert_same_run(out / agent / f"seed-{seed}", wanted / agent / f"seed-{seed}")


def collection(out: Path, kind: str) -> None:
    out.mkdir(exist_ok=True)
    collect(MAKERS[kind](out, resume=True))


def check_collection(out: Path, wanted: Path) -> None:
    assert_same_datasets(out / "minari", wanted / "minari")


def conversion(out: Path) -> None:
    """Overwrites nothing, so that it is begun again only where nothing is there."""
    if not (out / "killed" / "hopper-v0").exists():
        convert(
            ConvertConfig("aaren-rl/hopper-small-v0", "killed/hopper-v0", out, compression="gzip")
        )


WORKS = {
    "training": Work(training, assert_same_run, 10),
    "saving": Work(saving, assert_same_run, 12, aimed=True),
    "sweep": Work(sweep, check_sweep, 8),
    "comparison": Work(comparison, check_comparison, 6),
    "conversion": Work(conversion, assert_same_datasets, 5),
}
for kind in MAKERS:
    collecting = functools.partial(collection, kind=kind)
    WORKS[f"collection-{kind}"] = Work(collecting, check_collection, 3)


@contextlib.contextmanager
def watched_saving() -> Iterator[mmap.mmap]:
    """Gives a byte that is 1 while a child writes a checkpoint."""
    flag, original = mmap.mmap(-1, 1), trainer.save_checkpoint

    def save_checkpoint(*arguments: Any) -> None:
        flag[0] = 1
        original(*arguments)
        flag[0] = 0

    trainer.save_checkpoint = save_checkpoint  # type: ignore[attr-defined]
    try:
        yield flag
    finally:
        trainer.save_checkpoint = original  # type: ignore[attr-defined]


def check_checkpoints(out: Path, before: dict[Path, int]) -> None:
    """Every checkpoint reads, and none is lost or older than before; notes their updates."""
    folders = [path for path in out.rglob("last*") if path.name in ("last", "last.old")]
    for folder in {path.with_name("last") for path in folders} | before.keys():
        _, progress, _ = load_checkpoint(folder)
        assert progress["update"] >= before.get(folder, 0), folder
        before[folder] = progress["update"]


def wait(seconds: float, stop: Callable[[], bool]) -> None:
    """Sleep, until `stop` at the most."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop():
        time.sleep(0.0002)


def disturb(name: str, kills: int, folder: Path, saving_now: mmap.mmap) -> tuple[int, int]:
    """Do a work and kill it so often, in as many rounds as that takes.

    Returns:
        How many were killed, and how many of them while they wrote a checkpoint.
    """
    work = WORKS[name]
    begun = time.monotonic()
    attempt(lambda: work.do(folder / "whole"))
    seconds = time.monotonic() - begun
    random = Random(os.urandom(8))

    def moment(ended: Ended) -> bool:
        wait(random.uniform(0.0, 0.6 * seconds), ended)
        if work.aimed:
            wait(seconds, lambda: saving_now[0] == 1 or ended())
            wait(random.uniform(0.0, 0.01), ended)
        return True

    killed = in_saving = number = 0
    while killed < kills:
        out, number, done = folder / f"killed-{number}", number + 1, False
        before: dict[Path, int] = {}
        while not done:
            saving_now[0] = 0
            done = attempt(lambda out=out: work.do(out), moment if killed < kills else never)
            killed += not done
            in_saving += saving_now[0]  # it died there
            check_checkpoints(out, before)
        work.check(out, folder / "whole")
    return killed, in_saving


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    flags = parser.parse_args()
    torch.set_num_threads(1)
    shares = sum(WORKS[name].share for name in flags.works)
    total = all_in_saving = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, watched_saving() as flag:
        for name in flags.works:
            (Path(folder) / name).mkdir()
            kills = max(1, round(flags.kills * WORKS[name].share / shares))
            killed, in_saving = disturb(name, kills, Path(folder) / name, flag)
            print(f"{name}: {killed} kills, {in_saving} while saving; the same", flush=True)
            total, all_in_saving = total + killed, all_in_saving + in_saving
    print(f"{total} kills, {all_in_saving} while saving: nothing lost")


if __name__ == "__main__":
    main()
