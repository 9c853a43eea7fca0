"""What the three settings share: options, one training loop, and tables that compare mixers."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from aaren_rl.cli import report as report_mistake
from aaren_rl.errors import UserError
from aaren_rl.evaluation.statistics import Estimate, mean_interval, paired_difference
from aaren_rl.files import check_file, read_json, write_json
from aaren_rl.layers import MIXERS, SequenceModel
from aaren_rl.options import parse
from aaren_rl.registry import load_plugins
from aaren_rl.training.build import resolved_precision
from aaren_rl.training.learner import make_optimizer
from aaren_rl.training.progress import TrainingProgress

Row = dict[str, Any]
C = TypeVar("C")
FREE = ("data", "sets", "horizons", "mixer", "plugin", "seeds", "json", "logs")
"""Settings that may differ between the rows of one file of results."""


@dataclass(frozen=True)
class Settings:
    """Options of all three settings; each of them has its own defaults."""

    data: Path | None = None
    """Folder with the public files."""
    sets: tuple[str, ...] = ("generated",)
    """Data sets; `generated` needs no files."""
    mixer: tuple[str, ...] = ("aaren", "attention")
    """Sequence mixers; each is compared with the last."""
    plugin: tuple[str, ...] = ()
    """Modules that register further mixers."""
    seeds: int = 3
    """Seeds of each mixer, from 0 on."""
    quick: bool = False
    """Train little on the generated set, to see everything work in less than a minute."""
    json: Path | None = None
    """File for the results; what is there already isn't run again."""
    logs: Path | None = None
    """Folder for TensorBoard."""
    width: int = 64
    """Size of a token."""
    layers: int = 2
    """Blocks."""
    heads: int = 4
    """Heads, for mixers that have any."""
    dropout: float = 0.1
    """Share of each residual branch dropped in training."""
    epochs: int = 10
    """Most passes over the training part."""
    patience: int = 3
    """Passes without a better validation before training stops."""
    batch_size: int = 32
    """Sequences or windows of an update."""
    learning_rate: float = 1e-3
    """Of AdamW, at the first pass."""
    decay: float = 1.0
    """Factor of the learning rate from one pass to the next."""
    weight_decay: float = 1e-2
    """Of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradients."""
    precision: Literal["auto", "32", "bf16"] = "auto"
    """Arithmetic in training, as for `aaren-rl train`."""
    device: str = "cpu"
    """Where to train."""

    def fixed(self) -> dict[str, Any]:
        """The settings that all rows of one file of results must share."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in FREE}


class Task(ABC):
    """A data set with a model for it.

    Attributes:
        name: as it is called in the table.
        metrics: names of what is measured; mixers are compared by the first.
        relative: whether differences are told in percent of the rival, else in points of 100.
    """

    name: str
    metrics: tuple[str, ...]
    relative = True

    @abstractmethod
    def model(self, mixer: str) -> nn.Module:
        """A new model."""

    @abstractmethod
    def batches(self, generator: torch.Generator) -> Iterator[Any]:
        """The training part once, in random order."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """What training minimises."""

    @abstractmethod
    def validate(self, model: nn.Module) -> float:
        """What is minimised on the validation part, to stop training early."""

    @abstractmethod
    def test(self, model: nn.Module) -> dict[str, float]:
        """The metrics on the test part."""

    @abstractmethod
    def baselines(self) -> dict[str, dict[str, float]]:
        """Metrics of simple predictions, on the test part."""


def sequence_model(settings: Settings, mixer: str) -> SequenceModel:
    """The blocks of all three models; only the mixer in them differs."""
    options = MIXERS[mixer].options
    has_heads = options is not None and any(f.name == "heads" for f in dataclasses.fields(options))
    return SequenceModel(
        mixer,
        settings.width,
        layers=settings.layers,
        dropout=settings.dropout,
        activation="gelu",
        **({"heads": settings.heads} if has_heads else {}),
    )


def sinusoids(times: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Sines and cosines of times `[...]` at rates from 1 down to 1 / longest: `[..., width]`.

    Vaswani et al. 2017. In float64 before the sine, since times may be large.
    """
    rates = longest ** -torch.linspace(0, 1, width // 2, dtype=torch.float64, device=times.device)
    angles = times.double()[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


def fit(task: Task, mixer: str, seed: int, settings: Settings) -> Row:
    """Train one model until its validation gets no better, and test the best one."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = task.model(mixer).to(settings.device)
    optimizer = make_optimizer(model, settings.learning_rate, settings.weight_decay)
    bf16 = resolved_precision(settings) == "bf16"  # type: ignore[arg-type]
    title, start = f"{task.name}, {mixer}, seed {seed}", time.process_time()
    best, best_epoch, weights = (
        evaluated(task.validate, model),
        0,
        copy.deepcopy(model.state_dict()),
    )
    epoch = 0
    with (
        TrainingProgress(title, settings.epochs, 0) as progress,
        tensorboard(settings.logs, title) as write,
    ):
        for epoch in range(1, settings.epochs + 1):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * settings.decay ** (epoch - 1)
            losses = []
            for batch in task.batches(generator):
                with torch.autocast(settings.device, torch.bfloat16, enabled=bf16):
                    loss = task.loss(model, batch)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
                optimizer.step()
                losses.append(loss.detach())
            validation = evaluated(task.validate, model)
            train_loss = float(torch.stack(losses).mean())
            write({"loss/train": train_loss, "loss/validation": validation}, epoch)
            progress.update(epoch, train_loss)
            if validation < best:
                best, best_epoch = validation, epoch
                weights = copy.deepcopy(model.state_dict())
            elif epoch - best_epoch >= settings.patience:
                break
        model.load_state_dict(weights)
        results = evaluated(task.test, model)
        write({f"test/{name}": value for name, value in results.items()}, epoch)
    return {
        "task": task.name,
        "mixer": mixer,
        "seed": seed,
        **results,
        "validation": best,
        "epochs": epoch,
        "best_epoch": best_epoch,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


T = TypeVar("T")


def evaluated(measure: Callable[[nn.Module], T], model: nn.Module) -> T:
    """What a function gives for a model in evaluation mode, in float32."""
    model.eval()
    with torch.inference_mode():
        result = measure(model)
    model.train()
    return result


@contextlib.contextmanager
def tensorboard(
    folder: Path | None, name: str
) -> Iterator[Callable[[dict[str, float], int], None]]:
    """A function that writes numbers for TensorBoard, or does nothing without a folder."""
    if folder is None:
        yield lambda values, step: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / name.replace(", ", "-").replace(" ", "-")) as writer:

        def write(values: dict[str, float], step: int) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, step)

        yield write


def compare(tasks: list[Task], settings: Settings) -> list[Row]:
    """Run all tasks, seeds and mixers that aren't in the file of results yet, and print tables."""
    if settings.json is not None:
        check_file(settings.json, "--json")
    for mixer in settings.mixer:
        MIXERS[mixer]  # an unknown one is reported before anything is trained
    old = read_json(settings.json) if settings.json is not None and settings.json.exists() else {}
    if old and old.get("settings") != settings.fixed():
        raise UserError(f"--json {settings.json}: results of other settings; give another file")
    rows: list[Row] = old.get("rows", [])
    baselines: dict[str, Any] = old.get("baselines", {})
    for task in tasks:
        baselines[task.name] = task.baselines()
        for seed in range(settings.seeds):
            for mixer in settings.mixer:
                key = (task.name, mixer, seed)
                if all((row["task"], row["mixer"], row["seed"]) != key for row in rows):
                    rows.append(fit(task, mixer, seed, settings))
                    if settings.json is not None:
                        content = {
                            "settings": settings.fixed(),
                            "baselines": baselines,
                            "rows": rows,
                        }
                        write_json(settings.json, content)
    show(tasks, settings, rows, baselines)
    return rows


def scores(rows: list[Row], task: Task, mixer: str, metric: str, seeds: int) -> np.ndarray:
    """One metric of a mixer, `[seeds]`."""
    mine = {r["seed"]: r[metric] for r in rows if (r["task"], r["mixer"]) == (task.name, mixer)}
    return np.array([mine[seed] for seed in range(seeds)])


def difference(rows: list[Row], tasks: list[Task], mixer: str, settings: Settings) -> Estimate:
    """The first metric of a mixer against the last mixer's: percent of it, or points of 100.

    Of several tasks the mean, seed by seed.
    """
    pairs = [
        [scores(rows, t, m, t.metrics[0], settings.seeds) for m in (mixer, settings.mixer[-1])]
        for t in tasks
    ]
    units = [100 / abs(theirs.mean()) if tasks[0].relative else 100.0 for _, theirs in pairs]
    ours, theirs = (
        np.mean([p[i] * u for p, u in zip(pairs, units, strict=True)], axis=0) for i in (0, 1)
    )
    return paired_difference(ours, theirs)


def text(estimate: Estimate, digits: int = 4, sign: str = "") -> str:
    """A number with its interval or range."""
    value = f"{estimate.value:{sign}.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{estimate.low:{sign}.{digits}f}, {estimate.high:{sign}.{digits}f}]"


def show(tasks: list[Task], settings: Settings, rows: list[Row], baselines: dict[str, Any]) -> None:
    """Print a table for each task, and the paired differences."""
    console, last = Console(width=120), settings.mixer[-1]
    unit = "%" if tasks[0].relative else "points"
    for task in tasks:
        table = Table(title=f"{task.name} ({settings.seeds} seeds)", title_justify="left")
        for column in ("model", *task.metrics, "parameters", "core seconds"):
            table.add_column(column, justify="left" if column == "model" else "right")
        for name, values in baselines[task.name].items():
            table.add_row(name, *(f"{values[m]:.4f}" if m in values else "" for m in task.metrics))
        for mixer in settings.mixer:
            mine = [scores(rows, task, mixer, metric, settings.seeds) for metric in task.metrics]
            of = [row for row in rows if (row["task"], row["mixer"]) == (task.name, mixer)]
            seconds = np.mean([row["cpu_seconds"] for row in of])
            numbers = (text(mean_interval(values)) for values in mine)
            table.add_row(mixer, *numbers, f"{of[0]['parameters']:,}", f"{seconds:.0f}")
        console.print(table)
    for mixer in settings.mixer[:-1]:
        for names, group in [*((t.name, [t]) for t in tasks), ("all", tasks)]:
            estimate = difference(rows, group, mixer, settings)
            console.print(
                f"{names}: {tasks[0].metrics[0]} of {mixer} less that of {last}: "
                f"{text(estimate, 2, '+')} {unit} ({estimate.bounds})"
            )


def run(kind: type[C], action: Callable[[C], object]) -> None:
    """Read the command line and do it; a mistake is told in one line, with exit code 2."""
    try:
        settings = parse(kind, sys.argv[1:], prog=Path(sys.argv[0]).name)
        load_plugins(settings.plugin)  # type: ignore[attr-defined]
        action(settings)
    except UserError as error:
        sys.exit(report_mistake(error))
