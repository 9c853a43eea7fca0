"""Loggers: where a run's metrics go; and the metrics' names, the same for every agent."""

from __future__ import annotations

import csv
import importlib
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aaren_rl.errors import UserError
from aaren_rl.registry import Registry
from aaren_rl.training.run_folder import METRICS_FILE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

    from aaren_rl.evaluation import Score


@dataclass(frozen=True)
class RunInfo:
    """A run, as loggers get it.

    Attributes:
        name: such as `decision-aaren on aaren-rl/hopper-small-v0`.
        folder: the run's folder; `None` for a run that does not touch the disk.
        settings: all settings on one level; those that are `None` are left out.
        groups: prefixes of the evaluations' tags.
        done: updates done before, 0 for a new run. Entries of later updates, which a process that
            died may have left, are to be replaced.
        varying: the settings in which the runs of a comparison differ; `None` for a single run.
    """

    name: str
    folder: Path | None
    settings: dict[str, bool | int | float | str]
    groups: Sequence[str]
    done: int = 0
    varying: frozenset[str] | None = None


class Logger:
    """Base class of loggers: override what the destination can hold.

    >>> class Losses(arl.Logger):
    ...     def __init__(self):
    ...         self.losses = []
    ...
    ...     def scalars(self, values, step):
    ...         self.losses += [values[tag] for tag in ["training/loss"] if tag in values]
    >>> logger = Losses()
    >>> data = arl.load_dataset("aaren-rl/hopper-small-v0")
    >>> run = arl.train(data, env="none", loggers=[logger], log_every=1, updates=2)
    >>> len(logger.losses)
    2

    Methods are called in this order: `start`, then any number of `scalars` and `figure`, `finish`
    unless the training fails, `close` always.
    """

    def start(self, run: RunInfo) -> None:
        """Begin to log a run, or to log a resumed one."""

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Log numbers by tag, such as `training/loss`, after update `step`."""

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        """Log a matplotlib figure after update `step`."""

    def finish(self, metrics: dict[str, float], step: int) -> None:
        """Log the run's results, by tags such as `final/score`."""

    def close(self) -> None:
        """Write what is not written yet."""


class TensorBoardLogger(Logger):
    """TensorBoard's event files, with a custom-scalars page and a row in the HParams tab.

    >>> data = arl.load_dataset("aaren-rl/hopper-small-v0")
    >>> logger = arl.TensorBoardLogger("events")  # then: tensorboard --logdir events
    >>> run = arl.train(data, env="none", loggers=[logger], updates=2)

    Args:
        folder: where to; the run's folder when `None`.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = folder

    def start(self, run: RunInfo) -> None:
        """Open an event file; what was logged after `run.done` is purged."""
        from torch.utils.tensorboard import SummaryWriter

        folder = _destination(self.folder, run, "TensorBoardLogger(folder)")
        shown = run.settings.keys() if run.varying is None else run.varying
        self._settings = {name: v for name, v in run.settings.items() if name in shown}
        self._hook = threading.excepthook
        threading.excepthook = self._without_writers
        self._writer = SummaryWriter(str(folder), purge_step=run.done + 1)
        _sort_last(self._writer)
        self._writer.add_custom_scalars(custom_layout(run.groups))

    def scalars(self, values: dict[str, float], step: int) -> None:
        """As `Logger.scalars`."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)
        if any(not tag.startswith("training/") for tag in values):
            self._writer.flush()

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        """As `Logger.figure`."""
        self._writer.add_figure(tag, figure, step)

    def finish(self, metrics: dict[str, float], step: int) -> None:
        """Write the run's row of the HParams tab: `RunInfo.varying` settings, and its score."""
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(self._settings, metrics):
            self._writer._get_file_writer().add_summary(summary)
        self.scalars(metrics, step)

    def close(self) -> None:
        """Flush and close the event file."""
        try:
            self._writer.close()
        finally:
            threading.excepthook = self._hook

    def _without_writers(self, args: Any) -> None:
        """Leave out errors of the writer's thread: it raises them again at the next event."""
        if type(args.thread).__module__ != "tensorboard.summary.writer.event_file_writer":
            self._hook(args)


def _sort_last(writer: SummaryWriter) -> None:
    """Let the writer's event file sort behind the others in its folder, by a later second.

    TensorBoard reads by name, the second first: the clock may be set back, or a run go on at once.
    """
    events: Any = writer._get_file_writer().event_writer
    own = Path(events._file_name)
    last = max((f.name for f in own.parent.glob("events.out.tfevents.[0-9]*.*")), default="")
    if last > own.name:
        rest = own.name.split(".", 4)[4]
        later = own.with_name(f"events.out.tfevents.{int(last.split('.')[3]) + 1:010d}.{rest}")
        events.flush()  # what is written between the two names would be lost
        own.rename(later)
        events._general_file_writer.filename = os.fsencode(later)  # opened for each event


class CSVLogger(Logger):
    """A table `step,tag,value`, one line for each number.

    >>> data = arl.load_dataset("aaren-rl/hopper-small-v0")
    >>> run = arl.train(data, env="none", loggers=[arl.CSVLogger("metrics.csv")], updates=2)
    >>> open("metrics.csv").readline().strip()
    'step,tag,value'

    Args:
        file: where to; `metrics.csv` in the run's folder when `None`.
    """

    def __init__(self, file: Path | str | None = None) -> None:
        self.file = file

    def start(self, run: RunInfo) -> None:
        """Open the table; lines of updates after `run.done`, and a last one cut short, go."""
        own = None if run.folder is None else run.folder / METRICS_FILE
        path = Path(_destination(self.file, run, "CSVLogger(file)", own))
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = _rows_until(path, run.done) if run.done and path.is_file() else []
        self._file = path.open("w", newline="")
        self._table = csv.writer(self._file)
        self._table.writerows([["step", "tag", "value"], *rows])

    def scalars(self, values: dict[str, float], step: int) -> None:
        """As `Logger.scalars`; numbers keep full precision."""
        self._table.writerows([step, tag, repr(float(value))] for tag, value in values.items())
        self._file.flush()

    def finish(self, metrics: dict[str, float], step: int) -> None:
        """As `Logger.finish`."""
        self.scalars(metrics, step)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class WandbLogger(Logger):
    """Weights & Biases; needs `pip install 'aaren-rl[wandb]'`. A resumed run is a new one there.

    >>> arl.train(data, loggers=[arl.WandbLogger(project="robots")])  # doctest: +SKIP

    Args:
        settings: of `wandb.init`, such as `project="robots"` or `mode="offline"`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = {"project": "aaren-rl", **settings}

    def start(self, run: RunInfo) -> None:
        """Begin a run; `update` is the axis of all its charts."""
        self._wandb = _extra("wandb")
        if run.folder is not None:
            self.settings.setdefault("dir", str(run.folder))
        self._run = self._wandb.init(config=run.settings, name=run.name, **self.settings)
        self._run.define_metric("*", step_metric="update")

    def scalars(self, values: dict[str, float], step: int) -> None:
        """As `Logger.scalars`."""
        self._run.log({**values, "update": step})

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        """As `Logger.figure`, as an image."""
        self._run.log({tag: self._wandb.Image(figure), "update": step})

    def finish(self, metrics: dict[str, float], step: int) -> None:
        """Write the run's summary."""
        self._run.summary.update(metrics)

    def close(self) -> None:
        """Wait until all is written or sent."""
        self._run.finish()


class MLflowLogger(Logger):
    """MLflow; needs `pip install 'aaren-rl[mlflow]'`. A resumed run is a new one there.

    >>> arl.train(data, loggers=[arl.MLflowLogger("robots")])  # doctest: +SKIP

    Args:
        experiment: name of the experiment.
        tracking_uri: such as `http://localhost:5000`; MLflow's own setting when `None`.
    """

    def __init__(self, experiment: str = "aaren-rl", tracking_uri: str | None = None) -> None:
        self.experiment, self.tracking_uri = experiment, tracking_uri

    def start(self, run: RunInfo) -> None:
        """Begin a run; the settings are its parameters."""
        client = _extra("mlflow").MlflowClient(tracking_uri=self.tracking_uri)
        found = client.get_experiment_by_name(self.experiment)
        number = found.experiment_id if found else client.create_experiment(self.experiment)
        self._client, self._run = client, client.create_run(number, run_name=run.name).info.run_id
        for name, value in run.settings.items():
            client.log_param(self._run, name, value)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """As `Logger.scalars`."""
        for tag, value in values.items():
            self._client.log_metric(self._run, tag, value, step=step)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        """As `Logger.figure`, as an artifact."""
        self._client.log_figure(self._run, figure, f"{tag}/{step}.png")

    def finish(self, metrics: dict[str, float], step: int) -> None:
        """As `Logger.finish`; the run counts as finished."""
        self.scalars(metrics, step)
        self._client.set_terminated(self._run, "FINISHED")
        self._run = ""

    def close(self) -> None:
        """Mark a run that did not finish as failed."""
        if self._run:
            self._client.set_terminated(self._run, "FAILED")


LOGGERS: Registry[Any] = Registry("logger")
"""Loggers by the name that `--loggers` takes."""


def register_logger(name: str, cls: type[Logger], *, options: type | None = None) -> type[Logger]:
    """Let `--loggers NAME` and `train(loggers=[NAME])` make a logger.

    >>> class Printed(arl.Logger):
    ...     def finish(self, metrics, step):
    ...         print("updates:", step)
    >>> _ = arl.register_logger("printed", Printed)
    >>> data = arl.load_dataset("aaren-rl/hopper-small-v0")
    >>> run = arl.train(data, env="none", loggers=["printed"], updates=2)
    updates: 2

    Args:
        name: in lower case with hyphens.
        cls: made without arguments, or with the defaults of `options` as keywords.
        options: a dataclass of its settings, each with a default.
    """
    LOGGERS.register(name, cls, options=options)
    return cls


def make_loggers(given: str | Logger | Iterable[str | Logger]) -> list[Logger]:
    """Loggers of these names; a logger stays itself. `UserError` for what is neither."""
    many = [given] if isinstance(given, (str, Logger)) else given
    made = [LOGGERS[x].make(**LOGGERS.options(x, {})) if isinstance(x, str) else x for x in many]
    if wrong := [each for each in made if not isinstance(each, Logger)]:
        raise UserError(f"loggers: names or instances of Logger expected, got {wrong[0]!r:.80}")
    return made


register_logger("tensorboard", TensorBoardLogger)
register_logger("csv", CSVLogger)
register_logger("wandb", WandbLogger)
register_logger("mlflow", MLflowLogger)


def _destination(
    given: Path | str | None, run: RunInfo, argument: str, own: Path | None = None
) -> Path | str:
    place = given or own or run.folder
    if place is None:
        raise UserError(f"{argument}: needed, since the run has no folder (out=None)")
    return place


def _rows_until(file: Path, step: int) -> list[list[str]]:
    """The complete lines of a metrics table up to and including a step, without damaged ones."""
    with file.open(newline="", errors="replace") as lines:
        rows = [next(csv.reader([line]), []) for line in lines if line.endswith("\n")]
    return [row for row in rows if len(row) == 3 and row[0].isdecimal() and int(row[0]) <= step]


def _extra(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        install = f"pip install 'aaren-rl[{module}]'"
        raise UserError(f"logger {module!r}: needs the extra of that name: {install}") from None


def target_tag(target_return: float | None, task: str | None = None) -> str:
    """The group of an evaluation's scalars, `evaluation/target_3600`; another for each target.

    With several tasks their names come before: `evaluation/hopper/medium-v0/target_3600`.
    """
    tag = "evaluation" if task is None else f"evaluation/{task}"
    if target_return is None:
        return tag
    short = f"{target_return:g}"
    return f"{tag}/target_{short if float(short) == target_return else repr(target_return)}"


def custom_layout(tags: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """The custom-scalars page: charts of score (with spread) and length by group, loss, speed."""
    charts: dict[str, list[Any]] = {}
    for tag in tags:
        of_target = tag.replace("evaluation/", ", ").removeprefix("evaluation")
        bounds = [f"{tag}/score", f"{tag}/score_low", f"{tag}/score_high"]
        charts[f"score{of_target}"] = ["Margin", bounds]
        charts[f"episode length{of_target}"] = ["Multiline", [f"{tag}/episode_length"]]
    charts["loss"] = ["Multiline", ["training/loss"]]
    charts["tokens per second"] = ["Multiline", ["training/tokens_per_second"]]
    return {"agents side by side": charts}


def score_scalars(scores: Sequence[Score]) -> dict[str, float]:
    """Scalars of one evaluation by tag: of each target return, and of the first as `evaluation`.

    With several tasks `evaluation` has their `best_score`. The spread is one standard deviation.
    """
    from aaren_rl.evaluation.scores import best_score  # needs PyTorch, which --help does not

    found = {}
    for tag, score in [
        ("evaluation", scores[0] if scores[0].task is None else best_score(scores)),
        *((target_tag(s.target_return, s.task), s) for s in scores),
    ]:
        found[f"{tag}/score"] = score.score_mean
        found[f"{tag}/score_low"] = score.score_mean - score.score_std
        found[f"{tag}/score_high"] = score.score_mean + score.score_std
        found[f"{tag}/return"] = score.return_mean
        found[f"{tag}/episode_length"] = score.length_mean
        if score.success is not None:
            found[f"{tag}/success"] = score.success
    return found


def flat_settings(config: dict[str, Any]) -> dict[str, bool | int | float | str]:
    """A run's settings on one level, as plain values; those that are None are left out.

    TensorBoard's HParams tab can sort and filter a column only when all its values are of one type.
    """
    return {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in flattened(config).items()
        if value is not None
    }


def flattened(config: dict[str, Any]) -> dict[str, Any]:
    """A run's settings with those of the agent (`model`) on the same level."""
    return {name: v for name, v in {**config, **config["model"]}.items() if name != "model"}
