"""Units as tasks on a Ray cluster (extra `ray`); their folders lie where every node sees them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from aaren_rl.errors import UserError
from aaren_rl.experiments.local import LOG_FILE, attempt
from aaren_rl.experiments.unit import Unit

PASSED_ON = (
    *("MINARI_DATASETS_PATH", "D4RL_DATASET_DIR", "AAREN_RL_CACHE"),
    *("MUJOCO_GL", "PYTHONPATH"),
)
RETRIES = 10  # after the death of a node or a worker; the unit goes on from its checkpoint


def run_on_ray(
    address: str,
    todo: Sequence[Unit],
    workers: int | None,
    ended: Callable[[Unit, str | None], None],
) -> None:
    """Do all units on a Ray cluster, as many at once as it has cores (or GPUs) for.

    Args:
        address: of the cluster's head; `auto` for the one that runs here, `local` for a new one.
        todo: the units, in this order.
        workers: at most so many at once; by default as many as fit.
        ended: called as each unit ends, with what went wrong, or `None`.

    Raises:
        UserError: when Ray is not installed or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray: pip install 'aaren-rl[ray]'") from None
    connect(ray, address)
    try:
        task = _task(ray, todo[0].config.device)
        waiting, running = list(todo), dict[Any, Unit]()
        most = workers or len(todo)
        while waiting or running:
            while waiting and len(running) < most:
                unit = waiting.pop(0)
                whole = dataclasses.replace(unit.config, out=unit.folder.resolve())
                running[task.remote(dataclasses.replace(unit, config=whole))] = unit
            [done], _ = ray.wait(list(running))
            unit = running.pop(done)
            ended(unit, _outcome(ray, done, unit))
    finally:
        ray.shutdown()


def connect(ray: Any, address: str) -> None:
    """Join a cluster, with the environment that data and rendering depend on.

    Raises:
        UserError: when there is none at the address.
    """
    _check_address(address)
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        ray.init(
            address=address,
            runtime_env={"env_vars": environment},
            log_to_driver=False,
            logging_level="ERROR",
            include_dashboard=False if address == "local" else None,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--ray {address}: no Ray cluster there ({reason})") from None


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


def _task(ray: Any, device: str) -> Any:
    """A remote function: one core and, on a cluster with GPUs, one GPU; a fresh process each."""
    gpu = 1 if device != "cpu" and ray.cluster_resources().get("GPU", 0) else 0
    options = ray.remote(num_cpus=1, num_gpus=gpu, max_calls=1, max_retries=RETRIES)
    return options(_attempt)


def _attempt(unit: Unit) -> str | None:
    """On a node: do a unit; what went wrong, or `None`."""
    unit.folder.mkdir(parents=True, exist_ok=True)
    with (
        open(unit.folder / LOG_FILE, "a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        code = attempt(unit)
    if code == 0:
        return None
    lines = (unit.folder / LOG_FILE).read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"ended with code {code}"


def _outcome(ray: Any, done: Any, unit: Unit) -> str | None:
    try:
        problem: str | None = ray.get(done)
    except ray.exceptions.RayError as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if problem is None and not unit.finished:
        return f"{unit.folder}: no result there: --out must lie where every node sees it"
    return problem
