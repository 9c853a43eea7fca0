"""PyTorch's global settings, which other people's environments may change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_settings_kept(*, generator: bool) -> Iterator[None]:
    """Restore the grad mode and the default dtype, and with `generator` the CPU's generator too.

    The generator is for whole evaluations: restored after each call of an environment, it would
    give that environment the same numbers again and again.
    """
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    state = torch.get_rng_state() if generator else None
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if state is not None:
            torch.set_rng_state(state)
