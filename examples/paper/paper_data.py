"""Data of the paper's three settings outside RL: public files as published, and small made-up sets.

Every reader checks the sizes that are published for a set and raises one `UserError` that names the
file and what was expected. No pickled objects are loaded.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aaren_rl.errors import UserError, one_line

HOUR_SPLIT, QUARTER_SPLIT = (8_640, 2_880, 2_880), (34_560, 11_520, 11_520)  # rows
FORECAST_SETS: dict[str, tuple[str, int, int, tuple[int, ...] | None]] = {
    "ETTh1": ("ETTh1.csv", 17_420, 7, HOUR_SPLIT),
    "ETTh2": ("ETTh2.csv", 17_420, 7, HOUR_SPLIT),
    "ETTm1": ("ETTm1.csv", 69_680, 7, QUARTER_SPLIT),
    "ETTm2": ("ETTm2.csv", 69_680, 7, QUARTER_SPLIT),
    "Exchange": ("exchange_rate.csv", 7_588, 8, None),
    "Weather": ("weather.csv", 52_696, 21, None),
    "ECL": ("electricity.csv", 26_304, 321, None),
    "Traffic": ("traffic.csv", 17_544, 862, None),
}
"""File, rows, channels, and the rows of each part; `None` is 70, 10 and 20%."""
UEA_SETS: dict[str, tuple[int, int, int, int]] = {
    "EthanolConcentration": (261, 263, 3, 4),
    "FaceDetection": (5_890, 3_524, 144, 2),
    "Handwriting": (150, 850, 3, 26),
    "Heartbeat": (204, 205, 61, 2),
    "JapaneseVowels": (270, 370, 12, 9),
    "PEMS-SF": (267, 173, 963, 7),
    "SelfRegulationSCP1": (268, 293, 6, 2),
    "SelfRegulationSCP2": (200, 180, 7, 2),
    "SpokenArabicDigits": (6_599, 2_199, 13, 10),
    "UWaveGestureLibrary": (120, 320, 3, 8),
}
"""Series to train on, series to test on, channels, classes."""
WIKIPEDIA = (1_000, 157_471, 8_227)
"""Sequences, events and marks."""
GENERATED = "generated"


def require(folder: Path | None, name: str, files: Sequence[str]) -> list[Path]:
    """The paths of a set's files.

    Raises:
        UserError: without a folder, or when one of them is missing.
    """
    if folder is None:
        raise UserError(f"--data DIR expected, the folder with {' and '.join(files)} for {name}")
    paths = [folder / file for file in files]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file; {name} needs it")
    return paths


# Forecasting


@dataclass(frozen=True)
class Series:
    """The parts of a standardised series, `[rows, channels]` in float32.

    Validation and test part begin with the rows of context before them.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def read_series(folder: Path | None, name: str, context: int) -> Series:
    """A set of `FORECAST_SETS`, or the generated one.

    Args:
        folder: where the CSV files are.
        name: of the set.
        context: rows that a forecast looks back on.

    Raises:
        UserError: for an unknown set or a file that is not the published one.
    """
    if name == GENERATED:
        return split_series(waves(), (600, 200, 200), context)
    if name not in FORECAST_SETS:
        raise UserError(f"unknown set {name!r}. Known: {', '.join([*FORECAST_SETS, GENERATED])}")
    file, rows, channels, lengths = FORECAST_SETS[name]
    [path] = require(folder, name, [file])
    try:
        values = pd.read_csv(path).iloc[:, 1:].to_numpy(np.float64)  # the first column is the date
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise UserError(
            f"{path}: not a CSV file of a date and numbers ({one_line(error)})"
        ) from None
    if values.shape != (rows, channels):
        raise UserError(
            f"{path}: {rows} rows of a date and {channels} numbers expected, as {name} is "
            f"published; got {values.shape[0]} rows of {values.shape[1]}"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{path}: finite numbers expected; row {_first_bad(values)} has another")
    if lengths is None:
        train, test = int(0.7 * rows), int(0.2 * rows)
        lengths = train, rows - train - test, test
    return split_series(values, lengths, context)


def _first_bad(values: np.ndarray) -> int:
    return int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])


def split_series(values: np.ndarray, lengths: tuple[int, ...], context: int) -> Series:
    """Cut a series `[rows, channels]` in three, standardised by the training part's statistics."""
    ends = np.cumsum(lengths)
    part = values[: ends[0]]
    values = ((values - part.mean(0)) / (part.std(0) + 1e-8)).astype(np.float32)
    return Series(
        values[: ends[0]],
        values[ends[0] - context : ends[1]],
        values[ends[1] - context : ends[2]],
    )


def waves(rows: int = 1_000, channels: int = 3) -> np.ndarray:
    """Noisy sines of different periods, `[rows, channels]`."""
    rng, time = np.random.default_rng(0), np.arange(rows)[:, None]
    periods = 24.0 * (1 + np.arange(channels))
    return np.sin(2 * np.pi * time / periods) + 0.1 * rng.normal(size=(rows, channels))


# Classification


@dataclass(frozen=True)
class Labelled:
    """Series of one part: `series[i]` is float32 `[time, channels]`, `labels` int64 `[series]`."""

    series: list[np.ndarray]
    labels: np.ndarray
    classes: tuple[str, ...]


def read_labelled(folder: Path | None, name: str) -> tuple[Labelled, Labelled]:
    """Training and test part of a set in the UEA archive's `.ts` files, or of the generated one.

    Raises:
        UserError: for files that are missing, broken, or not of the published size.
    """
    if name == GENERATED:
        return wave_classes(90, seed=0), wave_classes(60, seed=1)
    train, test = (
        read_ts(path) for path in require(folder, name, [f"{name}_TRAIN.ts", f"{name}_TEST.ts"])
    )
    sizes = len(train.series), len(test.series), train.series[0].shape[1], len(train.classes)
    expected = UEA_SETS.get(name, sizes)
    if sizes != expected:
        raise UserError(
            f"{name}: {expected[0]} series to train on, {expected[1]} to test on, {expected[2]} "
            f"channels and {expected[3]} classes expected; got {', '.join(map(str, sizes))}"
        )
    if test.classes != train.classes or test.series[0].shape[1] != sizes[2]:
        raise UserError(
            f"{name}: the test part has other classes or channels than the training part"
        )
    return train, test


def read_ts(path: Path) -> Labelled:
    """One `.ts` file: colons between channels and before the class, commas between values."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    starts = [number for number, line in enumerate(lines) if line.strip().lower() == "@data"]
    heads = [line.split() for line in lines if line.lower().startswith("@classlabel true ")]
    if not starts or not heads:
        raise UserError(f"{path}: no @classLabel true and @data lines; a .ts file expected")
    classes = tuple(heads[0][2:])
    series, labels = [], []
    for number, line in enumerate(lines[starts[0] + 1 :], starts[0] + 2):
        if not line.strip():
            continue
        *channels, label = line.strip().split(":")
        try:
            rows = np.array([channel.split(",") for channel in channels], dtype=np.float32)
            labels.append(classes.index(label))
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: channels of one length and one of the classes expected "
                f"({one_line(error)})"
            ) from None
        if (
            rows.ndim != 2
            or not np.isfinite(rows).all()
            or (series and len(rows) != series[0].shape[1])
        ):
            raise UserError(
                f"{path}, line {number}: as many channels of finite numbers as above expected"
            )
        series.append(rows.T.copy())
    if not series:
        raise UserError(f"{path}: no series behind @data")
    return Labelled(series, np.array(labels), classes)


def wave_classes(count: int, seed: int) -> Labelled:
    """Noisy sines of 20 to 40 steps whose period is the class: one of 3."""
    rng = np.random.default_rng(seed)
    labels, series = rng.integers(0, 3, count), []
    for label in labels:
        time = np.arange(rng.integers(20, 41)) + rng.uniform(0, 20)
        wave = np.stack([np.sin(time * (0.3 + 0.4 * label)), np.cos(time * (0.3 + 0.4 * label))], 1)
        series.append((wave + 0.3 * rng.normal(size=wave.shape)).astype(np.float32))
    return Labelled(series, labels, ("slow", "middle", "fast"))


# Events


@dataclass(frozen=True)
class Events:
    """Sequences of events.

    Attributes:
        times: float64 `[events]` each, ascending; the unit is the mean time between two events of
            the training part, and 0 is the beginning of the window of observation.
        marks: int64 `[events]` each, from 0.
        num_marks: 1 where there are no marks.
        end: end of the window, in the same unit.
        parts: numbers of the sequences to train on, to validate on and to test on.
    """

    times: list[np.ndarray]
    marks: list[np.ndarray]
    num_marks: int
    end: float
    parts: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def longest(self) -> float:
        """The longest time between two events of the training part."""
        return float(max(np.diff(self.times[number]).max() for number in self.parts[0]))

    def batch(self, chosen: np.ndarray, device: str) -> EventBatch:
        """Some of the sequences."""
        times = [torch.from_numpy(self.times[number]) for number in chosen]
        marks = [torch.from_numpy(self.marks[number]) for number in chosen]
        lengths = torch.tensor([len(one) for one in times])
        # Padded by the last time, so that times ascend to the end.
        padded = pad_sequence(times, batch_first=True)
        real = torch.arange(padded.shape[1]) < lengths[:, None]
        tensors = (
            torch.where(real, padded, padded.amax(1, True)),
            pad_sequence(marks, True),
            lengths,
        )
        return EventBatch(*(tensor.to(device) for tensor in tensors))


class EventBatch(NamedTuple):
    """Sequences padded at the end: times and marks `[batch, events]`, and how many are real."""

    times: Tensor
    marks: Tensor
    lengths: Tensor


def read_events(folder: Path | None, name: str) -> Events:
    """Sequences by name, in one of three layouts, or generated ones.

    - `NAME.npz` with flat arrays `times`, `marks` and `lengths`, and maybe `is_test`;
    - `NAME/time-1-train.txt`, `event-1-train.txt` and the same for `test`, a line for each
      sequence, as Du et al. (2016) published StackOverflow and MIMIC;
    - `NAME.pkl` by `torch.save`, as Shchur et al. (2020) published Wikipedia, Reddit and MOOC.
    """
    if name in ("sin", GENERATED):
        return prepare(*(sines() if name == "sin" else sines(sequences=60, most=40)), None)
    if folder is None:
        raise UserError(f"--data DIR expected, the folder with the events of {name}")
    flat, saved, texts = (folder / f"{name}{end}" for end in (".npz", ".pkl", ""))
    if flat.is_file():
        events = prepare(*read_flat(flat))
    elif saved.is_file():
        events = prepare(*read_saved(saved), None)
    elif texts.is_dir():
        events = prepare(*read_texts(texts))
    else:
        raise UserError(f"{folder}: no {flat.name}, {saved.name} or folder {name} of texts there")
    sizes = len(events.times), sum(map(len, events.times)), events.num_marks
    if name == "wikipedia" and sizes != WIKIPEDIA:
        raise UserError(f"{name}: {WIKIPEDIA} sequences, events and marks expected, got {sizes}")
    return events


Ragged = list[np.ndarray]


def read_flat(path: Path) -> tuple[Ragged, Ragged, np.ndarray | None]:
    """Times, marks and, where the file says it, which sequences are to test on."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError) as error:
        raise UserError(
            f"{path}: flat arrays `times`, `marks` and `lengths` expected; arrays of Python "
            f"objects are pickles and are not loaded ({one_line(error)})"
        ) from None
    missing = {"times", "lengths"} - arrays.keys()
    if missing:
        raise UserError(f"{path}: no {', '.join(sorted(missing))} in it; got {', '.join(arrays)}")
    times, lengths = arrays["times"], arrays["lengths"]
    marks = arrays.get("marks", np.zeros(len(times), np.int64))
    if not (lengths.sum() == len(times) == len(marks)):
        raise UserError(
            f"{path}: lengths add up to {lengths.sum()}; {len(times)} times and {len(marks)} "
            "marks in it"
        )
    cuts = np.cumsum(lengths)[:-1]
    return np.split(times, cuts), np.split(marks, cuts), arrays.get("is_test")


def read_saved(path: Path) -> tuple[Ragged, Ragged]:
    """Times and marks of a file by `torch.save`, read without running any code in it."""
    try:
        sequences = torch.load(path, weights_only=True)["sequences"]
        times = [np.asarray(one["arrival_times"], np.float64) for one in sequences]
        marks = [
            np.asarray(one.get("marks", [0] * len(t)))
            for one, t in zip(sequences, times, strict=True)
        ]
    except (
        pickle.UnpicklingError,
        RuntimeError,
        KeyError,
        TypeError,
        ValueError,
        EOFError,
    ) as error:
        raise UserError(
            f"{path}: a dictionary with `sequences`, each with lists `arrival_times` and `marks`, "
            f"expected, saved by torch.save without other objects ({one_line(error)})"
        ) from None
    return times, marks


def read_texts(folder: Path) -> tuple[Ragged, Ragged, np.ndarray]:
    """Times, marks and which sequences are to test on."""
    found: dict[str, Ragged] = {"time": [], "event": []}
    counts = []
    for part in ("train", "test"):
        for kind in found:
            [path] = require(folder, folder.name, [f"{kind}-1-{part}.txt"])
            try:
                found[kind] += [
                    np.array(line.split(), float)
                    for line in path.read_text().splitlines()
                    if line.strip()
                ]
            except ValueError as error:
                raise UserError(f"{path}: numbers expected, apart by spaces ({error})") from None
        counts.append(len(found["time"]))
    return found["time"], found["event"], np.arange(counts[1]) >= counts[0]


def prepare(times: Ragged, marks: Ragged, is_test: np.ndarray | None) -> Events:
    """Check sequences, split them and bring their times to the unit that `Events` names.

    Split as the file says it, a fifth of the training part for validation, else 60, 20 and 20% in
    the file's order.
    """
    if len(times) != len(marks) or any(len(t) != len(m) for t, m in zip(times, marks, strict=True)):
        raise UserError("events: as many marks as times expected in every sequence")
    for number, sequence in enumerate(times):
        if len(sequence) < 2 or not np.isfinite(sequence).all() or (np.diff(sequence) < 0).any():
            raise UserError(
                f"events: sequence {number}: at least 2 ascending, finite times expected"
            )
    numbers = np.arange(len(times))
    if is_test is None:
        parts = tuple(np.split(numbers, [int(0.6 * len(times)), int(0.8 * len(times))]))
    else:
        rest = numbers[~is_test]
        parts = (*np.split(rest, [int(0.8 * len(rest))]), numbers[is_test])
    if any(len(part) == 0 for part in parts):
        raise UserError(
            f"events: {len(times)} sequences are too few to train, validate and test on"
        )
    start = min(sequence[0] for sequence in times)
    unit = np.concatenate([np.diff(times[number]) for number in parts[0]]).mean()
    found, codes = np.unique(np.concatenate(marks), return_inverse=True)
    coded = np.split(codes.astype(np.int64), np.cumsum([len(m) for m in marks])[:-1])
    scaled = [(sequence - start) / unit for sequence in times]
    return Events(scaled, coded, len(found), max(s[-1] for s in scaled), parts)


def sines(sequences: int = 1_000, fewest: int = 20, most: int = 200) -> tuple[Ragged, Ragged]:
    """Events in [0, 32 pi] at a rate like 1 + sin(t / 2), whose period is 4 pi."""
    rng, times = np.random.default_rng(0), []
    for count in rng.integers(fewest, most + 1, sequences):
        kept = np.empty(0)
        while len(kept) < count:  # rejection from the uniform distribution
            proposal = rng.uniform(0, 32 * np.pi, 2 * count)
            kept = np.append(
                kept, proposal[rng.uniform(0, 2, 2 * count) < 1 + np.sin(proposal / 2)]
            )
        times.append(np.sort(kept[:count]))
    return times, [np.zeros(len(sequence), np.int64) for sequence in times]
