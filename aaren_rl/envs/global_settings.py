"""Global settings of PyTorch and NumPy, which other people's environments may change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def global_settings_kept(*, generator: bool) -> Iterator[None]:
    """Restore PyTorch's grad mode, default dtype and device, and how NumPy treats overflow.

    With `generator` the CPU's generator too.

    The generator is for whole evaluations: restored after each call of an environment, it would
    give that environment the same numbers again and again.
    """
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    device, state = torch.get_default_device(), torch.get_rng_state() if generator else None
    try:
        with np.errstate():
            yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        if state is not None:
            torch.set_rng_state(state)
