"""What TensorBoard gets to see. Tags are the same for every agent, so that runs overlay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from aaren_rl.evaluation import Score
from aaren_rl.training.offline import OfflineMetrics


def target_tag(target_return: float | None) -> str:
    """The group of an evaluation's scalars, `evaluation/target_3600`."""
    return "evaluation" if target_return is None else f"evaluation/target_{target_return:g}"


def mean_layout(tags: list[str], bounds: str) -> dict[str, dict[str, list[Any]]]:
    """The custom-scalars page of means over seeds: a chart of the score for each target return.

    Args:
        tags: groups of evaluations, as `target_tag` names them.
        bounds: `range` or `interval`: what `score_{bounds}_low` and `_high` are.
    """
    charts: dict[str, list[Any]] = {}
    for tag in tags:
        short = tag.removeprefix("evaluation").strip("/") or "all"
        names = [f"{tag}/score", f"{tag}/score_{bounds}_low", f"{tag}/score_{bounds}_high"]
        charts[f"score, mean and {bounds} over seeds, {short}"] = ["Margin", names]
    return {"agents side by side": charts}


def custom_layout(tags: list[str]) -> dict[str, dict[str, list[Any]]]:
    """The custom-scalars page: one chart each of score (with spread), length, loss and speed.

    A chart draws every run that is ticked, so Aaren and Transformer stand in one.

    Args:
        tags: groups of evaluations, as `target_tag` names them.
    """
    charts: dict[str, list[Any]] = {}
    for tag in tags:
        short = tag.removeprefix("evaluation").strip("/") or "all"
        bounds = [f"{tag}/score", f"{tag}/score_low", f"{tag}/score_high"]
        charts[f"score, {short}"] = ["Margin", bounds]
        charts[f"episode length, {short}"] = ["Multiline", [f"{tag}/episode_length"]]
    charts["loss"] = ["Multiline", ["training/loss"]]
    charts["tokens per second"] = ["Multiline", ["training/tokens_per_second"]]
    return {"agents side by side": charts}


class RunLog:
    """Writes a run's TensorBoard events.

    Args:
        folder: the run's folder.
        targets: the returns that evaluations ask for.
        done: the update that the run goes on from, 0 for a new one; what a process that died had
            logged after it is taken back.
    """

    def __init__(self, folder: Path, targets: list[float | None], done: int = 0) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=done + 1)
        self._writer.add_custom_scalars(custom_layout([target_tag(t) for t in targets]))

    def training(self, values: dict[str, float], update: int) -> None:
        """Scalars of the training itself."""
        for name, value in values.items():
            self._writer.add_scalar(f"training/{name}", value, update)

    def evaluation(self, scores: list[Score], update: int) -> None:
        """Scores with their spread (one standard deviation over episodes) and episode lengths."""
        for score in scores:
            tag = target_tag(score.target_return)
            values = {
                "score": score.score_mean,
                "score_low": score.score_mean - score.score_std,
                "score_high": score.score_mean + score.score_std,
                "return": score.return_mean,
                "episode_length": score.length_mean,
            }
            for name, value in values.items():
                self._writer.add_scalar(f"{tag}/{name}", value, update)
        self._writer.flush()

    def offline(self, metrics: OfflineMetrics, update: int) -> None:
        """Errors by position, and the memory's horizon with its picture."""
        for tag, value in metrics.scalars().items():
            self._writer.add_scalar(tag, value, update)
        if metrics.picture is not None:
            self._writer.add_figure("memory/held_at_the_end", metrics.picture, update)
        self._writer.flush()

    def final(self, settings: dict[str, Any], metrics: dict[str, float], update: int) -> None:
        """The row of this run in the HParams tab: what it was told and what came of it."""
        named = {f"final/{name}": value for name, value in metrics.items()}
        experiment, start, end = hparams(settings, named)
        for summary in (experiment, start, end):
            self._writer._get_file_writer().add_summary(summary)
        for name, value in named.items():
            self._writer.add_scalar(name, value, update)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def flat_settings(config: dict[str, Any]) -> dict[str, bool | int | float | str]:
    """A run's settings as the HParams tab takes them: one level, plain values."""
    flat: dict[str, bool | int | float | str] = {}
    for name, value in {**config, **config.get("model", {})}.items():
        if name == "model":
            continue
        flat[name] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat
