"""Time-series classification: the class of a series from its whole length.

    python examples/paper/classify.py --data DIR --sets JapaneseVowels Handwriting
    python examples/paper/classify.py --quick

A token is one time step and the few before it, with all their channels: a causal convolution. The
class is read from the last token, so that a classifier can run along a stream and has an opinion
after every step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from paper_data import Labelled, read_labelled
from paper_training import Row, Settings, Task, compare, run, sequence_model, sinusoids
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from aaren_rl.layers.state import SequenceState

Batch = tuple[Tensor, Tensor, Tensor]
"""Series `[batch, time, channels]` padded at the end, their lengths and classes `[batch]`."""


@dataclass(frozen=True)
class ClassifySettings(Settings):
    """Train classifiers and compare their accuracy on the test part."""

    sets: tuple[str, ...] = ("JapaneseVowels", "Handwriting")
    """Names of UEA sets, or `generated`."""
    width: int = 128
    layers: int = 3
    heads: int = 8
    epochs: int = 100
    patience: int = 20
    batch_size: int = 16
    dropout: float = 0.2
    kernel: int = 8
    """Steps that a token is made of, the newest included."""
    validate_on_test: bool = False
    """Validate on the test part and train on the whole training part, as Time-Series-Library does.
    Its accuracies are too high for that reason; by default a fifth of the training part is held
    out."""


@dataclass(frozen=True)
class Stream:
    """State of a classifier; `recent` are the last steps, `[batch, kernel - 1, channels]`."""

    state: SequenceState
    recent: Tensor
    tokens: int


class Classifier(nn.Module):
    """Time steps -> blocks -> logits of the classes.

    Args:
        settings: its shape.
        mixer: of the blocks.
        channels: numbers of a time step.
        classes: number of classes.
    """

    def __init__(self, settings: ClassifySettings, mixer: str, channels: int, classes: int) -> None:
        super().__init__()
        self.width, self.kernel = settings.width, settings.kernel
        self.embed_steps = nn.Linear(settings.kernel * channels, settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.sequence = sequence_model(settings, mixer)
        self.head = nn.Linear(settings.width, classes)

    def forward(self, x: Tensor, stream: Stream | None = None) -> tuple[Tensor, Stream]:
        """Steps `[batch, time, channels]` to logits after each, `[batch, time, classes]`.

        Padding behind the end of a shorter series has no effect on the steps before.
        """
        count, before = x.shape[1], 0 if stream is None else stream.tokens
        recent = (
            x.new_zeros(len(x), self.kernel - 1, x.shape[2]) if stream is None else stream.recent
        )
        x = torch.cat([recent, x], 1)
        positions = torch.arange(before, before + count, device=x.device)
        tokens = self.embed_steps(x.unfold(1, self.kernel, 1).flatten(2))
        tokens = self.dropout(tokens + sinusoids(positions, self.width))
        outputs, state = self.sequence(tokens, None if stream is None else stream.state)
        return self.head(outputs), Stream(state, x[:, count:], before + count)


class Classification(Task):
    """One set."""

    metrics = ("accuracy",)
    relative = False

    def __init__(
        self, train: Labelled, test: Labelled, name: str, settings: ClassifySettings
    ) -> None:
        self.name, self.settings, self.classes = name, settings, train.classes
        chosen = np.random.default_rng(0).permutation(len(train.series))
        held_out = 0 if settings.validate_on_test else len(chosen) // 5
        steps = np.concatenate([train.series[number] for number in chosen[held_out:]])
        self.mean, self.std = steps.mean(0), steps.std(0) + 1e-8
        self.train_part = self.part(train, chosen[held_out:])
        self.test_part = self.part(test, np.arange(len(test.series)))
        self.validation_part = self.part(train, chosen[:held_out]) if held_out else self.test_part

    def part(self, labelled: Labelled, chosen: np.ndarray) -> Batch:
        """Some of the series, standardised as the training part, in one batch padded with zeros."""
        series = [
            torch.from_numpy((labelled.series[number] - self.mean) / self.std) for number in chosen
        ]
        lengths = torch.tensor([len(one) for one in series])
        labels = torch.from_numpy(labelled.labels[chosen])
        tensors = pad_sequence(series, batch_first=True), lengths, labels
        return tuple(tensor.to(self.settings.device) for tensor in tensors)  # type: ignore[return-value]

    def model(self, mixer: str) -> nn.Module:
        """See `Task.model`."""
        return Classifier(self.settings, mixer, len(self.mean), len(self.classes))

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """See `Task.batches`."""
        x, lengths, labels = self.train_part
        order = torch.randperm(len(labels), generator=generator)
        for chosen in order.split(self.settings.batch_size):
            yield x[chosen, : int(lengths[chosen].max())], lengths[chosen], labels[chosen]

    def logits(self, model: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits at the last step of each series, `[batch, classes]`."""
        logits, _ = model(x)
        return logits[torch.arange(len(x)), lengths - 1]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Task.loss`."""
        x, lengths, labels = batch
        return nn.functional.cross_entropy(self.logits(model, x, lengths).float(), labels)

    def all_logits(self, model: nn.Module, part: Batch) -> Tensor:
        """Logits at the last step of every series of a part."""
        x, lengths, _ = part
        pairs = zip(x.split(64), lengths.split(64), strict=True)
        return torch.cat([self.logits(model, *pair) for pair in pairs])

    def validate(self, model: nn.Module) -> float:
        """Share of wrong answers; cross-entropy decides between equal ones."""
        logits, labels = self.all_logits(model, self.validation_part), self.validation_part[2]
        wrong = (logits.argmax(-1) != labels).float().mean()
        return float(wrong + 1e-3 * nn.functional.cross_entropy(logits, labels))

    def test(self, model: nn.Module) -> dict[str, float]:
        """See `Task.test`."""
        right = self.all_logits(model, self.test_part).argmax(-1) == self.test_part[2]
        return {"accuracy": float(right.float().mean())}

    def baselines(self) -> dict[str, dict[str, float]]:
        """The most frequent class, and the class of the nearest series, padded with zeros."""
        (x, _, labels), (test_x, _, test_labels) = self.train_part, self.test_part
        longest = max(x.shape[1], test_x.shape[1])
        mine, theirs = (
            nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])).flatten(1)
            for part in (x, test_x)
        )
        nearest = labels[torch.cdist(theirs, mine).argmin(1)]
        return {
            "most frequent class": {
                "accuracy": float((test_labels == labels.mode()[0]).float().mean())
            },
            "nearest series": {"accuracy": float((nearest == test_labels).float().mean())},
        }


def main(settings: ClassifySettings) -> list[Row]:
    """Train and compare; one row for each run."""
    if settings.quick:
        settings = dataclasses.replace(
            settings,
            sets=("generated",),
            seeds=min(2, settings.seeds),
            epochs=4,
            width=32,
            layers=2,
            heads=4,
        )
    tasks = [
        Classification(*read_labelled(settings.data, name), name, settings)
        for name in settings.sets
    ]
    return compare(tasks, settings)


if __name__ == "__main__":
    run(ClassifySettings, main)
