"""Commands on files made wrong: each must end with 0 or 2 in time, and leave all else as it was.

    python tests/fuzz/campaign.py --cases 10000 --jobs 2 --report bad.jsonl
    python tests/fuzz/campaign.py --only 4711        # one case again, with what it printed

A case is a number: it decides the target, the file, the change and the command. It runs in a
process of its own, forked from this one, which has imported everything.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import importlib
import json
import os
import pkgutil
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from mutations import CANARY, mutate

SECONDS = 60
"""CPU time that a command may take, and the wall time beyond which it hangs, times `PATIENCE`."""
PATIENCE = 4  # a busy machine is not a hang
MEMORY = 6 * 2**30  # bytes of address space beyond what the parent has
DATA = "root/collected/cartpole/random-v0"
TINY = [
    *("--updates", "4", "--batch-size", "4", "--width", "8", "--layers", "1"),
    *("--context-length", "4", "--evaluate-every", "2", "--episodes", "1", "--device", "cpu"),
]
COLLECT = [
    *("--train-steps", "120", "--evaluate-every", "60", "--evaluation-episodes", "1"),
    *("--reference-episodes", "2", "--steps", "60", "--expert-return", "500"),
    *("--medium-score", "0.001", "--seed", "3", "--datasets", "random", "medium-replay"),
]
SETTINGS = ["n_steps=60", "n_epochs=1", "batch_size=30", 'policy_kwargs={"net_arch":[8]}']
FINETUNE = [
    *("--out", "fine", "--updates-per-episode", "2", "--evaluate-every", "4"),
    *("--batch-size", "4", "--episodes", "1", "--device", "cpu"),
]
SPEC: dict[str, Any] = {
    "name": "fuzzed",
    "seeds": [0],
    "settings": {
        **{"updates": 4, "batch_size": 4, "evaluate_every": 2, "episodes": 1, "device": "cpu"},
        **{"width": 8, "layers": 1, "context_length": 4},
    },
    "tasks": {"pole": {"dataset": DATA}},
    "agents": {"decision-aaren": {"modes": ["carry"]}, "bc": {"agent": "behavior-cloning"}},
    "evaluation": {"episodes": 2},
}


@dataclass(frozen=True)
class Target:
    """Files to change, and the commands that read them.

    Attributes:
        files: patterns below the working directory.
        commands: one is chosen.
        weight: how often, against the others.
        writes: what a command that succeeds may change, by the first part of the path.
    """

    files: Sequence[str]
    commands: Sequence[Sequence[str]]
    weight: int
    writes: Sequence[str] = ()


def data_target(source: str, files: Sequence[str], weight: int) -> Target:
    """A dataset that is trained on, in the environment that it names and without, and converted."""
    train = ["train", "--dataset", source, "--out", "new", *TINY]
    convert = ["convert", source, "other/thing-v0", "--root", "converted"]
    own = [[*train, "--agent", "behavior-cloning"]] if source == DATA else []
    return Target(files, [[*train, "--environment", "none"], convert, *own], weight)


TARGETS = {
    "minari": data_target(DATA, [f"{DATA}/data/metadata.json", f"{DATA}/data/main_data.hdf5"], 5),
    "d4rl": data_target("d4rl.hdf5", ["d4rl.hdf5"], 3),
    "d3rlpy-1": data_target("version-1.h5", ["version-1.h5"], 2),
    "d3rlpy-2": data_target("version-2.h5", ["version-2.h5"], 2),
    "npz": data_target("arrays.npz", ["arrays.npz"], 2),
    "json": data_target("episodes.json", ["episodes.json"], 2),
    "lerobot": data_target("lerobot", ["lerobot/meta/info.json", "lerobot/data/*/*"], 2),
    "run": Target(
        ["run/*.json", "run/last/*", "run/best/*"],
        [  # an export reads what an evaluation does, and takes 20 times as long
            *2 * [["train", "--resume", "--out", "run", "--updates", "6"]],
            *2 * [["evaluate", "run", "--episodes", "1"]],
            ["export", "run", "--out", "new.onnx", "--steps", "5"],
        ],
        6,
        ["run"],
    ),
    "finetuned": Target(
        ["fine/*.json", "fine/last/*"],
        [["finetune", "run", "--resume", *FINETUNE, "--steps", "60"]],
        2,
        ["fine"],
    ),
    "exported": Target(
        ["policy.onnx", "policy.onnx.json"],
        [
            [
                *("evaluate", "run", "--runtime", "onnx", "--exported", "policy.onnx"),
                *("--episodes", "1"),
            ]
        ],
        3,
    ),
    "spec": Target(["spec.yaml"], [["benchmark", "spec.yaml", "--out", "new", "--dry-run"]], 3),
    "sweep": Target(["sweep/**/*.json"], [["report", "sweep"]], 1, ["sweep"]),
    "collected": Target(
        ["collected/*.json", "collected/*.zip", "collected/*/*"],
        [["collect", "--resume", "--out", "collected", "--root", "root2"]],
        2,
        ["collected"],
    ),
}


@dataclass
class Case:
    """What was tried, and what came of it.

    Attributes:
        number: decides everything else.
        target: key of `TARGETS`.
        file: that was changed.
        change: what was done to it.
        command: of `aaren-rl`.
        code: exit status; minus the signal's number for a process that was killed by one.
        problems: what was wrong; empty for a good case.
        output: the end of standard output and error, for a bad case.
    """

    number: int
    target: str
    file: str
    change: str
    command: list[str]
    code: int = 0
    problems: list[str] = field(default_factory=list)
    output: str = ""


def write_hdf5(path: Path, content: dict[str, Any]) -> None:
    """Write arrays and scalars by name."""
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value


def write_lerobot(folder: Path, flat: dict[str, Any]) -> None:
    """Six episodes of ten steps in LeRobot's layout, four in the first file."""
    named = {"observations": "observation.state", "actions": "action", "rewards": "next.reward"}
    columns: dict[str, Any] = {named[key]: values.tolist() for key, values in flat.items()}
    columns |= {"episode_index": np.arange(60) // 10, "frame_index": np.arange(60) % 10}
    table = pa.table({**columns, "next.done": columns["frame_index"] == 9})
    (folder / "data/chunk-000").mkdir(parents=True)
    (folder / "meta").mkdir()
    for index, part in enumerate((table.slice(0, 40), table.slice(40))):
        pq.write_table(part, folder / f"data/chunk-000/file-{index:03d}.parquet")
    features = {name: {"dtype": "float32"} for name in table.column_names}
    info = {"codebase_version": "v3.0", "total_frames": 60, "features": features}
    (folder / "meta/info.json").write_text(json.dumps(info))


def make_base(folder: Path) -> None:
    """Make, by the real commands, one of everything that a case can change."""
    random = np.random.default_rng(0)
    ends = {"terminals": np.arange(60) % 20 == 19, "timeouts": np.arange(60) % 20 == 9}
    flat = {
        "observations": random.normal(size=(60, 3)).astype(np.float32),
        "actions": random.uniform(-1, 1, (60, 2)).astype(np.float32),
        "rewards": random.normal(size=60),
    }
    whole = {**flat, **ends}
    np.savez(folder / "arrays.npz", **whole)
    write_hdf5(folder / "d4rl.hdf5", {**whole, "metadata/policy": b"random"})
    both = ends["terminals"] | ends["timeouts"]
    flags = {"discrete_action": False, "create_mask": False, "mask_size": 1}
    first = {**flat, "terminals": ends["terminals"], "episode_terminals": both, **flags}
    write_hdf5(folder / "version-1.h5", {k: np.asarray(v, "f4") for k, v in first.items()})
    parts = [
        {name: values[start : start + 10] for name, values in flat.items()} for start in (0, 9)
    ]
    second: dict[str, Any] = {"columns": [*flat, "terminated"], "num_episodes": 2, "version": "2.1"}
    for index, part in enumerate(parts):
        second |= {f"{name}_{index}": values for name, values in part.items()}
        second[f"rewards_{index}"] = part["rewards"][:, None]
        second[f"terminated_{index}"] = True
    write_hdf5(folder / "version-2.h5", second)
    listed = {name: values.tolist() for name, values in parts[0].items()}
    flags = {"terminations": [False] * 9 + [True], "truncations": [False] * 10}
    (folder / "episodes.json").write_text(json.dumps([{**listed, **flags}] * 3))
    write_lerobot(folder / "lerobot", flat)
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    export = ["export", "run", "--out", "policy.onnx", "--steps", "5"]
    for command in (
        ["collect", "CartPole-v1", *COLLECT, "--settings", *SETTINGS, *_out("collected", "root")],
        ["train", "--dataset", DATA, "--out", "run", *TINY],
        ["finetune", "run", *FINETUNE, "--steps", "20"],
        export,
        ["benchmark", "spec.yaml", "--out", "sweep", "--workers", "1"],
    ):
        started = Started(Case(-1, "base", "", "", command), folder)
        while not started.ended():
            time.sleep(0.01)
        code = started.case.code
        if code:
            text = started.output.read_text()[-2000:]
            raise RuntimeError(f"{' '.join(command)}: {code}\n{text}")
        started.output.unlink()


def _out(folder: str, root: str) -> list[str]:
    return ["--out", folder, "--root", root]


def target_of(random: Random) -> str:
    """The target of a case, its generator's first draw."""
    return random.choices(list(TARGETS), [target.weight for target in TARGETS.values()])[0]


def new_case(number: int, base: Path, scratch: Path) -> tuple[Case, Path]:
    """A copy of the base with one file changed, as the number says."""
    random = Random(number)
    name = target_of(random)
    target = TARGETS[name]
    folder = scratch / f"case-{number}"
    shutil.copytree(base, folder)
    found = [path for pattern in target.files for path in folder.glob(pattern) if path.is_file()]
    path = random.choice(sorted(found))
    change = mutate(random, path)
    command = list(random.choice(target.commands))
    return Case(number, name, str(path.relative_to(folder)), change, command), folder


class Started:
    """A case that runs in a process of its own."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        self.output = folder.with_name(folder.name + ".txt")
        self.before = checksums(folder)
        self.begun = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if self.process == 0:
            _child(case.command, folder, self.output)

    def ended(self) -> bool:
        """Whether the process has ended, or was killed for not ending; fills in the case."""
        found, status = os.waitpid(self.process, os.WNOHANG)
        if not found:
            if time.monotonic() - self.begun - waited(self.process) < SECONDS * PATIENCE:
                return False
            os.killpg(self.process, signal.SIGKILL)
            _, status = os.waitpid(self.process, 0)
            self.case.problems.append("hangs")
        self.case.code = os.waitstatus_to_exitcode(status)
        return True

    def judge(self) -> None:
        """Say what is wrong with how the command ended."""
        case, problems = self.case, self.case.problems
        text = self.output.read_text(errors="replace")
        if case.code < 0 and not problems:
            problems.append(f"killed by {signal.Signals(-case.code).name}")
        elif case.code not in (0, 2):
            problems.append(f"exit status {case.code}: {last_error(text)}")
        elif "Traceback (most recent call last)" in text:
            problems.append(f"traceback, exit status {case.code}: {last_error(text)}")
        elif case.code == 2 and len(re.findall(r"^error: ", text, re.MULTILINE)) != 1:
            problems.append("exit status 2 without one line of error")
        if any(self.folder.rglob(CANARY)):
            problems.append("executed what a file said")
        if self._left_running():
            problems.append("left processes running")
        after = checksums(self.folder)
        free = TARGETS[case.target].writes if case.code == 0 else ()
        for name, value in self.before.items():
            if after.get(name) != value and name.split("/")[0] not in free:
                problems.append(f"{'changed' if name in after else 'removed'} {name}")
        case.output = text[-3000:] if problems else ""

    def _left_running(self) -> bool:
        for _ in range(50):
            try:
                os.killpg(self.process, 0)
            except (ProcessLookupError, PermissionError):
                return False
            time.sleep(0.1)
        os.killpg(self.process, signal.SIGKILL)
        return True


def waited(process: int) -> float:
    """Seconds in which a process could run and others did, for a starved one does not hang.

    0 where the system does not say.
    """
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _child(command: Sequence[str], folder: Path, output: Path) -> None:
    """Run the command; never returns."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        os.environ["MINARI_DATASETS_PATH"] = str(folder / "root")
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from aaren_rl.cli import main

        code = main(list(command))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def last_error(text: str) -> str:
    """The exception and the innermost line of ours that it came through, of a traceback."""
    lines = [line for line in text.splitlines() if line.strip()]
    places = re.findall(r'File "[^"]*?(aaren_rl/[^"]+)", line (\d+), in (\S+)', text)
    where = " ".join(places[-1]) if places else ""
    return f"{lines[-1][:150] if lines else 'nothing said'} [{where}]"


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, but hidden ones and TensorBoard's, by path."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith((".", "events.")):
            name = str(path.relative_to(folder))
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def warm_up() -> None:
    """Import what the commands import, so that children begin at once."""
    import aaren_rl

    own = [module.name for module in pkgutil.walk_packages(aaren_rl.__path__, "aaren_rl.")]
    others = ("stable_baselines3", "onnxruntime", "matplotlib.pyplot", "minari", "rliable.metrics")
    for name in (*own, *others, "torch.utils.tensorboard", "typeguard"):
        if name != "aaren_rl.__main__":
            with contextlib.suppress(Exception):  # some need what is not installed
                importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def export_once(run: Path) -> None:
    """Let the exporter fill its tables here, which takes it two seconds in each child else."""
    from aaren_rl import load_agent
    from aaren_rl.export.command import write_step

    with tempfile.TemporaryDirectory() as folder:
        write_step(load_agent(run), Path(folder) / "step.onnx")


@contextlib.contextmanager
def prepared() -> Iterator[tuple[Path, Path]]:
    """The base and a folder for cases, in a temporary folder."""
    os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg", PYTHONHASHSEED="0")
    warm_up()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        base, scratch = Path(folder) / "base", Path(folder) / "cases"
        base.mkdir()
        scratch.mkdir()
        make_base(base)
        export_once(base / "run")
        yield base, scratch


def run(
    numbers: Iterator[int], base: Path, scratch: Path, jobs: int, tell: Callable[[Case], None]
) -> None:
    """Run cases, `jobs` at a time, and give each to `tell` when it has ended."""
    running: list[Started] = []
    more = True
    while running or more:
        while more and len(running) < jobs:
            number = next(numbers, None)
            if number is None:
                more = False
                break
            running.append(Started(*new_case(number, base, scratch)))
        for started in [each for each in running if each.ended()]:
            running.remove(started)
            started.judge()
            tell(started.case)
            shutil.rmtree(started.folder)
            started.output.unlink()
        time.sleep(0.005)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of cases to run again")
    parser.add_argument("--target", choices=list(TARGETS), help="only the cases of one target")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--report", type=Path, help="file for the bad cases, JSON lines")
    flags = parser.parse_args()
    numbers = flags.only or range(flags.first, flags.first + flags.cases)
    if flags.target is not None:
        numbers = [number for number in numbers if target_of(Random(number)) == flags.target]
    bad: list[Case] = []
    counts: collections.Counter[tuple[str, int]] = collections.Counter()
    begun = time.monotonic()

    def tell(case: Case) -> None:
        counts[case.target, case.code] += 1
        if case.problems:
            bad.append(case)
            print(f"{case.number} {case.target} {case.file}, {case.change}: {case.problems}")
            if flags.report is not None:
                with flags.report.open("a") as file:
                    file.write(json.dumps(asdict(case)) + "\n")
        if flags.only:
            print(case, case.output)

    with prepared() as (base, scratch):
        run(iter(numbers), base, scratch, flags.jobs, tell)
    total = sum(counts.values())
    print(f"{total} cases, {len(bad)} bad, {time.monotonic() - begun:.0f} s")
    for target in TARGETS:
        codes = {code: n for (name, code), n in sorted(counts.items()) if name == target}
        print(f"  {target}: {codes}")
    kinds = collections.Counter(problem for case in bad for problem in case.problems)
    for problem, count in kinds.most_common():
        print(f"{count:5d}  {problem}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
