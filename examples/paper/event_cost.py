"""Time and bytes of the event model's step against the number of events (the paper's figure 5).

    python examples/paper/event_cost.py --json cost.json

Aaren carries a state of one size. The Transformer's cache grows, and with it the time of a step.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from events import EventModel, EventSettings
from paper_training import run

from aaren_rl.files import write_json

MARKS = 22  # as StackOverflow has; what a step costs does not depend on the weights


@dataclass(frozen=True)
class CostSettings:
    """Feed events one by one to untrained models and time each step, on one thread."""

    events: int = 10_000
    """How many."""
    mixer: tuple[str, ...] = ("aaren", "attention")
    """Sequence mixers."""
    plugin: tuple[str, ...] = ()
    """Modules that register further mixers."""
    json: Path | None = None
    """File for the results."""


def main(settings: CostSettings) -> dict[str, Any]:
    """Measure all mixers; with `--json`, write a file and a picture beside it."""
    looks = sorted({round(number) for number in np.geomspace(1, settings.events, 40)})
    results: dict[str, Any] = {"events": looks}
    times, mark = torch.arange(settings.events).double()[None], torch.zeros(1, 1).long()
    torch.set_num_threads(1)
    for mixer in settings.mixer:
        torch.manual_seed(0)
        model, stream = EventModel(EventSettings(), mixer, MARKS).eval(), None
        seconds, sizes = [], []
        with torch.inference_mode():
            for number in range(settings.events):
                start = time.thread_time()  # the time that this thread ran
                _, stream = model(times[:, number : number + 1], mark, stream)
                seconds.append(time.thread_time() - start)
                sizes.append(stream.state.nbytes)
        around = [float(np.median(seconds[max(0, n - 100) : n + 100])) for n in looks]
        results[mixer] = {
            "microseconds": [1e6 * each for each in around],
            "total_seconds": [float(np.cumsum(seconds)[n - 1]) for n in looks],
            "bytes": [sizes[n - 1] for n in looks],
        }
        print(
            f"{mixer}: after {looks[-1]:,} events {1e6 * around[-1]:.0f} us a step, "
            f"{sum(seconds):.2f} s in all, {sizes[-1]:,} bytes"
        )
    if settings.json is not None:
        write_json(settings.json, results)
        draw(results, settings.json.with_suffix(".png"))
    return results


def draw(results: dict[str, Any], path: Path) -> None:
    """Bytes and cumulated time over the number of events, a line for each mixer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panels = figure.subplots(1, 2)
    units = {"bytes": "bytes of state", "total_seconds": "seconds for all events"}
    for panel, (key, label) in zip(panels, units.items(), strict=True):
        for mixer in results.keys() - {"events"}:
            panel.plot(results["events"], results[mixer][key], label=mixer)
        panel.set(xlabel="events", ylabel=label, xscale="log", yscale="log")
        panel.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run(CostSettings, main)
