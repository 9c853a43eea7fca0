"""The command line: each command reads its config, imports what it needs, runs, and prints."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aaren_rl import __version__
from aaren_rl.errors import UserError, system_error, unknown
from aaren_rl.options import options_of, parse
from aaren_rl.registry import load_plugins, require_plugins

if TYPE_CHECKING:  # for their types alone: `--help` must not wait for PyTorch
    from aaren_rl.collect import CollectConfig
    from aaren_rl.convert import ConvertConfig
    from aaren_rl.evaluation import EvaluateConfig
    from aaren_rl.experiments.config import (
        BenchmarkConfig,
        CompareConfig,
        QuickstartConfig,
        ReportConfig,
    )
    from aaren_rl.export import ExportConfig
    from aaren_rl.training import FinetuneConfig, TrainConfig

PROG = "aaren-rl"
EXIT_USER_ERROR, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 2, 130, 141
CHOSEN = ("agent", "mixer", "encoder", "head")
"""Settings that name something registered, which may have options of its own."""


class Command(NamedTuple):
    """One command: its config's class as `module:class`, and the function that takes the config."""

    config: str
    action: Callable[[Any], None]

    @property
    def kind(self) -> Any:
        """The config's class, imported when it is needed."""
        module, _, name = self.config.partition(":")
        return getattr(import_module(module), name)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of `aaren-rl`.

    Args:
        args: the command line's words; those of this process when `None`.

    Returns:
        The exit code: 0, 2 for a user's or the operating system's error, 130 when interrupted, 141
        when the output's pipe is closed.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may have letters that it does not know
        sys.stdout.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if args is None else args)
    name = words[0] if words else ""
    if name in COMMANDS:
        with one_line_warnings():
            return run(name, words[1:])
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(PROG, __version__)
        return 0
    if name.startswith("--tyro-"):  # shell completion
        import tyro

        kinds: dict[str, Any] = {n: options_of(each.kind) for n, each in COMMANDS.items()}
        tyro.extras.subcommand_cli_from_dict(kinds, args=words, prog=PROG)
    wrong = unknown("command", name, COMMANDS) if name else f"one of {', '.join(COMMANDS)} expected"
    return report(UserError(f"{wrong}; see {PROG} --help"))


def overview() -> str:
    """The help of `aaren-rl`: every command with the first line of its config's docstring."""
    firsts = {
        name: (inspect.getdoc(each.kind) or "").split("\n")[0] for name, each in COMMANDS.items()
    }
    lines = "\n".join(f"  {name:<12}{first}" for name, first in firsts.items())
    return (
        f"usage: {PROG} COMMAND [OPTIONS]\n\n{lines}\n\n"
        f"{PROG} COMMAND --help shows its options; {PROG} --version the version."
    )


@contextlib.contextmanager
def one_line_warnings() -> Iterator[None]:
    """Inside this context a warning is printed as one line, without its place in the source."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: (
        f"warning: {' '.join(str(message).split())}\n"
    )
    try:
        yield
    finally:
        warnings.formatwarning = before


def run(name: str, words: Sequence[str]) -> int:
    """Run a command with the options behind its name; returns the exit code."""
    from aaren_rl.training.interrupt import Interrupted

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind, action = COMMANDS[name].kind, COMMANDS[name].action
    try:
        words = with_value("--ray", "auto", words)
        early = first_look(words)
        load_plugins(tuple(filter(None, early.plugin)))
        default = starting_point(kind, early)
        chosen = chosen_names(early, default)
        action(parse(kind, words, prog=f"{PROG} {name}", default=default, chosen=chosen))
    except UserError as error:
        return report(error)
    except BrokenPipeError:  # the reader of `aaren-rl ... |` has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return EXIT_BROKEN_PIPE
    except OSError as error:  # such as a full disk
        return report(system_error(error))
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not known and "can't allocate memory" not in str(error):  # PyTorch's on a CPU
            raise
        smaller = "lower --batch-size, --context-length or --width"
        return report(UserError(f"out of memory ({error}): {smaller}"))
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


def first_look(words: Sequence[str]) -> argparse.Namespace:
    """The values of those options on which other options and their defaults depend."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--plugin", action="append", nargs="?", default=[])
    for flag in ("--out", "--preset", *(f"--{kind}" for kind in CHOSEN)):
        parser.add_argument(flag, nargs="?")  # tyro reports a missing value
    return parser.parse_known_args(words)[0]


def chosen_names(early: argparse.Namespace, default: Any) -> dict[str, str]:
    """The names in `CHOSEN`, as given, else as in the config `default`."""
    names = {}
    for kind in CHOSEN:
        before = getattr(default, kind, getattr(getattr(default, "model", None), kind, None))
        names[kind] = getattr(early, kind) or before or ""
    names["mixer"] = names["mixer"] or names["agent"].removeprefix("decision-")
    return names


def starting_point(kind: Any, given: argparse.Namespace) -> Any:
    """Defaults of the options: the saved config with `--resume --out DIR`, else the preset's.

    `None` without either. `given` is what `first_look` returned.
    """
    if given.resume and given.out is not None and hasattr(kind, "from_json"):
        from aaren_rl.files import read_json
        from aaren_rl.training.run_folder import CONFIG_FILE, RunFolder

        file = Path(given.out) / CONFIG_FILE
        if file.is_file():
            config = kind.from_json(read_json(file), file)
        else:  # a checkpoint of a training has the settings too
            from aaren_rl.training.resume import saved_config

            config = saved_config(RunFolder(Path(given.out)))
            if not isinstance(config, kind):
                raise UserError(f"--resume --out {given.out}: no run there to go on with")
        require_plugins(getattr(config, "plugin", ()), f"--resume --out {given.out}")
        return config
    if given.preset is not None and hasattr(kind, "preset"):
        from aaren_rl.training import from_preset

        return from_preset(kind, given.preset)
    return None


def with_value(flag: str, value: str, words: Sequence[str]) -> list[str]:
    """The words with `value` inserted behind a flag without one: tyro needs it."""
    found: list[str] = []
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        found += [word, value] if word == flag and following.startswith("--") else [word]
    return found


def _train(config: TrainConfig) -> None:
    from aaren_rl.training import train

    summary = train(config)
    if summary:  # of the first of several processes
        _show_run(summary, "", config.run_folder)


def _finetune(config: FinetuneConfig) -> None:
    from aaren_rl.training import finetune

    summary = finetune(config)
    played = f"{summary['environment_steps']} environment steps, "
    _show_run(summary, played, config.run_folder)


def _show_run(summary: dict[str, Any], more: str, folder: Path) -> None:
    title = (
        f"{summary['agent']} on {summary['dataset']}, {more}{summary['updates']} updates, "
        f"{summary['train_seconds']:.0f} s of training"
    )
    if summary["scores"]:
        rows = [{"mode": summary["mode"], **row} for row in summary["scores"]]
        columns = ["mode", "target_return", "score_mean", "score_std", "return_mean"]
        print_rows(title, rows, [*columns, *_counted(rows), "length_mean"])
    else:
        print(title)
    print(f"run: {folder}\nlook at it: tensorboard --logdir {folder}")


def _evaluate(config: EvaluateConfig) -> None:
    from aaren_rl.evaluation import evaluate

    if config.runtime == "onnx":
        from aaren_rl.export import onnx_policies

        result = evaluate(config, policies=onnx_policies)
    else:
        result = evaluate(config)
    columns = ["agent", "mode", "target_return", "score_mean", "score_std", "return_mean"]
    rows = [row.to_json() for row in result.rows]
    print_rows(str(config.run), rows, [*columns, *_counted(rows), "length_mean", "episodes"])
    if result.video is not None:
        print(f"video: {result.video}")


def _compare(config: CompareConfig) -> None:
    from aaren_rl.experiments.comparison import compare, shown
    from aaren_rl.training.run import is_leader

    rows = compare(config)
    if is_leader():
        title, cells = shown(config, rows)
        print_rows(title, cells, list(cells[0]))
        print(f"look at it: tensorboard --logdir {config.out}")


def _quickstart(config: QuickstartConfig) -> None:
    import numpy as np

    from aaren_rl.data import load_dataset
    from aaren_rl.evaluation import normalized_scores
    from aaren_rl.experiments.quickstart import COLUMNS, QUICKSTART_DATASET, quickstart

    rows = quickstart(config)
    data = load_dataset(QUICKSTART_DATASET)
    mean = float(np.mean(normalized_scores(data.episode_returns, data.reference_scores)))
    print_rows(
        f"{data.name}: normalised score; the data's own episodes have {mean:.1f} on average",
        rows,
        list(COLUMNS),
    )
    tensorboard = os.path.relpath(Path(sys.executable).with_name("tensorboard"))
    print(
        f"written to {config.out / 'summary.json'}\n"
        f"curves side by side: {tensorboard} --logdir {config.out}, "
        "then http://localhost:6006"
    )


def _export(config: ExportConfig) -> None:
    from aaren_rl.export import export
    from aaren_rl.runtime.card import card_path

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
            f"{loss['score_loss']:.2f} lost, over the same {loss['episodes']} episodes; "
            f"actions differ by up to {loss['largest_action_difference']:.1e}"
        )
    if "size" in card.checks:
        size = card.checks["size"]
        ram = size["state_bytes"] + size["stack_bytes"]
        print(
            f"flash: {size['flash_bytes']:,} bytes of code and constants; RAM: {ram:,} bytes "
            f"(state {size['state_bytes']:,}, stack at most {size['stack_bytes']:,})"
        )


def _collect(config: CollectConfig) -> None:
    from aaren_rl.collect import collect

    rows = collect(config)
    title = f"{config.environment}, written to {config.minari_root}"
    print_rows(title, rows, ["dataset", "steps", "episodes", "return_mean", "score_mean"])
    print(f"training: {config.run_folder}")


def _benchmark(config: BenchmarkConfig) -> None:
    from aaren_rl.experiments import ReportConfig, benchmark

    sweep = benchmark(config)
    if config.dry_run:
        for unit in sweep.todo:
            print(unit.name)
        print(f"{len(sweep.todo)} of {sweep.asked} runs to do")
        return
    _report(ReportConfig(sweep.out, plugin=sweep.spec.plugins))


def _report(config: ReportConfig) -> None:
    from aaren_rl.experiments import report as write_report

    print(
        f"{write_report(config)}\n"
        f"report: {config.folder / 'report.html'} (also .md, .json, scores.tex)\n"
        f"look at it: tensorboard --logdir {config.runs}"
    )


def _convert(config: ConvertConfig) -> None:
    from aaren_rl.convert import convert

    print(convert(config))


COMMANDS: dict[str, Command] = {
    "train": Command("aaren_rl.training.config:TrainConfig", _train),
    "finetune": Command("aaren_rl.training.online.config:FinetuneConfig", _finetune),
    "evaluate": Command("aaren_rl.evaluation.config:EvaluateConfig", _evaluate),
    "compare": Command("aaren_rl.experiments.config:CompareConfig", _compare),
    "quickstart": Command("aaren_rl.experiments.config:QuickstartConfig", _quickstart),
    "export": Command("aaren_rl.export.config:ExportConfig", _export),
    "collect": Command("aaren_rl.collect.config:CollectConfig", _collect),
    "convert": Command("aaren_rl.convert.config:ConvertConfig", _convert),
    "benchmark": Command("aaren_rl.experiments.config:BenchmarkConfig", _benchmark),
    "report": Command("aaren_rl.experiments.config:ReportConfig", _report),
}


def _counted(rows: list[dict[str, Any]]) -> list[str]:
    """The columns `task` and `success`, where all rows have them."""
    return [name for name in ("task", "success") if all(row.get(name) is not None for row in rows)]


def print_rows(title: str, rows: list[dict[str, Any]], columns: list[str]) -> None:
    """Print a table to standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in columns:
        numeric = all(isinstance(row[column], (int, float)) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(row[column], _places(rows, column)) for column in columns))
    # rich would take a pipe for 80 columns wide.
    width = None if sys.stdout and sys.stdout.isatty() else 160
    console = Console(width=width, markup=False, emoji=False)
    console.print(title, soft_wrap=True, highlight=False)  # a table would wrap it at its own width
    console.print(table)


def _places(rows: list[dict[str, Any]], column: str) -> int:
    """Decimals of a column; target returns have as many as different ones need."""
    asked = {row[column] for row in rows if isinstance(row[column], float)}
    enough = (n for n in range(1, 16) if len({f"{x:.{n}f}" for x in asked}) == len(asked))
    return next(enough, 16) if column == "target_return" else 2 if column == "success" else 1


def _cell(value: Any, places: int) -> str:
    if value is None:
        return "-"
    return f"{value:,.{places}f}" if isinstance(value, float) else str(value)
