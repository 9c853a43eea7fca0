"""Units one after the other in this process, or several at once by Ray (extra `ray`)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import threading
from collections.abc import Generator, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import torch

from aaren_rl.errors import UserError, one_line
from aaren_rl.experiments.unit import LOG_FILE, Unit, attempt

Ended = Generator[tuple[Unit, str | None], None, None]
"""Each unit as it ends, with what went wrong, or `None`."""
PASSED_ON = (
    *("MINARI_DATASETS_PATH", "D4RL_DATASET_DIR", "AAREN_RL_CACHE"),
    *("MUJOCO_GL", "PYTHONPATH", "OMP_NUM_THREADS"),
)
RETRIES = 10  # after the loss of a node or a worker; the unit is resumed
SAVE_SECONDS = 60  # after Ctrl-C, for runs to save


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_here(workers: int | None, ray: str | None, device: str) -> tuple[int, str]:
    """How many units to do at once, and a note for the user when that may not be expected."""
    have_ray = find_spec("ray") is not None
    if not have_ray and (ray is not None or (workers or 1) > 1):
        flag = f"--ray {ray}" if ray is not None else f"--workers {workers}"
        raise UserError(f"{flag} needs Ray: pip install 'aaren-rl[ray]'")
    if workers is not None or ray is not None:
        return workers or 0, ""
    if not have_ray:
        return 1, "one run after the other; several at once need Ray: pip install 'aaren-rl[ray]'"
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    return gpus or cores(), ""


def run_one_by_one(todo: Sequence[Unit]) -> Ended:
    """Do all units in this process."""
    with _sigterm_as_interrupt():
        for unit in todo:
            yield unit, attempt(unit)


def run_with_ray(address: str, todo: Sequence[Unit], workers: int) -> Ended:
    """Do all units on a Ray cluster, each in a fresh process.

    A unit that fails does not stop the others. When this generator is closed early, as after
    Ctrl-C, running units save and stop.
    """
    import ray

    _connect(ray, address)
    # However few units are left: a run that is resumed must have the threads that it began with.
    threads = max(1, cores() // workers) if address == "local" and workers else 1
    task = _task(ray, todo[0].config.device, threads)
    waiting, running = list(todo), dict[Any, Unit]()
    try:
        with _sigterm_as_interrupt():  # after `ray.init`, which has a handler of its own
            while waiting or running:
                while waiting and len(running) < (workers or len(todo)):
                    unit = waiting.pop(0)
                    whole = dataclasses.replace(unit, out=unit.out.resolve())
                    running[task.remote(whole)] = unit
                [done], _ = ray.wait(list(running))
                unit = running.pop(done)
                yield unit, _outcome(ray, done, unit)
    finally:
        for each in running:
            ray.cancel(each)  # Ctrl-C in the worker: the run saves and stops
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=SAVE_SECONDS)
        ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    """Join a cluster, with the environment variables that data and rendering depend on."""
    _check_address(address)
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    options: dict[str, Any] = {}
    if address == "local":
        os.environ.setdefault("RAY_worker_niceness", "0")
        options = {"num_cpus": cores(), "include_dashboard": False}
    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": environment},
            log_to_driver=False,
            logging_level="ERROR",
            **options,
        )
    except Exception as error:  # Ray raises bare exceptions, as when a busy machine starts slowly
        problem = f"--ray {address}: no Ray cluster there ({one_line(error)})"
        if address == "local":
            problem = f"Ray does not start here ({one_line(error)}); --workers 1 needs no Ray"
        raise UserError(problem) from error


def _check_address(address: str) -> None:
    """Raise `UserError` unless somebody listens at HOST:PORT: Ray itself would try for minutes."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--ray {address}: auto, local or HOST:PORT expected")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"--ray {address}: no Ray cluster there ({error})") from None


def _task(ray: Any, device: str, threads: int) -> Any:
    """`attempt` as a remote function, in a fresh process, with one GPU where there is one."""
    gpu = 1 if device != "cpu" and ray.cluster_resources().get("GPU", 0) else 0
    options = ray.remote(num_cpus=threads, num_gpus=gpu, max_calls=1, max_retries=RETRIES)
    return options(attempt)


def _outcome(ray: Any, done: Any, unit: Unit) -> str | None:
    try:
        problem: str | None = ray.get(done)
    except ray.exceptions.RayError as error:
        return f"{type(error).__name__}: {one_line(error)[:300]}; see {unit.folder / LOG_FILE}"
    if problem is None and not unit.finished:
        return f"{unit.folder}: no result there: --out must lie where every node sees it"
    return problem


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Inside this context SIGTERM is Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
