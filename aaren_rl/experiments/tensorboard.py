"""Comparisons in TensorBoard: curves of the agents over each other, pictures, costs, videos."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from aaren_rl.agents import load_agent
from aaren_rl.errors import UserError
from aaren_rl.evaluation import acting_cost, mean_interval
from aaren_rl.experiments.content import Content
from aaren_rl.experiments.unit import Summary, acting_steps
from aaren_rl.training.loggers import target_tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE_BY_SIDE = "agents side by side"
"""The group of charts in the Custom Scalars tab."""


def write_curves(folder: Path, content: Content) -> None:
    """Scores by update, mean over seeds: a run for each agent, a tag for each task.

    The Custom Scalars tab shows them with a band from the lowest to the highest seed.
    """
    group, names = "score by task", ("", "_low", "_high")
    tasks = content.learning_curves
    charts = {task: ["Margin", [f"{group}/{task}{name}" for name in names]] for task in tasks}
    for agent in content.runs.agents:
        with fresh(folder / agent) as writer:
            for task, lines in tasks.items():
                for point in lines.get(agent, []):
                    for name, value in zip(names, ("mean", "low", "high"), strict=True):
                        tag = f"{group}/{task}{name}"
                        writer.add_scalar(tag, point[value], int(point["update"]))
            writer.add_custom_scalars({SIDE_BY_SIDE: charts})


def write_mean_curves(folder: Path, summaries: dict[str, list[Summary]]) -> None:
    """The mean score over seeds by update, with its 95% interval or range: a run AGENT/mean each.

    `evaluation` has the score of the first target return, or of an agent that cannot be asked for
    one, so that all agents are in one chart.
    """
    for agent, found in summaries.items():
        with fresh(folder / agent / "mean") as writer:
            bounds = "interval"
            tables = [{(r.target_return, r.update): r.score_mean for r in s.history} for s in found]
            first = next(iter(tables[0]), (None,))[0]
            for target, update in (key for key in tables[0] if all(key in t for t in tables)):
                mean = mean_interval(np.array([table[target, update] for table in tables]))
                bounds = "range" if mean.bounds == "range" else "interval"
                values = (mean.value, mean.low, mean.high)
                for tag in {target_tag(target), *(["evaluation"] if target == first else [])}:
                    for name, value in zip(_names(tag, bounds), values, strict=True):
                        writer.add_scalar(name, value, update)
            asked = {target_tag(target) for table in tables for target, _ in table}
            writer.add_custom_scalars(_mean_layout(sorted({"evaluation", *asked}), bounds))


def _names(tag: str, bounds: str) -> list[str]:
    return [f"{tag}/score", f"{tag}/score_{bounds}_low", f"{tag}/score_{bounds}_high"]


def _mean_layout(tags: list[str], bounds: str) -> dict[str, dict[str, list[Any]]]:
    """For each group a chart of the means, and one of all seeds, named by their runs."""
    charts: dict[str, list[Any]] = {}
    for tag in tags:
        group = tag.replace("evaluation/", ", ").removeprefix("evaluation")
        charts[f"score, mean and {bounds} over seeds{group}"] = ["Margin", _names(tag, bounds)]
        charts[f"score of each seed{group}"] = ["Multiline", [f"{tag}/score"]]
    return {SIDE_BY_SIDE: charts}


def write_pictures(folder: Path, pictures: dict[str, Figure]) -> None:
    """Pictures by tag, for the Images tab."""
    with fresh(folder) as writer:
        for tag, figure in pictures.items():
            writer.add_figure(tag, figure)


def write_acting_costs(folder: Path, checkpoint: Path, observations: np.ndarray) -> None:
    """What acting costs by environment step: runs `acting-MODE-seed-N`.

    The modes are `carry` and the agent's default.

    Args:
        folder: gets the runs.
        checkpoint: the agent, as saved in a run's folder `seed-N`.
        observations: of the data, `[any number, observation_size]`.
    """
    agent = load_agent(checkpoint)
    if not agent.has_memory:
        return  # it has no past to carry
    names = ("microseconds", "cumulated_milliseconds", "state_bytes")
    titles = ("microseconds a step", "milliseconds so far", "bytes from step to step")
    charts = {x: ["Multiline", [f"acting/{y}"]] for x, y in zip(titles, names, strict=True)}
    steps = acting_steps(agent)
    for mode in dict.fromkeys(("carry", agent.default_mode)):
        cost = acting_cost(agent, observations, mode=mode, steps=steps)
        cumulated = np.cumsum(cost.microseconds) / 1e3
        with fresh(folder / f"acting-{mode}-{checkpoint.parent.name}") as writer:
            for step in sorted({round(each) for each in np.linspace(1, steps, 50)}):
                around = cost.microseconds[max(0, step - 10) : step + 10]  # one step is noisy
                values = (np.median(around), cumulated[step - 1], cost.state_bytes[step - 1])
                for name, value in zip(names, values, strict=True):
                    writer.add_scalar(f"acting/{name}", float(value), step)
            writer.add_custom_scalars({"acting, by environment step": charts})


def write_videos(folder: Path, files: dict[str, Path], frames: int = 150) -> None:
    """Recorded episodes, for the Images tab."""
    try:
        from moviepy import VideoFileClip
    except ImportError:
        raise UserError("--videos needs moviepy: pip install 'aaren-rl[video]'") from None
    with fresh(folder) as writer:
        for tag, file in files.items():
            with VideoFileClip(str(file)) as clip:
                times = np.linspace(0, clip.duration, min(frames, clip.n_frames), endpoint=False)
                seen = [clip.get_frame(time)[::2, ::2] for time in times]
                pause = 1000 * clip.duration / len(times)
            writer._get_file_writer().add_summary(_moving_picture(tag, seen, pause))


def _moving_picture(tag: str, frames: list[np.ndarray], pause: float) -> Any:
    """An animated image for TensorBoard (torch's own `add_video` needs moviepy 1).

    `frames` are uint8 `[height, width, 3]`, `pause` is in milliseconds.
    """
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    first, *others = map(Image.fromarray, frames)
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=others, duration=round(pause), loop=0)
    height, width, colours = frames[0].shape
    picture = Summary.Image(
        height=height,
        width=width,
        colorspace=colours,
        encoded_image_string=content.getvalue(),
    )
    return Summary(value=[Summary.Value(tag=tag, image=picture)])


@contextlib.contextmanager
def fresh(folder: Path) -> Iterator[SummaryWriter]:
    """A writer into a folder whose event files are removed first."""
    for old in folder.glob("events.*"):
        old.unlink()
    writer = SummaryWriter(str(folder))
    try:
        yield writer
    finally:
        writer.close()
