"""The settings of comparisons, benchmarks and reports; the command line is made from them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from aaren_rl.errors import UserError
from aaren_rl.evaluation.noninferiority import DEFAULT_MARGIN
from aaren_rl.records import check_counts, require
from aaren_rl.registry import load_plugins
from aaren_rl.training.config import TrainConfig, TrainSettings, agent_class

if TYPE_CHECKING:
    from aaren_rl.data import TrajectoryDataset


@dataclass(frozen=True)
class CompareConfig(TrainSettings):
    """Train several agents with several seeds on one dataset and compare them in TensorBoard.

    Each run is a folder OUT/AGENT/seed-N as `train` makes it; OUT/AGENT/mean holds the mean over
    seeds with its 95% interval (with fewer than 5 seeds, their range), OUT/AGENT/acting-* what
    acting costs by environment step, OUT/comparison.json the table, in which each agent is compared
    with the first, seed by seed. Example: aaren-rl compare --dataset aaren-rl/hopper-small-v0
    --seeds 0 1 2 3 4 --updates 1500 --out runs/comparison
    """

    agents: tuple[str, ...] = ("decision-aaren", "decision-transformer")
    """Agents to compare."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds to train each agent with."""
    out: Path = Path("runs/comparison")
    """Folder of the comparison: point TensorBoard here."""
    margin: float = DEFAULT_MARGIN
    """How many normalised points an agent may lie below the first and still be called not worse;
    words are given from 5 seeds, and only where scores are normalised."""
    resume: bool = False
    """Resume a comparison that was stopped; finished runs are kept as they are."""

    def check(self) -> None:
        """Raise `UserError` for a value that cannot work, naming its flag."""
        super().check()
        for name in ("agents", "seeds"):
            values = getattr(self, name)
            once = len(set(values)) == len(values) > 0
            require(self, name, once, "must be at least one, each once")
        fits = math.isfinite(self.margin) and self.margin > 0
        require(self, "margin", fits, "must be positive and finite")
        check_one_dataset(self.dataset, "--dataset")
        check_results(self)
        # What no agent can use is a mistake, reported as `train` reports it.
        agents = [agent_class(agent, "--agents") for agent in self.agents]
        if not any(agent.has_memory for agent in agents):
            agents[0].check_request(mode=self.mode)
        if not any(agent.asks_return for agent in agents):
            agents[0].check_request(target_return=self.target_return)
        mixer = self.model.mixer
        for name, agent in zip(self.agents, agents, strict=True):
            own = getattr(agent, "mixer", mixer)
            if name.startswith("decision-") and mixer not in ("", own):
                raise UserError(
                    f"--mixer {mixer} would take the place of {name}'s; give decision-{mixer} in "
                    "--agents"
                )
        for each in self.agents:
            for seed in self.seeds:
                self.run(each, seed).check()

    def run(self, agent: str, seed: int) -> TrainConfig:
        """The config of one of the runs.

        A mode or target returns go to the agents that they mean something to.
        """
        shared: dict[str, Any] = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(TrainSettings)
        }
        if not agent_class(agent).has_memory:
            shared["mode"] = None
        if not agent_class(agent).asks_return:
            shared["target_return"] = ()
        folder = self.out / agent / f"seed-{seed}"
        shared |= {"agent": agent, "seed": seed, "out": folder, "resume": self.resume}
        return TrainConfig(**shared)


def check_results(settings: TrainSettings, data: TrajectoryDataset | None = None) -> None:
    """Raise `UserError` for runs that would have neither scores nor errors to be compared by.

    `data` are those in memory, which need not have an environment.
    """
    if settings.held_out > 0:
        return
    missing = settings.environment == "none"
    if settings.environment is None and data is not None:
        from aaren_rl.envs import environment_of  # imports PyTorch, which --help does not

        try:
            environment_of(data)
        except UserError:
            missing = True
    if missing:
        raise UserError(
            "without an environment (--environment) and without held-out episodes (--held-out) "
            "there is nothing to compare"
        )


def check_one_dataset(dataset: str, where: str) -> None:
    """Raise `UserError` for several datasets in one: results would mix the tasks of an agent."""
    from aaren_rl.data.mixture import weighted_names  # imports PyTorch, which --help does not

    if len(weighted_names(dataset)) > 1:
        raise UserError(f"{where} {dataset}: one dataset expected; aaren-rl train takes several")


@dataclass(frozen=True)
class BenchmarkConfig:
    """Train and evaluate tasks x agents x seeds as a spec says, then write the report.

    The same command again resumes what was stopped; finished runs are not repeated.
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
    """Runs at the same time; by default one for each GPU, or for each core. More than one needs
    Ray (extra `ray`); without it, runs are done one after the other."""
    ray: str | None = None
    """Run on a Ray cluster: its address, or `auto` (also `--ray` alone) for the one that runs on
    this machine, or `local` for a new one."""
    plugin: tuple[str, ...] = ()
    """Module that registers own agents, mixers, encoders, sources or loggers; it is imported first.
    Give the flag again for several."""
    dry_run: bool = False
    """Only say what there is to do."""

    def check(self) -> None:
        """Load the plug-ins; raise `UserError` for a value that cannot work, naming its flag."""
        load_plugins(self.plugin)
        check_counts(self, "workers")


@dataclass(frozen=True)
class ReportConfig:
    """Report on a benchmark's folder, finished or not.

    Leaves report.html (one file that needs no network), report.md with pictures/, scores.tex and
    report.json in --out, and the pictures in TensorBoard. Example: aaren-rl report runs/zoo
    """

    runs: Annotated[Path, tyro.conf.Positional]
    """Folder of a benchmark."""
    out: Path | None = None
    """Folder to write to; by default RUNS/report."""
    videos: bool = False
    """Also record an episode of each agent on each task, with the first seed (extra `video`)."""
    plugin: tuple[str, ...] = ()
    """Module that registers the agents or mixers that the benchmark used; it is imported first.
    Give the flag again for several."""

    @property
    def folder(self) -> Path:
        """Where the report goes."""
        return self.out or self.runs / "report"


@dataclass(frozen=True)
class QuickstartConfig:
    """Train Decision Aaren and Decision Transformer on the Hopper data inside the package.

    Then act with both and print the scores. A second call resumes a first one that was stopped.
    """

    out: Path = Path("runs/quickstart")
    """Folder to leave the runs and summary.json in."""
    updates: int = 600
    """Gradient updates for each agent."""
    episodes: int = 10
    """Episodes for each row of the table."""
    seed: int = 0
    """Seed of everything random."""
