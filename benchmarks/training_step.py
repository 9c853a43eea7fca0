"""A whole training step: batch, forward, backward, clip, optimiser; agents and rivals in turns.

    python -m benchmarks.training_step [--help]

The same data (the Hopper set inside the package), the same shape and the same optimiser for all.
Each candidate runs in float32 and in bfloat16 autocast; ratios are between the better of the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from aaren_rl.agents import AGENTS, Agent, AgentConfig, AgentSpec
from aaren_rl.data import (
    Batch,
    EpisodeSampler,
    TrajectoryDataset,
    WindowSampler,
    load_trajectories,
)
from aaren_rl.layers import AarenAttention
from aaren_rl.training.allocator import keep_freed_memory
from benchmarks.timing import Timing, describe_machine, save, take_turns, timed

SHAPES = ((64, 20), (1, 1000))
EPISODES_BAR = 1.15
BARS = {(64, 20): 0.70, (1, 1000): 0.22}
OURS = ("decision-aaren", "decision-transformer")
PRECISIONS = {"32": False, "bf16": True}
Loss = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class StepConfig:
    """Time whole training steps of both agents, and of other people's Decision Transformers."""

    turns: int = 15
    """How often each candidate has its turn."""
    threads: int = 2
    """Threads of the CPU to use."""
    rivals: bool = True
    """Time Hugging Face's and d3rlpy's Decision Transformer too, where they are installed."""
    compile: bool = False
    """Time our agents through torch.compile too (compiles for a minute or two)."""
    profile: bool = False
    """Print where Decision Aaren's step spends its time, by torch's profiler, and nothing else."""
    device: str = "cpu"
    """cpu or cuda."""
    name: str = "training_step"
    """Name of the files under benchmarks/results."""


class Batches(Protocol):
    """What a training step takes its batches from."""

    def sample(self) -> Batch:
        """The next one."""


def our_agent(name: str, data: TrajectoryDataset) -> Agent:
    """An agent of the default shape, 3 layers of width 128.

    Attention dropout is off: with it SDPA falls back to a slower form at 1,000 steps, and the
    Transformer is to be shown at its best.
    """
    torch.manual_seed(0)
    spec = AgentSpec(data.observation_space, data.action_space)
    config = AgentConfig(attention_dropout=0.0)
    return AGENTS[name].make(config, spec, *data.observation_statistics())


def check_agent(agent: Agent, batch: Batch) -> None:
    """Raise unless the agent's fast scan gives what the definition gives."""
    layers = [module for module in agent.modules() if isinstance(module, AarenAttention)]
    agent.eval()
    with torch.no_grad():
        fast = agent.predict(batch)
        for layer in layers:
            layer.backend = "reference"
        exact = agent.predict(batch)
    for layer in layers:
        layer.backend = "auto"
    agent.train()
    error = float((fast - exact).abs().max())
    if not error < 1e-4:
        raise SystemExit(
            f"{agent.name}: predictions off by {error:.1e}; no speed for a wrong answer"
        )


def hugging_face(data: TrajectoryDataset) -> tuple[nn.Module, Loss]:
    """Hugging Face's Decision Transformer in the same shape, and its loss on our batches."""
    from transformers import DecisionTransformerConfig, DecisionTransformerModel

    torch.manual_seed(0)
    size, actions = data.observations.shape[1], data.actions.shape[1]
    config = DecisionTransformerConfig(
        state_dim=size,
        act_dim=actions,
        hidden_size=128,
        n_layer=3,
        n_head=1,
        n_inner=512,
        max_ep_len=1000,
        n_positions=3000,
        attn_pdrop=0.0,
    )
    model = DecisionTransformerModel(config).train()

    def loss(batch: Batch) -> Tensor:
        out: Any = model(
            states=batch.observations,
            actions=batch.actions,
            returns_to_go=batch.returns_to_go / 1000,
            timesteps=batch.timesteps,
            attention_mask=batch.mask.long(),
            rewards=None,
        )
        wrong = (out.action_preds.float() - batch.actions).square().mean(-1)
        return (wrong * batch.mask).sum() / batch.mask.sum()

    return model, loss


def d3rlpy(data: TrajectoryDataset, context: int) -> tuple[nn.Module, Loss]:
    """d3rlpy's Decision Transformer in the same shape, and its loss on our batches."""
    from d3rlpy.models.builders import create_continuous_decision_transformer
    from d3rlpy.models.encoders import VectorEncoderFactory

    torch.manual_seed(0)
    model = create_continuous_decision_transformer(
        observation_shape=(data.observations.shape[1],),
        action_size=data.actions.shape[1],
        encoder_factory=VectorEncoderFactory([128], exclude_last_activation=True),
        num_heads=1,
        max_timestep=1001,
        num_layers=3,
        context_size=context,
        attn_dropout=0.0,
        resid_dropout=0.1,
        embed_dropout=0.1,
        activation_type="relu",
        position_encoding_type=_d3rlpy_positions(),
        device="cpu",
        enable_ddp=False,
    ).train()

    def loss(batch: Batch) -> Tensor:
        predicted = model(
            batch.observations,
            batch.actions,
            batch.returns_to_go / 1000,
            batch.timesteps + 1,
            1 - batch.mask.long(),
        )
        wrong = (predicted.float() - batch.actions).square().mean(-1)
        return (wrong * batch.mask).sum() / batch.mask.sum()

    return model, loss


def _d3rlpy_positions() -> Any:
    from d3rlpy import PositionEncodingType

    return PositionEncodingType.SIMPLE


def training_step(
    module: nn.Module, loss: Loss, sampler: Batches, device: str, bf16: bool
) -> Callable[[], None]:
    """One update, as the trainer does it."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, weight_decay=1e-4, fused=True)

    def step() -> None:
        batch = sampler.sample().to(device)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            value = loss(batch)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 0.25)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def candidates(
    config: StepConfig, data: TrajectoryDataset, shape: tuple[int, int]
) -> dict[str, Callable[[], None]]:
    """Name, precision -> one training step, for everything that is installed."""
    batch_size, context = shape

    def sampler() -> WindowSampler:
        return WindowSampler(data, batch_size=batch_size, context_length=context, seed=0)

    modules: dict[str, tuple[nn.Module, Loss]] = {}
    for name in OURS:
        agent = our_agent(name, data).to(config.device)
        check_agent(agent, sampler().sample().to(config.device))
        modules[name] = (agent, agent)
        if config.compile:
            modules[f"{name}, compiled"] = (agent, torch.compile(agent))
    if config.rivals and find_spec("transformers"):
        model, loss = hugging_face(data)
        modules["Hugging Face DT"] = (model.to(config.device), loss)
    if config.rivals and find_spec("d3rlpy") and config.device == "cpu":
        modules["d3rlpy DT"] = d3rlpy(data, context)
    return {
        f"{name} | {precision}": training_step(module, loss, sampler(), config.device, bf16)
        for name, (module, loss) in modules.items()
        for precision, bf16 in PRECISIONS.items()
    }


def best(timings: dict[str, Timing], name: str) -> tuple[str, Timing]:
    """A candidate's faster precision (and form, compiled or not)."""
    own = {key: timing for key, timing in timings.items() if key.split(" | ")[0].startswith(name)}
    key = min(own, key=lambda each: own[each].median)
    return key, own[key]


def report(shape: tuple[int, int], timings: dict[str, Timing], console: Console) -> dict[str, Any]:
    """Print one shape's table; its ratios, for JSON."""
    base = best(timings, "decision-transformer")[1]
    table = Table(title=f"training step, batch {shape[0]} x {shape[1]} steps", title_justify="left")
    for column in ("candidate", "precision", "ms", "10% - 90%", "over our Transformer's best"):
        table.add_column(column, justify="left" if column == "candidate" else "right")
    rows = {}
    for key, timing in timings.items():
        name, precision = key.split(" | ")
        ratio = timing.over(base)
        low, high = (1e3 * end for end in timing.spread)
        spread = f"{low:.1f} - {high:.1f}"
        over = f"{ratio[0]:.3f} ({ratio[1]:.3f} - {ratio[2]:.3f})"
        table.add_row(name, precision, f"{1e3 * timing.median:.1f}", spread, over)
        rows[key] = {**timing.record(), "over_transformer": ratio}
    console.print(table)
    aaren_key, aaren = best(timings, "decision-aaren")
    reached = aaren.over(base)[0]
    verdict = "met" if reached <= BARS[shape] else "missed"
    console.print(
        f"Aaren's best ({aaren_key}) over the Transformer's best: {reached:.3f}; "
        f"bar {BARS[shape]}: {verdict}\n"
    )
    return {"steps": rows, "aaren_over_transformer": reached, "bar": BARS[shape]}


def per_step_of_data(
    config: StepConfig, data: TrajectoryDataset, console: Console
) -> dict[str, Any]:
    """Decision Aaren's time for each environment step learned from: whole episodes and windows.

    Both are told to take 64 x 20 steps a batch; what is padding, or left over, counts for nothing.
    """
    batch_size, context = SHAPES[0]
    seconds: dict[str, list[float]] = {}
    kinds: dict[str, tuple[_Counting, Callable[[], None]]] = {}
    for name in ("windows", "episodes"):
        sampler = _Counting(
            WindowSampler(data, batch_size=batch_size, context_length=context, seed=0)
            if name == "windows"
            else EpisodeSampler(data, batch_steps=batch_size * context, seed=0)
        )
        agent = our_agent("decision-aaren", data).to(config.device)
        kinds[name] = sampler, training_step(agent, agent, sampler, config.device, bf16=True)
    for turn in range(config.turns + 1):
        for name, (sampler, step) in kinds.items():
            taken = [timed(step) for _ in range(10)]
            if turn:  # the first fills the caches
                seconds.setdefault(name, []).append(sum(taken) / sampler.steps)
            sampler.steps = 0
    timings = {name: Timing(tuple(each)) for name, each in seconds.items()}
    ratio, low, high = timings["episodes"].over(timings["windows"])
    micros = {name: f"{1e6 * timing.median:.1f} us" for name, timing in timings.items()}
    console.print(
        f"time for each step of data, bf16: windows {micros['windows']}, whole episodes "
        f"{micros['episodes']}: {ratio:.3f} ({low:.3f} - {high:.3f}); bar {EPISODES_BAR}: "
        f"{'met' if ratio <= EPISODES_BAR else 'missed'}\n"
    )
    rows = {name: timing.record() for name, timing in timings.items()}
    return {"seconds": rows, "episodes_over_windows": (ratio, low, high), "bar": EPISODES_BAR}


class _Counting:
    """A sampler that counts the real steps of its batches."""

    def __init__(self, sampler: WindowSampler | EpisodeSampler) -> None:
        self.sampler, self.steps = sampler, 0

    def sample(self) -> Batch:
        batch = self.sampler.sample()
        self.steps += int(batch.mask.sum())
        return batch


def profile(config: StepConfig, data: TrajectoryDataset) -> None:
    """Where the time of Decision Aaren's step goes, in its better precision."""
    steps = candidates(config, data, SHAPES[0])
    step = steps["decision-aaren | bf16"]
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as taken:
        for _ in range(5):
            step()
    print(taken.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))


def main(config: StepConfig) -> None:
    """Run the benchmark."""
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    data = load_trajectories("aaren-rl/hopper-small-v0")
    if config.profile:
        profile(config, data)
        return
    console = Console(width=130)
    console.print(describe_machine())
    results = {}
    for shape in SHAPES:
        timings = take_turns(candidates(config, data, shape), turns=config.turns)
        results[f"{shape[0]}x{shape[1]}"] = report(shape, timings, console)
    steps = dict(results)
    results["per_step_of_data"] = per_step_of_data(config, data, console)
    path = save(config.name, results)
    plot(steps, path.with_suffix(".png"))
    console.print(f"written to {path}")


def plot(results: dict[str, Any], path: Any) -> None:
    """Bars of milliseconds, a panel for each shape."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels: Any = figure.subplots(1, len(results))
    for axis, (shape, result) in zip(panels, results.items(), strict=True):
        steps = result["steps"]
        names = list(steps)[::-1]
        medians = [1e3 * steps[name]["median"] for name in names]
        colors = ["tab:blue" if name.startswith("decision-aaren") else "tab:gray" for name in names]
        axis.barh(names, medians, color=colors)
        axis.set_title(f"training step, {shape}", fontsize=10)
        axis.set_xlabel("ms")
        axis.tick_params(labelsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(tyro.cli(StepConfig))
