"""Acting: time per step, bytes of state and of the process, from step 1 to 10,000; and throughput.

    python -m benchmarks.acting [--run RUN] [--help]

Reproduces the resource figure of the Aaren paper (its figure 5) for acting in Hopper. One thread,
one environment. For the table the contenders step in turns in this process; the curves are measured
in a process for each contender, so that the process's memory is its own. Rivals that are not
installed are left out and named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from aaren_rl.agents import Agent, load_agent
from aaren_rl.evaluation import rollout
from benchmarks.acting_contenders import (
    NAMES,
    NEEDS,
    OBSERVATION_SIZE,
    Contender,
    exported_file,
    make,
    make_agent,
)
from benchmarks.acting_picture import draw
from benchmarks.timing import Timing, describe_machine, save, take_turns

ONNX, EAGER, GRAPH = "Aaren, ONNX Runtime", "Aaren, PyTorch", "Aaren, ONNX graph alone"
WINDOW, HUGGING_FACE = "Transformer, window recomputed", "Hugging Face DT"
EPISODE = 1000  # steps after which a timed contender starts afresh
NEAR = 100  # steps around one whose median is taken


@dataclass(frozen=True)
class ActingConfig:
    """Measure acting: ours in every form, and other people's Decision Transformers."""

    run: Path | None = None
    """A trained Hopper run, for the 100-episode evaluation; without one, random weights (which
    fall early)."""
    steps: int = 10_000
    """Length of the episode of the curves."""
    turns: int = 15
    """How often each contender has its turn."""
    memory_steps: int = 20_000
    """Steps over which the process must not grow; the issue's bar asks for 1,000,000."""
    episodes: int = 100
    """Episodes of the vectorised evaluation."""
    compile: bool = True
    """Time Aaren through torch.compile too (compiles for a minute)."""
    name: str = "acting"
    """Name of the files under benchmarks/results."""


def present(config: ActingConfig, console: Console) -> list[str]:
    """Contenders that can run here."""
    names = []
    for name in NAMES:
        package = NEEDS.get(name)
        if package is not None and find_spec(package) is None:
            console.print(f"{name}: not installed")
        elif config.compile or "compile" not in name:
            names.append(name)
    return names


def stepper(contender: Contender) -> Callable[[], object]:
    """One step after the other, through episodes of `EPISODE`."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(256, 1, OBSERVATION_SIZE))
    reward, no, yes = np.full(1, 0.1), np.zeros(1, bool), np.ones(1, bool)
    taken = [0]

    def step() -> None:
        done = yes if taken[0] % EPISODE == 0 else no
        contender.act(observations[taken[0] % 256], reward, done)
        taken[0] += 1

    for _ in range(50):
        step()
    return step


def graph_alone(folder: Path) -> Callable[[], object]:
    """The exported graph with its inputs where they are: no checks, no copies."""
    from aaren_rl.runtime import OnnxPolicy

    policy = OnnxPolicy(exported_file(folder))
    policy.act(np.zeros((1, OBSERVATION_SIZE)))
    return lambda: policy._session.run_with_iobinding(policy._bindings[1])


def weight_readers(agent: Agent) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """Matrix-vector products over as many bytes as the agent has weights; by three libraries.

    Returns:
        The products, and how many bytes there are: `all` parameters, and those that a `step` reads
        in the exported graph (all but the rows of the timestep table that are not looked up).
    """
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    from aaren_rl.export.formats import onnx_graph
    from aaren_rl.export.steps import step_of

    graph = onnx.load_from_string(onnx_graph(step_of(agent))).graph
    stored = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    table = sum(each.nbytes for name, each in stored.items() if name.endswith("timestep_table"))
    sizes = {
        "all": 4 * agent.num_parameters,
        "step": sum(each.nbytes for each in stored.values()) - table,
    }
    rows = sizes["step"] // 4 // 128
    matrix = np.random.default_rng(0).normal(size=(rows, 128)).astype(np.float32)
    vector, out = np.ones(128, np.float32), np.empty(rows, np.float32)
    torch_matrix, torch_vector, torch_out = map(torch.from_numpy, (matrix, vector, out.copy()))
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "product",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 128])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, rows])],
            [numpy_helper.from_array(np.ascontiguousarray(matrix.T), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    binding = session.io_binding()
    x, y = vector[None].copy(), np.empty((1, rows), np.float32)
    binding.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)

    def by_onnx(kept: object = (x, y)) -> None:  # the arrays must outlive the binding
        session.run_with_iobinding(binding)

    return {
        "numpy": lambda: np.dot(matrix, vector, out=out),
        "torch": lambda: torch.mv(torch_matrix, torch_vector, out=torch_out),
        "onnxruntime": by_onnx,
    }, sizes


def time_steps(config: ActingConfig, names: list[str], folder: Path) -> dict[str, Any]:
    """Median step of every contender, and of reading the weights once, in turns."""
    readers, sizes = weight_readers(make_agent("decision-aaren", rows=EPISODE))
    candidates: dict[str, Callable[[], object]] = {
        name: stepper(make(name, folder)) for name in names
    }
    candidates[GRAPH] = graph_alone(folder)
    candidates.update({f"read weights, {name}": read for name, read in readers.items()})
    timings = take_turns(candidates, turns=config.turns, at_least=0.03)
    result: dict[str, Any] = {
        name: {
            **timing.record(),
            "microseconds": timing.median * 1e6,
            "over_onnx": timing.over(timings[ONNX]),
            "over_graph": timing.over(timings[GRAPH]),
        }
        for name, timing in timings.items()
    }
    for name in readers:
        key = f"read weights, {name}"
        result[key]["gigabytes_per_second"] = sizes["step"] / timings[key].median / 1e9
    return {"steps": result, "weight_bytes": sizes, **_bars(timings, sizes)}


def _bars(timings: dict[str, Timing], sizes: dict[str, int]) -> dict[str, Any]:
    fastest = min(
        (name for name in timings if name.startswith("read weights")),
        key=lambda name: timings[name].median,
    )
    ratio = timings[GRAPH].over(timings[fastest])[0]
    bars: dict[str, Any] = {
        "pytorch_against_window": timings[WINDOW].over(timings[EAGER]),
        "graph_against_reading_its_weights": ratio,
        "graph_against_reading_all_parameters": ratio * sizes["step"] / sizes["all"],
        "reader": fastest,
    }
    if HUGGING_FACE in timings:
        bars["hugging_face_against_onnx"] = timings[HUGGING_FACE].over(timings[ONNX])
        bars["hugging_face_against_graph"] = timings[HUGGING_FACE].over(timings[GRAPH])
    return {"bars": bars}


def late_against_early(
    name: str, folder: Path, steps: int, rounds: int = 15
) -> tuple[float, float, float]:
    """Time of a step near `steps` over that of one near 10: median of rounds, and deciles.

    One policy is far in its episode, another always near the beginning of one; they step in turns.
    """
    late, reward = make(name, folder), np.full(1, 0.1)
    observations = np.random.default_rng(0).normal(size=(256, 1, OBSERVATION_SIZE))
    no, yes = np.zeros(1, bool), np.ones(1, bool)
    for step in range(steps):
        late.act(observations[step % 256], reward, yes if step == 0 else no)
    early = make(name, folder)
    bytes_late = late.state_bytes()
    ratios = []
    for _ in range(rounds):
        for step in range(10):
            early.act(observations[step], reward, yes if step == 0 else no)
        if early.state_bytes() != bytes_late:
            raise SystemExit(f"{name}: {early.state_bytes()} bytes early, {bytes_late} late")
        seconds = np.zeros((NEAR, 2))
        for step in range(NEAR):
            for column, contender in enumerate((late, early)):
                start = time.thread_time()
                contender.act(observations[step], reward, no)
                seconds[step, column] = time.thread_time() - start
        medians = np.median(seconds, axis=0)
        ratios.append(float(medians[0] / medians[1]))
    low, middle, high = np.quantile(ratios, [0.1, 0.5, 0.9])
    return float(middle), float(low), float(high)


def in_its_own_process(what: str, name: str, folder: Path, steps: int) -> dict[str, Any]:
    """`benchmarks.acting_curve` for a contender."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.acting_curve"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, what, name, str(folder), str(steps)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parent.parent,
    )
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def evaluation(config: ActingConfig) -> dict[str, Any]:
    """The same episodes one by one and all together, and what share of the time is MuJoCo's."""
    agent = make_agent("decision-aaren")
    if config.run is not None:
        agent = load_agent(config.run)
    result: dict[str, Any] = {"episodes": config.episodes, "run": str(config.run)}
    for name, size in (("one by one", 1), ("50 together", 50), ("all together", config.episodes)):
        start = time.perf_counter()
        played = rollout(
            agent,
            "Hopper-v5",
            episodes=config.episodes,
            num_envs=min(size, config.episodes),
            seed=0,
        )
        result[name] = {
            "wall_seconds": time.perf_counter() - start,
            "model_seconds": played.policy_seconds,
            "environment_seconds": played.environment_seconds,
            "environment_steps": int(played.lengths.sum()),
            "mean_return": float(played.returns.mean()),
        }
    physics = mujoco_seconds_per_step()
    for name in ("one by one", "50 together", "all together"):
        row = result[name]
        row["steps_per_second"] = row["environment_steps"] / row["wall_seconds"]
        row["mujoco_share"] = physics * row["environment_steps"] / row["wall_seconds"]
        row["model_seconds_per_step"] = row["model_seconds"] / row["environment_steps"]
        alone = result["one by one"]["model_seconds_per_step"]
        row["model_speedup"] = alone / row["model_seconds_per_step"]
    return {**result, "mujoco_microseconds_per_step": physics * 1e6}


def mujoco_seconds_per_step(steps: int = 5000) -> float:
    """What MuJoCo itself takes for one step of Hopper (its frames, nothing of Gymnasium)."""
    import gymnasium
    import mujoco

    env: Any = gymnasium.make("Hopper-v5").unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    seconds = []
    for step in range(steps):
        env.data.ctrl[:] = rng.uniform(-1, 1, 3)
        start = time.perf_counter()
        mujoco.mj_step(env.model, env.data, nstep=env.frame_skip)
        seconds.append(time.perf_counter() - start)
        if step % 20 == 19:
            env.reset()
    env.close()
    return float(np.mean(seconds))


def file_sizes() -> dict[str, int]:
    """Bytes of the exported step of the default shape, and of its agent's weights."""
    from aaren_rl.export.formats import onnx_graph
    from aaren_rl.export.steps import step_of

    agent = make_agent("decision-aaren", rows=EPISODE)
    size = len(onnx_graph(step_of(agent)))
    return {"file": size, "weights": 4 * agent.num_parameters}


def main(config: ActingConfig) -> None:
    """Run the benchmark."""
    torch.set_num_threads(1)
    console = Console(width=150)
    console.print(describe_machine())
    names = present(config, console)
    results: dict[str, Any] = {"file_bytes": file_sizes()}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        exported_file(folder)
        results.update(time_steps(config, names, folder))
        results["late_against_early"] = {
            name: late_against_early(name, folder, config.steps) for name in (ONNX, EAGER)
        }
        results["evaluation"] = evaluation(config)
        results["curves"] = {}
        for name in names:
            console.print(f"an episode of {config.steps} steps: {name}")
            results["curves"][name] = in_its_own_process("curve", name, folder, config.steps)
        results["memory"] = {
            name: in_its_own_process("memory", name, folder, config.memory_steps)
            for name in (ONNX, EAGER)
        }
    report(results, console)
    path = save(config.name, results)
    draw(results["curves"], path.with_suffix(".png"))
    console.print(f"written to {path}")


def report(results: dict[str, Any], console: Console) -> None:
    """Print the tables and the bars."""
    table = Table(title="one step, batch 1, one thread", title_justify="left")
    columns = ("who", "us", "10% - 90%", "over Aaren in ONNX", "episode, s", "state at 1")
    for column in (*columns, "at the end", "process grows, MB"):
        table.add_column(column, justify="left" if column == "who" else "right")
    for name, row in results["steps"].items():
        low, high, ratio = 1e6 * row["low"], 1e6 * row["high"], row["over_onnx"][0]
        cells = [name, f"{row['microseconds']:.1f}", f"{low:.1f} - {high:.1f}", f"{ratio:.2f}"]
        curve = results["curves"].get(name)
        if curve:
            grown = (curve["process_bytes"][-1] - curve["process_bytes"][0]) / 1e6
            states = (f"{curve['state_bytes'][k]:,}" for k in (0, -1))
            cells += [f"{curve['cumulated_seconds'][-1]:.2f}", *states, f"{grown:.1f}"]
        table.add_row(*cells)
    console.print(table)
    console.print_json(
        json.dumps({k: v for k, v in results.items() if k not in ("curves", "steps")})
    )


if __name__ == "__main__":
    main(tyro.cli(ActingConfig))
