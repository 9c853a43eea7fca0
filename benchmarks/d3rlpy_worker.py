"""One training of d3rlpy's Decision Transformer, in an environment of its own.

    PYTHON benchmarks/d3rlpy_worker.py JOB.json RESULT.json

`benchmarks.learning` starts this file with another interpreter (d3rlpy pins an older Gymnasium), so
it imports neither `aaren_rl` nor `benchmarks`, only d3rlpy, Gymnasium with MuJoCo, NumPy and torch.
The job is made, and its fields are explained, by `benchmarks.learning_peers.D3rlpy`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import d3rlpy
import gymnasium
import numpy as np
import torch


def read_dataset(file: str) -> Any:
    """d3rlpy's dataset of the episodes in an .npz file."""
    with np.load(file) as arrays:
        return d3rlpy.dataset.MDPDataset(**arrays)


def make_config(settings: dict[str, Any] | None) -> Any:
    """The algorithm's config; the defaults of d3rlpy's class where `settings` is None."""
    if settings is None:
        return d3rlpy.algos.DecisionTransformerConfig()
    optimizer = d3rlpy.optimizers.AdamWFactory(
        weight_decay=settings["weight_decay"],
        clip_grad_norm=settings["gradient_clip"],
        lr_scheduler_factory=d3rlpy.optimizers.WarmupSchedulerFactory(
            warmup_steps=settings["warmup_updates"]
        ),
    )
    return d3rlpy.algos.DecisionTransformerConfig(
        batch_size=settings["batch_size"],
        context_size=settings["context_length"],
        learning_rate=settings["learning_rate"],
        optim_factory=optimizer,
        encoder_factory=d3rlpy.models.VectorEncoderFactory(
            [settings["width"]], exclude_last_activation=True
        ),
        observation_scaler=d3rlpy.preprocessing.StandardObservationScaler(),
        reward_scaler=d3rlpy.preprocessing.MultiplyRewardScaler(settings["reward_scale"]),
    )


def play(algorithm: Any, job: dict[str, Any]) -> list[float]:
    """Returns of the evaluation episodes; episode i is reset with seed `first_seed + i`."""
    environment: Any = gymnasium.make(**job["environment"], disable_env_checker=True)
    returns = []
    for episode in range(job["episodes"]):
        actor = algorithm.as_stateful_wrapper(target_return=job["target_return"])
        observation, _ = environment.reset(seed=job["first_seed"] + episode)
        total, reward, done = 0.0, 0.0, False
        while not done:
            action = actor.predict(observation.astype(np.float32), reward)
            observation, reward, terminated, truncated, _ = environment.step(action)
            reward = float(reward)
            total += reward
            done = terminated or truncated
        returns.append(total)
    environment.close()
    return returns


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Train, and evaluate with the training clock stopped."""
    torch.set_num_threads(job["threads"])
    d3rlpy.seed(job["seed"])
    parent = os.getppid()
    dataset = read_dataset(job["data"])
    algorithm = make_config(job["settings"]).create(device="cpu:0")
    quiet: dict[str, Any] = {
        "n_steps_per_epoch": job["evaluate_every"],
        "logger_adapter": d3rlpy.logging.NoopAdapterFactory(),
        "show_progress": False,
    }
    algorithm.fit(dataset, n_steps=0, **quiet)  # builds the networks and fits the scalers
    curve: list[dict[str, Any]] = []
    seconds, since = 0.0, time.perf_counter()

    def after_update(_: Any, epoch: int, update: int) -> None:
        nonlocal seconds, since
        if os.getppid() != parent:
            raise SystemExit("the benchmark that started this training has ended")
        if update % job["evaluate_every"] == 0:
            seconds += time.perf_counter() - since
            returns = play(algorithm, job)
            curve.append({"update": update, "train_seconds": seconds, "returns": returns})
            since = time.perf_counter()

    start, processor = time.perf_counter(), time.process_time()
    algorithm.fit(dataset, n_steps=job["updates"], callback=after_update, **quiet)
    share = (time.process_time() - processor) / (time.perf_counter() - start)
    network = algorithm.impl.modules.transformer
    return {
        "curve": curve,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "cpu_share": share,
        "config": json.loads(algorithm.config.serialize()),
    }


def main() -> None:
    job_file, result_file = map(Path, sys.argv[1:])
    result_file.write_text(json.dumps(work(json.loads(job_file.read_text()))))


if __name__ == "__main__":
    main()
