"""Draw the next batch while the accelerator works on this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from aaren_rl.data.sampling import Batch, Sampler


class PrefetchSampler:
    """A sampler that draws one batch ahead, in a thread, with the same batches and positions.

    For training on a GPU, where a batch is gathered and pinned during the update before. On a CPU
    there is nothing to gain: gathering takes 0.05 ms, and the thread would slow the update.

    Args:
        sampler: draws the batches; it must not be used elsewhere any more.
        pin: put batches in page-locked memory (needs CUDA).
    """

    def __init__(self, sampler: Sampler, *, pin: bool) -> None:
        self.sampler, self.pin = sampler, pin
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._ahead: Future[tuple[Batch, dict[str, Any]]] | None = None
        self._state = sampler.state_dict()

    def sample(self) -> Batch:
        """The next batch, on the CPU."""
        ahead = self._ahead or self._thread.submit(self._draw)
        batch, self._state = ahead.result()
        self._ahead = self._thread.submit(self._draw)
        return batch

    def _draw(self) -> tuple[Batch, dict[str, Any]]:
        batch = self.sampler.sample()
        return (batch.pin_memory() if self.pin else batch), self.sampler.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """The sampler's position after the last batch that was asked for."""
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position that `state_dict` gave."""
        if self._ahead is not None:
            self._ahead.result()  # the thread must be done with the sampler
            self._ahead = None
        self.sampler.load_state_dict(state)
        self._state = self.sampler.state_dict()


def prefetched(sampler: Sampler, device: torch.device) -> Sampler:
    """The sampler itself for a CPU, one batch ahead for a GPU."""
    return sampler if device.type == "cpu" else PrefetchSampler(sampler, pin=device.type == "cuda")
