"""Shared fixtures; one thread a process, since the suite runs in two."""

import torch

torch.set_num_threads(1)
