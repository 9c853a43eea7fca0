"""Units in processes of this machine: as many at once as there are cores or GPUs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

import torch

from aaren_rl.errors import UserError
from aaren_rl.experiments.unit import Unit, work
from aaren_rl.training.interrupt import Interrupted

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
LOG_FILE = "log.txt"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(device: str) -> list[str]:
    """The GPUs to spread over, as CUDA_VISIBLE_DEVICES names them; none for a CPU."""
    if device == "cpu" or not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def run_locally(
    todo: Sequence[Unit], workers: int | None, ended: Callable[[Unit, str | None], None]
) -> None:
    """Do all units, `workers` at once, each in a fresh process with its share of the cores.

    A unit that fails does not stop the others. A worker dies with this process: nothing goes on
    behind a killed sweep's back.

    Args:
        todo: the units, in this order.
        workers: by default one for each GPU, or for each core without any.
        ended: called as each unit ends, with what went wrong, or `None`.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when every worker has saved its run.
    """
    devices = gpus(todo[0].config.device) if todo else []
    # However few units are left: a run that is resumed must have the threads that it began with.
    workers = workers or len(devices) or cores()
    waiting, running = list(todo), dict[int, tuple[Any, Unit]]()
    with _process_context(max(1, cores() // workers)) as (context, threads):
        try:
            while waiting or running:
                for place in sorted(set(range(workers)) - set(running))[: len(waiting)]:
                    unit = waiting.pop(0)
                    gpu = devices[place % len(devices)] if devices else None
                    process = context.Process(target=_child, args=(unit, threads, gpu))
                    process.start()
                    running[place] = (process, unit)
                wait([process.sentinel for process, _ in running.values()])
                for place, (process, unit) in list(running.items()):
                    if not process.is_alive():
                        del running[place]
                        ended(unit, _what_went_wrong(process, unit))
        finally:
            _stop([process for process, _ in running.values()])


@contextlib.contextmanager
def _process_context(threads: int) -> Iterator[tuple[Any, int]]:
    """Where processes come from: copies of one that has imported everything and done nothing.

    Numerical libraries read how many threads to use when they are imported; a number that the user
    has set holds.
    """
    threads = int(os.environ.get("OMP_NUM_THREADS", threads))
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ |= {name: str(threads) for name in THREADS if before[name] is None}
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__])
    try:
        yield context, threads
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _child(unit: Unit, threads: int, gpu: str | None) -> None:
    """A worker: all that it prints goes to the unit's log."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    os.setpgid(0, 0)  # Ctrl-C reaches the sweep alone, which then asks its workers to stop
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    unit.folder.mkdir(parents=True, exist_ok=True)
    with open(unit.folder / LOG_FILE, "a") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    sys.exit(attempt(unit))


def attempt(unit: Unit) -> int:
    """Do a unit; what goes wrong is printed, its gist in the last line. Returns the exit code."""
    try:
        work(unit)
    except (Interrupted, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_FAILED
    except Exception as error:
        traceback.print_exc()
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return EXIT_FAILED
    return 0


def _die_with(parent: Any) -> None:
    parent.join()
    os._exit(EXIT_FAILED)


def _what_went_wrong(process: Any, unit: Unit) -> str | None:
    if process.exitcode == 0:
        return None
    if process.exitcode == EXIT_FAILED:
        lines = (unit.folder / LOG_FILE).read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        if errors:
            return errors[-1].removeprefix("error: ")
    return f"its process ended with code {process.exitcode}; see {unit.folder / LOG_FILE}"


def _stop(processes: list[Any]) -> None:
    """Ask every worker to save and stop, and wait until they have."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
