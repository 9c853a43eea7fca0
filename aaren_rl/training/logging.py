"""Names of metrics and TensorBoard's layouts. Tags are the same for every agent: runs overlay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aaren_rl.evaluation import Score


def target_tag(target_return: float | None) -> str:
    """The group of an evaluation's scalars, `evaluation/target_3600`; another for each target."""
    if target_return is None:
        return "evaluation"
    short = f"{target_return:g}"
    return f"evaluation/target_{short if float(short) == target_return else repr(target_return)}"


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


def score_scalars(score: Score) -> dict[str, float]:
    """Scalars of one evaluation by tag.

    The spread of the score is one standard deviation over episodes.
    """
    values = {
        "score": score.score_mean,
        "score_low": score.score_mean - score.score_std,
        "score_high": score.score_mean + score.score_std,
        "return": score.return_mean,
        "episode_length": score.length_mean,
    }
    tag = target_tag(score.target_return)
    return {f"{tag}/{name}": value for name, value in values.items()}


def flat_settings(config: dict[str, Any]) -> dict[str, bool | int | float | str]:
    """A run's settings on one level, as plain values; those that are None are left out.

    TensorBoard's HParams tab can sort and filter a column only when all its values are of one type.
    """
    flat = {**config, **config.get("model", {})}
    return {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in flat.items()
        if name != "model" and value is not None
    }
