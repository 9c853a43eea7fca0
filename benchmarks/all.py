"""All tables of this folder, one after the other, each by its own command: `make bench`.

    python -m benchmarks.all [--quick] [--only NAME ...] [--list]

Results go to `benchmarks/results`; each file names the machine, the command and the commit. A
benchmark that fails does not stop the others; the exit code is then 1. `--quick` runs each at its
smallest size and writes to a temporary folder: it shows that the commands work, and its figures
mean nothing.
`benchmarks.learning` is not among them: it needs an environment with d3rlpy.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
COMMANDS = {
    "prefix_attention": (
        "benchmarks.prefix_attention --name {names}prefix_attention",
        "--turns 1 --lengths 1000",
    ),
    "training_step": (
        "benchmarks.training_step --name {names}training_step",
        "--turns 1 --no-rivals",
    ),
    "run": (
        "aaren_rl train --dataset aaren-rl/hopper-small-v0 --out {work}/run --held-out 0",
        "--updates 3 --env none",
    ),
    "acting": (
        "benchmarks.acting --run {work}/run --memory-steps 1000000 --name {names}acting",
        "--turns 1 --steps 50 --memory-steps 50 --episodes 2 --no-compile",
    ),
    "data_on_disk": (
        "benchmarks.data_on_disk --folder {work} --out {out}/data_on_disk.json",
        "--short-steps 60000 --long-steps 0 --updates 3 --turns 1",
    ),
    "image_memory": (
        "benchmarks.image_memory --folder {work} --out {out}/image_memory.json",
        "--steps 600 --updates 3",
    ),
    "memory": (
        "benchmarks.memory --json {out}/memory.json",
        "--agents decision-aaren --updates 5 --episodes 20 --mazes 2 --longest 100",
    ),
    "recall": (
        "benchmarks.recall --json {out}/recall.json",
        "--pairs 1 --updates 5 --data 20 --episodes 2",
    ),
    "scores": (
        "aaren_rl benchmark benchmarks/specs/hopper-small.yaml --out {out}/hopper-small",
        "--dry-run",
    ),
}
"""By name: what follows `python -m`, and the flags that make it small.

`{out}` is the folder of the results, `{names}` the same for a `--name`, which is a path below
`benchmarks/results`, and `{work}` a folder for what is not kept. `run` trains the agent that
`acting` evaluates.
"""


def command_of(name: str, out: Path, work: Path, quick: bool) -> list[str]:
    """One benchmark's command, from the interpreter on."""
    words, small = COMMANDS[name]
    names = "" if out == RESULTS else f"{os.path.relpath(out, RESULTS)}/"
    given = shlex.split(words.format(out=out, work=work, names=names))
    return [sys.executable, "-m", *given, *(shlex.split(small) if quick else [])]


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smallest sizes, results thrown away")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, help="these alone, in this order")
    parser.add_argument("--list", action="store_true", help="print the commands and run none")
    given = parser.parse_args(arguments)
    failed = []
    with TemporaryDirectory() as folder:
        out = Path(folder, "results") if given.quick else RESULTS
        out.mkdir(exist_ok=True)
        for name in given.only or COMMANDS:
            command = command_of(name, out, Path(folder), given.quick)
            print(shlex.join(["python", *command[1:]]), flush=True)
            if given.list:
                continue
            start = time.monotonic()
            code = subprocess.run(command, cwd=ROOT, check=False).returncode
            print(f"{name}: exit code {code}, {time.monotonic() - start:.0f} s\n", flush=True)
            failed += [name] if code else []
    if failed:
        print("failed: " + ", ".join(failed), file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
