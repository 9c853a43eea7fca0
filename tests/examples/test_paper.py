"""The paper's three settings: data as published, stepping equal to the parallel pass, tables."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from aaren_rl.errors import UserError

FOLDER = Path(__file__).parents[2] / "examples" / "paper"
MODULES = ("paper_data", "paper_training", "forecast", "classify", "events", "event_cost")
MIXERS = ("aaren", "attention", "lstm", "min-gru")


@pytest.fixture(scope="module")
def paper() -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path.remove(str(FOLDER))
    for name in MODULES:
        del sys.modules[name]


# Stepping


@pytest.fixture
def shape() -> dict[str, int]:
    torch.manual_seed(0)
    return {"width": 16, "layers": 2, "heads": 2}


def close(steps: list[torch.Tensor], whole: torch.Tensor) -> None:
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mixer", MIXERS)
def test_forecasts_along_a_stream(paper: Any, shape: dict[str, int], mixer: str) -> None:
    model = paper.forecast.Forecaster(paper.forecast.ForecastSettings(**shape), mixer, 24).eval()
    torch.nn.init.normal_(model.head.weight)
    series = torch.randn(3, 192).cumsum(1)  # twice as long as the window
    stream = model.begin(series[:, :96])
    with torch.inference_mode():
        whole, _ = model(series, stream, slice(None))
        steps = []
        for patch in series.split(16, dim=1):
            forecast, stream = model(patch, stream)
            steps.append(forecast)
        close(steps, whole)
        torch.testing.assert_close(model(series[:, :96])[0], whole[:, 5:6])


@pytest.mark.parametrize("mixer", MIXERS)
def test_classes_along_a_stream(paper: Any, shape: dict[str, int], mixer: str) -> None:
    settings = paper.classify.ClassifySettings(**shape)
    model = paper.classify.Classifier(settings, mixer, channels=3, classes=5).eval()
    x, stream, steps = torch.randn(2, 40, 3), None, []
    with torch.inference_mode():
        whole, _ = model(x)
        for piece in x.split([1, 1, 1, 20, 17], dim=1):
            logits, stream = model(piece, stream)
            steps.append(logits)
        close(steps, whole)
        shorter, _ = model(torch.cat([x[:, :25], torch.zeros(2, 15, 3)], 1))
    torch.testing.assert_close(shorter[:, :25], whole[:, :25])  # padding changes nothing before it


@pytest.mark.parametrize("mixer", MIXERS)
def test_events_along_a_stream(paper: Any, shape: dict[str, int], mixer: str) -> None:
    model = paper.events.EventModel(paper.events.EventSettings(**shape), mixer, 7).eval()
    times = torch.rand(2, 30, dtype=torch.float64).cumsum(1)
    marks, stream, steps = torch.randint(7, (2, 30)), None, []
    with torch.inference_mode():
        whole, _ = model(times, marks)
        for number in range(30):
            one = slice(number, number + 1)
            prediction, stream = model(times[:, one], marks[:, one], stream)
            steps.append(prediction)
    for name, value in vars(whole).items():
        close([getattr(step, name) for step in steps], value)


def test_aaren_has_one_token_a_layer_more(paper: Any, shape: dict[str, int]) -> None:
    settings = paper.events.EventSettings(**shape)
    models = [paper.events.EventModel(settings, mixer, 3) for mixer in ("aaren", "attention")]
    aaren, attention = (sum(p.numel() for p in model.parameters()) for model in models)
    assert aaren == attention + 2 * 16


def test_the_cache_grows_and_the_state_does_not(paper: Any, tmp_path: Path) -> None:
    settings = paper.event_cost.CostSettings(events=100, json=tmp_path / "cost.json")
    results = paper.event_cost.main(settings)
    assert len(set(results["aaren"]["bytes"])) == 1
    assert results["attention"]["bytes"][-1] == 100 * results["attention"]["bytes"][0]
    assert (tmp_path / "cost.png").stat().st_size


# What is learned and measured


def test_densities(paper: Any) -> None:
    parts = [
        torch.tensor([[0.3, 0.7]]).log(),
        torch.tensor([[0.0, 1.0]]),
        torch.tensor([[0.5, 1.0]]),
    ]
    mixture = paper.events.Prediction(*parts, torch.zeros(1, 2))
    log_normal = torch.distributions.LogNormal(parts[1][0], parts[2][0])
    weights = torch.distributions.Categorical(logits=parts[0][0])
    expected = torch.distributions.MixtureSameFamily(weights, log_normal)
    gap = torch.tensor([1.7])
    torch.testing.assert_close(mixture.log_density(gap), expected.log_prob(gap))
    torch.testing.assert_close(mixture.log_survival(gap), (1 - expected.cdf(gap)).log())
    torch.testing.assert_close(mixture.mean_gap(1e30), expected.mean[None])
    grid = torch.linspace(1e-6, 2.5, 200_001)
    below = torch.trapezoid(grid * expected.log_prob(grid).exp(), grid) / expected.cdf(grid[-1])
    torch.testing.assert_close(mixture.mean_gap(2.5), below[None], rtol=1e-4, atol=0)


def test_padding_adds_nothing_to_the_likelihood(paper: Any, shape: dict[str, int]) -> None:
    task = paper.events.EventForecasting(
        paper.paper_data.read_events(None, "generated"), "g", paper.events.EventSettings(**shape)
    )
    model = task.model("aaren").eval()
    with torch.inference_mode():
        together = task.measure(model, task.batch(np.arange(4)))
        apart = [task.measure(model, task.batch(np.array([number]))) for number in range(4)]
    for key, value in together.items():
        torch.testing.assert_close(value, sum(one[key] for one in apart), rtol=1e-4, atol=1e-4)


def test_untrained_forecasters_repeat_the_last_value(paper: Any) -> None:
    settings = paper.forecast.ForecastSettings(width=16)
    series = paper.paper_data.read_series(None, "generated", 96)
    task = paper.forecast.Forecasting(series, "generated", 24, settings)
    model = task.model("aaren").eval()
    torch.nn.init.zeros_(model.head.bias)
    errors = task.test(model)
    assert errors["MSE"] == pytest.approx(task.baselines()["last value"]["MSE"], rel=1e-5)
    assert task.baselines()["linear map"]["MSE"] < 0.1 * errors["MSE"]


@pytest.mark.parametrize("name", ["forecast", "classify", "events"])
def test_quick(
    name: str, paper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    module = getattr(paper, name)
    [kind] = [
        value
        for key, value in vars(module).items()
        if key == f"{name.removesuffix('s').capitalize()}Settings"
    ]
    settings = kind(quick=True, json=tmp_path / "rows.json", logs=tmp_path / "logs", precision="32")
    rows = module.main(settings)
    assert [(row["mixer"], row["seed"]) for row in rows] == [
        ("aaren", 0),
        ("attention", 0),
        ("aaren", 1),
        ("attention", 1),
    ]
    assert len(list((tmp_path / "logs").glob("*/events*"))) == 4
    assert "aaren less that of attention" in capsys.readouterr().out
    monkeypatch.delattr(paper.paper_training, "fit")  # nothing is run again
    assert module.main(settings) == rows
    with pytest.raises(UserError, match="other settings"):
        module.main(kind(quick=True, json=tmp_path / "rows.json", dropout=0.5))


def test_a_mistake_is_one_line(paper: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["events.py", "--mixer", "gru", "--sets", "sin"])
    with pytest.raises(SystemExit, match="2"):
        paper.paper_training.run(paper.events.EventSettings, paper.events.main)
    assert capsys.readouterr().err.startswith("error: unknown mixer 'gru'")


# Files


def test_csv_files_of_the_published_size(
    paper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = {"Exchange": ("exchange_rate.csv", 50, 2, None)}
    monkeypatch.setattr(paper.paper_data, "FORECAST_SETS", sets)
    file = tmp_path / "exchange_rate.csv"

    def read() -> Any:
        return paper.paper_data.read_series(tmp_path, "Exchange", 5)

    with pytest.raises(UserError, match="no such file"):
        read()
    lines = [f"2000-01-01 {row}:00,{row},{-row}" for row in range(50)]
    file.write_text("\n".join(["date,0,OT", *lines]))
    series = read()
    assert [len(part) for part in (series.train, series.validation, series.test)] == [35, 10, 15]
    assert series.train.mean() == pytest.approx(0, abs=1e-6)
    assert series.train.std() == pytest.approx(1)
    np.testing.assert_array_equal(series.validation[:5], series.train[-5:])
    file.write_text("\n".join(["date,0,OT", *lines[1:]]))
    with pytest.raises(
        UserError, match=r"50 rows of a date and 2 numbers expected.*got 49 rows of 2"
    ):
        read()
    file.write_text("\n".join(["date,0,OT", *lines[1:], "x,1,nothing"]))
    with pytest.raises(UserError, match=r"exchange_rate.csv: not a CSV file"):
        read()


TS = "@problemName P\n@classLabel true a b\n@data\n1,2,3:4,5,6:a\n7,8:9,10:b\n"


def test_ts_files(paper: Any, tmp_path: Path) -> None:
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"P_{part}.ts").write_text(TS)
    train, _ = paper.paper_data.read_labelled(tmp_path, "P")
    np.testing.assert_array_equal(train.series[0], [[1, 4], [2, 5], [3, 6]])
    assert [len(series) for series in train.series] == [3, 2]
    assert train.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n", "a .ts file expected"),
        (TS + "1,2:3:a\n", "line 6: channels of one length"),
        (TS + "1,2:3,4:c\n", "line 6: channels of one length and one of the classes"),
        (TS + "1,2:a\n", "line 6: as many channels"),
        (TS + "1,?:3,4:a\n", "line 6"),
    ],
)
def test_wrong_ts_files(paper: Any, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "P.ts").write_text(text)
    with pytest.raises(UserError, match=message):
        paper.paper_data.read_ts(tmp_path / "P.ts")


def test_event_files_of_three_layouts(paper: Any, tmp_path: Path) -> None:
    rng, lengths = np.random.default_rng(0), np.full(10, 4)
    times, marks = rng.uniform(0.1, 1, (10, 4)).cumsum(1), rng.integers(1, 4, (10, 4))
    np.savez(
        tmp_path / "flat.npz", times=times.ravel(), marks=marks.ravel(), lengths=lengths,
        is_test=np.arange(10) >= 8,
    )  # fmt: skip
    (tmp_path / "texts").mkdir()
    for part, rows in (("train", slice(8)), ("test", slice(8, 10))):
        for kind, values in (("time", times), ("event", marks)):
            text = "\n".join(" ".join(map(str, row)) for row in values[rows])
            (tmp_path / "texts" / f"{kind}-1-{part}.txt").write_text(text)
    saved = [
        {"arrival_times": t, "marks": m}
        for t, m in zip(times.tolist(), marks.tolist(), strict=True)
    ]
    torch.save({"sequences": saved, "num_marks": 3}, tmp_path / "saved.pkl")
    flat, texts, saved_too = (
        paper.paper_data.read_events(tmp_path, name) for name in ("flat", "texts", "saved")
    )
    for events in (flat, texts):
        assert [part.tolist() for part in events.parts] == [list(range(6)), [6, 7], [8, 9]]
        np.testing.assert_allclose(events.times[3], flat.times[3])
        np.testing.assert_array_equal(events.marks[3], marks[3] - 1)
    assert [len(part) for part in saved_too.parts] == [6, 2, 2]
    gaps = np.concatenate([np.diff(flat.times[number]) for number in flat.parts[0]])
    assert gaps.mean() == pytest.approx(1)  # the unit


def test_wrong_event_files(paper: Any, tmp_path: Path) -> None:
    read = paper.paper_data.read_events
    with pytest.raises(UserError, match=r"no gone\.npz, gone\.pkl or folder gone"):
        read(tmp_path, "gone")
    np.savez(tmp_path / "objects.npz", times=np.array([[1], [1, 2]], dtype=object), lengths=[1])
    with pytest.raises(UserError, match="pickles and are not loaded"):
        read(tmp_path, "objects")
    np.savez(tmp_path / "short.npz", times=np.arange(4.0), lengths=[2, 3])
    with pytest.raises(UserError, match="lengths add up to 5"):
        read(tmp_path, "short")
    np.savez(tmp_path / "down.npz", times=np.array([2.0, 1.0] * 10), lengths=[2] * 10)
    with pytest.raises(UserError, match="sequence 0: at least 2 ascending"):
        read(tmp_path, "down")
    torch.save({"sequences": [Path("x")]}, tmp_path / "code.pkl")
    with pytest.raises(UserError, match="without other objects"):
        read(tmp_path, "code")
