"""A benchmark in TensorBoard: each task one chart in which the agents lie over each other."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from aaren_rl.errors import UserError
from aaren_rl.experiments.plots import Group, sheet

GROUP = "score by task"


def write_curves(folder: Path, content: dict[str, Any]) -> None:
    """Scores by update, mean over seeds: a run for each agent, a tag for each task.

    The Scalars tab then has a chart for each task with all agents in it, the Custom Scalars tab
    the same with a band from the lowest to the highest seed.

    Args:
        folder: gets a folder for each agent.
        content: as `report_content` gives it.
    """
    tasks = content["learning_curves"]
    names = ("", "_low", "_high")
    charts = {task: ["Margin", [f"{GROUP}/{task}{name}" for name in names]] for task in tasks}
    for agent in content["runs"]["agents"]:
        with _fresh(folder / agent) as writer:
            for task, lines in tasks.items():
                for point in lines.get(agent, []):
                    for name, value in zip(names, ("mean", "low", "high"), strict=True):
                        tag = f"{GROUP}/{task}{name}"
                        writer.add_scalar(tag, point[value], point["update"])
            writer.add_custom_scalars({"agents side by side": charts})


def write_pictures(folder: Path, groups: list[Group]) -> None:
    """The report's pictures, for the Images tab."""
    with _fresh(folder) as writer:
        for group in groups:
            writer.add_figure(f"report/{group.name}", sheet(group.panels))


def write_videos(folder: Path, files: dict[str, Path], frames: int = 150) -> None:
    """Recorded episodes, for the Images tab.

    Args:
        folder: gets the events.
        files: MP4 files by tag.
        frames: at most so many of each, evenly spread, two pixels in each direction made one.
    """
    try:
        from moviepy import VideoFileClip
    except ImportError:
        raise UserError("--videos needs moviepy: pip install 'aaren-rl[video]'") from None
    with _fresh(folder) as writer:
        for tag, file in files.items():
            with VideoFileClip(str(file)) as clip:
                times = np.linspace(0, clip.duration, min(frames, clip.n_frames), endpoint=False)
                seen = [clip.get_frame(time)[::2, ::2] for time in times]
                pause = 1000 * clip.duration / len(times)
            writer._get_file_writer().add_summary(_moving_picture(tag, seen, pause))


def _moving_picture(tag: str, frames: list[np.ndarray], pause: float) -> Summary:
    """An image of TensorBoard that moves (torch's own `add_video` asks for moviepy 1).

    Args:
        tag: its name.
        frames: `[height, width, 3]`, uint8.
        pause: milliseconds from one to the next.
    """
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
def _fresh(folder: Path) -> Iterator[SummaryWriter]:
    """A writer of a run that begins anew."""
    for old in folder.glob("events.*"):
        old.unlink()
    writer = SummaryWriter(str(folder))
    try:
        yield writer
    finally:
        writer.close()
