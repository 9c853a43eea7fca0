"""Time-series forecasting: the next 96 or more steps of every channel from the last 96.

    python examples/paper/forecast.py --data DIR --sets ETTh1 Exchange --horizons 96 192
    python examples/paper/forecast.py --quick

Each channel is a sequence of its own, and a token is a patch of its values (as in PatchTST, Nie et
al. 2023), so that nothing looks ahead. The last token's output is the forecast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from paper_data import Series, read_series
from paper_training import Row, Settings, Task, compare, run, sequence_model, sinusoids
from torch import Tensor, nn

from aaren_rl.errors import UserError
from aaren_rl.layers.state import SequenceState

LAST = slice(-1, None)
CONTEXT = 96  # steps that a forecast looks back on
LAST_VALUE = slice(CONTEXT - 1, CONTEXT)
Predict = Callable[[Tensor], Tensor]
"""From windows `[windows, channels, 96 + horizon]` to forecasts `[windows, channels, horizon]`."""


@dataclass(frozen=True)
class ForecastSettings(Settings):
    """Train forecasters and compare their errors on the test part."""

    sets: tuple[str, ...] = ("ETTh1", "ETTh2", "ETTm1", "Exchange")
    """ETTh1, ETTh2, ETTm1, ETTm2, Exchange, Weather, ECL, Traffic, or `generated`."""
    horizons: tuple[int, ...] = (96, 192)
    """Steps to forecast."""
    patch: int = 16
    """Steps of a token; must divide 96."""
    epochs: int = 5
    patience: int = 2
    dropout: float = 0.3
    decay: float = 0.5


@dataclass(frozen=True)
class Stream:
    """State of a forecaster; `mean` and `std` `[series, 1]` are those of the first window."""

    state: SequenceState | None
    mean: Tensor
    std: Tensor
    tokens: int = 0


class Forecaster(nn.Module):
    """Patches of a normalised series -> blocks -> the next `horizon` values, beside the last one.

    The head's weights begin at zero: an untrained model nearly repeats the last value.
    """

    def __init__(self, settings: ForecastSettings, mixer: str, horizon: int) -> None:
        super().__init__()
        self.patch, self.width = settings.patch, settings.width
        self.embed_patch = nn.Linear(settings.patch, settings.width)
        self.sequence = sequence_model(settings, mixer)
        self.head = nn.Linear(settings.width, horizon)
        nn.init.zeros_(self.head.weight)

    def begin(self, window: Tensor) -> Stream:
        """An empty stream whose values are normalised as those of `window` `[series, time]`."""
        return Stream(None, window.mean(1, keepdim=True), window.std(1, keepdim=True) + 1e-5)

    def forward(
        self, values: Tensor, stream: Stream | None = None, read: slice = LAST
    ) -> tuple[Tensor, Stream]:
        """Forecast after each patch of `values` that is in `read`.

        Args:
            values: `[series, time]`, whole patches.
            stream: what an earlier call returned; `None` begins with `values` as the window.
            read: which patches' forecasts are wanted.

        Returns:
            `[series, patches in read, horizon]` and the stream after the last patch.
        """
        stream = self.begin(values) if stream is None else stream
        patches = ((values - stream.mean) / stream.std).unflatten(1, (-1, self.patch))
        count = patches.shape[1]
        positions = torch.arange(stream.tokens, stream.tokens + count, device=values.device)
        tokens = self.embed_patch(patches) + sinusoids(positions, self.width)
        outputs, state = self.sequence(tokens, stream.state, read=read)
        forecasts = patches[:, read, -1:] + self.head(outputs)
        stream = dataclasses.replace(stream, state=state, tokens=stream.tokens + count)
        return forecasts * stream.std[..., None] + stream.mean[..., None], stream


class Forecasting(Task):
    """One set and horizon."""

    metrics = ("MSE", "MAE")

    def __init__(self, series: Series, name: str, horizon: int, settings: ForecastSettings) -> None:
        self.name, self.horizon, self.settings = f"{name}, {horizon} steps", horizon, settings
        parts = (series.train, series.validation, series.test)
        if len(series.test) < CONTEXT + horizon or len(series.validation) < CONTEXT + horizon:
            raise UserError(f"--horizons {horizon}: longer than a part of {name}")
        # [windows, channels, time]; a view, no copy.
        self.train_part, self.validation_part, self.test_part = (
            torch.from_numpy(part).to(settings.device).unfold(0, CONTEXT + horizon, 1)
            for part in parts
        )

    def model(self, mixer: str) -> nn.Module:
        """See `Task.model`."""
        return Forecaster(self.settings, mixer, self.horizon)

    def batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """See `Task.batches`."""
        order = torch.randperm(len(self.train_part), generator=generator)
        for chosen in order.split(self.settings.batch_size):
            yield self.train_part[chosen]

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """See `Task.loss`."""
        return (self.predict(model, batch) - batch[..., CONTEXT:]).square().mean()

    def predict(self, model: nn.Module, windows: Tensor) -> Tensor:
        """Forecasts `[windows, channels, horizon]`."""
        forecasts, _ = model(windows[..., :CONTEXT].flatten(0, 1))
        return forecasts[:, -1].view(*windows.shape[:2], -1)

    def errors(self, predict: Predict, part: Tensor) -> dict[str, float]:
        """Mean squared and absolute error over all windows of a part."""
        sums = torch.zeros(2, dtype=torch.float64)
        for windows in part.split(256):
            off = (predict(windows) - windows[..., CONTEXT:]).double()
            sums += torch.stack([off.square().sum(), off.abs().sum()]).cpu()
        mse, mae = (sums / (len(part) * part.shape[1] * self.horizon)).tolist()
        return {"MSE": mse, "MAE": mae}

    def validate(self, model: nn.Module) -> float:
        """See `Task.validate`."""
        return self.errors(lambda windows: self.predict(model, windows), self.validation_part)[
            "MSE"
        ]

    def test(self, model: nn.Module) -> dict[str, float]:
        """See `Task.test`."""
        return self.errors(lambda windows: self.predict(model, windows), self.test_part)

    def baselines(self) -> dict[str, dict[str, float]]:
        """Repeat the last value, and one linear map for all channels."""
        return {
            "last value": self.errors(lambda windows: windows[..., LAST_VALUE], self.test_part),
            "linear map": self.errors(self.linear_map(), self.test_part),
        }

    def linear_map(self) -> Predict:
        """Least squares from the window to the future, both less the window's last value."""
        gram, cross = (
            torch.zeros(CONTEXT, CONTEXT).double(),
            torch.zeros(CONTEXT, self.horizon).double(),
        )
        for windows in self.train_part.split(256):
            rows = (windows - windows[..., LAST_VALUE]).flatten(0, 1).double().cpu()
            past, future = rows[:, :CONTEXT], rows[:, CONTEXT:]
            gram, cross = gram + past.T @ past, cross + past.T @ future
        weights = torch.linalg.solve(
            gram + 1e-3 * gram.trace() / CONTEXT * torch.eye(CONTEXT), cross
        )
        weights = weights.float().to(self.settings.device)

        def predict(windows: Tensor) -> Tensor:
            last = windows[..., LAST_VALUE]
            return (windows[..., :CONTEXT] - last) @ weights + last

        return predict


def main(settings: ForecastSettings) -> list[Row]:
    """Train and compare; one row for each run."""
    if settings.quick:
        settings = dataclasses.replace(
            settings,
            sets=("generated",),
            horizons=(24,),
            seeds=min(2, settings.seeds),
            epochs=2,
            width=32,
        )
    if CONTEXT % settings.patch:
        raise UserError(f"--patch must divide {CONTEXT}, got {settings.patch}")
    tasks = []
    for name in settings.sets:
        series = read_series(settings.data, name, CONTEXT)
        tasks += [Forecasting(series, name, horizon, settings) for horizon in settings.horizons]
    return compare(tasks, settings)


if __name__ == "__main__":
    run(ForecastSettings, main)
