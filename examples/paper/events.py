"""Event forecasting: when the next event comes, and which mark it has.

    python examples/paper/events.py --data DIR --sets stackoverflow_fold1 wikipedia
    python examples/paper/events.py --sets sin
    python examples/paper/events.py --quick

A token is an event. Its output is a mixture of log-normals for the time to the next event, and
logits for its mark. A new event is a step (`event_cost.py` times it).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from event_mixture import SHORTEST, Prediction
from paper_data import EventBatch, Events, read_events
from paper_training import Row, Settings, Task, compare, run, sequence_model, sinusoids
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax, softplus

from aaren_rl.layers.state import SequenceState

IGNORED = -100  # the mark of no event


@dataclass(frozen=True)
class EventSettings(Settings):
    """Train event models and compare their negative log-likelihood on the test part."""

    sets: tuple[str, ...] = ("stackoverflow_fold1", "wikipedia", "sin")
    """Names of files or folders of events, `sin` or `generated`."""
    epochs: int = 15
    patience: int = 3
    batch_size: int = 16
    decay: float = 0.9
    components: int = 8
    """Log-normals of the mixture."""


@dataclass(frozen=True)
class Stream:
    """State of an event model: the blocks' state and the time of the last event, `[batch]`."""

    state: SequenceState
    time: Tensor


class EventModel(nn.Module):
    """Events -> blocks -> the distribution of the next event.

    Marks are compared with the same vectors that embed them, so that a mark can be expected again
    that was never seen in training.
    """

    def __init__(self, settings: EventSettings, mixer: str, num_marks: int) -> None:
        super().__init__()
        self.width = settings.width
        self.embed_mark = nn.Embedding(num_marks, settings.width)
        nn.init.normal_(self.embed_mark.weight, std=settings.width**-0.5)
        self.embed_time = nn.Linear(settings.width + 1, settings.width)
        self.sequence = sequence_model(settings, mixer)
        self.head = nn.Linear(settings.width, 3 * settings.components)
        self.to_mark = nn.Linear(settings.width, settings.width)
        nn.init.eye_(self.to_mark.weight)  # begins by expecting the last mark again
        self.mark_bias = nn.Parameter(torch.zeros(num_marks))

    def forward(
        self, times: Tensor, marks: Tensor, stream: Stream | None = None
    ) -> tuple[Prediction, Stream]:
        """Predictions after each event, and what to give to the next call.

        Args:
            times: `[batch, events]`, float64.
            marks: `[batch, events]`.
            stream: what an earlier call returned; `None` at the start of the sequences.
        """
        before = times[:, :1] if stream is None else stream.time[:, None]
        gaps = torch.cat([before, times], 1).diff().clamp_min(SHORTEST).log().float()
        known = torch.cat([sinusoids(times, self.width), gaps[..., None] / 4], -1)
        tokens = self.embed_mark(marks) * self.width**0.5 + self.embed_time(known)
        outputs, state = self.sequence(tokens, None if stream is None else stream.state)
        log_weights, means, scales = self.head(outputs).float().chunk(3, -1)
        logits = linear(self.to_mark(outputs), self.embed_mark.weight, self.mark_bias)
        prediction = Prediction(
            log_softmax(log_weights, -1), means, softplus(scales) + 1e-3, logits.float()
        )
        return prediction, Stream(state, times[:, -1])


class EventForecasting(Task):
    """One set."""

    metrics = ("NLL", "time NLL", "mark NLL", "RMSE", "accuracy")

    def __init__(self, events: Events, name: str, settings: EventSettings) -> None:
        self.name, self.events, self.settings = name, events, settings

    def model(self, mixer: str) -> nn.Module:
        """See `Task.model`."""
        return EventModel(self.settings, mixer, self.events.num_marks)

    def batch(self, chosen: np.ndarray) -> EventBatch:
        """Some of the sequences."""
        return self.events.batch(chosen, self.settings.device)

    def batches(self, generator: torch.Generator) -> Iterator[EventBatch]:
        """Sequences of similar length together: the longest here has ten times the median."""
        part = self.events.parts[0]
        lengths = np.array([len(self.events.times[number]) for number in part])
        noise = torch.rand(len(part), generator=generator).numpy()
        batches = part[np.argsort(lengths * (1 + 0.1 * noise))]
        batches = np.split(
            batches, range(self.settings.batch_size, len(part), self.settings.batch_size)
        )
        for number in torch.randperm(len(batches), generator=generator).tolist():
            yield self.batch(batches[number])

    def measure(self, model: nn.Module, batch: EventBatch) -> dict[str, Tensor]:
        """Sums over the events that are predicted: all but each sequence's first."""
        prediction, _ = model(batch.times, batch.marks)
        gaps, marks = batch.times.diff().float(), batch.marks[:, 1:]
        real = torch.arange(gaps.shape[1], device=gaps.device) < batch.lengths[:, None] - 1
        rows = torch.arange(len(gaps), device=gaps.device)
        within, at_last = (
            prediction.at(slice(None), slice(-1)),
            prediction.at(rows, batch.lengths - 1),
        )
        silence = (self.events.end - batch.times[:, -1]).float()
        time_nll = -within.log_density(gaps)[real].sum() - at_last.log_survival(silence).sum()
        # Without cutting the logits, which are large: 8,227 for every event of Wikipedia.
        targets = nn.functional.pad(marks.masked_fill(~real, IGNORED), (0, 1), value=IGNORED)
        logits, targets = prediction.mark_logits.flatten(0, 1), targets.flatten()
        return {
            "time NLL": time_nll,
            "mark NLL": nn.functional.cross_entropy(
                logits, targets, ignore_index=IGNORED, reduction="sum"
            ),
            "squared": (within.mean_gap(self.events.longest) - gaps)[real].square().sum(),
            "right": (logits.argmax(-1) == targets).sum(),
            "count": real.sum(),
        }

    def loss(self, model: nn.Module, batch: EventBatch) -> Tensor:
        """See `Task.loss`."""
        sums = self.measure(model, batch)
        return (sums["time NLL"] + sums["mark NLL"]) / sums["count"]

    def over(self, model: nn.Module, part: np.ndarray) -> dict[str, float]:
        """The metrics over a part."""
        part = part[np.argsort([len(self.events.times[number]) for number in part])]
        sums: dict[str, float] = {}
        for chosen in np.split(part, range(8, len(part), 8)):
            for key, value in self.measure(model, self.batch(chosen)).items():
                sums[key] = sums.get(key, 0.0) + float(value)
        count = sums.pop("count")
        means = {key: value / count for key, value in sums.items()}
        return {
            "NLL": means["time NLL"] + means["mark NLL"],
            "time NLL": means["time NLL"],
            "mark NLL": means["mark NLL"],
            "RMSE": means["squared"] ** 0.5,
            "accuracy": means["right"],
        }

    def validate(self, model: nn.Module) -> float:
        """See `Task.validate`."""
        return self.over(model, self.events.parts[1])["NLL"]

    def test(self, model: nn.Module) -> dict[str, float]:
        """See `Task.test`."""
        return self.over(model, self.events.parts[2])

    def baselines(self) -> dict[str, dict[str, float]]:
        """The training part's mean time and most frequent mark, and the last event's mark again."""
        times, marks = self.events.times, self.events.marks
        train, _, test = self.events.parts
        gaps = np.concatenate([np.diff(times[number]) for number in test])
        mean = np.concatenate([np.diff(times[number]) for number in train]).mean()
        again = np.concatenate([marks[number][1:] == marks[number][:-1] for number in test])
        most = np.bincount(np.concatenate([marks[number] for number in train])).argmax()
        last = np.concatenate([marks[number][1:] == most for number in test])
        return {
            "mean time, frequent mark": {
                "RMSE": float(np.sqrt(((gaps - mean) ** 2).mean())),
                "accuracy": float(last.mean()),
            },
            "mark of the last event": {"accuracy": float(again.mean())},
        }


def main(settings: EventSettings) -> list[Row]:
    """Train and compare; one row for each run."""
    if settings.quick:
        settings = dataclasses.replace(
            settings, sets=("generated",), seeds=min(2, settings.seeds), epochs=2, width=16
        )
    tasks = [
        EventForecasting(read_events(settings.data, name), name, settings) for name in settings.sets
    ]
    return compare(tasks, settings)


if __name__ == "__main__":
    run(EventSettings, main)
