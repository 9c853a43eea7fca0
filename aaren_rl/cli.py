"""The command line: one subcommand an action, made by tyro from the config dataclasses."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from aaren_rl.benchmark import BenchmarkConfig, benchmark
from aaren_rl.collect import CollectConfig, collect
from aaren_rl.convert import ConvertConfig, convert
from aaren_rl.data import load_trajectories
from aaren_rl.errors import UserError
from aaren_rl.evaluation import EvaluateConfig, evaluate, normalized_scores
from aaren_rl.export import ExportConfig, export
from aaren_rl.files import read_json
from aaren_rl.report import ReportConfig
from aaren_rl.report import report as write_report
from aaren_rl.report.tables import status_words
from aaren_rl.report.verdict import bounded
from aaren_rl.runtime.card import card_path
from aaren_rl.training import (
    CompareConfig,
    Interrupted,
    TrainConfig,
    compare,
    from_preset,
    train,
)
from aaren_rl.training.quickstart import (
    COLUMNS,
    QUICKSTART_DATASET,
    QuickstartConfig,
    quickstart,
)
from aaren_rl.training.run import CONFIG_FILE, is_leader

EXIT_USER_ERROR, EXIT_INTERRUPTED = 2, 130
C = TypeVar("C")


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of `aaren-rl`. Returns the exit code."""
    arguments = list(sys.argv[1:] if args is None else args)
    commands = {
        "train": TrainConfig,
        "evaluate": EvaluateConfig,
        "compare": CompareConfig,
        "quickstart": QuickstartConfig,
        "export": ExportConfig,
        "collect": CollectConfig,
        "convert": ConvertConfig,
        "benchmark": BenchmarkConfig,
        "report": ReportConfig,
    }
    if arguments[:1] and arguments[0] in commands:
        name = arguments[0]
        return run(commands[name], arguments[1:], prog=f"aaren-rl {name}")
    everything = tyro.extras.subcommand_cli_from_dict  # only to print the help of all
    try:
        parse(lambda: everything(dict(commands), args=arguments, prog="aaren-rl"))
    except UserError as error:
        return report(error)
    return 0


def run(kind: type[C], args: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Read a config of this kind from the command line and do what it says.

    Args:
        kind: a key of `ACTIONS`.
        args: the command line's words; those of this process when `None`.
        prog: the name to show in the help.

    Returns:
        The exit code: 0, 2 for a user's mistake, 130 when interrupted.
    """
    arguments = with_value("--ray", "auto", sys.argv[1:] if args is None else args)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        default: Any = starting_point(kind, arguments)
        config = parse(lambda: tyro.cli(kind, args=arguments, prog=prog, default=default))
        ACTIONS[kind](config)
    except UserError as error:
        return report(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        return report(
            UserError(f"out of memory ({reason}): lower --batch-size, --context-length or --width")
        )
    except Interrupted as stop:
        print(f"{stop}; all is saved, --resume goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def report(error: UserError) -> int:
    """Print a user's mistake; returns the exit code."""
    print(f"error: {error}", file=sys.stderr)
    return EXIT_USER_ERROR


def is_out_of_memory(error: Exception) -> bool:
    """Numpy, torch on a CPU and torch on a GPU say it each in its own way."""
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or "can't allocate memory" in str(error)


def parse(parser: Callable[[], C]) -> C:
    """Call tyro; what it says of wrong flags in a box of several lines, say in one.

    Raises:
        UserError: for flags that tyro refuses.
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return parser()
    except SystemExit as stop:
        if stop.code != EXIT_USER_ERROR:  # such as --help
            raise
    lines = [line.strip("│ ") for line in re.sub(r"\x1b\[[\d;]*m", "", box.getvalue()).splitlines()]
    # A title, what is wrong, a rule, and further help.
    what = itertools.takewhile(lambda line: not line.startswith("─"), lines[1:])
    raise UserError(f"{' '.join(what).rstrip('.')}; see --help")


def starting_point(kind: type, arguments: Sequence[str]) -> Any:
    """What flags that are not given are taken from: a saved run, a preset, or nothing special."""
    default = saved_config(arguments, SAVED[kind]) if kind in SAVED else None
    preset = value_of("--preset", arguments)
    if default is None and preset is not None and kind in (TrainConfig, CompareConfig):
        return from_preset(kind, preset)
    return default


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The word behind a flag (the last, if it is given twice), read before tyro reads them all."""
    value = None
    for word, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        if word == flag:
            value = following
        elif word.startswith(f"{flag}="):
            value = word.removeprefix(f"{flag}=")
    return value


def with_value(flag: str, value: str, arguments: Sequence[str]) -> list[str]:
    """The words with a value put behind a flag that stands alone: tyro wants one."""
    words = list(arguments)
    for place in range(len(words) - 1, -1, -1):
        if words[place] == flag and (words[place + 1 :] or ["--"])[0].startswith("--"):
            words.insert(place + 1, value)
    return words


SAVED: dict[type, Callable[[dict[str, Any], Path], Any]] = {
    TrainConfig: TrainConfig.from_json,
    CollectConfig: CollectConfig.from_json,
}
"""Configs that a run keeps in its folder, and how they are read."""


def saved_config(arguments: Sequence[str], from_json: Callable[[dict[str, Any], Path], Any]) -> Any:
    """With `--resume --out DIR`, the run's own config: flags not given are taken from there."""
    out = value_of("--out", arguments)
    if "--resume" not in arguments or out is None:
        return None
    folder = Path(out)
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(f"--resume --out {folder}: no run there to go on with")
    return from_json(read_json(folder / CONFIG_FILE), folder / CONFIG_FILE)


def _train(config: TrainConfig) -> None:
    summary = train(config)
    if not summary:  # not the first of several processes
        return
    title = (
        f"{summary['agent']} on {summary['dataset']}, {summary['updates']} updates, "
        f"{summary['train_seconds']:.0f} s of training"
    )
    if summary["scores"]:
        rows = [{"mode": summary["mode"], **row} for row in summary["scores"]]
        columns = ["mode", "target_return", "score_mean", "score_std", "return_mean"]
        print_rows(title, rows, [*columns, "length_mean"])
    else:
        print(title)
    folder = config.run_folder
    print(f"run: {folder}\nlook at it: tensorboard --logdir {folder}")


def _evaluate(config: EvaluateConfig) -> None:
    result = evaluate(config)
    columns = ["agent", "mode", "target_return", "score_mean", "score_std", "return_mean"]
    print_rows(str(config.run), result["rows"], [*columns, "length_mean", "episodes"])
    if "video" in result:
        print(f"video: {result['video']}")


def _compare(config: CompareConfig) -> None:
    rows = compare(config)
    if not is_leader():
        return
    bounds = rows[0]["bounds"] if rows else "range"
    columns = ["agent", "mode", "target_return", "score_mean", bounds, "difference", "verdict"]
    print_rows(
        f"{config.dataset}, seeds {' '.join(map(str, config.seeds))}: mean and {bounds}; "
        f"difference to {config.agents[0]}, paired by seed, margin {config.margin:g}",
        [_comparison_row(row) for row in rows],
        [*columns, "parameters", "train_seconds"],
    )
    print(f"look at it: tensorboard --logdir {config.out}")


def _comparison_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `comparison.json` with its ends and its difference as text."""
    ends = f"{row['score_low']:,.1f} to {row['score_high']:,.1f}"
    difference = row["difference"]
    if difference is None:
        return {**row, row["bounds"]: ends, "difference": None, "verdict": None}
    return {
        **row,
        row["bounds"]: ends,
        "difference": bounded(difference),
        "verdict": status_words(difference),
    }


def _quickstart(config: QuickstartConfig) -> None:
    rows = quickstart(config)
    data = load_trajectories(QUICKSTART_DATASET)
    mean = float(np.mean(normalized_scores(data.episode_returns, data.reference_scores)))
    print_rows(
        f"{data.name}: normalised score; the data's own episodes have {mean:.1f} on average",
        rows,
        list(COLUMNS),
    )
    print(
        f"written to {config.out / 'summary.json'}\n"
        f"curves side by side: .venv/bin/tensorboard --logdir {config.out}, "
        "then http://localhost:6006"
    )


def _export(config: ExportConfig) -> None:
    card = export(config)
    agreement = card.checks["agreement"]
    before = " before quantising" if config.dynamic_int8 else ""
    print(
        f"{config.out}: {card.kind}, {card.precision}, {card.bytes:,} bytes\n"
        f"as PyTorch within {agreement['largest_difference']:.1e} over {agreement['steps']} steps "
        f"and {agreement['episodes']} episodes{before}\n"
        f"card: {card_path(config.out)}"
    )
    if "dynamic_int8" in card.checks:
        loss = card.checks["dynamic_int8"]
        print(
            f"score {loss['score_float32']:.2f} in float32, {loss['score_int8']:.2f} in int8: "
            f"{loss['score_loss']:.2f} lost, over the same {loss['episodes']} episodes"
        )


def _collect(config: CollectConfig) -> None:
    rows = collect(config)
    title = f"{config.environment}, written to {config.minari_root}"
    print_rows(title, rows, ["dataset", "steps", "episodes", "return_mean", "score_mean"])
    print(f"training: {config.run_folder}")


def _benchmark(config: BenchmarkConfig) -> None:
    sweep = benchmark(config)
    if config.dry_run:
        for unit in sweep.todo:
            print(unit.name)
        print(f"{len(sweep.todo)} of {sweep.asked} runs to do")
        return
    _report(ReportConfig(sweep.out))


def _report(config: ReportConfig) -> None:
    print(
        f"{write_report(config)}\n"
        f"report: {config.folder / 'report.html'} (also .md, .json, scores.tex)\n"
        f"look at it: tensorboard --logdir {config.runs}"
    )


ACTIONS: dict[type, Callable[[Any], None]] = {
    TrainConfig: _train,
    EvaluateConfig: _evaluate,
    CompareConfig: _compare,
    QuickstartConfig: _quickstart,
    ExportConfig: _export,
    CollectConfig: _collect,
    ConvertConfig: lambda config: print(convert(config)),
    BenchmarkConfig: _benchmark,
    ReportConfig: _report,
}


def print_rows(title: str, rows: list[dict[str, Any]], columns: list[str]) -> None:
    """Print a table to standard output."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        numeric = all(isinstance(row[column], (int, float)) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    # A pipe has no width: rich would cut the table to 80 columns there.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)
