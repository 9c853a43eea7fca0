"""Score against training time: our agents, d3rlpy's Decision Transformer and CORL's recipe.

    python -m benchmarks.learning --d3rlpy-python ENVIRONMENT/bin/python [--quick] [--help]

Every contender makes the same number of updates, of 64 windows of 20 steps, on the same episodes,
on the same number of CPU threads, and is evaluated in the same episodes; its clock stops meanwhile.
Its settings are in the result. Our agents have the library's defaults.

d3rlpy pins an older Gymnasium, so it needs an environment of its own, with the same torch:

    python -m venv ENVIRONMENT
    ENVIRONMENT/bin/pip install torch "d3rlpy==2.8.*" "gymnasium[mujoco]"

Each finished training is a file in the work folder. A command that was killed and is started again
repeats only the training that was not finished.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console

from aaren_rl.errors import UserError
from aaren_rl.files import locked, read_json, write_json
from aaren_rl.training import Interrupted
from benchmarks.learning_peers import Contender, Name, Plan, d3rlpy_versions, make_contender
from benchmarks.learning_picture import draw, report
from benchmarks.timing import describe_machine, save

SHARE = 0.9  # of the final score, to be reached
QUICK_DATASET, QUICK_UPDATES, QUICK_EVALUATIONS, QUICK_EPISODES = (
    "aaren-rl/hopper-small-v0",
    60,
    2,
    2,
)


@dataclass(frozen=True)
class LearningConfig:
    """Train every contender on every dataset with every seed; table, JSON and picture."""

    datasets: tuple[str, ...] = ("mujoco/hopper/medium-v0", "mujoco/halfcheetah/medium-v0")
    """Datasets, named as for `aaren-rl train`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the trainings."""
    updates: int = 3_000
    """Gradient updates of each training; a multiple of `evaluations`."""
    evaluations: int = 10
    """Evaluations in each training, equally far apart."""
    episodes: int = 10
    """Episodes of each evaluation; the same seeds for all contenders."""
    contenders: tuple[Name, ...] = (
        "decision-aaren",
        "decision-transformer",
        "d3rlpy",
        "d3rlpy-tuned",
        "corl",
        "corl-tuned",
    )
    """Who is trained. `d3rlpy`: the settings that it publishes for these tasks, meant for 100,000
    updates; `d3rlpy-tuned`: those with our learning rate and share of warm-up; `d3rlpy-defaults`:
    the defaults of its class. `corl`: the defaults of CORL's dt.py, rebuilt from our Transformer;
    `corl-tuned`: with the learning rate of its config files for MuJoCo."""
    threads: int = 1
    """CPU threads."""
    clock: Literal["wall", "processor"] = "wall"
    """Seconds as elapsed, for an idle machine; or the processor's, estimated as elapsed seconds
    times the share of them that the training's process was running, for a busy one (and 1 thread).
    Both can be had from the same finished trainings."""
    d3rlpy_python: Path | None = None
    """Interpreter of an environment with d3rlpy; d3rlpy is left out if this is not given."""
    out: Path | None = None
    """File for the results; the picture goes beside it. By default
    benchmarks/results/learning.json, with `--quick` learning-quick.json."""
    work: Path = Path("runs/learning")
    """Work folder, with a file for each finished training."""
    quick: bool = False
    """Try everything in under two minutes: the shipped dataset, the first seed, 60 updates."""

    def reduced(self) -> LearningConfig:
        """What `--quick` makes of it."""
        if not self.quick:
            return self
        return dataclasses.replace(
            self,
            datasets=(QUICK_DATASET,),
            seeds=self.seeds[:1],
            updates=QUICK_UPDATES,
            evaluations=QUICK_EVALUATIONS,
            episodes=QUICK_EPISODES,
        )

    def plan(self) -> Plan:
        """What all contenders have in common.

        Raises:
            UserError: for a value that cannot work; names its flag.
        """
        for name in ("updates", "evaluations", "episodes", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be at least 1, got {getattr(self, name)}")
        for name in ("datasets", "seeds", "contenders"):
            if not getattr(self, name):
                raise UserError(f"--{name}: at least one expected")
        if self.clock == "processor" and self.threads > 1:
            raise UserError("--clock processor needs --threads 1")
        if self.updates % self.evaluations:
            raise UserError(
                f"--updates ({self.updates}) must be a multiple of "
                f"--evaluations ({self.evaluations})"
            )
        return Plan(self.updates, self.updates // self.evaluations, self.episodes, self.threads)


# ---- arithmetic


def by_processor(run: dict[str, Any]) -> dict[str, Any]:
    """The same training with the processor's seconds in place of elapsed ones."""
    share = run["cpu_share"]
    rows = [{**row, "train_seconds": share * row["train_seconds"]} for row in run["curve"]]
    return {**run, "curve": rows}


def score_at(curve: list[dict[str, Any]], seconds: float) -> float | None:
    """Score after so many training seconds, linear between the evaluations before and after.

    None before the first evaluation and after the last: nothing is extrapolated.
    """
    times = [row["train_seconds"] for row in curve]
    if not times[0] <= seconds <= times[-1]:
        return None
    return float(np.interp(seconds, times, [row["score"] for row in curve]))


def seconds_to_share(curve: list[dict[str, Any]], share: float = SHARE) -> float | None:
    """Training seconds after which a share of the run's own final score is first reached.

    Linear between two evaluations. The time of the first evaluation, an upper bound, where that
    reaches it already. None for a final score that is not positive.
    """
    final = curve[-1]["score"]
    if final <= 0:
        return None
    bar = share * final
    reached = next(index for index, row in enumerate(curve) if row["score"] >= bar)
    after = curve[reached]
    if reached == 0:
        return float(after["train_seconds"])
    before = curve[reached - 1]
    part = (bar - before["score"]) / (after["score"] - before["score"])
    gap = after["train_seconds"] - before["train_seconds"]
    return float(before["train_seconds"] + part * gap)


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The numbers of one dataset.

    Args:
        runs: contender -> its finished trainings, one for each seed.

    Returns:
        `equal_seconds`, the length of the shortest training of all, and for each contender lists
        of numbers, one for each seed.
    """
    every = [run for each in runs.values() for run in each]
    equal = min(run["curve"][-1]["train_seconds"] for run in every)
    found: dict[str, Any] = {}
    for name, each in runs.items():
        curves = [run["curve"] for run in each]
        totals = [curve[-1]["train_seconds"] for curve in curves]
        found[name] = {
            "seeds": [run["seed"] for run in each],
            "parameters": each[0]["parameters"],
            "final_score": [curve[-1]["score"] for curve in curves],
            "score_at_equal_seconds": [score_at(curve, equal) for curve in curves],
            "train_seconds": totals,
            "seconds_to_90_percent": [seconds_to_share(curve) for curve in curves],
            "first_evaluation_seconds": [curve[0]["train_seconds"] for curve in curves],
            "ms_per_update": [
                1e3 * total / curve[-1]["update"]
                for total, curve in zip(totals, curves, strict=True)
            ],
            "cpu_share": [run["cpu_share"] for run in each],
            "runs": each,
        }
    return {"equal_seconds": equal, "contenders": found}


# ---- running


def trained(
    contender: Contender, who: dict[str, Any], file: Path, console: Console
) -> dict[str, Any]:
    """A training's record: the one in its file, if its settings are these, else a new one."""
    settings = json.loads(json.dumps({"threads": torch.get_num_threads(), **contender.settings()}))
    title = f"{who['contender']} on {who['dataset']}, seed {who['seed']}"
    if file.exists():
        stored: dict[str, Any] = read_json(file)
        if stored["settings"] == settings:
            console.print(f"{title}: done before")
            return stored
        console.print(f"{title}: done before with other settings; again")
    scratch = file.with_suffix(".running")
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed command has left
    scratch.mkdir(parents=True)
    before = os.getloadavg()[0]
    result = contender.run(scratch)
    load = {"before": before, "after": os.getloadavg()[0]}
    record = {**who, "load_average": load, **result, "settings": settings}
    write_json(file, record)
    shutil.rmtree(scratch)
    last = result["curve"][-1]
    console.print(f"{title}: {last['score']:.1f} after {last['train_seconds']:.1f} s")
    return record


def run(config: LearningConfig, console: Console) -> dict[str, Any]:
    """Train all that is not yet trained; the results, as JSON."""
    plan = config.plan()
    left_out = [n for n in config.contenders if n.startswith("d3rlpy") and not config.d3rlpy_python]
    names = [name for name in config.contenders if name not in left_out]
    if left_out:
        console.print(f"left out for want of --d3rlpy-python: {', '.join(left_out)}")
    if not names:
        raise UserError("--contenders: nobody is left without --d3rlpy-python")
    torch.set_num_threads(config.threads)
    order = list(itertools.product(config.seeds, config.datasets, names))
    ready = {  # all are set up before the first is trained, so that mistakes show at once
        key: make_contender(key[2], key[1], key[0], plan, config.d3rlpy_python) for key in order
    }
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {
        dataset: {name: [] for name in names} for dataset in config.datasets
    }
    folder = config.work / f"updates-{plan.updates}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", f"--work {config.work}: another process is training there"):
        for (seed, dataset, name), contender in ready.items():
            who = {"contender": name, "dataset": dataset, "seed": seed}
            place = dataset.strip("/").replace("/", "-").replace(":", "-")
            file = folder / f"{name}_{place}_seed-{seed}.json"
            record = trained(contender, who, file, console)
            runs[dataset][name].append(
                by_processor(record) if config.clock == "processor" else record
            )
    return {
        "settings": json.loads(json.dumps(dataclasses.asdict(config), default=str)),
        "left_out": left_out,
        "d3rlpy_versions": config.d3rlpy_python and d3rlpy_versions(config.d3rlpy_python),
        "datasets": {dataset: summarise(each) for dataset, each in runs.items()},
    }


def main(config: LearningConfig) -> None:
    """Run the benchmark."""
    console = Console(width=130)
    config = config.reduced()
    results = run(config, console)
    console.print(describe_machine())
    report(results, config.clock, console)
    path = save("learning-quick" if config.quick else "learning", results, config.out)
    draw(results["datasets"], path.with_suffix(".png"))
    console.print(f"written to {path}")


if __name__ == "__main__":
    try:
        main(tyro.cli(LearningConfig))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    except Interrupted:
        raise SystemExit("interrupted; start the same command again to go on") from None
